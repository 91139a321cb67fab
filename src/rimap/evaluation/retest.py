"""Test-retest: the scatter of repeated scans, or of the two halves of one scan, and whether standard deviations predict
it (§5.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.errors import InputError
from rimap.evaluation import figures as draw
from rimap.evaluation.experiment import Experiment, Part, Settings, Unit, estimator_of
from rimap.evaluation.measurements import HALVES, SCANS, Measurements, groups_of, halves_of, measurements_of
from rimap.evaluation.named_estimators import fitting
from rimap.evaluation.simulated_scans import SAID, simulated_brain
from rimap.evaluation.tables import Row, distinct, select, spread, text_table
from rimap.map_display import name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Mean CV of T1 between repeated scans of the noisy data set, % (§6.3), and what it was measured with.
PAPER_CV = {"rim": 6.4, "mle": 17.1, "resnet": 11.06}
#: Differences beyond one of these are shown in the darkest colour, %: the first that holds most of them.
TOPS_PERCENT = (5.0, 10.0, 20.0, 50.0, 100.0)
#: What is measured if no scans are given.
SIMULATED = {"simulated, two scans": SCANS, "simulated, one scan": HALVES}
#: The distance between the quartiles of normal values, in standard deviations.
NORMAL_QUARTILES = 1.349


class Retest(Experiment):
    """Every object of a data set that was scanned twice or more; of one that was scanned once, odd against even images.
    Without scans, a simulated brain.

    The two halves of a scan are independent measurements of the same voxels, with no motion between them. Each has half
    of the images, and about twice the variance of the whole.

    Deviations
    ----------
    The paper has two scans of two volunteers, between which the object may move.
    """

    name: ClassVar[str] = "test-retest"
    title: ClassVar[str] = "Test-retest of your own scans, or of the halves of one"
    paper: ClassVar[str] = "§5.3"
    default_estimators: ClassVar[tuple[str, ...]] = ("nlls", "mle", "rim:universal")

    def units(self, settings: Settings) -> list[Unit]:
        """Return the pairs (object, estimator) to compute.

        Raises
        ------
        InputError
            If no object has two measurements.
        """
        found: list[Unit] = []
        refused = []
        for label in _groups(settings):
            try:
                model = _measured(settings, label).series[0].model
            except InputError as error:
                refused.append(f"{label}: {error}")
                continue
            fit = fitting([estimator for estimator in settings.estimators if estimator != "nlls"], model)
            # the least squares of each voxel count also where they are the likelihood's: they are asked for by name
            found += [
                (label, estimator) for estimator in settings.estimators if estimator in fit or estimator == "nlls"
            ]
        if not found and refused:
            raise InputError("no object has two measurements:\n" + "\n".join(refused))
        return found

    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the main map and its standard deviation (C, M) of each measurement."""
        label, spec = map(str, unit)
        measured = _measured(settings, label)
        estimator = estimator_of(spec, settings.threads)
        name = measured.series[0].model.main.name
        values, sds = [], []
        for series in measured.series:
            maps = estimator.estimate(series)
            values.append(np.asarray(maps[name])[measured.mask])
            sds.append(
                np.asarray(maps.sd[name])[measured.mask] if maps.has_sd(name) else np.full(values[-1].shape, np.nan)
            )
        return {"map": np.stack(values).astype(np.float32), "sd": np.stack(sds).astype(np.float32)}

    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return a row for each object, estimator, region and metric.

        ``cv`` in % (Eq. 8), ``difference`` of the second from the first in %, and ``z``, the deviations in standard
        deviations.
        """
        out: list[Row] = []
        for (label, spec), part in parts.items():
            measured = _measured(settings, str(label))
            model = measured.series[0].model
            maps = part["map"].astype(float)
            reference = next(part["map"] for u, part in parts.items() if u[0] == label).astype(float).mean(0)
            low, high = np.nanquantile(reference, [0.25, 0.75])
            for region, where in {
                "foreground": np.ones(reference.shape, bool),
                "between the quartiles": (reference >= low) & (reference <= high),
            }.items():
                here = {
                    "object": label, "map": name_of(model.main), "measurements": measured.kind, "repeats": len(maps),
                    "images": measured.series[0].model.n_images, "estimator": spec, "region": region,
                }  # fmt: skip
                values, sds = maps[:, where], part["sd"].astype(float)[:, where]
                mean = values.mean(0)
                with np.errstate(invalid="ignore", divide="ignore"):
                    cv = 100 * values.std(0, ddof=1) / np.abs(mean)
                    difference = 100 * (values[1] - values[0]) / np.abs(mean)
                    z = (values[1] - values[0]) / np.sqrt(sds[0] ** 2 + sds[1] ** 2)
                out.append(here | {"metric": "cv", "unit": "%"} | spread(cv))
                out.append(here | {"metric": "difference", "unit": "%"} | spread(difference))
                if np.isfinite(z).any():
                    out.append(here | {"metric": "z", "unit": "1"} | spread(z))
        return out

    def pictures(self, settings: Settings, parts: Mapping[Unit, Part]) -> dict[str, NDArray[Any]]:
        """Return the first map and the difference in % (estimator, X, Y) of each object, a middle slice."""
        out = {}
        for index, label in enumerate(dict.fromkeys(str(u[0]) for u in parts)):
            mask = _measured(settings, label).mask
            for what in ("map", "difference"):
                volumes = []
                for unit, part in parts.items():
                    if unit[0] != label:
                        continue
                    maps = part["map"].astype(float)
                    with np.errstate(invalid="ignore", divide="ignore"):
                        values = maps[0] if what == "map" else 100 * (maps[1] - maps[0]) / np.abs(maps[:2].mean(0))
                    volume: NDArray[Any] = np.full(mask.shape, np.nan, np.float32)
                    volume[mask] = values
                    volumes.append(volume if volume.ndim == 2 else volume[..., volume.shape[2] // 2])
                out[f"{index + 1}_{what}"] = np.stack(volumes)
        return out

    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return maps and differences, a figure for each object."""
        out = {}
        for index, label in enumerate(distinct(table, "object")):
            specs = distinct(select(table, object=label), "estimator")
            name = select(table, object=label)[0]["map"]
            out[f"object_{index + 1}"] = _figure(
                str(label), str(name), specs, pictures[f"{index + 1}_map"], pictures[f"{index + 1}_difference"]
            )
        return out

    def summary(self, table: Sequence[Row]) -> str:
        """Return the scatter of each object and estimator, and whether the standard deviations predict it."""
        body = []
        for r in select(table, metric="cv"):
            same = {k: r[k] for k in ("object", "estimator", "region")}
            d = select(table, metric="difference", **same)[0]
            z = select(table, metric="z", **same)
            kind = str(r["estimator"]).partition(":")[0]
            of_paper = PAPER_CV.get(kind, "") if r["map"] == "T1" and r["region"] == "foreground" else ""
            body.append(
                [
                    r["object"], r["map"], r["region"], draw.label(r["estimator"]), r["q50"], r["mean"], str(of_paper),
                    d["q50"], _scatter(d) / np.sqrt(2), _scatter(z[0]) if z else "",
                ]
            )  # fmt: skip
        lines = [
            f"{o}: {first['measurements']}, {int(first['repeats'])} measurements of {int(first['images'])} images each"
            for o in distinct(table, "object")
            for first in select(table, object=o)[:1]
        ]
        header = [
            "object", "map", "region", "estimator", "median CV, %", "mean CV, %", "paper's mean CV",
            "median difference, %",
            "SD without it, %", "scatter over predicted SD",
        ]  # fmt: skip
        notes = [
            "A median difference that is not zero is systematic: something differs between the two measurements, or "
            "the signal model does not describe both equally well. The SD is that of one map."
        ]
        if select(table, measurements=HALVES):
            notes.append(
                "A half has half of the images. The SD of a map from all of them is smaller: about 0.7 times if each "
                "half determines all parameters well, and less if it does not."
            )
        if str(table[0]["object"]) in SIMULATED:
            lines = [SAID, *lines]
        return "\n".join([*lines, "", text_table(header, body), "", *notes])


