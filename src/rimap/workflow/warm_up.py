"""Compile all kernels ahead of the first run: what `rimap --warm-up` does, for a container image or a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rimap.errors import InputError

if TYPE_CHECKING:
    from rimap.series import WeightedSeries
    from rimap.signals import SignalModel

#: Voxels of the simulated series: an object in air that fills a few planes, as the searches for air and motion need it.
_SHAPE = (40, 36, 3)
#: Standard deviation of the noise, as a share of the brightest value.
_NOISE = 0.02
_SEED = 5


@dataclass(frozen=True)
class WarmUp:
    """What `warm_up` did.

    Parameters
    ----------
    kernels
        Number of kernels that were compiled. The others had been compiled before.
    seconds
        Time that all of it took, s.
    """

    kernels: int
    seconds: float


def warm_up(say: Callable[[str], None] = lambda text: None) -> WarmUp:
    """Map a small simulated series of each sequence with each estimator, so that every kernel is compiled and kept.

    Parameters
    ----------
    say
        Called with a line about each sequence before it is mapped.
    """
    from numba.core import event

    from rimap import registration
    from rimap.estimators import estimators
    from rimap.signals import signal_models

    started = time.perf_counter()
    compiled: list[float] = []
    found, models = estimators(), signal_models()
    with event.install_timer("numba:compile", compiled.append):
        for n, (name, kind) in enumerate(sorted(models.items())):
            say(f"{n + 1}/{len(models)} {name}: {kind.title}")
            for series in _examples(kind):
                registration.find_motion(series)
                for estimator in found.values():
                    try:
                        estimator().estimate(series)
                    except InputError:  # an estimator that does not map this sequence
                        continue
    return WarmUp(len(compiled), time.perf_counter() - started)


def _examples(kind: type[SignalModel]) -> Iterator[WeightedSeries]:
    """Yield a series of each kind of settings that a signal model accepts, as if read from a file of whole numbers."""
    from rimap.series import WeightedSeries
    from rimap.testing import example_models
    from rimap.testing.example_models import draw

    x, y = np.mgrid[-1 : 1 : _SHAPE[0] * 1j, -1 : 1 : _SHAPE[1] * 1j]
    inside = (np.hypot(x, y) < 0.7)[..., None]
    rng = np.random.default_rng(_SEED)
    for model in example_models(kind).values():
        clean = np.asarray(model.signal(draw(model, _SHAPE, _SEED, even=True))) * inside
        scale = 1000.0 / max(float(np.abs(clean).max()), 1e-30)
        noise = rng.normal(0, 1000.0 * _NOISE, (2, *clean.shape))
        images = clean * scale + noise[0]
        images = images if model.is_signed else np.hypot(images, noise[1])
        yield WeightedSeries(images.astype(np.float32), model, affine=np.diag([1.0, 1.0, 3.0, 1.0]))
