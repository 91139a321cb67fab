# ---
# jupyter: {jupytext: {text_representation: {extension: .py, format_name: percent}}}
# ---
# %% [markdown]
# # Map a brain
#
# From files to maps and back to files. With a folder of real scans (`RIMAP_EXAMPLE_DATA`) the volunteer in it is mapped;
# without one, a head is drawn, scanned by simulation and written as a scanner would have left it.

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
# Any file of the series will do; the others, the times and TR are found.

# %%
series = rimap.read(scans[0], mask="mask.nii.gz" if Path("mask.nii.gz").exists() else None)
series

# %% [markdown]
# The default estimator: maximum likelihood, with a B that is smooth over the volume.

# %%
maps = rimap.MLE().estimate(series)
maps

# %%
rimap.plot(maps, sd=True)

# %% [markdown]
# Every voxel has a status, and a voxel without an answer is NaN. What you should know stands in the warnings.

# %%
for status, n in maps.count().items():
    print(f"{status.name:<16} {n:>8,}  {status.meaning}")
print(*maps.warnings, sep="\n")

# %% [markdown]
# B belongs to the pulse, not to the tissue: no anatomy should be seen in it.

# %%
rimap.plot(maps, "B")

# %% [markdown]
# To files. `rimap map` does this with sidecars, provenance and a report; by hand it is a line.

# %%
nib.save(nib.Nifti1Image((maps["T1"] / 1000).astype(np.float32), series.affine), "T1map.nii.gz")
print(f"median T1 {np.nanmedian(maps['T1'][maps.status == rimap.Status.OK]):.0f} ms")
