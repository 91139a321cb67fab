"""PAR and REC files of Philips, through dcm2niix."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from rimap.advice import note
from rimap.errors import InputError
from rimap.io.bids import natural
from rimap.io.dicom_convert import PrivateFolder, converter
from rimap.io.loose_files import loose_series
from rimap.io.series_files import SeriesFiles

#: Seconds after which dcm2niix is stopped: it takes a few for a series.
_SECONDS = 600


def convert_par(path: Path, sequence: str | None) -> list[SeriesFiles]:
    """Return the series that a pair PAR and REC holds, converted to NIfTI in a folder that is removed with them.

    Parameters
    ----------
    path
        One of the two.
    sequence
        The signal model that the user named.

    Raises
    ------
    InputError
        If one of the pair is missing, dcm2niix is not installed or cannot read it, or the images are no series.
    """
    program = converter("PAR/REC")
    beside = {p.suffix.lower(): p for p in path.parent.iterdir() if p.stem == path.stem}
    if missing := [end for end in (".par", ".rec") if end not in beside]:
        raise InputError(
            f"{path}: expected a pair of files .PAR and .REC, got none that ends with {missing[0].upper()}."
        )
    folder = PrivateFolder()
    try:
        command = [
            program,
            "-b",
            "y",
            "-ba",
            "y",
            "-z",
            "n",
            "-f",
            "image_%s_%e",
            "-o",
            str(folder.path),
            str(beside[".par"]),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise InputError(f"{path}: dcm2niix did not end within {_SECONDS} s. Convert the files by hand.") from None
        files = sorted(folder.path.glob("*.nii"), key=lambda f: natural(f.name))
        if not files:
            raise InputError(
                f"{path}: dcm2niix could not convert this pair of PAR and REC (its exit status was {done.returncode}). "
                f"Export the series as "
                "DICOM."
            )
        found, left_out = loose_series(files, sequence)
    except BaseException:
        folder.remove()
        raise
    notes = (
        note(f"converted from {path.name} with dcm2niix"),
        *([f"{len(left_out)} of its images were left out"] if left_out else []),
    )
    return [
        replace(
            s,
            stem=path.stem if len(found) == 1 else f"{path.stem}_{n}",
            label=path.name if len(found) == 1 else f"{path.name} ({n})",
            origin=(path.name,),
            notes=(*notes, *s.notes),
            holder=folder,
        )
        for n, s in enumerate(found, 1)
    ]
