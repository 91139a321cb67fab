"""In vivo: CV maps from repeats, and agreement with the MLE (§5.3, Figs. 5, 6 and 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.repeated_estimates import Repeats
from rimap.evaluation.scans import brain, given_scans, repeat_given, repeat_scan
from rimap.evaluation.simulated_scans import SAID, simulated_brain
from rimap.evaluation.simulated_slices import repeats_of
from rimap.evaluation.tables import Row, distinct, select, spread, text_table
from rimap.series import WeightedSeries

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Noise that stands for a repeated scan: its σ over the median of the brightest image inside the head.
LEVEL = 0.05
#: T (ms) that is brain without CSF, fat and vessels, by the MLE.
BRAIN_LIKE = {"T1": (600.0, 2000.0), "T2": (40.0, 150.0)}
#: Largest T on the axes of maps and agreement plots, ms.
TOP = {"T1": 4000.0, "T2": 400.0}
#: Mean CV of T1, noisy data set, %; mean difference of T2 from the MLE, ms (§6.3).
PAPER_CV = {"rim": 6.4, "mle": 17.1, "resnet": 11.06}
#: What the paper reports for T2 in vivo, in %.
PAPER_T2 = {"rim": 2.36, "resnet": 32.2}


class Repeatability(Experiment):
    """Repeated scans if they are given (`--scans`), else one scan (simulated without `--data`) and noise of a stated
    level added C times.

    Deviations
    ----------
    The paper has two scans of two volunteers. Added noise says nothing of motion and drift between scans, and it
    comes on top of the scan's own.
    """

    name: ClassVar[str] = "repeatability"
    title: ClassVar[str] = "In vivo: CV and agreement with the MLE"
    paper: ClassVar[str] = "§5.3, Figs. 5, 6 and 8"

    def units(self, settings: Settings) -> list[Unit]:
        """Return (quantity, estimator)."""
        quantities = _quantities(settings)
        return [
            (quantity, s)
            for quantity in quantities
            for s in fitting(settings.estimators, _scans(settings, quantity)[0].model)
        ]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the sums over the repeats, and the map of the (first) scan."""
        quantity, spec = map(str, unit)
        scans = _scans(settings, quantity)
        estimator = estimator_of(spec, settings.threads)
        if len(scans) > 1:
            r, sigma = repeat_given(estimator, scans), 0.0
        else:
            bright = np.abs(np.asarray(scans[0].images, float)).max(0)[scans[0].selected]
            sigma = float(np.median(bright)) * (settings.noise_level or LEVEL)
            key = (settings.seed, 7, int(quantity == "T2"))
            r = repeat_scan(estimator, scans[0], sigma, range(repeats_of(settings, 10, 2)), key)
        scan = estimator.estimate(scans[0]).kappa[:, scans[0].selected]
        return r.arrays() | {"scan": scan.astype(np.float32), "sigma": np.array(sigma)}

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each quantity, estimator, region and metric; `difference` is from the MLE, ms."""
        out: list[Row] = []
        for (quantity, spec), part in parts.items():
            r = Repeats.from_arrays(part)
            time = _scans(settings, str(quantity))[0].model.time_index
            reference = parts.get((quantity, "mle"))
            # Without an MLE the regions are those of the estimate itself, and there is nothing to differ from.
            of_mle = (reference or part)["scan"][time]
            low, high = BRAIN_LIKE[str(quantity)]
            regions = {"head": np.ones(of_mle.shape, bool), "brain-like": (of_mle > low) & (of_mle < high)}
            for region, where in regions.items():
                here = {
                    "quantity": quantity, "source": "scanned" if settings.data or settings.scans else "simulated",
                    "estimator": spec,
                    "region": region, "repeats": r.n,
                    "added_sigma": float(part["sigma"]),
                    "noise": "repeated scans" if not part["sigma"] else f"added, {settings.noise_level or LEVEL:g}",
                }  # fmt: skip
                out.append(here | {"metric": "cv", "unit": "%"} | spread(r.cv[time][where]))
                if reference is not None:
                    difference = (part["scan"][time] - of_mle)[where]
                    out.append(here | {"metric": "difference", "unit": "ms"} | spread(difference))
        return out

    def pictures(self, settings: Settings, parts: Mapping[Unit, Part]) -> dict[str, NDArray[Any]]:
        """Return maps and CV maps (estimator, X, Y), a middle slice."""
        out = {}
        for quantity in dict.fromkeys(str(u[0]) for u in parts):
            first = _scans(settings, quantity)[0]
            mask, time = first.selected, first.model.time_index
            mine = [part for u, part in parts.items() if u[0] == quantity]
            for what, values in (
                ("map", [p["scan"][time] for p in mine]),
                ("cv", [Repeats.from_arrays(p).cv[time] for p in mine]),
            ):
                volumes: list[NDArray[Any]] = []
                for value in values:
                    volume: NDArray[Any] = np.full(mask.shape, np.nan, np.float32)
                    volume[mask] = value
                    volumes.append(volume if volume.ndim == 2 else volume[..., volume.shape[2] // 2])
                out[f"{quantity}_{what}"] = np.stack(volumes)
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return maps with their CV (Figs. 5, 6, 8) and agreement plots, two figures for each quantity."""
        out = {}
        for quantity in distinct(table, "quantity"):
            specs = distinct(select(table, quantity=quantity), "estimator")
            out[f"{quantity}_maps"] = _maps(quantity, specs, pictures[f"{quantity}_map"], pictures[f"{quantity}_cv"])
            if "mle" in specs and len(specs) > 1:
                out[f"{quantity}_agreement"] = _agreement(quantity, specs, pictures[f"{quantity}_map"])
        return out

    def summary(self, table: Sequence[Row]) -> str:
        """Return CV and difference from the MLE, ours and the paper's."""
        body = []
        for r in select(table, metric="cv"):
            kind = r["estimator"].partition(":")[0]
            d = select(table, metric="difference", quantity=r["quantity"], estimator=r["estimator"], region=r["region"])
            paper_cv = PAPER_CV.get(kind, "") if r["quantity"] == "T1" and r["region"] == "head" else ""
            paper_d = PAPER_T2.get(kind, "") if r["quantity"] == "T2" and r["region"] == "head" else ""
            body.append(
                [
                    r["quantity"], r["region"], draw.label(r["estimator"]), r["q50"], r["mean"], str(paper_cv),
                    *((d[0]["mean"], d[0]["q50"]) if d else ("", "")), str(paper_d),
                ]
            )  # fmt: skip
        simulated = SAID + "\n\n" if table[0].get("source") == "simulated" else ""
        return f"{simulated}Repeats: {table[0]['noise']}, C = {int(table[0]['repeats'])}\n\n" + text_table(
            [
                "T", "region", "estimator", "median CV, %", "mean CV, %", "paper's mean CV", "mean difference from "
                "MLE, ms",
                "median, ms", "paper's mean",
            ],
            body,
        )  # fmt: skip


