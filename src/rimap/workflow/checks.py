"""Check whether a request can be carried out, and which series are finished already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rimap.errors import InputError, one_of
from rimap.io.unreadable_formats import refuse_device
from rimap.workflow.estimator_choice import chosen, estimator_of
from rimap.workflow.model_choice import decide, possible_models, settled
from rimap.workflow.region_names import label_names, label_table
from rimap.workflow.request import Request
from rimap.workflow.series_options import check_names, recorded

if TYPE_CHECKING:
    from rimap.io import SeriesFiles
    from rimap.io.series_records import Record


def subjects(request: Request, found: Sequence[SeriesFiles]) -> list[str]:
    """Return the subjects that a run is limited to, [] if it is not. Another run may map other subjects at the same
    time.
    """
    if not request.participant_labels or any(files.dataset is None for files in found):
        return []
    return sorted({f"sub-{files.entities['sub']}" for files in found})


def check_request(request: Request, found: Sequence[SeriesFiles]) -> None:
    """Refuse options that apply to no series, and an unusable output folder, before any work."""
    _check_options(request, found)
    _check_output(request, found)


def _check_options(request: Request, found: Sequence[SeriesFiles]) -> None:
    from rimap.estimators.denoising import FEWEST_IMAGES, METHODS, check_denoising
    from rimap.signals.model_options import POLARITY
    from rimap.signals.settings import REPETITION_TIME

    kinds = {f.model_class(request.sequence) for f in found}
    models = kinds.union(*(possible_models(request, f) for f in found))
    titles = " and ".join(sorted(model.title for model in models))
    if request.times_ms is not None and len(kinds) > 1:
        raise InputError(f"--times-ms: expected series of one sequence, got {titles}. Choose one with --sequence.")
    check_names(request, models)
    has = {field.name for model in models for field in fields(model)}
    for option, value, name in (
        ("--tr-ms", request.tr_ms, REPETITION_TIME),
        ("--signed/--magnitude", request.signed, POLARITY),
    ):
        if value is not None and name not in has:
            raise InputError(f"{option}: the signal model of {titles.lower()} has no such setting. Leave it out.")
    for model in models:
        chosen(request, model)
    if request.noise is not None:
        one_of(request.noise, ("gaussian", "rician"), "--noise")
    if request.denoise is not None:
        one_of(request.denoise, METHODS, "--denoise")
        check_denoising(FEWEST_IMAGES)
        if request.register:
            raise InputError(
                "--denoise and --register cannot be combined: interpolation correlates the noise, and MP-PCA mistakes "
                "correlated noise for signal. Leave one out."
            )
    if request.skip_first < 0:
        raise InputError(f"--skip-first: expected a number of times, got {request.skip_first}.")
    for path, option in ((request.mask, "--mask"), (request.rois, "--rois")):
        if isinstance(path, Path):
            refuse_device(path)
            if not path.is_file():
                raise InputError(f"{option}: expected an existing file, got {path}.")
    label_names(request.rois if isinstance(request.rois, Path) else None)


def _check_output(request: Request, found: Sequence[SeriesFiles]) -> None:
    from rimap.io import check_output

    by_estimator: dict[str, list[SeriesFiles]] = {}
    for f in found:
        by_estimator.setdefault(estimator_of(request, f).name, []).append(f)
    for name, files in by_estimator.items():
        check_output(files, request.out, estimator=name, overwrite=True, sequence=request.sequence)


def finished(request: Request, files: SeriesFiles) -> bool:
    """Return whether all maps of a series exist, made from the same files with the same settings.

    Raises
    ------
    InputError
        If other maps exist and `overwrite` is false.
    """
    from rimap.io import check_output

    if request.overwrite:
        return False
    request = as_decided(request, files)
    record = record_for(request, files)
    state = record.state()
    if state in ("finished", "begun"):
        return state == "finished"
    if state == "different":
        what = "; ".join(record.differences())
        raise InputError(
            f"{files.label}: maps with different settings already exist in {request.out} ({what[:200]}). Replace them "
            f"with "
            "--overwrite, or give another output folder."
        )
    check_output([files], request.out, estimator=estimator_of(request, files).name, sequence=request.sequence)
    return False


def as_decided(request: Request, files: SeriesFiles) -> Request:
    """Return the request with the signal model of a series, if the model is known.

    If the images must decide on the model, they do so here only if OUT has maps, because whether these are up to date
    depends on the decision.
    """
    known = settled(request, files)
    if known is None:
        named = [replace(request, sequence=model.name) for model in possible_models(request, files)]
        if any(record_for(each, files).path.is_file() for each in named):
            known = decide(request, files)
    return request if known is None else known[0]


#: Options whose default is not `False`.
_MAY_BE_FALSE = {"signed"}
#: Fields of a request that the maps do not depend on, or that `record_for` records in another way.
_NOT_RECORDED = {
    "inputs", "out", "estimator", "estimator_options", "settings", "given", "fixed", "bounds", "participant_labels",
    "sessions", "runs", "series", "overwrite",
    "threads", "memory", "command",
}  # fmt: skip


def record_for(request: Request, files: SeriesFiles) -> Record:
    """Return the record of a series in OUT: what its maps depend on, and whether they are complete."""
    from rimap import __version__
    from rimap.estimators.network_files import default_network, path_of
    from rimap.io.given_parameters import found_given
    from rimap.io.series_records import checksum, record_of

    model = files.model_class(request.sequence)
    estimator, _ = chosen(request, model)
    known = getattr(estimator, "__dataclass_fields__", {}).values()
    options = {f.name: getattr(estimator, f.name) for f in known if f.repr and f.name != "threads"}
    if "network" in options:
        network = path_of(options["network"] or default_network(model.name, estimator.name))
        options["network"] = f"{network.stem} {checksum(network)}"
    asked = {field.name: getattr(request, field.name) for field in fields(request) if field.name not in _NOT_RECORDED}
    if request.rois is not None and (table := label_table(request.rois)).is_file():
        asked["roi_names"] = table
    used = {f"given {name}": path for name, path in found_given(files, model).items()}
    settings = {"rimap": __version__, **options, **asked, **used, **recorded(request, model)}
    given = {
        key: value
        for key, value in settings.items()
        if value is not None and value not in ((), {}) and (value is not False or key in _MAY_BE_FALSE)
    }
    return record_of(files, request.out, estimator.name, given)
