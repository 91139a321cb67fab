"""Real part, magnitude and phase, real and imaginary part give the same signed series."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.polarity import circle_of_images, looks_signed, phase_circle, refuse_reversed
from rimap.io.reading_options import Reading
from rimap.workflow.read_series import read


def write_parts(
    root: Path, build: SimpleNamespace, kind: str, scale: float, offset: float, tau: tuple[float, ...]
) -> Path:
    rng = np.random.default_rng(0)
    signed = build.recovery((8, 8), signed=True, tau=tau)
    carrier = np.cumsum(rng.uniform(0, 1, (8, 8)), axis=0)  # any phase of the coil, and a drift between images
    for n, (ti, image) in enumerate(zip(tau, signed), 1):
        phase = carrier + 0.3 * n + np.where(image < 0, np.pi, 0)
        phase = np.mod(phase + np.pi, 2 * np.pi) - np.pi
        parts = (
            {"mag": abs(image), "phase": phase * scale + offset}
            if kind == "phase"
            else {"real": abs(image) * np.cos(phase), "imag": abs(image) * np.sin(phase)}
        )
        for part, data in parts.items():
            build.save(root / f"sub-1/anat/sub-1_inv-{n}_part-{part}_IRT1.nii.gz", data, {"InversionTime": ti / 1000})
    return root


@pytest.mark.parametrize("tau", [(50.0, 400.0, 1100.0, 2500.0), (20.0, 40.0, 70.0, 150.0)])
@pytest.mark.parametrize(
    ("kind", "scale", "offset"),
    [
        ("phase", 1.0, 0.0),
        ("phase", 1.0, math.pi),
        ("phase", 4096 / math.pi, 0.0),
        ("phase", 2048 / math.pi, 2047.5),
        ("phase", 180 / math.pi, 0.0),
        ("imag", 1.0, 0.0),
    ],
)
def test_polarity_is_restored(
    tmp_path: Path, build: SimpleNamespace, kind: str, scale: float, offset: float, tau: tuple[float, ...]
) -> None:
    """Also where no voxel has crossed zero at the last time (T1 ≥ 300 ms, TI ≤ 150 ms)."""
    series = read(write_parts(tmp_path, build, kind, scale, offset, tau))
    assert series.model.signed
    np.testing.assert_allclose(series.images, build.recovery((8, 8), signed=True, tau=tau), rtol=1e-4, atol=0.1)
    magnitude = read(tmp_path, signed=False)
    assert not magnitude.model.signed
    np.testing.assert_allclose(magnitude.images, build.recovery((8, 8), tau=tau), rtol=1e-4, atol=0.1)


def test_real_part_is_signed_and_its_modulus_on_request(tmp_path: Path, build: SimpleNamespace) -> None:
    build.irt1(tmp_path, part="_part-real")
    assert read(tmp_path).model.signed
    np.testing.assert_array_equal(read(tmp_path).images, build.recovery(signed=True))
    assert not read(tmp_path, signed=False).model.signed
    np.testing.assert_array_equal(read(tmp_path, signed=False).images, build.recovery())


def test_magnitude_alone_is_magnitude(tmp_path: Path, build: SimpleNamespace) -> None:
    build.irt1(tmp_path, part="_part-mag")
    assert not read(tmp_path).model.signed
    with pytest.raises(InputError, match="part-phase"):
        read(tmp_path, signed=True)


def test_loose_images_are_taken_as_what_they_look_like(tmp_path: Path, build: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    for signed in (True, False):
        images = build.recovery((20, 20), signed=signed)
        images = images + rng.normal(0, 100, images.shape)  # noise after the modulus, SNR 10
        path = build.save(tmp_path / f"{signed}.nii", np.moveaxis(images[:, :, :, None], 0, -1))
        series = read(path, times_ms=build.TI, sequence="ir")
        assert series.model.signed is signed
        assert any("signed" in note for note in series.notes) is signed
        assert not looks_signed(abs(images))


def ring_of_fat(tau: tuple[float, ...], gain: float) -> np.ndarray:
    """Signed images (N, 96, 96) of tissue in a ring of fat, which is brighter and never negative; air around them."""
    y, x = np.mgrid[:96, :96] - 48
    r = np.hypot(y, x)
    A, T1 = np.select([r < 34, r < 44], [0.8, gain], 0.0), np.where(r < 34, 1000.0, 250.0)
    model = rimap.InversionRecovery(tau=tau, signed=True)
    return np.asarray(model.signal(np.stack([A, 0 * A + 1.9, T1])))


@pytest.mark.parametrize("gain", [1.5, 3.0, 5.0])
def test_bright_fat_does_not_hide_the_polarity(gain: float) -> None:
    images = ring_of_fat((200.0, 600.0, 1500.0, 3000.0), gain)
    images = images + np.random.default_rng(2).normal(0, 0.05, images.shape)
    assert looks_signed(images) and not looks_signed(abs(images))


@pytest.mark.parametrize("tau", [(50.0, 400.0, 1100.0, 2500.0), tuple(np.linspace(139, 937, 31))])
@pytest.mark.parametrize("sigma", [0.0, 0.04, 0.16])  # SNR 20 and 5
def test_noise_on_a_modulus_is_no_polarity(tau: tuple[float, ...], sigma: float) -> None:
    rng = np.random.default_rng(3)
    for gain in (0.8, 1.5):
        signed = ring_of_fat(tau, gain)
        noise = rng.normal(0, sigma, signed.shape)
        assert looks_signed(signed + noise) and not looks_signed(abs(signed) + noise)


@pytest.mark.parametrize("sigma", [0.0, 0.16])
@pytest.mark.parametrize("gain", [0.8, 3.0])
def test_a_reversed_sign_is_refused(tmp_path: Path, build: SimpleNamespace, gain: float, sigma: float) -> None:
    signed = ring_of_fat(build.TI, gain)
    signed = signed + np.random.default_rng(5).normal(0, sigma, signed.shape)
    for sign in (1, -1):
        path = build.save(tmp_path / "ir.nii", np.moveaxis(sign * signed[..., None], 0, -1))
        for told in (None, True):
            (files,) = find_series(path, sequence="ir")
            opened = files.open(Reading(times_ms=build.TI, signed=told))
            if sign == 1:
                assert opened.read().model.signed and opened.settled().model.signed
                continue
            for ways in (opened.read, opened.settled):
                with pytest.raises(InputError, match=r"got a decrease from 50 to 2500 ms .* negate .* --magnitude"):
                    ways()
        assert not read(path, times_ms=build.TI, sequence="ir", signed=False).model.signed
    with pytest.raises(InputError, match="the order of the times"):
        read(build.save(path, np.moveaxis(signed[::-1, ..., None], 0, -1)), times_ms=build.TI, sequence="ir")


@pytest.mark.parametrize("tau", [(2000.0, 3000.0, 5000.0), (20.0, 40.0, 70.0), tuple(np.linspace(139, 937, 31))])
def test_images_that_change_little_or_rise_are_not_called_reversed(tau: tuple[float, ...]) -> None:
    rng = np.random.default_rng(6)
    for gain in (0.8, 3.0):
        refuse_reversed(ring_of_fat(tau, gain) + rng.normal(0, 0.2, (len(tau), 96, 96)), np.array(tau))


def test_real_images_are_what_they_are(shared_data: Path) -> None:
    rng = np.random.default_rng(4)
    head = find_series(shared_data / "brain_in_vivo", sequence="ir")[0].load(Reading(signed=True)).images
    phantoms = [s.load() for s in find_series(shared_data / "nist_phantom", sequence="ir")]
    assert [s.model.signed for s in phantoms] == [False, False, True]
    phantoms = [s.images for s in phantoms if not s.model.signed]
    for images in (abs(head), *phantoms):
        assert not looks_signed(images)
        for sigma in (0.05, 0.2):
            assert not looks_signed(images + rng.normal(0, sigma * np.quantile(images, 0.99), images.shape))
    refuse_reversed(head, np.array([50, 100, 200, 500, 2000, 4000]))
    with pytest.raises(InputError, match="negate"):
        refuse_reversed(-head, np.array([50, 100, 200, 500, 2000, 4000]))
    assert looks_signed(head) and looks_signed(head + rng.normal(0, 0.2 * np.quantile(head, 0.99), head.shape))


def test_phase_without_its_magnitude_is_refused(tmp_path: Path, build: SimpleNamespace) -> None:
    write_parts(tmp_path, build, "phase", 1.0, 0.0, build.TI)
    (tmp_path / "sub-1/anat/sub-1_inv-2_part-phase_IRT1.nii.gz").unlink()
    series = read(tmp_path)  # the magnitudes are complete
    assert not series.model.is_signed and series.model.n_images == 4
    assert any("only 3 of 4 images have their phase" in n and "it was not used" in n for n in series.notes)
    next(tmp_path.rglob("*inv-1_part-mag_IRT1.nii.gz")).unlink()
    with pytest.raises(InputError, match=r"3 of part-mag and 3 of part-phase; inv-1"):
        read(tmp_path)
    for f in tmp_path.rglob("*part-mag*"):
        f.unlink()
    with pytest.raises(InputError, match="only part-phase"):
        read(tmp_path)


def test_radians_that_were_unwrapped() -> None:
    signed = np.array([-1.0, -1.0, 1.0]).reshape(3, 1, 1) * np.ones((3, 20, 20))
    around = np.linspace(5, 9, 400).reshape(20, 20)
    phase = around + np.where(signed < 0, np.pi, 0.0)
    assert circle_of_images(abs(signed), phase, 2, (float(phase.min()), float(phase.max()))) == pytest.approx(2 * np.pi)


@pytest.mark.parametrize(
    ("lowest", "highest", "circle"),
    [
        (-3.14, 3.14, 2 * math.pi),
        (0, 6.28, 2 * math.pi),
        (-4096, 4094, 8192),
        (0, 4095, 4096),
        (-2048, 2047, 4096),
        (-3141.6, 3141.5, 2000 * math.pi),
        (0, 360, 360),
    ],
)
def test_the_unit_of_phase_is_told_by_its_range(lowest: float, highest: float, circle: float) -> None:
    assert phase_circle(lowest, highest) == pytest.approx(circle)


@pytest.mark.parametrize(("lowest", "highest"), [(0, 65535), (-1, 1), (-0.5, 0.5), (0, 1), (0, 0)])
def test_other_phase_is_refused(lowest: float, highest: float) -> None:
    with pytest.raises(InputError, match=f"got {lowest:g} to {highest:g}.* [Cc]onvert them to radians"):
        phase_circle(lowest, highest)


def test_phase_in_units_of_pi_is_refused(tmp_path: Path, build: SimpleNamespace) -> None:
    write_parts(tmp_path, build, "phase", 1 / math.pi, 0.0, build.TI)
    with pytest.raises(InputError, match="units of π"):
        read(tmp_path)
