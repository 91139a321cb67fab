"""What training patches are drawn from: a frozen `PatchRecipe`, read from TOML; its presets."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import legacy_names
from rimap.allowed_numbers import (
    ANY,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE_RANGE,
    RANGE,
    SEED,
    SHARE,
    Allowed,
    refuse_other_numbers,
)
from rimap.errors import InputError
from rimap.signals import SignalModel, signal_models
from rimap.signals.base import FIELD, TIME, Parameter, axis_of
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.signals.settings import settings_of
from rimap.simulation.tissues import GM, LABELS, PROPERTIES, property_of, table_of

Range = tuple[float, float]


@cache
def model_class(sequence: str) -> type[SignalModel]:
    """Return the class of the signal model with this name.

    Raises
    ------
    InputError
        If no model has the name, or if its images are not measured but computed from others.
    """
    models = signal_models()
    if sequence not in models:
        raise InputError(f"sequence: expected one of {', '.join(sorted(models))}, got {sequence!r}.")
    if not any(parameter.amplitude for parameter in models[sequence].parameters):
        raise InputError(
            f"sequence: expected one whose images are measured, got {sequence!r}: {models[sequence].title} is computed "
            f"from other "
            "images, so its noise is not that of a scan. Simulate those images."
        )
    return models[sequence]


@dataclass(frozen=True)
class PatchRecipe:
    """How training patches are simulated (§4.2).

    A range is (least, greatest); a value is drawn uniformly between them for each patch unless said otherwise. A
    share is the probability that a patch (or a batch, where said) has the feature; 0 switches it off. Every field
    that the paper does not have is off in the preset `paper`.

    Parameters
    ----------
    sequence
        Name of the signal model: ``ir``, ``t2``, ``vfa`` …
    times_ms
        The values of the protocol's axis: times in ms for most models, flip angles in degrees for some. Empty: new
        values for every batch (`n_images`, `time_range_ms`), so that one network serves any protocol.
    settings
        Other settings of the protocol, by name: one value, or one for each image.
    n_images
        Least and greatest N of drawn protocols.
    time_range_ms
        Drawn values of the axis are between these.
    setting_ranges
        The range from which a setting that the model needs is drawn, by name; that of its declaration if left out.
    optional_share
        Share of batches (of drawn protocols) with a known optional setting, such as TR, which enters the model and its
        gradient.
    hidden_share
        Share of batches acquired with such a setting that the model does not know. Then the truth is what the model
        sees (`SignalModel.effective`), whose field follows the tissue and is not smooth.
    signed_share
        Share of batches that keep the polarity (real part). They have Gaussian noise.
    patch_size
        Pixels along an edge.
    anatomies
        What `rimap.simulation.anatomies.load_anatomies` takes: ``builtin``, files, folders, ``brainweb:04``.
    tissues
        Other values of tissues than those of Table 1: by property (``A``, ``T1``, ``T2``, ``T2star``) and tissue
        (``GM``, ``WM`` …, `rimap.simulation.tissues.LABELS`) the mean and the standard deviation, times in ms.
    orientations
        Normals of the patches: axes of the anatomy (0, 1, 2).
    flips
        Whether patches are mirrored and transposed at random: three orientations of ten heads are few.
    zoom
        Pixel size in voxels of the anatomy: cortex is thicker or thinner than at 1 mm in other scans.
    wide_share
        Share of tissues (per patch) whose T is drawn log-uniformly from `wide_T_ms` and not from the table of tissues.
        It closes the gaps between tissues, in which the paper's T2 network failed (above 750 ms).
    wide_T_ms
        Range of T for `wide_share`, ms.
    white_A
        Standard deviation of the voxelwise variation of the amplitude, A of CSF being 1; the authors' code has 0.05.
    white_T_ms
        Standard deviation of the voxelwise variation of T, ms; the authors' code has 100 (T1) or 10 (T2).
    white_relative
        Standard deviation of a voxelwise variation relative to the value. White texture teaches a network to
        keep noise, none teaches it to paint tissue means: a distribution leaves the choice to the data. From 0:
        uniform; from more: log-uniform, so that there is as much texture below as above the noise at every level.
    white_share
        Share of patches that have a voxelwise variation.
    smooth_relative
        Relative standard deviation of a smooth variation inside tissues, as real maps have it. Its distribution is that
        of `white_relative`.
    smooth_length
        Kernel of the smooth variation, pixels.
    smooth_share
        Share of patches that have a smooth variation.
    blur
        Standard deviation (pixels) of the Gaussian that smooths the maps of A and T, textures included; the
        authors' code has 0.4. It is also the partial volume at borders: the maps are mixed and not the signals,
        because the signal of a mixture has no single T that could be the truth.
    field_gamma
        The field is the start that the model declares less Γ, half-normal, as the paper's B = 2 − Γ; this is σ of the
        parent normal distribution of Γ.
    field_mean
        The mean of the field is uniform between these instead, if the greatest is above 0.
    field_spread
        Relative standard deviation of the field over the patch: B1 is smooth, not constant.
    field_length
        Kernel of the field, pixels.
    given_error
        Relative standard deviation of the error of a measured map of a field that the model takes as given.
    offset
        Further amplitudes, relative to the first one.
    shading
        Standard deviation of the logarithm of the receive coils' sensitivity, which multiplies the amplitudes.
    shading_length
        Kernel of that sensitivity, pixels.
    lesion_share
        Share of patches with ellipses of any T.
    lesions
        Largest number of these ellipses in a patch.
    lesion_radius
        Their radii, pixels.
    odd_share
        Share of patches with single voxels of another T: small structures must survive.
    odd_voxels
        Largest number of these voxels in a patch.
    line_share
        Share of patches with lines of another T, one pixel wide.
    lines
        Largest number of these lines in a patch.
    faint_share
        Share of patches with small and faint structures (`rimap.simulation.faint_structures`).
    faint_blobs
        Largest number of these structures in a patch.
    faint_radius
        Their radii, pixels.
    faint_detectability
        Their detectability index d′, how well the data can show them; drawn log-uniformly.
    ringing_share
        Share of patches with Gibbs ringing: images are sampled as a scanner does, whose k-space ends. In the spheres of
        the NIST phantom it is twice the noise, with a period of two pixels. Such patches have no white texture, odd
        voxels or lines.
    sigma
        Standard deviation of the noise, drawn log-uniformly; the unit is A of CSF.
    rician_share
        Share of batches with Rician noise. Gaussian noise is added after the modulus, as in the paper.
    noise_draws
        Noise realisations of each patch, next to each other in the batch: a loss can see the bias of their mean.
    seed
        Seed of the patches: patch i of a seed is always the same, whatever the batch or the worker that asks.

    Raises
    ------
    InputError
        For values that contradict each other or the names above.
    """

    sequence: str = "ir"
    times_ms: tuple[float, ...] = ()
    settings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    n_images: tuple[int, int] = (3, 40)
    time_range_ms: Range = (20.0, 5000.0)
    setting_ranges: Mapping[str, Range] = field(default_factory=dict)
    optional_share: float = 0.0
    hidden_share: float = 0.0
    signed_share: float = 0.0
    patch_size: int = 40
    anatomies: tuple[str, ...] = ("builtin",)
    tissues: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    orientations: tuple[int, ...] = (0, 1, 2)
    flips: bool = False
    zoom: Range = (1.0, 1.0)
    wide_share: float = 0.0
    wide_T_ms: Range = (20.0, 5000.0)
    white_A: float = 0.0
    white_T_ms: float = 0.0
    white_relative: Range = (0.0, 0.0)
    white_share: float = 1.0
    smooth_relative: Range = (0.0, 0.0)
    smooth_length: Range = (2.0, 12.0)
    smooth_share: float = 0.0
    blur: Range = (0.0, 0.0)
    field_gamma: float = 0.2
    field_mean: Range = (0.0, 0.0)
    field_spread: Range = (0.0, 0.0)
    field_length: Range = (15.0, 60.0)
    given_error: Range = (0.0, 0.0)
    offset: Range = (0.0, 0.0)
    shading: Range = (0.0, 0.0)
    shading_length: Range = (12.0, 40.0)
    lesion_share: float = 0.0
    lesions: int = 3
    lesion_radius: Range = (0.7, 6.0)
    odd_share: float = 0.0
    odd_voxels: int = 8
    line_share: float = 0.0
    lines: int = 2
    faint_share: float = 0.0
    faint_blobs: int = 12
    faint_radius: Range = (0.35, 5.0)
    faint_detectability: Range = (3.0, 25.0)
    ringing_share: float = 0.0
    sigma: Range = (0.0065, 0.255)
    rician_share: float = 0.0
    noise_draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        kind = model_class(self.sequence)
        self._check_numbers()
        self._check_settings(kind)
        self._check_tissues()
        if not self.anatomies:
            raise InputError('anatomies is empty. Give files, folders, or "builtin".')

    def _check_numbers(self) -> None:
        refuse_other_numbers(self, ALLOWED)
        if not self.orientations:
            raise InputError("orientations: expected axes of the anatomy (0, 1, 2), got none.")
        if self.optional_share + self.hidden_share > 1:
            raise InputError("optional_share and hidden_share must not add up to more than 1.")

    def _check_settings(self, kind: type[SignalModel]) -> None:
        Q = sum(not parameter.given for parameter in kind.parameters)
        if not self.times_ms and not kind.typical_protocol and self.n_images[0] < Q:
            raise InputError(f"n_images: expected {Q} or more images for {self.sequence}, got {self.n_images[0]}.")
        axis = axis_of(kind)
        refuse_unknown(self.settings, [n for n in settings_of(kind) if n != axis.name], "settings")
        refuse_unknown(self.setting_ranges, list(settings_of(kind)), "setting_ranges")
        for name, values in self.settings.items():
            if len(values) not in (1, len(self.times_ms)):
                raise InputError(f"{name}: expected one value, or one for each of the {len(self.times_ms)} times_ms.")
        given_as = "times_ms" if self.times_ms else "time_range_ms"
        axis.refuse_other_unit(self.times_ms or self.time_range_ms, given_as)
        missing = [s.name for s in settings_of(kind).values() if s.required and s.name not in self.settings]
        if self.times_ms and missing == [axis.name]:
            kind.at(self.times_ms, **self.settings)  # checks them

    def _check_tissues(self) -> None:
        refuse_unknown(self.tissues, PROPERTIES, "tissues")
        for name, rows in self.tissues.items():
            refuse_unknown(rows, LABELS[1:], f"tissues.{name}")
            for tissue, values in rows.items():
                if len(values) != 2 or not values[0] > 0:
                    raise InputError(
                        f"tissues.{name}.{tissue}: expected [mean, standard deviation], got {list(values)}."
                    )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as TOML and JSON can hold them."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    def table_of(self, p: Parameter) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation of a parameter by label, (12,) each: of Table 1, or of `tissues`."""
        mean, deviation = (values.copy() for values in table_of(p))
        for tissue, (own_mean, own_sd) in self.tissues.get(property_of(p), {}).items():
            label = LABELS.index(tissue)
            mean[label], deviation[label] = own_mean, own_sd
        return mean, deviation


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(x) for name, x in value.items()}
    return list(value) if isinstance(value, tuple) else value


