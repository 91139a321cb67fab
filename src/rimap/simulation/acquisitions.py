"""The acquisition of a batch: its times, its TR and what the model knows of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.signals.base import SignalModel
from rimap.simulation.recipe import PatchRecipe, model_class


@dataclass(frozen=True)
class Acquisition:
    """What one batch shares.

    Parameters
    ----------
    model
        As the estimator will know it.
    hidden_tr
        TR (ms) of an acquisition whose TR the model does not know, or `None`.
    rician
        Whether the noise is Rician.
    """

    model: SignalModel
    hidden_tr: float | None
    rician: bool


def stream(*key: int) -> np.random.Generator:
    """Return the random generator of a key of whole numbers."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))


def effective(kappa: NDArray[Any], tr: float) -> NDArray[Any]:
    """Return the (A, B, T1) (3, *X) that a model without TR sees of an acquisition with TR (ms).

    A(1 − B e^(−τ/T1) + (B − 1) e^(−TR/T1)) = A′(1 − B′ e^(−τ/T1)), A′ = A·g, B′ = B/g, g = 1 + (B − 1) e^(−TR/T1).
    """
    A, B, T1 = kappa
    g = 1 + (B - 1) * np.exp(-tr / T1)
    return np.stack([A * g, B / g, T1])


def draw_acquisition(recipe: PatchRecipe, rng: np.random.Generator) -> Acquisition:
    """Return the acquisition of one batch."""
    kind = model_class(recipe.sequence)
    u = rng.random(4)
    settings: dict[str, Any] = {}
    hidden = None
    drawn = not recipe.times_ms
    times = draw_times(recipe, rng) if drawn else np.asarray(recipe.times_ms)
    if "signed" in kind.__dataclass_fields__ and u[0] < recipe.signed_share:
        settings["signed"] = True
    if "tr" in kind.__dataclass_fields__:
        if recipe.tr_ms:
            settings["tr"] = recipe.tr_ms
        elif u[1] < recipe.tr_share + recipe.tr_unknown_share:
            # From the last readout to the next inversion: next to nothing, or full recovery.
            rest = float(np.exp(rng.uniform(np.log(100.0), np.log(10_000.0))))
            known = u[1] < recipe.tr_share
            growing = known and u[2] < 0.2  # TR = TI + rest, as on some scanners
            settings |= {"tr": tuple(times + rest) if growing else float(times.max() + rest)} if known else {}
            hidden = None if known else float(times.max() + rest)
    rician = bool(u[3] < recipe.rician_share) and not settings.get("signed", False)
    return Acquisition(kind.at(tuple(float(t) for t in times), **settings), hidden, rician)


def draw_times(recipe: PatchRecipe, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return sorted times (N,), ms, of one of the kinds of protocol that scanners run.

    Even or geometric spacing over a wide range; a dense train (as the paper's, or a multi-echo train); a few times
    chosen by hand. N is log-uniform, but never below the number of parameters.
    """
    least, greatest = recipe.time_range_ms
    n_least, n_greatest = recipe.n_images

    def log_uniform(a: float, b: float) -> float:
        return float(np.exp(rng.uniform(np.log(a), np.log(max(a, b)))))

    N = min(n_greatest, int(log_uniform(n_least, n_greatest + 1)))
    style = rng.integers(4)
    decades = greatest / least
    if style == 3:  # few times, by hand
        N = int(np.clip(N, n_least, max(n_least, min(12, n_greatest))))
        times = np.exp(np.sort(_stratified(rng, N)) * np.log(decades)) * least
    elif style == 2:  # a dense train that ends early
        first = least * decades ** rng.uniform(0.0, 0.45)
        last = log_uniform(max(3 * first, least * decades**0.5), greatest)
        times = np.linspace(first, last, N)
    else:
        first = least * decades ** rng.uniform(0.0, 0.4)
        last = greatest * decades ** -rng.uniform(0.0, 0.35)
        times = np.linspace(first, last, N) if style == 0 else np.geomspace(first, last, N)
    times = np.clip(times * np.exp(0.02 * rng.standard_normal(N)), least, greatest)
    return np.sort(np.round(times + 1e-3 * np.arange(N), 3))


def _stratified(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.asarray((np.arange(n) + rng.random(n)) / n)
