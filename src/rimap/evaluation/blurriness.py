"""Do small structures keep their value? Four of them, with (E2) and without (E1), at SNR 10 (§5.1.2, Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.monte_carlo import truth
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.repeated_estimates import Repeats, repeat
from rimap.evaluation.simulated_slices import at_snr, brain_slice, chunks, repeats_of, repeats_said
from rimap.evaluation.structures import STRUCTURES, Placed, place, with_structures
from rimap.evaluation.tables import Row, distinct, select, spread, text_table
from rimap.signals.paper_protocols import PROTOCOLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rimap.signals import SignalModel

#: That of Fig. 3, where smoothing matters most.
SNR = 10.0
#: Structures of each kind in a slice.
SITES = 8
#: |bias| of the paper's RIM for the hypo-intense point, %: E1, E2. The only numbers that it prints.
PAPER = (0.68, 3.43)


class Blurriness(Experiment):
    """Each structure at several sites of one slice.

    Deviations
    ----------
    The paper places one of each; here there are up to eight, so that a point is not the luck of one pixel. Lines are
    nine pixels long, the neighbourhood is one pixel wide, and the slice is that of `monte-carlo`.
    """

    name: ClassVar[str] = "blurriness"
    title: ClassVar[str] = "Single pixels and lines: with (E2) and without (E1)"
    paper: ClassVar[str] = "§5.1.2, Fig. 3"

    def units(self, settings: Settings) -> list[Unit]:
        """Return (scenario, estimator, first draw, one past the last)."""
        specs = fitting(settings.estimators, PROTOCOLS["IV_T1"])
        return [
            (scenario, spec, *piece)
            for spec in specs
            for scenario in ("E1", "E2")
            for piece in chunks(repeats_of(settings, 100, 4, spec))
        ]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the sums of some draws; the noise of E1 and of E2 is not the same."""
        scenario, spec, first, last = unit
        labels, model, kappa, _ = scene(settings, str(scenario))
        key = (settings.seed, 2, int(scenario == "E2"))
        estimator = estimator_of(str(spec), settings.threads)
        return repeat(estimator, kappa, model, at_snr(SNR), labels > 0, range(int(first), int(last)), key).arrays()

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each structure, region, scenario, estimator and metric; p is of E1 against E2."""
        out: list[Row] = []
        for spec in dict.fromkeys(u[1] for u in parts):
            values: dict[tuple[str, str, str, str], NDArray[np.float64]] = {}
            for scenario in ("E1", "E2"):
                labels, model, kappa, placed = scene(settings, scenario)
                mask = labels > 0
                r = Repeats.merge(Repeats.from_arrays(part) for u, part in parts.items() if u[:2] == (scenario, spec))
                metrics = {"bias": r.bias(kappa[:, mask])[model.time_index], "cv": r.cv[model.time_index]}
                for s in STRUCTURES:
                    for region, where in (("structure", placed.inside), ("neighbourhood", placed.around)):
                        for metric, x in metrics.items():
                            values[s.name, region, metric, scenario] = x[where[s.name][mask] > 0]
            for (structure, region, metric, scenario), x in values.items():
                e1, e2 = (values[structure, region, metric, e] for e in ("E1", "E2"))
                out.append(
                    {
                        "estimator": spec, "structure": structure, "region": region, "scenario": scenario,
                        "metric": metric, "unit": "%", "snr": SNR, "repeats": r.n,
                        "p": _p(e1, e2), **spread(x),
                    }
                )  # fmt: skip
        return out

    def pictures(self, settings: Settings, parts: Mapping[Unit, Part]) -> dict[str, NDArray[Any]]:
        """Return the truth of E2 and the first estimator's mean."""
        labels, model, kappa, _ = scene(settings, "E2")
        return {"truth": np.where(labels > 0, kappa[model.time_index], np.nan).astype(np.float32)}

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return Fig. 3 d–g, and the truth."""
        return {"boxes": _boxes(table), "truth": _truth(pictures["truth"])}

    def summary(self, table: Sequence[Row]) -> str:
        """Return the median bias and CV of each structure, E1 → E2."""
        body = []
        for spec in distinct(table, "estimator"):
            for s in STRUCTURES:
                rows = select(table, estimator=spec, structure=s.name, region="structure")
                at = {(row["metric"], row["scenario"]): row for row in rows}
                b1, b2 = at["bias", "E1"], at["bias", "E2"]
                near = select(table, estimator=spec, structure=s.name, region="neighbourhood", metric="bias")
                body.append(
                    [
                        draw.label(spec), s.title, b1["q50"], b2["q50"], b1["p"],
                        at["cv", "E1"]["q50"], at["cv", "E2"]["q50"],
                        next(r["q50"] for r in near if r["scenario"] == "E2"),
                    ]
                )  # fmt: skip
        return (
            f"SNR {SNR:g}, {repeats_said(table)}; medians over the pixels, %. Paper: bias of the RIM's hypo-intense "
            f"point {PAPER[0]} → {PAPER[1]} %\n\n"
            + text_table(
                ["estimator", "structure", "bias E1", "bias E2", "p", "CV E1", "CV E2", "bias beside, E2"], body
            )
        )


def scene(settings: Settings, scenario: str) -> tuple[NDArray[np.uint8], SignalModel, NDArray[np.float64], Placed]:
    """Return labels, protocol, truth and structures of a scenario."""
    labels = brain_slice(settings)
    model, kappa = truth(settings, "T1")
    placed = place(
        labels,
        np.random.default_rng([settings.seed, 3]),
        count=4 if settings.quick else SITES,
        distance=1 if settings.quick else 8,
    )
    return labels, model, with_structures(kappa, model, placed) if scenario == "E2" else kappa, placed


def _p(e1: NDArray[np.float64], e2: NDArray[np.float64]) -> float:
    """Return p of Welch's independent t-test."""
    a, b = e1[np.isfinite(e1)], e2[np.isfinite(e2)]
    return float(stats.ttest_ind(a, b, equal_var=False).pvalue) if min(len(a), len(b)) > 1 else float("nan")


