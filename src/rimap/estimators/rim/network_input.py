"""What a network needs of a whole series before its first slice: image scale, σ, which voxels are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array
from rimap.correlation import NoiseCorrelation
from rimap.errors import NoiseLevelError
from rimap.estimators.checks.image_counts import Census
from rimap.estimators.noise_correlation import correlation_in, estimated_in, window_of
from rimap.estimators.rim.initial_estimate import likelihood_start
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.series import Status, WeightedSeries
from rimap.signals.base import SignalModel

F32 = NDArray[np.float32]
#: Median of A over a head, where A of CSF is 1 (Table 1: white matter 0.65, grey matter 0.85).
TYPICAL_A = 0.78
_LOOK_AT = 3  # slices
_VOXELS = 96 * 96  # of each


@dataclass(frozen=True, eq=False)
class Prepared:
    """Scale and noise of a series.

    Parameters
    ----------
    scale
        What the images are divided by.
    noise
        With its σ, in the unit of the images.
    sigma_source
        ``given``, ``residuals``, ``background``.
    relative_sigma
        σ in units of the scale, the median over the mask.
    """

    scale: float
    noise: Noise
    sigma_source: str
    relative_sigma: float

    def sigma_of(self, k: Array) -> Array:
        """Return σ of the slice k: a number or a map."""
        return self.noise.sigma if np.ndim(self.noise.sigma) == 0 else self.noise.sigma[k]

    def status(self, series: WeightedSeries, kappa: F32, census: Census) -> NDArray[np.uint8]:
        """Return the status of each voxel, before what the network was trained for."""
        status = np.full(series.shape, Status.OK, np.uint8)
        for parameter in Layout.of(series.model).carried:
            q = series.model.index(parameter.name)
            width = parameter.bounds[1] - parameter.bounds[0]
            for bound in parameter.bounds:
                scale = abs(bound) or (0.0 if parameter.amplitude else width)  # no amplitude is normal, as in air
                if np.isfinite(scale):
                    status[abs(kappa[q] - bound) < 1e-3 * scale] = Status.AT_BOUND
        status[census.brightest == 0] = Status.NO_SIGNAL
        status[~np.isfinite(census.power)] = Status.NOT_FINITE
        for value in (self.noise.sigma, *series.held.values()):
            if np.ndim(value):
                status[~np.isfinite(value)] = Status.NOT_FINITE
        status[~series.selected] = Status.OUTSIDE_MASK
        return status


def slices(shape: tuple[int, ...]) -> Iterator[tuple[slice | int, ...]]:
    """Yield the index of each plane: along the last of three axes."""
    if len(shape) < 3:
        yield (slice(None),) * len(shape)
        return
    for index in range(shape[2]):
        yield (slice(None), slice(None), index)


def part_of_series(series: WeightedSeries, index: Array) -> WeightedSeries:
    """Return the series of the voxels ``[index]``, with its mask (none if it is empty there), noise and given maps."""
    noise = None if series.noise is None else series.noise.at(index)
    selected = series.selected[index]
    return replace(
        series,
        images=series.images[(slice(None), *index)],
        mask=None if selected.all() or not selected.any() else selected,
        noise=noise,
        given={name: value[index] if np.ndim(value) else value for name, value in series.given.items()},
    )


def known_at(series: WeightedSeries, k: Array) -> dict[str, Any]:
    """Return the known parameters that a network does not estimate, at the voxels ``[k]``, by name.

    A voxel without a known value gets the start that the model declares. It has no estimate, but neighbours that do.
    """
    layout = Layout.of(series.model)
    known = layout.known_of(series.held)
    for parameter in layout.known:
        if np.ndim(known[parameter.name]):
            here: NDArray[Any] = np.asarray(known[parameter.name])[k]
            known[parameter.name] = np.where(np.isfinite(here), here, float(parameter.start or 0.0)).astype(np.float32)
    return known


def neutral(images: NDArray[Any], scale: float) -> F32:
    """Return images (N, *X) in units of the scale.

    A voxel with a value that is not finite is zero in all images, so that it does not affect its neighbours.
    """
    S = images.astype(np.float32) / np.float32(scale)
    bad = ~np.isfinite(S).all(0)
    if bad.any():
        S[:, bad] = 0
    return S


def prepared(series: WeightedSeries, scale: float | None, threads: int | None) -> Prepared:
    """Return the scale and the noise of a series.

    Raises
    ------
    NoiseLevelError
        Where σ is neither given nor to be found.
    """
    noise, source = series.noise or Gaussian(), series.sigma_source
    if noise.sigma is None:
        found, source = _sigma(series, threads)
        if not np.isfinite(found):
            raise NoiseLevelError(
                f"the noise level is not known: {series.model.n_images} images leave no residual and there is no "
                "background. Give --sigma (or noise=Gaussian(sigma=…))."
            )
        noise = type(noise)(sigma=found)
    sigma = noise.typical_sigma(series.selected)
    if np.ndim(noise.sigma) and np.isfinite(sigma):  # images outside the mask are neighbours of those inside
        noise = type(noise)(sigma=np.where(series.selected, noise.sigma, sigma))
    if scale is None:
        scale = image_scale(series, noise) if series.model.amplitudes else 1.0
    return Prepared(float(scale), noise, source, sigma / float(scale))


def _sigma(series: WeightedSeries, threads: int | None) -> tuple[float, str]:
    from rimap.estimators.nlls.estimator import least_squares, noise_of

    if len(series.shape) == 3 and series.shape[2] > 8:  # σ is one number: a few slices determine it
        k = np.unique(np.linspace(0, series.shape[2] - 1, 10).round().astype(int))[1:-1]
        if series.selected[..., k].any() and np.isfinite(series.images[..., k]).any() and series.images[..., k].any():
            series = part_of_series(series, (slice(None), slice(None), k))
    noise, source, _ = noise_of(series, least_squares(series, threads=threads))
    return np.nan if noise.sigma is None else float(noise.sigma), source


def correlation_of_noise(
    series: WeightedSeries, where: NDArray[np.bool_], threads: int | None
) -> NoiseCorrelation | None:
    """Return how the noise of neighbours is correlated, from least squares in a part of the voxels `where` (*X).

    A network averages over neighbours: its own residuals would say less. None is known of images that were denoised.
    """
    from rimap.estimators.nlls.estimator import least_squares

    if series.denoised or not where.any():
        return None
    window = window_of(where)
    part = part_of_series(series, window)
    maps = least_squares(part, threads=threads)
    estimated = sum(parameter.name not in part.held for parameter in part.model.parameters)
    return correlation_in(part.images, maps.kappa, where[window] & estimated_in(maps.status), part.model, estimated)


def image_scale(series: WeightedSeries, noise: Noise) -> float:
    """Return what the images are to be divided by, so that the median of A is that of a head with A = 1 in CSF."""
    planes = list(slices(series.shape))
    selected = np.array([series.selected[plane].sum() for plane in planes])
    order = np.flatnonzero(selected > 0.5 * selected.max())
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _LOOK_AT + 2).round().astype(int)[1:-1])]
    values = []
    for i in chosen:
        k = planes[i]
        step = max(1, int(np.ceil(np.sqrt(np.prod(series.shape[:2]) / _VOXELS))))
        every = (slice(None, None, step),) * min(2, len(series.shape))
        S = neutral(series.images[(slice(None), *k)], 1.0)[(slice(None), *every)]
        inside = series.selected[k][every].reshape(-1)
        here = np.zeros(series.shape, bool)
        here[k] = series.selected[k]
        sigma = noise.typical_sigma(here)
        rms = np.sqrt((S.reshape(len(S), -1).astype(float) ** 2).mean(0))
        if not (rms[inside] > 0).any():
            continue
        unit = float(np.percentile(rms[inside], 98)) or 1.0
        flat = (S / unit).reshape(len(S), 1, S.shape[1], -1).astype(np.float32)
        rician = isinstance(noise, Rician)
        power = np.maximum(rms**2 - (2 if rician else 1) * float(sigma) ** 2, 0)
        strong = inside & (power > 0.25**2 * _high_power(power[inside], float(sigma)))
        known = {
            name: value[every].reshape(flat.shape[1:]) if np.ndim(value) else value
            for name, value in known_at(series, k).items()
        }
        A = _amplitude(series.model, flat, float(sigma) / unit, rician, strong.reshape(flat.shape[1:]), known)
        values.append(A[strong] * unit)
    found = np.concatenate(values) if values else np.ones(1)
    median = float(np.median(found)) if len(found) else 0.0
    return median / TYPICAL_A if median > 0 else float(np.nanmax(abs(series.images))) or 1.0


def _high_power(power: NDArray[Any], sigma: float) -> float:
    """Return the 98th percentile of the mean square of voxels (V); of those with signal, if the others are over 98 %.

    A tube or a limb may fill less of the field of view. Air has a power of at most 2 σ² in magnitudes, and voxels with
    an SNR of 5 are no air.
    """
    high, bright = float(np.percentile(power, 98)), power > (5 * sigma) ** 2
    return float(np.percentile(power[bright], 98)) if high < (2 * sigma) ** 2 and bright.any() else high


def _amplitude(
    model: SignalModel, S: F32, sigma: float, rician: bool, strong: NDArray[np.bool_], known: Mapping[str, Any]
) -> F32:
    """Return the first amplitude of each voxel at the maximum of the likelihood."""
    data = DataTerm(model, S, np.full((1, 1, 1), sigma, np.float32), rician, known=known)
    return np.asarray(likelihood_start(data.problem, strong.astype(np.float32))[0].reshape(-1), np.float32)
