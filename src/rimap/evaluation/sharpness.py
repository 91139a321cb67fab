"""Is the border of grey and white matter as sharp as with the MLE? Slope of a sigmoid along lines (§5.3, Fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rimap.evaluation import figures as draw
from rimap.evaluation.border import Line, Sigmoid, check_lines, find_lines, fit_sigmoid, read_lines
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.monte_carlo import truth
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.scans import brain
from rimap.evaluation.simulated_slices import at_snr, brain_slice
from rimap.evaluation.tables import Row, distinct, select, spread, text_table
from rimap.series import WeightedSeries
from rimap.simulation.subjects import simulate_series
from rimap.simulation.tissues import GM, WM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Lines across the border.
COUNT = 20
#: T1 of white and of grey matter, ms, that ends of a line must have in vivo.
WM_T1, GM_T1 = (650.0, 1050.0), (1150.0, 1900.0)
#: SNR of the simulated slice.
SNR = 20.0


class Sharpness(Experiment):
    """Twenty lines across the border; the MLE's map decides where they are, unless a file does.

    Deviations
    ----------
    The paper's lines are drawn by hand in maps of volunteers whom we do not have. Here they are found on a smoothed
    MLE map (in vivo) or on the truth (simulated slice), where the slope of the truth is known as well.
    """

    name: ClassVar[str] = "sharpness"
    title: ClassVar[str] = "Sharpness of the GM/WM border"
    paper: ClassVar[str] = "§5.3, Fig. 7"

    def units(self, settings: Settings) -> list[Unit]:
        """Return (scene, estimator)."""
        scenes = ["simulated"]
        if not settings.quick and settings.data is not None and (settings.data / "brain_in_vivo").is_dir():
            scenes.append("in vivo")
        return [(scene, e) for scene in scenes for e in fitting(settings.estimators, _scene(settings, scene)[0].model)]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the T1 map and the map that decides where the lines are."""
        scene, spec = map(str, unit)
        series, guide = _scene(settings, scene)
        T = np.squeeze(estimator_of(spec, settings.threads).estimate(series).kappa[series.model.time_index])
        if guide is None:
            guide = np.squeeze(estimator_of("mle", settings.threads).estimate(series).kappa[series.model.time_index])
        return {"T": T.astype(np.float32), "guide": guide.astype(np.float32)}

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each scene, line and estimator; p is of the paired t-test against the MLE."""
        out: list[Row] = []
        for scene in dict.fromkeys(str(u[0]) for u in parts):
            mine = {str(u[1]): part for u, part in parts.items() if u[0] == scene}
            guide = next(iter(mine.values()))["guide"]
            lines = _lines(settings, scene, guide)
            maps = {spec: value["T"] for spec, value in mine.items()}
            if scene == "simulated":
                maps["reference"] = guide
            fits = {spec: [fit_sigmoid(*line.profile(T)) for line in lines] for spec, T in maps.items()}
            for spec, found in fits.items():
                p = _paired(found, fits["mle"]) if spec != "mle" and "mle" in fits else float("nan")
                for index, (line, s) in enumerate(zip(lines, found)):
                    out.append(
                        {
                            "scene": scene, "estimator": spec, "line": index, "nu": s.nu, "unit": "1/voxel", "r2": s.r2,
                            "V": s.V, "x0_fit": s.x0, "b": s.b, "p": p, "x0": line.x0, "y0": line.y0, "x1": line.x1,
                            "y1": line.y1,
                        }
                    )  # fmt: skip
        return out

    def pictures(self, settings: Settings, parts: Mapping[Unit, Part]) -> dict[str, NDArray[Any]]:
        """Return the map of every scene and estimator."""
        out = {f"{u[0]}|{u[1]}".replace("/", "%"): part["T"] for u, part in parts.items()}
        return out | {f"{u[0]}|guide": part["guide"] for u, part in parts.items()}

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return Fig. 7: the lines, one fit, and the boxes, one figure for each scene."""
        return {
            f"border_{s.replace(' ', '_')}": _figure(select(table, scene=s), s, pictures)
            for s in distinct(table, "scene")
        }

    def summary(self, table: Sequence[Row]) -> str:
        """Return medians and p."""
        body = []
        for scene in distinct(table, "scene"):
            for spec in distinct(select(table, scene=scene), "estimator"):
                rows = select(table, scene=scene, estimator=spec)
                s = spread([row["nu"] for row in rows])
                name = "truth" if spec == "reference" else draw.label(spec)
                body.append([scene, name, f"{len(rows)}", s["q25"], s["q50"], s["q75"], rows[0]["p"]])
        return "Slope ν of the sigmoid, 1/voxel (paper: no significant difference between methods)\n\n" + text_table(
            ["scene", "estimator", "lines", "lower quartile", "median ν", "upper quartile", "p against MLE"], body
        )


