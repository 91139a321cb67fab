"""How a series is to be read: what the user says in place of names and sidecars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from numpy.typing import NDArray

from rimap.likelihood import Noise


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """How to read a series. Options that are left out are read from the files, or chosen.

    Every field is a keyword of `rimap.read` too. A `Reading` is for several series that are read alike.

    Parameters
    ----------
    times_ms
        Values of the setting that differs between the images, if it is a time, in the order of the images, ms.
    tr_ms
        The setting ``tr``: the repetition time, one or one for each image, ms.
    settings
        Any setting of the signal model by name (``{"flip_angle": (3, 20)}``), one value or one for each image, in the
        unit of the setting: ms, degrees.
    given
        Parameters that are known, by name: a file, a number, or an array (*X). Without a file for B1, that of the data
        set (TB1map of the same subject and session) is used if there is one.
    sequence
        A signal model by name, if suffix and sidecars do not determine it, or determine another one. If it is left out,
        `rimap.read` chooses between the models that describe such a series (``t2`` or ``mese``).
    mask
        A file, an array (*X), a tensor or a nibabel image; ``"auto"`` for the voxels with signal.
    noise
        `Gaussian(…)` or `Rician(…)`.
    skip_first
        Leave out the images of this many shortest times (1 for the first echo of a MESE), repeats of them as well.
    signed
        Whether inversion recovery images keep their polarity. By default ``part-`` in the names determines this, or
        else the values of the images. `False` takes the modulus.
    """

    times_ms: Iterable[float] | None = None
    tr_ms: float | Iterable[float] | None = None
    settings: Mapping[str, Any] | None = None
    given: Mapping[str, Any] | None = None
    sequence: str | None = None
    mask: Path | str | NDArray[Any] | None = None
    noise: Noise | None = None
    skip_first: int = 0
    signed: bool | None = None


class ReadingOptions(TypedDict, total=False):
    """The fields of `Reading` as keywords: for type checkers and editors."""

    times_ms: Iterable[float] | None
    tr_ms: float | Iterable[float] | None
    settings: Mapping[str, Any] | None
    given: Mapping[str, Any] | None
    sequence: str | None
    mask: Any
    noise: Noise | None
    skip_first: int
    signed: bool | None


#: Everything as the files say.
AS_FOUND = Reading()
