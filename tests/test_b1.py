"""B1 maps: independent simulations of both scans, and real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rimap import InputError
from rimap.b1 import FORMULAS, b1_from_afi, b1_from_dam


def afi(B1: float, T1: float, tr: tuple[float, float], flip: float) -> tuple[float, float]:
    """Return both signals of the steady state: pulse, spoiling and recovery over the first TR, then over the second."""
    Mz, S = 1.0, [0.0, 0.0]
    for _ in range(400):
        for k in (0, 1):
            S[k] = Mz * np.sin(np.deg2rad(flip) * B1)
            Mz = 1 + (Mz * np.cos(np.deg2rad(flip) * B1) - 1) * np.exp(-tr[k] / T1)
    return S[0], S[1]


@pytest.mark.parametrize("B1", [0.6, 0.9, 1.0, 1.3])
@pytest.mark.parametrize(("T1", "within"), [(800.0, 0.02), (1500.0, 0.01), (4000.0, 0.004)])
def test_actual_flip_angle_imaging_finds_the_simulated_field(B1: float, T1: float, within: float) -> None:
    """Exact for TR ≪ T1; the error grows with TR/T1."""
    images = np.array(afi(B1, T1, (20.0, 100.0), 60.0))[:, None]
    assert float(b1_from_afi(images, tr=(20, 100), flip_angle=60)[0]) == pytest.approx(B1, rel=within)
    swapped = b1_from_afi(images[::-1], tr=(100, 20), flip_angle=[60, 60])
    np.testing.assert_array_equal(swapped, b1_from_afi(images, tr=(20, 100), flip_angle=60))


@pytest.mark.parametrize("B1", [0.5, 0.95, 1.0, 1.3])
def test_the_double_angle_method_finds_the_simulated_field(B1: float) -> None:
    flips = np.deg2rad([60.0, 120.0]) * B1
    images = 500 * abs(np.sin(flips))[:, None]
    assert float(b1_from_dam(images, flip_angle=(60, 120))[0]) == pytest.approx(B1, rel=1e-12)
    assert float(b1_from_dam(images[::-1], flip_angle=(120, 60))[0]) == pytest.approx(B1, rel=1e-12)


@pytest.mark.parametrize("scan", [{"tr": (20, 100), "flip_angle": 60}, {"flip_angle": (60, 120)}])
def test_what_no_field_explains_has_no_value(scan: dict[str, Any]) -> None:
    make = b1_from_afi if "tr" in scan else b1_from_dam
    images = np.array([[0.0, 1.0, np.nan, -1.0, 1.0], [0.0, 2.5, 1.0, 1.0, 0.8]])
    b1 = make(images, **scan)
    assert np.isnan(b1[:4]).all() and np.isfinite(b1[4])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: b1_from_afi(np.ones((3, 4)), (20, 100), 60), "two images"),
        (lambda: b1_from_afi(np.ones((2, 4)), (20, 20), 60), "differ"),
        (lambda: b1_from_afi(np.ones((2, 4)), (20, 100), 0), "above zero"),
        (lambda: b1_from_dam(np.ones((2, 4)), (60, 100)), "twice the other"),
        (lambda: b1_from_dam(np.ones((2, 4)), 60), "two values"),
    ],
)
def test_other_scans_are_refused(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


@pytest.mark.parametrize(
    ("folder", "suffix", "quantiles"),
    [("b1_afi", "TB1AFI", (0.73, 0.96, 1.10)), ("b1_dam", "TB1DAM", (0.92, 0.96, 1.02))],
)
def test_real_scans(shared_data: Path, folder: str, suffix: str, quantiles: tuple[float, ...]) -> None:
    files = sorted((shared_data / folder).rglob(f"*_{suffix}.nii.gz"))
    if not files:
        pytest.skip(f"{folder} is absent")
    images = np.stack([np.asarray(nib.load(f).dataobj, dtype=float) for f in files])  # type: ignore[attr-defined]
    sidecars = [json.loads(Path(str(f).replace(".nii.gz", ".json")).read_text()) for f in files]
    settings: dict[str, Any] = {"flip_angle": [m["FlipAngle"] for m in sidecars]}
    if suffix == "TB1AFI":
        settings["tr"] = [1e3 * m["RepetitionTimeExcitation"] for m in sidecars]
    b1 = FORMULAS[suffix](images, **settings)
    inside = images[0] > 0.3 * np.quantile(images[0], 0.99)
    np.testing.assert_allclose(np.nanquantile(b1[inside], (0.05, 0.5, 0.95)), quantiles, atol=0.02)
    assert np.isfinite(b1[inside]).mean() > 0.95


def test_images_are_taken_as_those_of_a_series_are() -> None:
    images = np.array([[1.0, 1.0], [0.7, 0.8]])
    known = b1_from_afi(images, tr=(20, 100), flip_angle=60)
    volumes = [nib.Nifti1Image(image.reshape(1, 1, 2), np.eye(4)) for image in images]
    np.testing.assert_array_equal(b1_from_afi(volumes, tr=(20, 100), flip_angle=60).ravel(), known)
    hidden = b1_from_afi(np.ma.masked_equal(images, 0.8), tr=(20, 100), flip_angle=60)
    np.testing.assert_array_equal(hidden, [known[0], np.nan])
    np.testing.assert_array_equal(b1_from_afi(images.tolist(), tr=(20, 100), flip_angle=60), known)


@pytest.mark.parametrize(
    ("images", "tr", "says"),
    [
        ([[1 + 1j], [0.7]], (20, 100), "expected real numbers, got values of type complex128"),
        ([[1.0], [0.7, 0.8]], (20, 100), "images of the same shape"),
        ("afi.nii", (20, 100), "got the path afi.nii"),
        ([[1.0], [0.7]], (20, "a"), "tr: expected two values above zero"),
        ([[1.0], [0.7]], None, "tr: expected two values above zero"),
    ],
)
def test_what_is_no_scan_is_refused(images: Any, tr: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        b1_from_afi(images, tr=tr, flip_angle=60)
