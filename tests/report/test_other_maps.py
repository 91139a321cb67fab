"""`rimap report` of maps that another program made: what the files contain, in the right unit, and nothing more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.cli import build
from rimap.report.other_maps import find_other_maps, page_of_other_maps

SHAPE = (16, 14, 4)
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def save(path: Path, values: np.ndarray, about: dict[str, object] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), AFFINE), path)
    if about is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    return path


def times(scale: float) -> np.ndarray:
    """T1 from 800 to 1600 ms in half of the volume, zero elsewhere."""
    T1 = np.linspace(800, 1600, int(np.prod(SHAPE))).reshape(SHAPE)
    T1[:, :7] = 0
    return T1 * scale


def report(folder: Path) -> tuple[int, str]:
    result = CliRunner().invoke(build(), ["report", str(folder)])
    return result.exit_code, result.output


def viewer(page: Path) -> dict[str, object]:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="viewer-data">(.*?)</script>', text)[1])


@pytest.mark.parametrize(
    ("scale", "about"), [(1e-3, None), (1.0, None), (1.0, {"Units": "ms"}), (1e-3, {"Units": "s"})]
)
def test_times_are_in_ms_whatever_the_file_has(tmp_path: Path, scale: float, about: dict[str, object] | None) -> None:
    save(tmp_path / "head_T1map.nii.gz", times(scale), about)
    (found,) = find_other_maps(tmp_path)
    page = page_of_other_maps(found)
    assert page == tmp_path / "head_T1map_report.html"
    text = page.read_text(encoding="utf-8")
    assert (
        "<b>1,200 ms</b>" in re.sub(r"1,[12]\d\d ms", "1,200 ms", text)
        and "These maps were made by other software" in text
    )
    median = float(re.search(r"<b>([\d,]+) ms</b>", text)[1].replace(",", ""))
    assert median == pytest.approx(np.median(times(1.0)[times(1.0) > 0]), abs=1)
    assert ("the unit is not in a sidecar" in text) is (about is None)
    assert "voxels with a value" in text and f"{int((times(1) > 0).sum()):,}" in text


def test_a_series_has_one_page_for_each_time_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    anat = tmp_path / "sub-01" / "anat"
    save(
        anat / "sub-01_T1map.nii.gz",
        times(1e-3),
        {"Units": "s", "EstimationSoftwareName": "other", "InversionTimes": [0.1, 2]},
    )
    save(anat / "sub-01_desc-sd_T1map.nii.gz", 0.05 * times(1e-3), {"Units": "s"})
    save(
        anat / "sub-01_R1map.nii.gz",
        np.divide(1, times(1e-3), where=times(1) > 0, out=np.zeros(SHAPE)),
        {"Units": "1/s"},
    )
    save(anat / "sub-01_M0map.nii.gz", np.full(SHAPE, 300.0))
    save(anat / "sub-01_T2map.nii.gz", times(1e-4), {"Units": "s"})
    save(anat / "sub-01_desc-brain_mask.nii.gz", np.indices(SHAPE)[0] < 8)
    save(tmp_path / "sub-02" / "anat" / "sub-02_R2map.nii.gz", np.full(SHAPE, 20.0), {"Units": "1/s"})
    code, output = report(tmp_path)
    assert code == 0, output
    pages = sorted(p.name for p in tmp_path.glob("*.html"))
    assert pages == ["sub-01_T1map.html", "sub-01_T2map.html", "sub-02_R2map.html"]
    about = viewer(tmp_path / "sub-01_T1map.html")
    assert [p["key"] for p in about["panels"]] == ["T1", "sd T1", "M0", "R1"]
    assert about["table"] is None and about["images"] is None and about["outside"] == "outside the mask"
    text = (tmp_path / "sub-01_T1map.html").read_text(encoding="utf-8")
    assert "in the mask" in text and "InversionTimes" in text and "0.1, 2" in text and "Text for a methods" not in text
    assert [p["key"] for p in viewer(tmp_path / "sub-01_T2map.html")["panels"]] == ["T2", "M0"]
    assert "20.0 1/s" in (tmp_path / "sub-02_R2map.html").read_text(encoding="utf-8")
    assert report(tmp_path)[0] == 0  # its own pages are replaced


def test_one_file_is_enough(tmp_path: Path) -> None:
    path = save(tmp_path / "t1.nii.gz", times(1.0))
    code, output = report(path)
    assert code == 0 and (tmp_path / "t1_report.html").is_file(), output


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    assert "expected maps, got none" in report(tmp_path)[1] and report(tmp_path)[0] == 2
    assert "expected an existing folder" in report(tmp_path / "nowhere")[1]
    save(tmp_path / "x_T1map.nii.gz", np.ones((*SHAPE, 3)), {"Units": "s"})
    code, output = report(tmp_path)
    assert code == 2 and "got 3 volumes" in output
    save(tmp_path / "x_T1map.nii.gz", times(1e-3), {"Units": "s"})
    (tmp_path / "x_T1map_report.html").write_text("<html>another program</html>")
    code, output = report(tmp_path)
    assert code == 2 and "page of other software" in output
    assert (tmp_path / "x_T1map_report.html").read_text() == "<html>another program</html>"


def test_maps_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save(tmp_path / "x_T1map.nii.gz", times(1e-3), {"Units": "s"})
    save(tmp_path / "x_M0map.nii.gz", np.ones((3, 3, 3)))
    save(tmp_path / "x_mask.nii.gz", np.ones((3, 3, 3)))
    assert report(tmp_path)[0] == 0
    text = (tmp_path / "x_T1map_report.html").read_text(encoding="utf-8")
    assert "x_M0map.nii.gz is not shown" in text and "The mask was not used" in text
    assert [p["key"] for p in viewer(tmp_path / "x_T1map_report.html")["panels"]] == ["T1"]


def test_the_viewer_shows_it_without_a_curve(browser, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save(tmp_path / "x_T1map.nii.gz", times(1e-3), {"Units": "s"})
    (found,) = find_other_maps(tmp_path)
    browser.open(page_of_other_maps(found), fresh=True)
    browser.click("#hero .frame canvas", 0.5, 0.3)
    assert browser.js("document.getElementById('curve').parentElement.hidden") is True
    assert browser.js("document.querySelector('#numbers tr').innerText").startswith("T1") and browser.log == []
