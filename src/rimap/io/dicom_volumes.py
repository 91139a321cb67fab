"""Images of DICOM: all slices of one time, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rimap.io.dicom_headers import Frame

#: Flip angles that differ by less are one that was rounded.
SAME_FLIP_DEG = 0.3
#: Slices that are nearer to each other are at one place.
_SAME_PLACE_MM = 0.02


@dataclass(frozen=True, eq=False)
class Volume:
    """One image: all slices of one time or flip angle, sorted along their normal."""

    frames: tuple[Frame, ...]
    ti: float | None
    te: float | None
    tr: float | None
    flip: float | None

    @property
    def first(self) -> Frame:
        """Its lowest slice."""
        return self.frames[0]

    @property
    def number(self) -> int:
        """Series number."""
        return self.first.source.number

    def time(self, kind: str) -> float | None:
        """Return TI or TE, ms, or the flip angle, degrees."""
        values: dict[str, float | None] = {"ti": self.ti, "te": self.te, "flip": self.flip}
        return values[kind]


def volumes_of(frames: Sequence[Frame]) -> list[list[Volume]]:
    """Return the images of each scanner series, apart by part, variant and plane (a unit), in order of number.

    Some scanners and archives give each slice a series UID of its own: slices at other places with one series number
    are one series then.
    """
    units: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda f: (f.source.number, f.source.series, f.order)):
        for unit in reversed(units):
            if _one_unit(unit[0], frame):
                unit.append(frame)
                break
        else:
            units.append([frame])
    return [_volumes(unit) for unit in _without_uids(units)]


def _without_uids(units: Sequence[list[Frame]]) -> list[list[Frame]]:
    """Join units that differ in the series UID alone and have no place of a slice in common."""
    joined: list[list[Frame]] = []
    for unit in units:
        places = _places(unit)
        for other in joined:
            alike = other[0].source.number >= 0 and _one_unit(other[0], unit[0], whatever_uid=True)
            if (
                alike
                and places
                and not any(abs(place - b) < _SAME_PLACE_MM for place in places for b in _places(other))
            ):
                other += unit
                break
        else:
            joined.append(list(unit))
    return joined


def _places(unit: Sequence[Frame]) -> set[float]:
    """Return the heights of the slices of a unit, mm; none if a slice does not say where it is."""
    return {f.height for f in unit} if all(f.position for f in unit) else set()


def _one_unit(a: Frame, b: Frame, *, whatever_uid: bool = False) -> bool:
    return (
        (whatever_uid or a.source.series == b.source.series)
        and (a.source.study, a.source.number, a.part, a.variant, a.shape, a.sequence)
        == (b.source.study, b.source.number, b.part, b.variant, b.shape, b.sequence)
        and close(a.orientation, b.orientation, 1e-3)
        and close(a.spacing, b.spacing, 1e-3)
    )


def _volumes(frames: Sequence[Frame]) -> list[Volume]:
    """Split the frames of a unit into images; the same time again is a repeat."""
    ti, te, tr = (_steps([getattr(frame, name) for frame in frames]) for name in ("ti", "te", "tr"))
    flip = _steps([frame.flip for frame in frames], absolute=SAME_FLIP_DEG)
    heights = _steps([frame.height for frame in frames], absolute=_SAME_PLACE_MM)

    def split(by: Callable[[Frame], object]) -> list[list[Frame]]:
        groups: dict[object, dict[float | None, list[Frame]]] = {}
        for frame in frames:
            groups.setdefault(by(frame), {}).setdefault(heights[frame.height], []).append(frame)
        images: list[list[Frame]] = []
        for slices in groups.values():
            for repeat in range(max(map(len, slices.values()))):
                images.append([slice_[repeat] for slice_ in slices.values() if repeat < len(slice_)])
        return images

    images = split(lambda f: (ti[f.ti], te[f.te], flip[f.flip], tr[f.tr]))
    if len({len(image) for image in images}) > 1:  # a TR that follows the heart, say
        images = split(lambda f: (ti[f.ti], te[f.te], flip[f.flip]))
    volumes = []
    for image in images:
        first = image[0]
        known = sorted(t for f in image if (t := tr[f.tr]) is not None)
        middle = known[len(known) // 2] if known else None
        slices = tuple(sorted(image, key=lambda f: f.height))
        volumes.append(Volume(slices, ti[first.ti], te[first.te], middle, flip[first.flip]))
    return volumes


def _steps(values: Sequence[float | None], absolute: float = 0.005) -> dict[float | None, float | None]:
    """Return one value for those that differ by rounding only."""
    known = sorted({value for value in values if value is not None})
    table: dict[float | None, float | None] = {None: None}
    last: float | None = None
    for v in known:
        if last is None or v - last > absolute + 2e-4 * abs(v):
            last = v
        table[v] = last
    return table


def same_slices(a: Volume, b: Volume) -> bool:
    """Return whether two volumes have their slices at the same places."""
    near = _near(a)
    return (
        same_grid(a.first, b.first)
        and len(a.frames) == len(b.frames)
        and all(close(frame.position, g.position, near) for frame, g in zip(a.frames, b.frames))
    )


def overlap(a: Volume, b: Volume) -> bool:
    """Return whether most slices are the same; if not all are, files are missing, which is for `check_complete` to
    say.
    """
    if not same_grid(a.first, b.first):
        return False
    few, many = sorted((a.frames, b.frames), key=len)
    near = _near(a)
    shared = sum(any(close(f.position, g.position, near) for g in many) for f in few)
    return 2 * shared > len(few)


def same_grid(x: Frame, y: Frame) -> bool:
    """Return whether two frames have the same matrix, voxel size and orientation."""
    return (
        x.shape == y.shape
        and close(x.orientation, y.orientation, 1e-3)
        and close(x.spacing, y.spacing, 1e-3)
        and abs(x.thickness - y.thickness) < 0.01
    )


def _near(volume: Volume) -> float:
    return 0.05 * min(volume.first.spacing)


def close(a: Sequence[float], b: Sequence[float], tolerance: float) -> bool:
    """Return whether two lists have the same length, and no number differs by more than the tolerance."""
    return len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b))
