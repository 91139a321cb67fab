"""Whatever is in a NIfTI file: an error of ours, or the map of what it says."""

from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rimap
from rimap.io.reading_options import Reading

from .conftest import AFFINE, MODEL, SHAPE, TI, Ground, cases, images

#: Of the fields of a header: name, type.
FIELDS = [(name, nib.Nifti1Header().structarr.dtype[name]) for name in nib.Nifti1Header().structarr.dtype.names]
#: Those that decide how the data are read are tried more often.
WEIGHTY = [
    "dim",
    "datatype",
    "bitpix",
    "vox_offset",
    "scl_slope",
    "scl_inter",
    "pixdim",
    "sform_code",
    "srow_x",
    "magic",
]
ODD_FLOATS = [0.0, -0.0, 1.0, -1.0, 2.5, 1e-30, 1e30, 1e38, 352.0, 351.5, 1e12, np.nan, np.inf, -np.inf, -352.0]
ODD_INTS = [
    0,
    1,
    -1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    32,
    64,
    127,
    128,
    255,
    256,
    512,
    768,
    1024,
    1536,
    1792,
    2048,
    2304,
    30000,
    -32768,
]
TYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16"]


def header_value(draw: Any, dtype: np.dtype[Any]) -> Any:
    base, shape = (dtype.subdtype[0], dtype.subdtype[1]) if dtype.subdtype else (dtype, ())
    n = int(np.prod(shape)) if shape else 1
    if base.kind == "f":
        one = st.one_of(st.sampled_from(ODD_FLOATS), st.floats(width=32))
    elif base.kind in "iu":
        info = np.iinfo(base)
        odd = [v for v in ODD_INTS if info.min <= v <= info.max]
        one = st.one_of(st.sampled_from(odd), st.integers(int(info.min), int(info.max)))
    else:
        return draw(st.binary(max_size=base.itemsize))
    if not shape:
        return draw(one)
    return n, draw(st.dictionaries(st.integers(0, n - 1), one, min_size=1, max_size=3))


def change(header: Any, name: str, value: Any) -> None:
    with np.errstate(all="ignore"):
        if isinstance(value, tuple):
            for i, v in value[1].items():
                header[name][i] = v
        else:
            header[name] = value


@st.composite
def headers(draw: Any) -> tuple[bytes, bool]:
    """A file with one to three odd fields, of any type, byte order and version; compressed or not."""
    dtype = np.dtype(draw(st.sampled_from(TYPES))).newbyteorder(draw(st.sampled_from("<>")))
    two = draw(st.booleans())
    kind = nib.Nifti2Image if two else nib.Nifti1Image
    header = (nib.Nifti2Header if two else nib.Nifti1Header)(endianness=draw(st.sampled_from("<>")))
    header.set_data_dtype(dtype.newbyteorder("="))
    data = np.moveaxis(images(), 0, -1)
    scale = 10.0 if dtype.itemsize == 1 else 1.0
    data = (data / scale).astype(dtype.newbyteorder("="))
    image = kind(data, AFFINE, header)
    raw = bytearray(image.to_bytes())
    size = 540 if two else 348
    changed = (nib.Nifti2Header if two else nib.Nifti1Header)(bytes(raw[:size]), check=False)
    names = list(changed.structarr.dtype.names)
    few = [n for n in WEIGHTY if n in names]
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.one_of(st.sampled_from(few), st.sampled_from(names)))
        change(changed.structarr, name, header_value(draw, changed.structarr.dtype[name]))
    raw[:size] = changed.structarr.tobytes()
    return bytes(raw), draw(st.booleans())


def check(ground: Ground, path: Path, status: int) -> None:
    """Where there is a map, it is that of the images as nibabel reads them."""
    if status:
        return
    data = np.asanyarray(nib.load(path).dataobj)
    data = data[:, :, :, 0] if data.ndim == 5 and data.shape[3] == 1 else data
    S = np.moveaxis(data.astype(np.float64 if data.dtype.itemsize > 4 else np.float32), -1, 0)
    signed = bool(ground.metadata()["SignedImages"])
    assert ground.metadata()["InversionTimes"] == [0.05, 0.4, 1.1, 2.5]
    model = rimap.InversionRecovery(tau=MODEL.tau, tr=MODEL.tr, signed=signed)
    if signed:
        assert (S < 0).any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # squares of 1e200, say: σ is not known then, and said not to be
        expected = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(S, model))
    found = ground.T1()
    assert found.shape == S.shape[1:]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected["T1"]))
    np.testing.assert_allclose(found, expected["T1"], rtol=1e-3)


@cases(0.4)
@given(case=headers())
def test_odd_headers(ground: Ground, case: tuple[bytes, bool]) -> None:
    data, packed = case
    path = ground.clear() / ("x.nii.gz" if packed else "x.nii")
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    status, _ = ground.loose(path)
    check(ground, path, status)


