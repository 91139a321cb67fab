# ---
# jupyter: {jupytext: {text_representation: {extension: .py, format_name: percent}}}
# ---
# %% [markdown]
# # Map a brain
#
# This notebook reads files, maps T1, and writes files. If the variable `RIMAP_EXAMPLE_DATA` names a folder of real
# scans, it maps the volunteer in it. Otherwise it simulates a scan of a drawn head and writes the files that a scanner
# would write.

# %%
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np

import rimap

data = Path(os.environ.get("RIMAP_EXAMPLE_DATA", "no scans here")) / "brain_in_vivo"
scans = sorted(data.rglob("*_IRT1.nii.gz"))

# %%
if not scans:
    from rimap.simulation.anatomies import brain_mask, digital_affine, digital_brain
    from rimap.simulation.subjects import simulate_series, simulate_subject

    rng = np.random.default_rng(0)
    labels = digital_brain((64, 72, 48))[:, :, 22:25]
    model = rimap.InversionRecovery(tau=[50, 150, 400, 800, 1400, 2400, 4000], tr=6000)
    kappa = simulate_subject(labels, model, rng)
    kappa[0] *= 1000  # A, in the unit of the images
    scan = simulate_series(kappa, model, rimap.Rician(sigma=20.0), rng)
    affine = digital_affine((64, 72, 48))
    nib.save(nib.Nifti1Image(np.moveaxis(scan.images, 0, -1), affine), "head_IRT1.nii.gz")
    nib.save(nib.Nifti1Image(brain_mask(labels).astype(np.uint8), affine), "mask.nii.gz")
    times = [t / 1000 for t in model.times]  # sidecars are in seconds
    Path("head_IRT1.json").write_text(json.dumps({"InversionTime": times, "RepetitionTime": 6.0}))
    scans = [Path("head_IRT1.nii.gz")]

# %% [markdown]
# Give any file of the series. rimap finds the others, the times and TR.

# %%
series = rimap.read(scans[0], mask="mask.nii.gz" if Path("mask.nii.gz").exists() else None)
series

# %% [markdown]
# Maximum likelihood, with a B that is smooth over the volume. On the command line, the default for inversion recovery
# is the network `universal`, which is `rimap.RIM.load("universal")` in Python.

# %%
maps = rimap.MLE().estimate(series)
maps

# %%
rimap.plot(maps, sd=True)

# %% [markdown]
# Every voxel has a quality flag, and a voxel without a value is NaN. The warnings list what you should check.

# %%
for status, n in maps.count().items():
    print(f"{status.name:<16} {n:>8,}  {status.meaning}")
print(*maps.warnings, sep="\n")

# %% [markdown]
# B is a property of the pulse and not of the tissue, so its map should not show anatomy.

# %%
rimap.plot(maps, "B")

# %% [markdown]
# Write a file. `rimap map` and `rimap.write` also write sidecars, provenance and a report.

# %%
nib.save(nib.Nifti1Image((maps["T1"] / 1000).astype(np.float32), series.affine), "T1map.nii.gz")
print(f"median T1 {np.nanmedian(maps['T1'][maps.status == rimap.Status.OK]):.0f} ms")
