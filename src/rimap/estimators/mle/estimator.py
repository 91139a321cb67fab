"""The regularised maximum-likelihood estimator of the paper (Eq. 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators.base import (
    Estimator,
    Progress,
    conditioning_warnings,
    constrained,
    model_warnings,
    settings_of_options,
)
from rimap.estimators.checks.misfit import misfit_warnings
from rimap.estimators.checks.noise_floor import noise_floor_warnings
from rimap.estimators.mle.field import Box, minimise
from rimap.estimators.mle.start import smooth_start, spread_of
from rimap.estimators.nlls.estimator import NLLS
from rimap.likelihood import Gaussian, Noise
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import Parameter

if TYPE_CHECKING:
    from rimap.estimators.mle.answer import Solution
    from rimap.estimators.mle.known import Partitions
    from rimap.estimators.mle.voxels import Fit, Voxels

Array = NDArray[np.float64]

#: The least gain in log-likelihood, over the whole volume, for which the iterations go on: this and 3e-4 for each
#: degree of freedom of the field (some 100 in a slice of 256 × 256 at the default weight).
TOLERANCE = 0.1

#: No image is trusted to less than this share of the root mean square of all: real scans are not known that well, and
#: noise-free ones would make the problem endlessly stiff.
PRECISION = 5e-4

#: The default weight for the B of inversion recovery, chosen on the training anatomies: docs/lambda.md.
DEFAULT_LAMBDA_B = 1e6
#: The standard deviation within an image for which that weight is meant: the prior of B.
_SPREAD_OF_B = 0.1775


def default_weight(field: Parameter) -> float:
    """Return the default weight of the penalty for a field.

    A field that varies by half as much is as smooth, relative to its spread, with four times the weight. The spread is that of
    its prior, so the default is `DEFAULT_LAMBDA_B` for the B of inversion recovery.
    """
    return float(f"{DEFAULT_LAMBDA_B * (_SPREAD_OF_B / spread_of(field)) ** 2:.3g}")


@dataclass(frozen=True, kw_only=True)
class MLE(Estimator):
    """Maximum likelihood with a smooth field: κ̂ = argmin Σ −log p(S | f(κ), σ) + λ_B/2·‖ΔB‖² (Eq. 2).

    The likelihood is that of `series.noise`: Gaussian, where the first term is χ²/2, or Rician. Only the field
    that the model calls smooth is regularised: B, the efficiency of an inversion, or B1. It belongs to the pulse and not to
    the tissue. A and T are the best for this field in each voxel, T from a search over its whole range. The signal may depend
    on the field in any way. Iterations end by a criterion: when a Newton step brings less than some 0.1 of log-likelihood for
    the whole volume and neither does a new search of T.

    Without a smooth field (if the model has none, or a map of it is given) every voxel is estimated by itself. For
    Gaussian noise that is `NLLS`.

    Parameters
    ----------
    lambda_B
        Weight of the penalty. Its unit: the log-likelihood is in natural units (images over σ), B has its own unit (1)
        and Δ is per square voxel: Σₐ (second difference along axis a)/(hₐ/h)², where hₐ is the length of the voxel
        along the axis and h that of its finest axis. Since χ² falls as σ grows, noisier data are smoothed more; the
        scale of the images makes no difference. The distance over which B is smoothed goes as λ_B^¼.
        0 estimates B in every voxel by itself, ``math.inf`` one B for the whole volume. The default is 10⁶ for the B of
        inversion recovery; for other fields it follows from the spread of their prior (`default_weight`).
    fixed
        Parameters that are known, by name: numbers, or maps (*X), as `WeightedSeries.given`. It takes precedence.
    bounds
        Other bounds of the time or the field than those of the model, by name, in their unit.
    threads
        How many. The default is the number of processors.

    Raises
    ------
    InputError
        If λ_B is negative, if the model has several amplitudes and a smooth field or Rician noise, or if the estimate needs a
        σ that is neither given nor available from the series.

    Deviations
    ----------
    The paper gives no unit for its λ_B = 500. Here the default was chosen by the paper's own sweep (docs/lambda.md).

    The paper does not say where the Laplacian ends. Here B is a field in a box around the mask, 16 voxels larger on
    either side, with mirrored edges; the mask selects the voxels whose data count. So B needs no edge condition at
    the border of the mask, holes are filled, several components are parts of one field, and a voxel without signal
    takes B from its surroundings (and has no A and T).

    References
    ----------
    Sabidussi et al. 2021, Eq. 2 and §4.4.1, doi:10.1016/j.media.2021.102220. Profile likelihood: Murphy and van der Vaart
    2000, doi:10.1080/01621459.2000.10474219.

    Examples
    --------
    >>> from rimap import Gaussian, InversionRecovery, WeightedSeries
    >>> model = InversionRecovery(tau=[50, 200, 500, 1000, 2500])
    >>> kappa = np.ones((3, 8, 8)) * np.reshape([100.0, 1.9, 800.0], (3, 1, 1))
    >>> maps = MLE().estimate(WeightedSeries(images=model.signal(kappa), model=model, noise=Gaussian(sigma=1.0)))
    >>> {name: float(value[3, 3].round(2)) for name, value in maps.items()}
    {'A': 100.0, 'B': 1.9, 'T1': 800.0}
    """

    lambda_B: float | None = None
    fixed: Mapping[str, Any] | None = None
    bounds: Mapping[str, tuple[float, float]] | None = None
    threads: int | None = None

    name: ClassVar[str] = "mle"
    title: ClassVar[str] = "Regularised maximum likelihood"
    halo = None

    def __post_init__(self) -> None:
        if self.lambda_B is not None and not self.lambda_B >= 0:
            raise InputError(f"lambda_B: expected zero, a positive number or infinity (one B), got {self.lambda_B}.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads: expected 1 or more, got {self.threads}.")

    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series, with standard deviations, residual and σ."""
        series = constrained(series, self.fixed, self.bounds)
        if self.is_voxelwise(series) and isinstance(series.noise or Gaussian(), Gaussian):
            maps = NLLS(threads=self.threads).estimate(series, progress=progress)
            return replace(maps, estimator=self.name, settings=self._settings(None))
        return _maximise(self, series, progress)

    def is_voxelwise(self, series: WeightedSeries) -> bool:
        """Tell whether no field of the series is smoothed."""
        field = series.model.field
        known = {*series.held, *(self.fixed or {})}
        return field is None or not field.smooth or field.name in known or self.lambda_B == 0

    def _settings(self, weight: float | None) -> dict[str, Any]:
        """Return the options for sidecars, with the weight that was used."""
        options = settings_of_options(self)
        del options["lambda_B"]
        return options if weight is None else {"lambda_B": weight, **options}


