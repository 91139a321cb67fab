"""Networks on protocols that they were and were not trained for: the matrix of CV (§5.4, Fig. 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.repeated_estimates import Repeats, repeat
from rimap.evaluation.simulated_slices import at_snr, brain_slice, repeats_of
from rimap.evaluation.tables import Row, distinct, select, spread, text_table
from rimap.signals.base import SignalModel
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.simulation.subjects import simulate_subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Protocol and SNR; the last two are nobody's.
CASES: dict[str, tuple[SignalModel, float]] = {
    "HP, 23 TIs": (PROTOCOLS["HP_T1"], 20.0),
    "IV noisy, 25 TIs": (PROTOCOLS["IV_T1_noisy"], 10.0),
    "IV, 31 TIs": (PROTOCOLS["IV_T1"], 20.0),
    "9 TIs to 4 s": (InversionRecovery(tau=(40, 80, 160, 320, 600, 1100, 1800, 2800, 4000)), 20.0),
    "6 TIs, TR 4 s": (InversionRecovery(tau=(50, 150, 400, 900, 1800, 3200), tr=4000.0), 20.0),
}


class Generalizability(Experiment):
    """Every network on every protocol, with the MLE and the ResNet of the protocol for comparison.

    Deviations
    ----------
    The paper's repeated scans are not public: here a simulated brain slice has each protocol, the noisy one at half
    the SNR of the others.
    """

    name: ClassVar[str] = "generalizability"
    title: ClassVar[str] = "Protocols that a network was not trained for"
    paper: ClassVar[str] = "§5.4, Fig. 9"
    default_estimators: ClassVar[tuple[str, ...]] = (
        "mle", "global_b", "resnet:resnet_t1_23", "resnet:resnet_t1_25", "resnet:resnet_t1_31", "rim:rim_t1_23",
        "rim:rim_t1_25", "rim:rim_t1_31", "rim:universal",
    )  # fmt: skip

    def units(self, settings: Settings) -> list[Unit]:
        """Return (protocol, estimator)."""
        return [(c, s) for c, (model, _) in CASES.items() for s in fitting(settings.estimators, model)]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the sums over the draws."""
        case, spec = map(str, unit)
        model, snr = CASES[case]
        labels = brain_slice(settings)
        kappa = simulate_subject(labels, model, np.random.default_rng([settings.seed, 0]))
        key = (settings.seed, 9, list(CASES).index(case))
        draws = range(repeats_of(settings, 20, 2))
        return repeat(
            estimator_of(spec, settings.threads), kappa, model, at_snr(snr), labels > 0, draws, key
        ).arrays()  # fmt: skip

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each protocol, estimator and metric of T1 in the brain."""
        labels = brain_slice(settings)
        out: list[Row] = []
        for (case, spec), part in parts.items():
            model, snr = CASES[str(case)]
            T1 = simulate_subject(labels, model, np.random.default_rng([settings.seed, 0]))[:, labels > 0]
            r = Repeats.from_arrays(part)
            for metric, x in (("cv", r.cv), ("bias", r.bias(T1)), ("rmse", r.rmse(T1))):
                out.append(
                    {
                        "protocol": case, "snr": snr, "estimator": spec, "metric": metric, "unit": "%", "repeats": r.n,
                        **spread(x[model.time_index]),
                    }
                )  # fmt: skip
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return CV and bias by protocol."""
        specs, cases = distinct(table, "estimator"), distinct(table, "protocol")
        figure, axes = draw.canvas(2, 1, height=2.3)
        for ax, (metric, title) in zip(axes[:, 0], (("cv", "CV"), ("bias", "Relative bias"))):
            draw.boxes(ax, cases, select(table, metric=metric), "protocol", specs)
            ax.set_ylabel(f"{title} of T1 [%]")
            draw.error_axis(ax, signed=metric == "bias")
        names = [f"{case}\nSNR {select(table, protocol=case)[0]['snr']:g}" for case in cases]
        axes[1, 0].set_xticks(range(len(cases)), names)
        draw.legend(figure, specs)
        return {"matrix": figure}

    def summary(self, table: Sequence[Row]) -> str:
        """Return the matrix of median CV, and of median bias."""
        cases = distinct(table, "protocol")
        out = []
        for metric, title in (("cv", "Median CV"), ("bias", "Median relative bias")):
            body: list[list[Any]] = []
            for spec in distinct(table, "estimator"):
                found = {r["protocol"]: r["q50"] for r in select(table, metric=metric, estimator=spec)}
                body.append([draw.label(spec), *(found.get(case, float("nan")) for case in cases)])
            out.append(f"{title} of T1 in the brain, %\n\n" + text_table(["estimator", *cases], body))
        return "\n\n".join(
            [*out, "Paper: no significant difference in CV between the three RIMs; numbers in a figure alone."]
        )
