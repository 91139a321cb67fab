"""What users have their data in is taken as it is; maps come as NumPy arrays."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import rimap
from rimap import NLLS, Gaussian, InputError, Rician, T2Decay, WeightedSeries

TAU = [10, 20, 40, 80]
MODEL = T2Decay(tau=TAU)
SHAPE = (4, 5, 3)
T2 = np.linspace(30, 90, 60).reshape(SHAPE)
IMAGES = MODEL.signal([np.full(SHAPE, 100.0), T2]).astype(np.float32)
AFFINE = np.array([[2.0, 0, 0, -9], [0, 2, 0, -8], [0, 0, 5, 3], [0, 0, 0, 1]])


def nifti(x: np.ndarray, affine: np.ndarray = AFFINE) -> nib.Nifti1Image:
    return nib.Nifti1Image(x, affine)


FORMS = {
    "numpy": IMAGES,
    "list of arrays": list(IMAGES),
    "torch": torch.tensor(IMAGES, requires_grad=True),
    "list of tensors": [torch.tensor(x) for x in IMAGES],
    "nibabel 4-D": nifti(np.moveaxis(IMAGES, 0, -1)),
    "list of nibabel": [nifti(x) for x in IMAGES],
    "list of nibabel 4-D of one": tuple(nifti(x[..., None]) for x in IMAGES),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_any_form_give_the_same_maps(form: str) -> None:
    series = WeightedSeries(images=FORMS[form], model=MODEL)
    assert type(series.images) is np.ndarray and series.images.dtype == np.float32
    np.testing.assert_array_equal(series.images, IMAGES)
    if "nibabel" in form:
        np.testing.assert_array_equal(series.affine, AFFINE)
        assert series.voxel_size == (2.0, 2.0, 5.0)
    maps = NLLS(threads=1).estimate(series)
    assert type(maps["T2"]) is np.ndarray
    np.testing.assert_allclose(maps["T2"], T2, rtol=1e-4)
    assert (maps.affine is None) == ("nibabel" not in form)


MASK = T2 > 50


@pytest.mark.parametrize("mask", [MASK, torch.tensor(MASK), nifti(MASK.astype(np.uint8)), MASK.tolist()])
@pytest.mark.parametrize(
    "sigma", [2.0, np.float32(2), torch.tensor(2.0), torch.full(SHAPE, 2.0), nifti(np.full(SHAPE, 2.0))]
)
def test_mask_and_sigma_in_any_form(mask: object, sigma: object) -> None:
    series = WeightedSeries(images=FORMS["nibabel 4-D"], model=MODEL, noise=Rician(sigma=sigma), mask=mask)
    np.testing.assert_array_equal(series.selected, MASK)
    assert series.noise is not None and isinstance(series.noise.sigma, (float, np.ndarray))
    assert (np.asarray(series.noise.sigma) == 2).all() and np.shape(series.noise.sigma) in ((), SHAPE)


def test_half_precision_tensors_and_scaled_integers_of_a_file(tmp_path) -> None:
    half = WeightedSeries(images=torch.tensor(IMAGES).bfloat16(), model=MODEL)
    np.testing.assert_allclose(half.images, IMAGES, rtol=1e-2)
    image = nifti(np.moveaxis(IMAGES, 0, -1))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "x.nii.gz")
    loaded = WeightedSeries(images=nib.load(tmp_path / "x.nii.gz"), model=MODEL)
    np.testing.assert_allclose(loaded.images, IMAGES, atol=2e-3)


def test_an_affine_may_be_said_or_be_that_of_an_image() -> None:
    other = np.diag([1.0, 1, 1, 1])
    assert (WeightedSeries(FORMS["nibabel 4-D"], MODEL, affine=other).affine == other).all()
    assert (WeightedSeries(IMAGES, MODEL, affine=nifti(IMAGES[0])).affine == AFFINE).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": nifti(IMAGES[0])}, "four axes"),
        ({"images": [nifti(IMAGES[0]), *(nifti(x, AFFINE + np.eye(4)) for x in IMAGES[1:])]}, "same affine"),
        ({"images": [*IMAGES[:3], IMAGES[3, :2]]}, "same shape"),
        ({"images": []}, "expected 4 images"),
        ({"images": "ir.nii.gz"}, "rimap.read"),
        ({"mask": nifti(np.ones(SHAPE), np.eye(4))}, "mask: expected the affine of the images"),
        ({"noise": Gaussian(sigma=nifti(np.ones(SHAPE), np.eye(4)))}, "map of sigma: expected the affine"),
        ({"noise": Gaussian(sigma=nifti(-np.ones(SHAPE)))}, "positive"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeightedSeries(**{"images": FORMS["nibabel 4-D"], "model": MODEL, **change})


@pytest.mark.parametrize("image", [FORMS["nibabel 4-D"], IMAGES, list(IMAGES), torch.tensor(IMAGES), 3])
def test_read_takes_paths_and_says_where_images_go(image: object) -> None:
    with pytest.raises(InputError, match=r"rimap\.WeightedSeries"):
        rimap.read(image)  # type: ignore[arg-type]


def test_read_takes_a_mask_in_any_form(tmp_path) -> None:
    nib.save(FORMS["nibabel 4-D"], tmp_path / "x.nii.gz")
    for mask in (MASK, nifti(MASK.astype(np.uint8)), torch.tensor(MASK)):
        series = rimap.read(tmp_path / "x.nii.gz", sequence="t2", times_ms=TAU, mask=mask)
        np.testing.assert_array_equal(series.selected, MASK)


def test_neither_torch_nor_nibabel_is_imported_for_arrays() -> None:
    code = """
import sys, numpy as np, rimap
rimap.WeightedSeries(np.ones((3, 4)), rimap.T2Decay(tau=[1, 2, 3]), mask=np.ones(4), noise=rimap.Rician(1.0))
assert not {"torch", "nibabel", "matplotlib", "PIL"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(rimap.__file__).read_text(encoding="utf-8"))
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    seen = {alias.asname: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert seen == rimap._NAMES


def test_a_path_may_be_text(tmp_path) -> None:
    """In every function that a user calls with one."""
    from rimap import io
    from rimap.estimators.networks import export
    from rimap.evaluation import border, experiment, scans, tables
    from rimap.simulation import anatomies, recipe
    from rimap.training import loop
    from rimap.training import recipe as training_recipe

    modules = (io, export, border, experiment, scans, tables, anatomies, recipe, loop, training_recipe)
    looked_at = 0
    for module in modules:
        for name, function in vars(module).items():
            own = getattr(function, "__module__", "").startswith(module.__name__)
            if name.startswith("_") or not own or not inspect.isfunction(inspect.unwrap(function)):
                continue
            hints = typing.get_type_hints(inspect.unwrap(function))
            for argument in {"path", "out", "folder", "inputs"} & set(hints):
                looked_at += 1
                assert str in typing.get_args(hints[argument]), f"{module.__name__}.{name}({argument})"
    assert looked_at > 15
    settings = experiment.Settings(data=str(tmp_path), scans=(str(tmp_path),), lines=str(tmp_path))
    assert settings.data == settings.lines == settings.scans[0] == tmp_path and isinstance(settings.data, Path)
    tables.write_table(str(tmp_path / "t.csv"), [{"a": 1.0}])
    assert tables.read_table(str(tmp_path / "t.csv")) == [{"a": 1.0}]
