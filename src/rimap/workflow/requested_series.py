"""Open the files of a series with the options of a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rimap.workflow.request import Request
from rimap.workflow.series_options import given_for, settings_for

if TYPE_CHECKING:
    from rimap.io import SeriesFiles
    from rimap.io.open_series import OpenSeries
    from rimap.likelihood import Noise


def opened(request: Request, files: SeriesFiles) -> OpenSeries:
    """Return the series with its headers and settings read.

    Raises
    ------
    InputError
        If files, settings and options do not fit together.
    """
    from rimap.io.reading_options import Reading

    model = files.model_class(request.sequence)
    how = Reading(
        times_ms=request.times_ms,
        tr_ms=request.tr_ms if request.tr_ms is None or len(request.tr_ms) > 1 else request.tr_ms[0],
        settings=settings_for(request, model),
        given=given_for(request, model),
        sequence=request.sequence,
        mask=request.mask,
        skip_first=request.skip_first,
        signed=request.signed,
    )
    series = files.open(how)
    return replace(series, noise=_noise(request, series))


def _noise(request: Request, series: OpenSeries) -> Noise | None:
    from rimap.likelihood import Gaussian, Rician

    if request.noise is None and request.sigma is None:
        return None
    kind = Rician if (request.noise or "gaussian").strip().lower() == "rician" else Gaussian
    if not isinstance(request.sigma, Path):
        return kind(request.sigma)
    import numpy as np

    from rimap.io.masks import read_map

    sigma = read_map(request.sigma, series.shape, series.affine, "map of sigma")
    return kind(np.where(sigma == 0, np.nan, sigma))  # 0: not measured
