"""`rimap.write`: maps in memory become the files that `rimap map` writes, and are read back as they were."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap import InputError
from rimap.io.results import find_results

AFFINE = np.array([[-2.0, 0, 0.1, 30], [0, 2.0, 0, -40], [0.05, 0, 3.0, 5], [0, 0, 0, 1]])
TAU = (50.0, 400.0, 1100.0, 2500.0)


def maps_of(shape: tuple[int, ...] = (6, 5, 2), affine: np.ndarray | None = AFFINE, model=None) -> rimap.ParameterMaps:
    model = model or rimap.InversionRecovery(tau=TAU, tr=6000.0)
    maps = {"A": 100.0, "B": 1.9, "B1": 1.0, "T1star": 700.0, "T2star": 40.0}
    kappa = np.stack([np.full(shape, maps.get(p.name, 900.0)) for p in model.parameters])
    images = model.signal(kappa) + np.random.default_rng(0).standard_normal((model.n_images, *shape))
    images = abs(images) if model.magnitude else images
    return rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, model, rimap.Gaussian(1.0), affine=affine))


def test_loose_files_are_read_back(tmp_path: Path) -> None:
    maps = maps_of()
    written = rimap.write(maps, tmp_path / "out", name="phantom")
    assert written[0].name == "phantom_T1map.nii.gz" and {p.parent for p in written} == {tmp_path / "out"}
    assert "phantom_desc-sd_T1map.nii.gz" in [p.name for p in written]
    image = nib.load(written[0])
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"
    (found,) = find_results(tmp_path / "out")
    back = found.load()
    assert back.model == maps.model and back.estimator == "nlls" and back.noise is not None and back.noise.sigma == 1
    np.testing.assert_allclose(back.kappa, maps.kappa, rtol=1e-6)
    np.testing.assert_allclose(back.sd_kappa, maps.sd_kappa, rtol=1e-6)
    np.testing.assert_array_equal(back.status, maps.status)
    about = json.loads((tmp_path / "out" / "phantom_T1map.json").read_text())
    assert about["Units"] == "s" and about["InversionTimes"] == [t / 1000 for t in TAU]


def test_a_bids_data_set_is_read_back(tmp_path: Path) -> None:
    written = rimap.write(maps_of(), tmp_path, format="bids", name="sub-01_ses-2")
    assert written[0] == tmp_path / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_T1map.nii.gz"
    about = json.loads((tmp_path / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative" and about["GeneratedBy"][0]["Name"] == "rimap"
    assert "." not in about["DatasetLinks"].values()
    rimap.write(maps_of(), tmp_path, format="bids", name="sub-02")
    assert len(find_results(tmp_path)) == 2


def phantom(n: int = 24) -> rimap.WeightedSeries:
    """Return a disc in air."""
    rng, model = np.random.default_rng(1), rimap.T2Decay(tau=(10.0, 30.0, 60.0, 120.0))
    y, x = np.mgrid[:n, :n, :1][:2]
    inside = (y - n / 2) ** 2 + (x - n / 2) ** 2 < (n / 4) ** 2
    f = np.asarray(model.signal(np.stack([np.where(inside, 100.0, 0.0), np.full(inside.shape, 60.0)])))
    noise = rng.standard_normal((2, *f.shape))
    return rimap.WeightedSeries(np.hypot(f + noise[0], noise[1]).astype(np.float32), model, affine=AFFINE)


def test_it_writes_what_rimap_map_writes(tmp_path: Path) -> None:
    series = phantom()
    image = nib.Nifti1Image(np.moveaxis(series.images, 0, -1), AFFINE)
    nib.save(image, tmp_path / "disc.nii.gz")
    request = rimap.Request(
        inputs=[tmp_path / "disc.nii.gz"],
        out=tmp_path / "map",
        sequence="t2",
        times_ms=series.model.times.tolist(),
        estimator="nlls",
        rates=True,
    )
    rimap.map_series(request)
    read = rimap.read(tmp_path / "disc.nii.gz", sequence="t2", times_ms=series.model.times)
    rimap.write(rimap.NLLS().estimate(read), tmp_path / "written", name="disc", rates=True, series=read)
    mapped = {p.name: p for p in (tmp_path / "map").glob("*.nii.gz")}
    written = {p.name: p for p in (tmp_path / "written").glob("*.nii.gz")}
    assert mapped.keys() == written.keys() and "disc_desc-signal_mask.nii.gz" in written
    for name, path in written.items():
        np.testing.assert_array_equal(nib.load(path).get_fdata(), nib.load(mapped[name]).get_fdata(), err_msg=name)
        mine, theirs = (
            json.loads(p.with_name(name.replace(".nii.gz", ".json")).read_text()) for p in (path, mapped[name])
        )
        assert {k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)} <= {"Sources"}, name


def test_without_the_images_the_mask_follows_from_what_the_maps_predict(tmp_path: Path) -> None:
    series = phantom()
    maps = rimap.NLLS().estimate(series)
    rimap.write(maps, tmp_path, name="disc")
    found = nib.load(tmp_path / "disc_desc-signal_mask.nii.gz").get_fdata() > 0
    np.testing.assert_array_equal(found, series.described.inside)
    assert "that the maps predict" in json.loads((tmp_path / "disc_desc-signal_mask.json").read_text())["HowFound"]
    with pytest.raises(InputError, match=r"series: expected the shape of the maps, \(24, 24, 1\)"):
        rimap.write(maps, tmp_path / "other", series=phantom(20))


def test_derived_maps_and_their_standard_deviations_are_read_back(tmp_path: Path) -> None:
    ti = (50, 200, 400, 800, 1500, 2500, 4000)
    model = rimap.signals.signal_models()["look-locker"](ti=ti)  # type: ignore[attr-defined]
    maps = maps_of(model=model)
    assert np.isfinite(maps.sd["T1"]).mean() > 0.9
    written = rimap.write(maps, tmp_path, name="cine")
    assert written[0].name == "cine_T1map.nii.gz"
    (found,) = find_results(tmp_path)
    back = found.load()
    np.testing.assert_allclose(back["T1"], maps["T1"], rtol=1e-5)
    np.testing.assert_allclose(back.sd["T1"], maps.sd["T1"], rtol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (7, 3), (4, 3, 2)])
def test_any_shape_with_or_without_an_affine(tmp_path: Path, shape: tuple[int, ...]) -> None:
    written = rimap.write(maps_of(shape, None), tmp_path)
    image = nib.load(written[0])
    assert image.shape == (shape if len(shape) > 1 else (*shape, 1))
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 0  # the position is not known


def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    maps = maps_of()
    for wrong, message in (
        ({"format": "dicom"}, "expected nifti or bids, got 'dicom'"),
        ({"name": "../x"}, "name: expected letters"),
        ({"format": "bids"}, "expected BIDS entities"),
        ({"format": "bids", "name": "01"}, "expected BIDS entities"),
    ):
        with pytest.raises(InputError, match=message):
            rimap.write(maps, tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    rimap.write(maps, tmp_path, name="a")
    with pytest.raises(InputError, match="already exists"):
        rimap.write(maps, tmp_path, name="a")
    rimap.write(maps, tmp_path, name="a", overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    with pytest.raises(InputError, match="did not make"):
        rimap.write(maps, other, format="bids", name="sub-01")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a folder, got a file"):
        rimap.write(maps, tmp_path / "file")


class InAnotherUnit(rimap.T2Decay):
    """T2 decay whose time is in another unit than milliseconds."""

    unit_in_ms = 1.0

    def shape(self, T2):
        return super().shape(T2 * self.unit_in_ms)

    shape_partials = rimap.SignalModel.shape_partials


@pytest.mark.parametrize(
    ("unit", "unit_in_ms", "has_a_rate"), [("ms", 1.0, True), ("s", 1e3, True), ("Hz", 1.0, False)]
)
def test_rates_are_in_one_per_second_whatever_the_unit_of_the_time(
    tmp_path: Path, unit, unit_in_ms, has_a_rate
) -> None:
    amplitude, time = rimap.T2Decay.parameters
    low, high = time.bounds
    changed = {"unit": unit, "bounds": (low / unit_in_ms, high / unit_in_ms), "start": time.start / unit_in_ms}
    parameters = (amplitude, dataclasses.replace(time, **changed))
    cls = type("InAnother", (InAnotherUnit,), {"name": "other", "parameters": parameters, "unit_in_ms": unit_in_ms})
    model = cls(tau=[10.0, 20.0, 40.0, 80.0])
    images = model.signal(np.stack([np.full((8, 8), 100.0), np.full((8, 8), 50.0 / unit_in_ms)]))
    images = images + np.random.default_rng(0).standard_normal(images.shape)
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, model, rimap.Gaussian(1.0)))
    rimap.write(maps, tmp_path, name="x", rates=True)
    paths = [tmp_path / f"x_{name}R2map.nii.gz" for name in ("", "desc-sd_")]
    assert [path.exists() for path in paths] == [has_a_rate] * 2
    if has_a_rate:
        rate, sd = (nib.load(path).get_fdata() for path in paths)
        assert np.median(rate) == pytest.approx(20.0, rel=0.05)  # 1 / 50 ms
        assert np.median(sd / rate) == pytest.approx(float(np.median(maps.sd["T2"] / maps["T2"])), rel=1e-3)


def test_maps_of_a_long_list_of_voxels_are_written(tmp_path: Path) -> None:
    """NIfTI-1 has at most 32,767 voxels along an axis."""
    model = rimap.T2Decay(tau=(10, 20, 40, 80))
    kappa = np.stack([np.full(33_000, 100.0), np.linspace(20, 90, 33_000)])
    status = np.zeros(33_000, np.uint8)
    (path, *_) = rimap.write(rimap.ParameterMaps(kappa=kappa, model=model, status=status, estimator="nlls"), tmp_path)
    np.testing.assert_allclose(nib.load(path).get_fdata()[:, 0], kappa[1] / 1000, rtol=1e-6)
