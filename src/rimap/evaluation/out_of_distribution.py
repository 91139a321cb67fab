"""Cases that the paper does not test: tissue, noise, motion and B outside the training of all networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import OF_T1, Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.monte_carlo import truth
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.repeated_estimates import Repeats
from rimap.evaluation.simulated_slices import at_snr, brain_slice, repeats_of
from rimap.evaluation.structures import GREY_MATTER_A, disc
from rimap.evaluation.tables import Row, distinct, select, spread, text_table
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.series import WeightedSeries
from rimap.simulation.subjects import simulate_series
from rimap.simulation.tissues import GM, WM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: That of a typical scan, so that effects of noise do not hide the others.
SNR = 20.0
#: Radius of a lesion, voxels.
RADIUS = 4.0


@dataclass(frozen=True)
class Case:
    """One condition that differs from the training; everything else is as in `monte-carlo` at SNR 20.

    Parameters
    ----------
    lesion
        T1 of discs in white matter, ms.
    sigma_span
        Largest over smallest σ, which increases over the slice. If `known`, the estimator gets the map of σ, otherwise
        its median.
    rician
        SNR of Rician noise; the estimator assumes Gaussian noise unless `known`.
    moved
        Voxels by which the second half of the images is shifted.
    B
        B everywhere.
    """

    lesion: float | None = None
    sigma_span: float | None = None
    rician: float | None = None
    known: bool = False
    moved: int = 0
    B: float | None = None


#: What differs from training, one thing in each case.
CASES = {
    "nothing odd": Case(),
    "lesion of 150 ms": Case(lesion=150.0),
    "lesion of 250 ms": Case(lesion=250.0),
    "lesion of 2500 ms": Case(lesion=2500.0),
    "lesion of 4500 ms": Case(lesion=4500.0),
    "σ varies ×5, unknown": Case(sigma_span=5.0),
    "σ varies ×5, known": Case(sigma_span=5.0, known=True),
    "Rician, SNR 3, unknown": Case(rician=3.0),
    "Rician, SNR 3, known": Case(rician=3.0, known=True),
    "Rician, SNR 10, unknown": Case(rician=10.0),
    "motion of a voxel": Case(moved=1),
    "B = 1.0": Case(B=1.0),
    "B = 1.3": Case(B=1.3),
    "B = 2.2": Case(B=2.2),
}


class OutOfDistribution(Experiment):
    """One case after the other on the same slice; the lesion's pixels, else grey and white matter."""

    name: ClassVar[str] = "out-of-distribution"
    title: ClassVar[str] = "Tissue, noise, motion and B that no training has"
    paper: ClassVar[str] = "left open by the paper"
    default_estimators: ClassVar[tuple[str, ...]] = OF_T1

    def units(self, settings: Settings) -> list[Unit]:
        """Return (case, estimator)."""
        model, _ = truth(settings, "T1")
        return [(c, s) for c in CASES for s in fitting(settings.estimators, model)]

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the sums over the draws."""
        name, spec = map(str, unit)
        case, estimator = CASES[name], estimator_of(spec, settings.threads)
        kappa, _ = _scene(settings, case)
        mask = brain_slice(settings) > 0
        maps = []
        for c in range(repeats_of(settings, 20, 2)):
            rng = np.random.default_rng([settings.seed, 11, list(CASES).index(name), c])
            maps.append(estimator.estimate(_series(settings, case, kappa, mask, rng)).kappa[:, mask])
        return Repeats.of(np.stack(maps)).arrays()

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each case, estimator, region and metric of T1."""
        labels = brain_slice(settings)
        model, tissue = truth(settings, "T1")[0], labels[labels > 0]
        out: list[Row] = []
        for (name, spec), part in parts.items():
            case, r = CASES[str(name)], Repeats.from_arrays(part)
            kappa, lesion = _scene(settings, case)
            T1 = kappa[:, labels > 0]
            regions = {"GM": tissue == GM, "WM": tissue == WM}
            if case.lesion is not None:
                inside = lesion[labels > 0]
                regions = {"lesion": inside, "WM": (tissue == WM) & ~inside}
            for region, where in regions.items():
                for metric, x in (("bias", r.bias(T1)), ("cv", r.cv), ("rmse", r.rmse(T1))):
                    out.append(
                        {
                            "case": name, "estimator": spec, "region": region, "metric": metric, "unit": "%",
                            "repeats": r.n, **spread(x[model.time_index][where]),
                        }
                    )  # fmt: skip
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return medians of bias and RMSE, one line for each case."""
        specs, cases = distinct(table, "estimator"), distinct(table, "case")
        figure, axes = draw.canvas(1, 2, height=0.6 + 0.32 * len(cases))
        for ax, (metric, title) in zip(axes[0], (("bias", "Relative bias"), ("rmse", "RMSE"))):
            ax.grid(axis="x", color="#e5e5e5", linewidth=0.6)
            for i, case in enumerate(cases):
                if i % 2:
                    ax.axhspan(i - 0.5, i + 0.5, color="#f5f5f5", zorder=0)
                for k, spec in enumerate(specs):
                    for r in select(table, case=case, estimator=spec, metric=metric):
                        if r["region"] not in _shown(select(table, case=case)):
                            continue
                        at = i + (k - (len(specs) - 1) / 2) * 0.7 / len(specs)
                        ax.plot([r["q25"], r["q75"]], [at, at], color=draw.colour(spec), linewidth=1.2, alpha=0.6)
                        ax.plot(r["q50"], at, marker="o", markersize=3.5, color=draw.colour(spec), linestyle="none")
            ax.set_ylim(len(cases) - 0.5, -0.5)
            ax.set_xlabel(f"{title} of T1 [%]: median and quartiles")
            ax.set_yticks(range(len(cases)), cases if metric == "bias" else [""] * len(cases))
            if metric == "bias":
                ax.set_xscale("symlog", linthresh=10)
                ax.axvline(0, color="black", linewidth=0.6)
            else:
                ax.set_xscale("log")
                draw.log_ticks(ax.xaxis)
        from matplotlib.ticker import FuncFormatter

        axes[0, 0].xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        draw.legend(figure, specs)
        return {"cases": figure}

    def summary(self, table: Sequence[Row]) -> str:
        """Return median bias and RMSE of every case."""
        specs = distinct(table, "estimator")
        body: list[list[Any]] = []
        for case in distinct(table, "case"):
            for region in distinct(select(table, case=case), "region"):
                rows = {(r["estimator"], r["metric"]): r["q50"] for r in select(table, case=case, region=region)}
                body.append([case, region, *(rows[spec, m] for spec in specs for m in ("bias", "rmse"))])
        head = [f"{draw.label(spec)}: {m}" for spec in specs for m in ("bias", "RMSE")]
        return (
            f"T1, medians over voxels, %, C = {int(table[0]['repeats'])}; SNR {SNR:g} where nothing else is said\n\n"
            + text_table(["case", "region", *head], body)
        )


def _shown(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the region whose figures a case is about."""
    return ("lesion",) if any(row["region"] == "lesion" for row in rows) else ("GM",)


