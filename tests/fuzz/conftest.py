"""`rimap map` in this process on a series that is broken in some way, and what must hold of every end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, Phase, settings

import rimap
from rimap.cli._console import listener
from rimap.cli._guard import guarded
from rimap.workflow import Request, map_series

#: How many cases all of the tests here try together: `make fuzz` sets it.
CASES = int(os.environ.get("RIMAP_FUZZ", "300"))
TI = (50.0, 400.0, 1100.0, 2500.0)
SHAPE = (3, 2, 2)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
MODEL = rimap.InversionRecovery(tau=TI, tr=9000.0)
#: Processor time that a case may take (s): a loop without an end, not a slow machine.
LONGEST = 60.0


def cases(share: float, least: int = 10) -> Any:
    """Return the settings of a test that takes this share of all cases."""
    return settings(
        max_examples=max(least, int(share * CASES)),
        deadline=None,
        database=None,
        derandomize="RIMAP_FUZZ" not in os.environ,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes; the case is printed as it is
        suppress_health_check=list(HealthCheck),
    )


def images() -> Any:
    """Return a small series (N, *X)."""
    T1 = np.linspace(400, 1800, int(np.prod(SHAPE))).reshape(SHAPE)
    S = MODEL.signal(np.stack([np.full(SHAPE, 1000.0), np.full(SHAPE, 1.9), T1]))
    return np.round(S + np.random.default_rng(0).normal(0, 3, S.shape)).clip(0)


def data_set(root: Path, **more: Any) -> Path:
    """Write an IRT1 series in a data set, whose sidecars have more fields."""
    anat = root / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for n, (ti, image) in enumerate(zip(TI, images()), 1):
        stem = anat / f"sub-01_inv-{n}_IRT1"
        nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), f"{stem}.nii")
        stem.with_name(stem.name + ".json").write_text(json.dumps({"InversionTime": ti / 1000, **more}))
    return root


def reference(path: Path) -> Any:
    """Return the images (N, *X) of a 4-D file as nibabel reads them."""
    data = np.asanyarray(nib.load(path).dataobj)
    return np.moveaxis(data if data.ndim < 5 else data[:, :, :, 0], -1, 0)


class Ground:
    """A folder with a good series in it, to be broken."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root, root / "out"
        data = np.moveaxis(images(), 0, -1).astype(np.int16)
        self.good = nib.Nifti1Image(data, AFFINE).to_bytes()

    def clear(self) -> Path:
        """Return the folder, emptied."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        return self.root

    def map(self, *inputs: Path, **options: Any) -> tuple[int, str]:
        """Return exit status and message of `rimap map`; hold it to what must be true of every end."""
        before = {p: p.read_bytes() for p in self.root.rglob("*") if p.is_file() and p.stat().st_size < 1 << 20}
        request = Request(inputs=inputs, out=self.out, **({"estimator": "nlls", "threads": 1} | options))
        said, status, begun = io.StringIO(), 0, time.process_time()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                guarded(lambda: map_series(request, listener()) and None)()
            except typer.Exit as end:
                status = end.exit_code
        message = said.getvalue()
        assert time.process_time() - begun < LONGEST
        assert status in (0, 2), message
        for path, data in before.items():
            assert path.read_bytes() == data, path
        if status == 2:
            errors = [line for line in message.splitlines() if line.startswith("rimap: error: ")]
            assert errors and len(message) < 1500 and "Traceback" not in message, message
            assert not self.out.exists(), sorted(self.out.rglob("*"))
        return status, message

    def loose(self, path: Path, **options: Any) -> tuple[int, str]:
        """Map a 4-D file at the times of the good series."""
        return self.map(path, **({"sequence": "ir", "times_ms": TI, "tr_ms": (9000.0,)} | options))

    def T1(self) -> Any:
        """Return the map that was written, ms."""
        (path,) = (p for p in self.out.rglob("*_T1map.nii.gz") if "desc-" not in p.name)
        return np.asarray(nib.load(path).dataobj, dtype=float) * 1000

    def metadata(self) -> dict[str, Any]:
        """Return the sidecar of that map."""
        (path,) = (p for p in self.out.rglob("*_T1map.json") if "desc-" not in p.name and p.parent.name != ".rimap")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """Give the functions above to the tests."""
    return SimpleNamespace(images=images, reference=reference, TI=TI, SHAPE=SHAPE, AFFINE=AFFINE, MODEL=MODEL)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The folder; a page is not made: that is tested elsewhere, and takes longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rimap.cli._guard._defect", _traceback)
        patch.setattr("rimap.report.page", lambda series, maps, run: "<html></html>")
        yield Ground(tmp_path_factory.mktemp("fuzz") / "ground")


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The folder, for runs that end with a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rimap.cli._guard._defect", _traceback)
        yield Ground(tmp_path_factory.mktemp("paged") / "ground")


def _traceback(error: Exception) -> None:
    traceback.print_exception(error)
    raise typer.Exit(1)
