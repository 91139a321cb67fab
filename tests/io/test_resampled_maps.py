"""Maps of a field on another grid: the values at the voxels of the images, edges, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.nifti import open_nifti
from rimap.io.reading_options import Reading
from rimap.io.resampled_maps import map_at_images
from rimap.signals.variable_flip_angle import VariableFlipAngle

from .model_files import example, save, write_bids

Floats = NDArray[np.float64]
GRADIENT = np.array([0.004, -0.003, 0.002])


def grid(shape: tuple[int, ...], edges: Any, turn: Any = (0, 0, 0), shift: Any = (0, 0, 0)) -> Floats:
    """Return the affine of a grid whose middle is at `shift`."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.diag(edges)
    affine[:3, 3] = np.asarray(shift) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def places_of(shape: tuple[int, ...], affine: Floats) -> Floats:
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(shape)) + affine[:3, 3].reshape(3, 1, 1, 1)


def field_at(places: Floats) -> Floats:
    return np.asarray(1.0 + np.einsum("i,ixyz->xyz", GRADIENT, places))


def write(path: Path, values: Any, affine: Floats, *, oriented: bool = True) -> Path:
    image = nib.Nifti1Image(np.asarray(values, np.float32), affine)
    image.set_qform(affine, code=1 if oriented else 0)
    image.set_sform(affine, code=1 if oriented else 0)
    image.to_filename(path)
    return path


def scene(tmp_path: Path, **options: Any) -> Any:
    """Return the first image: a ball of 40 mm in air."""
    shape, affine = (24, 26, 10), grid((24, 26, 10), (2.0, 2.0, 4.0), (10, -20, 30))
    ball = np.linalg.norm(places_of(shape, affine), axis=0) < 20
    path = write(tmp_path / "image.nii.gz", 1000.0 * ball + 1.0, affine, **options)
    return open_nifti(path), ball, field_at(places_of(shape, affine))


@pytest.mark.parametrize("empty", [0.0, np.nan])
@pytest.mark.parametrize(
    ("shape", "edges", "turn", "shift"),
    [
        ((16, 16, 12), (5.0, 5.0, 5.0), (0, 0, 0), (0, 0, 0)),
        ((14, 14, 14), (4.0, 4.0, 4.0), (40, 10, -70), (1.3, -2.1, 0.4)),
        ((60, 60, 60), (1.0, 1.0, 1.0), (10, -20, 30), (0, 0, 0)),
        ((16, 16, 12), (-5.0, 5.0, 5.0), (0, 0, 90), (2, 1, 0)),
        ((24, 26, 10), (2.0, 2.0, 4.5), (10, -20, 30), (1, 0, 0)),
    ],
)
def test_a_map_on_another_grid_is_interpolated(
    tmp_path: Path, shape: Any, edges: Any, turn: Any, shift: Any, empty: float
) -> None:
    """Exactly where the field is linear, without the empty voxels around the object, and with a value in all of it."""
    first, ball, true = scene(tmp_path)
    affine = grid(shape, edges, turn, shift)
    places = places_of(shape, affine)
    values = np.where(np.linalg.norm(places, axis=0) < 21, field_at(places), empty)
    path = write(tmp_path / "B1.nii.gz", values, affine)
    found, how = map_at_images(path, first, "map of B1")
    assert found.shape == first.shape and "interpolated from voxels of" in how
    assert np.isfinite(found[ball]).all()
    coarse = np.linalg.norm(affine[:3, :3], axis=0).max()
    assert abs(found - true)[ball].max() < coarse * np.abs(GRADIENT).sum()
    inside = np.linalg.norm(places_of(first.shape, first.affine), axis=0) < 21 - coarse * np.sqrt(3)
    np.testing.assert_allclose(found[inside], true[inside], rtol=1e-5)
    outside = np.linalg.norm(places_of(first.shape, first.affine), axis=0) > 21 + coarse * np.sqrt(3)
    assert outside.any() and np.isnan(found[outside]).all()


def test_the_same_grid_is_read_as_it_is(tmp_path: Path) -> None:
    first, _, true = scene(tmp_path)
    path = write(tmp_path / "B1.nii.gz", true, first.affine)
    found, how = map_at_images(path, first, "map of B1")
    assert how == ""
    np.testing.assert_array_equal(found, true.astype(np.float32))


@pytest.mark.parametrize(("shift", "covered"), [(0, True), (4, True), (14, False), (400, False)])
def test_a_map_must_cover_the_object(tmp_path: Path, shift: float, covered: bool) -> None:
    """Not the whole image: the air around it needs no value."""
    first, ball, _ = scene(tmp_path)
    shape = (11, 11, 11)
    path = write(tmp_path / "B1.nii.gz", np.ones(shape), grid(shape, (4.0, 4.0, 4.0), shift=(shift, 0, 0)))
    if covered:
        assert (np.nan_to_num(map_at_images(path, first, "map of B1")[0])[ball] == 1).mean() > 0.95
    else:
        with pytest.raises(InputError, match=r"covers the object, got one that covers \d+ % of it"):
            map_at_images(path, first, "map of B1")


@pytest.mark.parametrize("which", ["image", "map"])
def test_without_orientation_only_the_same_shape_is_taken(tmp_path: Path, which: str) -> None:
    first, _, _ = scene(tmp_path, oriented=which != "image")
    shape = (16, 16, 12)
    path = write(tmp_path / "B1.nii.gz", np.ones(shape), grid(shape, (5.0, 5.0, 5.0)), oriented=which != "map")
    with pytest.raises(InputError, match="Resample it to the images"):
        map_at_images(path, first, "map of B1")


def test_a_map_of_one_slice_is_as_thick_as_its_voxels(tmp_path: Path) -> None:
    shape = (20, 20, 1)
    first = open_nifti(write(tmp_path / "image.nii.gz", np.ones(shape), grid(shape, (2.0, 2.0, 3.0))))
    for shift, covered in ((0, True), (2.4, True), (4, False)):
        path = write(tmp_path / "B1.nii.gz", np.ones((10, 10, 1)), grid((10, 10, 1), (4, 4, 5), shift=(0, 0, shift)))
        if covered:
            assert (map_at_images(path, first, "map of B1")[0] == 1).all()
        else:
            with pytest.raises(InputError, match="covers 0 % of it"):
                map_at_images(path, first, "map of B1")


def test_a_series_takes_a_map_of_lower_resolution_and_says_so(tmp_path: Path) -> None:
    """In per cent, with the unit of the values inside the object, and of the data set or of the user."""
    root = write_bids(tmp_path / "raw", example(VariableFlipAngle))
    (series,) = find_series(root)
    first = open_nifti(sorted(root.rglob("*_VFA.nii.gz"))[0])
    edges = 3 * np.linalg.norm(first.affine[:3, :3], axis=0)
    middle = (first.affine @ [*((np.array(first.shape) - 1) / 2), 1])[:3]
    shape = (4, 4, 3)
    affine = grid(shape, edges, shift=middle)
    values = np.full(shape, 90.0, np.float32)
    values[0] = 0
    note = "B1 from sub-1_TB1map.nii.gz, in per cent of the nominal value (median 90 %), interpolated from voxels of"
    path = save(root / "sub-1/fmap/sub-1_TB1map.nii.gz", values)
    write(path, values, affine)
    opened = series.open()
    assert opened.given["B1"].shape == first.shape and opened.notes[0].startswith(note)
    np.testing.assert_allclose(opened.given["B1"], 0.9, rtol=1e-6)
    assert series.open(Reading(given={"B1": path})).notes[0].startswith(note)
