"""Seconds a slice of each estimator, all in the same run (§6.1, §7)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.simulated_slices import at_snr, brain_slice
from rimap.evaluation.tables import Row, text_table
from rimap.likelihood import Rician
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.simulation.subjects import simulate_series, simulate_subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The paper's, seconds a slice of 256×256×31.
PAPER = {"mle": 575.0, "rim": 3.8, "resnet": 27.0}
#: Slices of a study, for which the table has the hours.
SLICES = 700


class Timing(Experiment):
    """One slice of 256×256 magnitude images, 31 of them, SNR 30, all voxels; the least of several runs after a first
    that does not count.

    Deviations
    ----------
    The paper's machine is not known to us; only ratios in one run say something of methods.
    """

    name: ClassVar[str] = "timing"
    title: ClassVar[str] = "Seconds a slice of 256×256×31"
    paper: ClassVar[str] = "§6.1, §7"
    parallel: ClassVar[bool] = False

    def units(self, settings: Settings) -> list[Unit]:
        """Return one piece: all estimators in the same run."""
        return [("same-run", *fitting(settings.estimators, PROTOCOLS["IV_T1"]))]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the seconds of each run (estimator, repeat), the estimators in turn."""
        specs = [str(s) for s in unit[1:]]
        size, n = (64, 2) if settings.quick else (256, settings.repeats or 5)
        labels = brain_slice(settings)
        pad = [(0, max(0, size - s)) for s in labels.shape]
        labels = np.pad(labels, pad)[:size, :size]
        model = PROTOCOLS["IV_T1"]
        kappa = simulate_subject(labels, model, np.random.default_rng([settings.seed, 0]))
        rician = Rician(sigma=at_snr(30).sigma)  # as a scanner's magnitude images are: nowhere below zero
        rng = np.random.default_rng([settings.seed, 5])
        series = simulate_series(kappa, model, rician, rng, mask=np.ones(labels.shape, bool)).with_noise(at_snr(30))
        estimators = [estimator_of(spec, settings.threads) for spec in specs]
        for estimator in estimators:
            estimator.estimate(series)
        seconds = np.zeros((len(specs), n))
        for k in range(n):
            for i, estimator in enumerate(estimators):
                begun = time.perf_counter()
                estimator.estimate(series)
                seconds[i, k] = time.perf_counter() - begun
        return {"seconds": seconds, "size": np.array(size)}

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row an estimator."""
        ((unit, part),) = parts.items()
        out: list[Row] = []
        for spec, s in zip(unit[1:], part["seconds"]):
            kind = str(spec).partition(":")[0]
            out.append(
                {
                    "estimator": spec, "size": int(part["size"]), "images": 31, "threads": settings.threads or "all",
                    "seconds": float(s.min()), "slowest": float(s.max()),
                    "hours_700_slices": float(s.min() * SLICES / 3600),
                    "paper_seconds": PAPER.get(kind, ""),
                }
            )  # fmt: skip
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return bars of the seconds, ours and the paper's."""
        figure, axes = draw.canvas(1, 1, height=0.6 + 0.42 * len(table))
        ax = axes[0, 0]
        ax.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        ax.grid(axis="y", visible=False)
        for index, r in enumerate(table):
            ax.barh(index, r["seconds"], color=draw.colour(r["estimator"]), alpha=0.75, height=0.6)
            ax.text(r["seconds"] * 1.1, index, f"{r['seconds']:.2g} s", va="center", fontsize=7.5)
            if "paper_seconds" in r:
                ax.plot(r["paper_seconds"], index, marker="D", color="black", markersize=4, linestyle="none")
        ax.set_yticks(range(len(table)), [draw.label(r["estimator"]) for r in table])
        ax.invert_yaxis()
        ax.set_xscale("log")
        ax.set_xlim(left=min(r["seconds"] for r in table) / 10)
        draw.log_ticks(ax.xaxis)
        size = int(table[0]["size"])
        ax.set_xlabel(f"seconds a slice of {size}×{size}×31 (diamonds: the paper's)")
        return {"seconds": figure}

    def summary(self, table: Sequence[Row]) -> str:
        """Return seconds a slice and hours for 700 slices."""
        size = int(table[0]["size"])
        body = [
            [draw.label(r["estimator"]), r["seconds"], r["hours_700_slices"], r.get("paper_seconds", float("nan"))]
            for r in table
        ]
        return (
            f"Slice of {size}×{size}×31, threads: {table[0]['threads']} (paper: 110 h MLE, 45 min RIM)\n\n"
            + text_table(["estimator", "s a slice", "h for 700 slices", "paper, s a slice"], body)
        )