#: What numbers each field of `PatchRecipe` may have.
ALLOWED = {
    "times_ms": ANY,  # the signal model checks them
    "settings": ANY,
    "n_images": Allowed(1.0, ordered=True),
    "time_range_ms": POSITIVE_RANGE,
    "setting_ranges": POSITIVE_RANGE,  # drawn log-uniformly, as all that must be positive
    "optional_share": SHARE,
    "hidden_share": SHARE,
    "signed_share": SHARE,
    "patch_size": COUNT,
    "tissues": NOT_NEGATIVE,
    "orientations": Allowed(0.0, 2.0),
    "zoom": POSITIVE_RANGE,
    "wide_share": SHARE,
    "wide_T_ms": POSITIVE_RANGE,
    "white_A": NOT_NEGATIVE,
    "white_T_ms": NOT_NEGATIVE,
    "white_relative": RANGE,
    "white_share": SHARE,
    "smooth_relative": RANGE,
    "smooth_length": POSITIVE_RANGE,
    "smooth_share": SHARE,
    "blur": RANGE,
    "field_gamma": NOT_NEGATIVE,
    "field_mean": RANGE,
    "field_spread": RANGE,
    "field_length": POSITIVE_RANGE,
    "given_error": RANGE,
    "offset": RANGE,
    "shading": RANGE,
    "shading_length": POSITIVE_RANGE,
    "lesion_share": SHARE,
    "lesions": COUNT,
    "lesion_radius": POSITIVE_RANGE,
    "odd_share": SHARE,
    "odd_voxels": COUNT,
    "line_share": SHARE,
    "lines": COUNT,
    "faint_share": SHARE,
    "faint_blobs": COUNT,
    "faint_radius": POSITIVE_RANGE,
    "faint_detectability": POSITIVE_RANGE,
    "ringing_share": SHARE,
    "sigma": POSITIVE_RANGE,
    "rician_share": SHARE,
    "noise_draws": COUNT,
    "seed": SEED,
}


