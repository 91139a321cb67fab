"""The NIST phantom: bias against the nominal value and CV, sphere by sphere (§5.2, Figs. 4 and A2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.repeated_estimates import Repeats
from rimap.evaluation.scans import PHANTOM, PhantomScan, Regions, phantom, repeat_scan
from rimap.evaluation.simulated_scans import SAID, simulated_phantom
from rimap.evaluation.simulated_slices import repeats_of
from rimap.evaluation.tables import Row, distinct, select, spread, text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Mean bias and CV over the spheres within the times' range, % (§6.2).
PAPER = {"rim": (1.34, 3.21), "mle": (1.71, 7.56), "resnet": (31.06, 7.5)}


class Phantom(Experiment):
    """Public scans of another phantom of the same kind, once each, or simulated ones; noise of the scan's own level
    stands for repeats.

    Deviations
    ----------
    The paper has four repeated scans at 23 TIs of 0.17 to 0.89 s; these scans have 6 TIs of 50 to 800 ms and a TR,
    and 31 echoes. The noise of a repeat is that of the scan and as much again. To magnitude images it is added as
    complex noise.
    """

    name: ClassVar[str] = "phantom"
    title: ClassVar[str] = "NIST phantom: bias and CV by sphere"
    paper: ClassVar[str] = "§5.2, Figs. 4 and A2"

    def units(self, settings: Settings) -> list[Unit]:
        """Return (scan, estimator)."""
        scans = PHANTOM[:1] if settings.quick else PHANTOM
        return [
            (scan.name, spec)
            for scan in scans
            for spec in fitting(settings.estimators, _regions(settings, scan.name).series.model)
        ]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the sums over the repeats and the map of the scan itself."""
        name, spec = map(str, unit)
        series = _regions(settings, name).series
        estimator = estimator_of(spec, settings.threads)
        assert series.noise is not None
        key = (settings.seed, 6, [s.name for s in PHANTOM].index(name))
        sigma = float(np.median(series.noise.sigma))
        r = repeat_scan(estimator, series, sigma, range(repeats_of(settings, 10, 3)), key)
        return r.arrays() | {"scan": estimator.estimate(series).kappa[:, series.selected], "sigma": np.array(sigma)}

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each scan, estimator, sphere and metric; `spatial` is the SD over a sphere's pixels."""
        out: list[Row] = []
        for (name, spec), part in parts.items():
            regions = _regions(settings, str(name))
            sphere = regions.labels[regions.series.selected]
            r, model = Repeats.from_arrays(part), regions.series.model
            times = model.times
            for n, nominal in regions.reference.items():
                where = sphere == n
                if not where.any():
                    continue
                scan = part["scan"][model.time_index][where].astype(float)
                here = {
                    "scan": name, "quantity": model.time.name, "estimator": spec, "sphere": n,
                    "nominal": nominal, "source": "scanned" if settings.data else "simulated",
                    "in_range": int(times.min() <= nominal <= times.max()), "repeats": r.n,
                    "sigma": float(part["sigma"]), "spatial": float(np.std(scan, ddof=1) / np.mean(scan) * 100),
                    "scan_bias": float((np.mean(scan) / nominal - 1) * 100), "unit": "%",
                }  # fmt: skip
                out.append(here | {"metric": "bias"} | spread(r.bias(np.array(nominal))[model.time_index][where]))
                out.append(here | {"metric": "cv"} | spread(r.cv[model.time_index][where]))
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return Fig. 4 for each scan."""
        return {f"spheres_{i + 1}": _figure(select(table, scan=s), s) for i, s in enumerate(distinct(table, "scan"))}

    def summary(self, table: Sequence[Row]) -> str:
        """Return the means over the pixels of the spheres in range, ours and the paper's."""
        body = []
        for scan in distinct(table, "scan"):
            for spec in distinct(table, "estimator"):
                rows = [r for r in select(table, scan=scan, estimator=spec) if r["in_range"]]
                if not rows:
                    continue
                mean = {m: _mean(select(rows, metric=m), "mean") for m in ("bias", "cv")}
                size = _mean([r | {"a": abs(r["mean"])} for r in select(rows, metric="bias")], "a")
                paper = PAPER.get(spec.partition(":")[0], ("", "")) if rows[0]["quantity"] == "T1" else ("", "")
                body.append(
                    [
                        scan, draw.label(spec), mean["bias"], size, str(paper[0]), mean["cv"], str(paper[1]),
                        _mean(select(rows, metric="cv"), "spatial"),
                    ]
                )  # fmt: skip
        C = int(table[0]["repeats"])
        return (
            (SAID + "\n\n" if table[0].get("source") == "simulated" else "")
            + f"Means over all pixels of the spheres within the times' range, C = {C}, %\n\n"
            + text_table(
                ["scan", "estimator", "bias", "abs. bias of spheres", "paper's bias", "CV", "paper's CV", "spatial SD"],
                body,
            )
            + _judged(table)
        )


