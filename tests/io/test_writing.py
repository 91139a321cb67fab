"""Maps as files: a valid derivative data set, the geometry of the input, nothing replaced unasked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.foreground import Region, foreground
from rimap.io import SeriesFiles, Writing, check_output, find_series, planned_outputs, write_maps
from rimap.io.reading_options import Reading
from rimap.series import ParameterMaps, Status
from rimap.workflow.read_series import read

Make = Callable[..., ParameterMaps]
VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def validate(folder: Path) -> list[str]:
    """Return the errors that the official validator finds."""
    command = [str(VALIDATOR), str(folder), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [f"{i['code']} {i.get('subCode', '')} {i.get('location')}" for i in issues if i["severity"] == "error"]


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def load(path: Path) -> Any:
    return np.asanyarray(nib.load(path).dataobj)


def sidecar(path: Path) -> dict[str, Any]:
    return json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())


def map_all(folder: Path, out: Path, make: Make, estimator: str = "nlls", **how: Any) -> list[Path]:
    written = []
    for s in find_series(folder):
        written += write_maps(make(s.load(), estimator), s, out, Writing(**how))
    return written


@pytest.mark.skipif(not VALIDATOR.exists(), reason="bids-validator-deno is not installed")
class TestValidator:
    def test_the_data_set_is_valid_with_two_estimators_rates_sessions_and_runs(self, bids: Path, as_maps: Make) -> None:
        out = bids / "derivatives" / "rimap"
        map_all(bids, out, as_maps, rates=True)
        assert validate(out) == []
        map_all(bids, out, as_maps, "my_mle", rates=True, fill=0.0)
        (out / "sub-01_T1map.html").write_text("a report")
        (out / "sub-01_T1map_rois.tsv").write_text("a\tb\n1\t2\n")
        assert validate(out) == []

    def test_a_varying_repetition_time_skipped_images_and_entities_that_maps_may_not_have(
        self, tmp_path: Path, build: SimpleNamespace, as_maps: Make
    ) -> None:
        root, out = tmp_path / "raw", tmp_path / "else where" / "out"
        for echo in "12":
            for n, (ti, image) in enumerate(zip(build.TI, build.recovery((6, 7, 1))), 1):
                meta = {"InversionTime": ti / 1000, "RepetitionTimePreparation": 3 + n}
                build.save(root / f"sub-1/anat/sub-1_acq-x_echo-{echo}_inv-{n}_IRT1.nii.gz", image, meta)
        map_all(root, out, as_maps)
        assert validate(out) == []
        assert "sub-1/anat/sub-1_acq-xecho1_T1map.nii.gz" in names(out)

    def test_the_real_data(self, shared_data: Path, tmp_path: Path, as_maps: Make) -> None:
        for folder in ("brain_in_vivo", "nist_phantom"):
            written = map_all(shared_data / folder, tmp_path / folder, as_maps, rates=True)
            assert validate(tmp_path / folder) == []
            source = nib.load(find_series(shared_data / folder)[0].images[0])
            assert all(np.array_equal(nib.load(f).affine, source.affine) for f in written[:3])


def test_names_values_and_sidecars(bids: Path, as_maps: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (series,) = find_series(bids / "sub-02", sessions=["b"], runs=["2"])
    maps = as_maps(series.load())
    written = write_maps(maps, series, out, Writing(extra_metadata={"Estimator": "nlls", "More": 1}))
    stem = "sub-02/ses-b/anat/sub-02_ses-b_run-2"
    tails = ("T1map", "M0map", "desc-sd_T1map", "desc-B_T1map", "desc-sdB_T1map", "desc-sd_M0map")
    tails = (*tails, "desc-residual_T1map", "desc-status_T1map")
    images = {f"{stem}_{t}.nii.gz" for t in tails}
    beside = {"dataset_description.json", "README", ".bidsignore"}
    assert names(out) == images | {n.replace(".nii.gz", ".json") for n in images} | beside
    assert {p.relative_to(out).as_posix() for p in written} == images
    assert written[0] == out / f"{stem}_T1map.nii.gz"

    image = nib.load(written[0])
    np.testing.assert_allclose(image.get_fdata(), maps["T1"] / 1000, rtol=1e-6)
    assert image.get_data_dtype() == np.float32
    assert np.isnan(image.get_fdata()[0, 0, 0])
    np.testing.assert_allclose(load(out / f"{stem}_desc-sd_T1map.nii.gz"), maps.sd["T1"] / 1000, rtol=1e-6)
    np.testing.assert_allclose(load(out / f"{stem}_M0map.nii.gz"), maps["A"], rtol=1e-6)
    np.testing.assert_allclose(load(out / f"{stem}_desc-B_T1map.nii.gz"), maps["B"], rtol=1e-6)
    np.testing.assert_allclose(load(out / f"{stem}_desc-residual_T1map.nii.gz"), maps.residual, rtol=1e-6)
    status = load(out / f"{stem}_desc-status_T1map.nii.gz")
    assert status.dtype == np.uint8
    np.testing.assert_array_equal(status, maps.status)

    meta = sidecar(written[0])
    assert meta["Units"] == "s"
    assert meta["Sources"] == [f"bids:raw:{stem}_inv-{n}_IRT1.nii.gz" for n in range(1, 5)]
    assert meta["InversionTimes"] == [0.05, 0.4, 1.1, 2.5]
    assert meta["RepetitionTimePreparation"] == 10
    assert (meta["NoiseSigma"], meta["NoiseSigmaSource"], meta["NoiseModel"]) == (2.5, "residuals", "gaussian")
    assert (meta["Estimator"], meta["EstimatorSettings"]) == ("nlls", {"tolerance": 0.5, "flips": [1, 2]})
    assert meta["SkullStripped"] is False
    assert meta["Warnings"] == ["a warning"]
    assert meta["More"] == 1
    assert meta["EstimationSoftwareVersions"]["rimap"] == rimap.__version__
    assert {"EstimationAlgorithm", "EstimationReference"} <= meta.keys()
    levels = sidecar(out / f"{stem}_desc-status_T1map.nii.gz")["Levels"]
    assert levels == {str(int(s)): s.meaning for s in Status}
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "rimap"
    assert description["DatasetLinks"] == {"raw": "../raw"}
    assert description["SourceDatasets"] == [{"URL": "../raw"}]


def test_rates_are_reciprocal_and_fill_replaces_nan(bids: Path, as_maps: Make, tmp_path: Path) -> None:
    (series,) = find_series(bids / "sub-01", sequence="t2")
    maps = as_maps(series.load())
    write_maps(maps, series, tmp_path / "out", Writing(rates=True, fill=0.0))
    anat = tmp_path / "out/sub-01/anat"
    T2, R2 = load(anat / "sub-01_T2map.nii.gz"), load(anat / "sub-01_R2map.nii.gz")
    assert T2[0, 0, 0] == R2[0, 0, 0] == 0
    assert all(np.isfinite(load(f)).all() for f in anat.glob("*.nii.gz"))
    np.testing.assert_allclose(T2[1:] * R2[1:], 1, rtol=1e-6)
    relative = load(anat / "sub-01_desc-sd_R2map.nii.gz")[1:] / R2[1:]
    np.testing.assert_allclose(relative, load(anat / "sub-01_desc-sd_T2map.nii.gz")[1:] / T2[1:], rtol=1e-5)
    assert sidecar(anat / "sub-01_R2map.nii.gz")["Units"] == "1/s"
    assert sidecar(anat / "sub-01_T2map.nii.gz")["EchoTime"][0] == 0.01


def test_t1_and_t2_of_one_subject_do_not_share_a_name_in_any_order(bids: Path, as_maps: Make, tmp_path: Path) -> None:
    def write(out: Path, sequences: tuple[str, ...]) -> dict[str, bytes]:
        for sequence in sequences:
            (s,) = find_series(bids, participant_labels=["01"], sequence=sequence)
            write_maps(as_maps(s.load()), s, out)
        return {n: (out / n).read_bytes() for n in names(out)}

    one, other = write(tmp_path / "a", ("ir", "t2")), write(tmp_path / "b", ("t2", "ir"))
    assert one == other
    assert {"sub-01/anat/sub-01_M0map.nii.gz", "sub-01/anat/sub-01_desc-MESE_M0map.nii.gz"} <= one.keys()


def test_two_estimators_stand_side_by_side(bids: Path, as_maps: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    map_all(bids, out, as_maps, "nlls")
    before = {n: (out / n).read_bytes() for n in names(out)}
    series = find_series(bids)
    check_output(series, out, estimator="mle")
    map_all(bids, out, as_maps, "mle")
    after = {n: (out / n).read_bytes() for n in names(out)}
    assert before.items() <= after.items()
    anat = "sub-01/anat/sub-01_desc-mle"
    tails = ("", "Sd", "B", "SdB", "Residual", "Status")
    assert {f"{anat}{t}_T1map.nii.gz" for t in tails} | {f"{anat}MESE_M0map.nii.gz"} <= after.keys() - before.keys()
    assert sidecar(out / f"{anat}_T1map.nii.gz")["Estimator"] == "mle"
    with pytest.raises(InputError, match=r"desc-mle_T.map\.nii\.gz already exists.*--overwrite"):
        check_output(series, out, estimator="mle")


def test_the_names_without_desc_belong_to_one_estimator_in_the_whole_folder(
    bids: Path, as_maps: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    one, *_ = find_series(bids, participant_labels=["02"])
    write_maps(as_maps(one.load(), "nlls"), one, out)
    (other,) = find_series(bids, participant_labels=["01"], sequence="ir")
    written = write_maps(as_maps(other.load(), "mle"), other, out)
    assert written[0].name == "sub-01_desc-mle_T1map.nii.gz"


def test_an_earlier_result_is_replaced_only_on_request_and_then_whole(
    bids: Path, as_maps: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (series,) = find_series(bids / "sub-01", sequence="t2")
    maps = as_maps(series.load())
    write_maps(maps, series, out, Writing(rates=True))
    before = {n: (out / n).read_bytes() for n in names(out)}
    with pytest.raises(InputError, match="--overwrite"):
        check_output([series], out, estimator="nlls")
    with pytest.raises(InputError, match="--overwrite"):
        write_maps(maps, series, out)
    assert {n: (out / n).read_bytes() for n in names(out)} == before
    write_maps(replace(maps, kappa=maps.kappa * 2), series, out, overwrite=True)
    after = names(out)
    assert after == {n for n in before if "R2map" not in n}  # an R2map of the earlier result would contradict
    np.testing.assert_allclose(load(out / "sub-01/anat/sub-01_T2map.nii.gz"), maps["T2"] / 500, rtol=1e-6)


def test_what_is_planned_is_what_is_written(bids: Path, as_maps: Make, tmp_path: Path) -> None:
    found = find_series(bids, participant_labels=["01"])
    assert found
    for series in found:
        planned = planned_outputs(series, tmp_path / "out", estimator="nlls")
        images = series.load()
        every = Region.found(foreground(images.images))
        written = write_maps(as_maps(images), series, tmp_path / "out", Writing(rates=True, described=every))
        assert set(written) == set(planned)


class TestWhere:
    def test_not_into_the_input(self, bids: Path) -> None:
        with pytest.raises(InputError, match="input data set itself"):
            check_output(find_series(bids), bids, estimator="nlls")

    def test_not_into_the_data_set_of_others(self, bids: Path, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other/dataset_description.json").write_text('{"Name": "fMRIPrep"}')
        with pytest.raises(InputError, match="did not make"):
            check_output(find_series(bids), tmp_path / "other", estimator="nlls")

    def test_not_into_a_file(self, bids: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for out in (tmp_path / "file", tmp_path / "file" / "out"):
            with pytest.raises(InputError, match=r"file: expected a folder, got a file"):
                check_output(find_series(bids), out, estimator="nlls")

    def test_not_two_series_under_one_name(self, tmp_path: Path, build: SimpleNamespace) -> None:
        stacked = np.moveaxis(build.recovery(), 0, -1)
        files = [build.save(tmp_path / d / "ir.nii.gz", stacked) for d in "ab"]
        with pytest.raises(InputError, match=r"both be written as ir_T1map"):
            check_output(find_series(files, sequence="ir"), tmp_path / "out", estimator="nlls")

    def test_checking_writes_nothing(self, bids: Path, tmp_path: Path) -> None:
        check_output(find_series(bids), tmp_path / "out", estimator="nlls")
        assert not (tmp_path / "out").exists()

    def test_another_input_is_added_to_the_links(
        self, bids: Path, tmp_path: Path, build: SimpleNamespace, as_maps: Make
    ) -> None:
        more = build.irt1(tmp_path / "more raw", "sub-77/anat/sub-77")
        map_all(bids, tmp_path / "out", as_maps)
        written = map_all(more, tmp_path / "out", as_maps)
        description = json.loads((tmp_path / "out/dataset_description.json").read_text())
        assert description["DatasetLinks"] == {"raw": "../raw", "raw2": "../more%20raw"}
        assert sidecar(written[0])["Sources"][0] == "bids:raw2:sub-77/anat/sub-77_inv-1_IRT1.nii.gz"


class TestLoose:
    def test_names_and_units(self, tmp_path: Path, build: SimpleNamespace, as_maps: Make) -> None:
        path = build.save(tmp_path / "in" / "my.scan.nii.gz", np.moveaxis(build.recovery(), 0, -1))
        (series,) = find_series(path, sequence="ir")
        maps = as_maps(series.load(Reading(times_ms=build.TI)))
        for estimator in ("nlls", "mle"):
            write_maps(replace(maps, estimator=estimator), series, tmp_path / "out", sequence="ir")
        found = names(tmp_path / "out")
        wanted = {"my.scan_T1map.nii.gz", "my.scan_M0map.json", "my.scan_desc-B_T1map.nii.gz"}
        assert wanted | {"my.scan_desc-mle_T1map.nii.gz", "my.scan_desc-mleSd_T1map.nii.gz"} <= found
        assert not any("dataset_description" in n for n in found)
        meta = sidecar(tmp_path / "out/my.scan_T1map.nii.gz")
        assert (meta["Units"], meta["Sources"]) == ("s", ["../in/my.scan.nii.gz"])
        np.testing.assert_allclose(load(tmp_path / "out/my.scan_T1map.nii.gz"), maps["T1"] / 1000, rtol=1e-6)

    def test_maps_of_another_shape_are_refused(self, tmp_path: Path, build: SimpleNamespace, as_maps: Make) -> None:
        path = build.save(tmp_path / "ir.nii.gz", np.moveaxis(build.recovery(), 0, -1))
        (series,) = find_series(path, sequence="ir")
        maps = as_maps(rimap.WeightedSeries(build.recovery((3, 3, 3)), rimap.InversionRecovery(tau=build.TI)))
        with pytest.raises(InputError, match=r"got \(3, 3, 3\)"):
            write_maps(maps, series, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_json_has_no_nan(bids: Path, as_maps: Make, tmp_path: Path) -> None:
    (series,) = find_series(bids / "sub-01", sequence="t2")
    sigma = np.full((4, 5, 2), 3.0)
    sigma[0] = np.nan
    maps = replace(as_maps(series.load()), noise=rimap.Gaussian(sigma=sigma), settings={"limit": np.inf})
    meta = sidecar(write_maps(maps, series, tmp_path / "out", Writing(extra_metadata={"x": np.array([np.nan, 1])}))[0])
    assert (meta["NoiseSigma"], meta["EstimatorSettings"], meta["x"]) == (3.0, {"limit": "inf"}, [None, 1.0])


def test_the_same_maps_give_the_same_bytes(bids: Path, as_maps: Make, tmp_path: Path) -> None:
    (series,) = find_series(bids / "sub-01", sequence="t2")
    maps = as_maps(series.load())
    a, b = (write_maps(maps, series, tmp_path / d)[0].read_bytes() for d in "ab")
    assert a == b


def test_series_files_of_one_series_hold_what_their_names_say(bids: Path) -> None:
    series: SeriesFiles = find_series(bids, participant_labels=["02"])[0]
    assert series.entities == {"sub": "02", "ses": "a", "run": "1"}
    assert (series.suffix, series.stem, series.label) == ("IRT1", "sub-02_ses-a_run-1", "sub-02 ses-a run-1 IRT1")
    assert read(series.images[0]).source == series.label
