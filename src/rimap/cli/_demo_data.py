"""The data set of the demonstration: one simulated subject as a scanner would have left it, in BIDS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from rimap import __version__
from rimap.errors import InputError
from rimap.io import write_whole
from rimap.likelihood import Rician
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.simulation.anatomies import brain_mask, digital_affine, digital_brain
from rimap.simulation.subjects import simulate_subject

MODEL = InversionRecovery(tau=(50, 150, 400, 800, 1400, 2400, 4000), tr=6000.0)
#: Of the whole head, and the slices of it that are scanned.
SHAPE, SLICES = (128, 144, 48), slice(20, 32, 3)
SIGMA, SCALE = 0.02, 1000.0
NAME = "rimap demo: a drawn brain, simulated inversion recovery"
REGIONS = ((2, "grey matter"), (3, "white matter"))


@dataclass(frozen=True)
class Demo:
    """Where the parts of the demonstration lie, and what is true."""

    dataset: Path
    mask: Path
    labels: Path
    out: Path
    truth: tuple[tuple[int, str, float], ...]


def write_demo(folder: Path, seed: int = 0) -> Demo:
    """Write the data set below `folder` and return where it lies.

    Raises
    ------
    InputError
        Where the folder holds something else.
    """
    dataset = folder / "bids"
    description = dataset / "dataset_description.json"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not _is_demo(description):
        raise InputError(f"{folder} exists and is no demonstration of rimap. Give another folder: rimap demo FOLDER.")
    whole = digital_brain(SHAPE)
    labels = whole[:, :, SLICES]
    affine = digital_affine(SHAPE)
    affine[2, 3] += affine[2, 2] * SLICES.start
    affine[2, 2] *= SLICES.step
    rng = np.random.default_rng(seed)
    kappa = simulate_subject(labels, MODEL, rng)
    images = SCALE * Rician(SIGMA).sample(MODEL.signal(kappa), rng)

    anat = dataset / "sub-01" / "anat"
    masks = dataset / "derivatives" / "labels"
    _json(description, {"Name": NAME, "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0"})
    write_whole(dataset / "README", f"Made by `rimap demo` (rimap {__version__}). A drawing: it shows no person.\n")
    for n, (image, tau) in enumerate(zip(images, MODEL.times), start=1):
        stem = f"sub-01_inv-{n}_IRT1"
        _nifti(anat / f"{stem}.nii.gz", image.astype(np.float32), affine)
        _json(
            anat / f"{stem}.json",
            {"InversionTime": tau / 1000, "RepetitionTimePreparation": 6.0, "MagneticFieldStrength": 3},
        )
    generated = {"Name": "rimap", "Version": __version__}
    _json(
        masks / "dataset_description.json",
        {"Name": NAME, "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": [generated]},
    )
    mask = masks / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz"
    regions = masks / "sub-01" / "anat" / "sub-01_desc-tissue_dseg.nii.gz"
    inside = brain_mask(labels)
    _nifti(mask, inside.astype(np.uint8), affine)
    _nifti(regions, np.where(np.isin(labels, [label for label, _ in REGIONS]), labels, 0).astype(np.uint8), affine)
    truth = tuple((label, name, float(np.median(kappa[-1][labels == label]))) for label, name in REGIONS)
    return Demo(dataset, mask, regions, folder / "maps", truth)


def _is_demo(description: Path) -> bool:
    try:
        return bool(json.loads(description.read_text(encoding="utf-8")).get("Name") == NAME)
    except (OSError, ValueError, AttributeError):
        return False


def _json(path: Path, data: dict[str, Any]) -> None:
    write_whole(path, json.dumps(data, indent=2) + "\n")


def _nifti(path: Path, values: NDArray[Any], affine: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
