"""The regularised maximum-likelihood estimator of the paper (Eq. 2)."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators.base import Estimator, Progress, conditioning_warnings, model_warnings
from rimap.estimators.checks.misfit import misfit_warnings
from rimap.estimators.checks.noise_floor import noise_floor_warnings
from rimap.estimators.mle.field import Box, minimise
from rimap.estimators.nlls.estimator import NLLS
from rimap.estimators.table import ShapeTable
from rimap.likelihood import Gaussian, Noise
from rimap.series import ParameterMaps, Status, WeightedSeries

if TYPE_CHECKING:
    from rimap.estimators.mle.voxels import Fit, Voxels

Array = NDArray[np.float64]

#: The least gain in log-likelihood, over the whole volume, for which the iterations go on: this and 3e-4 for each
#: degree of freedom of B (some 100 in a slice of 256 × 256 at the default λ_B).
TOLERANCE = 0.1

#: No image is trusted to less than this share of the root mean square of all: real scans are not known that well, and
#: noise-free ones would make the problem endlessly stiff.
PRECISION = 5e-4

#: Chosen on the training anatomies: docs/lambda.md.
DEFAULT_LAMBDA_B = 1e6


@dataclass(frozen=True, kw_only=True)
class MLE(Estimator):
    """Maximum likelihood with a smooth B: κ̂ = argmin Σ −log p(S | f(κ), σ) + λ_B/2·‖ΔB‖² (Eq. 2).

    The likelihood is that of `series.noise`: Gaussian, where the first term is χ²/2, or Rician. Only the parameter
    that the model calls smooth (B, which belongs to the pulse and not to the tissue) is regularised. A and T are
    the best for this B in each voxel, T from a search over its whole range. Iterations end by a criterion: when a
    Newton step brings less than some 0.1 of log-likelihood for the whole volume and neither does a new search of T.

    A model without a smooth parameter is estimated voxel by voxel. For Gaussian noise that is `NLLS`.

    Parameters
    ----------
    lambda_B
        Weight of the penalty. Its unit: the log-likelihood is in natural units (images over σ), B is dimensionless
        and Δ is per square voxel: Σₐ (second difference along axis a)/(hₐ/h)², where hₐ is the length of the voxel
        along the axis and h that of its finest axis. Since χ² falls as σ grows, noisier data are smoothed more; the
        scale of the images makes no difference. The distance over which B is smoothed goes as λ_B^¼.
        0 estimates B in every voxel by itself, ``math.inf`` one B for the whole volume.
    threads
        How many; as many as there are processors where it is left out.

    Raises
    ------
    InputError
        If λ_B is negative, or where the estimate needs a σ that is neither given nor to be had from the series.

    Deviations
    ----------
    The paper gives no unit for its λ_B = 500. Here the default was chosen by the paper's own sweep (docs/lambda.md).

    Where the Laplacian ends is not said either. Here B is a field in a box around the mask, 16 voxels larger on
    either side, with mirrored edges; the mask selects the voxels whose data count. So B needs no edge condition at
    the border of the mask, holes are filled, several components are parts of one field, and a voxel without signal
    takes B from its surroundings (and has no A and T).

    References
    ----------
    Sabidussi et al. 2021, Eq. 2 and §4.4.1, doi:10.1016/j.media.2021.102220.

    Examples
    --------
    >>> from rimap import Gaussian, InversionRecovery, WeightedSeries
    >>> model = InversionRecovery(tau=[50, 200, 500, 1000, 2500])
    >>> kappa = np.ones((3, 8, 8)) * np.reshape([100.0, 1.9, 800.0], (3, 1, 1))
    >>> maps = MLE().estimate(WeightedSeries(images=model.signal(kappa), model=model, noise=Gaussian(sigma=1.0)))
    >>> {name: float(value[3, 3].round(2)) for name, value in maps.items()}
    {'A': 100.0, 'B': 1.9, 'T1': 800.0}
    """

    lambda_B: float = DEFAULT_LAMBDA_B
    threads: int | None = None

    name: ClassVar[str] = "mle"
    title: ClassVar[str] = "Regularised maximum likelihood"
    halo = None

    def __post_init__(self) -> None:
        if not self.lambda_B >= 0:
            raise InputError(f"lambda_B must be zero or positive, or infinite for one B; {self.lambda_B} came.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be 1 or more; {self.threads} came.")

    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series, with standard deviations, residual and σ."""
        smooth = any(p.smooth for p in series.model.parameters)
        gaussian = isinstance(series.noise or Gaussian(), Gaussian)
        if gaussian and not (smooth and self.lambda_B > 0):
            maps = NLLS(threads=self.threads).estimate(series, progress=progress)
            return replace(maps, estimator=self.name, settings=asdict(self))
        return _maximise(self, series, progress)


