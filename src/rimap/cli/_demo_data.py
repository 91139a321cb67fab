"""The data set of the demonstration: one simulated subject in BIDS, as if it had been scanned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rimap.errors import InputError
from rimap.io.atomic import write_together
from rimap.likelihood import Rician
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.simulation import dataset
from rimap.simulation.anatomies import digital_affine, digital_brain
from rimap.simulation.label_volumes import brain_mask
from rimap.simulation.subjects import simulate_series, simulate_subject
from rimap.simulation.tissues import LABELS

#: Inversion times and TR, ms: they hold the T1 of all tissues at 3 T.
MODEL = InversionRecovery(tau=(50, 150, 400, 800, 1400, 2400, 4000), tr=6000.0)
#: Matrix size of the whole head, and the slices of it that are scanned.
SHAPE, SLICES = (128, 144, 48), slice(20, 32, 3)
#: Noise SD relative to the amplitude A of CSF, and the factor from A to image intensity.
SIGMA, SCALE = 0.02, 1000.0
#: The name in dataset_description.json, by which a later demo recognises its own folder.
NAME = "rimap demo"


@dataclass(frozen=True)
class Demo:
    """Paths of the demonstration data, and the simulated truth: label, tissue and median T1 in ms."""

    dataset: Path
    mask: Path
    labels: Path
    out: Path
    truth: tuple[tuple[int, str, float], ...]


def write_demo(folder: Path, seed: int = 0) -> Demo:
    """Write the data set below `folder` and return its paths.

    Raises
    ------
    InputError
        If the folder contains anything else.
    """
    root = folder / "bids"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not _is_demo(root):
        raise InputError(
            f"{folder}: expected a new or empty folder, got one with other files. Give another: rimap demo FOLDER."
        )
    labels = digital_brain(SHAPE)[:, :, SLICES]
    affine = digital_affine(SHAPE)
    affine[2, 3] += affine[2, 2] * SLICES.start
    affine[2, 2] *= SLICES.step
    rng = np.random.default_rng(seed)
    kappa = simulate_subject(labels, MODEL, rng)
    kappa[[MODEL.index(amplitude.name) for amplitude in MODEL.amplitudes]] *= SCALE
    series = simulate_series(kappa, MODEL, Rician(SIGMA * SCALE), rng, affine=affine)
    regions = np.where(brain_mask(labels), labels, 0).astype(np.uint8)

    anat = f"{dataset.TRUTH}/sub-01/anat"
    labelled = f"{anat}/sub-01_desc-brain_dseg.nii.gz"
    files = dataset.description_files(NAME) | dataset.series_files(series, "01")
    files |= dataset.truth_files(kappa, labels, series, "01", {"seed": seed})
    files[labelled] = dataset.nifti_bytes(regions, affine)
    present = [int(k) for k in np.unique(regions) if k]
    lines = ["index\tname", *(f"{k}\t{LABELS[k]}" for k in present)]
    files[labelled.replace(".nii.gz", ".tsv")] = ("\n".join(lines) + "\n").encode()
    write_together({root / name: content for name, content in files.items()})
    truth = tuple((int(k), LABELS[k], float(np.median(kappa[MODEL.time_index][regions == k]))) for k in present)
    return Demo(root, root / anat / "sub-01_desc-brain_mask.nii.gz", root / labelled, folder / "maps", truth)


def _is_demo(root: Path) -> bool:
    try:
        text = (root / "dataset_description.json").read_text(encoding="utf-8")
        return bool(json.loads(text).get("Name") == NAME)
    except (OSError, ValueError, AttributeError):
        return False
