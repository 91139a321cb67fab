"""The files of one series, and the `WeightedSeries` that they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError, count_of
from rimap.io.bids import Sidecars, model_of_suffix, models, natural, strip_nii
from rimap.io.nifti import MaskFile, check_same_grid, open_nifti
from rimap.io.opened import OpenSeries, check_companions
from rimap.io.timing import about_repeats, repetition_time, times_from_sidecars, times_from_user
from rimap.likelihood import Noise
from rimap.series import WeightedSeries
from rimap.signals import SignalModel
from rimap.signals.base import bids_time


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series.

    Parameters
    ----------
    images
        One file per image (or one 4-D file): magnitude, real part, or unsaid.
    entities
        BIDS entities that all of them share, without `part`; {} for loose files.
    suffix
        BIDS suffix, ``IRT1`` or ``MESE``; "" for loose files.
    stem
        What the names of maps of loose files start with.
    dataset
        The BIDS data set, `None` for loose files.
    label
        For messages: ``sub-01 ses-1 run-2 IRT1``.
    part
        ``""``, ``mag``, ``real``.
    companions
        The phase of each magnitude image, or the imaginary part of each real one; may be empty.
    sequence
        Name of the signal model where the user gave one.
    siblings
        Suffixes of the other series with the same entities: maps must not get each other's names.
    origin
        What outputs call the sources, where `images` are temporary; else their paths are said.
    notes
        What the user should know of how the files were found, in plain words.
    holder
        Keeps temporary files alive.
    """

    images: tuple[Path, ...]
    entities: dict[str, str]
    suffix: str
    stem: str
    dataset: Path | None
    label: str
    part: str = ""
    companions: tuple[Path, ...] = ()
    sequence: str | None = None
    siblings: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    holder: object = field(default=None, repr=False, compare=False)

    @property
    def sources(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (*self.images, *self.companions)

    def metadata(self) -> list[dict[str, Any]]:
        """Return the sidecar of each of `images`, {} where there is none.

        Raises
        ------
        InputError
            For broken JSON.
        """
        sidecars = Sidecars()
        return [sidecars(image, self.dataset) for image in self.images]

    def model_class(self, sequence: str | None = None) -> type[SignalModel]:
        """Return the signal model: the one asked for, that of the suffix, or what the sidecars tell.

        Raises
        ------
        InputError
            Where none of these tells, or what was asked for contradicts the suffix.
        """
        known = models()
        sequence = sequence or self.sequence
        of_suffix = model_of_suffix(self.suffix)
        if sequence is not None:
            if sequence not in known:
                raise InputError(f"no sequence {sequence!r}; rimap has {', '.join(sorted(known))}.")
            if of_suffix is not None and of_suffix.name != sequence:
                raise InputError(
                    f"{self.label} is {of_suffix.title.lower()} by its suffix, and --sequence {sequence} came. "
                    f"Leave --sequence out, or rename the files."
                )
            return known[sequence]
        if of_suffix is not None:
            return of_suffix
        metadata = self.metadata()
        fitting = [m for m in known.values() if _varies(metadata, bids_time(m))]
        if len(fitting) != 1:
            why = "both InversionTime and EchoTime vary" if fitting else "neither name nor sidecars tell"
            flags = " or ".join(f"--sequence {m}" for m in sorted(known))
            no_times = not any(bids_time(m) in meta for m in known.values() for meta in metadata)
            raise InputError(
                f"{self.label}: which kind of series is this, and at which times? {why.capitalize()}. "
                f"Give {flags}{', and the times in ms with --times-ms' if no_times else ''}."
            )
        return fitting[0]

    def load(
        self,
        *,
        times_ms: Iterable[float] | None = None,
        tr_ms: float | Iterable[float] | None = None,
        sequence: str | None = None,
        mask: Path | str | NDArray[Any] | None = None,
        noise: Noise | None = None,
        skip_first: int = 0,
        signed: bool | None = None,
    ) -> WeightedSeries:
        """Read the series; the parameters are those of `open`.

        Raises
        ------
        InputError
            For whatever does not fit together, naming the files.
        """
        opened = self.open(
            times_ms=times_ms,
            tr_ms=tr_ms,
            sequence=sequence,
            mask=mask,
            noise=noise,
            skip_first=skip_first,
            signed=signed,
        )
        return opened.read()

    def open(
        self,
        *,
        times_ms: Iterable[float] | None = None,
        tr_ms: float | Iterable[float] | None = None,
        sequence: str | None = None,
        mask: Path | str | NDArray[Any] | None = None,
        noise: Noise | None = None,
        skip_first: int = 0,
        signed: bool | None = None,
    ) -> OpenSeries:
        """Read the headers and sidecars of the series; its images are read by what is returned.

        Parameters
        ----------
        times_ms
            Times in the order of `images`, ms; from the sidecars if left out.
        tr_ms
            Repetition time from inversion to inversion, one or one per image, ms; from the sidecars if left out.
        sequence
            ``ir`` or ``t2``, where suffix and sidecars do not tell.
        mask
            A file or an array (*X).
        noise
            `Gaussian(…)` or `Rician(…)`.
        skip_first
            Leave out the images of this many shortest times (1 for the first echo of a MESE), repeats of them as well.
        signed
            Whether inversion recovery images keep their polarity. Left out: as `part-` says, and without it as the
            images look. `False` takes the modulus.

        Raises
        ------
        InputError
            For whatever does not fit together, naming the files.
        """
        model = self.model_class(sequence)
        files = [open_nifti(f) for f in self.images]
        check_same_grid(files)
        counts, metadata = [f.n_volumes for f in files], self.metadata()
        if times_ms is None:
            tau = times_from_sidecars(self.images, counts, metadata, model)
            repeated = about_repeats(files, metadata, model)
        else:
            repeated = []
            tau = times_from_user(times_ms, sum(counts), model, self.label)
            if not _named_by_time(self.images, tau) and not self.origin:
                _check_order(self.images, tau)
        options, notes = self._options(model, counts, metadata, tau, tr_ms, signed)
        keep = _without_first(tau, skip_first, self.label)
        whole = model.at(tau, **options)
        companions = [open_nifti(f) for f in self.companions]
        if companions:
            check_same_grid([files[0], *companions])
            check_companions(files, companions)
        where: Any = mask
        if isinstance(mask, (str, Path)):
            where = MaskFile.of(Path(mask), files[0].shape, files[0].affine)
        return OpenSeries(
            label=self.label,
            files=tuple(files),
            companions=tuple(companions),
            keep=tuple(keep),
            model=whole.subset(np.flatnonzero(keep)),
            part=self.part,
            signed=signed,
            mask=where,
            noise=noise,
            notes=(*self.notes, *repeated, *notes),
        )

    def _options(
        self,
        model: type[SignalModel],
        counts: Sequence[int],
        metadata: Sequence[dict[str, Any]],
        tau: Sequence[float],
        tr_ms: float | Iterable[float] | None,
        signed: bool | None,
    ) -> tuple[dict[str, Any], list[str]]:
        """Return TR and polarity for the models that know them, and notes."""
        has = {f.name for f in fields(model)}
        options: dict[str, Any] = {}
        notes = []
        if "tr" in has:
            if tr_ms is not None:
                options["tr"] = tr_ms if isinstance(tr_ms, (int, float)) else tuple(tr_ms)
            else:
                options["tr"], note = repetition_time(self.images, counts, metadata, tau)
                notes += [note] if note else []
        if "signed" in has:
            options["signed"] = self.part == "real" if signed is None else signed
            if signed and self.part == "mag" and not self.companions:
                raise InputError(
                    f"{self.label}: these are magnitude images (part-mag), whose polarity is lost. Add the phase "
                    "(part-phase) or the real part, or leave signed out."
                )
        return options, notes


def _varies(metadata: Sequence[dict[str, Any]], field: str) -> bool:
    values = [m.get(field) for m in metadata]
    if any(v is None for v in values) or not values:
        return False
    return any(isinstance(v, list) for v in values) or len({str(v) for v in values}) > 1


def _named_by_time(images: Sequence[Path], tau: Sequence[float]) -> bool:
    """Tell whether the names say the times, and refuse times that they contradict: a shell lists TI_1000 before TI_50.

    Raises
    ------
    InputError
        Where a name has the time of another file and not its own.
    """
    if len(images) != len(tau) or len(set(tau)) < 2:
        return False
    named = [{float(x) for x in re.findall(r"\d+(?:\.\d+)?", strip_nii(f))} & set(tau) for f in images]
    if len({frozenset(n) for n in named}) < len(images) or not all(len(n) == 1 for n in named):
        return False
    wrong = next((k for k, (n, t) in enumerate(zip(named, tau)) if t not in n), None)
    if wrong is not None:
        raise InputError(
            f"--times-ms gives {tau[wrong]:g} ms to {images[wrong].name}: times go in the order of the files, which is "
            f"{', '.join(f.name for f in images[:4])}{' …' if len(images) > 4 else ''}. Give the times, or the files, in the other's order."
        )
    return True


def _check_order(images: Sequence[Path], tau: Sequence[float]) -> None:
    """Refuse files in the order of a shell, ti1, ti10, ti2: times that are typed go by the numbers.

    Raises
    ------
    InputError
        Where names that differ in numbers alone are sorted as text and not as numbers. Times that rise by the numbers
        of the files, and not as they came, were meant so.
    """
    names = [str(f) for f in images]
    by_number = sorted(range(len(names)), key=lambda k: natural(names[k]))
    digits = [re.findall(r"\d+", name) for name in names]
    as_text = names == sorted(names) or digits == sorted(digits)  # some languages sort _ before digits
    if by_number == sorted(by_number) or not as_text or len({re.sub(r"\d+", "", name) for name in names}) > 1:
        return
    if len(tau) == len(names) and [tau[k] for k in by_number] == sorted(tau) != list(tau):
        return
    raise InputError(
        f"the files came in the order {', '.join(f.name for f in images[:3])}{' …' if len(images) > 3 else ''}, as a shell "
        "sorts names, and --times-ms goes in the order of the files. Give the folder, names with leading zeros (01, 02), "
        "or the files in the order of their numbers and times."
    )


def _without_first(tau: Sequence[float], skip_first: int, label: str) -> list[bool]:
    times = sorted(set(tau))
    if skip_first < 0 or skip_first >= len(times):
        raise InputError(
            f"--skip-first {skip_first}: {label} has images at {count_of(len(times), 'time')}; a number from 0 to "
            f"{len(times) - 1} was expected."
        )
    return [t >= times[skip_first] for t in tau]
