"""Parameters that are known and not estimated: a B1 map that the user names, or that is in the data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rimap import advice
from rimap.array_inputs import volume
from rimap.errors import InputError
from rimap.io.bids import BidsName, Sidecars, absolute, dataset_of, is_nifti
from rimap.io.image_type import UNITS_OF_ANGLES
from rimap.io.nifti import NiftiFile
from rimap.io.resampled_maps import map_at_images
from rimap.signals import Parameter, SignalModel
from rimap.signals.base import FIELD

#: A median between these means per cent of the nominal value.
_PERCENT = (60.0, 140.0)
#: The median of a field in most scans. Flip angles of 50 to 70 degrees would be taken for per cent.
_USUAL_FIELD = (0.75, 1.25)
#: A map of times whose median is below this is in seconds, if its sidecar does not say the unit.
_LONGEST_MEDIAN_S = 10.0
#: Relative error of a field for which the effect is reported: that of B1 in a head at 3 T.
_TYPICAL_ERROR = 0.9
#: The same effect below this, relative, is not worth a note.
_LEAST_EFFECT = 0.01
#: Entities that a map of a field shares with the series for which it was measured.
_MUST_AGREE = ("sub", "ses")
#: Entities that a map and a series may not share: the map that agrees in most is taken.
_MAY_DIFFER = ("acq", "rec", "run", "dir", "ce", "space")
#: How sidecars of maps write their units.
_PERCENT_UNITS = ("%", "percent", "per cent", "percentage")
_SECONDS, _MILLISECONDS = ("s", "sec", "second", "seconds"), ("ms", "msec", "millisecond", "milliseconds")


class InDataset(Protocol):
    """A series of a BIDS data set: `SeriesFiles` is one."""

    @property
    def dataset(self) -> Path | None:
        """The data set, `None` for loose files."""

    @property
    def entities(self) -> dict[str, str]:
        """The BIDS entities that its files share."""

    @property
    def field_maps(self) -> tuple[Path, ...]:
        """Other data sets in which maps of fields are looked for: OUT, where a B1 map was just made."""


@dataclass(frozen=True, eq=False)
class Given:
    """A parameter that is known.

    Parameters
    ----------
    value
        A number, or a map (*X), in the unit of the parameter.
    source
        The file, the number, or ``"array"``: what a sidecar says of it.
    """

    value: float | NDArray[np.float64]
    source: Path | float | str


def given_maps(
    given: Mapping[str, Any], series: InDataset, model: SignalModel, first: NiftiFile
) -> tuple[dict[str, Given], list[str]]:
    """Return the parameters that are known, by name, and notes.

    Parameters
    ----------
    given
        By name of a parameter: a file, a number (text or not), or an array (*X).
    series
        The series: a map of a field in its data set is used if `given` has none.
    model
        Its signal model.
    first
        One of its images: maps on another grid are interpolated at its voxels.

    Raises
    ------
    InputError
        For a name that the model does not have as a given parameter, for a map that is not where the images are, and
        for values that cannot be those of the parameter.
    """
    known: dict[str, Given] = {}
    notes: list[str] = []
    possible = [parameter.name for parameter in model.nonlinear if parameter is not model.time]
    for name, value in given.items():
        if name not in possible:
            raise InputError(
                f"--given {name}: expected {' or '.join(possible) or 'nothing'} for {model.title.lower()}, got "
                f"{name!r}. "
                "Leave it out."
            )
        known[name], note = _read(model.parameters[model.index(name)], value, first)
        notes += [note] if note else []
    for parameter in model.nonlinear:
        if not _is_property_of_the_scan(parameter) or parameter.name in known:
            continue
        path, note = found_beside(parameter, series)
        if path is not None:
            try:
                known[parameter.name], note = _read(parameter, path, first)
            except InputError as error:  # nobody asked for this map
                note = f"{path.name} of the data set was not used for {parameter.name}. {error}"
        notes += [note] if note else []
        if parameter.name not in known and parameter.given and (effect := effect_of_error(model, parameter)):
            notes.append(effect)
    return known, notes


def found_given(series: InDataset, model: type[SignalModel]) -> dict[str, Path]:
    """Return the maps of fields in the data set of a series, by name of the parameter, that `SeriesFiles.open` would
    use.

    They may still be elsewhere, which only `SeriesFiles.open` looks at.
    """
    fields = [parameter for parameter in model.parameters if _is_property_of_the_scan(parameter)]
    return {field.name: path for field in fields if (path := found_beside(field, series)[0]) is not None}


def found_beside(p: Parameter, series: InDataset) -> tuple[Path | None, str]:
    """Return the map of a field that was measured with a series, `None` if there is none, and a note if the choice is
    not clear.

    It has the suffix of the parameter (TB1map), and the subject and the session of the series. Raw maps come before
    derived ones; of several, the one that shares more entities.
    """
    if series.dataset is None or "sub" not in series.entities or p.suffix is None:
        return None, ""
    ranked: dict[tuple[int, int], list[Path]] = {}
    for rank, folder in _folders(series):
        for path in _maps(folder, p.suffix):
            entities = BidsName.parse(path.name)
            assert entities is not None
            shared, own = series.entities, entities.entities
            if all(own.get(k) == shared.get(k) for k in _MUST_AGREE):
                agree = sum(own.get(k) == shared.get(k) for k in _MAY_DIFFER if k in own and k in shared)
                ranked.setdefault((agree, -rank), []).append(path)
    if not ranked:
        return None, ""
    best = ranked[max(ranked)]
    if len(best) == 1:
        return best[0], ""
    names = ", ".join(f.name for f in best[:3]) + (" …" if len(best) > 3 else "")
    return (
        None,
        f"{len(best)} maps of {p.name} could belong to the series ({names}): none was used. Choose with --given "
        f"{p.name}=FILE",
    )


def effect_of_error(model: SignalModel, p: Parameter, *, time: float | None = None) -> str:
    """Return the effect of an unknown field on the map in words; "" if it barely matters.

    The signal is made with 0.9 times the value that is assumed, and fitted with that value.
    """
    assert p.start is not None
    T = model.time
    true = float(T.start or 0.0) if time is None else time
    others = {q.name: q.start for q in model.nonlinear}
    signal = np.asarray(
        model.shape(
            **{
                key: np.array([value], float)
                for key, value in (others | {p.name: _TYPICAL_ERROR * p.start, T.name: true}).items()
            }
        )
    )
    grid = np.geomspace(max(T.bounds[0], true / 20), min(T.bounds[1], true * 20), 4000)
    atoms = np.asarray(
        model.shape(**{key: np.full_like(grid, value) for key, value in (others | {T.name: grid}).items()})
    )
    if signal.ndim != 2:
        return ""  # several amplitudes: no single number says it
    norm = np.linalg.norm(atoms, axis=0)
    likeness = np.abs(signal[:, 0] @ atoms) / np.where(norm > 0, norm, np.inf)
    if not model.amplitudes:  # nothing scales the signal: it is compared as it is
        likeness = -np.linalg.norm(signal - atoms, axis=0)
    found = float(grid[np.argmax(likeness)])
    effect = found / true - 1
    if abs(effect) < _LEAST_EFFECT:
        return ""
    return (
        f"no map of {p.name} was found: {p.name} = {p.start:g} is assumed everywhere. Where {p.name} is "
        f"{_TYPICAL_ERROR * p.start:g}, {T.name} is {100 * abs(effect):.0f} % too {'long' if effect > 0 else 'short'} "
        f"(at {T.name} = {true:,.0f} {T.unit}). Give a map with --given {p.name}=FILE"
    )


def _is_property_of_the_scan(p: Parameter) -> bool:
    """Return whether a parameter is a relative field (B1) that can be measured with another scan."""
    return p.role == FIELD and p.unit == "1" and p.suffix is not None


def _folders(series: InDataset) -> Iterator[tuple[int, Path]]:
    """Yield the folders that may hold the field maps of a series, with a rank: raw ones 0, OUT 1, derivatives 2.

    In OUT and derivatives only ``fmap`` counts: what is in ``anat`` was estimated from a series, maybe from this one.
    """
    assert series.dataset is not None
    inside = Path(f"sub-{series.entities['sub']}")
    if "ses" in series.entities:
        inside /= f"ses-{series.entities['ses']}"
    derivatives = series.dataset / "derivatives"
    others = sorted(path for path in derivatives.iterdir() if path.is_dir()) if derivatives.is_dir() else []
    every = [series.dataset, *series.field_maps, *(other for other in others if not other.name.startswith("."))]
    for root in dict.fromkeys(absolute(f) for f in every):
        rank = 0 if root == series.dataset else 1 if root in map(absolute, series.field_maps) else 2
        for datatype in ("fmap", "anat") if rank == 0 else ("fmap",):
            yield rank, root / inside / datatype


def _maps(folder: Path, suffix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    entries = [path.name for path in folder.iterdir()]
    named = [(folder / entry, BidsName.parse(entry)) for entry in sorted(entries) if not entry.startswith(".")]
    return [f for f, n in named if n is not None and n.suffix == suffix and is_nifti(f) and "desc" not in n.entities]


def _read(p: Parameter, value: Any, first: NiftiFile) -> tuple[Given, str]:
    """Return a given parameter in its unit, and a note on how its values were read."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = Path(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Given(_converted(p, np.asarray(float(value)), "")[0].item(), float(value)), ""
    if not isinstance(value, Path):
        array = volume(value, first.affine, f"the map of {p.name}").astype(float)
        array, how = _converted(p, array, "")
        _check_values(p, array, "array")
        return Given(array, "array"), advice.note(f"{p.name} is a given map{how}")
    values, interpolated = map_at_images(value, first, f"map of {p.name}")
    unit = _unit_of(value)
    if p.unit == "1" and unit in UNITS_OF_ANGLES:
        raise InputError(
            f"{value}: expected {p.name} as a factor or in per cent, got an angle (Units {unit} in its sidecar). "
            "Divide it by the nominal flip angle, or correct the sidecar."
        )
    values, how = _converted(p, values, unit)
    middle = _check_values(p, values, value)
    text = f"{p.name} from {value.name}{how}{interpolated}"
    if p.unit == "1" and not unit and not _USUAL_FIELD[0] <= middle <= _USUAL_FIELD[1]:
        text += (
            ". Its sidecar has no unit, and few scans have such a field: check that the map does not hold flip angles"
        )
        return Given(values, absolute(value)), text
    return Given(values, absolute(value)), advice.note(text)


