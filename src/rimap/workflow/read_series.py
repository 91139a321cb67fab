"""Read one series in Python, with the signal model that its images support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Unpack

from rimap.advice import note
from rimap.errors import InputError
from rimap.io.reading_options import AS_FOUND, Reading, ReadingOptions
from rimap.io.series_search import one_series
from rimap.series import WeightedSeries
from rimap.workflow.model_choice import decide_reading


def read(
    path: Path | str | Sequence[Path | str],
    how: Reading = AS_FOUND,
    *,
    series: str | None = None,
    **options: Unpack[ReadingOptions],
) -> WeightedSeries:
    """Read one series: a BIDS folder or one file of its series, a 4-D NIfTI, a list of 3-D NIfTIs, or DICOM.

    ``rimap.read("ir.nii.gz", sequence="ir", times_ms=[50, 400, 1100, 2500], mask="auto")``

    Parameters
    ----------
    path
        What to read. If it contains several series, give a file of one series, or its `sequence`.
    how
        How to read it, as a `Reading`.
    series
        Number of the DICOM series, or several numbers separated by commas.
    **options
        Fields of `Reading` by name: `sequence`, `times_ms` and `tr_ms` (ms), `settings`, `given`, `mask`, `noise`,
        `skip_first`, `signed`. They replace those of `how`. If `sequence` is left out, the images decide between models
        of the same kind of series (``t2`` or ``mese``), and `notes` give the decision and its reason.

    Returns
    -------
    WeightedSeries
        Images (N, *X), their model with times in ms, mask and affine.

    Raises
    ------
    InputError
        If there is not exactly one series, its files do not fit together, or an option does not exist.
    """
    known = [field.name for field in fields(Reading)]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1) or known
            raise InputError(f"read: expected {' or '.join(near)}, got {name!r}.")
    how = replace(how, **options)
    files = one_series(path, how.sequence, series)
    how, decision = decide_reading(how, files)
    found = files.load(how)
    return found if decision is None or not decision.text else replace(found, notes=(*found.notes, note(decision.text)))
