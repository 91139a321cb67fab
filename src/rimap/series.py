"""What goes into an estimator (`WeightedSeries`) and what comes out (`ParameterMaps`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import card, colours
from rimap.errors import InputError
from rimap.foreign import images_and_affine, volume
from rimap.likelihood import Noise, Rician
from rimap.quantities import is_relaxation, name_of, palette_of, quantities_of, quantity, values_of, window_of
from rimap.signals.base import SignalModel
from rimap.signals.settings import unit_symbol, with_unit
from rimap.slices import view_of


class Status(IntEnum):
    """What became of a voxel."""

    OK = 0
    AT_BOUND = 1
    NO_SIGNAL = 2
    NOT_FINITE = 3
    NOT_CONVERGED = 4
    OUTSIDE_TRAINING = 5
    OUTSIDE_MASK = 6

    @property
    def meaning(self) -> str:
        """One plain sentence."""
        return _MEANING[self]


_MEANING = {
    Status.OK: "estimated",
    Status.AT_BOUND: "at a bound of the parameter box: the value is kept, it has no standard deviation",
    Status.NO_SIGNAL: "no signal: no value",
    Status.NOT_FINITE: "NaN or Inf in the images: no value",
    Status.NOT_CONVERGED: "the iterations did not converge: the value is kept, do not rely on it",
    Status.OUTSIDE_TRAINING: "outside what the network was trained for: the value is kept, do not rely on it",
    Status.OUTSIDE_MASK: "outside the mask: no value",
}


@dataclass(frozen=True, eq=False)
class WeightedSeries:
    """A series of weighted images with all that an estimator needs to know of them.

    Parameters
    ----------
    images
        (N, *X), one, two or three spatial axes: a NumPy array, a torch tensor, a list of N of them, or of N nibabel
        images; also one nibabel image (X, Y, Z, N), which brings its affine. Kept as a NumPy array. Integers become
        float32. A few NaN or Inf voxels are allowed.
    model
        The signal model with its N times.
    noise
        `Gaussian(…)` (the default) or `Rician(…)`, with σ in the unit of the images or without.
    mask
        (*X), non-zero where maps are wanted; everywhere if left out. An array, a tensor or a nibabel image.
    affine
        (4, 4), voxel to world, mm; or a nibabel image that has it.
    source
        What it was read from, for messages and sidecars.
    notes
        What the user should know of how it was read, in plain words.
    given
        Parameters that are known and not estimated, by name: a number, or a map (*X) as an array, a tensor or a nibabel
        image, in the unit of the parameter. A measured B1 map is the usual one.

    Raises
    ------
    InputError
        Where the shapes do not fit the model, nothing is finite or nothing differs from zero, the mask is empty, a
        nibabel mask lies elsewhere, or the Rician likelihood meets signed data.
    """

    images: Any
    model: SignalModel
    noise: Noise | None = None
    mask: Any = None
    affine: Any = None
    source: str = ""
    notes: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (images, own), N = images_and_affine(self.images), self.model.n_images
        affine = getattr(self.affine, "affine", self.affine)
        affine = own if affine is None else np.asarray(affine, dtype=float)
        if affine is not None and affine.shape != (4, 4):
            raise InputError(f"the affine must be 4×4; its shape is {affine.shape}.")
        if images.dtype.kind not in "fiub":
            raise InputError(
                f"images must be real numbers; their type is {images.dtype}. Take the magnitude or the real part."
            )
        if images.ndim < 2 or images.shape[0] != N:
            last = images.ndim > 1 and images.shape[-1] == N
            raise InputError(
                f"images: expected {N} images along the first axis, (N, *X), one for each {self.model.axis.title}, got the "
                f"shape {images.shape}. "
                + (
                    "Move the last axis first: numpy.moveaxis(images, -1, 0)."
                    if last
                    else "Check that no image or value is missing."
                )
            )
        if not all(images.shape):
            raise InputError(f"images of shape {images.shape} hold no voxel.")
        images = images.astype(images.dtype.newbyteorder("="), copy=False)
        if images.dtype not in (np.float32, np.float64):
            images = images.astype(np.float32 if images.dtype.itemsize <= 2 else np.float64)
        X = images.shape[1:]
        if not any(np.isfinite(image).any() for image in images):
            raise InputError("no value of the images is finite (all NaN or Inf). Check the file and its scaling.")
        if not any(image.any() for image in images):
            raise InputError("all images are zero. Check the file and its scaling.")
        mask = None
        if self.mask is not None:
            mask = volume(self.mask, affine, "the mask")
            if mask.shape != X:
                raise InputError(
                    f"the mask has shape {mask.shape} and the images {X}. Resample the mask to the images."
                )
            mask = np.nan_to_num(mask) != 0 if mask.dtype.kind == "f" else mask != 0
            if not mask.any():
                raise InputError("the mask is empty: no voxel is selected.")
        noise = self.noise
        if noise is not None:
            if isinstance(noise, Rician) and getattr(self.model, "signed", False):
                raise InputError(
                    "the Rician likelihood is for magnitude images; these are signed (part-real). Use Gaussian noise, "
                    "or the modulus of the images with signed=False."
                )
            if noise.sigma is not None and not isinstance(noise.sigma, (float, np.ndarray)):
                noise = type(noise)(sigma=volume(noise.sigma, affine, "the map of sigma"))
            if np.ndim(noise.sigma) and np.shape(noise.sigma) != X:
                raise InputError(f"the map of sigma has shape {np.shape(noise.sigma)} and the images {X}.")
        given = MappingProxyType({k: _given(self.model, k, v, affine, X) for k, v in self.given.items()})
        for name, value in (("images", images), ("mask", mask), ("affine", affine), ("noise", noise), ("given", given)):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """X, the spatial shape."""
        return tuple(self.images.shape[1:])

    @property
    def selected(self) -> NDArray[np.bool_]:
        """The mask (*X), all true where there is none."""
        return np.ones(self.shape, bool) if self.mask is None else self.mask

    @property
    def held(self) -> dict[str, float | NDArray[np.float64]]:
        """What is known, by name of the parameter: the given maps and numbers, and the default of what a model takes as given."""
        known = {p.name: p.start for p in self.model.parameters if p.given and p.start is not None}
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

    def subset(self, keep: Any) -> WeightedSeries:
        """Return the series of the images `keep` (indices)."""
        keep = np.asarray(keep, dtype=int)
        return replace(self, images=self.images[keep], model=self.model.subset(keep))

    def _facts(self) -> list[str]:
        """Return what is worth saying of it, in words."""
        t, axis = self.model.times, self.model.axis
        size = "" if self.affine is None else f", {_by(self.voxel_size)} mm"
        return [
            f"{self.model.n_images} images of {_by(self.shape)} voxels{size}",
            f"{self.model.title}, {axis.symbol} {t.min():g} to {with_unit(t.max(), axis.unit)}",
            "noise level not given" if self.noise is None else _noise_words(self.noise),
            "no mask" if self.mask is None else f"mask of {int(self.mask.sum()):,} voxels",
        ]

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
        pictures = [
            card.picture(
                self.images[n], view, view.middle, window, "grey", self.model.axis.text(self.model.times[n]), edge=130
            )
            for n in chosen
        ]
        return card.card("WeightedSeries", self.source, pictures, [], [*self._facts(), *self.notes])


def _by(sizes: Sequence[float]) -> str:
    return " × ".join(f"{s:.3g}" if isinstance(s, float) else str(s) for s in sizes)


def _noise_words(noise: Noise) -> str:
    if noise.sigma is None:
        return f"{type(noise).__name__} noise"
    return f"{type(noise).__name__} noise, σ {card.significant(float(np.nanmedian(noise.sigma)))}"


def _given(model: SignalModel, name: str, value: Any, affine: Any, X: tuple[int, ...]) -> float | NDArray[np.float64]:
    """Return a given parameter as a number, or as a map (*X) that is NaN where it is not known."""
    possible = [p.name for p in model.nonlinear if p is not model.time]
    if name not in possible:
        raise InputError(
            f"given: expected {' or '.join(possible) or 'nothing'} for {model.title.lower()}, got {name!r}."
        )
    p = model.parameters[model.index(name)]
    found = np.asarray(value, dtype=float) if np.ndim(value) == 0 and not hasattr(value, "dataobj") else None
    if found is None:
        found = np.asarray(volume(value, affine, f"the map of {name}"), dtype=float)
        if found.shape != X:
            raise InputError(
                f"the map of {name}: expected the shape of the images {X}, got {found.shape}. Resample it to the images."
            )
    low, high = p.bounds
    inside = (low <= found) & (found <= high)
    if not inside.any():
        middle = float(np.nanmedian(found)) if np.isfinite(found).any() else np.nan
        raise InputError(
            f"given {name}: expected values of {low:g} to {high:g} {'' if p.unit == '1' else p.unit}".rstrip()
            + f", got a median of {middle:g}. Check the unit."
        )
    return float(found) if found.ndim == 0 else np.where(inside, found, np.nan)


class _Named(Mapping[str, NDArray[Any]]):
    """Maps (Q, *X) by parameter name."""

    def __init__(self, model: SignalModel, values: NDArray[Any]) -> None:
        self._model, self._values = model, values

    def __getitem__(self, name: str) -> NDArray[Any]:
        names = [p.name for p in self._model.parameters]
        if name not in names:
            raise KeyError(f"no map {name!r}: {self._model.title} has {', '.join(names)}")
        return np.asarray(self._values[names.index(name)])

    def __iter__(self) -> Iterator[str]:
        return (p.name for p in self._model.parameters)

    def __len__(self) -> int:
        return len(self._model.parameters)


@dataclass(frozen=True, eq=False)
class ParameterMaps(Mapping[str, NDArray[Any]]):
    """The maps of an estimator: ``maps["T1"]`` (*X) in ms, ``maps.sd["T1"]``, ``maps.status``.

    Parameters
    ----------
    kappa
        (Q, *X) in the order of `model.parameters`; NaN where there is no answer.
    model
        The signal model that was fitted.
    status
        (*X), values of `Status`.
    sd_kappa
        (Q, *X) standard deviations, of which `sd_source` says what they are; NaN where unknown.
    covariance
        (Q (Q + 1)/2, *X): the upper triangle of each voxel's covariance of κ, row by row (for Q = 3: AA, AB, AT, BB, BT,
        TT); NaN where unknown. Estimators fill it for models with derived maps, whose standard deviations need it.
    residual
        (*X) root mean square of S − f over the images, in their unit.
    noise
        The noise with the σ that was used.
    sigma_source
        Where that σ came from: ``given``, ``residuals``, ``background``.
    estimator, settings
        Its name and its options, for sidecars and reports.
    warnings
        What the user should know, in plain words.
    """

    kappa: NDArray[Any]
    model: SignalModel
    status: NDArray[np.uint8]
    sd_kappa: NDArray[Any] | None = None
    residual: NDArray[Any] | None = None
    noise: Noise | None = None
    sigma_source: str = "given"
    estimator: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    affine: NDArray[Any] | None = None
    covariance: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return _Named(self.model, self.kappa)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_Named(self.model, self.kappa))

    def __len__(self) -> int:
        return len(self.model.parameters)

    @property
    def sd(self) -> Mapping[str, NDArray[Any]]:
        """Standard deviations by parameter name; NaN throughout where the estimator gives none."""
        values = np.full_like(self.kappa, np.nan) if self.sd_kappa is None else self.sd_kappa
        return _Named(self.model, values)

    @property
    def sd_source(self) -> str:
        """What the standard deviations are: the Cramér-Rao bound at the estimate, a network's own, or its bootstrap."""
        draws = self.settings.get("sd_draws")
        if self.settings.get("sd_from") == "network":
            return "expected error, an output of the network"
        return f"parametric bootstrap, {draws} draws" if draws else "Cramér-Rao bound"

    def count(self) -> dict[Status, int]:
        """Return the number of voxels of each status that occurs."""
        values, counts = np.unique(self.status, return_counts=True)
        return {Status(int(v)): int(c) for v, c in zip(values, counts)}

    def typical(self) -> NDArray[np.intp]:
        """Return flat indices of voxels that figures are about, at most 100,000, evenly over the volume.

        Those that are estimated or at a bound, and where σ is known have a signal above 3σ (root mean square over the
        images): air has values too, and would set window and medians.
        """
        use = np.flatnonzero(np.isin(self.status, (Status.OK, Status.AT_BOUND)))
        use = use[:: -(-len(use) // 100_000) or 1]
        if not len(use) or self.noise is None or self.noise.sigma is None:
            return use
        sigma = self.noise.sigma if np.ndim(self.noise.sigma) == 0 else np.asarray(self.noise.sigma).reshape(-1)[use]
        f = self.model.signal(np.asarray(self.kappa.reshape(len(self.kappa), -1)[:, use], dtype=float))
        bright = np.sqrt((f**2).mean(0)) > 3 * sigma
        return use[bright] if bright.any() else use

    def window(self, name: str) -> tuple[float, float]:
        """Return least and greatest value to show a map with: contrast for tissue rather than for fluid."""
        q = quantity(self.model, name)
        if q is None:
            raise KeyError(f"no map {name!r}: {self.model.title} has {', '.join(self)}")
        return window_of(q, values_of(q, self.model, self).reshape(-1)[self.typical()])

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """Return name, median, quartiles and median standard deviation of each map, with units."""
        use, rows, n = self.typical(), [], card.significant
        for q in quantities_of(self.model):
            values = values_of(q, self.model, self).reshape(-1)[use]
            sd = self.sd[q.name].reshape(-1)[use] if q.name in self.sd else np.full_like(values, np.nan)
            unit = unit_symbol(q.unit)
            if not np.isfinite(values).any():
                rows.append((name_of(q), "–", "–", "–"))
                continue
            low, middle, high = (float(x) for x in np.nanquantile(values, (0.25, 0.5, 0.75)))
            median_sd = float(np.nanmedian(sd)) if np.isfinite(sd).any() else float("nan")
            rows.append((name_of(q), f"{n(middle)} {unit}".rstrip(), f"{n(low)} to {n(high)}", n(median_sd)))
        return rows

    def _counts(self) -> str:
        return ", ".join(f"{s.name.lower().replace('_', ' ')} {n:,}" for s, n in self.count().items())

    def __repr__(self) -> str:
        """Return a line for people: medians with units, and how many voxels have which status."""
        medians = ", ".join(f"{name} {median}" for name, median, *_ in self._rows())
        return f"ParameterMaps({self.estimator}; {_by(self.status.shape)} voxels; medians {medians}; {self._counts()})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: slices of the main map, medians, quality flags, warnings."""
        q = self.model.main
        values, unit = values_of(q, self.model, self), unit_symbol(q.unit)
        label = f"{name_of(q)} in {unit}" if unit else name_of(q)
        pictures, shown = [], np.isfinite(self.kappa).all(0)
        if shown.any():
            view = view_of(self.affine, shown, limit=3)
            pictures = [
                card.picture(
                    values,
                    view,
                    k,
                    self.window(q.name),
                    palette_of(q),
                    f"{label}, slice {k}",
                    log=is_relaxation(q),
                    bar=True,
                )
                for k in view.slices
            ]
        rows = [("", "median", "quartiles", "median SD"), *self._rows()]
        noise = [] if self.noise is None else [f"{_noise_words(self.noise)} ({self.sigma_source})"]
        notes = [f"Voxels: {self._counts()}", *noise, *(f"Warning: {w}" for w in self.warnings)]
        about = f"{self.estimator}, {_by(self.status.shape)} voxels"
        return card.card("ParameterMaps", about, pictures, rows, notes)