def paper(sequence: str = "ir", times_ms: tuple[float, ...] | None = None) -> PatchRecipe:
    """Return the recipe of the paper, Sabidussi et al. 2021 (doi:10.1016/j.media.2021.102220).

    The times are those of IV_T1 or IV_T2 if left out.

    Raises
    ------
    InputError
        If the paper has no protocol for the sequence and no times are given.

    Deviations
    ----------
    - "Half-normal with standard deviation σ^Γ = 0.2" is read as the distribution's parameter, the σ of the parent
      normal (mean of B 1.84). For the other reading, a half-normal whose own standard deviation is 0.2, set
      `field_gamma` = 0.332 (mean of B 1.73).
    - The amount of voxelwise noise is not in the paper: 0.05 for A, 100 ms for T1, 10 ms for T2, and the smoothing
      by 0.4 pixels, are the authors' code. The smoothing is applied after the noise.
    - Patches take turns over the anatomies: exactly as many from each, as "7200 per model" says.
    - Draws are floored at a tenth of the tissue's mean: Table 1's normal distributions reach below zero.
    - The background has A = 0 and no T; smoothing does not mix T with it.
    """
    own = _TIMES_OF_THE_PAPER.get(sequence)
    if not times_ms and own is None:
        raise InputError(f'the paper has no protocol for {sequence}. Give times_ms, or preset = "general".')
    times = times_ms or tuple(float(t) for t in PROTOCOLS[str(own)].times)
    recipe = PatchRecipe(sequence=sequence, times_ms=times, white_A=0.05, white_T_ms=100.0, blur=(0.4, 0.4))
    if sequence == "ir":
        return recipe
    if sequence == "t2":
        return replace(recipe, white_T_ms=10.0, wide_T_ms=(5.0, 2500.0))
    ranges = _from_declarations(sequence)
    del ranges["time_range_ms"], ranges["n_images"]
    return replace(recipe, white_T_ms=0.0, white_relative=(RELATIVE_TEXTURE, RELATIVE_TEXTURE), **ranges)


