"""What goes into an estimator: a `WeightedSeries`. What comes out is in `rimap.maps`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours, notebook_card
from rimap.array_inputs import (
    REAL,
    affine_of,
    images_and_affine,
    indices_of_images,
    is_nibabel,
    notes_on_mask,
    selection,
    shown,
    threshold_of,
    volume,
    why_empty,
)
from rimap.arrays import Array
from rimap.errors import InputError
from rimap.foreground import AUTO, Region, foreground, note_on
from rimap.likelihood import Noise, Rician
from rimap.maps import ParameterMaps, Status, as_plain, as_read_only, by_words, noise_words
from rimap.signals.base import SignalModel
from rimap.signals.model_checks import refuse_contradictions_of_others
from rimap.signals.settings import with_unit
from rimap.slices import view_of

__all__ = ["ParameterMaps", "Status", "WeightedSeries"]

#: The volume of a voxel, in mm³, is larger.
_SINGULAR = 1e-12
#: Of images, N among them.
_MOST_AXES = 4


@dataclass(frozen=True, eq=False)
class WeightedSeries:
    """A series of weighted images with all that an estimator needs to know of them.

    Parameters
    ----------
    images
        (N, *X), one, two or three spatial axes: a NumPy array, a torch tensor, a list of N of them, or of N nibabel
        images; also one nibabel image (X, Y, Z, N), which brings its affine. Kept as a NumPy array. Integers become
        float32. A few NaN or Inf voxels are allowed. Neighbours in the array are neighbours in space: smooth fields and
        networks use them. For a list of voxels in any order, use `NLLS`.
    model
        The signal model with its N times.
    noise
        `Gaussian(…)` (the default) or `Rician(…)`, with σ in the unit of the images or without.
    mask
        (*X), non-zero where maps are wanted; everywhere if left out. An array, a tensor or a nibabel image; ``"auto"``
        for the voxels with signal (`rimap.foreground`).
    affine
        (4, 4), voxel to world, mm; or a nibabel image that has it.
    source
        The file or folder that the series was read from, for messages and sidecars.
    notes
        What the user should know about how the series was read, in plain words.
    given
        Parameters that are known and not estimated, by name: a number, or a map (*X) as an array, a tensor or a nibabel
        image, in the unit of the parameter. A measured B1 map is the usual one.
    denoised
        How the images were denoised (`rimap.denoise`), "" if they were not. Their σ is that before denoising.

    Raises
    ------
    InputError
        If the shapes do not fit the model, no value is finite or all are zero, the mask is empty, a nibabel mask has
        another affine, or signed images have a Rician likelihood.
    """

    images: Any
    model: SignalModel
    noise: Noise | None = None
    mask: Any = None
    affine: Any = None
    source: str = ""
    notes: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    denoised: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.model, SignalModel):
            raise _other_kind("model", "InversionRecovery(tau=[50, 400, 1100])", self.model)
        refuse_contradictions_of_others(self.model)
        if self.noise is not None and not isinstance(self.noise, Noise):
            raise _other_kind("noise", "Rician()", self.noise)
        images, own = images_and_affine(self.images)
        affine = affine_of(self.affine) if is_nibabel(self.affine) else self.affine
        affine = own if affine is None else volume(affine, None, "affine").astype(float)
        if affine is not None and affine.shape != (4, 4):
            raise InputError(f"affine: expected a matrix of 4×4, got the shape {affine.shape}.")
        if affine is not None and not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > _SINGULAR):
            raise InputError(
                "affine: expected a matrix that can be inverted, got a singular one. Leave it out if it is not known."
            )
        images = _checked_images(images, self.model)
        X = images.shape[1:]
        mask, told = _checked_mask(self.mask, images, affine)
        noise = None if self.noise is None else _checked_noise(self.noise, self.model, affine, X)
        given = MappingProxyType(checked_given(self.given, self.model, affine, X))
        checked = {"images": images, "mask": mask, "affine": affine, "noise": noise, "given": given}
        for name, value in (checked | {"notes": (*self.notes, *told)}).items():
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return as_plain(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(as_read_only(state))

    @property
    def shape(self) -> tuple[int, ...]:
        """X, the spatial shape."""
        return tuple(self.images.shape[1:])

    @property
    def selected(self) -> NDArray[np.bool_]:
        """The mask (*X), all true if there is none."""
        return np.ones(self.shape, bool) if self.mask is None else self.mask

    @property
    def sigma_source(self) -> str:
        """The origin of a σ that comes with the series: given, or estimated from the images before denoising."""
        return "images before denoising" if self.denoised else "given"

    @property
    def held(self) -> dict[str, float | NDArray[np.float64]]:
        """The known parameters by name: given maps and numbers, and defaults of those that the model takes as given."""
        known = {
            parameter.name: parameter.start
            for parameter in self.model.parameters
            if parameter.given and parameter.start is not None
        }
        return known | dict(self.given)

    @property
    def voxel_size(self) -> tuple[float, ...]:
        """Edge lengths of a voxel along the spatial axes, mm; 1 where no affine is known."""
        if self.affine is None:
            return (1.0,) * len(self.shape)
        size = tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return (size + (1.0,) * len(self.shape))[: len(self.shape)]

    def with_noise(self, noise: Noise) -> WeightedSeries:
        """Return the same series with another noise."""
        return replace(self, noise=noise)

    def subset(self, keep: Array) -> WeightedSeries:
        """Return the series of the images `keep`: their indices, or one truth value for each image."""
        keep = indices_of_images(keep, self.model.n_images)
        return replace(self, images=self.images[keep], model=self.model.subset(keep))

    def _facts(self) -> list[str]:
        """Return what is worth saying of it, in words."""
        t, axis = self.model.times, self.model.axis
        size = "" if self.affine is None else f", {by_words(self.voxel_size)} mm"
        return [
            f"{self.model.n_images} images of {by_words(self.shape)} voxels{size}",
            f"{self.model.title}, {axis.symbol} {t.min():g} to {with_unit(t.max(), axis.unit)}",
            "noise level not given" if self.noise is None else noise_words(self.noise, self.selected),
            "no mask" if self.mask is None else f"mask of {int(self.mask.sum()):,} voxels",
        ]

    @property
    def described(self) -> Region:
        """The voxels that figures describe: those of the mask, else the foreground of the images."""
        return Region.found(foreground(self.images)) if self.mask is None else Region.of_mask(self.selected)

    def __repr__(self) -> str:
        """Return a line for people."""
        return f"WeightedSeries({'; '.join([*self._facts(), *([self.source] if self.source else [])])})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the first, a middle and the last image, and the facts."""
        view = view_of(self.affine, self.selected, limit=3)
        order = np.argsort(self.model.times, kind="stable")
        chosen = order[np.unique(np.linspace(0, len(order) - 1, 4).astype(int))]
        values = np.stack([view.picture(self.images[n], view.middle) for n in chosen])
        low = None if (values[np.isfinite(values)] < 0).any() else 0.0
        window = colours.window(values, low=low, upper=0.995)
        scale, times = notebook_card.Scale(window), self.model.times
        pictures = [
            notebook_card.picture(self.images[n], view, view.middle, scale, self.model.axis.text(times[n]), edge=130)
            for n in chosen
        ]
        return notebook_card.card("WeightedSeries", self.source, pictures, [], [*self._facts(), *self.notes])


