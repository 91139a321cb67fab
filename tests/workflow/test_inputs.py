"""Input that is partly bad: what can be mapped is mapped, and the rest is named."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io.slice_times import SliceDelays
from rimap.workflow import Request, Run, map_series, summary
from rimap.workflow.region_names import label_names, tsv
from rimap.workflow.slice_times import estimate_by_delay

TI = (50.0, 400.0, 1100.0, 2500.0)


def write(root: Path, subject: str) -> Path:
    """Write an IRT1 series."""
    T1 = np.linspace(500, 1500, 8 * 8 * 2).reshape(8, 8, 2)
    for n, t in enumerate(TI, 1):
        path = root / f"sub-{subject}/anat/sub-{subject}_inv-{n}_IRT1.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.abs(1000 * (1 - 1.9 * np.exp(-t / T1))).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.diag([2.0, 2, 3, 1])), path)
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"InversionTime": t / 1000}))
    return root


def mapped(root: Path, out: Path, **more: Any) -> Run:
    return map_series(Request(inputs=(root,), out=out, estimator="nlls", **more))


@pytest.mark.parametrize("what", ["broken JSON", "link to nothing", "a folder", "not UTF-8", "no image"])
def test_one_bad_file_does_not_keep_others_from_being_mapped(tmp_path: Path, what: str) -> None:
    root = tmp_path / "raw"
    for subject in ("01", "02", "03"):
        write(root, subject)
    sidecar = root / "sub-02/anat/sub-02_inv-2_IRT1.json"
    if what == "no image":
        sidecar = sidecar.with_name("sub-02_inv-2_IRT1.nii.gz")
    sidecar.unlink()
    if what == "a folder":
        sidecar.mkdir()
    elif what in ("link to nothing", "no image"):
        sidecar.symlink_to("nowhere")
    else:
        sidecar.write_bytes(
            b'{"InversionTime": 0.15,' if what == "broken JSON" else b'{"InversionTime": 0.15, "Note": "\xf6"}'
        )
    run = mapped(root, tmp_path / "out")
    assert [r.label for r in run.results] == ["sub-01 IRT1", "sub-03 IRT1"]
    assert [label for label, _ in run.refused] == ["sub-02 IRT1"]


def test_a_folder_that_cannot_be_read_counts_as_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "raw"
    for subject in ("01", "02"):
        write(root, subject)
    before = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("sub-02/anat"):
            raise PermissionError(13, "Permission denied", str(path))
        return before(path)

    monkeypatch.setattr(os, "scandir", scandir)
    run = mapped(root, tmp_path / "out")
    assert [r.label for r in run.results] == ["sub-01 IRT1"]
    assert [label for label, _ in run.refused] == ["sub-02"]


def test_images_that_are_of_no_series_are_told_of(tmp_path: Path) -> None:
    root = write(tmp_path / "raw", "01")
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4)), root / "sub-01/anat/sub-01_T1w.nii.gz")
    run = mapped(root, tmp_path / "out")
    assert "sub-01_T1w.nii.gz" in " ".join(summary.about_inputs(run))


def test_paths_that_are_not_utf8(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Sch\xf6\xdfe"))
    try:
        root = write(odd / "raw", "01")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes names in UTF-8 only")
    run = mapped(root, odd / "out")
    (result,) = run.results
    text = result.report.read_bytes().decode()
    assert "sub-01" in text  # the report holds no folder
    about = json.loads(result.maps[0].with_name("sub-01_T1map.json").read_bytes())
    assert len(about["Sources"]) == len(TI)
    from rimap.io.results import find_results

    (found,) = find_results(odd / "out")
    assert all(p.is_file() for p in found.sources())


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_fill_is_finite(tmp_path: Path, value: float) -> None:
    with pytest.raises(InputError, match="--fill"):
        Request(inputs=(tmp_path,), out=tmp_path, fill=value)


def test_sigma_maps_may_be_zero_where_nothing_was_measured(tmp_path: Path) -> None:
    root = write(tmp_path / "raw", "01")
    sigma = np.full((8, 8, 2), 5.0, np.float32)
    sigma[:2] = 0
    nib.save(nib.Nifti1Image(sigma, np.diag([2.0, 2, 3, 1])), tmp_path / "sigma.nii")
    (result,) = mapped(root, tmp_path / "out", sigma=tmp_path / "sigma.nii").results
    T1 = np.asarray(nib.load(result.maps[0]).dataobj)
    assert np.isnan(T1[:2]).all() and np.isfinite(T1[3:]).all()


def test_images_without_orientation_have_no_sides(tmp_path: Path) -> None:
    root = write(tmp_path / "raw", "01")
    for path in root.rglob("*.nii.gz"):
        nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), None), path)
    (result,) = mapped(root, tmp_path / "out").results
    page = result.report.read_text()
    assert "orientation unknown" in page
    sides = re.findall(r'"letters": ?\[([^]]*)\]', page)
    assert sides and set("".join(sides)) <= set('", ')
    header = nib.load(result.maps[0]).header
    assert header["qform_code"] == header["sform_code"] == 0


def test_cells_that_a_spreadsheet_would_execute_are_quoted() -> None:
    table = tsv([{"name": "=cmd|' /C calc'!A0", "mean": -1.5, "text": "-3.2", "at": "@SUM(1)", "lines": "a\tb\nc"}])
    assert table.splitlines()[1].split("\t") == ["'=cmd|' /C calc'!A0", "-1.5", "-3.2", "'@SUM(1)", "a b c"]
    table = tsv(
        [{"quoted": '"=1+1"', "twice": '"" =1', "wide": "\uff1d1+1", "name": '"left"', "number": '"-3"', "of": "a=1"}]
    )
    assert table.splitlines()[1].split("\t") == ['\'"=1+1"', '\'"" =1', "'\uff1d1+1", '"left"', '"-3"', "a=1"]


@pytest.mark.parametrize("source", ["/etc/image.nii.gz", "file:///etc/image.nii.gz", "../../elsewhere/image.nii.gz"])
def test_sources_are_followed_inside_the_data_set_only(tmp_path: Path, source: str) -> None:
    from rimap.io.results import find_results

    root = write(tmp_path / "raw", "01")
    run = mapped(root, tmp_path / "out")
    path = run.results[0].maps[0].with_name("sub-01_T1map.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Sources": [source]}))
    (found,) = find_results(tmp_path / "out")
    with pytest.raises(InputError, match="is outside the data set"):
        found.sources()


class TestSliceTimes:
    """Slices that are read one after another after one inversion have times of their own."""

    DELAYS = (0.0, 0.15, 0.05)

    def write(self, root: Path, **sidecar: Any) -> Any:
        rng = np.random.default_rng(4)
        T1 = np.linspace(500, 1500, 16 * 16 * 3).reshape(16, 16, 3)
        for n, t in enumerate((50.0, 200.0, 500.0, 1100.0, 2500.0, 4500.0), 1):
            path = root / f"sub-01/anat/sub-01_inv-{n}_IRT1.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            later = t + 1000 * np.array(self.DELAYS)
            S = 1000 * (1 - 1.9 * np.exp(-later / T1) + 0.9 * np.exp(-9000 / T1)) + rng.normal(0, 5, T1.shape)
            nib.save(nib.Nifti1Image(np.abs(S).astype(np.float32), np.diag([2.0, 2, 3, 1])), path)
            about = {"InversionTime": t / 1000, "RepetitionTime": 9.0} | sidecar
            path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
        return T1

    @pytest.mark.parametrize("estimator", ["mle", "nlls"])
    @pytest.mark.parametrize(
        "sidecar",
        [
            {"SliceTiming": list(DELAYS), "PulseSequenceType": "IR EPI"},
            {"SliceTiming": list(DELAYS), "ScanningSequence": "EP\\IR"},
            {
                "SliceTiming": [0.1 + d for d in DELAYS[::-1]],
                "SequenceName": "epse2d1_64",
                "SliceEncodingDirection": "k-",
            },
            {"SliceDelays": list(DELAYS), "ScanningSequence": "SE"},
            {"SliceTiming": list(DELAYS)},
        ],
    )
    def test_times_are_shifted_in_each_slice(self, tmp_path: Path, sidecar: dict[str, Any], estimator: str) -> None:
        T1 = self.write(tmp_path / "raw", **sidecar)
        (result,) = map_series(Request(inputs=(tmp_path / "raw",), out=tmp_path / "out", estimator=estimator)).results
        found = 1000 * np.asarray(nib.load(result.maps[0]).dataobj)
        B = np.asarray(nib.load(result.maps[0].with_name("sub-01_desc-B_T1map.nii.gz")).dataobj)
        assert np.abs(np.nanmedian(found / T1 - 1, axis=(0, 1))).max() < 0.01
        assert np.abs(np.nanmedian(B, axis=(0, 1)) - 1.9).max() < 0.02
        assert "slices have times of their own" in " ".join((*result.notes, *result.warnings))

    def test_a_volume_excited_as_a_whole_is_not_shifted(self, tmp_path: Path) -> None:
        self.write(tmp_path / "raw", SliceTiming=list(self.DELAYS), MRAcquisitionType="3D")
        run = mapped(tmp_path / "raw", tmp_path / "out")
        assert "the acquisition is three-dimensional" in " ".join((*run.results[0].notes, *run.results[0].warnings))

    def test_slices_of_air_say_nothing_of_the_others(self) -> None:
        """Slices along the first axis of a ball: the outer ones are empty, or nearly so."""
        x, y, z = (np.indices((16, 20, 6)) - np.array([7.5, 9.5, 2.5]).reshape(3, 1, 1, 1)) / 20
        ball, delays = np.sqrt(x**2 + y**2 + z**2) < 0.3, np.linspace(0, 600, 16)
        T1, tau = np.full(ball.shape, 900.0) + 1000 * y, (50.0, 200.0, 500.0, 1100.0, 2500.0, 4500.0)
        later = np.array(tau).reshape(-1, 1, 1, 1) + delays.reshape(-1, 1, 1)
        S = ball * 1000 * (1 - 1.95 * np.exp(-later / T1) + 0.95 * np.exp(-9000 / T1))
        noise = np.random.default_rng(1).normal(0, 8, (2, *S.shape))
        series = rimap.WeightedSeries(np.hypot(S + noise[0], noise[1]), rimap.InversionRecovery(tau=tau, tr=9000.0))
        maps = estimate_by_delay(rimap.NLLS(threads=1), series, SliceDelays(0, tuple(delays)), None)
        assert np.nanmax(abs(maps["T1"][ball] / T1[ball] - 1)) < 0.15 and not any("rely" in w for w in maps.warnings)
        assert (maps.status[~ball] == rimap.Status.NO_SIGNAL).mean() > 0.97

    def test_slices_with_an_inversion_each_are_not_shifted(self, tmp_path: Path) -> None:
        self.write(tmp_path / "raw", SliceTiming=list(self.DELAYS), ScanningSequence="SE")
        run = mapped(tmp_path / "raw", tmp_path / "out")
        assert "was not used, because this is no echo-planar imaging" in " ".join(run.results[0].warnings)

    @pytest.mark.parametrize("timing", [[0.0, 0.1], ["a", 0, 1], 0.3, [0.0, 150.0, 50.0]])
    def test_times_that_are_not_of_the_slices_are_refused(self, tmp_path: Path, timing: Any) -> None:
        self.write(tmp_path / "raw", SliceTiming=timing, PulseSequenceType="EPI")
        with pytest.raises(InputError, match="SliceTiming"):
            mapped(tmp_path / "raw", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe\x00garbage", "it is not UTF-8 text. Correct the table, or remove it"),
        (
            b"label\tregion\n1\tcortex\n",
            "expected the columns index and name, separated by tabs, got none called index",
        ),
    ],
)
def test_a_damaged_table_of_labels_is_named(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_bytes(text)
    with pytest.raises(InputError, match=message):
        label_names(tmp_path / "labels.nii.gz")
    (tmp_path / "labels.tsv").write_text("index\tname\n1\tcortex\n")
    assert label_names(tmp_path / "labels.nii.gz") == {1: "cortex"}


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there are no devices here")
def test_a_device_is_refused_without_reading_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/dev/zero: expected a file, got a device"):
        map_series(Request(inputs=Path("/dev/zero"), out=tmp_path / "out", sequence="ir", times_ms=TI))


def test_a_map_of_sigma_belongs_to_the_slice_if_the_third_axis_holds_the_images(tmp_path: Path) -> None:
    """Like a mask: images (X, Y, N) are of one slice, and so is the map."""
    te = (10.0, 20.0, 40.0, 80.0)
    images = np.exp(-np.array(te) / 50) * np.full((8, 8, 1), 100.0) + np.random.default_rng(0).normal(0, 1, (8, 8, 4))
    nib.save(nib.Nifti1Image(images.astype(np.float32), np.eye(4)), tmp_path / "te.nii")
    nib.save(nib.Nifti1Image(np.full((8, 8, 1), 5, np.float32), np.eye(4)), tmp_path / "sigma.nii")
    request = Request(
        inputs=(tmp_path / "te.nii",), out=tmp_path / "out", sequence="t2", times_ms=te, estimator="nlls", threads=1,
        sigma=tmp_path / "sigma.nii",
    )  # fmt: skip
    (result,) = map_series(request).results
    about = json.loads((tmp_path / "out" / "te_T2map.json").read_text())
    assert about["NoiseSigma"] == 5 and 45 < result.statistics["T2"].median < 55
