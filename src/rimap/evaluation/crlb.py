"""Bias and RMSE against the Cramér-Rao bound, the limit of any unbiased estimator that looks at one voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation import figures as draw
from rimap.evaluation.accuracy import tile_bias
from rimap.evaluation.experiment import OF_T1, Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.simulated_slices import at_snr, repeats_of
from rimap.evaluation.structures import uniform_tissue
from rimap.evaluation.tables import Row, columns_of, distinct, select, text_table
from rimap.likelihood import cramer_rao_sd, fisher_information
from rimap.signals.base import SignalModel
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.paper_protocols import PROTOCOLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The protocols of Table 2 whose bound is compared.
MODELS: dict[str, SignalModel] = {
    "31 TIs to 0.94 s (IV_T1)": PROTOCOLS["IV_T1"],
    "9 TIs to 4 s": InversionRecovery(tau=(40, 80, 160, 320, 600, 1100, 1800, 2800, 4000)),
}
#: True T1, ms: from white matter at 1.5 T to CSF.
T1 = (200, 300, 400, 550, 700, 850, 1000, 1200, 1400, 1650, 2000, 2500, 3000, 3500, 4200)
#: From a fast scan to a phantom.
SNRS = (10, 30, 100)


class CramerRao(Experiment):
    """Uniform squares of each T1, B constant: what an estimator may gain from the neighbourhood shows below the
    bound.
    """

    name: ClassVar[str] = "crlb"
    title: ClassVar[str] = "Bias and RMSE of T1 against the Cramér-Rao bound"
    paper: ClassVar[str] = "not in the paper"
    default_estimators: ClassVar[tuple[str, ...]] = OF_T1

    def units(self, settings: Settings) -> list[Unit]:
        """Return (protocol, SNR, estimator)."""
        snrs = (30,) if settings.quick else SNRS
        return [(m, snr, s) for m, model in MODELS.items() for snr in snrs for s in fitting(settings.estimators, model)]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return bias, CV and RMSE of each T1."""
        protocol, snr, spec = unit
        rows = tile_bias(
            str(spec), estimator_of(str(spec), settings.threads), MODELS[str(protocol)], T1, snr=float(snr),
            n_repeats=repeats_of(settings, 50, 5), seed=settings.seed,
        )  # fmt: skip
        return {k: np.array([row[k] for row in rows]) for k in ("T", "bias", "cv", "rmse")}

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each protocol, SNR, estimator and T1, with the bounds for B free and B known, %."""
        out: list[Row] = []
        T = np.array(T1, float)
        for (protocol, snr, spec), part in parts.items():
            model, noise = MODELS[str(protocol)], at_snr(float(snr))
            kappa = uniform_tissue(model, T)
            free = cramer_rao_sd(model, noise, kappa)[model.time_index] / T * 100
            F = np.asarray(fisher_information(model, noise, kappa))
            a, t = model.index(model.amplitudes[0].name), model.time_index
            known = np.sqrt(F[a, a] / (F[a, a] * F[t, t] - F[a, t] ** 2)) / T * 100
            for index, value in enumerate(T1):
                out.append(
                    {
                        "protocol": protocol, "snr": float(snr), "estimator": spec, "T1": float(value), "unit": "ms",
                        "repeats": repeats_of(settings, 50, 5), "bound_B_free": float(free[index]),
                        "bound_B_known": float(known[index]),
                        **{k: float(part[k][index]) for k in ("bias", "cv", "rmse")},
                    }
                )  # fmt: skip
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return bias and RMSE against T1, one figure for each protocol."""
        return {
            f"bound_{i + 1}": _figure(select(table, protocol=p), p) for i, p in enumerate(distinct(table, "protocol"))
        }

    def summary(self, table: Sequence[Row]) -> str:
        """Return RMSE over the bounds, medians over T1 of 550 to 2000 ms."""
        body = []
        for protocol in distinct(table, "protocol"):
            for snr in distinct(table, "snr"):
                for spec in distinct(table, "estimator"):
                    rows = [
                        r for r in select(table, protocol=protocol, snr=snr, estimator=spec) if 550 <= r["T1"] <= 2000
                    ]
                    if not rows:
                        continue
                    rmse, bias, free, known = columns_of(rows, ("rmse", "bias", "bound_B_free", "bound_B_known"))
                    body.append(
                        [
                            protocol, f"{snr:g}", draw.label(spec), float(np.median(rmse)),
                            float(np.median(rmse / free)), float(np.median(rmse / known)), float(abs(bias).max()),
                        ]
                    )  # fmt: skip
        return "T1 of 550 to 2000 ms, uniform squares, medians over T1\n\n" + text_table(
            [
                "protocol",
                "SNR",
                "estimator",
                "RMSE, %",
                "RMSE / bound, B free",
                "RMSE / bound, B known",
                "largest abs. bias, %",
            ],
            body,
        )


def _figure(rows: Sequence[Row], protocol: str) -> Figure:
    snrs, specs = distinct(rows, "snr"), distinct(rows, "estimator")
    figure, axes = draw.canvas(2, len(snrs), height=2.3)
    for j, snr in enumerate(snrs):
        for spec in specs:
            found = select(rows, snr=snr, estimator=spec)
            T, bias, rmse, free, known = columns_of(found, ("T1", "bias", "rmse", "bound_B_free", "bound_B_known"))
            style: dict[str, Any] = {"color": draw.colour(spec), "marker": "o", "markersize": 2.5, "linewidth": 1.2}
            axes[0, j].plot(T, bias, **style)
            axes[1, j].plot(T, rmse, **style)
        axes[1, j].plot(T, free, color="black", linestyle="--", linewidth=1)
        axes[1, j].plot(T, known, color="black", linestyle=":", linewidth=1.2)
        for i in (0, 1):
            draw.error_axis(axes[i, j], signed=i == 0)
            axes[i, j].set_xscale("log")
            draw.log_ticks(axes[i, j].xaxis)
        axes[1, j].set_xlabel("true T1 [ms]")
        draw.titled(axes[0, j], f"{protocol}, SNR {snr:g}" if j == 0 else f"SNR {snr:g}")
    axes[0, 0].set_ylabel("Relative bias [%]")
    axes[1, 0].set_ylabel("RMSE [%]")
    draw.legend(
        figure, specs,
        extra=[
            ("bound, B free", {"color": "black", "linestyle": "--", "linewidth": 1}),
            ("bound, B known", {"color": "black", "linestyle": ":", "linewidth": 1.2}),
        ],
    )  # fmt: skip
    return figure
