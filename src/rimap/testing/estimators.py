"""What every estimator must hold, on every signal model that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators.base import Estimator
from rimap.likelihood import Gaussian, Noise, cramer_rao_sd
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals import signal_models
from rimap.signals.base import SignalModel
from rimap.testing.example_models import draw, example_models
from rimap.testing.property_checks import Check, ContractError, DoesNotApply, hold, outcomes_of, raise_failures, same

#: Two odd axes: an estimator that confuses them fails.
_SHAPE = (9, 8)
#: Voxels of `_SHAPE` that are made NaN, infinite and zero.
_NAN, _INF, _ZERO = (0, 0), (8, 7), (4, 4)


@dataclass(frozen=True)
class Tolerance:
    """How exact an estimator is.

    Parameters
    ----------
    error
        Median relative error of the relaxation time, beyond the Cramér-Rao bound at the SNR of the case.
    same
        Relative difference between maps that should be the same.
    sigma
        Relative error of the σ that it finds in 1,200 voxels.
    """

    error: float = 0.1
    same: float = 1e-4
    sigma: float = 0.1


@dataclass(frozen=True)
class EstimatorCase:
    """An estimator, a model that it takes, and tissue.

    Parameters
    ----------
    truth
        Returns κ (Q, *X) for a spatial shape; by default tissue in the middle of the box, with constant fields. Fields
        that the model takes as given are constant in any case, and given.
    noise_level
        Standard deviation of the noise, as a share of the brightest image of a typical voxel.
    """

    estimator: Estimator
    model: SignalModel
    truth: Callable[[tuple[int, ...]], NDArray[np.float64]] | None = None
    noise_level: float = 0.02
    tolerance: Tolerance = field(default_factory=Tolerance)

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise, in the unit of the true amplitudes."""
        return self.noise_level * float(np.median(abs(self.model.signal(self.kappa())).max(0)))

    @property
    def voxelwise(self) -> bool:
        """Whether the estimate of a voxel depends on its own values alone."""
        return self.estimator.halo == 0 and not hasattr(self.estimator, "prepare")

    def kappa(self, shape: tuple[int, ...] = _SHAPE, seed: int = 0) -> NDArray[np.float64]:
        """Return the true maps (Q, *shape)."""
        if self.truth is not None:
            return self.truth(shape)
        return draw(self.model, shape, seed, inner=0.42, even=True)

    def series(self, shape: tuple[int, ...] = _SHAPE, seed: int = 0, *, unit: float = 1.0) -> WeightedSeries:
        """Return noisy images of the true maps, in some unit, with their σ."""
        noise = self.sigma * np.random.default_rng(seed).standard_normal((self.model.n_images, *shape))
        images = self.model.signal(self.kappa(shape, seed)) + noise
        images = abs(images) if self.model.magnitude else images
        truth = self.model.by_name(self.kappa(shape, seed))
        known = {
            parameter.name: float(np.median(truth[parameter.name]))
            for parameter in self.model.parameters
            if parameter.given
        }
        return WeightedSeries(images * unit, self.model, Gaussian(self.sigma * unit), given=known)

    def maps(self, series: WeightedSeries) -> ParameterMaps:
        """Return the maps of a series."""
        return self.estimator.estimate(series)


def check_estimator(
    estimator: Estimator,
    model: SignalModel | None = None,
    *,
    truth: Callable[[tuple[int, ...]], NDArray[np.float64]] | None = None,
    tolerance: Tolerance | None = None,
    seeds: Iterable[int] = (0,),
) -> None:
    """Hold an estimator to its contracts.

    Parameters
    ----------
    model
        Signal model of the images that are simulated; the first one that the estimator takes if left out.
    truth
        Returns the true maps κ (Q, *X) for a spatial shape: a network is held to what it was trained for. The default
        is tissue in the middle of the box.
    tolerance
        How exact it must be.
    seeds
        Of tissue and noise; every check runs with each.

    Raises
    ------
    ContractError
        With each property that does not hold, and by how much.
    """
    model = _first_taken(estimator) if model is None else model
    case = EstimatorCase(estimator, model, truth, tolerance=tolerance or Tolerance())
    what = f"Estimator {estimator.name} on {model.title.lower()} ({model!r})"
    raise_failures(what, outcomes_of(ESTIMATOR_CHECKS, case, seeds))