#: The protocols of Table 2 that a recipe without times stands for.
_TIMES_OF_THE_PAPER = {"ir": "IV_T1", "t2": "IV_T2"}
#: The paper's voxelwise variation of T1 in grey matter, relative: for sequences that the paper does not have.
RELATIVE_TEXTURE = 0.07
#: A drawn T is between these multiples of the least and the greatest mean of the tissues.
WIDER_THAN_TISSUES = (0.2, 1.3)
#: Settings of a typical protocol are drawn around it with this standard deviation of their logarithm.
AROUND_TYPICAL = 0.15
#: Protocols have so many images at most; of flip angles, so many.
MOST_IMAGES, MOST_ANGLES = 40, 12


def general(sequence: str = "ir") -> PatchRecipe:
    """Return the recipe of a network for any protocol of a sequence: `general_t1`, `general_t2`, or from its
    declarations.
    """
    if sequence == "ir":
        return general_t1()
    if sequence == "t2":
        return general_t2()
    kind = model_class(sequence)
    signed = 0.1 if kind.changes_sign else 0.0
    optional = 0.3 if any(s.longer_than == axis_of(kind).name for s in settings_of(kind).values()) else 0.0
    level = signal_level(sequence)
    sigma = tuple(float(f"{level * s:.2g}") for s in PatchRecipe.sigma)
    return PatchRecipe(
        sequence=sequence,
        signed_share=signed,
        optional_share=optional,
        sigma=sigma,  # type: ignore[arg-type]
        **_from_declarations(sequence),
        **_GENERAL,
    )


