"""Slab by slab, a volume larger than memory has the same maps as at once, within the given memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import rimap
from rimap.cli import build
from rimap.io.slabs import cuts
from rimap.workflow import memory

SHAPE = (20, 18, 9)
TI = (50.0, 200.0, 700.0, 1500.0, 3000.0)


def series(path: Path, *, kind: str = "ir", shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16, n: int = 5) -> Path:
    """Write a 4-D series with noise, air, slices of zeros and of NaN."""
    rng = np.random.default_rng(1)
    T = np.broadcast_to(np.linspace(1, 2, shape[-1]), shape) * (500 if kind == "ir" else 60)
    tau = TI[:n] if kind == "ir" else tuple(t / 10 for t in TI[:n])
    model = rimap.InversionRecovery(tau=tau, tr=9000.0) if kind == "ir" else rimap.T2Decay(tau=tau)
    kappa = [np.full(shape, 800.0), np.full(shape, 1.9), T] if kind == "ir" else [np.full(shape, 800.0), T]
    S = model.signal(np.stack(kappa))
    S[:, :5] *= 0
    S = np.abs(S + 4 * (rng.standard_normal(S.shape) + 1j * rng.standard_normal(S.shape)))
    S[..., 3] = 0
    if np.dtype(dtype).kind == "f":
        S[..., 5] = np.nan
        S[0, 7, 7, 1] = np.inf
    nib.save(nib.Nifti1Image(np.moveaxis(S, 0, -1).astype(dtype), np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Map whole, or with the memory of a few slices."""
    monkeypatch.chdir(tmp_path)

    def call(out: str, *args: Any, small: bool = False, voxels: int = 2 * 20 * 18) -> Any:
        with monkeypatch.context() as m:
            if small:
                m.setattr(memory, "needed", lambda *a, **k: 1 << 61)
                m.setattr(memory, "slab_voxels", lambda *a: 2 * voxels)
            return CliRunner().invoke(build(), ["map", *map(str, args), "-o", out, "--threads", "1"], prog_name="rimap")

    return call


def maps_of(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.name.endswith((".nii.gz", ".json", ".tsv"))]
    return {p.name: p.read_bytes() for p in files if p.parent.name != ".rimap"}


@pytest.mark.parametrize(
    ("kind", "name", "dtype", "more"),
    [
        ("ir", "x.nii.gz", np.int16, ()),
        ("ir", "x.nii", np.float32, ("--noise", "gaussian", "--rates")),
        (
            "ir",
            "x.nii.gz",
            ">f8",
            ("--skip-first", "1", "--sigma", "s.nii.gz", "--mask", "m.nii.gz", "--rois", "l.nii.gz"),
        ),
        ("t2", "x.nii.gz", np.float32, ("--estimator", "mle", "--mask", "m.nii.gz")),
        ("t2", "x.nii", np.int16, ("--skip-first", "3", "--fill", "0")),  # no residual: σ from the air
    ],
)
def test_slabs_give_the_maps_of_the_whole(
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    name: str,
    dtype: Any,
    more: tuple[str, ...],
) -> None:
    monkeypatch.setattr("rimap.estimators.sigma.SAMPLE", 700)  # so that σ is from every so many'th voxel here, too
    file = series(tmp_path / name, kind=kind, dtype=dtype)
    rng = np.random.default_rng(2)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image((3 + rng.random(SHAPE)).astype(np.float32), affine), tmp_path / "s.nii.gz")
    mask = rng.random(SHAPE) < 0.6
    mask[..., 6] = False
    mask[:, :6] = False  # air, where two solutions may be as good as each other
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / "m.nii.gz")
    nib.save(nib.Nifti1Image((mask * rng.integers(0, 4, SHAPE)).astype(np.int16), affine), tmp_path / "l.nii.gz")
    scale = 1 if kind == "ir" else 10
    args = [file, "--sequence", kind, "--times-ms", " ".join(f"{t / scale:g}" for t in TI)]
    args += [*(() if "mle" in more else ("--estimator", "nlls")), *more, *(("--tr-ms", "9000") if kind == "ir" else ())]
    whole, parts = run("whole", *args), run("parts", *args, small=True)
    assert whole.exit_code == 0 and parts.exit_code == 0, whole.output + parts.output
    expected, found = maps_of(tmp_path / "whole"), maps_of(tmp_path / "parts")
    assert expected.keys() == found.keys() and len(found) > 6
    for name in expected:
        if name.startswith("x_desc-residual_T2map.nii"):  # rounded otherwise where other voxels share the registers
            images = (np.asarray(nib.load(next(Path(d).rglob(name))).dataobj) for d in ("whole", "parts"))
            np.testing.assert_allclose(*images, rtol=1e-6, atol=1e-9)
        elif name.endswith(".json"):  # misaligned images are searched for in the slices that are shown
            about, other = (json.loads(d[name]) for d in (expected, found))
            for key, told in (("Warnings", "misaligned"), ("Notes", "mapped in slabs")):
                for d in (about, other):
                    if key in d:  # the sidecar of the mask has none
                        d[key] = [text for text in d[key] if told not in text]
            assert about == other
        else:
            assert expected[name] == found[name], name
    counts = [[line for line in r.stdout.splitlines() if line.startswith("  voxels")] for r in (whole, parts)]
    assert counts[0] == counts[1] and "slices" in parts.stdout
    assert not list((tmp_path / "parts" / ".rimap").glob("slabs-*"))


