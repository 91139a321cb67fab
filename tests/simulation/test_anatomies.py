"""The built-in head, label files, BrainWeb from a folder."""

import gzip
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from rimap.errors import InputError
from rimap.simulation import brainweb
from rimap.simulation.anatomies import (
    Anatomy,
    as_labels,
    brain_mask,
    digital_affine,
    digital_brain,
    load_anatomies,
    load_anatomy,
    spheres,
)
from rimap.simulation.tissues import CSF, GM, LABELS, WM


def test_the_built_in_head_has_every_label_and_a_brain_of_a_plausible_size():
    labels = digital_brain()
    assert labels.shape == (64, 72, 48) and labels.dtype == np.uint8
    counts = np.bincount(labels.ravel(), minlength=len(LABELS))
    assert (counts > 0).all()
    litres = brain_mask(labels).sum() * abs(np.linalg.det(digital_affine())) / 1e6
    assert 0.9 < litres < 2.0
    assert 0.5 < counts[GM] / counts[WM] < 2.5


def test_its_brain_is_in_one_piece_inside_the_head():
    labels = digital_brain()
    brain = brain_mask(labels)
    parts, _ = ndimage.label(brain)
    assert np.bincount(parts[brain]).max() > 0.97 * brain.sum()
    air, _ = ndimage.label(labels == 0)
    near = ndimage.binary_dilation(air == air[0, 0, 0])[:, :, 4:]
    assert not (near & brain[:, :, 4:]).any()


def test_white_matter_lies_under_grey_and_grey_under_csf():
    labels = digital_brain((96, 108, 72))
    hull = ndimage.binary_fill_holes(brain_mask(labels))
    depth = ndimage.distance_transform_edt(hull)
    csf, gm, wm = (np.median(depth[labels == t]) for t in (CSF, GM, WM))
    assert csf < gm < wm


def test_it_is_always_the_same_and_cannot_be_changed():
    a, b = digital_brain((32, 36, 24)), digital_brain((32, 36, 24))
    np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="read-only"):
        a[0, 0, 0] = 1
    with pytest.raises(InputError, match="three axes"):
        digital_brain((4, 4, 4))


def test_affine_covers_the_same_field_of_view_at_any_shape():
    for shape in ((64, 72, 48), (192, 216, 144), (50, 50, 50)):
        affine = digital_affine(shape)
        corner = affine @ [-0.5, -0.5, -0.5, 1]
        other = affine @ [*(np.array(shape) - 0.5), 1]
        np.testing.assert_allclose((other - corner)[:3], (192, 216, 144))


def test_files_and_folders(tmp_path):
    labels = digital_brain((32, 36, 24))
    affine = digital_affine((32, 36, 24))
    for name in ("b.nii.gz", "a.nii"):
        nib.save(nib.Nifti1Image(labels.astype(np.float32), affine), tmp_path / name)
    np.testing.assert_array_equal(load_anatomy(tmp_path / "a.nii"), labels)
    both = load_anatomies([tmp_path])
    assert [a.name for a in both] == ["a.nii", "b.nii.gz"]
    np.testing.assert_allclose(both[0].affine, affine)
    inside = brain_mask(labels)[tuple(slice(a, b) for a, b in zip(both[0].low, both[0].high))]
    assert inside.sum() == brain_mask(labels).sum()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4, 4), 12), "0 to 11"),
        (np.full((4, 4, 4), 1.5), "whole numbers"),
        (np.full((4, 4, 4), np.nan), "whole numbers"),
        (np.full((4, 4, 4), 4), "expected a brain"),
        (np.ones((4, 4)), "three axes"),
    ],
)
def test_what_is_no_label_volume_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        as_labels(values)


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no anatomy at"):
        load_anatomy(tmp_path / "none.nii.gz")
    (tmp_path / "broken.nii.gz").write_bytes(b"no nifti")
    with pytest.raises(InputError, match="not a readable NIfTI"):
        load_anatomy(tmp_path / "broken.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no NIfTI file"):
        load_anatomies([tmp_path / "empty"])
    with pytest.raises(InputError, match="no anatomy was given"):
        load_anatomies([])