def around_typical(kind: type[SignalModel], name: str) -> Range:
    """Return the range in which a setting near a typical protocol is, three standard deviations wide."""
    values, width = np.ravel(kind.typical_protocol[name]), np.exp(3 * AROUND_TYPICAL)
    return float(f"{values.min() / width:.3g}"), float(f"{values.max() * width:.3g}")


def signal_level(sequence: str) -> float:
    """Return the brightest signal of grey matter in a usual protocol, relative to its amplitude; 1 if it is half of
    that or more.

    Noise of a sequence with less signal (small flip angles) is less by this: SNR is that of the images.
    """
    kind = model_class(sequence)
    axis = axis_of(kind)
    settings: dict[str, Any] = dict(kind.typical_protocol)
    for s in settings_of(kind).values():
        if s.name not in settings and (s.required or s.name == axis.name):
            low, high = s.drawn_from
            settings[s.name] = tuple(np.geomspace(low, high, 8)) if s.name == axis.name else float(np.sqrt(low * high))
    if axis.even and axis.name not in kind.typical_protocol:
        settings[axis.name] = tuple(axis.drawn_from[0] * np.arange(1.0, 9.0))
    model = kind(**settings)
    at = {parameter.name: np.asarray(parameter.start, dtype=float) for parameter in model.nonlinear}
    at[model.time.name] = np.asarray(table_of(model.time)[0][GM])
    g = float(np.abs(np.asarray(model.shape(**at))).max())
    return 1.0 if g >= 0.5 else g


def _from_declarations(sequence: str) -> dict[str, Any]:
    """Return the ranges that follow from what a model declares."""
    kind = model_class(sequence)
    axis, time = axis_of(kind), next(parameter for parameter in kind.parameters if parameter.role == TIME)
    mean = table_of(time)[0][1:]
    low, high = (float(f"{f * m:.2g}") for f, m in zip(WIDER_THAN_TISSUES, (mean.min(), mean.max())))
    found: dict[str, Any] = {"wide_T_ms": (max(low, time.bounds[0]), min(high, time.bounds[1]))}
    if typical := tuple(np.ravel(kind.typical_protocol.get(axis.name, ()))):
        found |= {"n_images": (len(typical),) * 2, "time_range_ms": around_typical(kind, axis.name)}
    else:
        most = MOST_IMAGES if axis.unit == "ms" else MOST_ANGLES
        found |= {
            "n_images": (sum(not parameter.given for parameter in kind.parameters), most),
            "time_range_ms": axis.drawn_from,
        }
    if field_of := next(
        (parameter for parameter in kind.parameters if parameter.role == FIELD and not property_of(parameter)), None
    ):
        found |= {"field_mean": field_of.in_a_scan.mean, "field_spread": field_of.in_a_scan.spread}
        if field_of.given:
            found["given_error"] = (0.0, 0.03)
    if sum(parameter.amplitude for parameter in kind.parameters) > 1:
        found["offset"] = (0.0, 0.2)
    return found


