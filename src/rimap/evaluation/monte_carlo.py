"""Noise robustness: bias and CV of every parameter over six SNRs (§5.1.1, Figs. 2 and A1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.repeated_estimates import Repeats, repeat
from rimap.evaluation.simulated_slices import at_snr, brain_slice, chunks, repeats_of, repeats_said
from rimap.evaluation.tables import Row, distinct, select, spread, text_table
from rimap.signals.base import SignalModel
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.simulation.subjects import simulate_subject
from rimap.simulation.tissues import GM, WM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SNRS = (3, 5, 10, 30, 60, 100)
QUICK_SNRS = (5, 30)
MODELS = {"T1": "IV_T1", "T2": "IV_T2"}
REGIONS = {"brain": None, "GM": GM, "WM": WM}


class MonteCarlo(Experiment):
    """One slice, C noise draws an SNR.

    Deviations
    ----------
    T and A vary smoothly inside a tissue and B over the slice. The paper's ground truth has white texture, where
    smoothing away noise and smoothing away texture cannot be told apart, and one B in a patch.
    """

    name: ClassVar[str] = "monte-carlo"
    title: ClassVar[str] = "Robustness to noise, simulated brain slice"
    paper: ClassVar[str] = "§5.1.1, Figs. 2 and A1"

    def units(self, settings: Settings) -> list[Unit]:
        """Return (quantity, SNR, estimator, first draw, one past the last)."""
        snrs = QUICK_SNRS if settings.quick else SNRS
        return [
            (quantity, snr, spec, *piece)
            for quantity in MODELS
            for snr in snrs
            for spec in fitting(settings.estimators, PROTOCOLS[MODELS[quantity]])
            for piece in chunks(repeats_of(settings, 100, 3, spec))
        ]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the sums of some draws."""
        quantity, snr, spec, first, last = unit
        labels = brain_slice(settings)
        model, kappa = truth(settings, str(quantity))
        estimator = estimator_of(str(spec), settings.threads)
        key = (settings.seed, 1, int(float(snr) * 1000))
        draws = range(int(first), int(last))
        return repeat(estimator, kappa, model, at_snr(float(snr)), labels > 0, draws, key).arrays()

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each quantity, SNR, estimator, parameter, region and metric."""
        labels = brain_slice(settings)
        tissue = labels[labels > 0]
        out: list[Row] = []
        for quantity, snr, spec in dict.fromkeys(u[:3] for u in parts):
            model, kappa = truth(settings, str(quantity))
            r = Repeats.merge(Repeats.from_arrays(p) for u, p in parts.items() if u[:3] == (quantity, snr, spec))
            values = kappa[:, labels > 0]
            metrics = {"bias": r.bias(values), "cv": r.cv, "rmse": r.rmse(values)}
            for q, p in enumerate(model.parameters):
                for region, code in REGIONS.items():
                    where = np.ones(tissue.shape, bool) if code is None else tissue == code
                    for metric, x in metrics.items():
                        out.append(
                            {
                                "quantity": quantity, "snr": float(snr), "estimator": spec, "parameter": p.name,
                                "region": region, "metric": metric, "unit": "%", "repeats": r.n, **spread(x[q][where]),
                            }
                        )  # fmt: skip
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return Fig. 2 and Fig. A1."""
        return {
            f"{quantity}_boxes": _figure(select(table, quantity=quantity, region="brain"))
            for quantity in distinct(table, "quantity")
        }

    def summary(self, table: Sequence[Row]) -> str:
        """Return median bias and CV over the brain."""
        out = []
        for quantity in distinct(table, "quantity"):
            rows = select(table, quantity=quantity, parameter=quantity, region="brain")
            snrs = distinct(rows, "snr")
            body = []
            for spec in distinct(rows, "estimator"):
                for metric, what in (("bias", "median bias, %"), ("cv", "median CV, %"), ("rmse", "median RMSE, %")):
                    found = [select(rows, estimator=spec, metric=metric, snr=s)[0]["q50"] for s in snrs]
                    body.append([draw.label(spec), what, *found])
            out.append(
                f"{quantity}, brain mask, {repeats_said(rows)} (paper, Fig. 2: RIM has the lowest CV at every SNR; no numbers printed)\n\n"
                + text_table(["estimator", quantity, *(f"SNR {s:g}" for s in snrs)], body)
            )
        return "\n\n".join(out)


def truth(settings: Settings, quantity: str) -> tuple[SignalModel, NDArray[np.float64]]:
    """Return the protocol and the truth (Q, X, Y) of a quantity."""
    model = PROTOCOLS[MODELS[quantity]]
    return model, simulate_subject(brain_slice(settings), model, np.random.default_rng([settings.seed, 0]))


def _figure(rows: Sequence[Row]) -> Figure:
    parameters, specs, snrs = distinct(rows, "parameter"), distinct(rows, "estimator"), distinct(rows, "snr")
    figure, axes = draw.canvas(2, len(parameters), height=2.3)
    for j, parameter in enumerate(parameters):
        for i, (metric, title) in enumerate((("bias", "Relative bias"), ("cv", "CV"))):
            ax = axes[i, j]
            draw.boxes(ax, snrs, select(rows, parameter=parameter, metric=metric), "snr", specs)
            draw.error_axis(ax, signed=metric == "bias")
            draw.titled(ax, f"{title} of {parameter}")
            if j == 0:
                ax.set_ylabel(f"{title} [%]")
            if i == 1:
                ax.set_xlabel("SNR")
    draw.legend(figure, specs)
    return figure
