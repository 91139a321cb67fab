"""The ResNet of §4.4.3, exported: one pass from the images to the maps, for one number of images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.estimators import training_range
from rimap.estimators.base import Estimator, Progress
from rimap.estimators.network_input import neutral, prepared, slices
from rimap.estimators.shipped import cached_session, default_network, metadata_of, path_of
from rimap.series import ParameterMaps, WeightedSeries


@dataclass(frozen=True, kw_only=True)
class ResNet(Estimator):
    """A trained residual network: κ̂ = Λ_φ(S) (§2.2.2, §4.4.3). It knows neither the times nor the noise.

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
    Sabidussi et al. 2021, §4.4.3, doi:10.1016/j.media.2021.102220. He et al. 2016, doi:10.1109/CVPR.2016.90.
    """

    network: str = ""
    scale: float | None = None
    threads: int | None = None

    name: ClassVar[str] = "resnet"
    title: ClassVar[str] = "Residual network"
    halo: int | None = 0

    @classmethod
    def load(cls, name: str | Path) -> ResNet:
        """Return the ResNet of a network by its name or path.

        Raises
        ------
        InputError
            Where there is no such network, or it is no ResNet.
        """
        if (kind := metadata_of(path_of(name))["kind"]) != "resnet":
            raise InputError(f"{name} is a {kind}, not a ResNet. Load it with rimap.RIM.load.")
        return cls(network=str(name))

    def prepare(self, series: WeightedSeries) -> tuple[ResNet, WeightedSeries]:
        """Return the estimator and the series with the scale and σ of this series, for mapping slabs of it."""
        ready = prepared(series, self.scale, self.threads)
        return replace(self, scale=ready.scale), series.with_noise(ready.noise)

    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of a series.

        Raises
        ------
        InputError
            Where the network was trained for another sequence or another number of images.
        """
        model = series.model
        path = path_of(self.network or default_network(model.name, "resnet"))
        about = metadata_of(path)
        training_range.fits(about, model)
        n = about["trained_on"]["n_images"][0]
        if n != model.n_images:
            raise InputError(
                f"ResNet {about['name']!r} was trained on {n} images; this series has {model.n_images}. Use the RIM, "
                "which takes any number, or train one with `rimap train`."
            )
        ready = prepared(series, self.scale, self.threads)
        run = cached_session(path, self.threads or 0).run
        kappa = np.empty((len(model.parameters), *series.shape), np.float32)
        planes = list(slices(series.shape))
        for i, k in enumerate(planes):
            S = neutral(series.images[(slice(None), *k)], ready.scale)
            (found,) = run(("kappa",), {"S": S.reshape(1, len(S), S.shape[1], -1)})
            kappa[(slice(None), *k)] = found.reshape(len(kappa), *S.shape[1:])
            if progress:
                progress(i + 1, len(planes))
        kappa[-1] *= 1000.0
        for q, p in enumerate(model.parameters):
            np.clip(kappa[q], *p.bounds, out=kappa[q])
        residual = _residual(series, kappa, ready.scale)
        kappa[0] *= ready.scale
        settings = {**asdict(self), "network": about["name"], "scale": ready.scale}
        return training_range.checked_maps(about, series, ready, kappa, residual, self.name, settings)


def _residual(series: WeightedSeries, kappa: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Return the root mean square of S − f (*X), slice by slice."""
    out = np.empty(series.shape, np.float32)
    for k in slices(series.shape):
        S = neutral(series.images[(slice(None), *k)], scale)
        f = series.model.signal(kappa[(slice(None), *k)])
        out[k] = scale * np.sqrt(((S - f) ** 2).mean(0))
    return out