def _first_taken(estimator: Estimator) -> SignalModel:
    """Return the first model that the estimator does not refuse."""
    said = ""
    for _, cls in sorted(signal_models().items()):
        for model in example_models(cls).values():
            try:
                estimator.estimate(EstimatorCase(estimator, model).series((3, 3)))
            except InputError as error:
                said = str(error)
            else:
                return model
    raise ContractError(f"{estimator.name} takes no signal model; of the last one it said: {said}")


def it_finds_the_tissue(case: EstimatorCase, seed: int) -> None:
    """It finds the relaxation time; maps have the shape of the images, values within the box, name and model."""
    series, truth = case.series(seed=seed), case.kappa(seed=seed)
    maps, T = case.maps(series), case.model.index(case.model.time.name)
    hold(maps.kappa.shape == truth.shape, f"expected maps (Q, *X) of shape {truth.shape}, got {maps.kappa.shape}")
    error = float(np.nanmedian(abs(maps.kappa[T] / truth[T] - 1)))
    bound = cramer_rao_sd(case.model, Gaussian(case.sigma), truth)[T] / truth[T]
    allowed = case.tolerance.error + float(np.nanmedian(bound))
    hold(
        error < allowed,
        f"median error of {case.model.time.name} {100 * error:.3g} %, {100 * allowed:.3g} % is allowed",
    )
    hold(maps.status.shape == series.shape, f"expected a status of shape {series.shape}, got {maps.status.shape}")
    hold(maps.estimator == case.estimator.name, f"the maps say that {maps.estimator!r} made them")
    hold(maps.model == case.model, "the maps have another model than the series")
    hold(np.isfinite(maps.kappa[:, maps.status == Status.OK]), "a voxel with status OK has no value")
    for parameter, found in zip(case.model.parameters, maps.kappa):
        found = found[np.isfinite(found)]
        low, high = parameter.bounds[0], parameter.bounds[1] * (1 + 1e-6)
        hold((found >= low) & (found <= high), f"values of {parameter.name} are outside its box {parameter.bounds}")


def the_mask_is_honoured(case: EstimatorCase, seed: int) -> None:
    """Outside the mask there are no values, and the quality flag is OUTSIDE; inside it never is."""
    mask = np.zeros(_SHAPE, bool)
    mask[2:7, 1:6] = True
    mask[4, 3] = False
    maps = case.maps(replace(case.series(seed=seed), mask=mask))
    hold(maps.status[~mask] == Status.OUTSIDE_MASK, "a voxel outside the mask has another status than OUTSIDE_MASK")
    hold(np.isnan(maps.kappa[:, ~mask]), "a voxel outside the mask has a value")
    hold(maps.status[mask] != Status.OUTSIDE_MASK, "a voxel inside the mask has the status OUTSIDE_MASK")


def the_order_of_the_images_does_not_matter(case: EstimatorCase, seed: int) -> None:
    """Images in another order, with their settings, give the same maps."""
    series = case.series(seed=seed)
    order = np.random.default_rng(seed + 1).permutation(case.model.n_images)
    a, b = case.maps(series), case.maps(series.subset(order))
    _same_maps(case, b, a)


def scaling_the_images_scales_the_amplitudes(case: EstimatorCase, seed: int) -> None:
    """Images in another unit give other amplitudes, with their standard deviations, and nothing else changes."""
    if not case.model.amplitudes:
        raise DoesNotApply("the model has no amplitude: its images have no unit")
    for unit in (1e-12, 1e12):
        a, b = case.maps(case.series(seed=seed)), case.maps(case.series(seed=seed, unit=unit))
        hold(a.status == b.status, f"the status changes with the unit of the images ({unit:g})")
        scale = np.array([unit if parameter.amplitude else 1.0 for parameter in case.model.parameters]).reshape(
            -1, *(1,) * len(_SHAPE)
        )
        deviation = None if b.sd_kappa is None else b.sd_kappa / scale
        residual = None if b.residual is None else b.residual / unit
        _same_maps(case, replace(b, kappa=b.kappa / scale, sd_kappa=deviation, residual=residual), a)


