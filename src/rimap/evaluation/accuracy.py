"""Compare bias, precision and contrast of estimators on simulated subjects that no network was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import Estimator
from rimap.evaluation.metrics import coefficient_of_variation, relative_bias, relative_rmse, slope
from rimap.evaluation.structures import STRUCTURES, place, uniform_tissue, with_structures
from rimap.likelihood import Gaussian
from rimap.signals.base import SignalModel
from rimap.simulation.subjects import Texture, simulate_series, simulate_subject
from rimap.simulation.tissues import BRAIN_LABELS, GM, WM

#: The paper's definition of SNR: σ = 0.65 / SNR, with 0.65 the proton density of white matter (Table 1).
REFERENCE_SIGNAL = 0.65
#: Tissues with figures of their own, by label.
TISSUES = {"GM": GM, "WM": WM}


@dataclass(frozen=True, eq=False)
class Subject:
    """A simulated subject, whose truth follows from its number: it is the same for every estimator.

    Parameters
    ----------
    labels
        (*X), BrainWeb codes: a slice of an anatomy that was not trained on. Only the brain is simulated.
    model
        The protocol.
    number
        Which subject.
    texture
        How values differ inside a tissue.
    """

    labels: NDArray[Any]
    model: SignalModel
    number: int
    texture: Texture = Texture()

    @property
    def brain(self) -> NDArray[np.bool_]:
        """The voxels (*X) of the brain."""
        return np.isin(self.labels, BRAIN_LABELS)

    @property
    def tissues(self) -> NDArray[Any]:
        """The labels (*X) inside the brain."""
        return np.where(self.brain, self.labels, 0)

    def truth(self, seed: int) -> NDArray[np.float64]:
        """Return κ (Q, *X)."""
        rng = np.random.default_rng([seed, self.number])
        return simulate_subject(self.tissues, self.model, rng, texture=self.texture)


@dataclass(frozen=True)
class Accuracy:
    """The figures of one estimator on one tissue of one subject at one SNR, of T (the last parameter).

    Attributes
    ----------
    bias
        Median over voxels of the signed relative bias of the mean map, %.
    cv, rmse
        Medians over voxels, %.
    slope
        Of the mean estimate on the truth inside the tissue.
    nan
        Fraction of values inside the brain mask (not the tissue alone) without an answer.
    """

    estimator: str
    subject: int
    snr: float
    tissue: str
    bias: float
    cv: float
    rmse: float
    slope: float
    nan: float


def crop(labels: NDArray[Any], margin: int = 4) -> NDArray[Any]:
    """Return a slice or volume of labels (*X) cut to the box of its brain and `margin` voxels around it."""
    brain = np.isin(labels, BRAIN_LABELS)
    box = []
    for axis in range(labels.ndim):
        found = np.flatnonzero(brain.any(axis=tuple(set(range(labels.ndim)) - {axis})))
        box.append(slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin))
    return np.ascontiguousarray(labels[tuple(box)])


def measure(
    name: str,
    estimator: Estimator,
    subject: Subject,
    *,
    snr: float,
    n_repeats: int = 20,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Return the rows (one for each tissue) of one estimator on one subject at one SNR.

    Subject and noise draws follow from the numbers alone: they are the same for every estimator.

    Parameters
    ----------
    n_repeats
        C, noise draws.
    """
    brain, kappa, time = subject.brain, subject.truth(seed), subject.model.time_index
    noise = Gaussian(REFERENCE_SIGNAL / snr)
    maps = []
    for c in range(n_repeats):
        rng = np.random.default_rng([seed, subject.number, round(snr * 1000), c])
        series = simulate_series(kappa, subject.model, noise, rng, mask=brain)
        maps.append(estimator.estimate(series).kappa[time][brain])
        progress(f"{name}: subject {subject.number}, SNR {snr:g}, draw {c + 1}/{n_repeats}")
    estimates, truth, tissues = np.stack(maps), kappa[time][brain], subject.labels[brain]
    nan = float((~np.isfinite(estimates)).mean())
    rows = []
    for tissue, label in TISSUES.items():
        where = (tissues == label) & np.isfinite(estimates).all(0)
        e, t = estimates[:, where].astype(float), truth[where]
        rows.append(
            asdict(
                Accuracy(
                    estimator=name,
                    subject=subject.number,
                    snr=float(snr),
                    tissue=tissue,
                    bias=float(np.median(relative_bias(e, t))),
                    cv=float(np.median(coefficient_of_variation(e))),
                    rmse=float(np.median(relative_rmse(e, t))),
                    slope=slope(e, t),
                    nan=nan,
                )
            )
        )
    return rows


