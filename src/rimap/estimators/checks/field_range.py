"""A field of the scan that is outside what a scan can have: another sequence, other times, data that contradict the
model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rimap.advice import Advice, Weight, percent
from rimap.arrays import at_most
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.checks.noise_floor import BRIGHT, WITH_VALUE
from rimap.estimators.sigma import quantile
from rimap.maps import has
from rimap.series import ParameterMaps, WeightedSeries
from rimap.signals.base import Parameter

#: Of the voxels with a value so many beyond the range are a region, if the field is smooth.
REGION = 0.02
#: Number of voxels that are used.
_SAMPLE = 30_000
#: Voxels with this share of the largest signal represent the field over the object. (The brightest ones are often those
#: near a coil, where a field is not what it is elsewhere.)
_SEEN = 0.2
#: By so many standard deviations a value is beyond the range.
SURELY = 2.0


def field_warnings(series: WeightedSeries, maps: ParameterMaps, census: Census) -> tuple[str, ...]:
    """Return warnings on each estimated field that is beyond its physical range, over the object or in a region, or
    unusual.
    """
    fields = [
        parameter
        for parameter in maps.model.parameters
        if parameter.role == "field" and parameter.physical and parameter.name not in series.held
    ]
    if not fields:
        return ()
    bright, seen = (_object(maps, census, share) for share in (BRIGHT, _SEEN))
    return tuple(text for field in fields for text in (*_of(field, maps, bright), *_unusual(field, maps, seen)))


def _object(maps: ParameterMaps, census: Census, share: float) -> NDArray[np.intp]:
    """Return (some of) the voxels with a value and this share of the most signal: in air a field is what noise makes
    it.
    """
    use = at_most(np.flatnonzero(has(maps.status, WITH_VALUE)), _SAMPLE)
    peak = census.brightest.reshape(-1)[use].astype(float)
    return np.asarray(use[peak > share * quantile(peak, 0.98)]) if len(use) else use


def _unusual(p: Parameter, maps: ParameterMaps, use: NDArray[np.intp]) -> Iterator[str]:
    """Yield a caution if the median of a field is possible, but not what most scans have."""
    values = maps.kappa[maps.model.index(p.name)].reshape(-1)[use]
    if p.usual is None or p.physical is None or not np.isfinite(values).any():
        return
    middle, (least, most) = float(np.nanmedian(values)), p.usual
    if p.physical[0] < middle < p.physical[1] and not least <= middle <= most:
        yield Advice(
            f"{_what(p)} is {middle:.2f} in the median voxel; in most scans it is between {least:g} and {most:g}. "
            f"{p.if_unusual}"
        )


def _what(p: Parameter) -> str:
    return f"{p.name} ({p.meaning.split(';')[0]})"


def _of(p: Parameter, maps: ParameterMaps, use: NDArray[np.intp]) -> Iterator[str]:
    assert p.physical is not None
    low, high = max(p.physical[0], p.bounds[0]), min(p.physical[1], p.bounds[1])
    q = maps.model.index(p.name)
    values = maps.kappa[q].reshape(-1)[use]
    deviation = np.zeros(values.shape) if maps.sd_kappa is None else np.nan_to_num(maps.sd_kappa[q].reshape(-1)[use])
    if not np.isfinite(values).any():
        return
    finite = np.isfinite(values)
    middle = quantile(values if finite.all() else values[finite], 0.5)
    beyond = (values <= low) | (values >= high) | ~finite
    surely = beyond & ((values + SURELY * deviation <= low) | (values - SURELY * deviation >= high))
    share = float(np.mean(surely))
    what, ask = _what(p), f": {p.if_unphysical}" if p.if_unphysical else "."
    if not low < middle < high:
        yield Advice(
            f"{what} is {middle:.3g} in the median voxel; in a scan it is between {low:g} and {high:g}{ask} Until you "
            f"know, do "
            "not rely on these maps.",
            Weight.UNRELIABLE,
        )
    elif p.smooth and share > REGION:
        far = values[surely]
        yield Advice(
            f"{what} is beyond {low:g} to {high:g} in {percent(share)} % of the voxels, {np.median(far):.3g} there: "
            f"the images contradict the model in this region{ask}"
        )