def _maximise(options: MLE, series: WeightedSeries, progress: Progress | None) -> ParameterMaps:
    from rimap.estimators.mle.answer import Answer, Scale, write  # numba is slow to import: only who maps pays
    from rimap.estimators.mle.known import Partitions, usable
    from rimap.estimators.mle.voxels import Voxels

    model, held = series.model, series.held
    field = None if model.field is None or model.field.name in held else model.field
    weight = 0.0 if options.is_voxelwise(series) else _weight(options, field)
    noise, source, found = _with_sigma(series, options.threads)
    status = usable(series, noise)
    voxels = np.flatnonzero(status == Status.OK)
    answer = Answer.empty(series, status)
    if len(voxels):
        with ThreadPoolExecutor(options.threads or _cores()) as pool:
            parts = Partitions.of(series, voxels)
            sigma = _at(noise.sigma, parts.voxels)
            scale = Scale(parts.voxels, sigma, np.maximum(sigma, PRECISION * _rms(series, voxels)))
            data = Voxels.of(series.images, parts.voxels, scale.unit, parts.tables, noise, pool)
            solution = _solve(series, data, parts, field, weight, progress)
            write(answer, series, field, data, scale, solution, noise)
    Q, X = len(model.parameters), series.shape
    maps = ParameterMaps(
        kappa=answer.kappa.reshape(Q, *X), model=model, status=status.reshape(X), sd_kappa=answer.sd.reshape(Q, *X),
        residual=answer.residual.reshape(X), noise=noise, sigma_source=source, estimator=MLE.name,
        settings=options._settings(weight if field is not None and field.smooth else None), affine=series.affine,
        covariance=None if answer.covariance is None else answer.covariance.reshape(-1, *X),
    )  # fmt: skip
    doubts = (*conditioning_warnings(series, maps), *noise_floor_warnings(series, maps), *misfit_warnings(series, maps))
    return replace(maps, warnings=(*model_warnings(model), *found, *doubts))


def _weight(options: MLE, field: Parameter | None) -> float:
    assert field is not None
    return default_weight(field) if options.lambda_B is None else options.lambda_B


def _cores() -> int:
    from rimap.estimators.nlls.estimator import _cores as cores

    return cores()


