"""BrainWeb's twenty anatomical models, through its download package: cached, checked by hash, offline from a folder.

References
----------
Cocosco et al. 1997; Collins et al. 1998, doi:10.1109/42.712135; Aubert-Broche et al. 2006,
doi:10.1016/j.neuroimage.2006.03.052.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.simulation.label_volumes import as_labels

#: The normal subjects that BrainWeb offers.
SUBJECTS = (4, 5, 6, 18, 20, 38, *range(41, 55))
_RAW_SHAPE = (362, 434, 362)  # z, y, x at 0.5 mm


def cache_folder() -> Path:
    """Return where downloaded models are kept: ``rimap/brainweb`` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rimap" / "brainweb"


def load_brainweb(subject: int | str, folder: str | Path | None = None) -> NDArray[np.uint8]:
    """Return the labels of a BrainWeb subject at 1 mm, (181, 217, 181), axes to the right, front and head.

    Looked for in `folder` first: a file that an earlier call kept there, or one that the packages brainweb-dl
    (``brainweb_s04_crisp.nii.gz``) or brainweb (``subject_04.bin.gz``) have downloaded. Only then is brainweb-dl asked
    to download it.

    The SHA-256 of what is kept is written beside it, and checked at each later use. BrainWeb itself
    publishes none.

    Parameters
    ----------
    subject
        4, 5, 6, 18, 20, 38, 41–54.
    folder
        Folder of the models; by default `cache_folder`.

    Raises
    ------
    InputError
        For an unknown subject, a kept file that has changed, or where the package is missing or cannot download.
    """
    if not str(subject).isdigit() or int(subject) not in SUBJECTS:
        raise InputError(
            f"BrainWeb: expected one of the subjects {', '.join(f'{s:02d}' for s in SUBJECTS)}, got {subject!r}."
        )
    number = int(subject)
    folder = cache_folder() if folder is None else Path(folder)
    kept, digest = folder / f"brainweb{number:02d}_head.npy", folder / f"brainweb{number:02d}_head.sha256"
    if kept.exists() and digest.exists():
        if hashlib.sha256(kept.read_bytes()).hexdigest() != digest.read_text().strip():
            raise InputError(f"{kept} has changed since it was downloaded. Delete it to download it again.")
        return as_labels(np.load(kept, allow_pickle=False), str(kept))
    nifti, raw = folder / f"brainweb_s{number:02d}_crisp.nii.gz", folder / f"subject_{number:02d}.bin.gz"
    if nifti.exists():
        labels = _at_1_mm(_read_nifti(nifti))
    elif raw.exists():
        values = np.frombuffer(gzip.decompress(raw.read_bytes()), dtype="<u2")
        if values.size != np.prod(_RAW_SHAPE):
            raise InputError(f"{raw} is not a complete BrainWeb model. Delete it and download it again.")
        labels = _at_1_mm(values.reshape(_RAW_SHAPE) >> 4)
    else:
        labels = _at_1_mm(_download(number, folder))
    labels = as_labels(labels, f"BrainWeb subject {number:02d}")
    folder.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, labels, allow_pickle=False)
    digest.write_text(hashlib.sha256(part.read_bytes()).hexdigest() + "\n")
    part.replace(kept)
    return labels


def _at_1_mm(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn (z, y, x) at 0.5 mm into (x, y, z) at 1 mm."""
    return np.ascontiguousarray(values[::2, ::2, ::2].T.astype(np.uint8))


def _read_nifti(path: Path) -> NDArray[Any]:
    import nibabel

    return np.asanyarray(nibabel.load(path).dataobj)


def _download(number: int, folder: Path) -> NDArray[Any]:
    try:
        package: Any = importlib.import_module("brainweb_dl._brainweb")
    except ImportError:
        raise InputError(
            f"BrainWeb subject {number:02d} is not in {folder}, and the package that downloads it is not installed. "
            "Run pip install 'rimap[brainweb]', put the file there, or use `builtin`."
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        path = package.get_brainweb20(number, brainweb_dir=folder, segmentation=package.Segmentation.CRISP)
        return _read_nifti(Path(path))
    except Exception as error:
        raise InputError(
            f"BrainWeb subject {number:02d} could not be downloaded ({error}). Try again, put the file into {folder}, "
            "or use `builtin`."
        ) from None
