"""What must hold of a trained network: its figures against the better of the MLE's, cell by cell, PASS or FAIL.

python -m benchmarks.bench_t1 rim:t1                         all parts, 3 subjects, 20 draws
python -m benchmarks.bench_t1 rim:runs/a.onnx --quick        1 subject, 4 draws, SNR 3, 10, 100
python -m benchmarks.bench_t1 rim:t2 --parts t2
python -m benchmarks.bench_t1 rim:a.onnx rim:b.onnx          and how far their figures are apart, of several seeds, say

Parts: `main` (31 TIs of IV_T1, smooth and white texture), `unseen` (4 to 12 TIs that no recipe names), `structures`
(Fig. 3), `t2` (T2 of 20 to 2000 ms). "MLE" is, for each figure, the better of the regularised MLE and the MLE with one
global B. The verdict is that of the worst subject and tissue; GM and WM are both given as the mean over subjects.
The baselines' figures are kept in a cache: they are the same for every network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import rimap.estimators
import rimap.simulation
from rimap.estimators.base import Estimator
from rimap.evaluation import accuracy
from rimap.evaluation.named_estimators import fitting, named
from rimap.signals.base import SignalModel
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.signals.t2_decay import T2Decay
from rimap.simulation.anatomies import digital_brain, load_anatomy
from rimap.simulation.subjects import Texture

Row = dict[str, Any]

ANATOMY = Path(__file__).resolve().parents[2] / "shared/data/anatomies/test/brainweb10_brain.nii.gz"
SNRS = (3, 5, 10, 30, 100)
#: The issue's table: figure -> its limit at each SNR.
LIMITS: dict[str, dict[float, float]] = {
    "CV / MLE's": dict(zip(SNRS, (0.4, 0.45, 0.55, 0.75, 1.0))),
    "|bias| %": dict(zip(SNRS, (4.0, 3.0, 1.5, 1.0, 1.0))),
    "RMSE / MLE's": dict(zip(SNRS, (0.6, 0.6, 0.8, 1.0, 1.0))),
    "slope": dict(zip(SNRS, (0.5, 0.7, 0.8, 0.9, 0.95))),
}
#: Per cent of the voxels of a tissue that may be without a value, because they look like background.
LARGEST_MISSING = 0.1
UNSEEN_LIMITS = {"CV / MLE's": 0.6, "|bias| %": 2.5, "slope": 0.7}
#: TIs (ms) that no recipe names; the second set is kept aside: look at it once, at the end.
UNSEEN = {
    4: (40, 400, 1200, 4000),
    6: (40, 120, 350, 900, 2000, 4000),
    9: (40, 80, 160, 320, 600, 1100, 1800, 2800, 4000),
    12: (40, 90, 170, 290, 450, 650, 900, 1250, 1700, 2300, 3100, 4000),
}
HELD_OUT = {
    4: (60, 500, 1000, 3500),
    6: (50, 200, 500, 1000, 1700, 3200),
    9: (45, 150, 300, 450, 700, 1000, 1500, 2200, 3800),
    12: (40, 60, 100, 160, 250, 400, 600, 900, 1400, 2000, 2900, 4000),
}
TR = 4600.0  # ms
NOT_SHOWN = ("worst RMSE", "worst slope", " TIs, ", "texture")  # by `rimap models`
STRUCTURE_LIMIT = 3.43  # %, the paper's worst
T2_VALUES = (20, 30, 45, 70, 100, 150, 230, 350, 500, 700, 900, 1100, 1300, 1500, 1750, 2000)
T2_TIMES = (10, 20, 40, 80, 160, 320, 640)
T2_LIMIT = 5.0
BASELINES = ("mle", "global_b")


class Cache:
    """Rows of the baselines by what they were computed from: settings, anatomy and the code of the estimators."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: dict[str, list[Row]] = json.loads(path.read_text()) if path and path.is_file() else {}
        folder = Path(rimap.estimators.__path__[0])
        files = [f for part in ("mle", "nlls") for f in sorted((folder / part).rglob("*.py"))]
        files += sorted(folder.glob("table*.py"))
        files += sorted(Path(rimap.simulation.__path__[0]).glob("[fst][iu]*.py"))  # fields, subjects, tissues
        files.append(Path(accuracy.__file__))
        self.code = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]

    def get(self, key: Sequence[Any], make: Callable[[], list[Row]]) -> list[Row]:
        """Return the rows of a key, from the file or made now."""
        text = "|".join(map(str, (self.code, *key)))
        if text not in self.rows:
            self.rows[text] = make()
            if self.path:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                part = self.path.with_suffix(f".{os.getpid()}.part")
                part.write_text(json.dumps(self.rows))
                part.replace(self.path)
        return self.rows[text]