def _other_kind(name: str, example: str, value: object) -> InputError:
    what = f"the class {value.__name__}" if isinstance(value, type) else shown(value)
    return InputError(f"{name}: expected an object such as rimap.{example}, got {what}.")


def _checked_images(images: NDArray[Any], model: SignalModel) -> NDArray[Any]:
    """Return the images (N, *X) in a floating-point type of this machine.

    Raises
    ------
    InputError
        For another shape or type, and if no value is finite or none differs from zero.
    """
    N = model.n_images
    if images.dtype.kind not in REAL:
        raise InputError(
            f"images must be real numbers; their type is {images.dtype}. Take the magnitude or the real part."
        )
    if images.ndim < 2 or images.shape[0] != N:
        last = images.ndim > 1 and images.shape[-1] == N
        raise InputError(
            f"images: expected {N} images along the first axis, (N, *X), one for each {model.axis.title}, got the "
            f"shape {images.shape}. "
            + (
                "Move the last axis first: numpy.moveaxis(images, -1, 0)."
                if last
                else "Check that no image or value is missing."
            )
        )
    if images.ndim > _MOST_AXES:
        raise InputError(
            f"images: expected at most three spatial axes, (N, X, Y, Z), got the shape {images.shape}. Map the volumes "
            "one at a time."
        )
    if not all(images.shape):
        raise InputError(f"images of shape {images.shape} hold no voxel.")
    images = images.astype(images.dtype.newbyteorder("="), copy=False)
    if images.dtype not in (np.float32, np.float64):
        images = images.astype(np.float32 if images.dtype.itemsize <= 2 else np.float64)
    if not any(np.isfinite(image).any() for image in images):
        raise InputError("no value of the images is finite (all NaN or Inf). Check the file and its scaling.")
    if not any(image.any() for image in images):
        raise InputError("all images are zero. Check the file and its scaling.")
    return images


