"""Any signal model as a data set: plausible settings, and images with sidecars that have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.settings import settings_of

N_IMAGES = 6
#: Models whose settings depend on each other.
_TRAINS: dict[str, Any] = {"tr": 5000.0, "tr_excitation": 7.1, "number_shots": (40.0, 80.0)}
_SPECIAL: dict[str, dict[str, Any]] = {
    "mp2rage": {"ti": (700.0, 2500.0), "flip_angle": (4.0, 5.0), **_TRAINS},
    "mp2rage-uni": {"ti": 700.0, "ti_second": 2500.0, "flip_angle": 4.0, "flip_angle_second": 5.0, **_TRAINS},
}
SHAPE = (4, 5, 2)


def example(cls: type[SignalModel], *, optional: bool = True, shared: bool = False) -> SignalModel:
    """Return a model with plausible settings.

    Parameters
    ----------
    optional
        Whether it has its optional settings.
    shared
        Whether settings that may differ between the images, or not, are the same in all.
    """
    if cls.name in _SPECIAL:
        more = {s.name: 0.9 for s in settings_of(cls).values() if not s.required and optional}
        return cls(**{**_SPECIAL[cls.name], **more})
    values: dict[str, Any] = {}
    axis = axis_of(cls)
    step = min(max(2 * axis.plausible[0], 1.0), 0.9 * axis.plausible[1] / N_IMAGES)
    for s in settings_of(cls).values():
        if not (s.required or optional):
            continue
        low = max(1.5 * s.plausible[0], 1e-3)
        high = min(0.8 * s.plausible[1], 100 * low)
        if s.longer_than:
            low = 2.0 * max(values[s.longer_than])
            high = 1.5 * low
        several = np.geomspace(low, high, N_IMAGES).round(3)
        if s.name == axis.name:  # evenly spaced, as the echoes of a train are
            several = (step * np.arange(1, N_IMAGES + 1)).round(3)
        elif not s.bids and s.unit == axis.unit:
            several = np.full(N_IMAGES, step)
        one = s.per_image is False or (s.per_image is None and shared)
        values[s.name] = float(several[2]) if one else tuple(several.tolist())
    return cls(**values)


def images_of(model: SignalModel, seed: int = 0) -> NDArray[np.float32]:
    """Return images (N, *X) of the model, for parameters that vary over the voxels."""
    rng = np.random.default_rng(seed)
    kappa = []
    for p in model.parameters:
        low, high = p.bounds
        start = 1000.0 if p.start is None else p.start
        kappa.append(np.clip(start * rng.uniform(0.9, 1.1, SHAPE), low, high))
    return np.asarray(model.signal(np.stack(kappa)), dtype=np.float32)


def sidecars_of(model: SignalModel, read_from: str = "") -> list[dict[str, Any]]:
    """Return what the sidecar of each image has: the settings in the units of BIDS.

    Parameters
    ----------
    read_from
        The sidecars of another image of the scan (`Setting.read_from`) in place of those of the images.
    """
    sidecars: list[dict[str, Any]] = [{} for _ in range(model.n_images)]
    for s in model.settings.values():
        value = getattr(model, s.name)
        if value is None or s.read_from != read_from:
            continue
        written = np.atleast_1d(value) / s.factor
        values = [float(f"{v:.12g}") for v in written.tolist()]
        for n, sidecar in enumerate(sidecars):
            shared = values[0] if len(values) == 1 else values
            sidecar[s.sidecar_field] = shared if s.per_image is False or len(values) == 1 else values[n]
    return sidecars


def suffix_of(cls: type[SignalModel]) -> str:
    """Return the suffix with which images of a model are found."""
    return cls.bids_suffix or next(iter(cls.also_reads), "XYZ")


def write_bids(root: Path, model: SignalModel, subject: str = "1", extra: str = "", **more: Any) -> Path:
    """Write a series as a BIDS data set.

    Parameters
    ----------
    extra
        An entity that all names have: ``_acq-x``.
    more
        Further fields of all sidecars.
    """
    cls, images = type(model), images_of(model)
    entity = axis_of(cls).entity or "run"
    signed = ["part-real"] if model.is_signed else []
    stem = [f"sub-{subject}", *([extra.strip("_")] if extra else [])]
    for n, (image, sidecar) in enumerate(zip(images, sidecars_of(model)), 1):
        number = [f"{entity}-{n}"] if len(images) > 1 else []
        save(
            root / f"sub-{subject}/anat" / f"{_name([*stem, *number, *signed], suffix_of(cls))}.nii.gz",
            image,
            sidecar | more,
        )
    for other in {s.read_from for s in model.settings.values()} - {""}:
        numbered, suffix = other.rsplit("_", 1)
        path = root / f"sub-{subject}/anat" / f"{_name([*stem, numbered], suffix)}.json"
        path.write_text(json.dumps(sidecars_of(model, other)[0] | more))
    (root / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
    return root


def _name(parts: list[str], suffix: str) -> str:
    order = ("sub", "acq", "run", "echo", "flip", "inv", "mt", "part")
    return "_".join([*sorted(parts, key=lambda x: order.index(x.split("-")[0])), suffix])


def save(path: Path, data: Any, sidecar: Mapping[str, Any] | None = None) -> Path:
    """Write an image and, if given, its sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.asarray(data), np.diag([2.0, 2.0, 3.0, 1.0])).to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.split(".nii")[0] + ".json").write_text(json.dumps(sidecar))
    return path
