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

#: Those of Fig. 2.
SNRS = (3, 5, 10, 30, 60, 100)
#: One at which noise dominates and one at which bias does.
QUICK_SNRS = (5, 30)
#: The protocols of Table 2 that the networks were trained for.
MODELS = {"T1": "IV_T1", "T2": "IV_T2"}
#: Regions of a table; `None` is every voxel of the brain.
REGIONS = {"brain": None, "GM": GM, "WM": WM}
#: What the truth is like, as options of `simulate_subject`. The paper's has white texture, and its B differs between
#: subjects.
SMOOTH, TEXTURE, WHOLE_B = "smooth", "white texture", "B from 1.6 to 2.0"
#: How the truth is drawn for each map.
TRUTHS: dict[str, dict[str, Any]] = {
    SMOOTH: {},
    TEXTURE: {"texture": "white"},
    WHOLE_B: {"field_mean": 1.8, "field_range": 0.4 / 1.8},
}
#: What the name of their figure ends with.
_NAME_OF_FIGURE = {SMOOTH: "", TEXTURE: "_texture", WHOLE_B: "_whole_B"}
#: The truths other than the smooth one have one in so many of its noise draws, and at least so many: a CV of fewer
#: draws is too small.
PART_OF_DRAWS, FEWEST_DRAWS = 10, 5


class MonteCarlo(Experiment):
    """One slice with three kinds of truth, C noise draws for each SNR.

    In the first truth, T and A vary smoothly inside a tissue, and B spans a tenth of its mean over the slice. The
    second has the paper's white texture (100 ms for T1, 10 ms for T2) instead. In the third, B goes from 1.6 to 2.0
    over the slice.

    Deviations
    ----------
    The paper has one B in a patch. The second and the third truth have a tenth of the noise draws, and at least five.
    """

    name: ClassVar[str] = "monte-carlo"
    title: ClassVar[str] = "Robustness to noise, simulated brain slice"
    paper: ClassVar[str] = "§5.1.1, Figs. 2 and A1"

    def units(self, settings: Settings) -> list[Unit]:
        """Return (quantity, truth, SNR, estimator, first draw, one past the last)."""
        snrs = QUICK_SNRS if settings.quick else SNRS
        return [
            (quantity, kind, snr, spec, *piece)
            for quantity, name in MODELS.items()
            for kind in TRUTHS
            if kind != WHOLE_B or PROTOCOLS[name].field is not None
            for snr in snrs
            for spec in fitting(settings.estimators, PROTOCOLS[name])
            for piece in chunks(_draws(repeats_of(settings, 100, 3, spec), kind))
        ]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the sums of some draws."""
        quantity, kind, snr, spec, first, last = unit
        labels = brain_slice(settings)
        model, kappa = truth(settings, str(quantity), str(kind))
        estimator = estimator_of(str(spec), settings.threads)
        key = (settings.seed, 1, int(float(snr) * 1000))
        draws = range(int(first), int(last))
        return repeat(estimator, kappa, model, at_snr(float(snr)), labels > 0, draws, key).arrays()

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each quantity, truth, SNR, estimator, parameter, region and metric."""
        labels = brain_slice(settings)
        tissue = labels[labels > 0]
        out: list[Row] = []
        for quantity, kind, snr, spec in dict.fromkeys(u[:4] for u in parts):
            model, kappa = truth(settings, str(quantity), str(kind))
            r = Repeats.merge(
                Repeats.from_arrays(part) for u, part in parts.items() if u[:4] == (quantity, kind, snr, spec)
            )
            values = kappa[:, labels > 0]
            metrics = {"bias": r.bias(values), "cv": r.cv, "rmse": r.rmse(values)}
            for row, parameter in enumerate(model.parameters):
                for region, code in REGIONS.items():
                    where = np.ones(tissue.shape, bool) if code is None else tissue == code
                    for metric, x in metrics.items():
                        out.append(
                            {
                                "quantity": quantity, "truth": kind, "snr": float(snr), "estimator": spec,
                                "parameter": parameter.name, "region": region, "metric": metric, "unit": "%",
                                "repeats": r.n,
                                **spread(x[row][where]),
                            }
                        )  # fmt: skip
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return Fig. 2 and Fig. A1, and the same for the other truths."""
        return {
            f"{quantity}_boxes{_NAME_OF_FIGURE[kind]}": _figure(rows)
            for quantity in distinct(table, "quantity")
            for kind in TRUTHS
            if (rows := select(table, quantity=quantity, truth=kind, region="brain"))
        }

    def summary(self, table: Sequence[Row]) -> str:
        """Return median bias, CV and RMSE over the brain."""
        out = []
        for quantity, kind in [(q, k) for q in distinct(table, "quantity") for k in TRUTHS]:
            rows = select(table, quantity=quantity, truth=kind, parameter=quantity, region="brain")
            if not rows:
                continue
            snrs = distinct(rows, "snr")
            body = []
            for spec in distinct(rows, "estimator"):
                for metric, what in (("bias", "median bias, %"), ("cv", "median CV, %"), ("rmse", "median RMSE, %")):
                    found = [select(rows, estimator=spec, metric=metric, snr=snr)[0]["q50"] for snr in snrs]
                    body.append([draw.label(spec), what, *found])
            out.append(
                f"{quantity}, {kind}, brain mask, {repeats_said(rows)} (paper, Fig. 2: RIM has the lowest CV at every "
                f"SNR; no numbers printed)\n\n"
                + text_table(["estimator", quantity, *(f"SNR {snr:g}" for snr in snrs)], body)
            )
        return "\n\n".join(out)


def truth(settings: Settings, quantity: str, kind: str = SMOOTH) -> tuple[SignalModel, NDArray[np.float64]]:
    """Return the protocol and the truth (Q, X, Y) of a quantity; `kind` is a key of `TRUTHS`."""
    model, rng = PROTOCOLS[MODELS[quantity]], np.random.default_rng([settings.seed, 0])
    return model, simulate_subject(brain_slice(settings), model, rng, **TRUTHS[kind])


def _draws(count: int, kind: str) -> int:
    """Return how many noise draws a truth has, of those of the smooth one."""
    return count if kind == SMOOTH else max(min(count, FEWEST_DRAWS), count // PART_OF_DRAWS)


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
