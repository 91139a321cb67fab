"""Small pictures of the maps of a group: the middle slice of each, all maps of one kind with the same colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.map_display import is_relaxation, palette_of, shown_name, window_of
from rimap.report.main_maps import Contents, MainMap, Row
from rimap.signals.settings import unit_symbol
from rimap.slices import png, slice_number, view_of

#: The longest edge of a small picture, in voxels, and how many of them a page shows.
_EDGE, _MOST = 128, 600


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """The middle slice of a map.

    Parameters
    ----------
    values
        (height, width), in the unit of the map; NaN for voxels without a value or outside the described region.
    aspect
        Width over height, in mm.
    number, n_slices
        The number of the slice, counted from 1, and how many there are.
    """

    values: NDArray[np.float32]
    aspect: float
    number: int
    n_slices: int

    @classmethod
    def of(cls, contents: Contents) -> Thumbnail:
        """Return the picture of a map that was read, thinned out to at most 128 voxels each way."""
        inside = contents.inside & np.isfinite(contents.values)
        view = view_of(contents.affine, inside if inside.any() else np.ones_like(inside), edges=contents.edges)
        picture = view.picture(np.where(inside, contents.values, np.nan), view.middle)
        every = max(1, -(-max(picture.shape) // _EDGE))
        depth = (*inside.shape, 1, 1)[view.plane.axes[2]]
        thin = np.ascontiguousarray(picture[::every, ::every], dtype=np.float32)
        return cls(thin, view.aspect, slice_number(view.middle), depth)


def thumbnails(
    maps: Sequence[MainMap], pictures: Mapping[str, Thumbnail], rows: Sequence[Row]
) -> tuple[list[dict[str, Any]], int]:
    """Return the small pictures for the page by kind of map, and the number of further pictures that it does not show.

    Parameters
    ----------
    pictures
        By the name of the series.
    rows
        Those of the group: the first of each series is that of the whole map.
    """
    whole: dict[str, Row] = {}
    outlying: dict[str, list[str]] = {}
    for row in rows:
        whole.setdefault(row["series"], row)
        if row["outlier"]:
            outlying.setdefault(row["series"], []).append(f"{row['region']} {row['name']}".strip())
    there = [map_ for map_ in maps if map_.series in pictures and map_.series in whole]
    kinds: dict[str, list[MainMap]] = {}
    for main in there[:_MOST]:
        kinds.setdefault(main.name, []).append(main)
    found = [_kind(name, members, pictures, whole, outlying) for name, members in sorted(kinds.items())]
    return found, max(0, len(there) - _MOST)


def _kind(
    name: str,
    members: Sequence[MainMap],
    pictures: Mapping[str, Thumbnail],
    whole: Mapping[str, Row],
    outlying: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    q = members[0].quantity
    palette, logarithmic = colours.palette(palette_of(q)), is_relaxation(q)
    values = np.concatenate([pictures[member.series].values.ravel() for member in members])
    low, high = window_of(q, values[np.isfinite(values)])
    bar = colours.indices(np.linspace(low, high, 256)[None], low, high, logarithmic=logarithmic)
    shown = []
    for main in members:
        picture, row = pictures[main.series], whole[main.series]
        entries = colours.indices(picture.values, low, high, logarithmic=logarithmic)
        shown.append(
            {
                "series": main.series,
                "who": " ".join(x for x in (row["participant_id"], row["session_id"]) if x),
                "src": png(entries, palette),
                "aspect": picture.aspect,
                "slice": f"slice {picture.number} of {picture.n_slices}" if picture.n_slices > 1 else "",
                "median": row["median"],
                "ok": 100 * row["share_ok"],
                "warnings": main.warnings,
                "outlier": ", ".join(outlying.get(main.series, ())),
            }
        )
    return {
        "name": shown_name(name),
        "unit": unit_symbol(q.unit),
        "bar": png(bar, palette),
        "ticks": [
            {"at": 100 * (tick - low) / (high - low), "label": f"{tick:,.10g}"} for tick in colours.ticks(low, high)
        ],
        "maps": shown,
    }
