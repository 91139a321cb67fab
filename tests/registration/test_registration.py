"""Images that were moved by known amounts are detected, named and realigned; all others stay as they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

import rimap
from rimap.estimators.nlls.estimator import least_squares
from rimap.registration import Motion, align, find_motion, motion_metadata, motion_warnings, moved
from rimap.registration.edge_correlation import rough_shifts
from rimap.registration.rigid_transforms import matrices_of, vectors_of
from rimap.registration.smoothing import smoothed
from rimap.simulation.anatomies import digital_brain
from rimap.workflow.read_series import read

TI = (50, 150, 400, 900, 1800, 4000)
T1 = np.array([500, 4000, 1400, 850, 350, 1100, 900, 400, 1500, 400, 900, 400.0])  # by label
PD = np.array([0, 1, 0.82, 0.68, 0.9, 0.7, 0.6, 0.1, 0.8, 0.8, 0.5, 0.6])
VOXEL = np.array([2.0, 1.5, 4.0])
#: In-plane shifts (mm) and angles (degrees) of the six images: the median is not moved.
SHIFTS = np.array([[0, 0], [1.2, -0.8], [0, 0], [-3, 2.5], [0, 0], [0, -6]], dtype=float)
ANGLES = np.array([0, 0, 0, 2.5, 0, -1.0])


def brain(*, signed: bool = False, slices: slice = slice(20, 21), snr: float = 40, seed: int = 0) -> Any:
    labels = digital_brain((96, 108, 48))[:, :, slices]
    x = np.indices(labels.shape) / np.array(labels.shape).reshape(3, 1, 1, 1)
    kappa = np.stack([900 * PD[labels] * (0.8 + 0.4 * x[0]), 1.85 + 0.2 * x[1], T1[labels]])
    model = rimap.InversionRecovery(tau=TI, tr=9000, signed=signed)
    return with_noise(rimap.WeightedSeries(model.signal(kappa), model, affine=np.diag([*VOXEL, 1])), snr, seed)


def with_noise(series: Any, snr: float, seed: int = 0) -> Any:
    noise = np.random.default_rng(seed).normal(0, 900 / snr, (2, *series.images.shape))
    images = series.images + noise[0]
    return replace(series, images=images if series.model.is_signed else np.hypot(images, noise[1]))


def known(series: Any, shifts: Any = SHIFTS, angles: Any = ANGLES) -> Motion:
    """The motion that takes each image from where it should be to where `disturbed` puts it."""
    N = len(series.images)
    motion = Motion.none(N, (np.array(series.shape) - 1) / 2 * VOXEL, 1.7)
    vectors = np.c_[np.zeros((N, 2)), np.radians(angles)]
    shifts = np.c_[shifts, np.zeros(N)] if shifts.shape[1] == 2 else shifts
    return replace(motion, translation=shifts, rotation=Rotation.from_rotvec(vectors).as_matrix())


def disturbed(series: Any, motion: Motion) -> Any:
    """Apply it: what `moved` fetches from x + shift ends up at x, so the images must be moved back by as much."""
    images = moved(series.images, motion, VOXEL, order=3)
    return replace(series, images=images if series.model.is_signed else np.abs(images))


def error(found: Motion, applied: Motion) -> Any:
    """Root mean square distance (mm) from the place where each image lies to the median of all, after both."""
    x = np.random.default_rng(0).uniform(-60, 60, (100, 3)) * [1, 1, 0] + found.centre
    ends = np.stack([applied.where(n, found.where(n, x)) for n in range(len(found.shift))])
    return np.sqrt(((ends - np.median(ends, axis=0)) ** 2).sum(-1).mean(-1))


@pytest.mark.parametrize("signed", [True, False])
def test_known_shifts_and_rotations_are_found(signed: bool) -> None:
    applied = known(series := brain(signed=signed, snr=40))
    series = disturbed(series, applied)
    assert error(find_motion(series, threads=1), applied).max() < 0.6  # mm; a voxel is 2 × 1.5
    motion = find_motion(series, precise=True, threads=1)
    assert error(motion, applied).max() < 0.25
    (text,) = motion_warnings(series, motion)
    assert "3 of 6 images are misaligned" in text
    assert "image 2 (TI 150 ms) by 1." in text
    assert "image 4 (TI 900 ms) by 4." in text and "turned by 2.5°" in text
    assert "image 6 (TI 4000 ms)" in text and "--register" in text


def other(name: str, snr: float = 100) -> Any:
    """A slice of the brain as another sequence sees it, with a B1 map where the model takes one."""
    labels = digital_brain((96, 108, 48))[:, :, 20:21]
    x = np.indices(labels.shape) / np.array(labels.shape).reshape(3, 1, 1, 1)
    A, B1 = 900 * PD[labels], 0.85 + 0.3 * x[1]
    T2star = 0.05 * T1[labels]
    if name == "vfa":
        model: Any = rimap.signals.signal_models()[name](flip_angle=[2, 4, 8, 12, 18, 25], tr=15)
        kappa, given = np.stack([12 * A, B1, T1[labels]]), {"B1": B1}
    else:
        model = rimap.signals.signal_models()[name](te=[3, 8, 15, 25, 40, 60])
        kappa, given = np.stack([A, T2star, 0.1 * A])[: len(model.parameters)], {}
    return with_noise(rimap.WeightedSeries(model.signal(kappa), model, affine=np.diag([*VOXEL, 1]), given=given), snr)


@pytest.mark.parametrize("name", ["vfa", "megre", "megre-offset"])
def test_every_model_aligns_with_given_maps_and_several_amplitudes(name: str) -> None:
    series = other(name)
    applied = known(series)
    moved_series = disturbed(series, applied)
    motion = find_motion(moved_series, precise=True, threads=1)
    assert error(motion, applied).max() < 0.6  # mm; a voxel is 2 × 1.5
    (text,) = motion_warnings(moved_series, motion)
    axis = series.model.axis
    assert re.search(rf"image 4 \({re.escape(axis.text(series.model.times[3]))}\) by [34]\.", text)
    images = motion_metadata(moved_series, motion)["Registration"]["Images"]
    assert [i[axis.bids[0]] for i in images] == pytest.approx([v / axis.factor for v in series.model.times])
    assert motion_warnings(series, find_motion(series, threads=1)) == ()


def test_as_many_parameters_as_images_tell_no_motion() -> None:
    series = other("vfa").subset([1, 4])
    assert find_motion(series, threads=1) is None


@pytest.mark.parametrize("snr", [200, 20, 5, 2, 1])
@pytest.mark.parametrize("signed", [True, False])
def test_no_alarm_where_nothing_moved(snr: float, signed: bool) -> None:
    for seed in range(2):
        series = brain(signed=signed, snr=snr, seed=seed)
        motion = find_motion(series, threads=1)
        assert motion_warnings(series, motion) == ()
        assert motion.shift.max() < 0.35 * motion.voxel
    assert motion_warnings(series, None) == ()


def test_maps_of_aligned_images_are_those_of_images_in_register() -> None:
    series = brain(snr=60)
    truth = least_squares(series, threads=1).kappa[-1]
    moved_series = disturbed(series, known(series))
    motion = find_motion(moved_series, precise=True, threads=1)
    aligned = align(moved_series, motion)
    inside = (series.images.mean(axis=0) > 100) & np.isfinite(aligned.images).all(axis=0)
    wrong, right = (np.nanmedian(np.abs(least_squares(s, threads=1).kappa[-1] / truth - 1)[inside])
                    for s in (moved_series, aligned))  # fmt: skip
    assert right < 0.04 < 0.08 < wrong
    # what lay in place is not touched, what moved is interpolated once and never negative
    np.testing.assert_array_equal(aligned.images[0], moved_series.images[0])
    assert np.nanmin(aligned.images) >= 0
    assert aligned.images.dtype == moved_series.images.dtype
    assert "--register aligned the images: image 2" in aligned.notes[-1]
    # where an image does not reach, it has no value
    assert np.isnan(aligned.images[5]).any() and not np.isnan(aligned.images[0]).any()
    assert motion_warnings(aligned, find_motion(aligned, threads=1)) == ()


def test_nothing_is_resampled_where_nothing_moved() -> None:
    series = brain(snr=30)
    aligned = align(series, find_motion(series, precise=True, threads=1))
    np.testing.assert_array_equal(aligned.images, series.images)
    assert "no image was moved" in aligned.notes[-1]


def test_volumes_move_in_three_dimensions() -> None:
    series = brain(slices=slice(16, 32), snr=60)
    series = replace(series, images=series.images[:, ::2, ::2])
    shifts = np.array([[0, 0, 0], [0, 0, 0], [1.5, 0, 5], [0, 0, 0], [0, 3, -3], [0, 0, 0]], dtype=float)
    applied = known(series, shifts, np.zeros(6))
    motion = find_motion(disturbed(series, applied), threads=1)
    assert error(motion, applied).max() < 1.2
    np.testing.assert_allclose(motion.shift, np.linalg.norm(shifts, axis=1), atol=1.2)


def test_the_matrix_takes_a_point_of_the_maps_to_the_image() -> None:
    """In world coordinates: a tilted affine, a shift of a voxel along the first axis."""
    turn = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * VOXEL, [-80, 20, 5]
    series = replace(brain(snr=100), affine=affine)
    shifts = np.zeros((6, 3))
    shifts[3, 0] = 2 * VOXEL[0]
    applied = known(series, shifts, np.zeros(6))
    motion = find_motion(disturbed(series, applied), precise=True, threads=1)
    listed = motion_metadata(series, motion)["Registration"]["Images"]
    assert [i["Resampled"] for i in listed] == [False, False, False, True, False, False]
    assert listed[3]["InversionTime"] == 0.9
    # `disturbed` shows at x what lay at x + shift: in the image it now lies at x − shift
    np.testing.assert_allclose(np.array(listed[3]["Matrix"])[:3, 3], -turn @ shifts[3], atol=0.15)
    assert listed[3]["ShiftMillimetres"] == pytest.approx(4, abs=0.15)
    assert listed[0]["Matrix"] == np.eye(4).tolist()


def test_what_cannot_be_told_is_not() -> None:
    line = brain().images[:, :, 50, 0]
    model = rimap.InversionRecovery(tau=TI)
    assert find_motion(rimap.WeightedSeries(line, model)) is None  # one axis
    assert find_motion(rimap.WeightedSeries(np.ones((6, 4, 4)), model)) is None  # too small
    two = rimap.WeightedSeries(np.ones((2, 20, 20)), rimap.T2Decay(tau=(10, 50)))
    assert find_motion(two) is None  # two images, two unknowns
    empty = np.zeros((6, 20, 20))
    empty[:, 3, 3] = 1
    assert find_motion(rimap.WeightedSeries(empty, model)) is None  # nothing there
    holes = brain().images
    holes[:, ::7, ::5] = np.nan
    series = replace(brain(), images=holes)
    assert motion_warnings(series, find_motion(series, threads=1)) == ()


def test_edges_give_large_shifts_whatever_the_contrast() -> None:
    series = brain(snr=20)
    images = series.images.copy()
    images[1], images[4] = np.roll(images[1], (14, -9), (0, 1)), np.roll(images[4], 11, 1)
    found = rough_shifts(images, (0, 1))
    np.testing.assert_allclose(found - found[0], [[0] * 3, [14, -9, 0], [0] * 3, [0] * 3, [0, 11, 0], [0] * 3], atol=1)


@pytest.mark.parametrize("sequence", ["ir", "t2"])
def test_a_head_in_vivo(shared_data: Path, sequence: str) -> None:
    series = read(shared_data / "brain_in_vivo", sequence=sequence)
    assert motion_warnings(series, find_motion(series, threads=1)) == ()
    images = series.images.copy()
    images[3] = np.roll(images[3], 2, axis=1)
    series = replace(series, images=images)
    (text,) = motion_warnings(series, find_motion(series, threads=1))
    assert text.startswith("An image is misaligned: image 4 (")
    assert align(series, find_motion(series, precise=True, threads=1)).images.shape == series.images.shape
    assert find_motion(series, precise=True, threads=1).shift[3] == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize(
    ("subject", "snrs"),
    [
        ("philips3TplateT1/anat/*IRT1*", (None, 20, 3)),
        ("philips3TplateT2/anat/*MESE*", (20,)),  # each takes as long as all others together
        ("siemens1p5TplateT1/anat/*IRT1*", (None, 20, 3)),
    ],
)
def test_a_phantom_lies_still(shared_data: Path, subject: str, snrs: tuple[int | None, ...]) -> None:
    series = read(sorted((shared_data / "nist_phantom").glob(f"sub-{subject}.nii.gz")))
    series = series.subset(np.arange(0, series.model.n_images, -(-series.model.n_images // 8)))  # of many echoes, some
    for snr in snrs:
        noisy = series
        if snr:
            noise = np.random.default_rng(snr).normal(
                0, np.quantile(series.images, 0.98) / snr, (2, *series.images.shape)
            )
            noisy = replace(series, images=np.hypot(series.images + noise[0], noise[1]))
        assert motion_warnings(noisy, find_motion(noisy, threads=1)) == ()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e12])
def test_the_unit_of_the_images_does_not_matter(scale: float) -> None:
    series = disturbed(brain(snr=40), known(brain()))
    found = find_motion(series, threads=1)
    scaled = find_motion(replace(series, images=series.images * scale), threads=1)
    np.testing.assert_allclose(scaled.shift, found.shift, atol=0.05)


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
def test_images_without_an_object_say_nothing(value: float) -> None:
    images = np.full((6, 20, 30), value)
    images[:, 0, 0] = 1.0
    series = rimap.WeightedSeries(images, rimap.InversionRecovery(tau=TI))
    assert motion_warnings(series, find_motion(series)) == ()


def test_rotations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(200, 3)) * rng.choice([0.0, 1e-9, 1e-3, 0.3, 1.7], size=(200, 1))
    vectors *= np.minimum(1, 3.1 / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30))
    matrices = matrices_of(vectors)
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-15)
    np.testing.assert_allclose(vectors_of(matrices), vectors, atol=1e-14)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("mode", ["reflect", "nearest"])
def test_smoothing_is_that_of_scipy(kind: type[np.floating], mode: str) -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(size=(30, 21, 3)).astype(kind)
    for widths in ((1.0, 1.0, 0.0), (6.0, 0.8, 2.0)):
        expected = ndimage.gaussian_filter(image, widths, mode=mode)
        found = smoothed(image, widths, mirrored=mode == "reflect")
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=1e-6 if kind is np.float32 else 1e-14)


@pytest.mark.parametrize("number", [4, 5, 6, 7])
@pytest.mark.parametrize("direction", [(1.5, 0.0, 0.0), (-1.5, 0.8, 0.0), (0.0, -1.5, 0.0)])
def test_images_that_moved_together_leave_the_others_where_they_are(number: int, direction: Any) -> None:
    """Also if they are half of the images: the middle between both would hide that they are apart."""
    half = number // 2
    motion = replace(known(brain(snr=40)), rotation=np.tile(np.eye(3), (number, 1, 1)))
    translation = np.zeros((number, 3))
    translation[-half:] = direction
    motion = replace(motion, translation=translation).about_median()
    shift = np.linalg.norm(motion.translation, axis=1)
    apart = np.linalg.norm(motion.translation[0] - motion.translation[-1])
    assert apart == pytest.approx(np.linalg.norm(direction))
    if np.count_nonzero(direction) == 1:
        assert shift.max() == pytest.approx(apart) and np.count_nonzero(shift < 1e-9) >= half
