"""Which maps are compared with each other: two that are named, those of two folders with one name, or the repeats in a
folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

from rimap.errors import InputError, count_of
from rimap.io.bids import BidsName
from rimap.io.map_images import MapImage, map_images

#: Entities in which repeats differ.
REPEATS = ("ses", "run")

#: The name of a map with the entities of its file, or with the name of a file that has none.
Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...] | str]


def maps_to_compare(
    first: Path, second: Path | None, names: Sequence[str]
) -> tuple[list[tuple[MapImage, MapImage]], list[str]]:
    """Return the maps to compare, and notes on those that have no partner."""
    if second is None:
        if not first.is_dir():
            raise InputError(
                f"{first}: expected two maps or a folder with repeats, got one map. Give the second map as well."
            )
        return _repeats(_without_rates(map_images([first], names), names), first), []
    a, b = (_without_rates(map_images([x], names), names) for x in (first, second))
    if len(a) == len(b) == 1:
        return [(a[0], b[0])], []
    for dropped in ((), ("ses",), ("run",), REPEATS, ("sub", *REPEATS)):
        ones, others = ({key_of(map_, dropped): map_ for map_ in maps} for maps in (a, b))
        if len(ones) < len(a) or len(others) < len(b):
            continue
        if common := [one for one in ones if one in others]:
            alone = [m.label for k, m in [*ones.items(), *others.items()] if k not in common]
            notes = [f"Maps without a partner were left out: {', '.join(alone)}."] if alone else []
            return [(ones[k], others[k]) for k in common], notes
    raise InputError(
        f"{first} and {second}: expected maps whose names agree but for the session or the run, got none. "
        f"There are {', '.join(m.label for m in a[:4])} and {', '.join(m.label for m in b[:4])}. Give two maps."
    )


def _without_rates(maps: list[MapImage], names: Sequence[str]) -> list[MapImage]:
    """Return the maps without rates whose relaxation times are also among them, unless requested: both have the same
    information.
    """
    times = {(map_.path.parent, map_.stem, map_.name) for map_ in maps if map_.is_time}
    if names:
        return maps
    return [
        map_
        for map_ in maps
        if not map_.name.startswith("R") or (map_.path.parent, map_.stem, f"T{map_.name[1:]}") not in times
    ]


def key_of(m: MapImage, without: Sequence[str]) -> Key:
    """Return what two maps that are compared share: the map and their entities, except those in `without`."""
    entities = tuple(sorted((key, value) for key, value in m.entities.items() if key not in without))
    return m.name, entities or m.path.name


def maker_of(m: MapImage) -> str:
    """Return what made a map: the estimator in its sidecar, else the ``desc-`` of its name, "" if it has neither.

    Maps of one scan by two estimators are no repeats.
    """
    name = BidsName.parse(m.path.name)
    return str(m.about.get("Estimator") or (name.entities.get("desc", "") if name else ""))


def _repeats(maps: Sequence[MapImage], folder: Path) -> list[tuple[MapImage, MapImage]]:
    groups: dict[tuple[Key, str], list[MapImage]] = {}
    for map_ in maps:
        if map_.entities:
            groups.setdefault((key_of(map_, REPEATS), maker_of(map_)), []).append(map_)
    found = [pair for members in groups.values() for pair in combinations(members, 2)]
    if not found:
        raise InputError(
            f"{folder}: expected maps of one subject that differ in ses- or run-, got none among "
            f"{count_of(len(maps), 'map')}. "
            "Give two maps or two folders."
        )
    return found


def names_of(a: MapImage, b: MapImage) -> tuple[str, str]:
    """Return the names of two maps, preceded by the folder in which they differ if their files have the same name."""
    if a.label != b.label:
        return a.label, b.label
    one, other = (m.path.resolve().parent.parts for m in (a, b))
    differing = [(x, y) for x, y in zip(one, other) if x != y] or [(one[-1], other[-1])]
    x, y = differing[0]
    return f"{x}: {a.label}", f"{y}: {b.label}"