def an_odd_voxel_harms_no_other(case: EstimatorCase, seed: int) -> None:
    """NaN, infinity and zero in single voxels give them a status and no value, and leave the others alone."""
    if not case.model.amplitudes:
        raise DoesNotApply("the model has no amplitude: zero is a value like any other")
    series = case.series(seed=seed)
    images = series.images.copy()
    images[(-1, *_NAN)], images[(0, *_INF)], images[(slice(None), *_ZERO)] = np.nan, np.inf, 0.0
    maps = case.maps(replace(series, images=images))
    for voxel, expected in ((_NAN, Status.NOT_FINITE), (_INF, Status.NOT_FINITE), (_ZERO, Status.NO_SIGNAL)):
        got = Status(int(maps.status[voxel]))
        hold(got == expected, f"expected the status {expected.name} at {voxel}, got {got.name}")
        for parameter in case.model.parameters:
            if not parameter.smooth:  # a smooth field may be continued, and a given one is known
                hold(
                    parameter.given or np.isnan(maps[parameter.name][voxel]),
                    f"{parameter.name} has a value at {voxel}, which has no signal",
                )
    if case.voxelwise:
        far = np.ones(_SHAPE, bool)
        far[tuple(np.transpose([_NAN, _INF, _ZERO]))] = False
        same(maps.kappa[:, far], case.maps(series).kappa[:, far], "the other voxels", relative=case.tolerance.same)


def a_cut_gives_the_map_of_the_whole(case: EstimatorCase, seed: int) -> None:
    """Some slices, with as many around them as `halo` says, give their part of the map."""
    estimator, series = case.estimator, case.series((6, 5, 12), seed)
    if estimator.halo is None:
        raise DoesNotApply("it solves the volume whole")
    if hasattr(estimator, "prepare"):  # what belongs to the whole series, which every slab must share
        estimator, series = estimator.prepare(series)
    halo = estimator.halo or 0
    low, high = 4 - min(halo, 4), 8 + min(halo, 4)
    index = np.s_[..., low:high]
    part = estimator.slab(index) if hasattr(estimator, "slab") else estimator
    whole = estimator.estimate(series).kappa[..., 4:8]
    cut = part.estimate(replace(series, images=series.images[index])).kappa[..., 4 - low : 8 - low]
    same(cut, whole, "the maps", relative=case.tolerance.same)


def types_and_memory_order_do_not_matter(case: EstimatorCase, seed: int) -> None:
    """Images of any type, memory order and number of axes give the same maps."""
    series = case.series((3, 4, 5), seed)
    whole = case.maps(series)
    hold(whole.kappa.shape[1:] == (3, 4, 5), f"expected maps of three axes, got the shape {whole.kappa.shape}")
    single = case.maps(replace(series, images=series.images.astype(np.float32)))
    valid = (whole.status == Status.OK) & (single.status == Status.OK)
    hold(valid.mean() > 0.8, f"only {100 * valid.mean():.0f} % of the voxels are OK in double and in single precision")
    off = float(np.median(abs(single.kappa[:, valid] / whole.kappa[:, valid] - 1)))
    hold(off < 1e-4, f"single precision changes the maps by {off:.2g} in the median; 1e-4 is allowed")
    exact = min(case.tolerance.same, 1e-9) if case.voxelwise else case.tolerance.same
    turned = case.maps(replace(series, images=np.asfortranarray(series.images)))
    same(turned.kappa, whole.kappa, "images in Fortran order", relative=exact)
    counts = np.rint(1000 * series.images)
    whole_counts, integers = (
        case.maps(replace(series, images=x, noise=Gaussian(1000 * case.sigma)))
        for x in (counts, counts.astype(np.int32))
    )
    same(integers.kappa, whole_counts.kappa, "whole numbers", relative=exact)
    if case.voxelwise:
        line = case.maps(replace(series, images=series.images[:, :, 0, 0]))
        same(line.kappa, whole.kappa[:, :, 0, 0], "a line of voxels", relative=exact)


def sigma_is_a_number_or_a_map(case: EstimatorCase, seed: int) -> None:
    """A map of σ with one value gives what the number gives, and a voxel without σ has no value."""
    series = case.series(seed=seed)
    numbered = case.maps(series)
    mapped = case.maps(series.with_noise(_with_sigma(series, np.full(_SHAPE, case.sigma))))
    same(mapped.kappa, numbered.kappa, "the maps", relative=case.tolerance.same)
    holed = np.full(_SHAPE, case.sigma)
    holed[2, 3] = np.nan
    maps = case.maps(series.with_noise(_with_sigma(series, holed)))
    free = [row for row, parameter in enumerate(case.model.parameters) if not parameter.smooth and not parameter.given]
    got = Status(int(maps.status[2, 3]))
    hold(got == Status.NOT_FINITE, f"expected the status NOT_FINITE where σ is NaN, got {got.name}")
    hold(np.isnan(maps.kappa[free][:, 2, 3]), "a voxel without σ has a value")
    hold(np.isnan(maps.kappa[free]).any(0).sum() == 1, "a voxel without σ takes the values of others")


