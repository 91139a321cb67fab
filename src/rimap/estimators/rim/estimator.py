"""The recurrent inference machine (§3): the loop of Eqs. 4–5 around an exported cell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array
from rimap.correlation import NoiseCorrelation
from rimap.errors import InputError
from rimap.estimators.base import Estimator, Progress, part_of
from rimap.estimators.checks import training_range
from rimap.estimators.checks.missing_values import screened
from rimap.estimators.checks.residual_probability import contradicts
from rimap.estimators.mle.field_votes import LIMIT
from rimap.estimators.network_files import cached_session, default_network, for_model, metadata_of, path_of, sha256_of
from rimap.estimators.nlls.threads import part_of_total, share
from rimap.estimators.noise_correlation import with_correlation
from rimap.estimators.rim import bootstrap
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.loop import RIMConfig
from rimap.estimators.rim.network_input import Prepared, correlation_of_noise, known_at, neutral, prepared, slices
from rimap.estimators.rim.steps import HeldField, Loop
from rimap.estimators.rim.whole_field import folds, smooth_field, smooth_field_of_alike
from rimap.estimators.slice_axis import slices_last
from rimap.foreground import foreground
from rimap.likelihood import Rician
from rimap.processors import cores, planes_at_once
from rimap.series import ParameterMaps, Status, WeightedSeries

F32 = NDArray[np.float32]
#: σ in units of the image scale above which the field is found a second time, on images averaged over alike voxels.
REFINE_ABOVE = 0.04
#: Above so much noise, the images are split into so many parts, and the others determine which voxels are alike in one.
FOLDS = ((0.1, 3), (REFINE_ABOVE, 2))
#: Steps that determine which voxels are alike. With two, the field of inversion recovery is better by a tenth to a
#: quarter and CV of T1 at SNR 5 by 2 %; another part of the images costs as much and gains more.
FIRST_STEPS = 1


@dataclass(frozen=True, kw_only=True)
class RIM(Estimator):
    """A trained recurrent inference machine: J times, a small network reads the estimate and the gradient of the
    likelihood and returns an update (Eqs. 4–5).

    Image scale, σ and, for a network that begins at a smooth field, that field are found once for the whole series;
    then slices (along the last of three axes) are mapped, some at the same time. To map a volume in slabs, call
    `prepare` with the whole and `slab` for each: the result is the map of the whole.

    Parameters that the model takes as given are held at `WeightedSeries.given` or at their default. The smooth field is
    held as well, whether it was found or given: all voxels together determine it better than a network from a
    neighbourhood.

    Deviations
    ----------
    The paper's RIM estimates the field with the tissue, and the networks of the paper that ship do.

    Parameters
    ----------
    network
        Name of a network that ships (`rimap models`) or path of an exported one; chosen by the sequence if empty.
    scale
        The number by which the images are divided, so that A of CSF is about 1; found from the images if left out.
    threads
        How many cores; all if left out.
    start_field, start_field_sd
        (*X), the smooth field and its standard deviation; found if left out. If only the field is given, it has no
        error.
    sd_draws
        Number of simulated series from which standard deviations are estimated; 0 for none. Each takes as long as
        the mapping. The smooth field is found again for each. If it is given, or found by `prepare`, it stays fixed:
        the standard deviation of T is then 3 to 6 % too small, and the field has none.
    planes
        (*X), which plane of the whole a voxel is in; `prepare` and `slab` set it.
    correlation
        How the noise of neighbouring voxels is correlated; found if left out, and set by `prepare`.

    References
    ----------
    Sabidussi et al. 2021, §3 and §4.4.4, doi:10.1016/j.media.2021.102220. Putzky & Welling 2017, arXiv:1706.04008.
    """

    network: str = ""
    scale: float | None = None
    threads: int | None = None
    start_field: Any = field(default=None, repr=False, compare=False)
    start_field_sd: Any = field(default=None, repr=False, compare=False)
    sd_draws: int = 0
    planes: Any = field(default=None, repr=False, compare=False)
    correlation: Any = field(default=None, repr=False, compare=False)

    name: ClassVar[str] = "rim"
    title: ClassVar[str] = "Recurrent inference machine"
    smooths: ClassVar[bool] = True
    halo: int | None = None

    def __post_init__(self) -> None:
        bootstrap.checked(self.sd_draws)

    @classmethod
    def load(cls, name: str | Path, *, sd_draws: int = 0) -> RIM:
        """Return the RIM of a network by its name or path.

        Raises
        ------
        InputError
            If there is no such network, or it is no RIM.
        """
        path = path_of(name)
        if (kind := metadata_of(path)["kind"]) != "rim":
            raise InputError(f"{name} is a {kind}, not a RIM. Load it with rimap.ResNet.load.")
        return cls(network=str(name), sd_draws=sd_draws)

    def prepare(self, series: WeightedSeries) -> tuple[RIM, WeightedSeries]:
        """Return the estimator with the scale and smooth field of this series, and the series with its σ."""
        series = screened(series, threads=self.threads).series
        loop, ready = self._loop(series), prepared(series, self.scale, self.threads)
        series = series.with_noise(ready.noise)
        found = self._smooth_field(loop, series, ready, None)
        correlation = self._correlation_in(series)
        planes = bootstrap.numbered(series.shape)
        prepared_one = replace(self, scale=ready.scale, planes=planes, correlation=correlation)
        if found is not None:
            prepared_one = replace(prepared_one, start_field=found.field, start_field_sd=found.sd)
        return prepared_one, series

    def slab(self, index: Array) -> RIM:
        """Return the estimator for a part of the series that it was prepared for, ``series[index]``."""
        maps = (self.start_field, self.start_field_sd, self.planes)
        field_map, field_sd, planes = (None if whole is None else whole[index] for whole in maps)
        return replace(self, start_field=field_map, start_field_sd=field_sd, planes=planes)

    def _correlation_in(self, series: WeightedSeries) -> NoiseCorrelation | None:
        return correlation_of_noise(series, series.selected & foreground(series.images), self.threads)

    def _loop(self, series: WeightedSeries) -> Loop:
        model, plane = series.model, (series.shape[0], (*series.shape, 1)[1])
        path = path_of(self.network or default_network(model.name, "rim"))
        about = for_model(metadata_of(path), model) | {"sha256": sha256_of(path)}
        threads = self._threads - self._at_once(series) + 1  # each plane has one, and all share the others
        return Loop(model, RIMConfig.of(about["rim"]), cached_session(path, threads, plane), about)

    @property
    def _threads(self) -> int:
        return self.threads or cores()

    def _at_once(self, series: WeightedSeries) -> int:
        """Return how many planes are mapped at the same time."""
        return planes_at_once(series.shape, self._threads)

    def _smooth_field(
        self, loop: Loop, series: WeightedSeries, ready: Prepared, progress: Progress | None
    ) -> HeldField | None:
        """Return the smooth field (*X); above `REFINE_ABOVE` from images averaged over what a first pass found
        alike.
        """
        estimated = loop.layout.field
        if self.start_field is not None:
            sd = None if self.start_field_sd is None else np.asarray(self.start_field_sd, np.float32)
            return HeldField(np.asarray(self.start_field, np.float32), sd)
        if estimated is not None and estimated.name in series.given:
            known = np.nan_to_num(np.asarray(series.given[estimated.name], np.float32), nan=loop.layout.typical_field)
            return HeldField(np.broadcast_to(known, series.shape))
        if estimated is None or not estimated.smooth or loop.config.start != "likelihood":
            return None
        refine = ready.relative_sigma > REFINE_ABOVE
        found = smooth_field(series, threads=self.threads, rough=refine)
        if refine:
            n = next((n for above, n in FOLDS if ready.relative_sigma > above), 1)
            pairs, rough = folds(series.model.times, n, len(loop.layout.carried)), HeldField(found.field)

            guides, off = [], np.zeros(series.shape, bool)
            for i, (part, others) in enumerate(pairs):
                some = series.subset(others) if len(pairs) > 1 else series
                first = self._loop(some).shortened(FIRST_STEPS)
                estimate = self._pass(first, some, ready, rough, part_of(progress, i, len(pairs)))
                guides.append((part, estimate.maps))
                off |= _contradicting(some, estimate, ready)
            for _, maps in guides:
                maps[:, off] = np.nan  # they are averaged with no other voxel
            found = smooth_field_of_alike(series, guides, found.field, threads=self.threads, lambda_B=found.lambda_B)
        return HeldField(found.field, found.sd)

    @slices_last
    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series.

        Raises
        ------
        InputError
            Where the network was trained for another sequence, or σ is neither given nor to be found.
        """
        screen = screened(series, threads=self.threads)
        series = screen.series
        loop, ready = self._loop(series), prepared(series, self.scale, self.threads)
        about = loop.about
        found = self.correlation or self._correlation_in(series)
        loop = replace(loop, correlation=found)
        kappa, residual, deviation = self._found(loop, series, ready, part_of(progress, 0, 1 + self.sd_draws))
        alone = kappa.copy() if self.sd_draws else kappa
        settings = {
            "network": about["name"],
            "network_sha256": about["sha256"],
            "scale": ready.scale,
            "threads": self.threads,
        }
        maps = training_range.checked_maps(
            about, series, ready, kappa, residual * np.float32(ready.scale), self.name, settings, screen
        )
        maps = with_correlation(maps, found)
        if not self.sd_draws:
            return maps if deviation is None else _with_own_sd(maps, series, deviation)
        maps = bootstrap.with_sd(
            maps,
            series,
            alone,
            self.sd_draws,
            lambda drawn, part: self._found(loop, drawn, ready, part).maps,
            planes=self.planes,
            progress=progress,
        )
        held = loop.layout.field
        if (
            held is not None
            and maps.sd_kappa is not None
            and (self.start_field is not None or held.name in series.given)
        ):
            maps.sd_kappa[series.model.index(held.name)] = np.nan
        return maps

    def _found(self, loop: Loop, series: WeightedSeries, ready: Prepared, progress: Progress | None) -> Found:
        """Return the maps in the unit of the images, the residual in that of the scale."""
        layout, known = loop.layout, loop.layout.known_of(series.held)
        held = self._smooth_field(loop, series.with_noise(ready.noise), ready, part_of(progress, 0, 2))
        carried, residual, deviation = self._pass(loop, series, ready, held, part_of(progress, 1, 2))
        for maps in (carried, *([] if deviation is None else [deviation])):
            maps[: layout.n_amplitudes] *= np.float32(ready.scale)
        kappa = np.asarray(layout.kappa_of(carried, known), np.float32)
        unknown = dict.fromkeys(known, np.nan)
        return Found(
            kappa, residual, None if deviation is None else np.asarray(layout.kappa_of(deviation, unknown), np.float32)
        )

    def _pass(
        self, loop: Loop, series: WeightedSeries, ready: Prepared, held: HeldField | None, progress: Progress | None
    ) -> Found:
        """Return what the loop finds with a field (*X), in units of the scale, rows as they are carried."""
        carried = np.empty((len(loop.layout.carried), *series.shape), np.float32)
        deviation = np.full_like(carried, np.nan) if loop.config.sd_outputs else None
        residual = np.empty(series.shape, np.float32)
        planes, at_once = list(slices(series.shape)), self._at_once(series)
        with ThreadPoolExecutor(self._threads) as pool:
            # If each plane has one thread, it shares its voxels with no other.
            executor = pool if self._threads > at_once else None

            def write(indices: NDArray[np.int64]) -> None:
                for plane in (planes[index] for index in indices):
                    here = None if held is None else held.at(plane)
                    if series.selected[plane].any():
                        found = self._plane(loop, series, ready, plane, here, executor)
                        carried[(slice(None), *plane)], residual[plane] = found.maps, found.residual
                        if deviation is not None:
                            deviation[(slice(None), *plane)] = found.sd
                    else:
                        carried[(slice(None), *plane)], residual[plane] = np.nan, np.nan

            one_by_one = iter(np.arange(len(planes))[:, None])
            share(write, one_by_one, at_once, part_of_total(progress, 0, len(planes)))
        return Found(carried, residual, deviation)

    def _plane(
        self,
        loop: Loop,
        series: WeightedSeries,
        ready: Prepared,
        k: Any,
        held: HeldField | None,
        executor: ThreadPoolExecutor | None,
    ) -> Found:
        S = neutral(series.images[(slice(None), *k)], ready.scale)
        shape = S.shape[1:]
        flat = S.reshape(len(S), 1, shape[0], -1)
        X = flat.shape[1:]
        sigma = np.asarray(ready.sigma_of(k), np.float32) / np.float32(ready.scale)
        sigma = np.where(sigma > 0, sigma, np.float32(1)).reshape(1, *((1, 1) if sigma.ndim == 0 else X[1:]))
        known = {name: value.reshape(X) if np.ndim(value) else value for name, value in known_at(series, k).items()}
        data = DataTerm(
            loop.model, flat, sigma, isinstance(ready.noise, Rician), executor,
            known=known, reference_time=loop.config.reference_time(loop.layout),
        )  # fmt: skip
        here = None
        if held is not None:
            sd = None if held.sd is None else np.ascontiguousarray(held.sd.reshape(X), np.float32)
            here = HeldField(np.ascontiguousarray(held.field.reshape(X), np.float32), sd)
        carried, sse, deviation = loop(data, here)
        rms, rows = np.sqrt(sse / len(S)), (len(carried), *shape)
        return Found(carried.reshape(rows), rms.reshape(shape), None if deviation is None else deviation.reshape(rows))


