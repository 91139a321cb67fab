"""Write a paragraph for a methods section with its references, from the declarations of the model and the run."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from rimap import __version__
from rimap.advice import listed
from rimap.errors import InputError, count_of
from rimap.estimators.network_files import metadata_of, path_of, shipped
from rimap.map_display import name_of
from rimap.report.formula import formula_of
from rimap.report.number_formats import number, plain, plural, sd_origin, sigma_number, sigma_origin
from rimap.report.statistics import known_parameters
from rimap.series import ParameterMaps
from rimap.signals.base import Parameter, SignalModel
from rimap.signals.model_options import other_options
from rimap.signals.settings import Setting, unit_symbol

SABIDUSSI = (
    "Sabidussi ER, Klein S, Caan MWA, Bazrafkan S, den Dekker AJ, Sijbers J, Niessen WJ, Poot DHJ. Recurrent inference "
    "machines as inverse problem solvers for MR relaxometry. Medical Image Analysis 74:102220, 2021. "
    "doi:10.1016/j.media.2021.102220"
)
BARRAL = (
    "Barral JK, Gudmundson E, Stikov N, Etezadi-Amoli M, Stoica P, Nishimura DG. A robust methodology for in vivo T1 "
    "mapping. Magnetic Resonance in Medicine 64:1057-1067, 2010. doi:10.1002/mrm.22497"
)
PUTZKY = "Putzky P, Welling M. Recurrent inference machines for solving inverse problems. arXiv:1706.04008, 2017"
HE = (
    "He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. IEEE Conference on Computer Vision and "
    "Pattern Recognition, 2016. doi:10.1109/CVPR.2016.90"
)
RICE = (
    "Gudbjartsson H, Patz S. The Rician distribution of noisy MRI data. Magnetic Resonance in Medicine 34:910-914, "
    "1995. doi:10.1002/mrm.1910340618"
)
MPPCA = (
    "Veraart J, Novikov DS, Christiaens D, Ades-Aron B, Sijbers J, Fieremans E. Denoising of diffusion MRI using "
    "random matrix theory. NeuroImage 142:394-406, 2016. doi:10.1016/j.neuroimage.2016.08.016"
)
BIDS = (
    "Karakuzu A, Appelhoff S, Auer T, Boudreau M, et al. qMRI-BIDS: an extension to the Brain Imaging Data Structure "
    "for quantitative magnetic resonance imaging data. Scientific Data 9:517, 2022. doi:10.1038/s41597-022-01571-4"
)
COLOURS = (
    "Fuderer M, Wichtmann B, Crameri F, et al. Color-map recommendation for MR relaxometry maps. Magnetic Resonance in "
    "Medicine 93:490, 2025. doi:10.1002/mrm.30290"
)

#: References that models cite by author and DOI, in full.
_IN_FULL = (SABIDUSSI, BARRAL)
#: Value of `ParameterMaps.sd_source` for Cramér-Rao bounds.
CRAMER_RAO = "Cramér-Rao bound"
#: If a setting has more values than this and they are equally spaced, the text gives them as a range.
_MOST_VALUES = 8

#: A sentence on each of rimap's estimators, with a place for the numbers of its references, and the references.
_ESTIMATORS = {
    "mle": ("All voxels were fitted together by regularised maximum likelihood (Eq. 2 of {})", (SABIDUSSI,)),
    "rim": ("The maps were estimated by a recurrent inference machine {}", (SABIDUSSI, PUTZKY)),
    "resnet": ("The maps were estimated by a residual network {}", (SABIDUSSI, HE)),
}


def options_of(maps: ParameterMaps) -> dict[str, str]:
    """Return the settings of the estimator on which the maps depend."""
    without = {"threads", "network_sha256"}  # no value depends on the one; the other names what "network" names
    if not any(parameter.smooth for parameter in maps.model.parameters):
        without.add("lambda_B")
    return {
        str(key): plain(value)
        for key, value in maps.settings.items()
        if value not in (None, {}, (), []) and key not in without
    }


def voxelwise(maps: ParameterMaps) -> str:
    """Return the method if each voxel was fitted on its own, ``least squares`` or ``maximum likelihood``; else ""."""
    smooth = any(parameter.smooth for parameter in maps.model.parameters) and maps.settings.get("lambda_B") != 0
    if maps.estimator == "nlls" or (maps.estimator == "mle" and not smooth):
        rician = maps.estimator == "mle" and maps.noise is not None and maps.noise.name == "rician"
        return "maximum likelihood" if rician else "least squares"
    return ""


def title_of(maps: ParameterMaps, title: str) -> str:
    """Return the estimator in words: its title, unless this mentions a smooth parameter that the model lacks."""
    if maps.estimator != "mle" or not (by := voxelwise(maps)):
        return title
    return "Maximum likelihood in each voxel" + (", which is least squares" if by == "least squares" else "")


def _estimation(maps: ParameterMaps, title: str, cite: Callable[..., str], start: str) -> str:
    """Return what the estimator does, in a sentence with its options."""
    named = _OF_NETWORKS if maps.estimator in ("rim", "resnet") else ()
    options = "; ".join(f"{key} = {value}" for key, value in options_of(maps).items() if key not in named)
    options = f" ({options})" if options else ""
    if by := voxelwise(maps):
        return f"Each voxel was fitted separately by {by}, with a search for the global optimum{options}"
    if maps.estimator not in _ESTIMATORS:
        return f"The estimator was {_inside_a_sentence(title_of(maps, title) or maps.estimator)}{options}"
    sentence, books = _ESTIMATORS[maps.estimator]
    sentence = sentence.format(cite(*books))
    smooth = [
        name_of(parameter)
        for parameter in maps.model.parameters
        if parameter.smooth and parameter.name not in known_parameters(maps)
    ]
    if maps.estimator == "mle" and smooth:
        sentence += f", with {listed(smooth)} constrained to vary smoothly in space"
    return sentence + options + _network(maps, cite(SABIDUSSI), start)


#: Settings of a network that the sentences already contain, or that mean nothing to a reader.
_OF_NETWORKS = ("network", "scale", "sd_draws", "sd_from")


def start_of(network: str) -> str:
    """Return the starting point of a RIM, given the name of a shipped network or its file; "" if it is unknown."""
    try:
        return str((metadata_of(path_of(network)).get("rim") or {}).get("start", ""))
    except (InputError, OSError):
        return ""


def _network(maps: ParameterMaps, paper: str, start: str) -> str:
    """Return the name of the network and, if it is known to differ from that of the paper, how it differs."""
    name = maps.settings.get("network")
    if maps.estimator not in ("rim", "resnet") or not name:
        return ""
    ships = str(name) in shipped()
    text = f", the network {name}{' that ships with rimap' if ships else ', which does not ship with rimap'}"
    if (start or (start_of(str(name)) if ships else "")) not in ("smooth_B", "likelihood"):
        return text
    smooth = " and ".join(parameter.name for parameter in maps.model.parameters if parameter.smooth)
    text = (
        f"{text}. Its design differs from that of {paper}: it starts at the maximum of the likelihood"
        f"{f' with a smooth {smooth}' if smooth else ''}, and its inputs and outputs are in units of the Cramér-Rao "
        f"bound"
    )
    if maps.settings.get("sd_from") != "network":
        return text
    return (
        f"{text}. Detail that the data show and that the network had smoothed away was restored in its maps. Its "
        f"standard deviations are "
        "outputs of the network, scaled so that 95 % intervals have this coverage in simulated heads that were not "
        "used for training"
    )


def methods(maps: ParameterMaps, title: str, version: str = __version__, start: str = "") -> tuple[str, list[str]]:
    """Return the paragraph, with numbers in brackets, and the references in that order.

    Parameters
    ----------
    title
        The estimator in words.
    version
        The version of rimap that made the maps.
    start
        Starting point of a network, see `start_of`; by default that of the shipped network with this name.
    """
    cited: list[str] = []

    def cite(*books: str) -> str:
        cited.extend(book for book in books if book not in cited)
        return "[" + ", ".join(str(cited.index(book) + 1) for book in books) + "]"

    model = maps.model
    kind = "" if not model.changes_sign else "signed " if model.is_signed else "magnitude "
    sentences = [
        f"{name_of(model.main)} maps were estimated with rimap {version} {cite(SABIDUSSI)} from "
        f"{count_of(model.n_images, f'{kind}image')} ({_inside_a_sentence(model.title)}; "
        f"{', '.join(settings_in_words(model))})"
    ]
    if formula := formula_of(model):
        reference = f" {cite(in_full(model.reference))}" if model.reference else ""
        sentences.append(f"The signal was modelled as {formula}{reference}{_where(model)}")
        missing = [
            setting.title
            for setting in model.settings.values()
            if getattr(model, setting.name) is None and _in_formula(setting, model)
        ]
        if missing:
            verb, what = ("was", "it") if len(missing) == 1 else ("were", "them")
            sentences.append(f"The {listed(missing)} {verb} not known, so the terms with {what} were left out")
    for parameter in model.parameters:
        if parameter.name in known_parameters(maps):
            sentences.append(_known(parameter, maps))
    if maps.settings.get("denoise"):
        sentences.append(
            f"Before the fit, the images were denoised by MP-PCA in patches of 5 × 5 voxels of a slice {cite(MPPCA)}"
        )
    sentences.append(_estimation(maps, title, cite, start))
    sentences += [
        f"{name_of(d)} ({d.meaning or 'a derived map'}) was computed from these parameters" for d in model.derived
    ]
    sentences += _noise_sentences(maps, cite)
    sentences.append(f"Files are named according to qMRI-BIDS {cite(BIDS)}")
    sentences.append(f"The colours of the maps follow the recommendation of the ISMRM {cite(COLOURS)}")
    return " ".join(f"{sentence}." for sentence in sentences if sentence), cited


def _noise_sentences(maps: ParameterMaps, cite: Callable[..., str]) -> list[str]:
    """Return which likelihood and which standard deviations were used."""
    sentences, sigma = [], sigma_number(maps)
    if maps.noise is not None:
        only_sd = maps.estimator == "nlls" and maps.noise.name == "rician"
        text = "For the standard deviations, the noise was assumed to be " if only_sd else "The likelihood was "
        text += maps.noise.name.capitalize()
        text += f" {cite(RICE)}" if maps.noise.name == "rician" else ""
        sentences.append(text + ("" if sigma is None else f" with σ = {number(sigma)} ({sigma_origin(maps)})"))
    if sd_origin(maps):
        draws = maps.settings.get("sd_draws")
        if draws:
            sentences.append(
                f"Standard deviations were estimated by a parametric bootstrap with {draws} noise draws around the maps"
            )
        elif maps.sd_source == CRAMER_RAO:
            derived = ", and those of derived maps follow by error propagation" if _has_derived_sd(maps) else ""
            sentences.append(f"Standard deviations are Cramér-Rao bounds at the estimate{derived}")
        else:
            sentences.append(f"Standard deviations are the {maps.sd_source}")
    return sentences


def _has_derived_sd(maps: ParameterMaps) -> bool:
    """Return whether a derived map has standard deviations."""
    return any(d.name in maps.sd and np.isfinite(maps.sd[d.name]).any() for d in maps.model.derived)


def _where(model: SignalModel) -> str:
    """Return the meaning of the symbols of the formula, for the parameters that declare one."""
    meanings = []
    for parameter in model.parameters:
        if parameter.meaning:
            the = "the " if parameter.meaning[0].isalpha() else ""  # "1 + T1/T1*" needs no article
            meanings.append(f"{name_of(parameter)} is {the}{re.split('[;,]', parameter.meaning)[0]}")
    return f", where {listed(meanings)}" if meanings else ""


def _in_formula(setting: Setting, model: SignalModel) -> bool:
    return bool(re.search(rf"(?<![A-Za-z]){re.escape(setting.symbol)}(?![A-Za-z])", formula_of(model)))


def _known(p: Parameter, maps: ParameterMaps) -> str:
    """Return where a parameter that was not estimated comes from."""
    values = maps[p.name]
    values = values[np.isfinite(values)]
    if values.size and np.ptp(values) <= 1e-9 * np.abs(values).max():
        return f"{name_of(p)} was fixed at {number(float(values[0]))} {unit_symbol(p.unit)}".rstrip()
    return f"{name_of(p)} was taken from a given map"


def settings_in_words(model: SignalModel) -> list[str]:
    """Return each setting of a model with its values and unit, and its other options.

    >>> from rimap import T2Decay
    >>> settings_in_words(T2Decay(tau=[10, 20, 40]))
    ['echo times of 10, 20 and 40 ms']
    >>> settings_in_words(T2Decay(tau=range(10, 330, 10)))
    ['32 echo times from 10 to 320 ms in steps of 10 ms']
    """
    words = []
    for setting in model.settings.values():
        value = getattr(model, setting.name)
        if value is not None:
            words.append(_in_words(setting, np.atleast_1d(np.asarray(value, dtype=float)).tolist()))
    return words + [f"{name} {value}" for name, value in options_of_model(model).items()]


def options_of_model(model: SignalModel) -> dict[str, str]:
    """Return the fields of a model that are neither settings nor its polarity or bounds, such as a slice profile."""
    return {name.replace("_", " "): plain(getattr(model, name)) for name in other_options(model)}


def _in_words(setting: Setting, values: list[float]) -> str:
    unit = unit_symbol(setting.unit)
    gap, of = "" if unit in ("", "°") else " ", " of" if unit else ""
    if len(set(values)) == 1:
        return f"{setting.title}{of} {values[0]:.6g}{gap}{unit}"
    if setting.per_image:  # the order in which the images are stored does not matter
        values = sorted(values)
    steps = np.diff(values)
    if len(values) > _MOST_VALUES and np.ptp(steps) < 1e-6 * abs(steps).max():
        first, last, step = (f"{v:.6g}" for v in (values[0], values[-1], steps[0]))
        return f"{len(values)} {plural(setting.title)} from {first} to {last}{gap}{unit} in steps of {step}{gap}{unit}"
    degree = unit if unit == "°" else ""  # which follows each number: 3° and 20°
    return (
        f"{plural(setting.title)}{of} "
        f"{listed([f'{value:.6g}{degree}' for value in values])}{'' if degree else gap + unit}"
    )


def _inside_a_sentence(title: str) -> str:
    """Return a title with a small first letter, unless its first word is an abbreviation (T2, MP2RAGE)."""
    first = title.split(" ", 1)[0]
    return title if any(c.isupper() or c.isdigit() for c in first[1:]) else title[:1].lower() + title[1:]


def in_full(reference: str) -> str:
    """Return the reference of a model in full if it is known, or else as the model gives it."""
    doi = re.search(r"doi:\s*(\S+?)[.,;]?(?:\s|$)", reference)
    return next((full for full in _IN_FULL if doi and doi[1] in full), reference)
