"""The ResNet of §4.4.3, exported: one pass from the images to the maps, for one number of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array
from rimap.errors import InputError
from rimap.estimators.base import Estimator, Progress
from rimap.estimators.checks import training_range
from rimap.estimators.checks.missing_values import screened
from rimap.estimators.network_files import (
    cached_session,
    default_network,
    for_model,
    metadata_of,
    path_of,
    sha256_of,
    shipped,
)
from rimap.estimators.noise_correlation import estimated_in, with_correlation
from rimap.estimators.rim import bootstrap
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import PAPER, from_state
from rimap.estimators.rim.network_input import correlation_of_noise, neutral, prepared, slices
from rimap.estimators.slice_axis import slices_last
from rimap.series import ParameterMaps, WeightedSeries
from rimap.signals.base import SignalModel


@dataclass(frozen=True, kw_only=True)
class ResNet(Estimator):
    """A trained residual network: κ̂ = Λ_φ(S) (§2.2.2, §4.4.3). It knows neither the times nor the noise:
    images go in by their rank in time.

    Parameters
    ----------
    network
        Name of a network that ships (`rimap models`) or path of an exported one; chosen by the sequence if empty.
    scale
        The number by which the images are divided, so that A of CSF is about 1; found from the images if left out.
    threads
        How many cores; all if left out.
    sd_draws
        Number of simulated series from which standard deviations are estimated; 0 for none. Each takes as long as
        the mapping.
    planes
        (*X), which plane of the whole a voxel is in; `prepare` and `slab` set it.

    References
    ----------
    Sabidussi et al. 2021, §4.4.3, doi:10.1016/j.media.2021.102220. He et al. 2016, doi:10.1109/CVPR.2016.90.
    """

    network: str = ""
    scale: float | None = None
    threads: int | None = None
    sd_draws: int = 0
    planes: Any = field(default=None, repr=False, compare=False)

    name: ClassVar[str] = "resnet"
    title: ClassVar[str] = "Residual network"
    smooths: ClassVar[bool] = True
    halo: int | None = 0

    def __post_init__(self) -> None:
        bootstrap.checked(self.sd_draws)

    @classmethod
    def load(cls, name: str | Path, *, sd_draws: int = 0) -> ResNet:
        """Return the ResNet of a network by its name or path.

        Raises
        ------
        InputError
            If there is no such network, or it is no ResNet.
        """
        if (kind := metadata_of(path_of(name))["kind"]) != "resnet":
            raise InputError(f"{name} is a {kind}, not a ResNet. Load it with rimap.RIM.load.")
        return cls(network=str(name), sd_draws=sd_draws)

    def prepare(self, series: WeightedSeries) -> tuple[ResNet, WeightedSeries]:
        """Return the estimator and the series with the scale and σ of this series, for mapping slabs of it."""
        ready = prepared(series, self.scale, self.threads)
        planes = bootstrap.numbered(series.shape)
        return replace(self, scale=ready.scale, planes=planes), series.with_noise(ready.noise)

    def slab(self, index: Array) -> ResNet:
        """Return the estimator for a part of the series that it was prepared for, ``series[index]``."""
        return self if self.planes is None else replace(self, planes=self.planes[index])

    @slices_last
    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series.

        Raises
        ------
        InputError
            Where the network was trained for another sequence or another number of images, or the series gives a
            parameter that the network estimates.
        """
        screen = screened(series, threads=self.threads)
        series = screen.series
        model = series.model
        path = path_of(self.network or default_network(model.name, "resnet"))
        about = for_model(metadata_of(path), model) | {"sha256": sha256_of(path)}
        _refuse_given(series)
        n = about["trained_on"]["n_images"][0]
        if n != model.n_images:
            raise InputError(
                f"ResNet {about['name']!r} was trained on {n} images; this series has {model.n_images}. Use the RIM, "
                f"which takes any number, {_other(model)}or train one with `rimap train`."
            )
        ready = prepared(series, self.scale, self.threads)
        run = cached_session(path, self.threads or 0).run
        order = _order(about["trained_on"]["times_ms"], model.times)
        first = progress and (lambda done, total: progress(done, (1 + self.sd_draws) * total))
        kappa = _found(run, series, order, ready.scale, first)
        alone = kappa.copy() if self.sd_draws else kappa
        settings = {
            "network": about["name"],
            "network_sha256": about["sha256"],
            "scale": ready.scale,
            "threads": self.threads,
        }
        residual = _residual(series, kappa, ready.scale)
        maps = training_range.checked_maps(about, series, ready, kappa, residual, self.name, settings, screen)
        maps = with_correlation(maps, correlation_of_noise(series, estimated_in(maps.status), self.threads))
        if not self.sd_draws:
            return maps
        return bootstrap.with_sd(
            maps,
            series,
            alone,
            self.sd_draws,
            lambda drawn, part: _found(run, drawn, order, ready.scale, part),
            planes=self.planes,
            progress=progress,
        )


def _refuse_given(series: WeightedSeries) -> None:
    """Refuse a known parameter that the network would estimate: it has no input for it, and its T would be for another
    field.
    """
    for parameter in Layout.of(series.model).carried:
        if parameter.name in series.given:
            raise InputError(
                f"given {parameter.name}: a ResNet estimates {parameter.name} and cannot keep it fixed. Leave it "
                "out, or use the RIM, NLLS or MLE, which accept a known field."
            )


def _other(model: SignalModel) -> str:
    """Return advice on the shipped ResNet for a number of images; "" if there is none."""
    for name, path in shipped().items():
        about = metadata_of(path)
        if (about["kind"], about["sequence"]) != ("resnet", model.name):
            continue
        if about["trained_on"]["n_images"][0] == model.n_images:
            return f"--network {name}, "
    return ""


def _order(trained: Sequence[float], times: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which image of a series goes where the network had the one of that rank in time."""
    return np.argsort(times, kind="stable")[np.argsort(np.argsort(trained, kind="stable"))]


def _found(
    run: Callable[..., Any],
    series: WeightedSeries,
    order: NDArray[np.intp],
    scale: float,
    progress: Progress | None,
) -> NDArray[np.float32]:
    """Return κ (Q, *X) in the unit of the images, in the box, of the images in this order."""
    layout = Layout.of(series.model)
    carried = np.empty((len(layout.carried), *series.shape), np.float32)
    planes = list(slices(series.shape))
    for index, plane in enumerate(planes):
        S = neutral(series.images[(slice(None), *plane)], scale)
        (found,) = run(("kappa",), {"S": S[order].reshape(1, len(S), S.shape[1], -1)})
        carried[(slice(None), *plane)] = found.reshape(len(carried), *S.shape[1:])
        if progress:
            progress(index + 1, len(planes))
    carried = from_state(PAPER, layout, carried)  # the time is in seconds
    for row, parameter in enumerate(layout.carried):
        np.clip(carried[row], *parameter.bounds, out=carried[row])
    carried[: layout.n_amplitudes] *= np.float32(scale)
    return np.asarray(layout.kappa_of(carried, layout.known_of(series.held)), np.float32)


def _residual(series: WeightedSeries, kappa: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Return the root mean square of S − f (*X), slice by slice."""
    out = np.empty(series.shape, np.float32)
    for slice_ in slices(series.shape):
        S = neutral(series.images[(slice(None), *slice_)], scale)
        f = series.model.signal(kappa[(slice(None), *slice_)]) / np.float32(scale)
        out[slice_] = scale * np.sqrt(((S - f) ** 2).mean(0))
    return out