def _unit_of(path: Path) -> str:
    """Return the unit that the sidecar of a map says, in lower case, "" if none."""
    return str(Sidecars()(path, dataset_of(path)).get("Units") or "").strip().lower()


def _converted(p: Parameter, values: NDArray[np.float64], unit: str) -> tuple[NDArray[np.float64], str]:
    """Return values in the unit of the parameter, and how they were read, for a note."""
    positive = values[np.isfinite(values) & (values > 0)]
    median = float(np.median(positive)) if positive.size else np.nan
    if p.unit == "1" and p.bounds[1] < _PERCENT[0]:
        if unit in _PERCENT_UNITS or _PERCENT[0] <= median <= _PERCENT[1]:
            return values / 100, f", in per cent of the nominal value (median {median:.3g} %)"
        return values, f", as a factor (median {median:.3g})"
    if p.unit == "ms" and values.ndim:
        if unit in _SECONDS or (unit not in _MILLISECONDS and median < _LONGEST_MEDIAN_S):
            return values * 1000, f", in seconds (median {median:.3g} s)"
        return values, f", in milliseconds (median {median:,.0f} ms)"
    return values, ""


def _check_values(p: Parameter, values: NDArray[np.float64], path: Path | str) -> float:
    """Return the median of a given map.

    Raises
    ------
    InputError
        If it is not within the range of the parameter.
    """
    low, high = p.bounds
    known = values[np.isfinite(values) & (values != 0)]  # zeros mean that nothing was measured there
    median = float(np.median(known)) if known.size else np.nan
    if not low <= median <= high:
        unit = "" if p.unit == "1" else f" {p.unit}"
        raise InputError(
            f"{path}: expected {p.name} from {low:g} to {high:g}{unit}, as a factor or in per cent, got a median of "
            f"{median:.3g}. "
            "Check the unit of the map."
        )
    return median


def sources_of(known: Mapping[str, Any]) -> Sequence[Path]:
    """Return the files among the sources of given parameters."""
    return [source for source in known.values() if isinstance(source, Path)]