def _maximise(options: MLE, series: WeightedSeries, progress: Progress | None) -> ParameterMaps:
    from rimap.estimators.mle.voxels import Voxels  # numba is slow to import: only who maps pays

    model = series.model
    names = [p.smooth for p in model.parameters]
    if not model.separable or len(names) not in (2, 3) or any(names[:1] + names[2:]):
        raise InputError(
            f"the MLE needs a model with a basis, linear in A and A·B; {model.title} is not one. Use NLLS with Gaussian "
            "noise."
        )
    noise, source, found = _with_sigma(series, options.threads)
    status = _usable(series, noise)
    voxels = np.flatnonzero(status == Status.OK)
    Q, M = len(names), status.size
    found_maps = None
    converged = True
    if len(voxels):
        with ThreadPoolExecutor(options.threads or _cores()) as pool:
            sigma = _at(noise.sigma, voxels)
            unit = np.maximum(sigma, PRECISION * _rms(series, voxels))
            data = Voxels.of(series.images, voxels, unit, ShapeTable.of(model), noise, pool)
            field, fit, spread, converged = _solve(options, series, data, voxels, progress)
            kappa, sd, residual = found_maps = _empty(Q, M)
            if field is not None:
                kappa[1] = np.where(status != Status.OUTSIDE_MASK, field.reshape(-1), np.nan)
            _fill(data, fit, spread, series, noise, voxels, unit, sigma, (kappa, sd, residual, status))
    kappa, sd, residual = found_maps or _empty(Q, M)
    if not converged:
        status[status == Status.OK] = Status.NOT_CONVERGED
    X = series.shape
    maps = ParameterMaps(
        kappa=kappa.reshape(Q, *X), model=model, status=status.reshape(X), sd_kappa=sd.reshape(Q, *X),
        residual=residual.reshape(X), noise=noise, sigma_source=source, estimator=MLE.name, settings=asdict(options),
        affine=series.affine,
    )  # fmt: skip
    doubts = (*conditioning_warnings(series, maps), *noise_floor_warnings(series, maps), *misfit_warnings(series, maps))
    return replace(maps, warnings=(*model_warnings(model), *found, *doubts))


def _empty(Q: int, M: int) -> tuple[Array, Array, Array]:
    return np.full((Q, M), np.nan), np.full((Q, M), np.nan), np.full(M, np.nan)


def _cores() -> int:
    from rimap.estimators.nlls.estimator import _cores as cores

    return cores()


def _with_sigma(series: WeightedSeries, threads: int | None) -> tuple[Noise, str, tuple[str, ...]]:
    """Return the noise with its σ, from a least-squares fit where none is given, and where it came from."""
    noise = series.noise or Gaussian()
    if noise.sigma is not None:
        return noise, "given", ()
    maps = NLLS(threads=threads).estimate(series)
    if maps.noise is None or maps.noise.sigma is None:
        raise InputError(
            "the MLE weighs the images against the smoothness of B, so it must know the noise level; there are too few "
            "images and no background to estimate it from. Give --sigma, or use NLLS."
        )
    return maps.noise, maps.sigma_source, ()


def _usable(series: WeightedSeries, noise: Noise) -> NDArray[np.uint8]:
    """Return the status (M) before anything is estimated."""
    finite, signal = np.ones(series.shape, bool), np.zeros(series.shape, bool)
    for image in series.images:
        finite &= np.isfinite(image)
        signal |= image != 0
    if np.ndim(noise.sigma):
        finite &= np.isfinite(noise.sigma)
    status = np.full(series.shape, Status.OK, np.uint8)
    status[~signal] = Status.NO_SIGNAL
    status[~finite] = Status.NOT_FINITE
    status[~series.selected] = Status.OUTSIDE_MASK
    return status.reshape(-1)