def _contradicting(series: WeightedSeries, found: Found, ready: Prepared) -> NDArray[np.bool_]:
    """Return the voxels (*X) that contradict the model."""
    free = series.model.n_images - len(found.maps)
    sigma = np.asarray(ready.noise.sigma, float) / ready.scale
    off, known = np.zeros(series.shape, bool), series.selected & np.isfinite(found.residual)
    squares = series.model.n_images * np.asarray(found.residual, float) ** 2 / np.where(sigma > 0, sigma, np.nan) ** 2
    off[known] = contradicts(squares[known], 1.0, free, limit=LIMIT)
    return off


class Found(NamedTuple):
    """Maps (rows, *X), residual (*X), and the standard deviations of the maps if the network gives them."""

    maps: F32
    residual: F32
    sd: F32 | None = None


def _with_own_sd(maps: ParameterMaps, series: WeightedSeries, sd: F32) -> ParameterMaps:
    """Return the maps with the standard deviations that the network gives; NaN without a value, at a bound, and of what
    is known.
    """
    sd[:, maps.status == Status.AT_BOUND] = np.nan
    sd[~np.isfinite(maps.kappa)] = np.nan
    for name in series.held:
        sd[series.model.index(name)] = np.nan
    return replace(maps, sd_kappa=sd, settings={**maps.settings, "sd_from": "network"})