def note(text: str) -> None:
    """Show progress on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def better(rows: Iterable[Row], figure: str, **where: Any) -> float:
    """Return the least of a figure over the baselines, NaN without any."""
    values = [r[figure] for r in rows if r["estimator"] in BASELINES and all(r[k] == v for k, v in where.items())]
    return min(values, default=float("nan"))


def figures(rows: list[Row], name: str, snr: float) -> dict[str, dict[tuple[int, str], float]]:
    """Return each figure of the issue's table by (subject, tissue)."""
    out: dict[str, dict[tuple[int, str], float]] = {f: {} for f in LIMITS}
    for r in rows:
        if r["estimator"] != name or r["snr"] != snr:
            continue
        at = {"subject": r["subject"], "tissue": r["tissue"], "snr": snr}
        key = (r["subject"], r["tissue"])
        failed = 100 * r["nan"] > LARGEST_MISSING
        out["CV / MLE's"][key] = np.inf if failed else r["cv"] / better(rows, "cv", **at)
        out["RMSE / MLE's"][key] = np.inf if failed else r["rmse"] / better(rows, "rmse", **at)
        out["|bias| %"][key] = np.inf if failed else abs(r["bias"])
        out["slope"][key] = -np.inf if failed else r["slope"]
    return out


def cell(figure: str, values: dict[tuple[int, str], float], limit: float) -> tuple[str, bool]:
    """Return ``GM/WM mean over subjects, worst, verdict`` and whether it holds."""
    worst = min(values.values()) if figure == "slope" else max(values.values())
    holds = worst >= limit if figure == "slope" else worst <= limit
    means = [np.mean([v for (_, t), v in values.items() if t == tissue]) for tissue in ("GM", "WM")]
    return f"{means[0]:5.2f}/{means[1]:5.2f} {worst:5.2f} {'PASS' if holds else 'FAIL'}", bool(holds)


def table(rows: list[Row], name: str, columns: Sequence[tuple[str, float, dict[str, float]]]) -> list[bool]:
    """Print one table: a row a figure, a column each (title, SNR, limits), and return the verdicts."""
    verdicts = []
    print(" " * 14 + "".join(f"{title:>24}" for title, _, _ in columns))
    for figure in LIMITS:
        cells = []
        for _, snr, limits in columns:
            values = figures(rows, name, snr)[figure]
            if figure not in limits:
                values = {k: v for k, v in values.items() if np.isfinite(v)}
                cells.append(f"{np.mean(list(values.values())):5.2f} (no limit)" if values else "")
                continue
            text, holds = cell(figure, values, limits[figure])
            cells.append(text)
            verdicts.append(holds)
        limit = " ".join(f"{limits.get(figure, float('nan')):g}" for _, _, limits in columns)
        print(f"{figure:<14}" + "".join(f"{c:>24}" for c in cells) + f"   limits {limit}")
    return verdicts


def worst(found: dict[str, dict[tuple[int, str], float]], where: str) -> dict[str, float]:
    """Return the worst cell of each figure, by what it is."""
    return {
        f"worst {f} {where}": round(float((min if f == "slope" else max)(values.values())), 2)
        for f, values in found.items()
    }


def main_part(net: tuple[str, Estimator], base: dict[str, Estimator], labels: Any, args: Any, cache: Cache) -> None:
    """Print the table of the issue for both textures."""
    for texture in args.textures:
        rows = measured(net, base, labels, PROTOCOLS["IV_T1"], args.snrs, args, cache, texture=texture)
        print(f"\n{net[0]} against the better MLE, 31 TIs of IV_T1, {texture} texture: GM/WM, worst, verdict")
        columns = [(f"SNR {s:g}", s, {f: nearest(limit, s) for f, limit in LIMITS.items()}) for s in args.snrs]
        args.verdicts[f"main, {texture}"] = table(rows, net[0], columns)
        of = "" if texture == "smooth" else f", {texture} texture"
        for s in args.snrs:
            args.seen |= worst(figures(rows, net[0], s), f"at SNR {s:g}{of}")
        if args.absolute:
            absolute(rows)


def nearest(limits: dict[float, float], snr: float) -> float:
    """Return the limit at the SNR of the table that is nearest."""
    return limits[min(limits, key=lambda s: abs(np.log(s / snr)))]


def absolute(rows: list[Row]) -> None:
    """Print the figures themselves, means over subjects."""
    for key in sorted({(r["snr"], r["tissue"], r["estimator"]) for r in rows}):
        mine = [r for r in rows if (r["snr"], r["tissue"], r["estimator"]) == key]
        text = "  ".join(f"{f} {np.mean([r[f] for r in mine]):6.2f}" for f in ("bias", "cv", "rmse", "slope", "nan"))
        print(f"  SNR {key[0]:>4g} {key[1]} {key[2]:<24} {text}")