def _scene(settings: Settings, case: Case) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the truth (Q, X, Y) and where lesions are."""
    labels = brain_slice(settings)
    model, kappa = truth(settings, "T1")
    kappa = kappa.copy()
    lesion = np.zeros(labels.shape, bool)
    if case.lesion is not None:
        radius = 2.0 if settings.quick else RADIUS
        # scipy is slow to import: only this function needs it
        from scipy.ndimage import distance_transform_edt

        room = distance_transform_edt(labels == WM)
        for _ in range(6):
            at = [int(i) for i in np.unravel_index(int(room.argmax()), room.shape)]
            if room[tuple(at)] < 1:
                break
            lesion |= disc(labels.shape, at, radius) & (labels == WM)
            room[disc(labels.shape, at, 4 * radius)] = 0
        kappa[model.time_index][lesion] = case.lesion
        kappa[model.index(model.amplitudes[0].name)][lesion] = GREY_MATTER_A
    if case.B is not None and model.field is not None:
        kappa[model.index(model.field.name)] = case.B
    return kappa, lesion


def _series(
    settings: Settings, case: Case, kappa: NDArray[Any], mask: NDArray[np.bool_], rng: np.random.Generator
) -> WeightedSeries:
    model, _ = truth(settings, "T1")
    noise: Noise = at_snr(SNR)
    assumed: Noise = noise
    if case.sigma_span is not None:
        ramp = np.geomspace(case.sigma_span**-0.5, case.sigma_span**0.5, mask.shape[0])
        sigma = float(noise.sigma) * np.repeat(ramp[:, None], mask.shape[1], axis=1)
        noise = Gaussian(sigma=sigma)
        assumed = noise if case.known else Gaussian(sigma=float(np.median(sigma[mask])))
    if case.rician is not None:
        noise = Rician(sigma=at_snr(case.rician).sigma)
        assumed = noise if case.known else Gaussian(sigma=noise.sigma)
    series = simulate_series(kappa, model, noise, rng, mask=mask)
    if case.moved:
        half = model.n_images // 2
        later = simulate_series(np.roll(kappa, case.moved, axis=1), model, noise, rng, mask=mask)
        series = replace(series, images=np.concatenate([series.images[:half], later.images[half:]]))
    return series.with_noise(assumed)