def _solve(
    options: MLE, series: WeightedSeries, data: Voxels, voxels: NDArray[np.intp], progress: Progress | None
) -> tuple[Array | None, Fit, Array | float, bool]:
    """Return B (*X) or nothing, the fit at the voxels, the variance of B there, and whether it converged."""
    if len(series.model.parameters) == 2:
        return None, data.fit(np.zeros(len(data)), None, True), 0.0, True
    p = series.model.parameters[1]
    lambda_B = options.lambda_B if p.smooth else 0.0
    if lambda_B == 0:
        fit, converged = _each_its_own(series, data, voxels, p.bounds, options.threads)
        field = np.full(series.selected.size, np.nan)
        field[voxels] = fit.F
        return field, fit, math.inf, converged
    best = data.best_constant(p.bounds, sample=None if math.isinf(lambda_B) else 1000)
    if math.isinf(lambda_B):
        total = float(np.maximum(best.w, 0).sum())
        return np.full(series.shape, best.F[0]), best, 1 / total if total > 0 else math.inf, True
    chosen = np.zeros(series.selected.size, bool)
    chosen[voxels] = True
    box = Box.around(chosen.reshape(series.shape), series.voxel_size)
    first = []

    def watch(J: float, promise: float) -> None:
        first.append(max(promise, 1.0))
        if progress:
            done = math.log(first[0] / max(promise, TOLERANCE)) / math.log(first[0] / TOLERANCE)
            progress(int(min(max(100 * done, 0), 99)), 100)

    start = np.full(box.shape, best.F[0])
    tolerance = TOLERANCE + 3e-4 * box.degrees_of_freedom(float(np.maximum(best.w, 0).mean()), lambda_B)
    B, fit, converged = minimise(box, data.fit, start, lambda_B, p.bounds, tolerance=tolerance, watch=watch)
    if progress:
        progress(100, 100)
    return box.crop(B, series.shape), fit, box.variance(fit.w, lambda_B), converged


def _each_its_own(
    series: WeightedSeries, data: Voxels, voxels: NDArray[np.intp], bounds: tuple[float, float], threads: int | None
) -> tuple[Fit, bool]:
    """Return the fit with a B of its own in every voxel: Newton's method in each, from least squares."""
    start = NLLS(threads=threads).estimate(series.with_noise(Gaussian(sigma=1.0))).kappa[1].reshape(-1)[voxels]
    fit = data.fit(np.clip(np.nan_to_num(start, nan=sum(bounds) / 2), *bounds))
    reach = np.full(len(data), 0.1)
    for _ in range(50):
        curve = np.where(fit.w > 0, fit.w, np.abs(fit.g) / reach + 1e-12)
        B = np.clip(fit.F + np.clip(-fit.g / curve, -reach, reach), *bounds)
        promise = 0.5 * np.abs(fit.g * (B - fit.F))
        if not (promise > 1e-4).any():
            return fit, True
        new = data.fit(B, fit)
        better = new.f < fit.f
        reach = np.where(better, np.minimum(2 * reach, 1.0), 0.3 * reach)
        fit = new.where(better, fit)
    return fit, True


def _at(sigma: Any, voxels: NDArray[np.intp]) -> Any:
    return sigma if np.ndim(sigma) == 0 else np.asarray(sigma, dtype=float).reshape(-1)[voxels]


def _rms(series: WeightedSeries, voxels: NDArray[np.intp]) -> float:
    """Return the root mean square of the images over (some of) the voxels."""
    some = voxels[:: max(1, len(voxels) // 20_000)]
    where = np.unravel_index(some, series.shape)
    return float(np.sqrt(np.mean([np.mean(np.square(image[where], dtype=np.float64)) for image in series.images])))


def _fill(
    data: Voxels, fit: Fit, spread: Array | float, series: WeightedSeries, noise: Noise, voxels: NDArray[np.intp],
    unit: Any, sigma: Any, maps: tuple[Array, Array, Array, NDArray[np.uint8]],
) -> None:  # fmt: skip
    """Write the maps of the voxels: values, standard deviations, residual and status."""
    kappa, sd, residual, status = maps
    model = series.model
    lo, hi = model.parameters[-1].bounds
    T = np.clip(np.exp(fit.u), lo, hi)
    kappa[0, voxels], kappa[-1, voxels] = fit.A * unit, T
    var_A, var_u, _, dA, du, own, rss = data.information(fit, noise).T
    bound = (fit.A <= 0) | (lo * (1 + 1e-9) >= T) | (hi * (1 - 1e-9) <= T)
    var_B: Any = 0.0
    if len(kappa) == 3:
        with np.errstate(divide="ignore"):
            var_B = np.where(own > 0, 1 / own, np.inf) if np.isscalar(spread) and spread == math.inf else spread
        b0, b1 = model.parameters[1].bounds
        bound |= (b0 >= fit.F) | (b1 <= fit.F)
        sd[1, voxels] = np.sqrt(var_B) * (sigma / unit)
    with np.errstate(invalid="ignore"):
        sd[0, voxels] = np.sqrt(var_A + dA**2 * var_B) * sigma
        sd[-1, voxels] = np.sqrt(var_u + du**2 * var_B) * (sigma / unit) * T
    sd[:, voxels] = np.where(bound | ~np.isfinite(sd[:, voxels]), np.nan, sd[:, voxels])
    residual[voxels] = np.sqrt(rss / model.n_images) * unit
    status[voxels[bound]] = Status.AT_BOUND
