"""What training patches are drawn from: a frozen `PatchRecipe`, read from TOML; its presets."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.signals import SignalModel, signal_models
from rimap.signals.protocols import PROTOCOLS
from rimap.signals.units import refuse_seconds

Range = tuple[float, float]


@cache
def model_class(sequence: str) -> type[SignalModel]:
    """Return the signal model of a sequence's name (`signal_models` looks into files and entry points)."""
    models = signal_models()
    if sequence not in models:
        raise InputError(f"sequence must be one of {', '.join(sorted(models))}; {sequence!r} came.")
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
        Name of the signal model: ``ir``, ``t2``.
    times_ms
        The times of the protocol. Empty: new times for every batch (`n_images`, `time_range_ms`), so that one
        network serves any protocol.
    tr_ms
        TR of a protocol whose times are given: none, one, or one for each image.
    n_images
        Least and greatest N of drawn protocols.
    time_range_ms
        Drawn times lie between these.
    tr_share
        Share of batches (of drawn protocols) with a known TR, which enters the model and its gradient.
    tr_unknown_share
        Share of batches acquired with a TR that the model does not know. Then the truth is the effective
        B/(1 + (B − 1) e^(−TR/T1)) and A·(1 + (B − 1) e^(−TR/T1)), which follow the tissue and are not smooth.
    signed_share
        Share of batches that keep the polarity (real part). They have Gaussian noise.
    patch_size
        Pixels along an edge; 40.
    anatomies
        What `rimap.simulation.anatomies.load_anatomies` takes: ``builtin``, files, folders, ``brainweb:04``.
    orientations
        Normal of the patch's plane, axes of the anatomy; all three.
    flips
        Mirror and transpose patches at random: three orientations of ten heads are few.
    zoom
        Pixel size in voxels of the anatomy: cortex is thicker or thinner than at 1 mm in other scans.
    wide_share
        Share of tissues (per patch) whose T is not drawn from Table 1 but log-uniformly from `wide_T_ms`: no gap
        is left between tissues, where the paper's T2 network failed (above 750 ms).
    wide_T_ms
        That range.
    white_A, white_T_ms
        Standard deviation of the voxelwise variation, A and ms; the authors' code has 0.05 and 100 (T1) or 10 (T2).
    white_relative
        Standard deviation of a voxelwise variation relative to the value. White texture teaches a network to
        keep noise, none teaches it to paint tissue means: a distribution leaves the choice to the data. From 0:
        uniform; from more: log-uniform, so that there is as much texture below as above the noise at every level.
    white_share
        Share of patches that have either.
    smooth_relative, smooth_length, smooth_share
        Relative standard deviation (uniform or log-uniform, likewise), kernel (pixels) and share of a smooth
        variation inside tissues, which is what real maps show.
    blur
        Standard deviation (pixels) of the Gaussian that smooths the maps of A and T, textures included; the
        authors' code has 0.4. It is also the partial volume at borders: the maps are mixed and not the signals,
        because the signal of a mixture has no single T that could be the truth.
    b_gamma
        B = 2 − Γ, Γ half-normal; this is σ of its parent normal distribution.
    b_range
        B uniform between these instead, if the greatest is above 0.
    b_smooth, b_length
        Relative standard deviation and kernel (pixels) of B over the patch: B1 is smooth, not constant.
    shading, shading_length
        Standard deviation of the logarithm of the receive coils' sensitivity, in A, and its kernel (pixels).
    lesion_share, lesions, lesion_radius
        Share of patches with ellipses of any T, how many (up to), and their radii (pixels).
    odd_share, odd_voxels
        Share of patches with single voxels of another T, and how many (up to): small structures must survive.
    line_share, lines
        Likewise for lines of one pixel's width.
    ringing_share
        Share of patches with Gibbs ringing: images are sampled as a scanner does, whose k-space ends. In the spheres of
        the NIST phantom it is twice the noise, with a period of two pixels. Such patches have no white texture, odd
        voxels or lines.
    sigma
        Noise, log-uniform; A of CSF is 1.
    rician_share
        Share of batches with Rician noise. Gaussian noise is added after the modulus, as in the paper.
    noise_draws
        Noise realisations of each patch, next to each other in the batch: a loss can see the bias of their mean.
    seed
        Patch i of a seed is always the same, whatever the batch or the worker that asks.

    Raises
    ------
    InputError
        For values that contradict each other or the names above.
    """

    sequence: str = "ir"
    times_ms: tuple[float, ...] = ()
    tr_ms: tuple[float, ...] = ()
    n_images: tuple[int, int] = (3, 40)
    time_range_ms: Range = (20.0, 5000.0)
    tr_share: float = 0.0
    tr_unknown_share: float = 0.0
    signed_share: float = 0.0
    patch_size: int = 40
    anatomies: tuple[str, ...] = ("builtin",)
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
    b_gamma: float = 0.2
    b_range: Range = (0.0, 0.0)
    b_smooth: Range = (0.0, 0.0)
    b_length: Range = (15.0, 60.0)
    shading: Range = (0.0, 0.0)
    shading_length: Range = (12.0, 40.0)
    lesion_share: float = 0.0
    lesions: int = 3
    lesion_radius: Range = (0.7, 6.0)
    odd_share: float = 0.0
    odd_voxels: int = 8
    line_share: float = 0.0
    lines: int = 2
    ringing_share: float = 0.0
    sigma: Range = (0.0065, 0.255)
    rician_share: float = 0.0
    noise_draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        Q = len(model_class(self.sequence).parameters)
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name.endswith("_share") and not 0 <= value <= 1:
                raise InputError(f"{f.name} is a probability, 0 to 1; {value:g} came.")
            if f.name in _RANGES and (len(value) != 2 or not 0 <= value[0] <= value[1]):
                raise InputError(f"{f.name} must be [least, greatest], not negative; {list(value)} came.")
            if f.type == "float" and value < 0:
                raise InputError(f"{f.name} must not be negative; {value:g} came.")
        for name in ("patch_size", "noise_draws"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more; {getattr(self, name)} came.")
        for name in ("sigma", "wide_T_ms", "time_range_ms", "zoom"):
            if getattr(self, name)[0] <= 0:
                raise InputError(f"{name} must be above 0; {list(getattr(self, name))} came.")
        if not self.orientations or any(a not in (0, 1, 2) for a in self.orientations):
            raise InputError(f"orientations are axes of the anatomy, 0, 1, 2; {list(self.orientations)} came.")
        if self.tr_share + self.tr_unknown_share > 1:
            raise InputError("tr_share and tr_unknown_share must not add up to more than 1.")
        if not self.times_ms and self.n_images[0] < Q:
            raise InputError(f"n_images must begin at {Q} or more for {self.sequence}; {self.n_images[0]} came.")
        if len(self.tr_ms) not in (0, 1, len(self.times_ms)):
            raise InputError(f"tr_ms must be one value, or one for each of the {len(self.times_ms)} times_ms.")
        refuse_seconds(
            self.times_ms or self.time_range_ms,
            model_class(self.sequence),
            "times_ms" if self.times_ms else "time_range_ms",
        )
        if self.times_ms:
            model_class(self.sequence).at(self.times_ms, **({"tr": self.tr_ms} if self.tr_ms else {}))  # checks them
        if not self.anatomies:
            raise InputError('anatomies is empty. Give files, folders, or "builtin".')

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as TOML and JSON can hold them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


_RANGES = tuple(f.name for f in fields(PatchRecipe) if f.type in ("Range", "tuple[int, int]"))


def paper(sequence: str = "ir", times_ms: tuple[float, ...] | None = None) -> PatchRecipe:
    """Return the paper's recipe, and nothing that it does not have.

    The times are those of IV_T1 or IV_T2 if left out.

    Deviations
    ----------
    - "Half-normal with standard deviation σ^Γ = 0.2" is read as the distribution's parameter, the σ of the parent
      normal (mean of B 1.84). For the other reading, a half-normal whose own standard deviation is 0.2, set
      `b_gamma` = 0.332 (mean of B 1.73).
    - The amount of voxelwise noise is not in the paper: 0.05 for A, 100 ms for T1, 10 ms for T2, and the smoothing
      by 0.4 pixels, are the authors' code. The smoothing is applied after the noise.
    - Patches take turns over the anatomies: exactly as many from each, as "7200 per model" says.
    - Draws are floored at a tenth of the tissue's mean: Table 1's normal distributions reach below zero.
    - The background has A = 0 and no T; smoothing does not mix T with it.
    """
    times = times_ms or tuple(float(t) for t in PROTOCOLS["IV_T2" if sequence == "t2" else "IV_T1"].times)
    recipe = PatchRecipe(sequence=sequence, times_ms=times, white_A=0.05, white_T_ms=100.0, blur=(0.4, 0.4))
    return replace(recipe, white_T_ms=10.0, wide_T_ms=(5.0, 2500.0)) if sequence == "t2" else recipe


def general(sequence: str = "ir") -> PatchRecipe:
    """Return the recipe of the networks for any protocol: `general_t1` or `general_t2`."""
    return general_t2() if sequence == "t2" else replace(general_t1(), sequence=sequence)


def general_t1() -> PatchRecipe:
    """Return a recipe for any inversion-recovery protocol, with all that the paper's misses."""
    return PatchRecipe(
        sequence="ir",
        n_images=(3, 40),
        time_range_ms=(20.0, 5000.0),
        tr_share=0.3,
        tr_unknown_share=0.15,
        signed_share=0.1,
        wide_T_ms=(20.0, 5000.0),
        b_range=(1.5, 2.1),
        b_smooth=(0.0, 0.05),
        **_GENERAL,
    )