def test_what_is_refused_whole_is_refused_in_slabs(run: Callable[..., Any], tmp_path: Path) -> None:
    file = series(tmp_path / "x.nii.gz")
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine), tmp_path / "empty.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 5), np.int16), affine), tmp_path / "zero.nii.gz")
    options = ["--sequence", "ir", "--times-ms", "50 200 700 1500 3000", "--estimator", "nlls"]
    packed = file.read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(packed[:-500])
    for args, word in (
        ((file, "--mask", "empty.nii.gz"), "empty"),
        (("zero.nii.gz",), "zero"),
        (("cut.nii.gz",), "truncated"),
        ((file, "--rois", "empty.nii.gz"), "label"),
    ):
        for small in (False, True):
            result = run("out", *args, *options, small=small)
            assert result.exit_code == 2 and word in result.stderr, result.output
    assert not (tmp_path / "out").exists()


def test_an_estimator_that_needs_the_whole_says_so(run: Callable[..., Any], tmp_path: Path) -> None:
    file = series(tmp_path / "x.nii.gz")
    times = ("--times-ms", "50 200 700 1500 3000", "--tr-ms", "8000")
    result = run("out", file, "--sequence", "ir", *times, "--memory", "50M")
    assert result.exit_code == 2 and "needs the whole volume" in result.stderr and "--estimator nlls" in result.stderr
    result = run(
        "out", file, "--sequence", "ir", "--times-ms", "50 200 700 1500 3000", "--estimator", "nlls", "--memory", "50M"
    )
    assert result.exit_code == 2 and "a single slice needs" in result.stderr
    assert not (tmp_path / "out").exists()


def test_cuts_cover_the_axis() -> None:
    for shape in ((3, 4, 17), (5, 7), (1, 1, 1)):
        for voxels in (1, 20, 10**9):
            slabs = cuts(shape, voxels)
            assert [a for a, _ in slabs] == [0, *(b for _, b in slabs[:-1])] and slabs[-1][1] == shape[-1]


def peak_of(folder: Path, *options: str) -> float:
    """Run `rimap map big.nii` in a folder, and in its folder `warm` before: MiB at the most, of that program alone."""
    code = (
        "import sys; sys.argv[0] = 'rimap'\nfrom rimap.cli import main\n"
        "try: main()\nfinally: open('status', 'w').write(open('/proc/self/status').read())"
    )
    command = [sys.executable, "-c", code, "map", "big.nii", "-o", "out", *options, "--threads", "1", "-q"]
    for where in (folder / "warm", folder):  # what is compiled once, takes its memory once
        subprocess.run(command, cwd=where, check=True, timeout=300)
    status = (folder / "status").read_text()  # getrusage has what it was forked from as well
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def save_big(folder: Path, model: rimap.SignalModel, kappa: np.ndarray, planes: int) -> None:
    """Write `big.nii` of so many planes (Q, X, Y), and a small one in `warm`."""
    S = model.signal(kappa)
    noise = np.random.default_rng(0).integers(-6, 7, (*S.shape, 1))
    data = np.empty((*S.shape[1:], planes, len(S)), np.int16, order="F")
    data[...] = np.moveaxis(abs(S)[..., None] + noise, 0, -1).round().astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.eye(4)), folder / "big.nii")
    (folder / "warm").mkdir()
    nib.save(nib.Nifti1Image(data[:, :, :4], np.eye(4)), folder / "warm" / "big.nii")


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")


@needs_proc
def test_peak_memory_stays_within_what_was_given(tmp_path: Path) -> None:
    """The whole of it takes more: it has a million voxels."""
    shape, limit = (128, 128), 400
    T = np.linspace(30, 120, shape[0] * shape[1]).reshape(shape)
    save_big(tmp_path, rimap.T2Decay(tau=(10.0, 30.0, 60.0, 120.0)), np.stack([np.full(shape, 900.0), T]), 64)
    options = ("--sequence", "t2", "--times-ms", "10 30 60 120", "--estimator", "nlls", "--memory", f"{limit}M")
    assert peak_of(tmp_path, *options) <= limit
    T2 = np.asarray(nib.load(tmp_path / "out" / "big_T2map.nii.gz").dataobj)
    assert np.nanmedian(np.abs(T2 * 1000 / T[..., None] - 1)) < 0.05


@needs_proc
@pytest.mark.parametrize("estimator", ["mle", "rim"])
def test_the_whole_takes_no_more_memory_than_is_said(tmp_path: Path, estimator: str) -> None:
    from rimap.workflow.memory import needed

    shape, planes = (96, 96), 20
    times = (50.0, 150.0, 400.0, 900.0, 1800.0, 3500.0)
    T = np.linspace(400, 1500, shape[0] * shape[1]).reshape(shape)
    kappa = np.stack([np.full(shape, 900.0), np.full(shape, 1.9), T])
    save_big(tmp_path, rimap.InversionRecovery(tau=times), kappa, planes)
    options = ("--sequence", "ir", "--times-ms", " ".join(f"{t:g}" for t in times), "--estimator", estimator)
    said = needed(estimator, (*shape, planes), len(times)) / 2**20
    assert 0.5 * said < peak_of(tmp_path, *options) <= said
