"""Bias, precision and contrast of estimators side by side, on simulated subjects that nothing was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import Estimator
from rimap.evaluation.metrics import coefficient_of_variation, relative_bias, relative_rmse, slope
from rimap.likelihood import Gaussian
from rimap.signals.base import SignalModel
from rimap.simulation.subjects import simulate_series, simulate_subject
from rimap.simulation.tissues import GM, WM

#: The paper's definition of SNR: σ = 0.65 / SNR, with 0.65 the proton density of white matter (Table 1).
REFERENCE_SIGNAL = 0.65
TISSUES = {"GM": GM, "WM": WM}


@dataclass(frozen=True)
class Accuracy:
    """The figures of one estimator on one tissue of one subject at one SNR, of T (the last parameter).

    Attributes
    ----------
    bias
        |median over voxels of the signed relative bias of the mean map|, %.
    cv, rmse
        Medians over voxels, %.
    slope
        Of the mean estimate on the truth inside the tissue.
    nan
        Fraction of values inside the tissue without an answer.
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


def accuracy(
    estimators: Mapping[str, Estimator],
    labels: NDArray[Any],
    model: SignalModel,
    *,
    snrs: Sequence[float] = (3, 5, 10, 30, 100),
    n_subjects: int = 3,
    n_repeats: int = 20,
    seed: int = 0,
    texture: Literal["smooth", "white", "none"] = "smooth",
    b_map: Literal["smooth", "constant"] = "smooth",
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Return one row for each estimator, subject, SNR and tissue; the noise draws are the same for all.

    Parameters
    ----------
    labels
        (*X), BrainWeb codes: a slice of an anatomy that was not trained on.
    model
        The protocol.
    n_repeats
        C, noise draws.
    """
    rows: list[dict[str, Any]] = []
    brain = np.isin(labels, (1, 2, 3, 8))
    for subject in range(n_subjects):
        kappa = simulate_subject(
            np.where(brain, labels, 0), model, np.random.default_rng([seed, subject]), texture=texture, b_map=b_map
        )
        for snr in snrs:
            noise = Gaussian(REFERENCE_SIGNAL / snr)
            maps: dict[str, list[NDArray[Any]]] = {name: [] for name in estimators}
            for c in range(n_repeats):
                rng = np.random.default_rng([seed, subject, round(snr * 1000), c])
                series = simulate_series(kappa, model, noise, rng, mask=brain)
                for name, estimator in estimators.items():
                    maps[name].append(estimator.estimate(series).kappa[-1])
                progress(f"subject {subject + 1}/{n_subjects}, SNR {snr:g}, draw {c + 1}/{n_repeats}")
            for tissue, label in TISSUES.items():
                where = labels == label
                truth = kappa[-1][where]
                for name in estimators:
                    e = np.stack([m[where] for m in maps[name]])
                    ok = np.isfinite(e).all(0)
                    rows.append(
                        asdict(_row(name, subject, snr, tissue, e[:, ok], truth[ok], float((~np.isfinite(e)).mean())))
                    )
    return rows


def _row(
    name: str, subject: int, snr: float, tissue: str, e: NDArray[Any], truth: NDArray[Any], nan: float
) -> Accuracy:
    return Accuracy(
        estimator=name,
        subject=subject,
        snr=float(snr),
        tissue=tissue,
        bias=float(abs(np.median(relative_bias(e, truth)))),
        cv=float(np.median(coefficient_of_variation(e))),
        rmse=float(np.median(relative_rmse(e, truth))),
        slope=slope(e, truth),
        nan=nan,
    )
