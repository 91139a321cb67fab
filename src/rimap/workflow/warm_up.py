"""Compile all kernels ahead of the first run: what `rimap --warm-up` does, for a container image or a cluster."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rimap.compiling import compile_all, listed
from rimap.errors import InputError
from rimap.kernels import kernel_folder
from rimap.source_hashes import kernel_sources

if TYPE_CHECKING:
    from rimap.series import WeightedSeries
    from rimap.signals import SignalModel

#: Voxels of the simulated series: an object in air that fills a few planes, as the searches for air and motion need it.
_SHAPE = (40, 36, 3)
#: A slice with more voxels than a kernel is given at a time: parts of an array are of another type than the whole.
_LARGE_SHAPE = (224, 224, 1)
#: Standard deviation of the noise, as a share of the brightest value.
_NOISE = 0.02
_SEED = 5
#: The file that lists the compiled kernels of a finished warm-up.
_LIST = "all-compiled.json"


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
    """Compile every kernel and keep it: those on the list in several processes, then what the mapping of a small
    simulated series of each sequence with each estimator still needs.

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
    if _finished():
        return WarmUp(0, time.perf_counter() - started)
    found, models, before = estimators(), signal_models(), set(_compiled())
    compile_all(listed({f"{model}/{estimator}" for model in models for estimator in found}))
    with event.install_recorder("numba:compile") as recorder:
        for n, (name, kind) in enumerate(sorted(models.items())):
            say(f"{n + 1}/{len(models)} {name}: {kind.title}")
            for series in _examples(kind, all_settings=True):
                registration.find_motion(series)
                for estimator in found.values():
                    with contextlib.suppress(InputError):  # an estimator that does not map this sequence
                        estimator().estimate(series)
    after = _compiled()
    _note_finished(after)
    new = len(set(after) - before)
    return WarmUp(new if after else len(recorder.buffer) // 2, time.perf_counter() - started)


def map_examples(model: str, estimator: str) -> bool:
    """Map a few simulated series of a sequence as `rimap map` does, and return whether the estimator does that.

    Parameters
    ----------
    model, estimator
        Their names, as in "ir" and "nlls".
    """
    from rimap import registration
    from rimap.estimators import estimators
    from rimap.evaluation.resolution import resolution
    from rimap.signals import signal_models

    for series in _examples(signal_models()[model], all_settings=False):
        chosen = estimators()[estimator]()
        try:
            maps = chosen.estimate(series)
        except InputError:
            return False
        registration.find_motion(series)
        if chosen.smooths:
            resolution(series, maps, chosen)
    return True


def _compiled() -> list[str]:
    """Return the files of the compiled kernels, by their names from the folder of all kernels."""
    folders = {kernel_folder(file) for file in kernel_sources()}
    return sorted(
        file.relative_to(folder.parent).as_posix()
        for folder in folders
        if folder is not None
        for file in folder.rglob("*.nbc")
    )


def _processor() -> list[Any]:
    """Return what compiled code depends on besides its source."""
    import numba
    from numba.core.registry import cpu_target

    processor = cpu_target.target_context.codegen().magic_tuple()
    as_read: list[Any] = json.loads(json.dumps([numba.__version__, processor]))
    return as_read


def _finished() -> bool:
    """Return whether a warm-up has finished with these sources on such a processor, and all its files are kept."""
    folder = kernel_folder()
    if folder is None:
        return False
    try:
        noted = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        return noted["processor"] == _processor() and set(noted["kernels"]) <= set(_compiled())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _note_finished(kernels: list[str]) -> None:
    folder = kernel_folder()
    if folder is not None and kernels:
        with contextlib.suppress(OSError):  # the next warm-up looks for itself
            Path(folder, _LIST).write_text(
                json.dumps({"processor": _processor(), "kernels": kernels}), encoding="utf-8"
            )


def _examples(kind: type[SignalModel], *, all_settings: bool) -> Iterator[WeightedSeries]:
    """Yield a series of each kind of settings that a signal model accepts, or of the first, as if read from a file of
    whole numbers; then one with a large slice.
    """
    from rimap.series import WeightedSeries
    from rimap.testing import example_models
    from rimap.testing.example_models import draw

    rng = np.random.default_rng(_SEED)
    models = list(example_models(kind).values())[: None if all_settings else 1]
    for model, shape in [(model, _SHAPE) for model in models] + [(models[0], _LARGE_SHAPE)]:
        x, y = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
        inside = (np.hypot(x, y) < 0.7)[..., None]
        clean = np.asarray(model.signal(draw(model, shape, _SEED, even=True))) * inside
        scale = 1000.0 / max(float(np.abs(clean).max()), 1e-30)
        noise = rng.normal(0, 1000.0 * _NOISE, (2, *clean.shape))
        images = clean * scale + noise[0]
        images = images if model.is_signed else np.hypot(images, noise[1])
        yield WeightedSeries(images.astype(np.float32), model, affine=np.diag([1.0, 1.0, 3.0, 1.0]))
