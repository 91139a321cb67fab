"""Define an experiment, and run it in pieces that are kept, on any executor.

A file of this folder with a subclass of `Experiment` is an experiment of `rimap evaluate`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
import shutil
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import rimap
from rimap.discovery import classes_in
from rimap.errors import InputError
from rimap.estimators.base import Estimator
from rimap.evaluation.named_estimators import available, fingerprint, named
from rimap.evaluation.tables import Row, read_table, write_table
from rimap.io.atomic import write_whole
from rimap.io.series_records import checksum
from rimap.source_hashes import source_fingerprint, sources_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A piece of an experiment; one of its entries may be an estimator.
Unit = tuple[str | int | float, ...]
#: What a piece gives.
Part = dict[str, NDArray[Any]]
#: Parts of the package that numbers depend on: pieces that other code computed are not used again.
_DECIDES_NUMBERS = ("arrays.py", "likelihood.py", "series.py", "signals", "estimators", "simulation")
#: What to do about a piece that is damaged.
_REMEDY = "Remove it, and run again without --redraw: what is missing is computed. --fresh computes all of it again."
#: Called with (pieces done, of how many).
Progress = Callable[[int, int], None]

#: Estimators that are compared by default, as far as they are available.
OF_T1 = ("nlls", "mle", "global_b", "mppca+nlls", "resnet:resnet_t1_31", "rim:rim_t1_31", "rim:universal")
SIDE_BY_SIDE = (*OF_T1, "resnet:resnet_t2", "rim:rim_t2")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of an experiment.

    Parameters
    ----------
    estimators
        By the names of `rimap.evaluation.named_estimators.named`.
    quick
        A small version: to see that it works.
    data
        Folder with `anatomies/test`, `brain_in_vivo` and `nist_phantom`; simulated experiments do without.
    repeats
        C, how many noise draws; the experiment's own number if left out.
    scans
        Repeated scans of one object, files or folders, for the experiments that take them.
    lines
        File with lines across a border, for `sharpness`.
    noise_level
        Standard deviation of the noise that stands for a repeated scan, as a fraction of the median signal.
    threads
        Of each estimator.
    sequence
        Name of the signal model of the scans; as their names and sidecars say if left out.
    mask
        File with the voxels that count, for the experiments that take scans.
    """

    estimators: tuple[str, ...] = ()
    quick: bool = False
    seed: int = 0
    data: Path | None = None
    repeats: int | None = None
    scans: tuple[Path, ...] = ()
    lines: Path | None = None
    noise_level: float | None = None
    threads: int | None = None
    sequence: str | None = None
    mask: Path | None = None

    def __post_init__(self) -> None:
        for name in ("data", "lines", "mask"):  # text is taken as well
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(path))
        object.__setattr__(self, "scans", tuple(Path(scan) for scan in self.scans))

    def recipe(self) -> dict[str, Any]:
        """Return the options that determine the results, as JSON, with file names instead of paths."""
        out = asdict(self)
        del out["estimators"], out["threads"]
        out["data"] = self.data.name if self.data else None
        out["scans"] = [scan.name for scan in self.scans]
        out["lines"] = self.lines.name if self.lines else None
        out["mask"] = self.mask.name if self.mask else None
        return out

    def data_folder(self, what: str) -> Path:
        """Return a folder of the data.

        Raises
        ------
        InputError
            Where it is not there.
        """
        if self.data is None or not (self.data / what).is_dir():
            where = "--data was not given" if self.data is None else f"{self.data} has none"
            raise InputError(f"this experiment needs the folder {what} of the real data; {where}. Give --data DIR.")
        return self.data / what


