# ---
# jupyter: {jupytext: {text_representation: {extension: .py, format_name: percent}}}
# ---
# %% [markdown]
# # Fine-tune a network
#
# The network `t1` maps any inversion-recovery protocol. If it is fine-tuned for one protocol, it can be more accurate
# there. This needs torch: `pip install ".[train]"`. The notebook runs a few iterations on tiny patches, to show how it
# works. For a useful network, take a thousand iterations and the default sizes, as in [Train for your own
# protocol](../training.md).

# %%
import tomllib
from pathlib import Path

import numpy as np

import rimap
from rimap.training.loop import Machine, train
from rimap.training.recipe import training_recipe

# %% [markdown]
# The recipe, as in a file for `rimap train`.

# %%
recipe = training_recipe(
    tomllib.loads("""
name = "mine"
sequence = "ir"
times_ms = [50, 400, 1100, 2500]
anatomies = ["builtin"]
init = "t1"

[simulation]
patch_size = 16

[training]
iterations = 4           # 1000
batch_size = 4           # 24
validate_every = 2       # 100
validation_batches = 1   # 4
""")
)
log = []
network = train(recipe, Path("trained"), machine=Machine(accelerator="cpu", workers=0), progress=log.append)
for step in log:
    print(f"{step.done}/{step.total}: loss {step.loss:.3f}")
print("trained", network)

# %% [markdown]
# The network is one file that contains its recipe and the range of its training. If a series is outside this range, a
# warning says why.

# %%
from rimap.simulation.anatomies import brain_mask, digital_brain
from rimap.simulation.subjects import simulate_series, simulate_subject

rng = np.random.default_rng(0)
labels = digital_brain((64, 72, 48))[:, :, 24]
model = rimap.InversionRecovery(tau=[50, 400, 1100, 2500])
truth = simulate_subject(labels, model, rng)
series = simulate_series(truth, model, rimap.Gaussian(sigma=0.03), rng, mask=brain_mask(labels))

for name, estimator in {
    "mine": rimap.RIM.load(network),
    "t1": rimap.RIM.load("t1"),
    "MLE": rimap.MLE(),
}.items():
    maps = estimator.estimate(series)
    error = 100 * (maps["T1"] / truth[-1] - 1)[series.selected]
    print(f"{name:<5} median error {np.median(abs(error)):.1f} %, bias {np.median(error):+.1f} %")

# %%
other = rimap.InversionRecovery(tau=[50, 400, 1100, 6000], tr=8000)
elsewhere = simulate_series(truth, other, rimap.Gaussian(sigma=0.03), rng, mask=brain_mask(labels))
maps = rimap.RIM.load(network).estimate(elsewhere)
print(*maps.warnings, sep="\n")

# %%
rimap.plot(rimap.RIM.load(network).estimate(series))