def general_t2() -> PatchRecipe:
    """Return a recipe for any T2 protocol: T2 from 5 to 2500 ms without a gap."""
    return PatchRecipe(
        sequence="t2", n_images=(2, 40), time_range_ms=(5.0, 1000.0), wide_T_ms=(5.0, 2500.0), **_GENERAL
    )


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

PRESETS = {"paper": paper, "general": general}
#: Keys of a recipe file beside the fields of `PatchRecipe`.
EXTRA_KEYS = ("preset", "protocol")


def refuse_unknown(table: Mapping[str, Any], valid: Sequence[str], where: str) -> None:
    """Refuse a key that a table of a recipe does not have, and name the nearest."""
    for key in table:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)[0]
            raise InputError(f"unknown key {key!r} in {where}. The nearest valid one is {near!r}.")


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
    table = dict(table)
    valid = {f.name: f for f in fields(PatchRecipe)}
    refuse_unknown(table, (*valid, *EXTRA_KEYS), "the simulation recipe")
    preset, protocol = table.pop("preset", "general"), table.pop("protocol", None)
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}; {preset!r} came.")
    if protocol is not None:
        if protocol not in PROTOCOLS:
            raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}; {protocol!r} came.")
        model = PROTOCOLS[protocol]
        table = {"sequence": model.name, "times_ms": [float(t) for t in model.times]} | table
    values = {key: _converted(valid[key].type, key, value) for key, value in table.items()}
    if values.get("times_ms"):  # a given protocol: its polarity is known, and so is its TR or not
        values = (
            {"signed_share": 0.0, "tr_share": 0.0} | ({"tr_unknown_share": 0.0} if values.get("tr_ms") else {}) | values
        )
    sequence = str(values.get("sequence", "ir"))
    model_class(sequence)
    return replace(PRESETS[preset](sequence), **values)