def general_t1() -> PatchRecipe:
    """Return a recipe for any inversion-recovery protocol, with all that the paper's misses."""
    return PatchRecipe(
        sequence="ir",
        n_images=(3, 40),
        time_range_ms=(20.0, 5000.0),
        optional_share=0.3,
        hidden_share=0.15,
        signed_share=0.1,
        wide_T_ms=(20.0, 5000.0),
        field_mean=(1.5, 2.1),
        field_spread=(0.0, 0.05),
        **_GENERAL,
    )


def general_t2() -> PatchRecipe:
    """Return a recipe for any T2 protocol: T2 from 5 to 2500 ms without a gap."""
    return PatchRecipe(
        sequence="t2", n_images=(2, 40), time_range_ms=(5.0, 1000.0), wide_T_ms=(5.0, 2500.0), **_GENERAL
    )


#: What differs from the paper for networks of any protocol.
_GENERAL: dict[str, Any] = {
    "flips": True,
    "zoom": (0.7, 1.5),
    "wide_share": 0.25,
    "white_relative": (0.0, 0.1),
    "white_share": 0.5,
    "smooth_relative": (0.0, 0.15),
    "smooth_share": 0.8,
    "blur": (0.0, 0.7),
    "shading": (0.0, 0.3),
    "lesion_share": 0.4,
    "odd_share": 0.4,
    "line_share": 0.3,
    "rician_share": 0.3,
}

PRESETS = ("paper", "general")
#: Keys of a recipe file beside the fields of `PatchRecipe`, and what they mean.
EXTRA_KEYS = {
    "preset": "``general`` (the default) or ``paper``: the values of all keys that the file leaves out.",
    "protocol": "A protocol of the paper's Table 2 instead of `sequence` and `times_ms`: " + ", ".join(PROTOCOLS) + ".",
    "tr_ms": "Repetition time in ms, one value or one for each image: short for ``settings = { tr = … }``.",
}


def refuse_unknown(table: Mapping[str, Any], valid: Sequence[str], where: str) -> None:
    """Refuse keys that a table of a recipe does not have.

    Raises
    ------
    InputError
        With the most similar valid key.
    """
    for key in table:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)
            hint = f"The nearest valid one is {near[0]!r}." if near else "There is none to give."
            raise InputError(f"unknown key {key!r} in {where}. {hint}")


def recipe_from(table: Mapping[str, Any]) -> PatchRecipe:
    """Return the recipe of a TOML table: a preset, and what the table changes in it.

    Parameters
    ----------
    table
        Fields of `PatchRecipe`; ``preset`` (``general``, the default, or ``paper``) and ``protocol`` (a name of the
        paper's Table 2, in place of sequence and times).

    Raises
    ------
    InputError
        For an unknown key, naming the nearest valid one, or a value of the wrong kind.

    Examples
    --------
    >>> recipe_from({"preset": "paper", "protocol": "HP_T2"}).times_ms
    (10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
    """
    table = legacy_names.recipe(table)
    valid = {field.name: field for field in fields(PatchRecipe)}
    refuse_unknown(table, (*valid, *EXTRA_KEYS), "the simulation recipe")
    preset, protocol = table.pop("preset", "general"), table.pop("protocol", None)
    if preset not in PRESETS:
        raise InputError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}.")
    if protocol is not None:
        if protocol not in PROTOCOLS:
            raise InputError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
        model = PROTOCOLS[protocol]
        of_protocol = {"sequence": model.name, "times_ms": [float(t) for t in model.times]}
        for key, value in of_protocol.items():
            if key in table and table[key] != value:
                raise InputError(f"expected either protocol or {key}, got protocol = {protocol!r} and another {key}.")
        table = of_protocol | table
    sequence = str(table.get("sequence", "ir"))
    own_axis = axis_of(model_class(sequence)).name
    if isinstance(table.get("settings"), Mapping) and own_axis in table["settings"]:  # the axis by its own name
        table["settings"] = dict(table["settings"])
        table["times_ms"] = table["settings"].pop(own_axis)
    values = {key: _converted(str(valid[key].type), key, value) for key, value in table.items()}
    if values.get("times_ms"):  # a given protocol: its polarity is known, and so are its optional settings or not
        known = {"signed_share": 0.0, "optional_share": 0.0}
        values = known | ({"hidden_share": 0.0} if values.get("settings") else {}) | values
    base = paper(sequence, values.get("times_ms")) if preset == "paper" else general(sequence)
    return replace(base, **values)