@cases(0.1)
@given(data=st.data(), packed=st.booleans())
def test_flipped_bits_and_cut_ends(ground: Ground, data: Any, packed: bool) -> None:
    path = ground.clear() / ("x.nii.gz" if packed else "x.nii")
    raw = bytearray(gzip.compress(ground.good, mtime=0) if packed else ground.good)
    for _ in range(data.draw(st.integers(0, 3))):
        bit = data.draw(st.integers(0, 8 * len(raw) - 1))
        raw[bit // 8] ^= 1 << bit % 8
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    if data.draw(st.integers(0, 5)) == 0:
        raw += data.draw(st.binary(max_size=40))
    path.write_bytes(bytes(raw))
    status, _ = ground.loose(path)
    check(ground, path, status)
    if packed and status == 0:  # the checksum tells of every bit of the data
        assert gzip.decompress(path.read_bytes())[: len(ground.good)] == ground.good


@cases(0.1)
@given(data=st.data(), what=st.sampled_from(["mask", "rois", "sigma"]))
def test_odd_masks_labels_and_sigma(ground: Ground, data: Any, what: str) -> None:
    root = ground.clear()
    (root / "x.nii").write_bytes(ground.good)
    constants = [np.full(SHAPE, value) for value in (1.0, 0.0, np.nan, 1e30, -1.0, 0.5)]
    values = data.draw(st.sampled_from([*constants, np.arange(12).reshape(SHAPE)]))
    raw = bytearray(nib.Nifti1Image(values.astype(np.float32), AFFINE).to_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for _ in range(data.draw(st.integers(0, 2))):
        name = data.draw(st.sampled_from(WEIGHTY))
        change(header.structarr, name, header_value(data.draw, header.structarr.dtype[name]))
    raw[:348] = header.structarr.tobytes()
    (root / "other.nii").write_bytes(bytes(raw))
    status, _ = ground.loose(root / "x.nii", **{what: root / "other.nii"})
    if status == 0 and what == "mask":
        selected = np.nan_to_num(np.asanyarray(nib.load(root / "other.nii").dataobj)).reshape(SHAPE) != 0
        assert not np.isfinite(ground.T1()[~selected]).any()


@cases(0.1)
@given(
    values=st.lists(
        st.one_of(st.floats(width=32), st.sampled_from([0.0, np.nan, np.inf, -np.inf, 3e38, 1e-45, -5.0])),
        min_size=48,
        max_size=48,
    ),
    wide=st.booleans(),
)
@example(values=[1e-45] + 47 * [0.0], wide=False)  # its square is 0
@example(values=[3e38] * 48, wide=False)
def test_odd_values(ground: Ground, values: list[float], wide: bool) -> None:
    path = ground.clear() / "x.nii"
    data = np.array(values, np.float64 if wide else np.float32).reshape(*SHAPE, 4)
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    status, _ = ground.loose(path)
    if status == 0:
        T1 = ground.T1()
        assert not np.isfinite(T1[~np.isfinite(data).all(-1)]).any()
        assert ((T1[np.isfinite(T1)] >= 0.99) & (T1[np.isfinite(T1)] <= 10_001)).all()


@cases(0.02, least=3)
@given(case=headers(), wide=st.sampled_from([0.0, 1e-30, 1e18, np.nan]))
def test_pages_of_odd_series(paged: Ground, case: tuple[bytes, bool], wide: float) -> None:
    """With the report, which is left out elsewhere."""
    path = paged.clear() / "x.nii"
    path.write_bytes(case[0])
    paged.loose(path, fill=wide)


@cases(0.03, least=4)
@given(
    values=st.lists(
        st.one_of(st.floats(0, 1e4, width=32), st.sampled_from([0.0, np.nan, np.inf, 3e38, 1e-45, -5.0])),
        min_size=48,
        max_size=48,
    ),
    estimator=st.sampled_from(["mle", "rim"]),
    noise=st.sampled_from([None, "rician"]),
)
def test_odd_values_by_other_estimators(ground: Ground, values: list[float], estimator: str, noise: str | None) -> None:
    path = ground.clear() / "x.nii"
    data = np.array(values, np.float32).reshape(*SHAPE, 4)
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    status, _ = ground.loose(path, estimator=estimator, noise=noise)
    if status == 0:
        T1 = ground.T1()
        assert not np.isfinite(T1[~np.isfinite(data).all(-1)]).any()
        assert ((T1[np.isfinite(T1)] >= 0.99) & (T1[np.isfinite(T1)] <= 10_001)).all()


@pytest.mark.parametrize("name", ["x.hdr", "x.img", "x.mgz", "x.nii.bz2", "x.txt"])
def test_files_of_other_kinds(ground: Ground, name: str) -> None:
    path = ground.clear() / name
    path.write_bytes(ground.good)
    assert ground.loose(path)[0] == 2


def test_a_scale_cuts_nothing_off_the_smallest_numbers(ground: Ground) -> None:
    path, data = ground.clear() / "x.nii", np.array([9, 70, 500, 9000], np.float32) * np.float32(1e-45)
    raw = bytearray(nib.Nifti1Image(np.broadcast_to(data, (*SHAPE, 4)), AFFINE).to_bytes())
    struct.pack_into("<ff", raw, 112, 1.1, 0.0)
    path.write_bytes(bytes(raw))
    (series,) = rimap.io.find_series(path, sequence="ir")
    found = series.load(Reading(times_ms=TI, signed=False)).images[:, 0, 0, 0]
    np.testing.assert_allclose(found / found[-1], data.astype(float) / float(data[-1]), rtol=1e-6)


def test_every_way_to_scale_is_read_as_nibabel_does(ground: Ground, tools: SimpleNamespace) -> None:
    for slope in (0.0, 1.0, 2.0, -3.0, 1e-3, np.nan, np.inf):
        for inter in (0.0, 5.0, np.nan, -np.inf):
            path = ground.clear() / "x.nii"
            raw = bytearray(ground.good)
            struct.pack_into("<ff", raw, 112, slope, inter)
            path.write_bytes(bytes(raw))
            status, _ = ground.loose(path)
            try:
                expected = tools.reference(path)
            except Exception:
                assert status == 2
                continue
            if status == 0:
                (series,) = rimap.io.find_series(path, sequence="ir")
                found = series.load(Reading(times_ms=tools.TI, signed=True)).images
                np.testing.assert_allclose(found, expected, rtol=1e-6)
