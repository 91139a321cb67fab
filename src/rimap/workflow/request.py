"""The options of a run of `rimap map`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.foreground import AUTO


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to map, how, and where to write the maps. Options that are left out are read from the files, or chosen.

    Parameters
    ----------
    inputs
        A BIDS folder, a folder of DICOM, one 4-D NIfTI file, or several 3-D ones: a path or several.
    out
        Folder for maps and reports.
    estimator
        Its name. By default it depends on the signal model.
    estimator_options
        Options of that estimator by name: `lambda_B`, `network`, `sd_draws`.
    mask
        NIfTI file, non-zero inside the mask; ``"auto"`` for the foreground of the images.
    times_ms, tr_ms
        Times along the axis of the series in the order of the images, and repetition time: one or one per image, ms.
    settings
        Any setting of the signal model by name, in its unit (ms, degrees): one value, or one for each image.
    given
        Parameters that are known, by name: a NIfTI file, or a number.
    fixed, bounds
        Values of parameters that are not estimated, and bounds of those that are, by name (nlls, mle).
    sequence
        Name of the signal model, if neither suffix nor sidecars determine it.
    signed
        Whether the images are signed (real part, polarity kept) or magnitude images.
    skip_first
        Number of shortest times whose images are left out.
    noise, sigma
        ``gaussian`` or ``rician``; and the noise SD in the unit of the images, or the file of a map of it.
    participant_labels, sessions, runs, series
        Only these subjects, sessions, runs and DICOM series.
    register
        Align the images first.
    denoise
        Denoise the images first: ``mppca``.
    rois
        Label image whose regions get a table.
    rates, fill
        Whether to write rate maps (R1, R2, R2*) as well; the value to write instead of NaN.
    overwrite
        Replace earlier maps.
    threads, memory
        Limits of cores and of memory in bytes.
    command
        What the user typed after ``rimap``, for the report.
    """

    inputs: tuple[Path, ...]
    out: Path
    estimator: str | None = None
    estimator_options: Mapping[str, Any] = field(default_factory=dict)
    mask: Path | str | None = None
    times_ms: tuple[float, ...] | None = None
    tr_ms: tuple[float, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Path | float] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sequence: str | None = None
    signed: bool | None = None
    skip_first: int = 0
    noise: str | None = None
    sigma: float | Path | None = None
    participant_labels: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    rois: Path | None = None
    rates: bool = False
    fill: float | None = None
    overwrite: bool = False
    threads: int | None = None
    memory: int | None = None
    register: bool = False
    denoise: str | None = None
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Convert text to paths, a single path to a tuple, and any sequence of numbers to a tuple of floats."""
        inputs: Any = self.inputs
        several = (inputs,) if isinstance(inputs, (str, Path)) else tuple(inputs)
        values: dict[str, Any] = {"inputs": tuple(Path(p) for p in several), "out": Path(self.out)}
        values["rois"] = None if self.rois is None else Path(self.rois)
        values["mask"] = self.mask if self.mask in (None, AUTO) else Path(self.mask)
        for name in ("times_ms", "tr_ms"):
            values[name] = None if (numbers := getattr(self, name)) is None else _numbers(numbers)
        known: Mapping[str, Any] = self.given
        values["given"] = {name: Path(value) if isinstance(value, str) else value for name, value in known.items()}
        sigma: Any = self.sigma
        if isinstance(sigma, str):
            values["sigma"] = Path(sigma)
        if self.fill is not None and math.isinf(self.fill):
            raise InputError(
                f"--fill: expected a finite number to write instead of NaN, got {self.fill:g}. Leave it out for NaN."
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(values) if isinstance(values, Iterable) else (values,)
