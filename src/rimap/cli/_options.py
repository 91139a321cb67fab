"""The options that several verbs share, and what turns text into values or into an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from rimap.errors import InputError

EstimatorName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="nlls, mle, rim or resnet, as `rimap models` lists them; chosen if left out."),
]
TrMs = Annotated[
    str | None,
    typer.Option(
        metavar="LIST", help="Time from inversion to inversion in ms, one or one per image. Else from the sidecars."
    ),
]
Signed = Annotated[
    bool | None,
    typer.Option("--signed/--magnitude", help="Images keep their polarity (real part), or are a modulus."),
]
SkipFirst = Annotated[
    int, typer.Option(metavar="N", help="Leave out the images of the N shortest times (1: the first echo of a MESE).")
]
NoiseName = Annotated[str | None, typer.Option(metavar="gaussian|rician", help="Likelihood; gaussian if left out.")]
LambdaB = Annotated[
    float | None, typer.Option("--lambda-b", metavar="X", help="Smoothness of B (mle).", show_default=False)
]
Network = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Trained network (rim, resnet), as `rimap models` lists them."),
]
SdDraws = Annotated[
    int | None,
    typer.Option(
        "--sd-draws",
        metavar="K",
        min=0,
        help="Standard deviations of a network's maps from K draws of the noise, each as long as mapping (rim, resnet).",
        show_default=False,
    ),
]
Run = Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Only this run. Repeatable.")]
Register = Annotated[bool, typer.Option("--register", help="Align the images before they are mapped.")]
Rates = Annotated[bool, typer.Option("--rates", help="Write R1 or R2 as well.")]
Fill = Annotated[
    float | None, typer.Option(metavar="0", help="Write this instead of NaN, for tools that cannot read NaN.")
]


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return the numbers of a list that commas or spaces separate.

    >>> numbers("50, 400 1100", "--times-ms")
    (50.0, 400.0, 1100.0)
    """
    if text is None:
        return None
    words = [w for w in re.split(r"[,;\s]+", text.strip()) if w]
    if not words:
        raise InputError(f'{option}: expected numbers in ms, as in {option} "50,400,1100", got none.')
    try:
        values = tuple(float(w) for w in words)
    except ValueError:
        raise InputError(f'{option}: expected numbers in ms, as in {option} "50,400,1100", got {text!r}.') from None
    if not all(math.isfinite(v) for v in values):
        raise InputError(f"{option}: expected finite numbers in ms, got {text!r}.")
    return values


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were typed.

    >>> given(network="t1", sd_draws=None)
    {'network': 't1'}
    """
    return {k: v for k, v in options.items() if v is not None}


def labels(values: Iterable[str] | None, prefix: str) -> tuple[str, ...]:
    """Return labels without their prefix; one value may hold several.

    >>> labels(["sub-01", "02,03"], "sub-")
    ('01', '02', '03')
    """
    words = [w for v in values or () for w in re.split(r"[,\s]+", v.strip()) if w]
    return tuple(w.removeprefix(prefix) for w in words)


def sequence(text: str | None) -> str | None:
    """Return rimap's name for what users call a sequence; other names are left to `one_of`.

    >>> sequence("T1"), sequence("MESE"), sequence("flair")
    ('ir', 't2', 'flair')
    """
    if text is None:
        return None
    low = text.strip().lower()
    return {"t1": "ir", "irt1": "ir", "t1map": "ir", "inversion-recovery": "ir", "mese": "t2", "t2map": "t2"}.get(
        low, low
    )


def sigma_or_file(text: str | None) -> float | Path | None:
    """Return σ as a number, or the file that holds a map of it."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise InputError(
            f"--sigma: expected a positive number in the unit of the images, or a NIfTI file of it, got {text!r}."
        ) from None
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"--sigma: expected a positive number in the unit of the images, got {text}.")
    return value