def toml_of(path: Path | str) -> dict[str, Any]:
    """Read the TOML file of a recipe.

    Raises
    ------
    InputError
        If there is no such file, or it is not TOML.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # reading a pipe may never end
        raise InputError(f"{path}: expected a recipe, a .toml file, got a folder, a pipe or a device.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no recipe at {path}. Give a .toml file.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}.") from None


def read_recipe(path: str | Path) -> PatchRecipe:
    """Read the recipe of a TOML file: its table ``[simulation]``, or all of a file without tables.

    Relative paths in `anatomies` are taken from the file's folder.

    Raises
    ------
    InputError
        If there is no such file, or its TOML, keys or values are not valid.
    """
    path = Path(path)
    document = toml_of(path)
    table = document.get("simulation", {key: value for key, value in document.items() if not isinstance(value, dict)})
    recipe = recipe_from(table)
    here = tuple(
        str(path.parent / anatomy) if not Path(anatomy).is_absolute() and (path.parent / anatomy).exists() else anatomy
        for anatomy in recipe.anatomies
    )
    return replace(recipe, anatomies=here)


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


#: Of fields with one value, by type: whether a value of a recipe is one, and what is expected.
_SINGLE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda x: isinstance(x, str), "a text"),
    "bool": (lambda x: isinstance(x, bool), "true or false"),
    "int": (lambda x: isinstance(x, int) and not isinstance(x, bool), "a whole number"),
    "float": (_is_number, "a number"),
}


def _converted(kind: str, key: str, value: Any) -> Any:
    """Return a value of a recipe as its field has it.

    Raises
    ------
    InputError
        For a value of another kind.
    """

    def refuse_unless(good: bool, expected: str) -> None:
        if not good:
            raise InputError(f"{key}: expected {expected}, got {value!r}.")

    if kind in _SINGLE:
        is_one, expected = _SINGLE[kind]
        refuse_unless(is_one(value), expected)
        return float(value) if kind == "float" else value
    if kind == "tuple[str, ...]":
        items = [value] if isinstance(value, str) else value
        refuse_unless(
            isinstance(items, (list, tuple)) and all(isinstance(item, str) for item in items), "a list of texts"
        )
        return tuple(items)
    if kind.startswith("Mapping"):
        refuse_unless(isinstance(value, Mapping), "a table of numbers by name")
        inner = kind.removeprefix("Mapping[str, ").removesuffix("]")
        return {name: _converted(inner, f"{key}.{name}", x) for name, x in value.items()}
    whole = "int" in kind
    several = [value] if _is_number(value) and "..." in kind else value
    good = isinstance(several, (list, tuple)) and all(
        _is_number(x) and (not whole or isinstance(x, int)) for x in several
    )
    refuse_unless(good, f"a list of {'whole ' if whole else ''}numbers")
    return tuple(several) if whole else tuple(float(x) for x in several)