def sigma_is_found_if_it_is_not_given(case: EstimatorCase, seed: int) -> None:
    """Without a σ it finds that of the images, and says where from."""
    if case.model.n_images <= sum(not parameter.given for parameter in case.model.parameters):
        raise DoesNotApply("as many images as parameters leave no residual")
    maps = case.maps(replace(case.series((40, 30), seed), noise=None))
    if maps.noise is None:
        raise DoesNotApply("it uses no noise")
    hold(maps.noise.sigma is not None and maps.sigma_source != "given", "the maps do not say which σ was found")
    off = float(np.nanmedian(maps.noise.sigma)) / case.sigma - 1
    allowed = 100 * case.tolerance.sigma
    hold(abs(off) < case.tolerance.sigma, f"σ is {100 * off:+.3g} % off; {allowed:g} % is allowed")


def progress_ends_at_its_total(case: EstimatorCase, seed: int) -> None:
    """What it reports as progress grows, and ends at its total."""
    seen: list[tuple[int, int]] = []
    case.estimator.estimate(case.series(seed=seed), progress=lambda done, total: seen.append((done, total)))
    if not seen:
        raise DoesNotApply("it reports no progress")
    hold(seen[-1][0] == seen[-1][1], f"progress ended at {seen[-1][0]} of {seen[-1][1]}")
    shares = [done / total for done, total in seen]
    hold(np.diff(shares) >= 0, f"progress goes back: {shares}")


def given_maps_are_held(case: EstimatorCase, seed: int) -> None:
    """A given parameter, a number or a map, is returned unchanged, or the estimator refuses to hold it."""
    names = [parameter.name for parameter in case.model.nonlinear if parameter is not case.model.time]
    if not names:
        raise DoesNotApply("the model has no parameter that can be given")
    series, truth = case.series(seed=seed), case.model.by_name(case.kappa(seed=seed))
    for name in names:
        for value in (float(np.median(truth[name])), truth[name]):
            try:
                maps = case.maps(replace(series, given={name: value}))
            except InputError:
                continue  # it refuses the model
            known = np.isfinite(maps[case.model.time.name])
            hold(known.any(), f"with {name} given no voxel has a value")
            expected = np.broadcast_to(value, _SHAPE)[known]
            same(maps[name][known], expected, f"the map of {name}, which was given", relative=1e-6)
            if maps.sd_kappa is not None:
                deviation = maps.sd[name][known]
                hold(np.isnan(deviation) | (deviation == 0), f"{name} is given, and yet it has a standard deviation")


def _with_sigma(series: WeightedSeries, sigma: NDArray[np.float64]) -> Noise:
    assert series.noise is not None
    return type(series.noise)(sigma)


def _same_maps(case: EstimatorCase, found: ParameterMaps, expected: ParameterMaps) -> None:
    """Compare maps, and their standard deviations and residuals where they exist."""
    for parameter in case.model.parameters:
        same(
            found[parameter.name],
            expected[parameter.name],
            parameter.name,
            relative=case.tolerance.same,
            absolute=1e-12,
        )
    looser = 10 * case.tolerance.same
    if expected.sd_kappa is not None:
        for parameter in case.model.parameters:
            # A small SD is a difference of large values, each of which may differ by its tolerance: rounding
            # depends on the processor.
            rounding = 1e-12 + 0.1 * case.tolerance.same * float(np.nanmax(abs(expected[parameter.name]), initial=0.0))
            same(
                found.sd[parameter.name],
                expected.sd[parameter.name],
                f"the SD of {parameter.name}",
                relative=looser,
                absolute=rounding,
            )
    if expected.residual is not None:
        same(found.residual, expected.residual, "the residual", relative=looser, absolute=1e-12)


#: Every check, in the order in which they are best read.
ESTIMATOR_CHECKS: tuple[Check[EstimatorCase], ...] = (
    it_finds_the_tissue,
    the_mask_is_honoured,
    the_order_of_the_images_does_not_matter,
    scaling_the_images_scales_the_amplitudes,
    an_odd_voxel_harms_no_other,
    a_cut_gives_the_map_of_the_whole,
    types_and_memory_order_do_not_matter,
    sigma_is_a_number_or_a_map,
    sigma_is_found_if_it_is_not_given,
    progress_ends_at_its_total,
    given_maps_are_held,
)