def _checked_mask(mask: Any, images: NDArray[Any], affine: Any) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Return a mask (*X) as it was given, or the foreground, and notes on how it was found; `None` without one.

    Raises
    ------
    InputError
        For another word than ``"auto"``, another shape than that of the images, and an empty mask.
    """
    if mask is None:
        return None, ()
    if isinstance(mask, str):
        if mask != AUTO:
            raise InputError(
                f"mask: expected an array, a nibabel image or {AUTO!r}, got {mask!r}. Read files with rimap.read."
            )
        inside = foreground(images)
        return inside, (note_on(inside),)
    values, X = volume(mask, affine, "the mask"), images.shape[1:]
    if values.shape != X:
        raise InputError(
            f"mask: expected the shape of the images {X}, got {values.shape}. Resample the mask to the images."
        )
    threshold = threshold_of(values)
    inside = selection(values, threshold)
    if not inside.any():
        raise InputError(f"mask: {why_empty(threshold)}")
    return inside, tuple(notes_on_mask(values, threshold))


def _checked_noise(noise: Noise, model: SignalModel, affine: Any, X: tuple[int, ...]) -> Noise:
    """Return the noise with σ as a number or a map (*X).

    Raises
    ------
    InputError
        For Rician noise of signed images, and for a map of σ of another shape.
    """
    if isinstance(noise, Rician) and model.is_signed:
        raise InputError(
            "the Rician likelihood is for magnitude images; these are signed (part-real). Use Gaussian noise, "
            "or the modulus of the images with signed=False."
        )
    if noise.sigma is not None and not isinstance(noise.sigma, (float, np.ndarray)):
        noise = type(noise)(sigma=volume(noise.sigma, affine, "the map of sigma"))
    if np.ndim(noise.sigma) and np.shape(noise.sigma) != X:
        raise InputError(f"map of sigma: expected the shape of the images {X}, got {np.shape(noise.sigma)}.")
    return noise


def checked_given(
    given: Mapping[str, Any], model: SignalModel, affine: Array, X: tuple[int, ...]
) -> dict[str, float | NDArray[np.float64]]:
    """Return given parameters by name, each as a number, or as a map (*X) that is NaN where it is not known.

    A map without any value is accepted: it may be a part of a map that has values elsewhere.

    Raises
    ------
    InputError
        For a name that the model does not have as a given parameter, values that are no real numbers or out of range,
        and a map of another shape.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"given: expected values by name, as in {{'B1': 0.9}}, got {given!r}.")
    return {name: _given(model, name, value, affine, X) for name, value in given.items()}


def _given(model: SignalModel, name: str, value: Any, affine: Any, X: tuple[int, ...]) -> float | NDArray[np.float64]:
    possible = [parameter.name for parameter in model.nonlinear if parameter is not model.time]
    if name not in possible:
        raise InputError(
            f"given: expected {' or '.join(possible) or 'nothing'} for {model.title.lower()}, got {name!r}."
        )
    p = model.parameters[model.index(name)]
    found = volume(value, affine, f"given {name}").astype(float)
    if found.ndim and found.shape != X:
        raise InputError(
            f"the map of {name}: expected the shape of the images {X}, got {found.shape}. Resample it to the images."
        )
    low, high = p.bounds
    inside = (low <= found) & (found <= high)
    known = found[np.isfinite(found)]
    known = known[known != 0] if (known != 0).any() else known  # zeros among others: nothing was measured there
    middle = float(np.median(known)) if known.size else np.nan
    nothing = found.ndim and np.isnan(found).all()
    if not nothing and not low <= middle <= high:
        raise InputError(
            f"given {name}: expected values of {low:g} to {high:g} {'' if p.unit == '1' else p.unit}".rstrip()
            + f", got a median of {middle:g}. Check the unit."
        )
    return float(found) if found.ndim == 0 else np.where(inside, found, np.nan)
