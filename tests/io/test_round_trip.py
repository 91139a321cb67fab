"""What is written is read back, whatever the affine, the type and the shape."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import rimap
from rimap.io import find_series, write_maps
from rimap.io.reading_options import Reading
from rimap.io.results import find_results
from rimap.series import ParameterMaps
from rimap.workflow.read_series import read

TI = (50.0, 400.0, 1100.0)
SHAPES = st.sampled_from([(3, 4, 1), (2, 3, 4), (1, 1, 1), (5, 1, 2), (3, 4)])
DTYPES = st.sampled_from(["u1", "<i2", ">i2", "<u2", "<i4", "<f4", ">f4", "<f8"])


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any rotation, voxel size, handedness and origin."""
    q, _ = np.linalg.qr(draw(arrays(float, (3, 3), elements=st.floats(-1, 1))) + 2 * np.eye(3))
    size = draw(arrays(float, 3, elements=st.floats(0.2, 8)))
    flip = draw(arrays(float, 3, elements=st.sampled_from([-1.0, 1.0])))
    origin = draw(arrays(float, 3, elements=st.floats(-200, 200)))
    return np.block([[q * size * flip, origin[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


def nifti(data: np.ndarray, affine: np.ndarray, codes: tuple[int, int], units: int, version: int) -> Any:
    image = (nib.Nifti1Image if version == 1 else nib.Nifti2Image)(data, affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header["xyzt_units"] = units
    return image


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(),
    shape=SHAPES,
    dtype=DTYPES,
    affine=affines(),
    codes=st.sampled_from([(1, 1), (0, 2), (1, 0), (0, 0), (2, 4)]),
    units=st.sampled_from([0, 2, 10, 3]),
    version=st.sampled_from([1, 2]),
    packed=st.booleans(),
)
def test_series_and_maps(
    data: st.DataObject,
    shape: tuple[int, ...],
    dtype: str,
    affine: np.ndarray,
    codes: tuple[int, int],
    units: int,
    version: int,
    packed: bool,
) -> None:
    values = data.draw(arrays(np.dtype(dtype), (3, *shape), elements=st.integers(0, 200)))
    values.flat[0] = 1
    assume(len({volume.tobytes() for volume in values}) == len(values))  # of two images alike one is a copy
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for n, volume in enumerate(values):
            image = nifti(volume, affine, codes, units, version)
            image.set_data_dtype(np.dtype(dtype))
            files.append(Path(folder) / f"v{n}.nii{'.gz' if packed else ''}")
            image.to_filename(files[-1])
        series = read(files, times_ms=TI, sequence="ir")
        np.testing.assert_array_equal(series.images, values.astype(float))

        kappa = data.draw(arrays(float, (3, *shape), elements=st.floats(1e-3, 1e4)))
        kappa.flat[-1] = np.nan
        maps = ParameterMaps(kappa, series.model, np.zeros(shape, np.uint8), estimator="nlls")
        (found,) = find_series(files, sequence="ir")
        for path, expected in zip(write_maps(maps, found, Path(folder) / "out"), (kappa[2] / 1000, kappa[1], kappa[0])):
            written = nib.load(path)
            np.testing.assert_allclose(written.get_fdata(), expected, rtol=1e-6)
            source = nib.load(files[0])
            assert type(written) is type(source)
            np.testing.assert_array_equal(written.affine, source.affine)
            assert written.header.get_zooms() == source.header.get_zooms()
            assert written.header.get_xyzt_units()[0] == source.header.get_xyzt_units()[0]
            for code in ("qform_code", "sform_code"):
                assert written.header[code] == source.header[code]
            np.testing.assert_array_equal(written.get_qform(), source.get_qform())
            np.testing.assert_array_equal(written.get_sform(), source.get_sform())


@settings(deadline=None, max_examples=25)
@given(scale=st.sampled_from([1e-40, 1e-20, 1.0, 1e30, 1e200]))
def test_any_scale_of_the_images_survives(scale: float) -> None:
    model = rimap.InversionRecovery(tau=TI)
    images = np.abs(model.signal([[scale], [1.9], [800.0]])).reshape(3, 1, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.nii"
        nib.Nifti1Image(np.moveaxis(images, 0, -1), np.eye(4)).to_filename(path)
        series = read(path, times_ms=TI, sequence="ir")
        np.testing.assert_allclose(series.images, images, rtol=1e-12)
        kappa = np.full((3, 1, 1, 1), scale)
        maps = ParameterMaps(kappa, model, np.zeros((1, 1, 1), np.uint8), estimator="nlls")
        (found,) = find_series(path, sequence="ir")
        written = write_maps(maps, found, Path(folder) / "out")
        np.testing.assert_allclose(nib.load(written[-2]).get_fdata(), scale, rtol=1e-6)


def test_images_left_out_by_time_are_found_again(tmp_path: Path, build: SimpleNamespace) -> None:
    for n, (te, image) in enumerate(zip(build.TE, build.decay()), 1):  # two images of each time
        data = np.stack([image, 1.01 * image], -1)
        build.save(tmp_path / f"raw/sub-1/anat/sub-1_echo-{n}_MESE.nii.gz", data, {"EchoTime": te / 1000})
    (tmp_path / "raw/dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
    (files,) = find_series(tmp_path / "raw")
    series = files.load(Reading(skip_first=1))
    write_maps(rimap.NLLS().estimate(series), files, tmp_path / "out")
    (result,) = find_results(tmp_path / "out")
    again = result.series(result.load())
    assert again.model.tau == series.model.tau == tuple(np.repeat(build.TE[1:], 2))
    np.testing.assert_array_equal(again.images, series.images)
