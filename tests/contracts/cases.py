"""The cases of the contract tests: every signal model found in the folder, with what its scanner can be set to.

Models that come through an entry point are found as well; so is that of examples/, which is not installed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rimap.signals import SignalModel, signal_models

TAU = (12.0, 40.0, 110.0, 300.0, 700.0, 1500.0, 2500.0)

EXAMPLE = Path(__file__).parents[2] / "examples" / "saturation-recovery" / "saturation_recovery.py"


def _example() -> type[SignalModel]:
    """Return the signal model of docs/signal-model.md."""
    spec = importlib.util.spec_from_file_location("saturation_recovery", EXAMPLE)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module.SaturationRecovery  # type: ignore[no-any-return]


#: Settings of a model beside its times.
SETTINGS: dict[str, list[dict[str, object]]] = {
    "ir": [{}, {"signed": True}, {"tr": 3000.0}, {"tr": (2600.0, 2700.0, 2800.0, 2900.0, 3100.0, 3500.0, 4000.0)}],
}
MODELS: dict[str, SignalModel] = {
    f"{name}{i or ''}": cls(tau=TAU, **settings)  # type: ignore[arg-type]
    for name, cls in sorted(({"my-sr": _example()} | signal_models()).items())
    if name in ("my-sr", "ir", "t2")  # tests/signals has the others
    for i, settings in enumerate(SETTINGS.get(name, [{}]))
}


def draw(
    model: SignalModel, shape: tuple[int, ...], seed: int, *, inner: float = 0.3, even: bool = False
) -> NDArray[np.float64]:
    """Return maps (Q, *shape) within the box: uniform, log-uniform where the bounds span decades, constant if `even`."""
    rng = np.random.default_rng(seed)
    maps = []
    for p in model.parameters:
        lo, hi = p.bounds
        u = inner + (1 - 2 * inner) * rng.random(shape)
        if even and p.smooth:
            u = 0.6 + 0 * u
        if not np.isfinite(hi):
            maps.append(0.5 + u)
        elif lo > 0 and hi / lo > 20:
            maps.append(lo * (hi / lo) ** u)
        else:
            maps.append(lo + (hi - lo) * u)
    return np.stack(maps)
