"""Names and sidecars of BIDS.

A small indexer of our own: bids2table returns an empty sidecar for broken JSON where rimap must name the file and
the line, and brings 170 MB of pyarrow for what takes a few lines here.

References
----------
Gorgolewski et al. 2016, doi:10.1038/sdata.2016.44; Karakuzu et al. 2022 (qMRI-BIDS), doi:10.1038/s41597-022-01571-4.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.io.unreadable_formats import refuse_device
from rimap.signals import SignalModel, signal_models
from rimap.signals.base import image_suffix
from rimap.signals.settings import settings_of

#: Entities of a name in the order of the standard.
ORDER = (
    "sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec",
    "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk",
    "atlas", "seg", "scale", "res", "den", "label", "desc",
)  # fmt: skip
#: Entities that the name of a parameter map may carry.
OF_MAPS = ("sub", "ses", "task", "acq", "ce", "rec", "run", "space", "chunk", "res")
#: Folders of a data set that hold no input.
NOT_INPUT = {"derivatives", "sourcedata", "code", "stimuli", "phenotype"}

#: Formats of two files, header and data.
_PAIRS = (".img", ".img.gz", ".hdr", ".hdr.gz")
#: Bytes. No sidecar is as large: a larger file is something else, and reading it would fill the memory.
_LARGEST_JSON = 16 << 20
#: Key and value of an entity of a BIDS name.
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+.]+)")


@dataclass(frozen=True)
class BidsName:
    """A file name taken apart: ``sub-01_inv-2_part-real_IRT1.nii.gz``.

    >>> BidsName.parse("sub-01_inv-2_IRT1.nii.gz")
    BidsName(entities={'sub': '01', 'inv': '2'}, suffix='IRT1', extension='.nii.gz')
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str

    @classmethod
    def parse(cls, name: str) -> BidsName | None:
        """Return the parts of a file name, `None` where it is not a BIDS name."""
        stem, dot, extension = name.partition(".")
        *parts, suffix = stem.split("_")
        found = [_ENTITY.fullmatch(part) for part in parts]
        if not suffix or "-" in suffix or not all(found):
            return None
        return cls({m[1]: m[2] for m in found if m}, suffix, dot + extension)


def compose(entities: Mapping[str, str], suffix: str) -> str:
    """Return the stem of a name, its entities in the order of the standard.

    >>> compose({"desc": "sd", "sub": "01"}, "T1map")
    'sub-01_desc-sd_T1map'
    """
    keys = sorted(entities, key=lambda k: ORDER.index(k) if k in ORDER else len(ORDER))
    return "_".join([*(f"{key}-{entities[key]}" for key in keys), suffix])


def same_label(entity: str, value: str | None, label: str) -> bool:
    """Return whether the value of an entity is the label that was asked for: run-1 is run-01."""
    if value is None:
        return False
    if entity == "run" and value.isdigit() and label.isdigit():
        return int(value) == int(label)
    return value == label


@cache
def models() -> dict[str, type[SignalModel]]:
    """Return the signal models by name, looked up once."""
    return signal_models()


def model_of_suffix(suffix: str, sequence: str | None = None) -> type[SignalModel] | None:
    """Return the signal model of a suffix (IRT1, MESE), `None` if it has none.

    A model for which BIDS has no suffix has its name for one.

    Parameters
    ----------
    sequence
        The name of a signal model that may read this suffix as well; that of the suffix otherwise.
    """
    if sequence is not None and suffix in models()[sequence].also_reads:
        return models()[sequence]
    own = next((m for m in models().values() if suffix and m.bids_suffix == suffix), None)
    return own or next(
        (m for m in models().values() if suffix and not m.also_reads and image_suffix(m) == suffix), None
    )


def numbering_of(model: type[SignalModel]) -> tuple[str, ...]:
    """Return the entities that number the images of a series: ``inv``, ``echo``, ``flip``."""
    declared = settings_of(model).values()
    return tuple(dict.fromkeys(s.entity for s in declared if s.entity and s.per_image is not False))


def map_suffixes() -> tuple[str, ...]:
    """Return the suffixes of all maps that are made from images: T1map, R1map, M0map, TB1map …"""
    declared = {parameter.suffix for m in models().values() for parameter in m.parameters if parameter.suffix}
    declared |= {d.suffix for m in models().values() for d in m.derived if d.suffix}
    rates = {f"R{suffix[1:]}" for suffix in declared if re.fullmatch(r"T\d\w*map", suffix)}
    return tuple(sorted(declared | rates | {"TB1map"}))


