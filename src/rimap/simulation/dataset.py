"""A simulated subject as a BIDS data set with the true maps, as bytes for the caller to write."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.likelihood import Noise
from rimap.series import WeightedSeries
from rimap.signals.base import FIELD, Derived, Parameter, SignalModel, image_suffix

#: Folder of the truth in a data set; readers of BIDS leave `derivatives` alone.
TRUTH = "derivatives/truth"
#: The version whose names and fields are written.
_BIDS = "1.10.0"


def series_files(series: WeightedSeries, subject: str) -> dict[str, bytes]:
    """Return the images and sidecars of a series, and the maps that it gives, by path inside the data set.

    Sidecars have every declared setting that BIDS has a field for, in the unit of BIDS.
    """
    model, noise = series.model, series.noise
    entity = model.axis.entity or ("run" if model.n_images > 1 else "")
    width = len(str(model.n_images))
    about = {} if noise is None else {"SimulatedNoise": noise.name, "SimulatedNoiseSigma": float(noise.sigma)}
    files: dict[str, bytes] = {}
    for n in range(model.n_images):
        number = [f"{entity}-{n + 1:0{width}d}"] if entity else []
        parts = [f"sub-{subject}", *number, *(["part-real"] if model.is_signed else [])]
        stem = f"sub-{subject}/anat/{'_'.join([*parts, image_suffix(model)])}"
        files[f"{stem}.nii.gz"] = nifti_bytes(series.images[n], series.affine)
        sidecars = _sidecars(model, n)
        files[f"{stem}.json"] = _json(sidecars.pop("") | about)
        files |= {f"sub-{subject}/anat/sub-{subject}_{name}.json": _json(sidecar) for name, sidecar in sidecars.items()}
    for name, value in series.given.items():
        p = model.parameters[model.index(name)]
        if np.ndim(value) and p.role == FIELD and p.suffix:
            stem = f"sub-{subject}/fmap/sub-{subject}_{p.suffix}"
            files[f"{stem}.nii.gz"] = nifti_bytes(np.asarray(value, np.float32), series.affine)
            files[f"{stem}.json"] = _json({"Units": "arbitrary", "Simulated": True})
    return files


def _sidecars(model: SignalModel, n: int) -> dict[str, dict[str, Any]]:
    """Return the sidecar of image n, under "", and those of other files that have some of its settings, by their
    names.
    """
    found: dict[str, dict[str, Any]] = {"": {}}
    for setting in model.settings.values():
        value = getattr(model, setting.name)
        if value is None or not setting.bids:
            continue
        own = value if setting.per_image is False or np.ndim(value) == 0 else value[n]
        numbers = [float(f"{v / setting.factor:.12g}") for v in np.atleast_1d(own)]
        found.setdefault(setting.read_from, {})[setting.bids[0]] = numbers[0] if len(numbers) == 1 else numbers
    return found


def truth_files(
    kappa: NDArray[Any], labels: NDArray[Any], series: WeightedSeries, subject: str, settings: dict[str, Any]
) -> dict[str, bytes]:
    """Return the truth maps (times in seconds, NaN in the background), the labels and the brain mask, by path.

    Parameters
    ----------
    kappa
        (Q, *X), times in ms.
    labels
        (*X), BrainWeb.
    settings
        How it was simulated, for the sidecars.
    """
    from rimap.simulation.label_volumes import brain_mask

    model = series.model
    noise: Noise | None = series.noise
    about = {
        "Simulated": True,
        "SimulationRecipe": settings,
        "SignalModel": model.name,
        "NoiseModel": None if noise is None else noise.name,
        "NoiseSigma": None if noise is None else float(noise.sigma),
    }
    maps = model.by_name(kappa)
    quantities: list[Parameter | Derived] = [*model.parameters, *model.derived]
    with np.errstate(all="ignore"):
        values = maps | {d.name: np.asarray(d.formula(model, maps)) for d in model.derived}
    main = next((q.suffix for q in (model.main, *quantities) if q.suffix), "map")
    files: dict[str, bytes] = {}
    stem = f"{TRUTH}/sub-{subject}/anat/sub-{subject}"
    for quantity in quantities:
        in_seconds = quantity.unit == "ms"
        outside = 0.0 if isinstance(quantity, Parameter) and quantity.amplitude else np.nan
        value = np.where(labels > 0, values[quantity.name] / (1000 if in_seconds else 1), outside)
        name = f"{stem}_{quantity.suffix}" if quantity.suffix else f"{stem}_desc-{quantity.name}_{main}"
        units = "s" if in_seconds else quantity.unit if quantity.unit not in ("1", "a.u.") else "arbitrary"
        files[f"{name}.nii.gz"] = nifti_bytes(value.astype(np.float32), series.affine)
        files[f"{name}.json"] = _json({"Units": units, "SkullStripped": False} | about)
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
        f"The maps that the images were made from are in {TRUTH}: relaxation times in seconds, amplitudes (CSF about "
        f"1), fields,\n"
        "and labels.\n"
    ).encode()
    return {
        "dataset_description.json": _json(raw),
        "README": text,
        f"{TRUTH}/dataset_description.json": _json(truth),
        f"{TRUTH}/README": text,
    }


def nifti_bytes(values: NDArray[Any], affine: NDArray[Any] | None) -> bytes:
    """Return a compressed NIfTI file of the values (X, Y, Z) or (X, Y, Z, N); the same values give the same bytes."""
    import nibabel

    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()
