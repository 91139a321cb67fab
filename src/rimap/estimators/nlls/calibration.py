"""σ from the residuals of magnitudes at low SNR: by how much a fit follows the noise is found by fitting simulated
images.

The residuals of a least-squares fit are σ² χ² with N − Q degrees of freedom if the signal is nearly linear in its
parameters over the noise. At low SNR it is not: magnitudes are folded at zero, a search over polarities leaves less
than one polarity would, and times at the end of their range absorb noise. So images are simulated at the estimates,
with noise of the σ that was found, and fitted the same way; what their residuals lack, those of the scan lack too
(parametric bootstrap).

References
----------
Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 10 (estimates of bias).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import at_most
from rimap.estimators.sigma import SAMPLE, air_power, dark_below, quantile, values_at
from rimap.likelihood import Rician
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries

#: Voxels that are simulated, and fewer are not enough; how often the σ that was found is simulated anew, and when that
#: ends.
_VOXELS, _FEWEST = 3_000, 100
#: Rounds at most, and the relative change of σ at which they end.
_ROUNDS, _CLOSE = 5, 0.01

#: Fits a list of voxels with some parameters known.
Refit = Callable[[WeightedSeries, Mapping[str, Any]], ParameterMaps]


def calibrated(
    series: WeightedSeries,
    maps: ParameterMaps,
    sigma: float,
    held: Mapping[str, Any],
    refit: Refit,
    rms: NDArray[Any] | None = None,
) -> float:
    """Return σ so that images simulated with it leave the residuals of the scan, in the median voxel.

    Parameters
    ----------
    series, maps
        The images and their least-squares estimates, with residual.
    sigma
        From the residuals, to begin with.
    held
        What is known of the parameters, numbers or maps (*X) by name.
    refit
        The same least squares.
    rms
        (*X), root mean square over the images, if it is known.
    """
    assert maps.residual is not None
    known = np.flatnonzero(has(maps.status, (Status.OK, Status.AT_BOUND)))
    known = at_most(known, SAMPLE)
    if rms is None:
        rms = np.sqrt((values_at(series, known) ** 2).mean(0))
    else:
        rms = rms.reshape(-1)[known]
    chosen = rms > max(dark_below(rms), np.sqrt(air_power(series.model)) * sigma)
    some = np.flatnonzero(chosen)
    some = at_most(some, _VOXELS)
    if len(some) < _FEWEST:
        return sigma
    place = np.unravel_index(known[some], series.shape)
    given = {name: value if np.ndim(value) == 0 else np.asarray(value)[place] for name, value in held.items()}
    left = np.square(np.asarray(maps.residual, float)[place])
    voxels = replace(series, images=values_at(series, known[some]), mask=None, noise=None, given={}, affine=None)
    kappa = maps.kappa.reshape(len(maps.kappa), -1)[:, known[some]]
    f = series.model.signal(_truth(voxels, kappa, given, refit))
    found = sigma
    for _ in range(_ROUNDS):
        drawn = Rician(sigma=found).sample(f, np.random.default_rng(0))
        again = refit(replace(voxels, images=np.asarray(drawn)), given).residual
        assert again is not None
        residual = float(np.nanmedian(np.square(again)))
        if not residual > 0:
            return sigma
        new = found * float(np.sqrt(quantile(left, 0.5) / residual))
        if abs(new / found - 1) < _CLOSE:
            return new
        found = new
    return found


def _truth(voxels: WeightedSeries, kappa: NDArray[Any], given: Mapping[str, Any], refit: Refit) -> NDArray[np.float64]:
    """Return estimates (Q, V) to simulate at. A smooth field is the median one: that of each voxel alone follows its
    noise.
    """
    field = voxels.model.field
    if field is not None and field.smooth and field.name not in given:
        middle = float(np.nanmedian(kappa[voxels.model.index(field.name)]))
        kappa = refit(voxels, {**given, field.name: middle}).kappa
    return np.asarray(np.nan_to_num(kappa), float)