def structure_bias(
    name: str,
    estimator: Estimator,
    subject: Subject,
    *,
    snr: float = 10,
    n_repeats: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return one row for each kind of structure (Fig. 3): the medians of relative bias and CV over its pixels, %.

    Each kind is placed at several sites, so that few draws are enough; the paper has one of each.
    """
    model = subject.model
    placed = place(subject.tissues, np.random.default_rng([seed, subject.number, 1]))
    kappa = with_structures(subject.truth(seed), model, placed)
    noise = Gaussian(REFERENCE_SIGNAL / snr)
    maps = []
    for c in range(n_repeats):
        rng = np.random.default_rng([seed, subject.number, round(snr * 1000), c])
        series = simulate_series(kappa, model, noise, rng, mask=subject.brain)
        maps.append(estimator.estimate(series).kappa[model.time_index])
    e = np.stack(maps).astype(float)
    rows = []
    for s in STRUCTURES:
        where = placed.inside[s.name] > 0
        inside = e[:, where]
        rows.append(
            {
                "estimator": name,
                "subject": subject.number,
                "snr": float(snr),
                "structure": s.name,
                "bias": float(np.median(relative_bias(inside, s.T1))),
                "cv": float(np.median(coefficient_of_variation(inside))),
                "count": placed.count(s.name),
            }
        )
    return rows


def tile_bias(
    name: str,
    estimator: Estimator,
    model: SignalModel,
    values: Sequence[float],
    *,
    snr: float = 30,
    n_repeats: int = 20,
    seed: int = 0,
    size: int = 16,
) -> list[dict[str, Any]]:
    """Return one row for each value of T: the medians of relative bias, CV and RMSE over a uniform square, %.

    CV and RMSE are those of all pixels and draws together, so that they compare with the Cramér-Rao bound however few
    the draws.

    The squares of `size` pixels are next to each other in random order; amplitude and field are the same everywhere.
    """
    columns = int(np.ceil(np.sqrt(len(values))))
    rows_n = int(np.ceil(len(values) / columns))
    order = np.random.default_rng([seed, 7]).permutation(len(values))
    T = np.full((rows_n * size, columns * size), np.median(values))
    where = {}
    for place_, k in enumerate(order):
        x, y = (place_ // columns) * size, (place_ % columns) * size
        T[x : x + size, y : y + size] = values[k]
        where[int(k)] = (slice(x, x + size), slice(y, y + size))
    kappa = uniform_tissue(model, T)
    noise = Gaussian(REFERENCE_SIGNAL / snr)
    maps = []
    for c in range(n_repeats):
        rng = np.random.default_rng([seed, round(snr * 1000), c])
        maps.append(estimator.estimate(simulate_series(kappa, model, noise, rng)).kappa[model.time_index])
    e = np.stack(maps).astype(float)
    out = []
    for k, value in enumerate(values):
        box = e[(slice(None), *where[k])]
        out.append(
            {
                "estimator": name,
                "snr": float(snr),
                "T": float(value),
                "bias": float(np.median(relative_bias(box, value))),
                "cv": float(np.sqrt(box.var(axis=0, ddof=1).mean()) / box.mean() * 100),
                "rmse": float(np.sqrt(np.mean((box / value - 1) ** 2)) * 100),
            }
        )
    return out
