"""The recurrent inference machine (§3): the loop of Eqs. 4–5 around an exported cell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators import training_range
from rimap.estimators.base import Estimator, Progress, model_warnings
from rimap.estimators.data_term import SignalTable, Sums, data_sums
from rimap.estimators.network_input import Prepared, neutral, prepared, slices
from rimap.estimators.rim_loop import Quadratic, RIMConfig, box, cell_inputs, from_state, moved, to_state, units
from rimap.estimators.shipped import cached_session, default_network, metadata_of, path_of
from rimap.estimators.start import start
from rimap.likelihood import Rician
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RIM(Estimator):
    """A trained recurrent inference machine: J times, a small network reads the estimate and the gradient of the
    likelihood and returns an update (Eqs. 4–5).

    Slices (along the last of three axes) are mapped one by one. Image scale, σ and start are those of the whole
    series; `prepare` fixes the first two for who maps a volume in slabs.

    Parameters
    ----------
    network
        Name of a network that ships (`rimap models`) or path of an exported one; chosen by the sequence if empty.
    scale
        What the images are divided by, so that A of CSF is about 1; found from the images if left out.
    threads
        How many cores; all if left out.

    References
    ----------
    Sabidussi et al. 2021, §3 and §4.4.4, doi:10.1016/j.media.2021.102220. Putzky & Welling 2017, arXiv:1706.04008.
    """

    network: str = ""
    scale: float | None = None
    threads: int | None = None

    name: ClassVar[str] = "rim"
    title: ClassVar[str] = "Recurrent inference machine"
    halo: int | None = 0

    @classmethod
    def load(cls, name: str | Path) -> RIM:
        """Return the RIM of a network by its name or path.

        Raises
        ------
        InputError
            Where there is no such network, or it is no RIM.
        """
        path = path_of(name)
        if (kind := metadata_of(path)["kind"]) != "rim":
            raise InputError(f"{name} is a {kind}, not a RIM. Load it with rimap.ResNet.load.")
        return cls(network=str(name))

    def prepare(self, series: WeightedSeries) -> tuple[RIM, WeightedSeries]:
        """Return the estimator and the series with the scale and σ of this series, for mapping slabs of it."""
        ready = prepared(series, self.scale, self.threads)
        return replace(self, scale=ready.scale), series.with_noise(ready.noise)

    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series.

        Raises
        ------
        InputError
            Where the network was trained for another sequence, or σ is neither given nor to be found.
        """
        model = series.model
        path = path_of(self.network or default_network(model.name, "rim"))
        about = metadata_of(path)
        training_range.fits(about, model)
        ready = prepared(series, self.scale, self.threads)
        loop = Loop(model, RIMConfig.of(about["rim"]), cached_session(path, self.threads or 0))
        kappa = np.empty((len(model.parameters), *series.shape), np.float32)
        residual = np.empty(series.shape, np.float32)
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as executor:
            planes = list(slices(series.shape))
            for i, k in enumerate(planes):
                kappa[(slice(None), *k)], residual[k] = self._plane(loop, series, ready, k, executor)
                if progress:
                    progress(i + 1, len(planes))
        kappa[0] *= ready.scale
        status = ready.status(series, kappa, model)
        outside, warnings = training_range.compare(about, series, ready, kappa)
        status[outside & (status == Status.OK)] = Status.OUTSIDE_TRAINING
        gone = np.isin(status, (Status.NO_SIGNAL, Status.NOT_FINITE, Status.OUTSIDE_MASK))
        kappa[:, gone] = np.nan
        residual[gone] = np.nan
        return ParameterMaps(
            kappa=kappa,
            model=model,
            status=status,
            residual=residual * np.float32(ready.scale),
            noise=ready.noise,
            sigma_source=ready.sigma_source,
            estimator=self.name,
            settings={**asdict(self), "network": about["name"], "scale": ready.scale},
            warnings=(*model_warnings(model), *warnings),
            affine=series.affine,
        )

    def _plane(
        self, loop: Loop, series: WeightedSeries, ready: Prepared, k: Any, executor: ThreadPoolExecutor
    ) -> tuple[F32, F32]:
        S = neutral(series.images[(slice(None), *k)], ready.scale)
        shape = S.shape[1:]
        flat = S.reshape(len(S), 1, shape[0], -1)
        sigma = np.asarray(ready.sigma_of(k), np.float32) / np.float32(ready.scale)
        sigma = np.where(sigma > 0, sigma, np.float32(1)).reshape(1, *((1, 1) if sigma.ndim == 0 else flat.shape[2:]))
        kappa, sse = loop(flat, sigma, isinstance(ready.noise, Rician), executor)
        rms = np.sqrt(sse / len(S))
        return kappa.reshape(len(kappa), *shape), rms.reshape(shape)


