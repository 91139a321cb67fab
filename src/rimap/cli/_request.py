"""What was asked for: whether it can be, which estimator does it, and whether it is done already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rimap.cli._choice import build, default_estimator, estimator_names
from rimap.cli._options import one_of
from rimap.errors import InputError

if TYPE_CHECKING:
    from rimap.estimators import Estimator
    from rimap.io import SeriesFiles
    from rimap.io.records import Record


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for; see the help of `rimap map`."""

    inputs: tuple[Path, ...]
    out: Path
    estimator: str | None = None
    mask: Path | None = None
    times_ms: tuple[float, ...] | None = None
    tr_ms: tuple[float, ...] | None = None
    sequence: str | None = None
    signed: bool | None = None
    skip_first: int = 0
    noise: str | None = None
    sigma: float | Path | None = None
    estimator_options: Mapping[str, Any] = field(default_factory=dict)
    participant_labels: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    rois: Path | None = None
    rates: bool = False
    fill: float | None = None
    overwrite: bool = False
    threads: int | None = None
    memory: int | None = None
    register: bool = False
    quiet: bool = False
    command: tuple[str, ...] = ()  # what was typed, where a worker is told


def chosen(request: Request, sequence: str) -> tuple[Estimator, str]:
    """Return the estimator of a request for a sequence, and why it is that one.

    Raises
    ------
    InputError
        For an option that this estimator does not have, or noise that it cannot take.
    """
    options = dict(request.estimator_options)
    if request.estimator is None:
        name, why = default_estimator(sequence, options)
        if name in ("mle", "nlls"):
            options.pop("sd_draws", None)  # they give the bound: T2 beside T1 in one data set is no reason to refuse
    else:
        name, why = one_of(request.estimator, estimator_names(), "--estimator"), "as asked for"
    if name == "nlls" and (request.noise or "").strip().lower() == "rician":
        raise InputError(
            "--noise rician: nlls is least squares, which is for Gaussian noise. Take --estimator mle, or leave --noise out."
        )
    return build(name, options, threads=request.threads), why


def estimator_of(request: Request, files: SeriesFiles) -> Estimator:
    """Return the estimator of a request for a series."""
    return chosen(request, files.model_class(request.sequence).name)[0]


def sequences() -> list[str]:
    """Return the names that `--sequence` takes."""
    from rimap.signals import signal_models

    return sorted(signal_models())


def subjects(request: Request, found: Sequence[SeriesFiles]) -> list[str]:
    """Return the subjects that a run writes where it was asked for some alone: others may run beside it."""
    if not request.participant_labels or any(files.dataset is None for files in found):
        return []
    return sorted({f"sub-{files.entities['sub']}" for files in found})


def check_request(request: Request, found: Sequence[SeriesFiles]) -> None:
    """Refuse options that no series can take, and an OUT that cannot take the maps, before any work."""
    _check_options(request, found)
    _check_output(request, found)


def _check_options(request: Request, found: Sequence[SeriesFiles]) -> None:
    models = {f.model_class(request.sequence) for f in found}
    for model in models:
        chosen(request, model.name)
    if request.times_ms is not None and len(models) > 1:
        raise InputError(
            f"--times-ms is for series of one kind; {' and '.join(sorted(m.title for m in models))} came. "
            "Choose one with --sequence."
        )
    has = {f.name for model in models for f in fields(model)}
    titles = " and ".join(sorted(m.title for m in models))
    for option, value, name in (("--tr-ms", request.tr_ms, "tr"), ("--signed/--magnitude", request.signed, "signed")):
        if value is not None and name not in has:
            raise InputError(f"{option} is for inversion recovery; {titles} came. Leave it out.")
    if request.noise is not None:
        one_of(request.noise, ("gaussian", "rician"), "--noise")
    if request.skip_first < 0:
        raise InputError(f"--skip-first: a number of times was expected; {request.skip_first} came.")
    for path, option in ((request.mask, "--mask"), (request.rois, "--rois")):
        if path is not None and not path.is_file():
            raise InputError(f"{option} {path}: there is no such file.")


def _check_output(request: Request, found: Sequence[SeriesFiles]) -> None:
    from rimap.io import check_output

    by_estimator: dict[str, list[SeriesFiles]] = {}
    for f in found:
        by_estimator.setdefault(estimator_of(request, f).name, []).append(f)
    for name, files in by_estimator.items():
        check_output(files, request.out, estimator=name, overwrite=True, sequence=request.sequence)


def finished(request: Request, files: SeriesFiles) -> bool:
    """Tell whether the maps of a series are all there, made of the same files with the same settings.

    Raises
    ------
    InputError
        Where other maps are there and `overwrite` is false.
    """
    from rimap.io import check_output

    if request.overwrite:
        return False
    record = record_for(request, files)
    state = record.state()
    if state in ("finished", "begun"):
        return state == "finished"
    if state == "different":
        what = "; ".join(record.differences())
        raise InputError(
            f"{files.label}: maps are there already in {request.out}, made otherwise ({what[:200]}). Replace them with "
            "--overwrite, or give another output folder."
        )
    check_output([files], request.out, estimator=estimator_of(request, files).name, sequence=request.sequence)
    return False


#: What the maps do not depend on, or what `record_for` says in another way.
_NOT_RECORDED = {
    "inputs", "out", "estimator", "estimator_options", "participant_labels", "sessions", "runs", "series", "overwrite",
    "threads", "memory", "quiet", "command",
}  # fmt: skip


def record_for(request: Request, files: SeriesFiles) -> Record:
    """Return the record of a series in OUT: what the maps depend on, and what became of them."""
    from rimap import __version__
    from rimap.estimators.shipped import default_network, path_of
    from rimap.io.records import checksum, record_of

    model = files.model_class(request.sequence)
    estimator, _ = chosen(request, model.name)
    known = getattr(estimator, "__dataclass_fields__", {}).values()
    options = {f.name: getattr(estimator, f.name) for f in known if f.repr and f.name != "threads"}
    if "network" in options:
        network = path_of(options["network"] or default_network(model.name, estimator.name))
        options["network"] = f"{network.stem} {checksum(network)}"
    asked = {f.name: getattr(request, f.name) for f in fields(request) if f.name not in _NOT_RECORDED}
    if request.rois is not None and (table := label_table(request.rois)).is_file():
        asked["roi_names"] = table
    settings = {"rimap": __version__, **options, **asked}
    given = {k: v for k, v in settings.items() if v is not None and v != () and (v is not False or k == "signed")}
    return record_of(files, request.out, estimator.name, given)


def label_table(image: Path) -> Path:
    """Return where the names of the labels of an image are, if anywhere."""
    return image.with_name(f"{image.name.removesuffix('.gz').removesuffix('.nii')}.tsv")
