"""T2 from 20 to 2000 ms: is long T2 pulled to the training mean (§6.3, Fig. 8 n, o)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation import figures as draw
from rimap.evaluation.accuracy import tile_bias
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.simulated_slices import at_snr, repeats_of
from rimap.evaluation.structures import uniform_tissue
from rimap.evaluation.tables import Row, columns_of, distinct, number, select, text_table
from rimap.likelihood import cramer_rao_sd
from rimap.signals.t2_decay import T2Decay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Echo times in ms of two protocols.
TIMES = {"to 640 ms": (10, 20, 40, 80, 160, 320, 640), "to 320 ms (paper)": (10, 20, 40, 80, 160, 320)}
#: True T2, ms.
T2 = (20, 30, 45, 70, 100, 150, 230, 350, 500, 750, 1000, 1250, 1500, 1750, 2000)
#: Signal-to-noise ratio of the images.
SNR = 30.0


class T2Range(Experiment):
    """Uniform squares of each T2, at two sets of echo times."""

    name: ClassVar[str] = "t2-range"
    title: ClassVar[str] = "T2 from 20 to 2000 ms"
    paper: ClassVar[str] = "§6.3, Fig. 8 n, o"
    default_estimators: ClassVar[tuple[str, ...]] = (
        "mle",
        "mppca+mle",
        "resnet:resnet_t2",
        "rim:rim_t2",
        "rim:universal",
    )

    def units(self, settings: Settings) -> list[Unit]:
        """Return (times, estimator)."""
        return [(t, s) for t, tau in TIMES.items() for s in fitting(settings.estimators, T2Decay(tau=tau))]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return bias, CV and RMSE of each T2."""
        times, spec = map(str, unit)
        rows = tile_bias(
            spec, estimator_of(spec, settings.threads), T2Decay(tau=TIMES[times]), T2, snr=SNR,
            n_repeats=repeats_of(settings, 50, 5), seed=settings.seed,
        )  # fmt: skip
        return {k: np.array([row[k] for row in rows]) for k in ("T", "bias", "cv", "rmse")}

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each set of times, estimator and T2."""
        out: list[Row] = []
        for (times, spec), part in parts.items():
            model = T2Decay(tau=TIMES[str(times)])
            kappa = uniform_tissue(model, np.array(T2, float))
            bound = cramer_rao_sd(model, at_snr(SNR), kappa)[model.time_index] / T2 * 100
            for index, T in enumerate(T2):
                out.append(
                    {
                        "times": times, "estimator": spec, "T2": float(T), "unit": "ms", "snr": SNR,
                        "repeats": repeats_of(settings, 50, 5), "cramer_rao": float(bound[index]),
                        **{k: float(part[k][index]) for k in ("bias", "cv", "rmse")},
                    }
                )  # fmt: skip
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return bias and CV against T2."""
        times, specs = distinct(table, "times"), distinct(table, "estimator")
        figure, axes = draw.canvas(2, len(times), height=2.3)
        for j, t in enumerate(times):
            for spec in specs:
                T, bias, cv, bound = columns_of(
                    select(table, times=t, estimator=spec), ("T2", "bias", "cv", "cramer_rao")
                )
                axes[0, j].plot(T, bias, color=draw.colour(spec), marker="o", markersize=2.5, linewidth=1.2)
                axes[1, j].plot(T, cv, color=draw.colour(spec), marker="o", markersize=2.5, linewidth=1.2)
            axes[1, j].plot(T, bound, color="black", linestyle="--", linewidth=1)
            axes[0, j].axhspan(-5, 5, color="#f0f0f0", zorder=0)
            for i in (0, 1):
                draw.error_axis(axes[i, j], signed=i == 0)
                axes[i, j].set_xscale("log")
                draw.log_ticks(axes[i, j].xaxis)
            axes[0, j].set_ylim(-100, 100)
            axes[1, j].set_xlabel("true T2 [ms]")
            draw.titled(axes[0, j], f"Echo times {t}, SNR {SNR:g}")
        axes[0, 0].set_ylabel("Relative bias [%]")
        axes[1, 0].set_ylabel("CV [%]")
        draw.legend(figure, specs, extra=[("Cramér-Rao bound", {"color": "black", "linestyle": "--", "linewidth": 1})])
        return {"bias_cv": figure}

    def summary(self, table: Sequence[Row]) -> str:
        """Return the bias at some T2."""
        shown = [t for t in distinct(table, "T2") if t in (20, 45, 100, 230, 500, 750, 1000, 1500, 2000)]
        body = []
        for times in distinct(table, "times"):
            for spec in distinct(table, "estimator"):
                rows = {r["T2"]: r for r in select(table, times=times, estimator=spec)}
                if rows:
                    worst = max(rows.values(), key=lambda r: abs(r["bias"]))
                    text = f"{number(worst['bias'])} at {worst['T2']:g}"
                    body.append([times, draw.label(spec), *(rows[t]["bias"] for t in shown), text])
        return f"Relative bias of T2, %, SNR {SNR:g} (paper: no network is right above 750 ms)\n\n" + text_table(
            ["echo times", "estimator", *(f"{t:g} ms" for t in shown), "worst"], body
        )