def absolute(path: Path) -> Path:
    """Return a path from the root without "..", its links (git-annex has them) not followed."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return what sorts names by their numbers: echo2 before echo10.

    >>> sorted(["echo10.nii", "echo2.nii"], key=natural)
    ['echo2.nii', 'echo10.nii']
    """
    return [(0, int(t), "") if t.isdecimal() else (1, 0, t) for t in re.findall(r"\d+|\D+", text)]


def strip_nii(path: Path) -> str:
    """Return a file's name without ``.nii``, ``.img`` or ``.hdr``, compressed or not."""
    return re.sub(r"\.(nii|img|hdr)(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def is_nifti(path: Path) -> bool:
    """Return, by its name, whether a file is NIfTI, or one of a pair .hdr and .img that may be."""
    return path.name.lower().endswith((".nii", ".nii.gz", *_PAIRS))


def pair_of(path: Path) -> tuple[Path | None, Path | None]:
    """Return the header and the data of the pair that a file belongs to, `None` for one that is not there."""
    stem, end = path.name[: -len(".hdr")], ""
    if path.name.lower().endswith(".gz"):
        stem, end = path.name[: -len(".hdr.gz")], ".gz"
    found: list[Path | None] = []
    for kind in (".hdr", ".img"):
        names = [f"{stem}{k}{e}" for e in dict.fromkeys((end, "", ".gz")) for k in (kind, kind.upper())]
        found.append(next((path.with_name(name) for name in names if path.with_name(name).exists()), None))
    return found[0], found[1]


def is_image(path: Path) -> bool:
    """Return whether a file of a folder stands for an image: NIfTI, and of a pair the file with the data."""
    name = path.name.lower()
    if not name.endswith(_PAIRS):
        return name.endswith((".nii", ".nii.gz"))
    return name.endswith((".img", ".img.gz")) and pair_of(path)[0] is not None


def is_half_of_pair(path: Path) -> bool:
    """Return whether a file is one of a pair .hdr and .img without the other."""
    return path.name.lower().endswith(_PAIRS) and None in pair_of(path)


def dataset_of(path: Path) -> Path | None:
    """Return the data set of a file of a subject: the folder that holds its ``sub-`` folder."""
    name = BidsName.parse(path.name)
    if name is None or "sub" not in name.entities:
        return None
    subject = f"sub-{name.entities['sub']}"
    found = [parent.parent for parent in absolute(path).parents if parent.name == subject]
    return found[0] if found else None


def nifti_files(
    folder: Path,
    subjects: Iterable[str] = (),
    unreadable: list[tuple[Path, str]] | None = None,
    sidecars: list[Path] | None = None,
) -> Iterator[Path]:
    """Yield the NIfTI files below a BIDS folder, but for those in derivatives/ and the like, in order of name.

    Parameters
    ----------
    subjects
        Labels without ``sub-``: look only into these where `folder` is a data set.
    unreadable
        Takes the folders that cannot be listed, and why.
    sidecars
        Takes the JSON files that are found on the way, and files of a pair .hdr and .img that lack the other.

    Raises
    ------
    InputError
        For a folder that cannot be listed, unless `unreadable` takes it.
    """
    wanted = {f"sub-{subject}" for subject in subjects}
    for where, folders, files in walk(folder, unreadable):
        folders[:] = sorted(folder for folder in folders if not folder.startswith(".") and folder not in NOT_INPUT)
        if where == folder:
            has_subjects = any(folder.startswith("sub-") for folder in folders)
            if has_subjects:
                folders[:] = [
                    folder for folder in folders if folder.startswith("sub-") and (not wanted or folder in wanted)
                ]
        for file in sorted(files):
            if file.startswith("."):
                continue
            if is_image(where / file):
                yield where / file
            elif sidecars is not None and (file.endswith(".json") or is_half_of_pair(where / file)):
                sidecars.append(where / file)
            elif unreadable is not None and _was_folder(where / file, subjects=wanted if where == folder else None):
                unreadable.append((where / file, "it is a link to a folder that does not exist"))


def _was_folder(path: Path, *, subjects: set[str] | None) -> bool:
    """Return whether a name that is no folder is a broken link to one.

    Parameters
    ----------
    subjects
        Beside folders of subjects, where files such as README have no extension either: which subjects are wanted, all
        if empty.
    """
    if subjects is not None and not (path.name.startswith("sub-") and (not subjects or path.name in subjects)):
        return False
    return "." not in path.name and path.is_symlink() and not path.exists()


def walk(folder: Path, unreadable: list[tuple[Path, str]] | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder with the names of its folders and files, as `os.walk`. Follow links, except circular ones.

    Raises
    ------
    InputError
        For a folder that cannot be listed, unless `unreadable` takes it.
    """

    def failed(error: OSError) -> None:
        if unreadable is None:
            raise InputError(f"{error.filename} cannot be read: {error.strerror or error}.") from None
        unreadable.append((Path(str(error.filename)), error.strerror or str(error)))

    for where, folders, files in os.walk(folder, onerror=failed, followlinks=True):
        here = Path(where).resolve()
        folders[:] = [
            folder
            for folder in folders
            if not (Path(where) / folder).is_symlink() or not here.is_relative_to((Path(where) / folder).resolve())
        ]
        yield Path(where), folders, files


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises
    ------
    InputError
        For broken JSON (with the line), an unreadable file, JSON that is no object, or a key that stands there twice.
    """
    refuse_device(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_JSON + 1)
        if len(raw) > _LARGEST_JSON:
            raise InputError(
                f"{path}: expected a sidecar, got a file larger than {_LARGEST_JSON >> 20} MiB. Remove or replace it."
            )
        data = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: expected valid JSON, got an error ({error.msg}). Correct the file."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected JSON in UTF-8, got other text. Correct the file.") from None
    except _TwiceError as error:
        raise InputError(
            f"{path}: expected each field once, got {str(error)[:60]!r} twice with different values. Correct the file."
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(
            f"{path}: expected a sidecar, got invalid JSON ({str(error)[:60]}). Correct the file."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except RecursionError:
        raise InputError(f"{path}: expected a sidecar, got JSON that is nested too deeply. Correct the file.") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a sidecar, that is a JSON object {{…}}, got a {type(data).__name__}.")
    return data


class _TwiceError(ValueError):
    """A key that stands twice in one object, with different values: which one is meant?"""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise _TwiceError(key)
        found[key] = value
    return found


class Sidecars:
    """Metadata of images: the file beside each, and for a data set those it inherits from above.

    Inheritance: a JSON file applies to the images at or below its folder that have its suffix and all its entities;
    the nearer one wins, and in one folder the one with more entities. Paths inside a sidecar are never followed.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, list[tuple[Path, BidsName]]] = {}
        self._read: dict[Path, dict[str, Any]] = {}

    def files(self, image: Path, dataset: Path | None) -> list[Path]:
        """Return the sidecars of an image, the most general first."""
        own = image.parent / f"{strip_nii(image)}.json"
        name = BidsName.parse(image.name)
        if dataset is None or name is None:
            return [own] if own.is_file() else []
        folder = absolute(image.parent)
        chain = [folder, *folder.parents]
        chain = chain[: chain.index(dataset) + 1] if dataset in chain else [folder]
        found = []
        for where in reversed(chain):
            fitting = [
                (path, n)
                for path, n in self._listing(where)
                if n.suffix == name.suffix and n.entities.items() <= name.entities.items()
            ]
            found += [path for path, _ in sorted(fitting, key=lambda f: (len(f[1].entities), f[0].name))]
        return found

    def __call__(self, image: Path, dataset: Path | None) -> dict[str, Any]:
        """Return the metadata of an image, {} where it has none."""
        merged: dict[str, Any] = {}
        for path in self.files(image, dataset):
            if path not in self._read:
                self._read[path] = read_json(path)
            merged |= self._read[path]
        return merged

    def _listing(self, folder: Path) -> list[tuple[Path, BidsName]]:
        if folder not in self._folders:
            files = [path for path in folder.iterdir() if path.name.endswith(".json") and not path.name.startswith(".")]
            names = [(file, BidsName.parse(file.name)) for file in files]
            self._folders[folder] = [(f, n) for f, n in names if n is not None]
        return self._folders[folder]


def sidecar_beside(image: Path, other: str, dataset: Path) -> dict[str, Any]:
    """Return the sidecar of another image of the same scan, {} if it has none.

    Parameters
    ----------
    other
        The entity and the suffix of that image: ``inv-1_MP2RAGE``.
    """
    own, wanted = BidsName.parse(image.name), BidsName.parse(other)
    assert own is not None and wanted is not None
    sidecars = Sidecars()
    for part in ({}, {"part": "mag"}, {"part": "real"}, {"part": "phase"}):
        name = compose({**own.entities, **wanted.entities, **part}, wanted.suffix)
        if found := sidecars(image.with_name(f"{name}.nii.gz"), dataset):
            return found
    return {}