def _scatter(row: Row) -> float:
    """Return the standard deviation of normal values with the quartiles of a row: outliers do not count."""
    return float((row["q75"] - row["q25"]) / NORMAL_QUARTILES)


def _groups(settings: Settings) -> list[str]:
    if not settings.scans:
        return list(SIMULATED)
    return list(_found(settings.scans, settings.sequence))


@lru_cache(maxsize=4)
def _found(scans: tuple[Any, ...], sequence: str | None) -> dict[str, Any]:
    return dict(groups_of(scans, sequence))


@lru_cache(maxsize=2)
def _loaded(scans: tuple[Any, ...], sequence: str | None, mask: Any, label: str) -> Measurements:
    return measurements_of(label, _found(scans, sequence)[label], sequence, mask)


def _measured(settings: Settings, label: str) -> Measurements:
    if not settings.scans:
        return _simulated(settings.seed, settings.quick, label)
    return _loaded(settings.scans, settings.sequence, settings.mask, label)


@lru_cache(maxsize=2)
def _simulated(seed: int, quick: bool, label: str) -> Measurements:
    of = Settings(seed=seed, quick=quick)
    kind = SIMULATED[label]
    first = simulated_brain(of, "ir")
    series = halves_of(first) if kind == HALVES else (first, simulated_brain(of, "ir", scan=1))
    return Measurements(label, kind, series)


def _figure(label: str, name: str, specs: Sequence[str], maps: NDArray[Any], differences: NDArray[Any]) -> Figure:
    there = np.isfinite(maps).any(0)
    x, y = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    inside = np.s_[:, x[0] : x[-1] + 1, y[0] : y[-1] + 1]
    maps, differences = maps[inside], differences[inside]
    low, high = colours.window(maps[np.isfinite(maps)])
    palette = colours.of_relaxation(name)
    largest = float(np.nanquantile(np.abs(differences), 0.9))
    top = next((t for t in TOPS_PERCENT if t >= largest), TOPS_PERCENT[-1])
    figure, axes = draw.canvas(2, len(specs), height=2.3)
    for index, spec in enumerate(specs):
        draw.show_map(axes[0, index], maps[index], low, high, palette, logarithmic=True)
        draw.show_map(axes[1, index], differences[index], -top, top, "vik")
        draw.titled(axes[0, index], draw.label(spec))
    axes[0, 0].set_ylabel("first")
    draw.colour_bar(figure, axes[0], low, high, palette, f"{name} [ms]", logarithmic=True)
    draw.colour_bar(figure, axes[1], -top, top, "vik", "second − first [%]")
    figure.suptitle(label, fontsize=9)
    return figure
