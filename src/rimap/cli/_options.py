"""Options that several verbs share, and functions that turn their text into values or an error."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from rimap.errors import InputError

T = TypeVar("T")

EstimatorName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="nlls, mle, rim or resnet (see `rimap models`). By default chosen for the sequence."
    ),
]
TrMs = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Repetition time (inversion to inversion) in ms, one for all images or one for each. "
        "By default read from the sidecars.",
    ),
]
Signed = Annotated[
    bool | None,
    typer.Option(
        "--signed/--magnitude",
        help="The images are signed (real part, polarity kept) or magnitude images. By default from the sidecars or "
        "the images.",
    ),
]
SkipFirst = Annotated[
    int,
    typer.Option(
        metavar="N", help="Leave out the N images with the shortest times. 1 drops the first echo of a multi-echo scan."
    ),
]
NoiseName = Annotated[
    str | None, typer.Option(metavar="gaussian|rician", help="Noise model of the likelihood. By default gaussian.")
]
LambdaB = Annotated[
    str | None,
    typer.Option(
        "--lambda-b",
        metavar="auto|X",
        help="Weight of the smoothness of B or B1 (mle). auto, the default, estimates it from the data.",
        show_default=False,
    ),
]
Network = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Trained network (rim, resnet): a name from `rimap models`, or a file."),
]
SdDraws = Annotated[
    int | None,
    typer.Option(
        "--sd-draws",
        metavar="K",
        min=0,
        help="Estimate standard deviations of the maps from K simulated noise draws (rim, resnet). "
        "Each draw takes as long as the mapping.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUES",
        help="A scan setting in ms or degrees, one value or one per image, such as flip_angle=3,20. Repeatable.",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STATUS",
        help="Also count voxels with this quality flag, such as off_model. ok and at_bound always count. Repeatable.",
    ),
]
GivenMaps = Annotated[
    list[str] | None,
    typer.Option(
        "--given",
        metavar="NAME=FILE|NUMBER",
        help="A parameter that is known: a map or a number, such as B1=TB1map.nii.gz. Repeatable.",
    ),
]
Fixed = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Fix a parameter at a value, such as B=2 (nlls, mle). Repeatable."),
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=LOW,HIGH", help="Bounds of a parameter, such as T1=100,5000 (nlls, mle). Repeatable."),
]
Run = Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Only this run. Repeatable.")]
Register = Annotated[bool, typer.Option("--register", help="Motion correction: align the images before mapping.")]
Denoise = Annotated[
    str | None,
    typer.Option(
        "--denoise",
        metavar="mppca",
        help="Denoise the images before mapping, by MP-PCA (needs the extra rimap[denoise]).",
    ),
]
Rates = Annotated[bool, typer.Option("--rates", help="Also write maps of R1 or R2. A map of R2* is always written.")]
Fill = Annotated[
    float | None,
    typer.Option(
        metavar="0",
        help="Value for voxels without an estimate, such as 0 for tools that cannot read NaN. By default NaN.",
    ),
]


def numbers(text: str | None, option: str, unit: str = " in ms") -> tuple[float, ...] | None:
    """Return the numbers of a list that is separated by commas or spaces.

    >>> numbers("50, 400 1100", "--times-ms")
    (50.0, 400.0, 1100.0)
    """
    if text is None:
        return None
    words = _words(text)
    example = f', as in {option} "50,400,1100"' if unit else ""
    if not words:
        raise InputError(f"{option}: expected numbers{unit}{example}, got none.")
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        raise InputError(f"{option}: expected numbers{unit}{example}, got {text!r}.") from None
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{option}: expected finite numbers{unit}, got {text!r}.")
    return values


def by_name(values: Iterable[str] | None, option: str) -> dict[str, str]:
    """Return the text of each NAME=VALUE by its name.

    >>> by_name(["flip_angle=3,20", "tr=15"], "--set")
    {'flip_angle': '3,20', 'tr': '15'}
    """
    found: dict[str, str] = {}
    for value in values or ():
        name, equals, text = (part.strip() for part in value.partition("="))
        if not (name and equals and text):
            raise InputError(f"{option}: expected NAME=VALUE, got {value!r}.")
        if name in found:
            raise InputError(f"{option} {name}: expected it once, got it twice. Leave one out.")
        found[name] = text
    return found


def settings(values: Iterable[str] | None) -> dict[str, Any]:
    """Return settings by name: a number, several numbers as a tuple, or else the text.

    >>> settings(["flip_angle=3,20", "tr=15", "profile=sinc"])
    {'flip_angle': (3.0, 20.0), 'tr': 15.0, 'profile': 'sinc'}
    """
    found: dict[str, Any] = {}
    for name, text in by_name(values, "--set").items():
        try:
            several = tuple(float(word) for word in _words(text))
        except ValueError:
            found[name] = text
            continue
        found[name] = several if len(several) != 1 else several[0]
    return found


def given_maps(values: Iterable[str] | None) -> dict[str, Path | float]:
    """Return known parameters by name, each as a number or as the path of a map.

    >>> given_maps(["T1=900", "B1=TB1map.nii.gz"])
    {'T1': 900.0, 'B1': PosixPath('TB1map.nii.gz')}
    """
    return {name: _number_or(Path, text) for name, text in by_name(values, "--given").items()}


def fixed(values: Iterable[str] | None) -> dict[str, float]:
    """Return the fixed values of parameters by name.

    >>> fixed(["B=2"])
    {'B': 2.0}
    """
    found = {name: numbers(text, f"--fixed {name}", "") for name, text in by_name(values, "--fixed").items()}
    for name, value in found.items():
        if value is None or len(value) != 1:
            raise InputError(f"--fixed {name}: expected one number, got {len(value or ())}.")
    return {name: value[0] for name, value in found.items() if value}


def bounds(values: Iterable[str] | None) -> dict[str, tuple[float, float]]:
    """Return the bounds of parameters by name.

    >>> bounds(["T1=100,5000"])
    {'T1': (100.0, 5000.0)}
    """
    found: dict[str, tuple[float, float]] = {}
    for name, text in by_name(values, "--bounds").items():
        pair = numbers(text, f"--bounds {name}", "") or ()
        if len(pair) != 2:
            raise InputError(f"--bounds {name}: expected two numbers LOW,HIGH, got {len(pair)}.")
        found[name] = pair
    return found


def _number_or(other: Callable[[str], T], text: str) -> float | T:
    try:
        return float(text)
    except ValueError:
        return other(text)


def _words(text: str) -> list[str]:
    return [part for part in re.split(r"[,;\s]+", text.strip()) if part]


def smoothness(text: str | None) -> dict[str, float | None]:
    """Return the value of --lambda-b as an option of the MLE; none if it was not specified.

    >>> smoothness("1e5"), smoothness("auto"), smoothness(None)
    ({'lambda_B': 100000.0}, {'lambda_B': None}, {})
    """
    if text is None:
        return {}
    if text.strip().lower() == "auto":
        return {"lambda_B": None}
    try:
        return {"lambda_B": float(text)}
    except ValueError:
        raise InputError(f"--lambda-b: expected auto or a number, got {text!r}.") from None


def given(**options: Any) -> dict[str, Any]:
    """Return the options that the user specified.

    >>> given(network="t1", sd_draws=None)
    {'network': 't1'}
    """
    return {key: value for key, value in options.items() if value is not None}


def labels(values: Iterable[str] | None, prefix: str) -> tuple[str, ...]:
    """Return labels without their prefix. One value may contain several labels.

    >>> labels(["sub-01", "02,03"], "sub-")
    ('01', '02', '03')
    """
    words = [part for v in values or () for part in re.split(r"[,\s]+", v.strip()) if part]
    return tuple(word.removeprefix(prefix) for word in words)


def sigma_or_file(text: str | None) -> float | Path | None:
    """Return the noise SD σ as a number, or the path of a map of it."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise InputError(
            f"--sigma: expected a positive number in the unit of the images, or a NIfTI file, got {text!r}."
        ) from None
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"--sigma: expected a positive number in the unit of the images, got {text}.")
    return value
