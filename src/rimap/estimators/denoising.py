"""Denoising of the images before a fit: MP-PCA, and standard deviations that stay true.

MP-PCA keeps, of the signals of a patch of voxels, those principal components whose variance exceeds what noise alone
gives. Noise is then smaller, differs from voxel to voxel and is correlated between neighbours; and a difference between
neighbours that is smaller than the noise is lost with it. Neither the residuals nor σ say how large the error of a map
is then. Stein's lemma does, from one more denoising of images with noise added: it gives the mean squared error of the
map, what was lost included.

References
----------
Veraart et al. 2016, doi:10.1016/j.neuroimage.2016.08.016 (MP-PCA); Stein 1981, doi:10.1214/aos/1176345632;
Garyfallidis et al. 2014, doi:10.3389/fninf.2014.00008 (dipy).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note, ordered
from rimap.arrays import Array
from rimap.correlation import NoiseCorrelation
from rimap.errors import InputError, one_of
from rimap.estimators.base import with_conditioning
from rimap.estimators.checks.final_checks import Fit, with_statuses
from rimap.estimators.nlls.estimator import least_squares, noise_of
from rimap.estimators.noise_correlation import noise_correlation
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.series import ParameterMaps, Status, WeightedSeries

#: What `--denoise` takes.
METHODS = ("mppca",)
#: A patch reaches this many voxels to each side, in its slice.
RADIUS = 2
#: Fewer images than this have no component that is noise alone.
FEWEST_IMAGES = 4
#: Noise that is added to find how a map depends on it, in σ: little, so that the patches keep their components.
_ADDED = 0.5
#: Of the added noise: no seed that a simulation of images would take.
_SEED = 20_160_816_394
#: The squared error is averaged over neighbours with a Gaussian window of this many voxels, in the slice, and over all
#: voxels; the larger mean counts. By simulation (docs/denoising.md) intervals then hold the truth in 95 to 99 % of the
#: voxels; the neighbours alone give 87 %.
_WINDOW = 2.0
#: The least and the most that a standard deviation changes by.
_LEAST, _MOST = 0.1, 2.0
#: Voxels whose derivatives are held at a time.
_CHUNK = 50_000


def denoise(series: WeightedSeries, method: str = "mppca") -> WeightedSeries:
    """Return the series with denoised images.

    Its noise keeps the σ of the images before denoising. Standard deviations of maps that an estimator makes of it are
    therefore too large: those of `rimap map --denoise mppca` are corrected.

    Magnitudes that are said to be Rician are also freed from the noise floor: denoised values are near the mean of the
    Rician distribution, whose signal is known for this σ. Their noise is then taken for Gaussian.

    Parameters
    ----------
    series
        Images (N, *X) as they were acquired: not interpolated, not filtered, not registered. σ is estimated from a
        least-squares fit if the series does not have it.
    method
        ``mppca``: principal components of the signals of 5 × 5 voxels of a slice (Marchenko-Pastur).

    Raises
    ------
    InputError
        If dipy is not installed, the series has fewer than four images, it was denoised before, or σ is not known.

    References
    ----------
    Veraart et al. 2016, doi:10.1016/j.neuroimage.2016.08.016.
    """
    return _denoised(series, method).series


@dataclass(frozen=True, eq=False)
class _Denoised:
    """A denoised series and what is known of the images before.

    Parameters
    ----------
    series
        The denoised one.
    before
        The images as they were, with their σ.
    means
        (N, *X), what MP-PCA made of them: the noise floor of magnitudes is still in it.
    correlation
        Correlation of the noise of neighbouring voxels before denoising.
    about
        What the user should know.
    """

    series: WeightedSeries
    before: WeightedSeries
    means: NDArray[np.float32]
    correlation: NoiseCorrelation | None
    about: str


def _denoised(series: WeightedSeries, method: str = "mppca") -> _Denoised:
    one_of(method, METHODS, "--denoise")
    check_denoising(series.model.n_images)
    if series.denoised:
        raise InputError(f"denoise: the images were denoised already ({series.denoised}).")
    noise, correlation = _noise(series)
    means = mppca(np.asarray(series.images, np.float32), series.selected)
    if series.model.magnitude:
        means = abs(means)
    images, about, rician = means, "", isinstance(noise, Rician)
    if rician:
        images = signal_of_means(means, noise.sigma).astype(np.float32)
        about = " The noise floor of the magnitudes was removed."
    if correlation is not None and not correlation.is_white:
        about += (
            " The noise of adjacent voxels is correlated, as in images that are interpolated: MP-PCA expects "
            "independent noise, so it removes less noise here."
        )
    about = note(f"The images were denoised by MP-PCA before the fit (--denoise {method}).{about}")
    clean = replace(
        series,
        images=images,
        noise=Gaussian(noise.sigma) if rician else noise,
        denoised=method,
        notes=(*series.notes, about),
    )
    return _Denoised(clean, replace(series, noise=noise), means, correlation, about)


def check_denoising(n_images: int) -> None:
    """Refuse what cannot be denoised.

    Raises
    ------
    InputError
        If dipy is not installed, or there are too few images.
    """
    if importlib.util.find_spec("dipy") is None:
        raise InputError(
            '--denoise mppca: MP-PCA comes from dipy, which is not installed. pip install "rimap[denoise]".'
        )
    if n_images < FEWEST_IMAGES:
        raise InputError(
            f"--denoise mppca: expected at least {FEWEST_IMAGES} images, got {n_images}. Leave --denoise out: "
            "with so few images, no component contains only noise."
        )


def denoised_maps(estimate: Callable[[WeightedSeries], ParameterMaps], series: WeightedSeries) -> ParameterMaps:
    """Return the maps of denoised images, with standard deviations for the error that they have.

    The residual and the quality flag "off model" are those of the images before denoising.

    Parameters
    ----------
    estimate
        Makes the maps of a series.
    series
        As of `denoise`.
    """
    found = _denoised(series)
    clean, before = found.series, found.before
    maps = estimate(clean)
    factors = _error_factors(found, maps)
    deviation = None if maps.sd_kappa is None else maps.sd_kappa * factors
    covariance = maps.covariance
    if covariance is not None:
        rows, columns = np.triu_indices(len(factors))
        covariance = covariance * factors[rows] * factors[columns]
    changed = (
        np.nanmedian(factors[maps.model.time_index][maps.status == Status.OK]) if deviation is not None else np.nan
    )
    settings = {**maps.settings, "denoise": clean.denoised}
    if np.isfinite(changed):
        settings["denoise_sd_factor"] = round(float(changed), 3)
    maps = replace(
        maps,
        sd_kappa=deviation,
        covariance=covariance,
        settings=settings,
        residual=_residual(series, maps),
        correlation=found.correlation,
    )
    estimated = sum(not parameter.smooth for parameter in maps.model.parameters if parameter.name not in series.held)
    maps = replace(maps, warnings=ordered((*maps.warnings, found.about)))
    noise = clean.noise  # of the denoised images; the images before have that of the series
    judged, _ = with_statuses(before, replace(maps, noise=before.noise), Fit(estimated))
    return with_conditioning(series, replace(judged, noise=noise))


def mppca(images: NDArray[Any], selected: NDArray[np.bool_], radius: int = RADIUS) -> NDArray[np.float32]:
    """Return images (N, *X) denoised by MP-PCA of patches within each slice, where and near where they are `selected`
    (*X).

    A voxel with a value that is not finite keeps its values.
    """
    denoised = importlib.import_module("dipy.denoise.localpca").mppca
    images = np.asarray(images, np.float32)
    X = images.shape[1:]
    finite = np.isfinite(images).all(0)
    flat = X + (1,) * (3 - len(X))
    stack = np.moveaxis(np.where(finite, images, 0), 0, -1).reshape(*flat, -1)
    from scipy import ndimage  # slow to import

    near = ndimage.maximum_filter(selected.reshape(flat), [2 * radius + 1, 2 * radius + 1, 1])
    # dipy cuts what is negative, as signed images are; the mean of a patch is taken off, so that a shift does nothing
    low = np.float32(min(0.0, 2 * float(stack.min())) - float(np.abs(stack).max(initial=0.0)))
    with np.errstate(invalid="ignore"):  # 0/0 where nothing was asked for
        clean = low + denoised(stack - low, mask=near, patch_radius=[radius, radius, 0], suppress_warning=True)
    clean = np.where(near[..., None], clean, stack).reshape(*X, -1)
    out = np.moveaxis(clean, -1, 0).astype(np.float32)
    return np.where(finite, out, images)


def _noise(series: WeightedSeries) -> tuple[Noise, NoiseCorrelation | None]:
    """Return the noise of a series with its σ, and how it is correlated between neighbours, from a least-squares
    fit.
    """
    maps = least_squares(series)
    noise, _, _ = noise_of(series, maps)
    if noise.sigma is None:
        raise InputError("--denoise mppca: the images do not determine the noise level. Give --sigma.")
    estimated = sum(parameter.name not in series.held for parameter in series.model.parameters)
    return noise, noise_correlation(series, maps, estimated)


def signal_of_means(means: NDArray[Any], sigma: Array) -> NDArray[np.float64]:
    """Return the signals whose Rician distributions have these means; 0 for means below that of noise alone.

    >>> signal_of_means(np.array([1.0, Rician(1.0).mean(np.array(3.0)), 50.0]), 1.0).round(2)
    array([ 0.  ,  3.  , 49.99])
    """
    grid = np.concatenate([np.linspace(0, 20, 2001), np.geomspace(20.1, 1e4, 400)])
    mean = np.asarray(Rician(1.0).mean(grid))
    ratio = np.abs(np.asarray(means, float)) / sigma
    with np.errstate(invalid="ignore"):
        large = ratio - 0.5 / np.maximum(ratio, 1.0)  # the asymptote of the mean
        return np.asarray(np.where(ratio > mean[-1], large, np.interp(ratio, mean, grid)) * sigma)


def _residual(series: WeightedSeries, maps: ParameterMaps) -> NDArray[np.float64]:
    """Return the root mean square (*X) of the images before denoising minus the fit."""
    kappa = maps.kappa.reshape(len(maps.kappa), -1)
    found, at = np.full(kappa.shape[1], np.nan), np.flatnonzero(np.isfinite(kappa).all(0))
    for some in np.array_split(at, len(at) // _CHUNK + 1):
        where = np.unravel_index(some, series.shape)
        S = np.stack([np.asarray(image[where], float) for image in series.images])
        found[some] = np.sqrt(np.mean((S - np.asarray(maps.model.signal(kappa[:, some].astype(float)))) ** 2, axis=0))
    return found.reshape(series.shape)


def _error_factors(found: _Denoised, maps: ParameterMaps) -> NDArray[np.float64]:
    """Return by how much the error of each parameter differs from its standard deviation for the noise before
    denoising, (Q, *X).

    With L the linearised fit, y the images and D the denoising, the error of L·D(y) relative to that of L·y is, by
    Stein's lemma, E[(L·(D(y) − y))²] / Var(L·y) − 1 + 2 Cov(L·D(y), L·y) / Var(L·y). The covariance follows from the
    response of D(y) to added noise. Expectations are means over voxels (`_WINDOW`).
    """
    before, noise, Q = found.before, found.before.noise, len(maps.kappa)
    assert noise is not None and noise.sigma is not None
    factors = np.ones((Q, *maps.status.shape))
    if maps.sd_kappa is None:
        return factors
    free = [
        row
        for row, parameter in enumerate(maps.model.parameters)
        if not parameter.smooth and parameter.name not in before.held and np.isfinite(maps.sd_kappa[row]).any()
    ]
    if not free:
        return factors
    rng, X = np.random.default_rng(_SEED), before.shape
    sigma = np.broadcast_to(np.asarray(noise.sigma, np.float32), X)
    images = np.asarray(before.images, np.float32)
    added = rng.standard_normal(images.shape)
    if found.correlation is not None and not found.correlation.is_white:
        added = found.correlation.coloured(added, range(len(X)))
    added = (_ADDED * sigma * added).astype(np.float32)
    changed = mppca(images + added, before.selected) - found.means
    removed = found.means - images
    good = (maps.status == Status.OK) & np.isfinite(maps.kappa).all(0) & np.isfinite(images).all(0)
    squared = np.zeros((len(free), good.size))
    at = np.flatnonzero(good)
    for some in np.array_split(at, len(at) // _CHUNK + 1):
        where: tuple[Any, ...] = np.unravel_index(some, X)
        L, deviation = _linear_fit(maps, some, free)
        deviation = deviation * sigma[where]
        of = [
            np.einsum("mqn,nm->qm", L, images_[(slice(None), *where)]) / deviation
            for images_ in (removed, changed, added)
        ]
        squared[:, some] = of[0] ** 2 - 1 + 2 * of[1] * of[2] / _ADDED**2
    for index, row in enumerate(free):
        factors[row] = np.sqrt(np.clip(_mean_of_neighbours(squared[index].reshape(X), good), _LEAST**2, _MOST**2))
    return factors


def _linear_fit(
    maps: ParameterMaps, at: NDArray[np.intp], free: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (M, q, N), how the free parameters of voxels follow from their images, and their standard deviations (q,
    M) for σ = 1.
    """
    kappa = maps.kappa.reshape(len(maps.kappa), -1)[:, at].astype(float)
    J = np.moveaxis(np.asarray(maps.model.partials(kappa), float)[:, free], -1, 0)  # (M, N, q)
    scale = np.maximum(np.linalg.norm(J, axis=1, keepdims=True), 1e-300)
    J = J / scale
    information = np.swapaxes(J, 1, 2) @ J + 1e-12 * np.eye(len(free))
    C = np.linalg.inv(information)
    L = C @ np.swapaxes(J, 1, 2)
    deviation = np.sqrt(np.maximum(np.einsum("mqn,mqn->mq", L, L), 1e-300))
    per_unit = np.swapaxes(scale, 1, 2)
    return L / per_unit, (deviation / per_unit[..., 0]).T


def _mean_of_neighbours(values: NDArray[np.float64], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the larger of the mean over neighbours in the slice and that over all, of values without outliers."""
    if not good.any():
        return np.ones(values.shape)
    low, high = np.quantile(values[good], [0.002, 0.998])
    values = np.where(good, np.clip(values, low, high), 0.0)
    width = [_WINDOW if axis < 2 else 0.0 for axis in range(values.ndim)]
    from scipy import ndimage  # slow to import

    weight = ndimage.gaussian_filter(good.astype(float), width)
    mean = ndimage.gaussian_filter(values, width)
    overall = float(values[good].mean())
    share = 0.05  # of the overall mean, so that few neighbours do not decide alone
    return np.asarray(np.maximum((mean + share * overall) / (weight + share), overall))
