"""What to paste into a methods section, and what to cite: according to what was done."""

from __future__ import annotations

import numpy as np

from rimap import __version__
from rimap.errors import InputError
from rimap.estimators.shipped import metadata_of, path_of, shipped
from rimap.report.numbers import ms, number, plain, sd_origin, sigma_number, sigma_origin
from rimap.series import ParameterMaps
from rimap.signals.base import bids_time

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
BIDS = (
    "Karakuzu A, Appelhoff S, Auer T, Boudreau M, et al. qMRI-BIDS: an extension to the Brain Imaging Data Structure "
    "for quantitative magnetic resonance imaging data. Scientific Data 9:517, 2022. doi:10.1038/s41597-022-01571-4"
)
COLOURS = (
    "Fuderer M, Wichtmann B, Crameri F, et al. Color-map recommendation for MR relaxometry maps. Magnetic Resonance in "
    "Medicine 93:490, 2025. doi:10.1002/mrm.30290"
)

#: What an estimator of the house does, in a sentence, and what it rests on.
_ESTIMATORS = {
    "mle": ("All voxels were fitted together by regularised maximum likelihood (Eq. 2 there)", (SABIDUSSI,)),
    "rim": ("The maps are those of a recurrent inference machine", (SABIDUSSI, PUTZKY)),
    "resnet": ("The maps are those of a residual network", (SABIDUSSI, HE)),
}


def options_of(maps: ParameterMaps) -> dict[str, str]:
    """Return the settings that bear on the values."""
    without = {"threads"} if any(p.smooth for p in maps.model.parameters) else {"threads", "lambda_B"}
    return {str(k): plain(v) for k, v in maps.settings.items() if v is not None and k not in without}


def voxelwise(maps: ParameterMaps) -> str:
    """Return by what each voxel was fitted by itself: ``least squares``, ``maximum likelihood``, "" where it was not."""
    smooth = any(p.smooth for p in maps.model.parameters) and maps.settings.get("lambda_B") != 0
    if maps.estimator == "nlls" or (maps.estimator == "mle" and not smooth):
        rician = maps.estimator == "mle" and maps.noise is not None and maps.noise.name == "rician"
        return "maximum likelihood" if rician else "least squares"
    return ""


def title_of(maps: ParameterMaps, title: str) -> str:
    """Return the estimator in words: its title, unless that promises a smooth parameter where there is none."""
    if maps.estimator != "mle" or not (by := voxelwise(maps)):
        return title
    return "Maximum likelihood in each voxel" + (", which is least squares" if by == "least squares" else "")


def _said(maps: ParameterMaps) -> tuple[str, tuple[str, ...]]:
    """Return what the estimator does, in a sentence, and what it rests on; nothing for one that is not of the house."""
    if by := voxelwise(maps):
        books = (BARRAL,) if by == "least squares" and bids_time(maps.model) == "InversionTime" else ()
        return f"Each voxel was fitted by itself by {by}, with a search for the global optimum", books
    return _ESTIMATORS.get(maps.estimator, ("", ()))


#: Settings of a network that the sentences have said, or that say nothing to a reader.
_OF_NETWORKS = ("network", "scale", "sd_draws")


def start_of(network: str) -> str:
    """Return where a RIM begins, by the name of one that ships or its file; "" where that is not to be had."""
    try:
        return str((metadata_of(path_of(network)).get("rim") or {}).get("start", ""))
    except (InputError, OSError):
        return ""


def _network(maps: ParameterMaps, paper: str, start: str) -> str:
    """Return which network it was and, where it is known to, how it differs from the paper's."""
    name = maps.settings.get("network")
    if maps.estimator not in ("rim", "resnet") or not name:
        return ""
    ships = str(name) in shipped()
    text = f", the network {name}{' that ships with rimap' if ships else ', which does not ship with rimap'}"
    if (start or (start_of(str(name)) if ships else "")) != "smooth_B":
        return text
    smooth = " and ".join(p.name for p in maps.model.parameters if p.smooth)
    return (
        f"{text}. Its design differs from that of {paper}: it begins at the maximum of the likelihood"
        f"{f' with a smooth {smooth}' if smooth else ''}, and its inputs and outputs are in units of the Cramér-Rao bound"
    )


def methods(maps: ParameterMaps, title: str, version: str = __version__, start: str = "") -> tuple[str, list[str]]:
    """Return the sentences, with numbers in brackets, and the references in that order.

    Parameters
    ----------
    title
        The estimator in words.
    version
        Of the rimap that made the maps.
    start
        Of a network, see `start_of`; that of the one that ships under this name if left out.
    """
    cited: list[str] = []

    def cite(*books: str) -> str:
        cited.extend(b for b in books if b not in cited)
        return "[" + ", ".join(str(cited.index(b) + 1) for b in books) + "]"

    model, sigma = maps.model, sigma_number(maps)
    what = " and ".join(p.name for p in model.parameters if p.unit == "ms")
    kind = {"InversionTime": "inversion times", "EchoTime": "echo times"}.get(bids_time(model), "times")
    text = f"{what} maps were estimated with rimap {version} {cite(SABIDUSSI)} "
    text += f"from {model.n_images} images at {kind} of {', '.join(ms(t) for t in model.times)} ms"
    tr = getattr(model, "tr", None)
    if tr is not None:
        text += f" and TR {', '.join(ms(t) for t in sorted(set(np.atleast_1d(tr).tolist())))} ms"
    if hasattr(model, "signed"):
        text += " (signed images)" if model.signed else " (magnitude images)"
    said_below = _OF_NETWORKS if maps.estimator in ("rim", "resnet") else ()
    options = "; ".join(f"{k} = {v}" for k, v in options_of(maps).items() if k not in said_below)
    title = title_of(maps, title)
    text += f". Estimator: {(title or maps.estimator).lower()}{f' ({options})' if options else ''}. "
    said, books = _said(maps)
    if said:
        text += said + (f" {cite(*books)}" if books else "") + _network(maps, cite(SABIDUSSI), start) + ". "
    formula = formula_of(maps)
    if formula:
        text += f"The signal was modelled as {formula}" + (f" {cite(BARRAL)}" if tr is not None else "") + ". "
    if maps.noise is not None:
        squares = maps.estimator == "nlls" and maps.noise.name == "rician"
        text += "For the standard deviations the noise was " if squares else "The likelihood was "
        text += maps.noise.name.capitalize()
        text += f" {cite(RICE)}" if maps.noise.name == "rician" else ""
        if sigma is not None:
            text += f" with σ = {number(sigma)} ({sigma_origin(maps)})"
        text += ". "
    if sd_origin(maps):
        text += (
            f"Standard deviations are those over {maps.settings['sd_draws']} draws of the noise around the maps. "
            if maps.settings.get("sd_draws")
            else "Standard deviations are Cramér-Rao bounds at the estimate. "
        )
    text += (
        f"Files are named after qMRI-BIDS {cite(BIDS)}; colours follow the recommendation of the ISMRM {cite(COLOURS)}."
    )
    return text, cited


def formula_of(maps: ParameterMaps) -> str:
    """Return the model's formula, as its documentation begins."""
    line = (type(maps.model).__doc__ or "").strip().splitlines()
    first = line[0].split(";")[0].split(". ")[0].strip().rstrip(".") if line else ""
    first = first.replace("`", "")
    if getattr(maps.model, "tr", 0) is None:
        first = first.replace(" + (B − 1) e^(−TR/T1)", "")
    if getattr(maps.model, "signed", False):
        first = first.replace("|", "")
    return first if "=" in first else ""