def _scene(settings: Settings, scene: str) -> tuple[WeightedSeries, NDArray[np.float64] | None]:
    """Return the series, and the map for the lines if it is the truth."""
    if scene == "in vivo":
        return brain(settings.data_folder("brain_in_vivo"), "ir"), None
    model, kappa = truth(settings, "T1")
    labels = brain_slice(settings)
    rng = np.random.default_rng([settings.seed, 8])
    return simulate_series(kappa, model, at_snr(SNR), rng, mask=labels > 0), np.where(
        labels > 0, kappa[model.time_index], np.nan
    )


def _lines(settings: Settings, scene: str, guide: NDArray[Any]) -> list[Line]:
    if settings.lines is not None and scene == "in vivo":
        lines = read_lines(settings.lines)
    elif scene == "in vivo":
        lines = find_lines(guide, WM_T1, GM_T1, count=COUNT)
    else:
        labels = brain_slice(settings)
        wm, gm = (float(np.median(guide[labels == t])) for t in (WM, GM))
        lines = find_lines(guide, (0.8 * wm, wm + 0.3 * (gm - wm)), (gm - 0.4 * (gm - wm), 1.4 * gm), count=COUNT)
    check_lines(lines, scene)
    return lines


def _paired(a: Sequence[Sigmoid], b: Sequence[Sigmoid]) -> float:
    """Return p of the paired t-test over the lines that both fit."""
    x, y = (np.array([fit.nu for fit in fits]) for fits in (a, b))
    valid = np.isfinite(x) & np.isfinite(y)
    return (
        float(stats.ttest_rel(x[valid], y[valid]).pvalue) if valid.sum() > 1 and (x != y)[valid].any() else float("nan")
    )


def _figure(rows: Sequence[Row], scene: str, pictures: Mapping[str, NDArray[Any]]) -> Figure:
    specs = distinct(rows, "estimator")
    figure, axes = draw.canvas(1, 3, height=2.7)
    lines_ax, fit_ax, box_ax = axes[0]
    guide = pictures[f"{scene}|guide"]
    of_one = select(rows, estimator=specs[0])
    draw.show_map(lines_ax, guide, 0, 3000, "lipari", logarithmic=True)
    for r in of_one:
        lines_ax.plot([r["x0"], r["x1"]], [r["y0"], r["y1"]], color="#ff2d2d", linewidth=1.4)
    xs, ys = ([r[k] for r in of_one for k in ks] for ks in (("x0", "x1"), ("y0", "y1")))
    lines_ax.set_xlim(min(xs) - 6, max(xs) + 6)
    lines_ax.set_ylim(min(ys) - 6, max(ys) + 6)
    draw.titled(lines_ax, f"{len(of_one)} lines, {scene}")
    k = _median_line(of_one)
    for spec in specs:
        r = next(row for row in rows if row["estimator"] == spec and row["line"] == k)
        line = Line(r["x0"], r["y0"], r["x1"], r["y1"])
        key = f"{scene}|{'guide' if spec == 'reference' else spec.replace('/', '%')}"
        x, y = line.profile(pictures[key])
        fit_ax.plot(x, y, color=draw.colour(spec), marker=".", markersize=2.5, linestyle="none", alpha=0.6)
        if np.isfinite(r["nu"]):
            fit_ax.plot(
                x, Sigmoid(r["V"], r["nu"], r["x0_fit"], r["b"], r["r2"])(x), color=draw.colour(spec), linewidth=1.1
            )
    fit_ax.set_xlabel("position along the line [voxel]")
    fit_ax.set_ylabel("T1 [ms]")
    draw.titled(fit_ax, "One line and its sigmoids")
    rows_nu = [
        {"estimator": spec, "g": "all", **_whole(spread([r["nu"] for r in select(rows, estimator=spec)]))}
        for spec in specs
    ]
    draw.boxes(box_ax, ["all"], rows_nu, "g", specs)
    box_ax.set_xticks([])
    box_ax.set_yscale("log")
    draw.log_ticks(box_ax.yaxis)
    box_ax.set_ylabel("slope ν [1/voxel]")
    draw.titled(box_ax, "Sharpness (whiskers: all lines)")
    draw.legend(figure, specs)
    return figure


def _median_line(rows: Sequence[Row]) -> Any:
    good = [row for row in rows if np.isfinite(row["nu"])] or list(rows)
    return sorted(good, key=lambda r: r["nu"])[len(good) // 2]["line"]


def _whole(s: dict[str, float]) -> dict[str, float]:
    """Return quantiles whose whiskers reach least and greatest value."""
    return s | {"q5": s["q0"], "q95": s["q100"]}