def measured(
    net: tuple[str, Estimator], base: dict[str, Estimator], labels: Any, model: SignalModel, snrs: Sequence[float],
    args: Any, cache: Cache, texture: str = "smooth",
) -> list[Row]:  # fmt: skip
    """Return the rows of the network and of the baselines on the same draws."""
    rows: list[Row] = []
    for subject in args.subjects:
        for snr in snrs:
            for name, estimator in {**base, net[0]: net[1]}.items():

                def make(name: str = name, estimator: Estimator = estimator, s: int = subject, r: float = snr) -> Any:
                    of = accuracy.Subject(labels, model, s, Texture(texture))
                    return accuracy.measure(
                        name, estimator, of, snr=r, n_repeats=args.draws, seed=args.seed, progress=note
                    )

                if name in base:
                    key = ("main", labels_key(labels), model, subject, snr, args.draws, args.seed, texture, name)
                    rows += cache.get(key, make)
                else:
                    rows += make()
    note("")
    return rows


def labels_key(labels: Any) -> str:
    """Return a short name of a slice."""
    return hashlib.sha256(labels.tobytes() + str(labels.shape).encode()).hexdigest()[:10]


def unseen_part(net: tuple[str, Estimator], base: dict[str, Estimator], labels: Any, args: Any, cache: Cache) -> None:
    """Print the rows of the protocols that no recipe names, with and without TR, at SNR 10."""
    protocols = HELD_OUT if args.held_out else UNSEEN
    print(f"\n{net[0]}, {'held-out' if args.held_out else 'unseen'} protocols, SNR 10: GM/WM, worst, verdict")
    for n, times in protocols.items():
        if args.protocols and n not in args.protocols:
            continue
        for tr in (None, TR):
            model = InversionRecovery(tau=times, tr=tr)
            rows = measured(net, base, labels, model, (10,), args, cache)
            print(f"{n} TIs {times}, {'TR far longer than T1' if tr is None else f'TR {tr:g} ms, known'}")
            what = f"{n} TIs, {'no TR' if tr is None else 'TR'}"
            args.verdicts[what] = table(rows, net[0], [("SNR 10", 10, UNSEEN_LIMITS)])
            args.seen |= worst(figures(rows, net[0], 10), f"at SNR 10, {what}")
            if args.absolute:
                absolute(rows)


def structures_part(
    net: tuple[str, Estimator], base: dict[str, Estimator], labels: Any, args: Any, cache: Cache
) -> None:
    """Print the bias of each structure of Fig. 3."""
    print(f"\nStructures of Fig. 3, SNR 10: relative bias and CV, %; limit of the bias {STRUCTURE_LIMIT} %")
    model, rows = PROTOCOLS["IV_T1"], []
    for subject in args.subjects:
        for name, estimator in {**base, net[0]: net[1]}.items():

            def make(name: str = name, estimator: Estimator = estimator, s: int = subject) -> list[Row]:
                of = accuracy.Subject(labels, model, s)
                return accuracy.structure_bias(name, estimator, of, n_repeats=args.draws, seed=args.seed)

            key = ("structures", labels_key(labels), subject, args.draws, args.seed, name)
            rows += cache.get(key, make) if name in base else make()
    verdicts = []
    for s in accuracy.STRUCTURES:
        parts = []
        for name in (*base, net[0]):
            mine = [r for r in rows if r["estimator"] == name and r["structure"] == s.name]
            bias = float(np.mean([r["bias"] for r in mine]))
            parts.append(f"{name} {bias:+6.2f} (CV {np.mean([r['cv'] for r in mine]):5.2f})")
        verdicts.append(bool(abs(bias) <= STRUCTURE_LIMIT))
        print(
            f"{s.name:<16} n = {mine[0]['count']:<3} " + "   ".join(parts) + f"  {'PASS' if verdicts[-1] else 'FAIL'}"
        )
        args.seen[f"bias % of a {s.title} at SNR 10"] = round(bias, 2)
    args.verdicts["structures"] = verdicts


def t2_part(net: tuple[str, Estimator], args: Any) -> None:
    """Print the bias of T2 from 20 to 2000 ms at SNR 30."""
    print(f"\n{net[0]}: T2 at TE {T2_TIMES} ms, SNR 30: relative bias (CV), %; limit of the bias {T2_LIMIT:g} %")
    model, verdicts = T2Decay(tau=T2_TIMES), []
    by_name = {
        name: accuracy.tile_bias(name, e, model, T2_VALUES, n_repeats=args.draws, seed=args.seed)
        for name, e in (("nlls", named("nlls", threads=args.threads)), net)
    }
    for i, T2 in enumerate(T2_VALUES):
        n, r = by_name["nlls"][i], by_name[net[0]][i]
        verdicts.append(bool(abs(r["bias"]) <= T2_LIMIT))
        text = "   ".join(f"{x['estimator']} {x['bias']:+6.2f} ({x['cv']:5.2f})" for x in (n, r))
        print(f"T2 {T2:>5} ms   {text}  {'PASS' if verdicts[-1] else 'FAIL'}")
    largest = max(abs(r["bias"]) for r in by_name[net[0]])
    args.seen["worst |bias| %, T2 20 to 2000 ms at SNR 30"] = round(largest, 2)
    args.verdicts["t2"] = verdicts