def test_brainweb_from_a_folder_is_kept_and_checked_by_hash(tmp_path):
    head = np.repeat(np.repeat(np.repeat(digital_brain((32, 36, 24)), 2, 0), 2, 1), 2, 2)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(head.T), np.eye(4)), tmp_path / "brainweb_s04_crisp.nii.gz")
    first = brainweb.load_brainweb("04", tmp_path)
    np.testing.assert_array_equal(first, digital_brain((32, 36, 24)))
    (tmp_path / "brainweb_s04_crisp.nii.gz").unlink()
    np.testing.assert_array_equal(brainweb.load_brainweb(4, tmp_path), first)
    kept = tmp_path / "brainweb04_head.npy"
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(bytes(data))
    with pytest.raises(InputError, match="has changed"):
        brainweb.load_brainweb(4, tmp_path)


def test_brainweb_raw_file_must_be_whole(tmp_path):
    (tmp_path / "subject_05.bin.gz").write_bytes(gzip.compress(bytes(64)))
    with pytest.raises(InputError, match="not a complete BrainWeb model"):
        brainweb.load_brainweb(5, tmp_path)


def test_brainweb_without_its_package_says_what_to_do(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(brainweb.importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'rimap\[brainweb\]'"):
        brainweb.load_brainweb(6, tmp_path)
    with pytest.raises(InputError, match="expected one of the subjects 04"):
        brainweb.load_brainweb(7, tmp_path)


def test_brainweb_through_its_package(tmp_path, monkeypatch):
    """As brainweb-dl 0.4 does it: the file is written into the folder, at 0.5 mm, and its path returned."""
    asked = []

    def get_brainweb20(s, brainweb_dir=None, force=False, segmentation=None):
        asked.append((s, segmentation))
        if s == 6:
            raise OSError("no connection")
        labels = digital_brain((32, 36, 24)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        path = brainweb_dir / f"brainweb_s{s:02d}_crisp.nii.gz"
        nib.save(nib.Nifti1Image(np.ascontiguousarray(labels.T), np.eye(4)), path)
        return path

    package = SimpleNamespace(get_brainweb20=get_brainweb20, Segmentation=SimpleNamespace(CRISP="crisp"))
    monkeypatch.setattr(brainweb.importlib, "import_module", lambda name: package)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (found,) = load_anatomies(["brainweb:04"])
    np.testing.assert_array_equal(found.labels, digital_brain((32, 36, 24)))
    (again,) = load_anatomies(["brainweb:4"])
    np.testing.assert_array_equal(again.labels, found.labels)
    assert asked == [(4, "crisp")]
    with pytest.raises(InputError, match=r"could not be downloaded \(no connection\)"):
        load_anatomies(["brainweb:06"])


def test_real_anatomies_load(shared_data):
    found = load_anatomies([shared_data / "anatomies" / "test"])
    assert isinstance(found[0], Anatomy) and found[0].labels.shape == (181, 217, 181)
    assert 1.5e6 < brain_mask(found[0].labels).sum() < 2.5e6


def test_spheres_are_round_apart_and_always_the_same():
    labels = spheres(64, 90)
    assert np.array_equal(labels, spheres.__wrapped__(64, 90)) and not labels.flags.writeable
    balls, n = ndimage.label(brain_mask(labels))
    assert n > 5 and set(np.unique(labels)) >= {0, CSF, GM, WM}
    for k in range(1, n + 1):
        ball = balls == k
        assert len(np.unique(labels[ball])) == 1
        inside = np.argwhere(ball)
        if inside.min() > 0 and inside.max() < 63:  # not cut by the border
            radius = (3 * len(inside) / (4 * np.pi)) ** (1 / 3)
            far = np.linalg.norm(inside - inside.mean(0), axis=1).max()
            assert 2.5 < radius < 9.5 and far < radius + 1
    assert load_anatomies(["spheres"])[0].name == "spheres"
