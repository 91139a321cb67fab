"""One series in Python: read, with the signal model that its images support."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rimap.advice import note
from rimap.io.finding import one_series
from rimap.io.reading import Reading
from rimap.likelihood import Noise
from rimap.series import WeightedSeries
from rimap.workflow.evidence import decide_reading


def read(
    path: Path | str | Sequence[Path | str],
    *,
    times_ms: Iterable[float] | None = None,
    tr_ms: float | Iterable[float] | None = None,
    settings: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    sequence: str | None = None,
    series: str | None = None,
    mask: Any = None,
    noise: Noise | None = None,
    skip_first: int = 0,
    signed: bool | None = None,
) -> WeightedSeries:
    """Read one series: a BIDS folder or one file of its series, a 4-D NIfTI, a list of 3-D NIfTIs, or DICOM.

    Parameters
    ----------
    path
        What to read. Where it holds several series, give a file of the one that is meant, or its `sequence`.
    series
        Number of the DICOM series, or several joined by commas.
    times_ms
        Values of the setting that differs between the images, if it is a time, in the order of the images, ms; from the
        sidecars if left out.
    tr_ms
        The setting ``tr``: the repetition time, one or one for each image, ms; from the sidecars if left out.
    settings
        Any setting of the signal model by name (``{"flip_angle": (3, 20)}``), one value or one for each image, in the unit
        of the setting: ms, degrees. What is left out comes from the sidecars.
    given
        Parameters that are known, by name: a file, a number, or an array (*X). Without a file for B1, that of the data set
        (TB1map of the same subject and session) is used if there is one.
    sequence
        A signal model by name, if suffix and sidecars do not say it or are to be read as another one. Left out, the
        images decide between the models that describe such a series (``t2`` or ``mese``), and `notes` say which and why.
    mask
        A file, an array (*X), a tensor or a nibabel image; ``"auto"`` for the voxels with signal.
    noise
        `Gaussian(…)` or `Rician(…)`.
    skip_first
        Leave out the images of this many shortest times (1 for the first echo of a MESE), repeats of them as well.
    signed
        Whether inversion recovery images keep their polarity. Left out: as ``part-`` says, and without it as the
        images look. `False` takes the modulus.

    Returns
    -------
    WeightedSeries
        Images (N, *X), their model with times in ms, mask and affine.

    Raises
    ------
    InputError
        Where there is not exactly one series, or its files do not fit together.
    """
    files = one_series(path, sequence, series)
    how, decision = decide_reading(
        Reading(
            times_ms=times_ms,
            tr_ms=tr_ms,
            settings=settings,
            given=given,
            sequence=sequence,
            mask=mask,
            noise=noise,
            skip_first=skip_first,
            signed=signed,
        ),
        files,
    )
    found = files.load(how)
    return found if decision is None or not decision.text else replace(found, notes=(*found.notes, note(decision.text)))
