"""What inputs hold: series, what was refused, and what was left out. Nothing is dropped without a word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rimap.errors import InputError
from rimap.io.series_files import SeriesFiles
from rimap.io.series_membership import listed

#: So many subjects are named.
_MOST_NAMES = 12
#: A file that is of no series, with the reason.
LeftOut = tuple[Path, str]


@dataclass(frozen=True)
class Found:
    """What inputs hold.

    Parameters
    ----------
    series
        The series that can be opened.
    refused
        Label and error of what should be a series and cannot be, and of folders that cannot be read.
    left_out
        Files that are of no series, with the reason.
    empty
        Names of the folders of subjects without a series.
    """

    series: tuple[SeriesFiles, ...]
    refused: tuple[tuple[str, InputError], ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    empty: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What the user should know of files that were not used, and of subjects without a series, in plain words."""
        names = ", ".join(self.empty[:_MOST_NAMES])
        more = f" and {len(self.empty) - _MOST_NAMES} more" if len(self.empty) > _MOST_NAMES else ""
        return [*listed(self.left_out), *([f"no series was found for {names}{more}"] if self.empty else [])]