def _quantities(settings: Settings) -> list[str]:
    if not settings.scans:
        return ["T1"] if settings.quick else ["T1", "T2"]
    from rimap.io import find_series

    names = {s.model_class().name for s in find_series(settings.scans[0])}
    return [q for q, n in (("T1", "ir"), ("T2", "t2")) if n in names]


def _scans(settings: Settings, quantity: str) -> list[WeightedSeries]:
    sequence = "ir" if quantity == "T1" else "t2"
    if settings.scans:
        return given_scans(settings, sequence)
    if settings.data is None:
        return [_simulated(settings.seed, settings.quick, sequence)]
    return [brain(settings.data_folder("brain_in_vivo"), sequence)]


@lru_cache(maxsize=2)
def _simulated(seed: int, quick: bool, sequence: str) -> WeightedSeries:
    return simulated_brain(Settings(seed=seed, quick=quick), sequence)


def _cropped(maps: NDArray[Any]) -> NDArray[Any]:
    there = np.isfinite(maps).any(0)
    x, y = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    return maps[:, x[0] : x[-1] + 1, y[0] : y[-1] + 1]


def _maps(quantity: str, specs: Sequence[str], maps: NDArray[Any], cv: NDArray[Any]) -> Figure:
    both = _cropped(np.concatenate([maps, cv]))
    maps, cv = both[: len(specs)], both[len(specs) :]
    ratio = maps.shape[2] / maps.shape[1]
    width = min(draw.WIDTH, 2.4 * len(specs) + 0.9)
    height = min(3.2, (width - 0.9) / len(specs) * ratio + 0.1)
    figure, axes = draw.canvas(2, len(specs), height=height, width=width)
    palette, top = colours.of_relaxation(quantity), TOP[quantity]
    for index, spec in enumerate(specs):
        draw.show_map(axes[0, index], maps[index], 0, top, palette, logarithmic=True)
        draw.show_map(axes[1, index], cv[index], 0, 30, "grey")
        draw.titled(axes[0, index], draw.label(spec))
    draw.colour_bar(figure, list(axes[0]), 0, top, palette, f"{quantity} [ms]", logarithmic=True)
    draw.colour_bar(figure, list(axes[1]), 0, 30, "grey", "CV [%]")
    return figure


def _agreement(quantity: str, specs: Sequence[str], maps: NDArray[Any]) -> Figure:
    others = [spec for spec in specs if spec != "mle"]
    mle, top = maps[specs.index("mle")], TOP[quantity]
    figure, axes = draw.canvas(
        1, len(others), height=min(3.4, 6.6 / len(others)), width=min(draw.WIDTH, 3.4 * len(others))
    )
    for ax, spec in zip(axes[0], others):
        x, y = mle.ravel(), maps[specs.index(spec)].ravel()
        valid = np.isfinite(x) & np.isfinite(y)
        counts, _, _ = np.histogram2d(x[valid], y[valid], bins=120, range=[[0, top], [0, top]])
        with np.errstate(divide="ignore"):
            ax.imshow(
                np.where(counts.T > 0, np.log10(counts.T), np.nan), origin="lower", extent=(0, top, 0, top),
                cmap="Greys",
                vmin=-0.5, aspect="equal", interpolation="nearest",
            )  # fmt: skip
        ax.plot([0, top], [0, top], color=draw.colour(spec), linewidth=0.9)
        ax.grid(False)
        ax.set_xlabel(f"{quantity} of the MLE [ms]")
        difference = (y - x)[valid]
        draw.titled(ax, f"{draw.label(spec)}\nmedian difference {np.median(difference):+.1f} ms")
    axes[0, 0].set_ylabel(f"{quantity} [ms]")
    return figure
