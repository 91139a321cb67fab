"""Which files make a series: `find_series` for all, `read` for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rimap.errors import InputError
from rimap.io.b1 import is_b1
from rimap.io.bids import (
    NOT_INPUT,
    BidsName,
    absolute,
    is_half_of_pair,
    is_nifti,
    map_suffixes,
    model_of_suffix,
    models,
    natural,
    nifti_files,
    read_json,
    same_label,
    strip_nii,
    walk,
)
from rimap.io.grouping import numbering, series_key, series_of, series_of_some
from rimap.io.loose_files import loose_series
from rimap.io.nifti import header_and_data
from rimap.io.search_result import Found, LeftOut
from rimap.io.series_files import SeriesFiles
from rimap.io.series_membership import NO_IMAGE, describes_image
from rimap.io.unreadable_formats import how_to_convert, is_par, refuse_device

#: Suffixes of images that are no images of a series, besides those of maps.
_NO_IMAGES = ("mask", "dseg", "labels")
#: So many files show whether a folder holds DICOM.
_FEW = 4
_HALF = "one of a pair .hdr and .img without the other"


def find_series(
    inputs: Path | str | Sequence[Path | str],
    *,
    participant_labels: Sequence[str] = (),
    sessions: Sequence[str] = (),
    runs: Sequence[str] = (),
    sequence: str | None = None,
    series: Sequence[str] = (),
) -> list[SeriesFiles]:
    """Return every series that the inputs hold.

    Parameters
    ----------
    inputs
        Folders (a BIDS data set, a part of one, loose files, or DICOM), 4-D NIfTI files, the 3-D NIfTI files of a
        series, or DICOM files. One file of a BIDS series stands for all of it; several stand for themselves.
    participant_labels, sessions, runs
        Only these, with or without ``sub-``, ``ses-``, ``run-``; all if empty.
    sequence
        A signal model by name: only its series; for loose files, what they are.
    series
        Of DICOM: numbers of the series to map, several joined by commas for one made of several. The only one if empty.

    Raises
    ------
    InputError
        If an input is missing or holds no series, a label is not there, or files that should be a series cannot be one.
        `find` returns the other series then.
    """
    found = find(
        inputs,
        participant_labels=participant_labels,
        sessions=sessions,
        runs=runs,
        sequence=sequence,
        series=series,
    )
    if found.refused:
        raise found.refused[0][1]
    return list(found.series)


def find(
    inputs: Path | str | Sequence[Path | str],
    *,
    participant_labels: Sequence[str] = (),
    sessions: Sequence[str] = (),
    runs: Sequence[str] = (),
    sequence: str | None = None,
    series: Sequence[str] = (),
) -> Found:
    """Return every series in the inputs, what was refused, and what was left out. See `find_series` for the parameters.

    Raises
    ------
    InputError
        If an input is missing or holds no series at all, or a label is not there.
    """
    paths = [Path(p) for p in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    if not paths:
        raise InputError("expected input, got none. Give a BIDS folder, a 4-D NIfTI file or several 3-D ones.")
    if sequence is not None and sequence not in models():
        raise InputError(f"--sequence: expected one of {', '.join(sorted(models()))}, got {sequence!r}.")
    wanted = {
        "sub": [_label("sub", label) for label in participant_labels],
        "ses": [_label("ses", session) for session in sessions],
        "run": [_label("run", run) for run in runs],
    }
    found = _of_inputs(paths, wanted["sub"], sequence, series)
    for entity, labels in wanted.items():
        for label in labels:
            _check_label(entity, label, found, paths[0])
    matching = [
        s
        for s in found.series
        if all(
            not labels or any(same_label(e, s.entities.get(e), label) for label in labels)
            for e, labels in wanted.items()
        )
    ]
    if sequence is not None:
        of_sequence = [replace(s, sequence=sequence) for s in matching if s.can_be(sequence)]
        if matching and not of_sequence and not found.refused:
            raise InputError(
                f"{paths[0]}: expected a series of --sequence {sequence}, got {_listing(matching)}. Leave --sequence "
                "out."
            )
        matching = of_sequence
    if not matching:
        if found.refused:
            raise found.refused[0][1]
        raise InputError(f"{paths[0]}: expected a series with all of the requested labels, got none.")
    return replace(found, series=tuple(matching))


def _of_inputs(paths: Sequence[Path], subjects: Sequence[str], sequence: str | None, series: Sequence[str]) -> Found:
    """Return all series of all inputs, whatever their session and run."""
    found: list[SeriesFiles] = []
    refused: list[tuple[str, InputError]] = []
    left_out: list[LeftOut] = []
    empty: list[str] = []
    loose: list[Path] = []
    named: list[Path] = []
    dicom, others = _apart(paths, always=bool(series))
    if dicom:
        from rimap.io.dicom import find_dicom

        of_dicom, unfit = find_dicom(dicom, series=series, sequence=sequence)
        found += of_dicom
        refused += unfit
    elif series:
        raise InputError("--series: expected DICOM input, got none. Leave it out.")
    for path in others:
        if path.is_dir():
            inside = _in_folder(path, subjects, sequence)
            found += inside.series
            refused += inside.refused
            left_out += inside.left_out
            empty += inside.empty
        elif not path.exists():
            raise InputError(f"{path}: expected an existing file or folder, got none.")
        elif is_par(path):
            from rimap.io.par_rec import convert_par

            found += convert_par(path, sequence)
        elif not is_nifti(path):
            refuse_device(path)
            known = how_to_convert(path)
            raise InputError(known or f"{path}: expected NIfTI (.nii or .nii.gz) or DICOM, got neither.")
        elif numbering(path, sequence) is not None:
            named.append(path)
        else:
            loose.append(header_and_data(path)[1])
    some = series_of_some(named, sequence)
    more, unused = loose_series(list(dict.fromkeys(loose)), sequence)
    refused += some.refused
    left_out += [*some.left_out, *unused]
    return Found(tuple(_unique([*found, *some.series, *more])), tuple(refused), tuple(left_out), tuple(empty))


def _check_label(entity: str, label: str, found: Found, where: Path) -> None:
    """Refuse a label that no series has.

    Raises
    ------
    InputError
        Naming those that are there.
    """
    if any(same_label(entity, s.entities.get(entity), label) for s in found.series):
        return
    if any(f"{entity}-{label}" in name for name, _ in found.refused):
        return
    there = sorted({s.entities[entity] for s in found.series if entity in s.entities})
    having = (
        ", ".join(f"{entity}-{x}" for x in there[:12]) + " …" * (len(there) > 12)
        or f"no {entity}- in any name: leave that option out"
    )
    raise InputError(f"{where}: expected a series with {entity}-{label}, got {having}.")


def one_series(path: Path | str | Sequence[Path | str], sequence: str | None, series: str | None) -> SeriesFiles:
    """Return the files of the one series that a path or several hold.

    Raises
    ------
    InputError
        If there is not exactly one.
    """
    paths = [path] if isinstance(path, (str, Path)) else path
    if not isinstance(paths, Sequence) or not all(isinstance(path, (str, Path)) for path in paths):
        raise InputError(
            f"read: expected a path, got {type(path).__name__}. For images in memory use rimap.WeightedSeries, with "
            "their model."
        )
    found = find_series(paths, sequence=sequence, series=() if series is None else (series,))
    if len(found) > 1:
        first = found[0].images[0]
        raise InputError(
            f"{path}: expected one series, got {len(found)} series: {_listing(found)}. Choose one by any of its files, "
            f"as in read({str(first)!r}), or read all with find_series."
        )
    return found[0]


def _listing(series: Sequence[SeriesFiles]) -> str:
    labels = [s.label for s in series]
    return ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")


def _label(entity: str, label: str) -> str:
    return str(label).removeprefix(f"{entity}-")


def _apart(paths: Sequence[Path], *, always: bool) -> tuple[list[Path], list[Path]]:
    """Return the DICOM files of the inputs, and the other inputs.

    A folder that holds NIfTI is one of DICOM only where DICOM is asked for (`always`).
    """
    from rimap.io.dicom_files import dicom_files

    dicom: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if not path.is_dir():
            refuse_device(path)
        may_be = path.exists() and not is_nifti(path)
        if may_be and path.is_dir() and not always:
            may_be = next(nifti_files(absolute(path), (), []), None) is None
        files = dicom_files(path) if may_be else []
        dicom += files
        if not files:
            others.append(path)
    return list(dict.fromkeys(dicom)), others


def _in_folder(folder: Path, subjects: Sequence[str], sequence: str | None) -> Found:
    root = absolute(folder)
    unreadable: list[tuple[Path, str]] = []
    sidecars: list[Path] = []
    files = list(nifti_files(root, subjects, unreadable, sidecars)) or list(nifti_files(root, (), []))
    lonely = _without_image(sidecars, files, sequence)
    refused = tuple((_subject(p, root), InputError(f"{p} cannot be read: {why}.")) for p, why in unreadable)
    named = [file for file in files if (name := BidsName.parse(file.name)) and model_of_suffix(name.suffix, sequence)]
    beside = _beside(root)
    if named:
        found = series_of(named, sequence)
        others = [(file, _why_of_no_series(file)) for file in files if file not in named and not is_b1(file)]
        refused = (*refused, *found.refused)
        every = (*found.left_out, *others, *lonely, *beside)
        return replace(found, refused=refused, left_out=every, empty=_empty(root, subjects, found, refused))
    here = [
        file for file in files if file.parent == root and not strip_nii(file).endswith((*map_suffixes(), *_NO_IMAGES))
    ]
    if here and not any(path.is_dir() for path in root.glob("sub-*")):
        series, left_out = loose_series(sorted(here, key=lambda f: natural(f.name)), sequence)
        deeper = [(file, "in a folder below the one that was given") for file in files if file.parent != root]
        maps = [(file, "a map or a mask by its name") for file in files if file.parent == root and file not in here]
        return Found(tuple(series), refused, (*left_out, *deeper, *maps, *lonely, *beside))
    if refused:
        raise refused[0][1]
    raise _nothing(folder, root, files)


def _empty(
    root: Path, subjects: Sequence[str], found: Found, refused: Sequence[tuple[str, InputError]]
) -> tuple[str, ...]:
    """Return the folders of subjects of a data set that hold no series, and none that was refused."""
    having = {f"sub-{series.entities['sub']}" for series in found.series if "sub" in series.entities}
    having |= {label.split()[0] for label, _ in refused if label}
    folders = sorted(path.name for path in root.glob("sub-*") if path.is_dir())
    return tuple(
        name for name in folders if name not in having and (not subjects or name.removeprefix("sub-") in subjects)
    )


def _without_image(sidecars: Sequence[Path], images: Sequence[Path], sequence: str | None) -> list[LeftOut]:
    """Return sidecars without an image; a series that has other images names its own missing ones itself."""
    folders, stems = {image.parent for image in images}, {(image.parent, strip_nii(image)) for image in images}
    series: set[object] = set()
    known: dict[tuple[str, str], list[tuple[Path, BidsName]]] = {}
    for image in images:
        if (name := BidsName.parse(image.name)) and "sub" in name.entities:
            series.add(series_key(image, numbering(image, sequence) or ()))
            known.setdefault((name.suffix, name.entities["sub"]), []).append((image, name))
    found: list[LeftOut] = []
    for path in sidecars:
        if is_half_of_pair(path):
            found.append((path, _HALF))
            continue
        name = BidsName.parse(path.name)
        if (path.parent, path.stem) in stems:
            continue
        if name is None:  # beside loose files, which may be of anything
            if path.parent in folders and _describes_image(path):
                found.append((path, NO_IMAGE))
        elif "sub" in name.entities and model_of_suffix(name.suffix, sequence):
            inherits = any(
                f.is_relative_to(path.parent) and name.entities.items() <= other.entities.items()
                for f, other in known.get((name.suffix, name.entities["sub"]), ())
            )
            if not inherits and series_key(path, numbering(path, sequence) or ()) not in series:
                found.append((path, NO_IMAGE))
    return found


def _describes_image(path: Path) -> bool:
    try:
        return describes_image(read_json(path))
    except InputError:
        return False


def _why_of_no_series(path: Path) -> str:
    """Return what an image is by its name, if it is of no series."""
    name = BidsName.parse(path.name)
    known = {
        parameter.suffix: parameter.name
        for model in models().values()
        for parameter in model.parameters
        if parameter.given and parameter.suffix
    }
    if name is not None and name.suffix in known:
        return f"a map of {known[name.suffix]}, which is an input of other series"
    return "not part of a series that rimap maps, by its name"


def _nothing(folder: Path, root: Path, files: Sequence[Path]) -> InputError:
    """Return why a folder holds no series, and what to do."""
    if not files:
        entries = [path for path in root.iterdir() if not path.name.startswith(".")]
        par = next((entry for entry in sorted(entries) if is_par(entry)), None)
        known = next((text for entry in sorted(entries) if entry.is_file() and (text := how_to_convert(entry))), "")
        if par is not None:
            known = f"Give the PAR file itself: {par}."
        half = next((entry for entry in sorted(entries) if is_half_of_pair(entry)), None)
        if half is not None:
            known = f"{half.name} is {_HALF}. Copy the other beside it."
        what = "holds no NIfTI file and no DICOM" if entries else "is empty"
        return InputError(f"{folder} {what}. {known or 'Give a BIDS folder, NIfTI files or a folder of DICOM.'}")
    from rimap.io.dicom_files import dicom_files

    if dicom_files(root):  # whose folder may be named after the patient
        return InputError(
            "the folder contains DICOM, and NIfTI files that are not a series. Choose the DICOM series with --series, "
            "or move the NIfTI files away."
        )
    several = sorted({m.bids_suffix for m in models().values()} - {""})
    known = " or ".join([", ".join(several[:-1]), several[-1]] if len(several) > 1 else several)
    suffixes = sorted({getattr(BidsName.parse(file.name), "suffix", file.name) for file in files})
    return InputError(
        f"{folder}: expected {known} series, got none (found: "
        f"{', '.join(suffixes[:6])}{' …' if len(suffixes) > 6 else ''}). Give the files of the series themselves, with "
        "--sequence."
    )


def _subject(path: Path, root: Path) -> str:
    """Return the subject that a folder of a data set belongs to, for messages; its name if it is of none."""
    inside = path.parts[len(root.parts) :]
    return next((p for p in (*inside, *reversed(root.parts)) if p.startswith("sub-")), path.name)


def _beside(root: Path) -> list[LeftOut]:
    """Return the files of a folder, beside NIfTI, that hold images which are not read."""
    from rimap.io.dicom_files import like_dicom_name, looks_like_dicom

    try:
        entries = sorted(
            path for path in root.iterdir() if not path.name.startswith(".") and not is_nifti(path) and path.is_file()
        )
    except OSError:
        return []
    dicom = [entry for entry in entries if like_dicom_name(entry) and looks_like_dicom(entry)]
    others = [entry for entry in entries if how_to_convert(entry) or is_par(entry)]
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "sub-")))
    below = [folder for folder in folders if folder.name not in NOT_INPUT and _holds_dicom(folder)]
    return [
        *((e, "DICOM beside NIfTI (name its series with --series)") for e in dicom),
        *((folder, "a folder of DICOM beside NIfTI (give the folder itself)") for folder in below),
        *((other, "in a format that rimap does not read together with NIfTI") for other in others),
    ]


def _holds_dicom(folder: Path) -> bool:
    """Return whether a folder, or one below it, holds DICOM: each folder is judged by its first files."""
    from rimap.io.dicom_files import like_dicom_name, looks_like_dicom

    for where, folders, files in walk(folder, []):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        some = [where / name for name in sorted(files) if not name.startswith(".")][:_FEW]
        if any(like_dicom_name(path) and looks_like_dicom(path) for path in some):
            return True
    return False


def _unique(series: Sequence[SeriesFiles]) -> list[SeriesFiles]:
    seen: dict[tuple[Path, ...], SeriesFiles] = {}
    for s in series:
        seen.setdefault(tuple(absolute(image) for image in s.images), s)
    return list(seen.values())
