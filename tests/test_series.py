"""What goes in and what comes out."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from rimap import (
    Gaussian,
    InputError,
    InversionRecovery,
    ParameterMaps,
    Rician,
    Status,
    T2Decay,
    VariableFlipAngle,
    WeightedSeries,
)

MODEL = T2Decay(tau=[10, 20, 40])
IMAGES = np.arange(1.0, 61.0).reshape(3, 4, 5)


def test_integers_become_floats_and_foreign_bytes_native() -> None:
    assert WeightedSeries(images=IMAGES.astype(np.int16), model=MODEL).images.dtype == np.float32
    assert WeightedSeries(images=IMAGES.astype(np.int32), model=MODEL).images.dtype == np.float64
    assert WeightedSeries(images=IMAGES.astype(">f4"), model=MODEL).images.dtype == np.dtype("=f4")


def test_the_mask_selects() -> None:
    mask = np.zeros((4, 5))
    mask[1, 2], mask[0, 0] = 3, np.nan
    series = WeightedSeries(images=IMAGES, model=MODEL, mask=mask)
    assert series.shape == (4, 5) and series.selected.sum() == 1 and series.selected[1, 2]
    assert WeightedSeries(images=IMAGES, model=MODEL).selected.all()


def test_the_voxel_size_comes_from_the_affine() -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    assert WeightedSeries(images=IMAGES, model=MODEL, affine=affine).voxel_size == (2.0, 3.0)
    assert WeightedSeries(images=IMAGES, model=MODEL).voxel_size == (1.0, 1.0)


def test_images_can_be_left_out() -> None:
    part = WeightedSeries(images=IMAGES, model=MODEL).subset([2, 1])
    assert part.model.tau == (40.0, 20.0)
    np.testing.assert_array_equal(part.images, IMAGES[[2, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES[:2]}, "expected 3 images"),
        ({"images": IMAGES[0, 0]}, "expected 3 images"),
        ({"images": IMAGES + 1j}, "real numbers"),
        ({"images": IMAGES[:, :0]}, "no voxel"),
        ({"images": np.full_like(IMAGES, np.nan)}, "NaN"),
        ({"images": np.zeros_like(IMAGES)}, "zero"),
        ({"mask": np.ones((5, 4))}, "mask: expected the shape of the images"),
        ({"mask": np.zeros((4, 5))}, "got an empty one"),
        ({"mask": np.full((4, 5), 0.3)}, "values of 0.5 or more, because it contains fractions, got none"),
        ({"affine": np.eye(3)}, "affine: expected a matrix"),
        ({"noise": Gaussian(sigma=np.ones((2, 2)))}, "map of sigma"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeightedSeries(**{"images": IMAGES, "model": MODEL, **change})


def test_rician_noise_is_refused_for_signed_images() -> None:
    signed = InversionRecovery(tau=[10, 20, 40], signed=True)
    with pytest.raises(InputError, match="signed"):
        WeightedSeries(images=IMAGES, model=signed, noise=Rician(sigma=1.0))


def test_maps_are_read_by_name() -> None:
    kappa = np.stack([np.ones((4, 5)), np.full((4, 5), 50.0)])
    status = np.zeros((4, 5), np.uint8)
    status[0, 0] = Status.NO_SIGNAL
    maps = ParameterMaps(kappa=kappa, model=MODEL, status=status, settings={"a": 1})
    assert list(maps) == ["A", "T2"] and len(maps) == 2 and maps["T2"][1, 1] == 50
    assert np.isnan(maps.sd["T2"]).all()
    assert maps.count() == {Status.OK: 19, Status.NO_SIGNAL: 1}
    with pytest.raises(KeyError, match="T2 decay has A, T2"):
        maps["T1"]
    assert all(s.meaning for s in Status)


AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def test_what_a_masked_array_hides_has_no_value() -> None:
    images = np.ma.masked_greater(np.arange(1.0, 41).reshape(4, 10), 35)
    series = WeightedSeries(images, InversionRecovery(tau=[50, 400, 1100, 2500]))
    assert np.isnan(series.images[3, 5:]).all() and np.isfinite(series.images[:3]).all()
    whole = np.ma.masked_equal(np.arange(1, 41).reshape(4, 10), 40)
    assert np.isnan(WeightedSeries(whole, InversionRecovery(tau=[50, 400, 1100, 2500])).images[3, 9])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": InversionRecovery}, "model: expected an object such as .* got the class InversionRecovery"),
        ({"model": "ir"}, "model: expected an object such as .* got 'ir'"),
        ({"noise": "rician"}, "noise: expected an object such as rimap.Rician.., got 'rician'"),
        ({"affine": np.zeros((4, 4))}, "affine: expected a matrix that can be inverted"),
        ({"affine": np.full((4, 4), np.nan)}, "affine: expected a matrix that can be inverted"),
        ({"affine": np.eye(3)}, "affine: expected a matrix of 4×4, got the shape"),
    ],
)
def test_objects_of_another_kind_are_refused_with_a_sentence(options: dict, message: str) -> None:
    known = {"model": InversionRecovery(tau=[50, 400, 1100, 2500])} | options
    with pytest.raises(InputError, match=message):
        WeightedSeries(np.ones((4, 3, 3)), known.pop("model"), **known)


def test_the_affine_of_a_nibabel_image_is_in_mm_and_none_if_its_header_has_none() -> None:
    model = InversionRecovery(tau=[50, 400, 1100, 2500])
    values = np.random.default_rng(0).random((3, 3, 3, 4))
    image = nib.Nifti1Image(values, AFFINE)
    assert WeightedSeries(image, model).voxel_size == (2.0, 2.0, 3.0)
    in_metres = nib.Nifti1Image(values, np.diag([0.002, 0.002, 0.003, 1.0]))
    in_metres.header.set_xyzt_units(1)
    np.testing.assert_allclose(WeightedSeries(in_metres, model).affine, AFFINE)
    image.header["qform_code"] = image.header["sform_code"] = 0
    assert WeightedSeries(image, model).affine is None
    assert WeightedSeries(nib.Nifti1Image(values, None), model).affine is None
    assert WeightedSeries([nib.Nifti1Image(v, AFFINE) for v in np.moveaxis(values, -1, 0)], model).affine is not None


def test_images_that_are_kept_are_chosen_by_index_or_by_truth_value() -> None:
    series = WeightedSeries(images=IMAGES, model=MODEL)
    for keep in ([0, 2], np.array([True, False, True]), [True, False, True]):
        part = series.subset(keep)
        assert part.model.times.tolist() == [10, 40]
        np.testing.assert_array_equal(part.images, IMAGES[[0, 2]])
    for keep in ([0, 1.5], [0, 3], [True, False], "01"):
        with pytest.raises(InputError, match="expected indices of 3 images, or one truth value"):
            series.subset(keep)


@pytest.mark.parametrize(
    "options",
    [
        {"mask": np.full((4, 5), "a")},
        {"affine": "nii"},
        {"given": {"B1": "TB1map.nii.gz"}},
        {"given": {"B1": np.full((4, 5), 0.9 + 0.1j)}},
        {"given": {"B1": 0.9 + 0.1j}},
    ],
)
def test_what_is_no_real_number_is_refused(options: dict) -> None:
    model = VariableFlipAngle(flip_angle=(3, 10, 20), tr=15)
    with pytest.raises(InputError, match="expected real numbers, got"):
        WeightedSeries(images=IMAGES, model=model, **options)


def test_more_than_three_spatial_axes_are_refused() -> None:
    with pytest.raises(InputError, match="at most three spatial axes"):
        WeightedSeries(images=np.ones((3, 4, 5, 2, 2)), model=MODEL)


def test_a_part_of_a_map_of_a_field_may_have_no_value() -> None:
    field = np.array([[np.nan] * 5, [0.9] * 5, [0.0] * 5, [1.1] * 5])
    model = VariableFlipAngle(flip_angle=(3, 10, 20), tr=15)
    series = WeightedSeries(images=IMAGES, model=model, given={"B1": field})
    part = WeightedSeries(images=IMAGES[:, :1], model=model, given={"B1": series.given["B1"][:1]})
    assert np.isnan(part.given["B1"]).all()
    with pytest.raises(InputError, match="median of 0"):
        WeightedSeries(images=IMAGES, model=model, given={"B1": np.zeros((4, 5))})