@dataclass(frozen=True, eq=False)
class Loop:
    """The four lines of the paper, over NumPy."""

    model: SignalModel
    config: RIMConfig
    cell: Any

    def __call__(self, S: F32, sigma: F32, rician: bool, executor: ThreadPoolExecutor | None = None) -> tuple[F32, F32]:
        """Return κ̂_J (Q, 1, h, w) and Σ(S − f)² of images (N, 1, h, w) in units of the image scale."""
        *_, (kappa, sse) = self.steps(S, sigma, rician, executor)
        return kappa, sse

    def steps(
        self, S: F32, sigma: F32, rician: bool, executor: ThreadPoolExecutor | None = None
    ) -> Iterator[tuple[F32, F32]]:
        """Yield the start and the estimate after each step, with Σ(S − f)²."""
        config, model = self.config, self.model
        h, w = S.shape[2:]
        sums_at = data_term(model, S, sigma if rician else None, executor)
        weight = (abs(S).max(0) > 0).astype(np.float32)
        kappa = start(config.start, model, S, sigma, sums_at, weight).astype(np.float32)
        bounds = box(config, model)
        u = to_state(config, kappa)
        u = np.stack([np.clip(x, lo, hi) for x, (lo, hi) in zip(u, bounds)])
        memory = [np.zeros((1, config.features, h, w), np.float32)] * 2
        sums = sums_at(kappa)
        yield kappa, sums.sse
        for _ in range(config.n_steps):
            quadratic = Quadratic.of(config, kappa, sums, sigma)
            x = np.stack([c.astype(np.float32) for c in cell_inputs(config, u, sums, quadratic, model.n_images)], 1)
            feed = {"x": x, "h1": memory[0], "h2": memory[1]}
            delta, *memory = self.cell.run(("delta", "h1_next", "h2_next"), feed)  # Eq. 4
            u = moved(config, u, np.moveaxis(delta, 1, 0), units(config, quadratic), bounds)  # Eq. 5
            kappa = from_state(config, u).astype(np.float32)
            sums = sums_at(kappa)
            yield kappa, sums.sse


def data_term(
    model: SignalModel, S: F32, rician_sigma: F32 | None, executor: ThreadPoolExecutor | None = None
) -> Callable[[F32], Sums]:
    """Return the function κ (Q, n, h, w) → `Sums` of images (N, n, h, w)."""
    if not model.separable:
        return lambda kappa: data_sums(model, S, kappa, rician_sigma)
    table = SignalTable.of(model)
    X = S.shape[1:]
    voxels = np.ascontiguousarray(S.reshape(len(S), -1).T, np.float32)
    s = None if rician_sigma is None else np.broadcast_to(rician_sigma, X).reshape(-1)

    def sums(kappa: F32) -> Sums:
        flat = np.ascontiguousarray(kappa.reshape(len(kappa), -1), np.float32)
        return Sums(*(x.reshape(x.shape[:-1] + X) for x in table.sums(voxels, flat, s, executor=executor)))

    return sums
