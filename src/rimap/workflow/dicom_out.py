"""Write existing maps as DICOM series for a picture archive: `rimap dicom`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rimap.errors import InputError, count_of
from rimap.io.atomic import write_together
from rimap.io.dicom import by_subject
from rimap.io.dicom_convert import require
from rimap.io.dicom_files import dicom_files
from rimap.io.dicom_headers import Frame, read_headers
from rimap.io.dicom_volumes import Volume, same_slices, volumes_of
from rimap.io.dicom_write import Placed, check_affine, placed, series_files
from rimap.io.map_images import MapImage, map_images

#: How sidecars name a DICOM series: by numbers, because UIDs and names are private.
_SOURCE = re.compile(r"dicom:(?:subject-(?P<subject>\d+)/)?series-(?P<number>\d+)")
#: Series number of the first map: that of the first source series followed by these digits, as in 1301 → 130101.
_TIMES = 100


@dataclass(frozen=True)
class DicomSeries:
    """A map as DICOM.

    Parameters
    ----------
    label
        The name of the map.
    folder
        The folder of its files.
    n
        The number of its files.
    number
        Its series number.
    """

    label: str
    folder: Path
    n: int
    number: int


def maps_to_dicom(
    inputs: Sequence[Path | str],
    source: Path | str,
    out: Path | str,
    *,
    maps: Sequence[str] = (),
    overwrite: bool = False,
) -> list[DicomSeries]:
    """Write maps as DICOM series into the study of the images that they were made from.

    Patient, study, frame of reference and geometry are those of the source; each map is a new series.

    Parameters
    ----------
    inputs
        Maps (NIfTI) or folders of them.
    source
        The folder of the DICOM files that were mapped.
    out
        Folder for the series, one folder for each map.
    maps
        Names of maps to take from folders: T1, B, sd, all. Relaxation times and rates by default.

    Raises
    ------
    InputError
        If no image of the source has the grid of a map, images of several patients or studies have it, or files exist.
    """
    require()
    source, out = Path(source), Path(out)
    if not source.exists():
        raise InputError(f"--source: expected an existing file or folder, got {source}.")
    frames, _ = read_headers(dicom_files(source))
    subjects = by_subject(frames)
    written: list[DicomSeries] = []
    contents: dict[Path, bytes] = {}
    used: set[int] = set()
    for map_image in map_images(inputs, maps):
        place, beside = _place(map_image, subjects)
        first = max(min(_numbers(map_image), default=place.frames[0].source.number), 0)
        number = next(n for n in range(first * _TIMES + 1, first * _TIMES + 10_000) if n not in used)
        used.add(number)
        folder = out / map_image.label
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise InputError(
                f"{folder}: expected an empty or new folder, got one with files. Give another -o, or --overwrite."
            )
        names = [folder / f"IM_{index:04}.dcm" for index in range(1, len(place.slices) + 1)]
        contents |= dict(zip(names, series_files(map_image, place, beside, number)))
        written.append(DicomSeries(map_image.label, folder, len(names), number))
    write_together(contents)
    return written


def _numbers(m: MapImage) -> list[int]:
    """Return the numbers of the series that a map was made from, according to its sidecar."""
    return [int(found["number"]) for found in _sources(m)]


def _sources(m: MapImage) -> list[re.Match[str]]:
    named = m.about.get("Sources")
    return [f for s in (named if isinstance(named, list) else []) if (f := _SOURCE.fullmatch(str(s)))]


def _place(m: MapImage, subjects: Sequence[Sequence[Frame]]) -> tuple[Placed, dict[int, list[Frame]]]:
    """Return a map at the slices of its source, and the source frames of each slice."""
    values, affine, numbers = m.values(), check_affine(m), set(_numbers(m))
    named = {int(found["subject"]) for found in _sources(m) if found["subject"]}
    if any(n > len(subjects) for n in named):
        raise InputError(
            f"{m.label}: expected subject {max(named)} in --source, got {count_of(len(subjects), 'subject')}."
        )
    chosen = [subjects[n - 1] for n in sorted(named)] if named else subjects
    fitting: list[tuple[Volume, Placed]] = []
    for frames in chosen:
        for volume in (v for unit in volumes_of(frames) for v in unit if not numbers or max(v.number, 0) in numbers):
            if (found := placed(values, affine, volume.frames)) is not None:
                fitting.append((volume, found))
    if not fitting:
        of = f" of series {', '.join(map(str, sorted(numbers)))}" if numbers else ""
        raise InputError(
            f"{m.label}: no image{of} in --source has the grid of this map. Give the folder that was mapped."
        )
    whose = {(v.first.source.patient, v.first.source.study) for v, _ in fitting}
    if len(whose) > 1:
        raise InputError(
            f"{m.label}: expected one patient and study with the grid of this map in --source, got {len(whose)}. Give "
            f"the folder of one."
        )
    volume, place = fitting[0]
    same = [v for v, _ in fitting if same_slices(v, volume)] if numbers else [volume]
    return place, {index: [v.frames[index] for v in same] for index in range(len(place.frames))}