def _judged(table: Sequence[Row]) -> str:
    """Return what is asked of a network: the spheres of 80 to 710 ms of the T1 array at 3 T."""
    rows = [r for r in select(table, scan=PHANTOM[0].name) if 80 <= r["nominal"] <= 710]
    body: list[list[Any]] = []
    mle = select(rows, estimator="mle", metric="cv")
    for spec in distinct(rows, "estimator"):
        bias, cv = (select(rows, estimator=spec, metric=m) for m in ("bias", "cv"))
        size = _mean([r | {"a": abs(r["mean"])} for r in bias], "a")
        ratio = _mean(cv, "mean") / _mean(mle, "mean") if mle else float("nan")
        body.append([draw.label(spec), _mean(bias, "mean"), size, _mean(cv, "mean"), ratio, _mean(cv, "spatial")])
    if not body:
        return ""
    head = ["estimator", "bias", "abs. bias of spheres", "CV", "CV / MLE's", "spatial SD"]
    return f"\n\n{PHANTOM[0].name}, spheres of 80 to 710 ms alone, %\n\n" + text_table(head, body)


def _regions(settings: Settings, name: str) -> Regions:
    scan = next(s for s in PHANTOM if s.name == name)
    if settings.data is None:
        return _simulated(settings.seed, scan)
    return phantom(settings.data_folder("nist_phantom"), scan)


@lru_cache(maxsize=4)
def _simulated(seed: int, scan: PhantomScan) -> Regions:
    return simulated_phantom(Settings(seed=seed), scan)


def _mean(rows: Sequence[Row], column: str) -> float:
    return float(np.average([row[column] for row in rows], weights=[row["n"] for row in rows]))


def _figure(rows: Sequence[Row], scan: str) -> Figure:
    specs = distinct(rows, "estimator")
    spheres = sorted(distinct(rows, "nominal"))
    inside = {row["nominal"] for row in rows if row["in_range"]}
    quantity = rows[0]["quantity"]
    figure, axes = draw.canvas(2, 1, height=2.3)
    for ax, (metric, title) in zip(axes[:, 0], (("bias", "Relative bias"), ("cv", "CV"))):
        draw.boxes(ax, spheres, select(rows, metric=metric), "nominal", specs)
        ax.set_xticks(range(len(spheres)), [f"{sphere:.0f}" for sphere in spheres])
        ax.set_ylabel(f"{title} of {quantity} [%]")
        for index, sphere in enumerate(spheres):
            if sphere not in inside:
                ax.axvspan(index - 0.5, index + 0.5, color="#f1f1f1", zorder=0)
        draw.error_axis(ax, signed=metric == "bias")
    axes[1, 0].set_xlabel(f"nominal {quantity} of the sphere [ms] (grey: outside the range of the times)")
    draw.titled(axes[0, 0], scan)
    draw.legend(figure, specs)
    return figure