class Experiment(ABC):
    """One experiment: its pieces, the table that they make, and figures and summary of that table alone."""

    name: ClassVar[str]
    """What `rimap evaluate` takes."""
    title: ClassVar[str]
    paper: ClassVar[str]
    """Section and figure."""
    default_estimators: ClassVar[tuple[str, ...]] = SIDE_BY_SIDE
    parallel: ClassVar[bool] = True
    """Whether pieces may run at the same time (not where time is what is measured)."""

    @abstractmethod
    def units(self, settings: Settings) -> list[Unit]:
        """Return the pieces, in the order in which they should be done."""

    @abstractmethod
    def compute(self, settings: Settings, unit: Unit) -> Part:
        """Return the numbers of one piece. It must depend on its arguments alone."""

    @abstractmethod
    def rows(self, settings: Settings, parts: Mapping[Unit, Part]) -> list[Row]:
        """Return the tidy table of all pieces."""

    def pictures(self, settings: Settings, parts: Mapping[Unit, Part]) -> dict[str, NDArray[Any]]:
        """Return the maps that the figures show in addition to the table."""
        return {}

    @abstractmethod
    def figures(self, table: Sequence[Row], pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
        """Return the figures by file name, drawn from the table (and the pictures) alone."""

    @abstractmethod
    def summary(self, table: Sequence[Row]) -> str:
        """Return a short table of our numbers and those of the paper."""


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Parameters
    ----------
    skipped
        Why estimators were left out.
    computed
        How many pieces were computed now; the others were there.
    """

    folder: Path
    table: list[Row]
    summary: str
    skipped: tuple[str, ...]
    computed: int


def experiments() -> dict[str, Experiment]:
    """Return every experiment by name."""
    found = classes_in("rimap.evaluation", Experiment)  # type: ignore[type-abstract]
    return {name: found[name]() for name in sorted(found)}


@lru_cache(maxsize=16)
def estimator_of(spec: str, threads: int | None = None) -> Estimator:
    """Return an estimator by name, built once in each process."""
    return named(spec, threads=threads)


def run(
    experiment: Experiment,
    settings: Settings,
    out: Path | str,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    fresh: bool = False,
) -> Result:
    """Run an experiment and write OUT/<name>: table.csv, recipe.json, summary.txt, figures; finished pieces are kept.

    Parameters
    ----------
    executor
        Any of `concurrent.futures`; one piece after the other if left out.
    fresh
        Compute finished pieces again.

    Raises
    ------
    InputError
        If no estimator is available, or data are missing.
    """
    found, skipped = available(settings.estimators or experiment.default_estimators, threads=settings.threads)
    if not found:
        raise InputError("none of the estimators is available:\n" + "\n".join(skipped))
    settings = replace(settings, estimators=tuple(found))
    folder = Path(out) / experiment.name
    cache = folder / "parts" / _key(experiment, settings)
    if fresh:
        shutil.rmtree(cache, ignore_errors=True)
    units = experiment.units(settings)
    if not units:
        raise InputError(f"{experiment.name}: none of {', '.join(found)} fits this experiment.")
    paths = {unit: cache / f"{_slug(unit)}.npz" for unit in units}
    missing = [unit for unit in units if not paths[unit].is_file()]
    done = len(units) - len(missing)
    if progress:
        progress(done, len(units))

    def keep(unit: Unit, part: Part) -> None:
        nonlocal done
        buffer = io.BytesIO()
        np.savez(buffer, **part)  # type: ignore[arg-type]
        write_whole(paths[unit], buffer.getvalue())
        done += 1
        if progress:
            progress(done, len(units))

    if executor is None or not experiment.parallel:
        for unit in missing:
            keep(unit, experiment.compute(settings, unit))
    else:
        futures = {executor.submit(_compute, experiment, settings, unit): unit for unit in missing}
        try:
            for future in as_completed(futures):
                keep(futures[future], future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    parts = {unit: _load(paths[unit]) for unit in units}
    try:
        table = experiment.rows(settings, parts)
    except KeyError as error:
        if any(str(error.args[0]) in part for part in parts.values()):
            raise InputError(
                f"{cache}: expected {error.args[0]} in every piece that an earlier run kept, got pieces without it. "
                f"Remove the folder, and run again."
            ) from None
        raise
    pictures = experiment.pictures(settings, parts)
    write_table(folder / "table.csv", table)
    if pictures:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **pictures)  # type: ignore[arg-type]
        write_whole(folder / "pictures.npz", buffer.getvalue())
    write_whole(
        folder / "recipe.json", json.dumps(_recipe(experiment, settings, skipped), indent=2, ensure_ascii=False) + "\n"
    )
    summary = draw(experiment, folder)
    return Result(folder, table, summary, tuple(skipped), len(missing))


def draw(experiment: Experiment, folder: Path | str) -> str:
    """Draw the figures of a folder from its table, write the summary and return it.

    Raises
    ------
    InputError
        If there is no table.
    """
    folder = Path(folder)
    table = read_table(folder / "table.csv")
    pictures = _load(folder / "pictures.npz") if (folder / "pictures.npz").is_file() else {}
    for name, figure in experiment.figures(table, pictures).items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        write_whole(folder / f"{name}.png", buffer.getvalue())
    summary = experiment.summary(table)
    write_whole(folder / "summary.txt", summary + "\n")
    return summary


def _compute(experiment: Experiment, settings: Settings, unit: Unit) -> Part:
    return experiment.compute(settings, unit)


def _load(path: Path) -> Part:
    """Return the arrays of a file.

    Raises
    ------
    InputError
        If it is damaged, with what to do.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            part = {name: file[name] for name in file.files}
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: expected numbers that an earlier run kept, got a damaged file ({reason[:120]}). {_REMEDY}"
        ) from None
    if not part:
        raise InputError(f"{path}: expected numbers that an earlier run kept, got an empty file. {_REMEDY}")
    return part


def _slug(unit: Unit) -> str:
    """Return a file name of a unit: readable, and its own where names repeat."""
    text = "_".join(str(u) for u in unit)
    marks = "|".join(fingerprint(u) if isinstance(u, str) else "" for u in unit)
    plain = "".join(c if c.isalnum() or c in "-_.+" else "-" for c in text)[-80:]
    return f"{plain}_{hashlib.sha256(f'{text}|{marks}'.encode()).hexdigest()[:8]}"


def _key(experiment: Experiment, settings: Settings) -> str:
    """Return a key of the pieces of a run: another seed or other code of the estimators gives another key."""
    inputs = [_content(p.resolve()) for p in (settings.data, settings.lines, settings.mask, *settings.scans) if p]
    text = json.dumps([experiment.name, settings.recipe(), inputs, _source()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _content(path: Path) -> list[tuple[str, int, str]]:
    """Return name, size and checksum of a file, or of all files in a folder: other data have other pieces."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    return [(str(file.relative_to(path)), file.stat().st_size, checksum(file)) for file in files]


@lru_cache(maxsize=1)
def _source() -> str:
    """Return a hash of the code that the numbers depend on."""
    return source_fingerprint(sources_of(_DECIDES_NUMBERS))


def _recipe(experiment: Experiment, settings: Settings, skipped: Sequence[str]) -> dict[str, Any]:
    packages = ("numpy", "scipy", "numba", "onnxruntime", "matplotlib")
    return {
        "experiment": experiment.name,
        "paper": experiment.paper,
        "settings": settings.recipe(),
        "estimators": {spec: fingerprint(spec) for spec in settings.estimators},
        "skipped": list(skipped),
        "rimap": rimap.__version__,
        "source": _source(),
        "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in packages},
    }