def _with_sigma(series: WeightedSeries, threads: int | None) -> tuple[Noise, str, tuple[str, ...]]:
    """Return the noise with its σ, from a least-squares fit if none is given, and where it came from."""
    noise = series.noise or Gaussian()
    if noise.sigma is not None:
        return noise, "given", ()
    maps = NLLS(threads=threads).estimate(series)
    if maps.noise is None or maps.noise.sigma is None:
        raise InputError(
            "the MLE weighs the images against the smoothness of the field, so it must know the noise level; there are too "
            "few images and no background to estimate it from. Give --sigma, or use NLLS."
        )
    return maps.noise, maps.sigma_source, ()


def _solve(
    series: WeightedSeries, data: Voxels, parts: Partitions, field: Parameter | None, weight: float,
    progress: Progress | None,
) -> Solution:  # fmt: skip
    """Return the best field and fit."""
    from rimap.estimators.mle.answer import Solution

    voxels, V = parts.voxels, len(data)
    if field is None:
        known = series.held.get(series.model.field.name, 0.0) if series.model.field is not None else 0.0
        F = np.asarray(known, dtype=float).reshape(-1)[voxels] if np.ndim(known) else np.zeros(V)
        return Solution(None, data.fit(F, None, True), 0.0, True)
    if weight == 0:
        fit, converged = _each_its_own(series, data, voxels, field)
        own = np.full(series.selected.size, np.nan)
        own[voxels] = fit.F
        return Solution(own.reshape(series.shape), fit, math.inf, converged)
    best = data.best_constant(field.bounds, sample=None if math.isinf(weight) else 1000, preferred=field.start)
    if math.isinf(weight):
        total = float(np.maximum(best.w, 0).sum())
        return Solution(np.full(series.shape, best.F[0]), best, 1 / total if total > 0 else math.inf, True)
    chosen = np.zeros(series.selected.size, bool)
    chosen[voxels] = True
    box = Box.around(chosen.reshape(series.shape), series.voxel_size)
    box = replace(box, data=box.data[parts.order])
    first = []

    def watch(J: float, promise: float) -> None:
        first.append(max(promise, 1.0))
        if progress:
            done = math.log(first[0] / max(promise, TOLERANCE)) / math.log(first[0] / TOLERANCE)
            progress(int(min(max(100 * done, 0), 99)), 100)

    start = np.full(box.shape, best.F[0]) if data.linear_in_field else smooth_start(box, data, field)
    tolerance = TOLERANCE + 3e-4 * box.degrees_of_freedom(float(np.maximum(best.w, 0).mean()), weight)
    F, fit, ended = minimise(box, data.fit, start, weight, field.bounds, tolerance=tolerance, watch=watch)
    if progress:
        progress(100, 100)
    return Solution(box.crop(F, series.shape), fit, box.variance(fit.w, weight), ended)


def _each_its_own(
    series: WeightedSeries, data: Voxels, voxels: NDArray[np.intp], field: Parameter
) -> tuple[Fit, NDArray[np.bool_]]:
    """Return the fit with a field of its own in every voxel, and where it converged: Newton's method, from least squares."""
    name, bounds = field.name, field.bounds
    start = NLLS(threads=1).estimate(series.with_noise(Gaussian(sigma=1.0)))[name].reshape(-1)[voxels]
    fit = data.fit(np.clip(np.nan_to_num(start, nan=sum(bounds) / 2), *bounds))
    reach = np.full(len(data), 0.1)
    moves: NDArray[np.bool_] = np.ones(len(data), bool)
    for _ in range(50):
        curve = np.where(fit.w > 0, fit.w, np.abs(fit.g) / reach + 1e-12)
        F = np.clip(fit.F + np.clip(-fit.g / curve, -reach, reach), *bounds)
        moves = np.abs(fit.g * (F - fit.F)) > 2e-4
        if not moves.any():
            break
        new = data.fit(F, fit)
        better = new.f < fit.f
        reach = np.where(better, np.minimum(2 * reach, 1.0), 0.3 * reach)
        fit = new.where(better, fit)
    return fit, np.logical_not(moves)


def _at(sigma: Any, voxels: NDArray[np.intp]) -> Any:
    return sigma if np.ndim(sigma) == 0 else np.asarray(sigma, dtype=float).reshape(-1)[voxels]


def _rms(series: WeightedSeries, voxels: NDArray[np.intp]) -> float:
    """Return the root mean square of the images over (some of) the voxels."""
    some = voxels[:: max(1, len(voxels) // 20_000)]
    where = np.unravel_index(some, series.shape)
    return float(np.sqrt(np.mean([np.mean(np.square(image[where], dtype=np.float64)) for image in series.images])))
