"""The code blocks of a page, and small data that they can run on."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np

from rimap import InversionRecovery, T2Decay

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"(?:^<!-- not run: *(?P<reason>.*?) *-->\n)?^```(?P<language>[\w-]*)(?P<options>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SNIPPET = re.compile(r'^--8<-- "(.*)"$', re.MULTILINE)
_TIMES, _ECHOES = (50, 400, 1100, 2500), (10, 20, 40, 80)
_SHAPE, _AFFINE = (12, 10, 2), np.diag([2.0, 2.0, 4.0, 1.0])


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    code: str
    title: str
    reason: str  # why it is not run
    line: int


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, files that it shows included."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        code = _SNIPPET.sub(lambda m: (ROOT / m[1]).read_text(encoding="utf-8"), found["code"])
        title = re.search(r'title="([^"]*)"', found["options"])
        line = text[: found.start("language")].count("\n") + 1
        yield Block(found["language"], code, title[1] if title else "", found["reason"] or "", line)


def indented_blocks(page: Path) -> list[str]:
    """Return blocks that Markdown makes of indented lines: nothing says what they are."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"(?:^|\n)\n(    [^\n]*)", re.sub(r"^(?:- |\d\. ).*(?:\n .*|\n)*", "", text, flags=re.MULTILINE))


def write_data(folder: Path) -> None:
    """Write what the blocks read: bids/, ir.nii.gz, echo1.nii.gz …, mask.nii.gz, labels.nii.gz, dicom/, recipes/."""
    rng = np.random.default_rng(0)
    T1 = np.linspace(700, 1500, int(np.prod(_SHAPE))).reshape(_SHAPE)
    A = np.full(_SHAPE, 1000.0)
    inversion = InversionRecovery(tau=_TIMES, tr=2550)
    ir = abs(inversion.signal([A, 0 * A + 1.9, T1]) + 10 * rng.standard_normal((4, *_SHAPE)))
    echoes = T2Decay(tau=_ECHOES).signal([A, T1 / 15]) + 10 * rng.standard_normal((4, *_SHAPE))
    mask = np.zeros(_SHAPE, np.uint8)
    mask[2:-2, 2:-2] = 1
    labels = mask * np.where(np.arange(_SHAPE[0])[:, None, None] < 6, 1, 2).astype(np.uint8)

    _save(folder / "ir.nii.gz", np.moveaxis(ir, 0, -1))
    for n, image in enumerate(echoes, start=1):
        _save(folder / f"echo{n}.nii.gz", image)
    _save(folder / "mask.nii.gz", mask)
    _save(folder / "labels.nii.gz", labels)
    bids = folder / "bids"
    (bids / "sub-01" / "anat").mkdir(parents=True)
    (bids / "dataset_description.json").write_text(json.dumps({"Name": "blocks", "BIDSVersion": "1.10.0"}))
    for suffix, entity, images, times, field in (
        ("IRT1", "inv", ir, _TIMES, "InversionTime"),
        ("MESE", "echo", echoes, _ECHOES, "EchoTime"),
    ):
        for n, (image, tau) in enumerate(zip(images, times), start=1):
            stem = bids / "sub-01" / "anat" / f"sub-01_{entity}-{n}_{suffix}"
            _save(stem.with_suffix(".nii.gz"), image)
            stem.with_suffix(".json").write_text(json.dumps({field: tau / 1000, "RepetitionTime": 2.55}))
    _write_dicom(folder / "dicom", ir)
    recipes = folder / "recipes"
    recipes.mkdir()
    for path in (ROOT / "recipes").glob("*.toml"):
        (recipes / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")


def _save(path: Path, values: Any) -> None:
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32 if values.dtype.kind == "f" else np.uint8), _AFFINE), path)


def _write_dicom(folder: Path, images: Any) -> None:
    """Write each inversion time as a series of its own: 5, 6, 7 and 8."""
    make = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "io" / "dicom_builder.py")))
    for number, (image, tau) in enumerate(zip(images, _TIMES), start=5):
        stored = np.rint(np.moveaxis(image, -1, 0)).astype(np.uint16)
        fields = {"InversionTime": tau, "RepetitionTime": 2550, "EchoTime": 12, "SeriesDescription": f"IR {tau}"}
        make.classic(folder, stored, series=number, **fields)
