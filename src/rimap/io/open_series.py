"""A series whose headers and sidecars have been read, and whose images are read whole or plane by plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import advice
from rimap.arrays import stride
from rimap.errors import InputError
from rimap.image_brightness import Level, levels_of, odd_levels
from rimap.io.empty_slices import left_out
from rimap.io.masks import MaskFile
from rimap.io.nifti import NiftiFile, read_volumes
from rimap.io.polarity import circle_of_images, looks_signed, refuse_reversed, restore_polarity, sign_from_phase
from rimap.io.slice_times import SliceDelays
from rimap.io.voxel_grid import affine_of, placed_first
from rimap.likelihood import Noise
from rimap.series import WeightedSeries
from rimap.signals import SignalModel
from rimap.signals.model_checks import refuse_contradictions_of_others
from rimap.signals.model_options import knows_polarity, polarity

_LOOK_AT = 24  # planes
#: The largest of the 12-bit numbers in which scanners store images without a unit.
_STORED_LEVELS = 4095.0
#: Interpolation takes values this far beyond their range, relative.
_MARGIN = 1.1

#: From and to, of the last axis.
Planes = tuple[int, int]


@dataclass(frozen=True, eq=False)
class OpenSeries:
    """What `SeriesFiles.open` gives.

    Parameters
    ----------
    label
        For messages.
    files, companions
        The images, and the phase or imaginary part of each, if there is any.
    keep
        Which of all their volumes are the series.
    model
        The signal model of those, before their polarity is known.
    part
        ``""``, ``mag`` or ``real``.
    signed
        What the user says of the polarity.
    mask
        Where maps are wanted, a file or an array (*X); ``"auto"`` if that is to be found from the images.
    noise
        As the user gave it.
    notes
        What the user should know.
    given
        Parameters that are known, by name: a number, or a map (*X), in the unit of the parameter.
    given_from
        Where each of them is from: a file, a number, or ``"array"``.
    delays
        How much later than the time of an image its slices are, if they have times of their own.
    looks, circle, levels
        Whether the images look signed, what a full turn of their phase is, and which whole number means the upper end
        of a normalised signal (0: the images are not stored so), once that is `settled`.
    """

    label: str
    files: tuple[NiftiFile, ...]
    companions: tuple[NiftiFile, ...]
    keep: tuple[bool, ...]
    model: SignalModel
    part: str
    signed: bool | None
    mask: MaskFile | NDArray[Any] | str | None
    noise: Noise | None
    notes: tuple[str, ...]
    given: Mapping[str, float | NDArray[np.float64]] = field(default_factory=dict)
    given_from: Mapping[str, Path | float | str] = field(default_factory=dict)
    delays: SliceDelays | None = None
    looks: bool | None = None
    circle: float | None = None
    levels: float | None = None

    def __post_init__(self) -> None:
        refuse_contradictions_of_others(self.model)  # before anything is predicted with it

    @property
    def shape(self) -> tuple[int, ...]:
        """X, the spatial shape."""
        return self.files[0].shape

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """(4, 4), voxel to world, mm; `None` if no header says where the images are."""
        return affine_of(placed_first(self.files))

    @property
    def finds_mask(self) -> bool:
        """Whether the mask is to be found from the images."""
        return isinstance(self.mask, str)

    def read(self) -> WeightedSeries:
        """Return the whole series.

        Raises
        ------
        InputError
            For damaged files, and images that are no series.
        """
        images, model, mask, notes = self._arrays(None)
        try:
            return WeightedSeries(
                images,
                model,
                noise=self.noise,
                mask=mask,
                affine=self.affine,
                source=self.label,
                notes=(*self.notes, *notes),
                given=self.given,
            )
        except InputError as error:
            raise self._named(error) from None

    def read_planes(self, a: int, b: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the images (N, *X) and the mask (*X) of planes `a` to `b` of the last axis, of a `settled` series.

        A mask that is to be found from the whole is left out.
        """
        images, _, mask, _ = self._arrays((a, b))
        return images, mask

    def given_at(self, a: int, b: int) -> dict[str, float | NDArray[np.float64]]:
        """Return the given parameters in planes `a` to `b` of the last axis, by name."""
        return {key: value if isinstance(value, float) else value[..., a:b] for key, value in self.given.items()}

    def settled(self) -> OpenSeries:
        """Return the series with what depends on all of its images found out, without holding them: plane by plane."""
        n = self.shape[-1]
        looks, circle = self.looks, self.circle
        if self._asks_looks() or self._told_signed():
            sample = np.concatenate([read_volumes(self.files, self.keep, (k, k + 1)) for k in range(n)[_some(n)]], -1)
            looks = looks_signed(sample) if self._asks_looks() else looks
            if looks or self._told_signed():
                self._refuse_reversed(sample)
        if self.companions and self.part != "real" and knows_polarity(self.model) and self.signed is not False:
            low, high = np.inf, -np.inf
            seen: list[tuple[NDArray[Any], NDArray[Any]]] = []
            for k in range(n):
                phase = read_volumes(self.companions, self.keep, (k, k + 1))
                if np.isfinite(phase).any():
                    low, high = min(low, float(np.nanmin(phase))), max(high, float(np.nanmax(phase)))
                if k in range(n)[_some(n)]:
                    seen.append((read_volumes(self.files, self.keep, (k, k + 1)), phase))
            images, phases = (np.concatenate(some, -1) for some in zip(*seen))
            circle = self._circle(images, phases, (low, high))
        levels = self.levels
        if self.model.normalised_range is not None:
            planes = [read_volumes(self.files, self.keep, (index, index + 1)) for index in range(n)]
            low, high = (
                float(f([f(plane, initial=0.0, where=np.isfinite(plane)) for plane in planes]))
                for f in (np.min, np.max)
            )
            levels = self._levels(low, high)
        opened = replace(self, looks=looks, circle=circle, levels=levels)
        _, model, _, notes = opened._arrays((0, 1))
        return replace(
            opened, model=model, notes=(*self.notes, *odd_levels(self._levels_of_planes(), self.model), *notes)
        )

    def _levels_of_planes(self) -> list[Level]:
        """Return the level of each image, some planes at a time."""
        n = self.shape[-1]
        found = [Level() for kept in self.keep if kept]
        for a in range(0, n, _LOOK_AT):
            images = self._normalised(read_volumes(self.files, self.keep, (a, min(a + _LOOK_AT, n))))[0]
            found = [level.with_planes(image) for level, image in zip(found, images)]
        return found

    def unpacked(self, folder: Path) -> OpenSeries:
        """Return the series with its compressed files uncompressed in `folder`."""
        mask = self.mask.unpacked(folder) if isinstance(self.mask, MaskFile) else self.mask
        files, companions = (tuple(f.unpacked(folder) for f in x) for x in (self.files, self.companions))
        return replace(self, files=files, companions=companions, mask=mask)

    def check(self) -> None:
        """Refuse files that have changed since they were opened.

        Raises
        ------
        InputError
            Naming the file.
        """
        mask = [self.mask.file] if isinstance(self.mask, MaskFile) else []
        for f in (*self.files, *self.companions, *mask):
            if f.stamp is not None:
                f.stamp.check(f.path)

    def _arrays(self, planes: Planes | None) -> tuple[NDArray[Any], SignalModel, Any, list[str]]:
        mask: Any = self.mask
        if isinstance(mask, MaskFile):
            mask = mask.read(planes)
        elif isinstance(mask, str):
            mask = mask if planes is None else None
        elif mask is not None and planes is not None:
            mask = mask[..., planes[0] : planes[1]]
        images, about_range = self._normalised(read_volumes(self.files, self.keep, planes))
        try:
            about_levels = odd_levels(levels_of(images), self.model) if planes is None else []
            images, model, notes = self._polarity(images, planes)
            notes = [*about_range, *about_levels, *notes]
            notes += left_out(images, model, first=None if planes is None else planes[0])
        except InputError as error:
            raise self._named(error) from None
        return images, model, mask, notes

    def _normalised(self, images: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
        """Return the images of a model without a unit in its range, and a note if they were stored as whole numbers."""
        if self.model.normalised_range is None:
            return images, []
        levels = self.levels
        if levels is None:
            finite = np.isfinite(images)
            levels = self._levels(
                float(images.min(where=finite, initial=0.0)), float(images.max(where=finite, initial=0.0))
            )
        if not levels:
            return images, []
        low, high = self.model.normalised_range
        scaled = images / np.asarray(levels, images.dtype) * np.asarray(high - low, images.dtype) + low
        return scaled, [advice.note(f"whole numbers from 0 to {levels:g} are taken as {low:g} to {high:g}")]

    def _levels(self, lowest: float, highest: float) -> float:
        """Return which stored number means the upper end of a normalised signal, 0 if the images have its range."""
        assert self.model.normalised_range is not None
        low, high = self.model.normalised_range
        if low * _MARGIN <= lowest and highest <= high * _MARGIN:
            return 0.0
        if lowest >= 0 and highest <= _STORED_LEVELS:
            return _STORED_LEVELS
        raise InputError(
            f"{self.label}: expected values from {low:g} to {high:g}, or from 0 to {_STORED_LEVELS:g} as scanners "
            f"store them, got {lowest:g} to {highest:g}. Rescale the image."
        )

    def _named(self, error: InputError) -> InputError:
        return error if self.label in str(error) else InputError(f"{self.label}: {error}")

    def _asks_looks(self) -> bool:
        return knows_polarity(self.model) and self.signed is None and not self.companions and not self.part

    def _told_signed(self) -> bool:
        return self.model.is_signed and not self.companions

    def _refuse_reversed(self, sample: NDArray[Any]) -> None:
        if not _rises(self.model):
            return
        try:
            refuse_reversed(sample, self.model.times)
        except InputError as error:
            raise self._named(error) from None

    def _circle(self, images: NDArray[Any], phase: NDArray[Any], limits: tuple[float, float]) -> float:
        if not np.isfinite(limits).all():
            raise InputError(f"{self.label}: the phase images hold no finite value. Convert them again.")
        return circle_of_images(images, phase, int(np.argmax(self.model.times)), limits)

    def _polarity(self, images: NDArray[Any], planes: Planes | None) -> tuple[NDArray[Any], SignalModel, list[str]]:
        """Return the images, signed where the companions give the polarity or they look it, and the model."""
        model, signed = self.model, self.signed

        def other() -> NDArray[Any]:
            return read_volumes(self.companions, self.keep, planes)

        complex_parts = self.part == "real" and bool(self.companions)
        if not knows_polarity(model):  # a decay has no polarity
            return (np.hypot(images, other()) if complex_parts else images), model, []
        if signed is False:
            if complex_parts:
                images = np.hypot(images, other())
            return np.abs(images, out=images), _signed(model, False), []
        if not self.companions:
            looks = self._asks_looks() and (looks_signed(_sample(images)) if self.looks is None else self.looks)
            if planes is None and (looks or self._told_signed()):
                self._refuse_reversed(_sample(images))
            if looks:
                note = "bright voxels are negative at some times: taken as signed images (real part), not magnitude"
                return images, _signed(model, True), [note]
            # A model that is signed unless one says otherwise may refuse moduli.
            return images, _signed(model, False) if self._asks_looks() else model, []
        latest = int(np.argmax(model.times))
        second = other()
        if complex_parts:
            phase, circle = np.arctan2(second, images), 2 * np.pi
            images = np.hypot(images, second)
        else:
            phase = second
            if self.circle is not None:
                circle = self.circle
            else:
                finite = np.isfinite(phase)
                some = finite.any()
                limits = (
                    float(phase.min(where=finite, initial=np.inf)) if some else np.nan,
                    float(phase.max(where=finite, initial=-np.inf)) if some else np.nan,
                )
                circle = self._circle(_sample(images), _sample(phase), limits)
        for image, angle in zip(images, phase):
            image *= sign_from_phase(angle, phase[latest], circle)
        if _rises(model):
            restore_polarity(images, model.times)
        source = "imaginary part" if complex_parts else "phase"
        note = advice.note(f"polarity from the {source}, relative to the image with the longest inversion time")
        return images, _signed(model, True), [note]


def _some(n: int) -> slice:
    """Return which of `n` planes to look at."""
    step = stride(n, _LOOK_AT)
    return slice(step // 2, n, step)


def _sample(images: NDArray[Any]) -> NDArray[Any]:
    """Return those planes of images (N, *X): what they look like must not depend on how they are read."""
    return images[..., _some(images.shape[-1])] if images.ndim > 3 else images


@lru_cache(maxsize=32)
def _rises(model: SignalModel) -> bool:
    """Return whether the signal of every tissue is larger in the last image than in the first, as after an inversion.

    It need not be where each image has a flip angle of its own, or a steady state.
    """
    first, last = int(np.argmin(model.times)), int(np.argmax(model.times))
    T = np.geomspace(*model.time.bounds, 64)
    others = {
        parameter.name: np.full_like(T, parameter.start) for parameter in model.nonlinear if parameter is not model.time
    }
    shape = np.asarray(model.shape(**others, **{model.time.name: T}))
    return bool((shape[last] - shape[first] >= -1e-6 * np.abs(shape).max()).all())


def _signed(model: SignalModel, signed: bool) -> SignalModel:
    return replace(model, **polarity(signed))


def check_companions(files: Sequence[NiftiFile], companions: Sequence[NiftiFile]) -> None:
    """Refuse companions with other numbers of volumes than their images.

    Raises
    ------
    InputError
        Naming the two files.
    """
    for file, companion in zip(files, companions):
        if file.n_volumes != companion.n_volumes:
            raise InputError(
                f"{file.path.name} has {file.n_volumes} volumes, {companion.path.name} {companion.n_volumes}."
            )
