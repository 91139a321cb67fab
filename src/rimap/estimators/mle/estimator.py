"""The regularised maximum-likelihood estimator of the paper (Eq. 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.advice import Advice, note, ordered
from rimap.arrays import at_least
from rimap.errors import InputError
from rimap.estimators.base import (
    Estimator,
    Progress,
    constrained,
    settings_of_options,
)
from rimap.estimators.checks.final_checks import Fit, judged
from rimap.estimators.checks.missing_values import Screened, screened
from rimap.estimators.checks.uncertain_polarity import uncertain_polarity
from rimap.estimators.nlls.estimator import NLLS, least_squares, noise_of
from rimap.estimators.nlls.threads import field_threads
from rimap.estimators.slice_axis import slices_last
from rimap.likelihood import Gaussian, Noise
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import Parameter, SignalModel

#: No image is trusted to less than this share of the root mean square of all: real scans are not known that well, and
#: noise-free ones would make the problem endlessly stiff.
PRECISION = 5e-4

#: Number of voxels from which σ is estimated, if it is not given.
ENOUGH_FOR_SIGMA = 16_384


@dataclass(frozen=True, kw_only=True)
class MLE(Estimator):
    """Maximum likelihood with a smooth field: κ̂ = argmin Σ −log p(S | f(κ), σ) + λ_B/2·‖ΔB‖² (Eq. 2).

    The likelihood is that of `series.noise`: Gaussian, where the first term is χ²/2, or Rician. Only the field
    that the model calls smooth is regularised: B, the efficiency of an inversion, or B1. It belongs to the pulse and
    not to the tissue. A and T are those that fit best with this field in each voxel; T is searched over its whole
    range. The signal may depend on the field in any way. The iterations converge when neither a Newton step nor a new
    search of T improves the log-likelihood of the whole volume by more than about 0.1.

    Without a smooth field (if the model has none, or a map of it is given) every voxel is estimated by itself. For
    Gaussian noise that is `NLLS`. The model may have several amplitudes, with a smooth field or without; no kernel is
    compiled for those.

    Parameters
    ----------
    lambda_B
        Weight of the penalty. Its unit: the log-likelihood is in natural units (images over σ), B is dimensionless
        and Δ is per square voxel: Σₐ (second difference along axis a)/(hₐ/h)², where hₐ is the length of the voxel
        along the axis and h that of its finest axis. χ² decreases as σ grows, so noisier data are smoothed more. The
        scale of the images makes no difference. The distance over which B is smoothed is proportional to λ_B^¼.
        Other fields than the B of inversion recovery are measured in units of their spread within an image (their
        prior), so a λ_B means the same smoothness for all.
        0 estimates B in every voxel by itself, ``math.inf`` one B for the whole volume. `None`, the default, chooses
        λ_B from the data by AIC = −2 log p + 2 dof: among ∞, 10⁶ … 10³, then between two of these values, towards less
        smoothing. `settings` of the maps has the value that was used.
    fixed
        Parameters that are known and alike everywhere, by name, in their unit: ``{"B": 2.0}``. They are not estimated.
        For one that differs between voxels use ``given`` of the series.
    bounds
        Other bounds of the time or the field than those of the model, by name, in the unit of the parameter:
        ``{"T1": (200, 3000)}``.
    threads
        How many. The default is the number of processors.

    Raises
    ------
    InputError
        If λ_B is negative, if the model has a smooth field and no amplitude, or if the estimate needs a σ that is
        neither given nor available from the series.

    Deviations
    ----------
    The paper has one λ_B = 500, without a unit, for all data. Here it is chosen for each series (docs/lambda.md).

    The paper's sum weights all voxels equally. Here a voxel does not influence the field if its residual is improbable
    for σ with any field, and has little influence if it suggests a very different field from that of its neighbours
    (`say`). Both still have values. Where the signal is far above the noise, voxels of air do not influence it either.

    Standard deviations include the bias of smoothing as well as the noise (`field.mean_squared_error`).

    The paper does not define the Laplacian at the edges. Here B is a field in a box around the mask, 16 voxels larger
    on either side, with mirrored edges; the mask selects the voxels whose data count. B therefore needs no edge
    condition at the border of the mask, holes are filled, and several components are parts of one field. A voxel
    without signal gets B from its surroundings, and no A and T.

    References
    ----------
    Sabidussi et al. 2021, Eq. 2 and §4.4.1, doi:10.1016/j.media.2021.102220. AIC: Akaike 1974,
    doi:10.1109/TAC.1974.1100705. Profile likelihood: Murphy and van der Vaart
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
    fixed: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    threads: int | None = None

    name: ClassVar[str] = "mle"
    title: ClassVar[str] = "Regularised maximum likelihood"
    halo = None

    def __post_init__(self) -> None:
        given: Any = self.lambda_B
        if given is not None and not (isinstance(given, Real) and float(given) >= 0):
            raise InputError(
                f"lambda_B: expected zero, a positive number, infinity (one B) or None (from the data), got {given!r}."
            )
        checked = self._least_squares
        object.__setattr__(self, "fixed", checked.fixed)
        object.__setattr__(self, "bounds", checked.bounds)

    @property
    def _least_squares(self) -> NLLS:
        """The estimator that this one comes down to without a smooth field and with Gaussian noise; it checks the
        options.
        """
        return NLLS(threads=self.threads, fixed=self.fixed, bounds=self.bounds)

    @slices_last
    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series, with standard deviations, residual and σ."""
        if self.is_voxelwise(series) and isinstance(series.noise or Gaussian(), Gaussian):
            maps = self._least_squares.estimate(series, progress=progress)
            field = series.model.field
            unsmoothed = field is not None and field.smooth and field.name not in {*series.held, *self.fixed}
            return replace(maps, estimator=self.name, settings=self._settings(0.0 if unsmoothed else None))
        _check_amplitude(series.model)
        screen = screened(constrained(series, self.fixed, self.bounds), threads=self.threads)
        return _maximise(self, screen, progress)

    def is_voxelwise(self, series: WeightedSeries) -> bool:
        """Return whether no field of the series is smoothed."""
        smooth, known = series.model.field, {*series.held, *self.fixed}
        return smooth is None or not smooth.smooth or smooth.name in known or self.lambda_B == 0

    def _settings(self, lambda_B: float | None) -> dict[str, Any]:
        """Return the options for sidecars, with the λ_B that was used."""
        options = settings_of_options(self)
        del options["lambda_B"]
        return options if lambda_B is None else {"lambda_B": lambda_B, **options}


def _check_amplitude(model: SignalModel) -> None:
    """Raise `InputError` for bounds that the kernels of one amplitude do not honour: they search A ≥ 0."""
    if len(model.amplitudes) != 1 or model.amplitudes[0].bounds == (0, math.inf):
        return
    amplitude, (low, high) = model.amplitudes[0], model.amplitudes[0].bounds
    raise InputError(
        f"mle: expected an amplitude from 0 without an upper bound for a smooth field or Rician noise, got "
        f"{amplitude.name} of {low:g} to {high:g} in {model.name!r}. Use nlls, which honours these bounds, or declare "
        f"(0, inf)."
    )


def _maximise(options: MLE, screen: Screened, progress: Progress | None) -> ParameterMaps:
    from rimap.estimators.mle.field_solver import solve
    from rimap.estimators.mle.maps_of_fit import Answer, Scale, write  # numba is slow to import: only who maps pays
    from rimap.estimators.mle.partitions import Partitions, usable
    from rimap.estimators.mle.several_amplitudes import maximise
    from rimap.estimators.mle.several_amplitudes_smooth import maximise_smooth
    from rimap.estimators.mle.voxels import Voxels

    series = screen.series
    model, held = series.model, series.held
    unknown = None if model.field is None or model.field.name in held else model.field
    lambda_B = 0.0 if options.is_voxelwise(series) else options.lambda_B
    noise, source = _with_sigma(series, options.threads)
    status = usable(series, noise)
    voxels = np.flatnonzero(status == Status.OK)
    answer = Answer.empty(series, status)
    if len(voxels) and len(model.amplitudes) > 1 and lambda_B == 0:
        answer.take(series, maximise(series, noise, status, options._least_squares))
    elif len(voxels) and len(model.amplitudes) > 1 and unknown is not None:
        several, smooth, lambda_B = maximise_smooth(series, noise, status, unknown, lambda_B, options.threads, progress)
        answer.take(series, several)
        answer.kappa[model.index(unknown.name)] = np.where(status != Status.OUTSIDE_MASK, smooth, np.nan)
    elif len(voxels):
        with field_threads(options.threads) as pool:
            parts = Partitions.of(series, voxels)
            sigma = _at(noise.sigma, parts.voxels)
            scale = Scale(parts.voxels, sigma, np.maximum(sigma, PRECISION * _rms(series, voxels)))
            data = Voxels.of(series.images, parts.voxels, scale.unit, parts.tables, noise, pool)
            solution = solve(series, data, parts, unknown, lambda_B, progress)
            write(answer, series, unknown, data, scale, solution, noise)
            lambda_B = solution.lambda_B
    if progress:
        progress(100, 100)
    Q, X = len(model.parameters), series.shape
    maps = ParameterMaps(
        kappa=answer.kappa.reshape(Q, *X), model=model, status=status.reshape(X), sd_kappa=answer.sd.reshape(Q, *X),
        residual=answer.residual.reshape(X), noise=noise, sigma_source=source, estimator=MLE.name,
        settings=options._settings(lambda_B if unknown is not None and unknown.smooth else None), affine=series.affine,
        covariance=None if answer.covariance is None else answer.covariance.reshape(-1, *X),
    )  # fmt: skip
    found: tuple[str, ...] = ()
    if unknown is not None and options.lambda_B is None and lambda_B:
        found = (_how_smooth(unknown, lambda_B),)
    alone = [
        parameter
        for parameter in model.parameters
        if parameter.name not in held and not (parameter is unknown and lambda_B != 0)
    ]
    kept = (*held, *(() if unknown is None else (unknown.name,)))
    maps = judged(screen, maps, Fit(len(alone), without_value=kept), found)
    return replace(maps, warnings=ordered((*maps.warnings, *uncertain_polarity(series, maps))))


def _how_smooth(field: Parameter, lambda_B: float) -> Advice:
    """Return which smoothness was chosen, in words."""
    if math.isinf(lambda_B):
        return note(f"{field.name} is one value for all voxels: AIC found no evidence that it varies.")
    value = np.format_float_positional(lambda_B, precision=3, fractional=False, trim="-")
    return note(f"The smoothness of {field.name} was chosen from the data by AIC: --lambda-b {value}.")


def _with_sigma(series: WeightedSeries, threads: int | None) -> tuple[Noise, str]:
    """Return the noise with its σ, from a least-squares fit if none is given, and the origin of σ."""
    noise = series.noise or Gaussian()
    if noise.sigma is not None:
        return noise, series.sigma_source
    found, source, _ = noise_of(series, least_squares(_some_voxels(series), threads=threads))
    if found.sigma is None:
        raise InputError(
            "the MLE weighs the images against the smoothness of the field, so it must know the noise level; there are "
            "too few images and no background to estimate it from. Give --sigma, or use NLLS."
        )
    return found, source


def _some_voxels(series: WeightedSeries) -> WeightedSeries:
    """Return the series with a mask of the voxels from which σ is estimated."""
    selected = np.flatnonzero(series.selected)
    step = len(selected) // ENOUGH_FOR_SIGMA | 1  # odd, so that it does not run along an edge
    if step == 1:
        return series
    mask = np.zeros(series.shape, bool)
    mask.reshape(-1)[selected[::step]] = True
    return replace(series, mask=mask)


def _at(sigma: Any, voxels: NDArray[np.intp]) -> Any:
    return sigma if np.ndim(sigma) == 0 else np.asarray(sigma, dtype=float).reshape(-1)[voxels]


def _rms(series: WeightedSeries, voxels: NDArray[np.intp]) -> float:
    """Return the root mean square of the images over (some of) the voxels."""
    some = at_least(voxels, 20_000)
    where = np.unravel_index(some, series.shape)
    return float(np.sqrt(np.mean([np.mean(np.square(image[where], dtype=np.float64)) for image in series.images])))
