"""Maps made slab by slab are those of the whole, for known maps, fixed parameters, bounds and derived maps as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rimap.signals import signal_models
from rimap.workflow import Request, map_series, memory

SHAPE = (12, 10, 6)
PLANE = SHAPE[0] * SHAPE[1]
CASES = {
    "flip angles with a map of B1 that lacks slices": ("vfa", {"flip_angle": (3.0, 10.0, 20.0), "tr": 15.0}, {}),
    "bounds": ("vfa", {"flip_angle": (3.0, 10.0, 20.0), "tr": 15.0}, {"bounds": {"T1": (200.0, 1100.0)}}),
    "a derived rate": ("megre", {"te": (4.0, 10.0, 20.0, 40.0)}, {}),
    "a fixed field": ("ir", {"tau": (50.0, 300.0, 900.0, 2500.0)}, {"estimator": "mle", "fixed": {"B": 1.9}}),
}


def save(path: Path, values: Any) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), np.diag([2.0, 2.0, 3.0, 1.0])), path)
    return path


def clipped(S: np.ndarray, share: float) -> np.ndarray:
    """Return images with a bright corner in two planes, clipped in a share of it; a slab alone would not find that."""
    S = S.copy()
    S[:, :4, :5, 3:5] *= 3
    limit = np.quantile(S[:, :4, :5, 3:5].max(0), 1 - share)
    return np.minimum(S, limit)


SPOILS = {
    "as they are": lambda S: S,
    "clipped in few voxels": lambda S: clipped(S, 0.7),
    "clipped": lambda S: clipped(S, 1),
}


PAIRS = [*((case, "as they are") for case in CASES), *(("a derived rate", spoil) for spoil in SPOILS)]


@pytest.mark.parametrize(("case", "spoil"), PAIRS)
def test_slabs_give_the_maps_of_the_whole(
    case: str, spoil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, settings, options = CASES[case]
    model = signal_models()[name](**settings)
    rng = np.random.default_rng(3)
    field = {"vfa": np.linspace(0.8, 1.2, SHAPE[0])[:, None, None] * np.ones(SHAPE), "ir": np.full(SHAPE, 1.9)}.get(
        name
    )
    measured = field.copy() if name == "vfa" else None
    if measured is not None:
        measured[..., :2], measured[..., 5] = 0, np.nan  # a whole slab, and half of one
    T = np.exp(rng.uniform(np.log(0.5), np.log(2), SHAPE)) * (30 if name == "megre" else 700)
    values = {"time": T, "field": field, "amplitude": np.full(SHAPE, 900.0)}
    S = model.signal(np.stack([values[p.role] for p in model.parameters]))
    S = SPOILS[spoil](np.abs(S + rng.standard_normal(S.shape)))
    request = {
        "inputs": save(tmp_path / "x.nii", np.moveaxis(S, 0, -1)),
        "sequence": name,
        "settings": settings,
        "threads": 1,
        "given": {"B1": save(tmp_path / "b.nii", measured)} if name == "vfa" else {},
        "estimator": "nlls",
        **options,
    }
    whole = map_series(Request(out=tmp_path / "whole", **request))
    with monkeypatch.context() as small:
        small.setattr(memory, "needed", lambda *a, **k: 1 << 61)
        small.setattr(memory, "slab_voxels", lambda *a: 2 * PLANE)
        parts = map_series(Request(out=tmp_path / "parts", **request))
    files = {p.name: p for p in whole.results[0].maps}
    assert files.keys() == {p.name for p in parts.results[0].maps} and len(files) > 4
    for path in parts.results[0].maps:
        if path.suffix == ".json":
            first, second = (json.loads(p.read_text()) for p in (files[path.name], path))
            assert [first.pop("Warnings"), second.pop("Warnings")] and first == second
        else:
            images = [np.asarray(nib.load(p).dataobj, float) for p in (files[path.name], path)]
            np.testing.assert_allclose(*images, rtol=1e-5, atol=1e-9, err_msg=path.name)


def test_slabs_of_a_single_slice_flag_the_area_that_the_whole_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = signal_models()["megre"](te=(4.0, 10.0, 20.0, 40.0))
    rng = np.random.default_rng(1)
    S = model.signal(np.stack([np.full((24, 24), 900.0), np.full((24, 24), 30.0)])) + rng.standard_normal((4, 24, 24))
    area = np.zeros((24, 24), bool)
    area[6:18, 6:18] = True
    S[1, area & (rng.random(area.shape) < 0.7)] *= 3
    request = {
        "inputs": [save(tmp_path / f"x{n}.nii", image) for n, image in enumerate(S)],
        "sequence": "megre",
        "settings": {"te": (4.0, 10.0, 20.0, 40.0)},
        "threads": 1,
        "estimator": "nlls",
    }
    whole = map_series(Request(out=tmp_path / "whole", **request))
    with monkeypatch.context() as small:
        small.setattr(memory, "needed", lambda *a, **k: 1 << 61)
        small.setattr(memory, "slab_voxels", lambda *a: 2 * 24)
        parts = map_series(Request(out=tmp_path / "parts", **request))
    status = [
        np.asarray(nib.load(next(p for p in run.results[0].maps if "status" in p.name and p.suffix != ".json")).dataobj)
        for run in (whole, parts)
    ]
    np.testing.assert_array_equal(*status)
    assert (status[0][7:17, 7:17] == 7).mean() > 0.95