def spread(seen: dict[str, dict[str, float]]) -> None:
    """Print each figure, the worst of its cells, of several networks: of one recipe and other seeds, say."""
    print(f"\nEach figure's worst cell over {len(seen)} networks: {', '.join(seen)}")
    for figure in next(iter(seen.values())):
        values = np.array([s[figure] for s in seen.values()])
        each = "  ".join(f"{v:6.2f}" for v in values)
        print(f"{figure:<28} {each}   mean {values.mean():6.2f}, from {values.min():6.2f} to {values.max():6.2f}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="rim:NAME, rim:FILE.onnx, resnet:…, or any estimator")
    parser.add_argument("--parts", default=None, help="main,unseen,structures,t2 (default: by the name)")
    parser.add_argument("--snrs", default=None, help="of 3,5,10,30,100")
    parser.add_argument("--draws", type=int, default=None)
    parser.add_argument("--subjects", type=int, default=None, help="how many")
    parser.add_argument("--textures", default="smooth,white")
    parser.add_argument("--protocols", default="", help="of 4,6,9,12")
    parser.add_argument("--held-out", action="store_true", help="the protocols and subjects that are kept aside")
    parser.add_argument("--quick", action="store_true", help="1 subject, 4 draws, SNR 3, 10, 100, smooth texture")
    parser.add_argument("--absolute", action="store_true", help="print the figures themselves too")
    parser.add_argument("--full", action="store_true", help="do not cut the slice to the brain")
    parser.add_argument("--anatomy", type=Path, default=ANATOMY)
    parser.add_argument("--slice", type=int, default=None, help="the one with most brain if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None, help="write the worst figures here, for `rimap models`")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench_t1_baselines.json"))
    args = parser.parse_args()
    args.draws = args.draws or (4 if args.quick else 20)
    first = 1000 if args.held_out else 0
    args.subjects = range(first, first + (args.subjects or (1 if args.quick else 3)))
    args.snrs = [float(s) for s in (args.snrs or ("3,10,100" if args.quick else "3,5,10,30,100")).split(",")]
    args.textures = ["smooth"] if args.quick else args.textures.split(",")
    args.protocols = [int(p) for p in args.protocols.split(",") if p] or ([6] if args.quick else [])
    args.verdicts = {}
    return args


def main() -> None:
    """Print the tables of each network and a line of verdicts."""
    args = arguments()
    if args.anatomy.is_file():
        volume = load_anatomy(args.anatomy)
    else:
        print(f"{args.anatomy} is not there: the built-in head instead", file=sys.stderr)
        volume = digital_brain((192, 216, 144))
    k = int(np.isin(volume, (1, 2, 3, 8)).sum((0, 1)).argmax()) if args.slice is None else args.slice
    labels = np.ascontiguousarray(volume[:, :, k])
    labels = labels if args.full else accuracy.crop(labels)
    cache = Cache(args.cache)
    base = {name: named(name, threads=args.threads) for name in BASELINES}
    seen: dict[str, dict[str, float]] = {}
    for spec in args.networks:
        started, args.verdicts = time.perf_counter(), {}
        args.seen = seen[spec] = {}
        net = (spec, named(spec, threads=args.threads))
        print(
            f"\n=== {spec}: slice {k} {labels.shape}, {len(args.subjects)} subjects, {args.draws} draws, seed "
            f"{args.seed}"
        )
        t2 = not fitting([spec], PROTOCOLS["IV_T1"])
        parts = (args.parts or ("t2" if t2 else "main,unseen,structures")).split(",")
        if "main" in parts:
            main_part(net, base, labels, args, cache)
        if "unseen" in parts:
            unseen_part(net, base, labels, args, cache)
        if "structures" in parts:
            structures_part(net, base, labels, args, cache)
        if "t2" in parts:
            t2_part(net, args)
        print(f"\n{spec} in {time.perf_counter() - started:.0f} s: cells that hold")
        for part, verdicts in args.verdicts.items():
            print(f"  {part:<20} {sum(verdicts)}/{len(verdicts)}")
        if args.json:
            shown = {k: v for k, v in args.seen.items() if not any(word in k for word in NOT_SHOWN)}
            args.json.write_text(json.dumps(shown, indent=1))
    if len(seen) > 1:
        spread(seen)


if __name__ == "__main__":
    main()
