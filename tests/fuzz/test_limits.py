"""Files that claim or hold far too much: refused, in little memory and time."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import TI, Ground

#: Maps the files that are named, with a limit on memory, and says of each how it ended and how long it took.
CHILD = """
import resource, sys, time
import rimap.estimators.nlls.conic.careful_search, rimap.report, rimap.io
from rimap.cli import build
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + 700_000_000,) * 2)
app = build()
for name in sys.argv[1:]:
    options = [] if name == "raw" else ["--sequence", "ir", "--times-ms", "50,400,1100,2500"]
    begun, status = time.process_time(), 0
    try:
        app(["map", name, "-o", "out", "--threads", "1", "-q", "--estimator", "nlls", *options], prog_name="rimap")
    except SystemExit as end:
        status = end.code
    print(name, status, time.process_time() - begun, flush=True)
"""


def packed(pieces: Iterator[bytes], path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        for piece in pieces:
            file.write(packer.compress(piece))
        file.write(packer.flush())


def with_dim(data: bytes, *dim: int) -> bytes:
    raw = bytearray(data)
    struct.pack_into("<8h", raw, 40, *dim)
    return bytes(raw)


def zeros(n: int) -> Iterator[bytes]:
    piece = bytes(1 << 20)
    for _ in range(n >> 20):
        yield piece


def test_too_much(ground: Ground) -> None:
    root, good = ground.clear(), ground.good
    huge = with_dim(good, 4, 32767, 32767, 1000, 4, 1, 1, 1)  # 10^12 voxels
    (root / "claims.nii").write_bytes(huge)
    (root / "claims.nii.gz").write_bytes(gzip.compress(huge))

    def bomb() -> Iterator[bytes]:
        yield good
        yield from zeros(100 << 20)

    def late() -> Iterator[bytes]:  # an extension of 1 GB
        raw = bytearray(good[:348] + b"\1\0\0\0" + struct.pack("<2i", 1 << 30, 6))
        struct.pack_into("<f", raw, 108, float(1 << 30))
        yield bytes(raw)
        yield from zeros(100 << 20)

    def short() -> Iterator[bytes]:  # 4 GB are claimed, which the file might hold: 60 MB are there
        yield with_dim(good, 4, 1000, 1000, 500, 4, 1, 1, 1)[:352]
        for n in range(60):
            yield bytes([n % 251, n % 7]) * (1 << 19)

    packed(bomb(), root / "bomb.nii.gz")
    packed(late(), root / "late.nii.gz")
    packed(short(), root / "short.nii.gz")
    with (root / "short.nii.gz").open("ab") as file:
        file.truncate(5 << 20)
    anat = root / "raw" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for n, ti in enumerate(TI, 1):
        (anat / f"sub-01_inv-{n}_IRT1.nii").write_bytes(with_dim(good, 3, 3, 2, 2, 1, 1, 1, 1))
        (anat / f"sub-01_inv-{n}_IRT1.json").write_text(json.dumps({"InversionTime": ti / 1000}))
    with (anat / "sub-01_inv-2_IRT1.json").open("ab") as file:
        file.truncate(1 << 30)
    names = ["claims.nii", "claims.nii.gz", "bomb.nii.gz", "late.nii.gz", "short.nii.gz", "raw"]
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, *names], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    ends = [line.split() for line in ran.stdout.splitlines()]
    assert [e[:2] for e in ends] == [[n, "2"] for n in names], ran.stdout + ran.stderr
    assert max(float(e[2]) for e in ends) < 20, ran.stdout
    errors = ran.stderr.splitlines()
    assert len(errors) == len(names) and all(e.startswith("rimap: error: ") for e in errors), ran.stderr
    assert "not enough memory" not in ran.stderr and not (root / "out").exists()


@pytest.mark.parametrize("n", [5, 6, 7])
def test_more_axes_than_there_are(ground: Ground, n: int) -> None:
    path = ground.clear() / "x.nii"
    path.write_bytes(with_dim(ground.good, n, 3, 2, 2, 1, 4, 1, 1))
    assert ground.loose(path)[0] == 0  # the images lie along the one axis that is left
