"""The files of one series, and the `WeightedSeries` that they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rimap.errors import InputError
from rimap.foreground import AUTO
from rimap.io.bids import Sidecars, model_of_suffix, models, sidecar_beside
from rimap.io.given_parameters import given_maps
from rimap.io.image_order import check_order, without_first
from rimap.io.masks import MaskFile
from rimap.io.nifti import NiftiFile, header_and_data, open_nifti, stamp
from rimap.io.open_series import OpenSeries, check_companions
from rimap.io.philips_scaling import in_one_scale
from rimap.io.reading_options import AS_FOUND, Reading
from rimap.io.repeated_volumes import note_on_repeats
from rimap.io.sequence_detection import GRADIENT, echo_kind, model_of_sidecars, note_on_echoes
from rimap.io.settings import option_of, settings_from_sidecars, settings_from_user, split_settings
from rimap.io.slice_times import slice_delays
from rimap.io.voxel_grid import affine_of, check_same_grid, placed_first, third_axis_as_images
from rimap.series import WeightedSeries
from rimap.signals import SignalModel
from rimap.signals.base import axis_of
from rimap.signals.model_options import knows_polarity, polarity, polarity_if_unknown
from rimap.signals.settings import settings_of


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
    field_maps
        Other data sets in which maps of fields are looked for besides the series' own: OUT, where a B1 map was just
        made.
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
    field_maps: tuple[Path, ...] = ()
    holder: object = field(default=None, repr=False, compare=False)

    @property
    def sources(self) -> tuple[Path, ...]:
        """All files that are read, the headers of pairs .hdr and .img among them."""
        both = (f for image in (*self.images, *self.companions) for f in reversed(header_and_data(image)))
        return tuple(dict.fromkeys(both))

    def check_sources(self) -> None:
        """Refuse files that cannot be read at all: broken sidecars, links to nothing.

        Raises
        ------
        InputError
            Naming the file.
        """
        for source in self.sources:
            stamp(source)
        self.metadata()

    def metadata(self) -> list[dict[str, Any]]:
        """Return the sidecar of each of `images`, {} if there is none.

        Raises
        ------
        InputError
            For broken JSON.
        """
        sidecars = Sidecars()
        return [sidecars(image, self.dataset) for image in self.images]

    def model_class(self, sequence: str | None = None) -> type[SignalModel]:
        """Return the signal model: the one asked for, that of the suffix, or the one that the sidecars determine.

        Raises
        ------
        InputError
            If none of these determines it, or if the requested model contradicts the suffix.
        """
        sequence, own = sequence or self.sequence, self._own_model()
        if sequence is None:
            if own is not None:
                return own
            metadata = self.metadata()
            files, _, _ = self._opened(metadata, None)
            return model_of_sidecars(self.label, self.images, [file.n_volumes for file in files], metadata)
        if sequence not in models():
            raise InputError(f"expected a sequence ({', '.join(sorted(models()))}), got {sequence!r}.")
        if own is not None and not self.can_be(sequence):
            says = f"suffix, and --sequence {sequence} does not read {self.suffix}" if self.suffix else "headers"
            raise InputError(
                f"{self.label}: expected --sequence {own.name}, got {sequence}: it is {own.title.lower()} according to "
                f"its {says}. Leave --sequence out, or rename the files."
            )
        return models()[sequence]

    def can_be(self, sequence: str) -> bool:
        """Return whether the images may be those of a signal model, by their suffix or the headers of DICOM."""
        own, asked = self._own_model(), models()[sequence]
        if own is None or own is asked or own.bids_suffix in asked.also_reads:
            return True
        # Gradient echoes that are named after spin echoes, or the other way round, are what their sidecars say.
        same_axis = axis_of(own).bids == axis_of(asked).bids and own.gradient_echo != asked.gradient_echo
        return same_axis and (echo_kind(self.metadata())[0] == GRADIENT) == asked.gradient_echo

    def _own_model(self) -> type[SignalModel] | None:
        """Return the signal model that suffix or headers say, `None` if they say none."""
        if self.suffix or not self.origin or self.sequence is None:
            return model_of_suffix(self.suffix)
        return models()[self.sequence]

    def load(self, how: Reading = AS_FOUND) -> WeightedSeries:
        """Read the series; the parameters are those of `open`.

        Raises
        ------
        InputError
            For whatever does not fit together, naming the files.
        """
        return self.open(how).read()

    def open(self, how: Reading = AS_FOUND) -> OpenSeries:
        """Read the headers and sidecars of the series; its images are read by what is returned.

        Parameters
        ----------
        how
            What the user says in place of names and sidecars.

        Raises
        ------
        InputError
            For whatever does not fit together, naming the files.
        """
        model = self.model_class(how.sequence)
        typed, options = split_settings(how.settings, model, times_ms=how.times_ms, tr_ms=how.tr_ms)
        files, companions, notes = self._opened(self.metadata(), _count(typed.get(axis_of(model).name)))
        values, about_settings = self._settings(model, files, typed)
        notes += about_settings
        options |= self._polarity(model, how.signed)
        keep = without_first(values[axis_of(model).name], how.skip_first, self.label, axis_of(model))
        whole, unused = _built(model, values, typed, options)
        notes += unused
        if how.skip_first and model.if_first_is_skipped:
            notes.append(model.if_first_is_skipped)
        first = placed_first(files)
        known, about_given = given_maps(how.given or {}, self, whole, first)
        if companions:
            notes += check_same_grid([first, *companions])
            check_companions(files, companions)
        where: Any = how.mask
        if isinstance(where, (str, Path)) and where != AUTO:
            where = MaskFile.of(Path(where), first.shape, affine_of(first))
            notes += where.notes
        delays, about_slices = slice_delays(files, self.metadata(), model)
        return OpenSeries(
            label=self.label,
            files=tuple(files),
            companions=tuple(companions),
            keep=tuple(keep),
            model=whole.subset(np.flatnonzero(keep)),
            part=self.part,
            signed=how.signed,
            mask=where,
            noise=how.noise,
            notes=(*self.notes, *notes, *about_slices, *about_given),
            delays=delays,
            given={name: value.value for name, value in known.items()},
            given_from={name: value.source for name, value in known.items()},
        )

    def _opened(
        self, metadata: Sequence[Mapping[str, Any]], count: int | None
    ) -> tuple[list[NiftiFile], list[NiftiFile], list[str]]:
        """Return the headers of the images and of their companions, in one scale, and notes.

        Parameters
        ----------
        metadata
            Their sidecars.
        count
            How many values of the axis the user gave, if any: N of a single file (X, Y, N), whose third axis then holds
            the images.
        """
        files = [open_nifti(image) for image in self.images]
        notes = check_same_grid(files)
        if len(files) == 1:
            wanted = {len(v) for v in metadata[0].values() if isinstance(v, list)} if count is None else {count}
            files[0], more = third_axis_as_images(files[0], wanted)
            notes += more
        companions = [open_nifti(companion) for companion in self.companions]
        # Real and imaginary parts are values of one signal; a phase has a scale of its own.
        sidecars, parts = Sidecars(), companions if self.part == "real" else []
        of_parts = [sidecars(part.path, self.dataset) for part in parts]
        scaled, about_scale = in_one_scale([*files, *parts], [*metadata, *of_parts])
        return scaled[: len(files)], scaled[len(files) :] or companions, [*notes, *about_scale]

    def _settings(
        self, model: type[SignalModel], files: Sequence[NiftiFile], typed: Mapping[str, Any]
    ) -> tuple[dict[str, Sequence[float]], list[str]]:
        """Return all settings of the series, those that were typed and those of the sidecars, and notes."""
        counts, metadata, axis = [file.n_volumes for file in files], self.metadata(), axis_of(model).name
        values: dict[str, Sequence[float]] = {}
        try:
            values |= settings_from_user(typed, sum(counts), model, self.label)
        except InputError as error:
            unused = [str(text) for text in self.notes if " left out" in text]  # which explains why the numbers differ
            others = f" and {len(unused) - 2} more" if len(unused) > 2 else ""
            raise InputError(f"{error} Note: {'; '.join(unused[:2])}{others}." if unused else str(error)) from None
        for name in typed:
            setting = settings_of(model)[name]
            if setting.per_image is not False and len(values[name]) > 1:
                check_order(self.images, values[name], option_of(setting, model), setting, converted=bool(self.origin))
        sure = bool(self.suffix or self.sequence)
        notes = note_on_echoes(self.label, metadata, model, sure=sure)
        found, more = settings_from_sidecars(
            self.images, counts, metadata, model, known=values, elsewhere=self._elsewhere(model)
        )
        repeats = [] if axis in typed else note_on_repeats(files, metadata, model)
        return values | found, [*repeats, *notes, *more]

    def _elsewhere(self, model: type[SignalModel]) -> dict[str, list[dict[str, Any]]]:
        """Return the sidecars of the images that a setting is read from, by its name, if there are such images."""
        found = {}
        for setting in settings_of(model).values():
            if setting.read_from and self.dataset is not None:
                sidecars = [sidecar_beside(image, setting.read_from, self.dataset) for image in self.images]
                if all(sidecars):
                    found[setting.name] = sidecars
        return found

    def _polarity(self, model: type[SignalModel], signed: bool | None) -> dict[str, Any]:
        """Return whether the images keep their polarity, for the models that ask."""
        if not knows_polarity(model):
            return {}
        if signed and self.part == "mag" and not self.companions:
            raise InputError(
                f"{self.label}: these are magnitude images (part-mag), whose polarity is lost. Add the phase "
                "(part-phase) or the real part, or leave signed out."
            )
        if signed is None and not self.part and not self.companions:
            return polarity(polarity_if_unknown(model))  # what the images look like decides
        return polarity((self.part == "real" or bool(self.companions)) if signed is None else signed)


def _count(values: Any) -> int | None:
    """Return how many values the user gave, `None` if none."""
    return None if values is None else int(np.size(list(values) if isinstance(values, Iterable) else values))


def _built(
    model: type[SignalModel],
    values: Mapping[str, Sequence[float]],
    typed: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[SignalModel, list[str]]:
    """Return the model with its settings, and a note if optional ones of the sidecars had to be left out.

    Sidecars may have half of what belongs together: the flip angle of a readout without its repetition time.

    Raises
    ------
    InputError
        If the settings cannot be those of the model.
    """
    every: dict[str, Any] = {**values, **options}
    try:
        return model(**every), []
    except InputError as error:
        optional = [
            n for n, value in settings_of(model).items() if not value.required and n in values and n not in typed
        ]
        if not optional:
            raise
        try:
            found = model(**{name: value for name, value in every.items() if name not in optional})
        except InputError:
            raise error from None
        fields_left_out = ", ".join(settings_of(model)[name].sidecar_field for name in optional)
        return found, [f"{fields_left_out} of the sidecars was not used: {error}"]
