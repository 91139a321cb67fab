"""The names of the maps of a series in OUT.

For T1 of BIDS input ``sub-01_ses-1_…`` in ``OUT/sub-01/ses-1/anat/`` (other main maps have their own suffix):

=========================== =====================================================
``…_T1map``                 the main map: T1, s
``…_M0map``, ``…_R2starmap``  other maps that BIDS has a suffix for
``…_R1map``                 1/T1, 1/s, on request
``…_desc-B_T1map``          a parameter without a suffix of its own, and each field (B, B1)
``…_desc-sd_T1map``         standard deviation of T1, s (``desc-sdB_T1map`` of B, ``desc-sd_M0map`` of A,
                            ``desc-sd_R1map`` of R1)
``…_desc-residual_T1map``   root mean square of image − model
``…_desc-status_T1map``     quality flag of each voxel, whole numbers
``…_desc-signal_mask``      the voxels that figures describe: the mask, or the foreground
=========================== =====================================================

The mask of a second series with the same entities has its suffix in ``desc-``: ``…_desc-signalMESE_mask`` beside an
IRT1.

BIDS has no suffix for B, residual or status. They take the suffix of the map they belong to and a ``desc-``, which
the validator knows, so that no ``.bidsignore`` is needed for them; a suffix of our own would need one. (The
``.bidsignore`` that is written is for reports and tables.) Select maps by suffix AND without `desc`. A field keeps
``desc-`` even if BIDS has a suffix for it: TB1map is what was measured for it, and what rimap looks for.

If two series with the same entities give the same main map (IRT1 and VFA both give T1), the later one in the alphabet
has its suffix in ``acq-``: ``…_acq-VFA_T1map``. If they share another map only, that map has it in ``desc-``: A of a
MESE beside an IRT1 is ``…_desc-MESE_M0map``.

The first estimator in OUT owns the names without `desc-`. The maps of another one are beside them, with its name:
``…_desc-mle_T1map``, ``…_desc-mleSd_T1map``, ``…_desc-mleB_T1map``. The sidecars say which is which (`Estimator`).

Loose files get the same names with their own stem, ``<stem>_T1map``, in OUT itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rimap.errors import InputError
from rimap.io.bids import OF_MAPS, compose, model_of_suffix, read_json, strip_nii
from rimap.io.series_files import SeriesFiles
from rimap.map_display import file_unit
from rimap.signals import Parameter, SignalModel
from rimap.signals.base import FIELD, Derived, main_of

#: What a signal model declares a map with.
Quantity = Parameter | Derived

#: The ``desc-`` of the mask of the voxels that figures describe.
SIGNAL = "signal"
#: Suffixes of relaxation times that have a rate: T1map, T2starmap.
_OF_TIMES = re.compile(r"T(\d\w*map)")


def main_suffix(model: type[SignalModel]) -> str:
    """Return the suffix of the main map of a signal model."""
    suffixes = (q.suffix for q in (main_of(model), *reversed(model.parameters)))
    return next((suffix for suffix in suffixes if suffix), "map")


def outputs_of(model: type[SignalModel]) -> list[Quantity]:
    """Return the maps of a signal model in the order in which they are written, the main one first."""
    main = main_of(model)
    every: list[Quantity] = [*reversed(model.parameters), *model.derived]
    return [main, *(row for row in every if row is not main)]


def own_suffix(q: Quantity, model: type[SignalModel]) -> str | None:
    """Return the suffix that the map of a quantity has for itself, `None` if it takes that of the main map."""
    is_field = isinstance(q, Parameter) and q.role == FIELD and q is not main_of(model)
    return None if is_field else q.suffix


def rate_suffix(q: Quantity, model: type[SignalModel]) -> str | None:
    """Return the suffix of the rate of a relaxation time (R1map), `None` for other maps and if the model has that map
    anyway.
    """
    in_seconds = file_unit(q.unit)[0] == "s"
    found = _OF_TIMES.fullmatch(own_suffix(q, model) or "") if in_seconds else None
    rate = f"R{found[1]}" if found else None
    return None if rate in {d.suffix for d in model.derived} else rate


def desc_of(what: str, prefix: str = "") -> str:
    """Return a ``desc-``, with the name of the estimator before it if it needs one.

    >>> desc_of("sd"), desc_of("sd", "mle")
    ('sd', 'mleSd')
    """
    return prefix + (what[:1].upper() + what[1:] if prefix else what)


class Naming:
    """The names of the maps of one series by one estimator in OUT.

    Parameters
    ----------
    series_files
        The series.
    out
        OUT.
    model
        Its signal model.
    estimator
        The name of the estimator.
    """

    def __init__(self, series_files: SeriesFiles, out: Path, model: type[SignalModel], estimator: str) -> None:
        self.files, self.out, self.model = series_files, out, model
        self.suffix = main_suffix(model)
        self.prefix = ""
        if self._taken_from(estimator):
            self.prefix = re.sub(r"[^a-zA-Z0-9]", "", estimator) or "other"

    def _taken_from(self, estimator: str) -> bool:
        """Return whether the names without desc- are another estimator's: for this series, else for any in OUT."""
        own = sidecar_of(self._path("", self.suffix))
        if not own.is_file():
            pattern = f"*_{self.suffix}.json" if self.files.dataset is None else f"sub-*/**/*_{self.suffix}.json"
            plain = (
                path for path in self.out.glob(pattern) if "_desc-" not in path.name and not path.name.startswith(".")
            )
            first = next(plain, None)
            if first is None:
                return False
            own = first
        try:
            return read_json(own).get("Estimator") not in (None, estimator)
        except InputError:
            return False  # damaged: there is nothing of another's to keep

    def main(self, q: Quantity, *, rate: bool = False) -> Path:
        """Return the path of a map, or of its rate."""
        own = own_suffix(q, self.model)
        if own is None:
            return self._path(desc_of(q.name, self.prefix), self.suffix)
        suffix = rate_suffix(q, self.model) or own if rate else own
        return self._path(desc_of("", self.prefix) + self._mine(own), suffix)

    def sd(self, q: Quantity, *, rate: bool = False) -> Path:
        """Return the path of the standard deviation of a map, or of its rate."""
        own = own_suffix(q, self.model)
        if own is None:
            return self._path(desc_of(f"sd{q.name}", self.prefix), self.suffix)
        suffix = rate_suffix(q, self.model) or own if rate else own
        return self._path(desc_of("sd", self.prefix) + self._mine(own), suffix)

    def extra(self, what: str) -> Path:
        """Return the path of what is neither a map nor its standard deviation: ``residual``, ``status``."""
        return self._path(desc_of(what, self.prefix), self.suffix)

    def mask(self) -> Path:
        """Return the path of the mask of the voxels that figures describe."""
        second = self._before(lambda _: True) and not self._same_main()
        return self._path(desc_of(SIGNAL, self.prefix) + (self.files.suffix if second else ""), "mask")

    def all_files(self) -> list[Path]:
        """Return every path that may be written."""
        paths = []
        for q in outputs_of(self.model):
            paths += [self.main(q), self.sd(q)]
            if rate_suffix(q, self.model):
                paths += [self.main(q, rate=True), self.sd(q, rate=True)]
        return [*paths, self.extra("residual"), self.extra("status"), self.mask()]

    def _mine(self, suffix: str) -> str:
        """Return what distinguishes maps of the same name (M0map) from two series with the same entities."""
        shared = suffix != self.suffix and self._before(lambda other: suffix in _suffixes(other))
        return self.files.suffix if shared and not self._same_main() else ""

    def _same_main(self) -> bool:
        """Return whether a series before this one gives the same main map."""
        return self._before(lambda other: main_suffix(other) == self.suffix)

    def _before(self, fits: Callable[[type[SignalModel]], bool]) -> bool:
        earlier = (model_of_suffix(sibling) for sibling in self.files.siblings if sibling < self.files.suffix)
        return any(fits(m) for m in earlier if m is not None)

    def _path(self, desc: str, suffix: str) -> Path:
        if self.files.dataset is None:
            middle = f"_desc-{desc}" if desc else ""
            return self.out / f"{self.files.stem}{middle}_{suffix}.nii.gz"
        entities = {key: value for key, value in self.files.entities.items() if key in OF_MAPS}
        others = "".join(
            f"{key}{value}" for key, value in self.files.entities.items() if key not in OF_MAPS and key != "desc"
        )
        others += self.files.suffix if self._same_main() else ""
        if others:  # echo-1 of a multi-echo IRT1, say: a map may not have it, but its name must be unique
            entities["acq"] = entities.get("acq", "") + others
        folder = self.out / f"sub-{entities['sub']}"
        if "ses" in entities:
            folder /= f"ses-{entities['ses']}"
        name = compose(entities | ({"desc": desc} if desc else {}), suffix)
        return folder / "anat" / f"{name}.nii.gz"


def sidecar_of(path: Path) -> Path:
    """Return the sidecar of an image."""
    return path.with_name(f"{strip_nii(path)}.json")


def _suffixes(model: type[SignalModel]) -> set[str]:
    return {s for q in outputs_of(model) if (s := own_suffix(q, model))}
