"""A simulated subject as a BIDS data set with its truth beside it, as bytes for whoever writes them."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.likelihood import Noise
from rimap.series import WeightedSeries
from rimap.signals.base import bids_time

#: Folder of the truth in a data set; readers of BIDS leave `derivatives` alone.
TRUTH = "derivatives/truth"
_BIDS = "1.10.0"


def series_files(series: WeightedSeries, subject: str) -> dict[str, bytes]:
    """Return the images and sidecars of a series (times in seconds), by path inside the data set."""
    model, noise = series.model, series.noise
    suffix, field = model.bids_suffix, bids_time(model)
    signed = bool(getattr(model, "signed", False))
    tr = getattr(model, "tr", None)
    key = {"InversionTime": "inv", "EchoTime": "echo"}.get(field, "run")
    width = len(str(model.n_images))
    files: dict[str, bytes] = {}
    for n, time in enumerate(model.times):
        parts = [f"sub-{subject}", f"{key}-{n + 1:0{width}d}", *(["part-real"] if signed else []), suffix]
        stem = f"sub-{subject}/anat/{'_'.join(parts)}"
        sidecar: dict[str, Any] = {field: _seconds(time)}
        if tr is not None:
            sidecar["RepetitionTimePreparation"] = _seconds(tr[n])
        if noise is not None:
            sidecar |= {"SimulatedNoise": noise.name, "SimulatedNoiseSigma": float(noise.sigma)}
        files[f"{stem}.nii.gz"] = nifti_bytes(series.images[n], series.affine)
        files[f"{stem}.json"] = _json(sidecar)
    return files


def truth_files(
    kappa: NDArray[Any], labels: NDArray[Any], series: WeightedSeries, subject: str, settings: dict[str, Any]
) -> dict[str, bytes]:
    """Return the truth maps (T in seconds, NaN in the background), the labels and the brain mask, by path.

    Parameters
    ----------
    kappa
        (Q, *X), T in ms.
    labels
        (*X), BrainWeb.
    settings
        How it was simulated, for the sidecars.
    """
    from rimap.simulation.labels import brain_mask

    parameters = series.model.parameters
    main = next((p.suffix for p in reversed(parameters) if p.suffix), "map")
    noise: Noise | None = series.noise
    about = {
        "Simulated": True,
        "SimulationRecipe": settings,
        "SignalModel": series.model.name,
        "NoiseModel": None if noise is None else noise.name,
        "NoiseSigma": None if noise is None else float(noise.sigma),
    }
    files: dict[str, bytes] = {}
    stem = f"{TRUTH}/sub-{subject}/anat/sub-{subject}"
    for p, value in zip(parameters, kappa):
        in_seconds = p.unit == "ms"
        value = np.where(labels > 0, value / 1000 if in_seconds else value, 0.0 if p.name == "A" else np.nan)
        name = f"{stem}_{p.suffix}" if p.suffix else f"{stem}_desc-{p.name}_{main}"
        files[f"{name}.nii.gz"] = nifti_bytes(value.astype(np.float32), series.affine)
        files[f"{name}.json"] = _json({"Units": "s" if in_seconds else "arbitrary", "SkullStripped": False} | about)
    files[f"{stem}_dseg.nii.gz"] = nifti_bytes(labels.astype(np.uint8), series.affine)
    files[f"{stem}_dseg.json"] = _json({"Simulated": True, "SkullStripped": False})
    files[f"{stem}_desc-brain_mask.nii.gz"] = nifti_bytes(brain_mask(labels).astype(np.uint8), series.affine)
    files[f"{stem}_desc-brain_mask.json"] = _json({"Type": "Brain", "Simulated": True})
    return files


def description_files(name: str) -> dict[str, bytes]:
    """Return the descriptions and the README that make the folders data sets."""
    made = [{"Name": "rimap", "Version": importlib.metadata.version("rimap")}]
    raw = {"Name": name, "BIDSVersion": _BIDS, "DatasetType": "raw", "GeneratedBy": made, "License": "CC0"}
    truth = {"Name": f"{name}: truth", "BIDSVersion": _BIDS, "DatasetType": "derivative", "GeneratedBy": made}
    text = (
        "Simulated with `rimap simulate` from a label volume of the head; no person was scanned.\n"
        f"The maps that the images were made from lie in {TRUTH}: T1 or T2 in seconds, M0 (CSF about 1), B, labels.\n"
    ).encode()
    return {
        "dataset_description.json": _json(raw),
        "README": text,
        f"{TRUTH}/dataset_description.json": _json(truth),
        f"{TRUTH}/README": text,
    }


def nifti_bytes(values: NDArray[Any], affine: NDArray[Any] | None) -> bytes:
    """Return a compressed NIfTI file; always the same bytes for the same values."""
    import nibabel

    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def _seconds(ms: float) -> float:
    return float(f"{ms / 1000:.12g}")


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()
