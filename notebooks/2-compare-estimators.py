# ---
# jupyter: {jupytext: {text_representation: {extension: .py, format_name: percent}}}
# ---
# %% [markdown]
# # Compare estimators
#
# This notebook maps one slice of a drawn head with four estimators. The protocol is that of the paper (31 inversion
# times up to 0.94 s), with which T1 and B are hard to separate. The truth is known, so that bias and spread can be
# measured.

# %%
import numpy as np

import rimap
from rimap.simulation.anatomies import brain_mask, digital_affine, digital_brain
from rimap.simulation.subjects import simulate_series, simulate_subject
from rimap.simulation.tissues import GM, WM

rng = np.random.default_rng(1)
labels = digital_brain((64, 72, 48))[:, :, 24:25]
model = rimap.PROTOCOLS["IV_T1"]
truth = simulate_subject(labels, model, rng)
sigma = 0.65 / 30  # SNR 30, as the paper counts it
noise, brain = rimap.Gaussian(sigma=sigma), brain_mask(labels)
affine = digital_affine((64, 72, 48))
series = simulate_series(truth, model, noise, rng, mask=brain, affine=affine)
series

# %%
estimators = {
    "NLLS": rimap.NLLS(),
    "MLE": rimap.MLE(),
    "MLE, one B": rimap.MLE(lambda_B=np.inf),
    "RIM": rimap.RIM.load("universal"),
}
maps = {name: e.estimate(series) for name, e in estimators.items()}

# %% [markdown]
# The table shows bias and root mean square error in grey and white matter. The last row is the Cramér-Rao bound of a
# voxel whose B is unknown. An estimator that uses the smoothness of B can be below it.

# %%
tissue = {"GM": labels == GM, "WM": labels == WM}
bound = rimap.cramer_rao_sd(model, noise, np.maximum(truth, 1e-6))[-1] / truth[-1]

print(f"{'':<12}" + "".join(f"{t + ' bias':>10}{t + ' RMSE':>10}" for t in tissue))
for name, m in maps.items():
    print(f"{name:<12}", end="")
    for where in tissue.values():
        error = 100 * (m["T1"] / truth[-1] - 1)[where]
        print(f"{np.median(error):>9.1f}%{np.sqrt(np.mean(error**2)):>9.1f}%", end="")
    print()
print(f"{'bound':<12}" + "".join(f"{100 * np.median(bound[w]):>19.1f}%" for w in tissue.values()))

# %%
for name, m in maps.items():
    figure = rimap.plot(m, window=(0, 3000))
    figure.suptitle(name)

# %% [markdown]
# Standard deviations can be checked as well: if they are right, the error divided by the standard deviation has a
# spread of 1.

# %%
m = maps["MLE"]
z = ((m["T1"] - truth[-1]) / m.sd["T1"])[brain & (m.status == rimap.Status.OK)]
print(f"MLE: error over its standard deviation has a spread of {1.4826 * np.median(abs(z - np.median(z))):.2f}")

# %% [markdown]
# In one scan the spread can be somewhat above or below 1, because neighbours share the error of the smooth B. Over
# repeated scans it is 1.0 in the median voxel.
