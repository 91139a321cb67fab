"""The careful search of `nlls`: climbs that join one another give what each gives by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rimap
from rimap.estimators.nlls.conic import careful_search
from rimap.estimators.nlls.conic.scan_kernels import FLIPS, KEY, VOXEL
from rimap.estimators.nlls.estimator import least_squares


@pytest.mark.parametrize("tr", [0.0, 6000.0])
def test_climbs_that_join_give_what_each_gives_by_itself(monkeypatch: pytest.MonkeyPatch, tr: float) -> None:
    joint, compared = careful_search.settle, []

    def both(tasks: Any, n: int, chunk: Any, cone: Any, plan: Any) -> None:
        alone = chunk._replace(best=chunk.best.copy())
        for task in range(n):
            joint(tasks[task : task + 1], 1, alone, cone, plan)
        joint(tasks, n, chunk, cone, plan)
        found = np.unique(tasks[:n, VOXEL])
        np.testing.assert_allclose(chunk.best[found, 0], alone.best[found, 0], rtol=1e-12)
        without_flips = tasks[:n][tasks[:n, FLIPS] == 0]
        compared.append((len(np.unique(without_flips[:, KEY])), len(found)))

    monkeypatch.setattr(careful_search, "settle", both)
    rng = np.random.default_rng(7)
    images = np.hypot(*rng.normal(0, 15, (2, 6, 2000))).astype(np.float32)  # air
    model = rimap.InversionRecovery(tau=(50, 150, 400, 900, 1800, 4000), **({"tr": tr} if tr else {}))
    maps = least_squares(rimap.WeightedSeries(images, model), threads=1)
    assert max(nodes for nodes, _ in compared) > 10 and sum(voxels for _, voxels in compared) > 50
    assert np.isfinite(maps.residual).all()
