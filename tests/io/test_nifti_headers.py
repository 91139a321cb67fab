"""A header that contradicts itself or its file is refused; images of one value or of another scale are named."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.advice import Weight, weight_of
from rimap.errors import InputError
from rimap.image_brightness import largest_ratios, levels_of, odd_levels
from rimap.io.nifti import open_nifti
from rimap.workflow.read_series import read

SHAPE = (6, 5, 4, 3)


def image(path: Path, version: int = 1, *, changes: dict[str, Any] | None = None, end: bytes = b"") -> Path:
    """Write whole numbers with a header in which some fields were changed afterwards."""
    data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    kind, header_kind = (nib.Nifti1Image, nib.Nifti1Header) if version == 1 else (nib.Nifti2Image, nib.Nifti2Header)
    raw = bytearray(kind(data, np.diag([2.0, 2.0, 3.0, 1.0])).to_bytes())
    size = 348 if version == 1 else 540
    header = header_kind(bytes(raw[:size]), check=False)
    for name, value in (changes or {}).items():
        if isinstance(value, dict):
            for k, v in value.items():
                header[name][k] = v
        else:
            header[name] = value
    content = header.structarr.tobytes() + bytes(raw[size:]) + end
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        for _ in open_nifti(path).volumes():
            pass
    assert path.name in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
class TestHeaders:
    """Each fault alone, in both versions of the format, compressed or not."""

    def test_what_is_right_is_read(self, tmp_path: Path, name: str, version: int) -> None:
        for end in (b"", bytes(512)):  # some programs fill whole blocks
            found = np.stack(list(open_nifti(image(tmp_path / name, version, end=end)).volumes()), -1)
            np.testing.assert_array_equal(found.ravel(), np.arange(np.prod(SHAPE)))

    @pytest.mark.parametrize("bits", [0, 8, 32, 64])
    def test_bits_of_another_type(self, tmp_path: Path, name: str, version: int, bits: int) -> None:
        text = refusal(image(tmp_path / name, version, changes={"bitpix": bits}))
        assert f"expected bitpix 16 for its datatype 4 (int16), got bitpix {bits}" in text

    @pytest.mark.parametrize("offset", [0, 1, 100, 347, 351, -16])
    def test_data_within_the_header(self, tmp_path: Path, name: str, version: int, offset: int) -> None:
        text = refusal(image(tmp_path / name, version, changes={"vox_offset": offset}))
        first = 352 if version == 1 else 544
        if offset < 0:
            assert f"the data would begin at byte {offset}." in text
        else:
            assert (
                f"expected data that begin at byte {first} or later, after the header, got vox_offset {offset}." in text
            )

    @pytest.mark.parametrize("offset", [4096, 100_000])
    def test_data_beyond_the_file(self, tmp_path: Path, name: str, version: int, offset: int) -> None:
        text = refusal(image(tmp_path / name, version, changes={"vox_offset": offset}))
        if name.endswith(".gz"):  # the length of a compressed file is known at its end
            assert "is truncated or damaged (it ends within volume 1 of 3)" in text
        else:
            size = (352 if version == 1 else 544) + 2 * np.prod(SHAPE)
            assert f"expected data within the {size:,} bytes of the file, got vox_offset {offset:,}." in text

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
    @pytest.mark.parametrize("axis", [1, 2, 3])
    def test_voxels_without_a_size(self, tmp_path: Path, name: str, version: int, value: float, axis: int) -> None:
        text = refusal(image(tmp_path / name, version, changes={"pixdim": {axis: value}}))
        assert "expected voxel sizes above zero, got" in text and "pixdim" in text

    @pytest.mark.parametrize("dim", [{1: 5}, {1: 7}, {3: 3}, {4: 2}, {4: 4}, {0: 3}, {0: 2}])
    def test_dimensions_that_are_not_those_of_the_data(
        self, tmp_path: Path, name: str, version: int, dim: dict[int, int]
    ) -> None:
        text = refusal(image(tmp_path / name, version, changes={"dim": dim}))
        claimed = [len(SHAPE), *SHAPE]
        for axis, size in dim.items():
            claimed[axis] = size
        needed = 2 * int(np.prod(claimed[1 : claimed[0] + 1]))
        if not name.endswith(".gz"):
            assert f"expected {needed} bytes of data" in text and "values of 2 bytes), got 720 bytes." in text
        elif needed < 720:
            assert "expected the data that its header describes, got more" in text
        else:
            assert "is truncated or damaged (it ends within volume" in text

    @pytest.mark.parametrize("dim", [{0: 0}, {0: 8}, {0: -1}, {1: 0}, {2: -3}])
    def test_dimensions_that_cannot_be(self, tmp_path: Path, name: str, version: int, dim: dict[int, int]) -> None:
        text = refusal(image(tmp_path / name, version, changes={"dim": dim}))
        ((axis, size),) = dim.items()
        if axis == 0:
            assert f"expected 1 to 7 axes, got dim[0] {size}." in text
        else:
            assert "expected at least one voxel along each axis, got" in text and f" {size} ×" in text

    def test_a_type_of_another_size(self, tmp_path: Path, name: str, version: int) -> None:
        for code, bits in ((2, 8), (16, 32), (64, 64)):
            refusal(image(tmp_path / name, version, changes={"datatype": code, "bitpix": bits}))


def noisy(n: int, rng: np.random.Generator) -> tuple[rimap.SignalModel, np.ndarray]:
    """Images (N, *X) of tissues of 300 to 1500 ms."""
    model = rimap.InversionRecovery(tau=np.linspace(50, 2500, n), tr=9000.0)
    T1 = np.linspace(300, 1500, 240).reshape(6, 10, 4)
    clean = np.asarray(model.signal(np.stack([0 * T1 + 1000, 0 * T1 + 1.9, T1])))
    return model, np.abs(clean + rng.normal(0, 8, clean.shape))


class TestLevels:
    """What is odd about the brightness of images, and what is not."""

    @pytest.mark.parametrize("model", [
        rimap.InversionRecovery(tau=(50, 400, 1100, 2500), tr=9000.0), rimap.T2Decay(tau=(10.0, 20, 40, 80, 300))
    ])  # fmt: skip
    def test_good_images_are_not_named(self, model: rimap.SignalModel) -> None:
        rng = np.random.default_rng(0)
        for low, high in ((5, 20), (100, 300), (800, 4000)):
            T = rng.uniform(low, high, (6, 10, 4))
            values = [1000 + 0 * T, *([1.9 + 0 * T] if len(model.parameters) == 3 else []), T]
            S = np.abs(np.asarray(model.signal(np.stack(values))) + rng.normal(0, 3, (model.n_images, *T.shape)))
            for scale in (1e-20, 1.0, 1e6):
                assert not odd_levels(levels_of(scale * S), model)

    def test_the_bound_holds_for_any_mixture(self) -> None:
        rng = np.random.default_rng(1)
        model = rimap.InversionRecovery(tau=(50, 400, 1100, 2500), tr=9000.0)
        bound = largest_ratios(model)
        for _ in range(50):
            T1, B = rng.uniform(20, 6000, 30), rng.uniform(1, 2, 30)
            S = np.abs(np.asarray(model.signal(np.stack([rng.uniform(0, 9, 30), B, T1])))).sum(1)
            assert (bound * (S.sum() - S) * 1.01 >= S).all()

    @pytest.mark.parametrize("k", [0, 2, 5])
    def test_an_image_of_one_value(self, k: int) -> None:
        model, S = noisy(6, np.random.default_rng(2))
        S[k] = 400
        (text,) = odd_levels(levels_of(S), model)
        assert f"image {k + 1} (" in text and "the same value in all voxels, 400" in text
        assert weight_of(text) == Weight.UNRELIABLE

    @pytest.mark.parametrize("factor", [1e2, 1e5, 1e38])
    def test_an_image_of_another_scale(self, factor: float) -> None:
        model, S = noisy(6, np.random.default_rng(3))
        S[3] *= factor
        text = odd_levels(levels_of(S), model)[0]
        assert "image 4 (" in text and "scl_slope" in text and weight_of(text) == Weight.UNRELIABLE

    def test_an_image_that_is_next_to_nothing(self) -> None:
        model, S = noisy(6, np.random.default_rng(4))
        S[5] *= 1e-30
        assert "image 6 (" in odd_levels(levels_of(S), model)[0]

    def test_values_that_overflow(self) -> None:
        model, S = noisy(6, np.random.default_rng(5))
        (text,) = odd_levels(levels_of(1e38 * S), model)
        assert "scl_slope" in text and "e+41" in text

    @pytest.mark.parametrize("same_time", [True, False])
    def test_copies(self, same_time: bool) -> None:
        model, S = noisy(6, np.random.default_rng(6))
        times = model.times.copy()
        if same_time:
            times[4] = times[1]
        S[4] = S[1]
        (text,) = odd_levels(levels_of(S), rimap.InversionRecovery(tau=times, tr=9000.0))
        named = "images 2 and 5 (540 ms each)" if same_time else "images 2 (540 ms) and 5 (2010 ms)"
        assert text.startswith(f"{named} have the same values: one is a copy of the other")
        assert (weight_of(text) == Weight.UNRELIABLE) != same_time

    def test_a_few_planes_at_a_time_is_the_same(self) -> None:
        from rimap.image_brightness import Level

        _, S = noisy(6, np.random.default_rng(7))
        S[2, 0, 0, 0] = np.nan
        whole = levels_of(S)
        parts = [Level() for _ in S]
        for k in range(S.shape[-1]):
            parts = [level.with_planes(image[..., k : k + 1]) for level, image in zip(parts, S)]
        assert len(whole) == len(parts) == 6
        for a, b in zip(whole, parts):
            assert (a.lowest, a.highest, a.n_voxels) == (b.lowest, b.highest, b.n_voxels)
            assert a.mean == pytest.approx(b.mean)


@pytest.mark.parametrize("factor", [10.0, 1e30])
def test_maps_without_a_value_have_a_reason(factor: float) -> None:
    model, S = noisy(4, np.random.default_rng(8))
    S[2] *= factor
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(S, model))
    if (maps.status == rimap.Status.NO_SIGNAL).all():
        (text,) = (warning for warning in maps.warnings if "No voxel has a value" in warning)
        assert "image 3 (" in text and "scl_slope" in text
    else:
        assert any("do not rely on" in w for w in maps.warnings)


@pytest.mark.parametrize(("fault", "says"), [
    (lambda S: S[:1], "have the same values: one is a copy of the other"),
    (lambda S: np.full_like(S[:1], 400), "the same value in all voxels, 400"),
    (lambda S: 1e3 * S[3:4], "as bright as the mean of the others"),
])  # fmt: skip
@pytest.mark.parametrize("estimator", [rimap.NLLS(threads=1), rimap.MLE(threads=1), rimap.RIM(threads=1)])
def test_images_that_were_given_as_arrays_are_looked_at_as_well(
    estimator: rimap.NLLS, fault: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    model, S = noisy(6, np.random.default_rng(9))
    good = estimator.estimate(rimap.WeightedSeries(S, model))
    assert not any(says in warning for warning in good.warnings)
    S[3] = fault(S)[0]
    maps = estimator.estimate(rimap.WeightedSeries(S, model))
    (text,) = (warning for warning in maps.warnings if says in warning)
    assert "image" in text and weight_of(text) == Weight.UNRELIABLE


def test_slabs_say_what_the_whole_says(tmp_path: Path, build: SimpleNamespace) -> None:
    S = build.recovery((6, 6, 30)).copy()
    S[1] *= 1e6
    path = build.save(tmp_path / "ir.nii", np.moveaxis(S, 0, -1))
    whole = read(path, times_ms=build.TI, sequence="ir")
    from rimap.io import find_series
    from rimap.io.reading_options import Reading

    (files,) = find_series(path, sequence="ir")
    slabs = files.open(Reading(times_ms=build.TI)).settled()
    named = [n for n in whole.notes if "times as bright" in n]
    assert len(named) == 1 and [n for n in slabs.notes if "times as bright" in n] == named
