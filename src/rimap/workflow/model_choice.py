"""Choose between signal models that describe the same images: the user's choice, or else the one that the images
support.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note
from rimap.errors import InputError
from rimap.likelihood import Gaussian
from rimap.workflow.request import Request
from rimap.workflow.requested_series import opened
from rimap.workflow.series_options import (
    Option,
    constraints_for,
    first_named,
    known_names,
    named_by,
    recorded,
    setting_names,
)

if TYPE_CHECKING:
    from rimap.io import SeriesFiles
    from rimap.io.open_series import OpenSeries
    from rimap.io.reading_options import Reading
    from rimap.io.series_records import Record
    from rimap.signals import SignalModel

#: Required decrease of AIC for the model with more parameters. Beyond 10 the other model has essentially no support
#: (Burnham & Anderson 2002, doi:10.1007/b97636); it is twice that here, because the best of several candidates is
#: selected.
MARGIN = 20.0
#: Number of voxels that are compared, and the smallest number for a decision.
MOST_VOXELS, FEWEST_VOXELS = 2_000, 20
#: The compared voxels have a signal above this fraction of the 98th percentile of the first image.
SIGNAL = 0.2
#: Number of voxels, in whole planes, from which the compared voxels are drawn.
LOOK_AT = 200_000
#: A series with fewer values than this is read as a whole, so that a compressed file is decompressed only once.
WHOLE = 100_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """Which signal model was chosen for a series, and why.

    Parameters
    ----------
    sequence
        Its name.
    candidate
        Which of its `candidates` the images support best, `None` if the user gave those options.
    text, short
        The decision and its reason, with figures, and without them (the figures differ between series).
    """

    sequence: str
    candidate: int | None
    text: str
    short: str

    def apply(self, request: Request) -> Request:
        """Return the request with the signal model that was chosen, and its options."""
        from rimap.signals import signal_models

        options = {} if self.candidate is None else signal_models()[self.sequence].candidates[self.candidate]
        return replace(request, sequence=self.sequence, settings={**request.settings, **options})


def possible_models(request: Request, files: SeriesFiles) -> tuple[type[SignalModel], ...]:
    """Return the signal models that a series may be mapped with: one, unless the images have to decide.

    The first one is that of suffix or sidecars. A network serves one sequence, so it leaves no choice.
    """
    from rimap.signals import signal_models

    own = files.model_class(request.sequence)
    if request.sequence is not None:
        return (own,)
    rivals = [m for m in signal_models().values() if m.chosen_over == own.name]
    served = [m for m in (own, *rivals) if _is_served(request, m)]
    return tuple(served) or (own,)


def settled(request: Request, files: SeriesFiles) -> tuple[Request, Decision | None] | None:
    """Return the request with the signal model of a series, and the decision, if nothing needs to be computed for it.

    `None` if the images must decide. An earlier decision in OUT is reused if it was made from the same files.
    """
    models = possible_models(request, files)
    if len(models) == 1:
        # a single model that differs from that of the suffix must be specified from here on
        own = models[0] is files.model_class(request.sequence)
        return (request if own else replace(request, sequence=models[0].name)), None
    record = _record(request, files, models)
    found = record.read()
    if found.get("state") != "finished" or record.differences():
        return None
    decision = _from_record(found.get("decision"), models)
    return None if decision is None else (decision.apply(request), decision)


def decide(request: Request, files: SeriesFiles) -> tuple[Request, Decision | None]:
    """Return the request with the signal model of a series, and the decision if there was a choice. OUT records it.

    Raises
    ------
    InputError
        If the series cannot be read, or if an option belongs only to a model that these images cannot have.
    """
    if (known := settled(request, files)) is not None:
        return known
    models = possible_models(request, files)
    decision = _decided(request, files, models)
    _record(request, files, models).finish((), decision=vars(decision))
    return decision.apply(request), decision


def _decided(request: Request, files: SeriesFiles, models: tuple[type[SignalModel], ...]) -> Decision:
    """Return the decision, without a text if only the first model fits the images."""
    own, *rivals = models
    named = {rival.name: named_by(request, rival, own) for rival in rivals}
    may_have_floor = (request.noise or "").strip().lower() != "gaussian"
    return _of_models(
        models, lambda name: opened(replace(request, sequence=name), files), request.settings, named, may_have_floor
    )


def decide_reading(how: Reading, files: SeriesFiles) -> tuple[Reading, Decision | None]:
    """Return the reading options with the signal model that the images support, and the decision if there was a choice.

    Raises
    ------
    InputError
        As `decide`.
    """
    from rimap.signals import signal_models

    own = files.model_class(how.sequence)
    models = (own, *(m for m in signal_models().values() if m.chosen_over == own.name))
    if how.sequence is not None or len(models) == 1:
        return how, None
    how = replace(how, times_ms=_list_of(how.times_ms), tr_ms=_list_of(how.tr_ms))
    settings = dict(how.settings or {})
    options = (Option("settings=", settings, setting_names), Option("given=", how.given or {}, known_names))
    named = {rival.name: first_named(options, rival, own) for rival in models[1:]}
    may_have_floor = not isinstance(how.noise, Gaussian)
    readings = {model.name: _reading_for(how, model, models) for model in models}
    found = _of_models(models, lambda name: files.open(readings[name]), settings, named, may_have_floor)
    chosen = {} if found.candidate is None else signal_models()[found.sequence].candidates[found.candidate]
    how = readings[found.sequence]
    return replace(how, settings={**(how.settings or {}), **chosen}), found


def _list_of(values: Any) -> Any:
    """Return values that can be read more than once."""
    return list(values) if isinstance(values, Iterator) else values


def _reading_for(how: Reading, model: type[SignalModel], models: Collection[type[SignalModel]]) -> Reading:
    """Return the reading options for one of the possible models, without options that only another one has."""

    def without(named: Mapping[str, Any] | None, names_of: Callable[[type[SignalModel]], list[str]]) -> dict[str, Any]:
        others = {name for model in models for name in names_of(model)} - set(names_of(model))
        return {name: value for name, value in (named or {}).items() if name not in others}

    return replace(
        how, sequence=model.name, settings=without(how.settings, setting_names), given=without(how.given, known_names)
    )


def _of_models(
    models: Sequence[type[SignalModel]],
    opened_as: Callable[[str], OpenSeries],
    settings: Mapping[str, Any],
    named: Mapping[str, str],
    may_have_floor: bool,
) -> Decision:
    """Return the model that the images of a series support. The first of the models is that of the file suffix.

    Parameters
    ----------
    opened_as
        Returns the series, opened for a model by name.
    named
        For each other model, the option with which the user chose it, "" if there is none.
    may_have_floor
        Whether the noise may be that of magnitude images.
    """
    own, *rivals = models
    series = [opened_as(own.name)]
    compared: list[tuple[SignalModel, int | None]] = [(series[0].model, None)]
    for rival in rivals:
        try:
            series.append(opened_as(rival.name))
        except InputError:
            if named[rival.name]:
                raise
            continue
        given = {name for options in rival.candidates for name in options if name in settings}
        options = [{}] if given else rival.candidates
        compared += [
            (replace(series[-1].model, **option), None if given or not option else i)
            for i, option in enumerate(options)
        ]
    if len(compared) == 1:
        return Decision(own.name, None, "", "")
    return _weighed(may_have_floor, series, compared, {name: value for name, value in named.items() if value})


def _weighed(
    may_have_floor: bool,
    series: list[OpenSeries],
    compared: list[tuple[SignalModel, int | None]],
    named: Mapping[str, str],
) -> Decision:
    """Return the model that the images support, or the one that the user chose, with the best of its options."""
    from rimap.estimators.checks.model_selection import evidence

    own = series[0].model
    images, voxels = _sample(series[0])
    by_name = {opened.model.name: opened for opened in series}
    known = [_known(by_name[model.name], voxels) for model, _ in compared]
    positions = _positions(series[0], voxels)
    enough = images.shape[1] >= FEWEST_VOXELS
    has_floor = may_have_floor and not (images < 0).any()
    found = evidence(images, positions, [m for m, _ in compared], known, has_floor=has_floor) if enough else None
    eligible = [c for c, (model, _) in enumerate(compared) if not named or model.name in named]
    if found is None or found.n_voxels < FEWEST_VOXELS:
        return _undecided(own, compared, eligible, named)
    best = min(eligible, key=lambda c: found.aic[c])
    if not named and found.aic[0] - found.aic[best] < MARGIN:
        best = 0
    return _in_words(compared, found.aic, found.n_voxels, best, named)


def _in_words(
    compared: list[tuple[SignalModel, int | None]], aic: Floats, n_voxels: int, best: int, named: Mapping[str, str]
) -> Decision:
    (own, _), (model, candidate) = compared[0], compared[best]
    if best == 0:
        rival = min(range(1, len(compared)), key=lambda c: aic[c])
        other, difference = compared[rival][0], (aic[rival] - aic[0]) / n_voxels
        short = f"{_called(own)} was chosen instead of {_called(other)}, which does not describe the images better"
        text = f"{short}: its AIC is {'higher' if difference >= 0 else 'lower'} by {abs(difference):.2g} per voxel"
        text += "" if difference >= 0 else ", which may be chance"
        return Decision(own.name, None, f"{text} ({n_voxels:,} voxels). {_remedy(other)}", f"{short} (AIC)")
    others = sum(m.name == model.name for m, _ in compared)
    option = "" if candidate is None else f"{_options(model, candidate)} (the best of {others} candidates)"
    if named:
        short = f"{_called(model)} was chosen because of {named[model.name]}, which {_called(own)} does not have"
        text = short + (f"; the images support {option}" if option else "")
        return Decision(model.name, candidate, f"{text}.", short)
    gain = (aic[0] - aic[best]) / n_voxels
    short = f"{_called(model)} was chosen instead of {_called(own)}, because it describes the images better"
    text = f"{short}: its AIC is lower by {gain:.3g} per voxel ({n_voxels:,} voxels)" + (
        f", with {option}" if option else ""
    )
    return Decision(model.name, candidate, f"{text}. {_remedy(own)}", f"{short} (AIC)")


def _undecided(
    own: SignalModel, compared: list[tuple[SignalModel, int | None]], eligible: list[int], named: Mapping[str, str]
) -> Decision:
    if named:
        model = compared[eligible[0]][0]
        short = f"{_called(model)} was chosen because of {named[model.name]}, which {_called(own)} does not have"
        return Decision(model.name, None, f"{short}.", short)
    other = compared[1][0]
    short = f"{_called(own)} was chosen, because too few voxels have enough signal to compare it with {_called(other)}"
    return Decision(own.name, None, f"{short}. {_remedy(other)}", short)


def _called(model: SignalModel) -> str:
    return f"{model.title} ({model.name})"


def _remedy(other: SignalModel) -> str:
    return f"Use --sequence {other.name} for the other model."


def _options(model: SignalModel, candidate: int) -> str:
    return ", ".join(f"{name} {getattr(model, name)}" for name in type(model).candidates[candidate])


def _is_served(request: Request, model: type[SignalModel]) -> bool:
    """Return whether the chosen network, if any, accepts this model."""
    from rimap.estimators.network_files import ANY_SEQUENCE, default_network, metadata_of, path_of
    from rimap.workflow.estimator_choice import needs_network

    if "network" in request.estimator_options:
        return metadata_of(path_of(request.estimator_options["network"]))["sequence"] in (model.name, ANY_SEQUENCE)
    if request.estimator is None or not needs_network(request.estimator):
        return True
    try:
        default_network(model.name, request.estimator)
    except InputError:
        return False
    return True


def _sample(series: OpenSeries) -> tuple[Floats, tuple[NDArray[np.intp], ...]]:
    """Return the images (N, V) of voxels with signal, spread over the volume, and their indices."""
    n, plane = series.shape[-1], int(np.prod(series.shape[:-1]))
    count = n if plane * n * sum(series.keep) <= WHOLE else min(n, max(4, -(-LOOK_AT // plane)))
    planes = np.unique(np.linspace(0, n - 1, count).round().astype(int))
    if count == n:
        images, mask = series.read_planes(0, n)
    else:
        parts = [series.read_planes(plane, plane + 1) for plane in planes]
        images = np.concatenate([part for part, _ in parts], axis=-1)
        mask = None if parts[0][1] is None else np.concatenate([m for _, m in parts if m is not None], axis=-1)
    first = images[int(np.argmin(series.model.times))]
    finite = np.isfinite(images).all(axis=0)
    inside = finite if mask is None else finite & mask
    if not inside.any():
        return np.empty((len(images), 0)), tuple(np.empty(0, np.intp) for _ in series.shape)
    voxels = np.flatnonzero(inside & (first > SIGNAL * np.percentile(first[inside], 98)))
    voxels = voxels[np.unique(np.linspace(0, len(voxels) - 1, min(len(voxels), MOST_VOXELS)).round().astype(int))]
    where = np.unravel_index(voxels, first.shape)
    values = np.asarray(images[(slice(None), *where)], dtype=float)
    return values, (*where[:-1], planes[where[-1]])


def _positions(series: OpenSeries, voxels: tuple[NDArray[np.intp], ...]) -> Floats:
    """Return the positions of voxels (D, V) in mm along the axes of the image."""
    edges = np.linalg.norm(np.asarray(series.affine, dtype=float)[:3, :3], axis=0)
    return np.stack([edges[axis] * index for axis, index in enumerate(voxels)])


def _known(series: OpenSeries, voxels: tuple[NDArray[np.intp], ...]) -> dict[str, float | Floats]:
    """Return the known parameters of a model: numbers, or the values of a map in the given voxels."""
    known: dict[str, float | Floats] = {
        parameter.name: parameter.start for parameter in series.model.parameters if parameter.given and parameter.start
    }
    for name, value in series.given.items():
        known[name] = float(value) if np.ndim(value) == 0 else np.asarray(value, dtype=float)[voxels]
    return known


def _record(request: Request, files: SeriesFiles, models: tuple[type[SignalModel], ...]) -> Record:
    """Return the record of a decision in OUT: what it depends on, and what it was."""
    from rimap import __version__
    from rimap.io.given_parameters import found_given
    from rimap.io.series_records import record_of

    depends: dict[str, Any] = {
        name: value
        for name in ("mask", "times_ms", "tr_ms", "noise", "skip_first")
        if (value := getattr(request, name)) not in (None, 0)
    }
    for model in models:
        depends |= recorded(request, model) | {f"found {n}": path for n, path in found_given(files, model).items()}
        depends |= constraints_for(request, model)
    return replace(record_of(files, request.out, "decision", {"rimap": __version__, **depends}), files=())


def _from_record(found: Any, models: tuple[type[SignalModel], ...]) -> Decision | None:
    """Return the decision in a record, `None` if it has no valid one."""
    try:
        decision = Decision(**found)
        model = next(model for model in models if model.name == decision.sequence)
        if decision.candidate is not None:
            model.candidates[decision.candidate]
    except (TypeError, StopIteration, IndexError):
        return None
    return decision


def noted(series: OpenSeries, decision: Decision | None) -> OpenSeries:
    """Return the series with a note of the decision."""
    return (
        series if decision is None or not decision.text else replace(series, notes=(note(decision.text), *series.notes))
    )
