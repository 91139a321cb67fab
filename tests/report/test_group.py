"""The group page finds the maps of every model by the suffixes that the models declare."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from rimap import colours
from rimap.report.group import columns, fences, page, with_outliers
from rimap.report.main_maps import contents_of, main_maps, rows_of
from rimap.report.thumbnails import Thumbnail, thumbnails
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


@pytest.mark.parametrize(("step", "marked"), [(2e-4, ""), (0.02, "high")])
def test_a_median_is_an_outlier_only_if_it_differs_by_a_percent(tmp_path: Path, step: float, marked: str) -> None:
    (row,) = [row for m in main_maps(derivative(tmp_path, "t2", "T2map", n=1)) for row in rows_of(m)]
    rows = with_outliers(
        [{**row, "median": m, "series": f"sub-{i}"} for i, m in enumerate([50.0] * 5 + [50 * (1 + step)])]
    )
    assert [row["outlier"] for row in rows] == [""] * 5 + [marked]


def test_few_values_have_no_fences() -> None:
    assert fences([1.0, 2.0]) == (-np.inf, np.inf)


def picture_of(src: str) -> np.ndarray:
    """The colours (height, width, 3) of a picture in a page."""
    data = base64.b64decode(src.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_each_map_has_a_picture_and_its_warnings(tmp_path: Path) -> None:
    folder = derivative(tmp_path, "t2", "T2map")
    warned = folder / "sub-03/anat/sub-03_T2map.json"
    warned.write_text(json.dumps({"Estimator": "nlls", "SignalModel": "t2", "Warnings": ["TR is <short>."]}))
    maps = main_maps(folder)
    rows = with_outliers([row for m in maps for row in rows_of(m)])
    pictures = {m.series: Thumbnail.of(contents_of(m)) for m in maps}
    (kind,), more = thumbnails(maps, pictures, rows)
    assert more == 0 and [m["who"] for m in kind["maps"]] == [f"sub-{i:02d}" for i in range(6)]
    # All have the same window: the last map, twice as long, is another colour, that of its value.
    high = kind["ticks"][-1]
    top = float(high["label"].replace(",", "")) / (high["at"] / 100)
    for i, m in enumerate(kind["maps"]):
        value = 30.0 * (1 + 0.01 * i) * (2 if i == 5 else 1)
        expected = colours.palette("navia")[int(colours.indices(value, 0, top, logarithmic=True))]
        drawn = picture_of(m["src"])
        assert np.abs(drawn.reshape(-1, 3).astype(int) - expected.astype(int)).max() <= 4
        assert m["median"] == pytest.approx(value) and m["ok"] == 100.0 and m["slice"] == "slice 2 of 2"
    assert [m["warnings"] for m in kind["maps"]] == [(), (), (), ("TR is <short>.",), (), ()]
    assert kind["maps"][5]["outlier"] == "signal" and not kind["maps"][0]["outlier"]
    html = page(rows, title="study", made="today", maps=maps, pictures=pictures)
    assert html.count('<a href="sub-03_T2map.html" title') == 1 and "<summary>1 warning</summary>" in html
    assert "TR is &lt;short&gt;." in html and "<short>" not in html


def test_a_large_map_is_thinned_out(tmp_path: Path) -> None:
    folder = derivative(tmp_path, "t2", "T2map", n=1)
    anat = folder / "sub-00/anat"
    values = np.zeros((300, 200, 3))
    values[20:280, 10:190, 1] = 0.05
    save(anat / "sub-00_T2map.nii.gz", values, {"Estimator": "nlls", "SignalModel": "t2"})
    save(anat / "sub-00_desc-status_T2map.nii.gz", np.where(values > 0, Status.OK, Status.OUTSIDE_MASK))
    thumbnail = Thumbnail.of(contents_of(main_maps(folder)[0]))
    assert max(thumbnail.values.shape) <= 128 and np.nanmedian(thumbnail.values) == pytest.approx(50.0)
    assert thumbnail.number == 2 and thumbnail.n_slices == 3