def _boxes(table: Sequence[Row]) -> Figure:
    specs = distinct(table, "estimator")
    names = distinct(table, "structure")
    figure, axes = draw.canvas(2, 2, height=2.5)
    for i, (metric, title) in enumerate((("bias", "Relative bias"), ("cv", "CV"))):
        for j, region in enumerate(("structure", "neighbourhood")):
            ax = axes[i, j]
            rows = [
                r | {"group": f"{r['structure']} {r['scenario']}"} for r in select(table, metric=metric, region=region)
            ]
            groups = [f"{name} {e}" for name in names for e in ("E1", "E2")]
            draw.boxes(ax, groups, rows, "group", specs)
            ax.set_xticks(range(len(groups)), ["E1", "E2"] * len(names))
            for k, name in enumerate(names):
                ax.text(
                    2 * k + 0.5, -0.14, name.replace("_", "\n"), ha="center", va="top", fontsize=7,
                    transform=ax.get_xaxis_transform(),
                )  # fmt: skip
                if k:
                    ax.axvline(2 * k - 0.5, color="#bbbbbb", linewidth=0.6)
            _stars(ax, rows, specs, names)
            draw.error_axis(ax, signed=metric == "bias")
            ax.set_title(f"{title}, {region}", fontsize=8.5, pad=9)
            if j == 0:
                ax.set_ylabel(f"{title} of T1 [%]")
    draw.legend(figure, specs)
    return figure


def _stars(ax: Any, rows: Sequence[Row], specs: Sequence[str], names: Sequence[str]) -> None:
    """Mark where E2 differs from E1: * p < 0.05, ** p < 0.01."""
    width = 0.8 / len(specs)
    for k, name in enumerate(names):
        for i, spec in enumerate(specs):
            p = next((row["p"] for row in rows if row["estimator"] == spec and row["structure"] == name), 1.0)
            if p < 0.05:
                ax.text(
                    2 * k + 1 + (i - (len(specs) - 1) / 2) * width, 0.985, "**" if p < 0.01 else "*", ha="center",
                    va="bottom", fontsize=8, color=draw.colour(spec), transform=ax.get_xaxis_transform(),
                )  # fmt: skip


def _truth(values: NDArray[Any]) -> Figure:
    figure, axes = draw.canvas(1, 1, height=3.6, width=4.2)
    draw.show_map(axes[0, 0], values, 0, 3000, "lipari", logarithmic=True)
    draw.colour_bar(figure, axes, 0, 3000, "lipari", "T1 [ms]", logarithmic=True)
    draw.titled(axes[0, 0], "Ground truth with the structures (E2)")
    return figure