def read_recipe(path: str | Path) -> PatchRecipe:
    """Read the recipe of a TOML file: its table ``[simulation]``, or all of a file without tables.

    Relative paths in `anatomies` are taken from the file's folder.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no recipe at {path}. Give a .toml file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}.") from None
    table = document.get("simulation", {k: v for k, v in document.items() if not isinstance(v, dict)})
    recipe = recipe_from(table)
    here = tuple(
        str(path.parent / a) if not Path(a).is_absolute() and (path.parent / a).exists() else a
        for a in recipe.anatomies
    )
    return replace(recipe, anatomies=here)


def _converted(kind: Any, key: str, value: Any) -> Any:
    def wrong(expected: str) -> InputError:
        return InputError(f"{key} must be {expected}; {value!r} came.")

    def number(x: Any) -> bool:
        return isinstance(x, (int, float)) and not isinstance(x, bool)

    match str(kind):
        case "str":
            if not isinstance(value, str):
                raise wrong("a text")
            return value
        case "bool":
            if not isinstance(value, bool):
                raise wrong("true or false")
            return value
        case "int":
            if not isinstance(value, int) or isinstance(value, bool):
                raise wrong("a whole number")
            return value
        case "float":
            if not number(value):
                raise wrong("a number")
            return float(value)
        case "tuple[str, ...]":
            items = [value] if isinstance(value, str) else value
            if not isinstance(items, (list, tuple)) or not all(isinstance(x, str) for x in items):
                raise wrong("a list of texts")
            return tuple(items)
    whole = "int" in str(kind)
    value = [value] if number(value) and "..." in str(kind) else value
    if not isinstance(value, (list, tuple)) or not all(number(x) and (not whole or isinstance(x, int)) for x in value):
        raise wrong(f"a list of {'whole ' if whole else ''}numbers")
    return tuple(value) if whole else tuple(float(x) for x in value)
