"""Slices are laid as a radiologist expects, whatever the order of the array."""

import itertools

import numpy as np
import pytest

from rimap.slices import view_of


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_radiological_axial_for_every_storage_order(order, signs):
    """World coordinates are x towards the right of the patient, y anterior, z superior (RAS)."""
    shape = (12, 14, 9)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs
    grid = np.indices(shape).reshape(3, -1)
    world = (affine[:3, :3] @ grid).reshape(3, *shape)
    view = view_of(affine, np.ones(shape, bool))
    x, y, z = (view.picture(w, view.slices[0]) for w in world)
    assert view.plane.name == "axial" and view.plane.letters == ("R", "L", "A", "P")
    assert (np.diff(x, axis=1) < 0).all() and (np.diff(y, axis=0) < 0).all() and np.ptp(z) == 0


def test_planes_follow_the_thick_axis():
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        size = np.ones(4)
        size[axis] = 5.0
        assert view_of(np.diag(size), np.ones((8, 8, 8), bool)).plane.name == plane


def test_without_affine_a_slice_is_shown_as_stored():
    image = np.arange(12.0).reshape(3, 4)
    view = view_of(None, np.ones((3, 4), bool))
    np.testing.assert_array_equal(view.picture(image, 0), image)


def test_crop_and_aspect():
    shown = np.zeros((100, 100, 3), bool)
    shown[40:60, 30:70, 1] = True
    view = view_of(np.diag([2.0, 1.0, 5.0, 1.0]), shown)
    assert view.slices == (1,)
    assert view.picture(shown, 1).sum() == 20 * 40
    height, width = view.picture(shown, 1).shape
    assert (width, height) == (24, 44) and view.aspect == pytest.approx(48 / 44)
