# ---
# jupyter: {jupytext: {text_representation: {extension: .py, format_name: percent}}}
# ---
# %% [markdown]
# # Your own signal model
#
# This notebook adds a T2 decay with a constant offset, $A\,(e^{-\tau/T_2} + B)$: at long echo times, a part of the
# signal does not decay. The model is one class. The page [Add a signal model](../signal-model.md) explains each part
# of it, and how a package makes it available on the command line.

# %%
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import rimap
from rimap.arrays import column, namespace


@dataclass(frozen=True)
class T2WithOffset(rimap.SignalModel):
    """S = A (e^(−τ/T2) + B)."""

    te: tuple[float, ...] = rimap.setting("echo time", "TE", bids="EchoTime", entity="echo")

    name: ClassVar[str] = "t2b"
    title: ClassVar[str] = "T2 decay with an offset"
    bids_suffix: ClassVar[str] = "T2BW"
    parameters: ClassVar[tuple[rimap.Parameter, ...]] = (
        rimap.Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map"),
        rimap.Parameter("B", "1", (0.0, 0.5), "field"),
        rimap.Parameter("T2", "ms", (1.0, 2000.0), "time", start=80.0, suffix="T2map"),
    )
    linear_in_field = True  # a claim that rimap checks; it opens the fast search for the global optimum

    def shape(self, B, T2):
        return namespace(T2).exp(-column(self.te, T2) / T2) + B


# %% [markdown]
# First, compare the derivatives with finite differences, because all estimators use them.

# %%
model = T2WithOffset(te=[8, 16, 24, 40, 64, 96, 160, 240, 320])
kappa = np.array([[100.0], [0.1], [70.0]])
for q, p in enumerate(model.parameters):
    step = np.zeros_like(kappa)
    step[q] = 1e-5 * kappa[q]
    numeric = (model.signal(kappa + step) - model.signal(kappa - step)) / (2 * step[q])
    assert np.allclose(numeric, model.partials(kappa)[:, q], rtol=1e-6), p.name

# %% [markdown]
# Then map a phantom of tubes with this model, and with the one without an offset.

# %%
x, y = np.meshgrid(np.arange(60), np.arange(60), indexing="ij")
T2, tubes = np.full((60, 60), 30.0), np.zeros((60, 60), bool)
for i, value in enumerate((20.0, 40.0, 60.0, 90.0, 130.0, 200.0)):
    where = (x - 15 - 30 * (i // 3)) ** 2 + (y - 10 - 20 * (i % 3)) ** 2 < 64
    T2[where], tubes = value, tubes | where
truth = np.stack([np.full_like(T2, 100.0), np.full_like(T2, 0.08), T2])
rng = np.random.default_rng(0)
images = model.signal(truth) + 0.5 * rng.standard_normal((model.n_images, 60, 60))

series = rimap.WeightedSeries(images, model, mask=tubes)
plain = rimap.WeightedSeries(images, rimap.T2Decay(tau=model.te), mask=tubes)
right, wrong = rimap.NLLS().estimate(series), rimap.NLLS().estimate(plain)
right

# %%
for value in np.unique(T2[tubes]):
    where = tubes & (value == T2)
    a, b, rms = (np.median(x[where]) for x in (right["T2"], wrong["T2"], wrong.residual))
    print(f"T2 {value:3.0f} ms: with the offset {a:5.1f}, without {b:5.1f}, residual {rms:.1f}")

# %% [markdown]
# The residual map shows which model is wrong: without the offset, the residual is several times σ = 0.5. The
# Cramér-Rao bound shows how much precision the third parameter costs.

# %%
noise = rimap.Gaussian(sigma=0.5)
free = rimap.cramer_rao_sd(model, noise, kappa)[-1]
fixed = rimap.cramer_rao_sd(plain.model, noise, kappa[[0, 2]])[-1]
print(f"SD of T2 = 70 ms: {free[0]:.2f} ms with the offset, {fixed[0]:.2f} ms without")

# %%
rimap.plot(right, sd=True)
