"""The group page finds the maps of every model by the suffixes that the models declare."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap.report.group import columns, fences, page, with_outliers
from rimap.report.main_maps import main_maps, rows_of
from rimap.series import Status
from rimap.signals import signal_models

SHAPE = (8, 7, 2)


def save(path: Path, values: np.ndarray, about: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
    if about:
        Path(str(path).replace(".nii.gz", ".json")).write_text(json.dumps(about))


def derivative(folder: Path, model: str, suffix: str, n: int = 6) -> Path:
    """Write the maps of n subjects, in seconds, the last of them twice as long."""
    for i in range(n):
        anat, value = folder / f"sub-{i:02d}" / "anat", 0.03 * (1 + 0.01 * i) * (2 if i == n - 1 else 1)
        save(anat / f"sub-{i:02d}_{suffix}.nii.gz", np.full(SHAPE, value), {"Estimator": "nlls", "SignalModel": model})
        save(anat / f"sub-{i:02d}_desc-status_{suffix}.nii.gz", np.full(SHAPE, Status.OK))
        save(anat / f"sub-{i:02d}_R1map.nii.gz", np.ones(SHAPE), {"Estimator": "nlls"})
    return folder


@pytest.mark.parametrize("name", sorted(signal_models()))
def test_maps_are_found_by_the_suffix_of_the_main_map(name: str, tmp_path: Path) -> None:
    model = signal_models()[name]
    main = next((d for d in model.derived if d.main), None) or next(p for p in model.parameters if p.role == "time")
    assert main.suffix is not None
    found = main_maps(derivative(tmp_path, name, main.suffix))
    assert [m.path.name for m in found] == [f"sub-{i:02d}_{main.suffix}.nii.gz" for i in range(6)]
    rows = with_outliers([row for m in found for row in rows_of(m)])
    assert {r["unit"] for r in rows} == {"ms"} and rows[0]["median"] == pytest.approx(30.0)
    assert [r["outlier"] for r in rows] == [""] * 5 + ["high"]
    html = page(rows, title="study", made="today")
    shown = main.suffix.removesuffix("map").replace("star", "*")
    assert f"<h2>{shown}, ms</h2>" in html and "Outliers: sub-05" in html
    assert set(rows[0]) == set(columns())


def test_the_levels_of_the_maps_are_those_of_the_models() -> None:
    levels = columns()["map"]["Levels"]
    assert {"T1", "T2", "T2star"} <= set(levels) and levels["T1"] == "longitudinal relaxation time"


def test_few_values_have_no_fences() -> None:
    assert fences([1.0, 2.0]) == (-np.inf, np.inf)
