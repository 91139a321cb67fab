"""The mask or the label image of each series: one for all, by a pattern, or out of a BIDS derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rimap.errors import InputError
from rimap.io.bids import BidsName, is_nifti, nifti_files

#: Entities in which an image that belongs to a series may not differ from it, where both have them.
_SHARED = ("sub", "ses", "acq", "rec", "run", "space")


class NoImage(InputError):
    """There is no image for a series where one was looked for."""


def image_for(
    where: Path, entities: Mapping[str, str], suffixes: Sequence[str], *, option: str, label: str, prefer: str = ""
) -> Path:
    """Return the image that belongs to a series.

    Parameters
    ----------
    where
        A NIfTI file for all; a pattern, ``seg/sub-{sub}_dseg.nii.gz``; or a folder in which images have BIDS names.
    entities
        Of the series; what a pattern may have besides (``map``, T1 or T2) can be added. An image whose ``desc-`` ends
        in that map is preferred.
    suffixes
        Of the images that are looked for in a folder: ``("dseg",)``.
    option, label
        For messages: what was typed, and the series.
    prefer
        The value of ``desc-`` to take where several fit.

    Raises
    ------
    InputError
        If there is none, or more than one.
    """
    if "{" in str(where):
        try:
            path = Path(str(where).format_map(dict(entities)))
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(
                f"{label}: {option} {where}: expected a pattern with {{sub}}, {{ses}}, {{run}} or {{map}}, got "
                f"{error}, which this series lacks."
            ) from None
        if not path.is_file():
            raise NoImage(f"{label}: {option}: expected an existing file, got {path}.")
        return path
    if not where.is_dir():
        return where
    if "sub" not in entities:
        raise InputError(
            f"{label}: {option}: expected a file, because the series has no BIDS name, got the folder {where}."
        )
    fitting: list[tuple[int, Path]] = []
    names = f"sub-{entities['sub']}"
    inside = where / names if (where / names).is_dir() else where
    for path in nifti_files(inside):
        name = BidsName.parse(path.name)
        if name is None or name.suffix not in suffixes or not is_nifti(path) or "sub" not in name.entities:
            continue
        if all(name.entities[k] == entities.get(k, name.entities[k]) for k in _SHARED if k in name.entities):
            agreeing = sum(name.entities.get(key) == value for key, value in entities.items() if key in _SHARED)
            desc = name.entities.get("desc", "")
            of_map = bool(entities.get("map")) and desc.endswith(entities["map"])  # desc-spheresT1 is for T1
            fitting.append((2 * agreeing + (desc == prefer or of_map), path))
    if not fitting:
        raise NoImage(
            f"{label}: {option}: expected a _{' or _'.join(suffixes)} image of this series in {where}, got none."
        )
    most = max(rank for rank, _ in fitting)
    best = [path for rank, path in fitting if rank == most]
    if len(best) > 1:
        raise InputError(
            f"{label}: {option}: expected one image in {where}, got {len(best)} that fit: "
            f"{', '.join(p.name for p in best[:4])}. Give a "
            "pattern, as in 'sub-{sub}/anat/sub-{sub}_desc-{map}_dseg.nii.gz'; {map} is T1 or T2."
        )
    return best[0]
