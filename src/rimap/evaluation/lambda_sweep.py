"""T1 outliers and RMSE of the regularised MLE against λ_B (§4.4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.mle.estimator import MLE
from rimap.estimators.mle.field_smoothness import DEFAULT_LAMBDA_B
from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit
from rimap.evaluation.monte_carlo import truth
from rimap.evaluation.simulated_slices import at_snr, brain_slice, repeats_of
from rimap.evaluation.tables import Row, distinct, select, text_table
from rimap.likelihood import Noise
from rimap.signals.base import SignalModel
from rimap.simulation.subjects import simulate_series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: From a field of its own in each voxel (0) to one value for the volume.
LAMBDAS = (0.0, 1e2, 5e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, float("inf"))
#: From a fast scan to a phantom.
SNRS = (5, 10, 30, 100)
#: A T1 that is off by more than this fraction is an outlier.
OUTLIER = 0.5


def sweep(
    kappa: NDArray[Any],
    model: SignalModel,
    noise: Noise,
    mask: NDArray[np.bool_],
    lambda_B: float,
    draws: Sequence[tuple[int, ...]],
    *,
    threads: int | None = None,
) -> dict[str, float]:
    """Return what one λ_B gives: outliers (%), RMSE of T1 (median over voxels, and without outliers) and of B, %.

    Parameters
    ----------
    kappa
        Truth (Q, *X).
    draws
        Keys of the generators of the noise: the same for every λ_B.
    """
    estimator, T, B = MLE(lambda_B=lambda_B, threads=threads), [], []
    assert model.field is not None
    time, field = model.time_index, model.index(model.field.name)
    for key in draws:
        series = simulate_series(kappa, model, noise, np.random.default_rng(key), mask=mask)
        found = estimator.estimate(series).kappa[:, mask]
        T.append(found[time] / kappa[time][mask] - 1)
        B.append(found[field] / kappa[field][mask] - 1)
    error, off = np.stack(T), np.stack(B)
    outlier = ~(abs(error) <= OUTLIER)
    voxel = np.sqrt((error**2).mean(0))
    return {
        "outliers": float(outlier.mean() * 100),
        "median_rmse": float(np.nanmedian(voxel) * 100),
        "rmse_without_outliers": float(np.sqrt((error[~outlier] ** 2).mean()) * 100),
        "rmse_B": float(np.sqrt(np.nanmean(off**2)) * 100),
    }


class LambdaSweep(Experiment):
    """The slice and the truth of `monte-carlo`.

    Deviations
    ----------
    The paper judges by the number of outliers in its own scans, from 0 to 1000; its λ has no unit. The unit of this
    one is that of `MLE`, and here the truth is known.
    """

    name: ClassVar[str] = "lambda-sweep"
    title: ClassVar[str] = "The weight of the MLE's smooth B"
    paper: ClassVar[str] = "§4.4.1"
    default_estimators: ClassVar[tuple[str, ...]] = ("mle",)

    def units(self, settings: Settings) -> list[Unit]:
        """Return (SNR, λ_B)."""
        snrs, lambdas = ((10,), (0.0, 5e2, 1e6, float("inf"))) if settings.quick else (SNRS, LAMBDAS)
        return [(snr, value) for snr in snrs for value in lambdas]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the figures of one λ_B."""
        snr, value = (float(u) for u in unit)
        labels = brain_slice(settings)
        model, kappa = truth(settings, "T1")
        draws = [(settings.seed, 10, int(snr * 1000), c) for c in range(repeats_of(settings, 5, 1))]
        found = sweep(kappa, model, at_snr(snr), labels > 0, value, draws, threads=settings.threads)
        return {key: np.array(value) for key, value in found.items()}

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each SNR and λ_B."""
        C = repeats_of(settings, 5, 1)
        return [
            {
                "snr": float(snr),
                "lambda_B": float(value),
                "repeats": C,
                "unit": "%",
                **{key: float(value) for key, value in part.items()},
            }
            for (snr, value), part in parts.items()
        ]

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return outliers and RMSE against λ_B."""
        figure, axes = draw.canvas(1, 3, height=2.6)
        lambdas, snrs = distinct(table, "lambda_B"), distinct(table, "snr")
        names = ["0" if v == 0 else "∞" if np.isinf(v) else _power(v) for v in lambdas]
        for ax, (column, title) in zip(
            axes[0],
            (
                ("outliers", f"Outliers of T1 (off by > {100 * OUTLIER:.0f} %) [%]"),
                ("median_rmse", "Median RMSE of T1 [%]"),
                ("rmse_B", "RMSE of B [%]"),
            ),
        ):
            for index, snr in enumerate(snrs):
                y = [r[column] for r in select(table, snr=snr)]
                shade = ("#9ec9ee", "#5b9bd5", "#1f5fa8", "#0b2d57")[index % 4]
                ax.plot(range(len(y)), y, marker="o", markersize=3, linewidth=1.2, color=shade, label=f"SNR {snr:g}")
            if DEFAULT_LAMBDA_B in lambdas:
                ax.axvline(lambdas.index(DEFAULT_LAMBDA_B), color="#999999", linestyle=":", linewidth=1)
            ax.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
            if column == "outliers":
                draw.symlog(ax, 0.1)
                ax.set_ylim(0, 100)
            else:
                ax.set_yscale("log")
                draw.log_ticks(ax.yaxis)
            ax.set_xlabel("λ_B (dotted: in training)")
            draw.titled(ax, title)
        axes[0, 0].legend(fontsize=7.5, frameon=False)
        return {"sweep": figure}

    def summary(self, table: Sequence[Row]) -> str:
        """Return outliers and RMSE of every λ_B."""
        body = [
            [f"{r['snr']:g}", "∞" if np.isinf(r["lambda_B"]) else f"{r['lambda_B']:g}", r["outliers"], r["median_rmse"],
             r["rmse_without_outliers"], r["rmse_B"]]
            for r in table
        ]  # fmt: skip
        return (
            f"λ_B in training: {DEFAULT_LAMBDA_B:g} (the paper chose 500 of 0 to 1000, without a unit)\n\n"
            + text_table(
                ["SNR", "λ_B", "outliers, %", "median RMSE of T1, %", "RMSE without outliers, %", "RMSE of B, %"], body
            )
        )


def _power(value: float) -> str:
    exponent = int(np.floor(np.log10(value)))
    factor = value / 10**exponent
    return f"$10^{exponent}$" if factor == 1 else f"${factor:g}·10^{exponent}$"
