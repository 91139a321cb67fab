"""What comes out of an estimator: parameter maps with their standard deviations and a quality flag for each voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import notebook_card
from rimap.advice import notes_of, warnings_of
from rimap.arrays import at_most
from rimap.correlation import NoiseCorrelation
from rimap.derived import depends_on, derived_map, derived_sd
from rimap.foreground import HOW_OF_MAPS, Region, foreground
from rimap.likelihood import Noise
from rimap.map_display import is_relaxation, name_of, palette_of, quantities_of, quantity, values_of, window_of
from rimap.signals.base import Derived, SignalModel, Values
from rimap.signals.settings import unit_symbol
from rimap.slices import slice_number, view_of

#: Images are predicted in so many voxels at once.
_AT_ONCE = 65_536


class Status(IntEnum):
    """Quality flag of a voxel."""

    OK = 0
    AT_BOUND = 1
    NO_SIGNAL = 2
    NOT_FINITE = 3
    NOT_CONVERGED = 4
    OUTSIDE_TRAINING = 5
    OUTSIDE_MASK = 6
    OFF_MODEL = 7

    @property
    def meaning(self) -> str:
        """One plain sentence."""
        return _MEANING[self]


#: Each quality flag in words, for people.
_MEANING = {
    Status.OK: "estimated",
    Status.AT_BOUND: "at a bound of the parameter box: the value is kept, it has no standard deviation",
    Status.NO_SIGNAL: "background, no signal above the noise: no value",
    Status.NOT_FINITE: "NaN, Inf or a missing or clipped value in an image: no value",
    Status.NOT_CONVERGED: "the iterations did not converge: the value is kept, do not rely on it",
    Status.OUTSIDE_TRAINING: "outside what the network was trained for: the value is kept, do not rely on it",
    Status.OUTSIDE_MASK: "outside the mask: no value",
    Status.OFF_MODEL: "does not follow the model, beyond what noise explains: the value is kept, do not rely on it",
}


def has(status: NDArray[np.uint8], these: Sequence[Status]) -> NDArray[np.bool_]:
    """Return where (*X) a status is one of some."""
    found = status == int(these[0])  # of a Status, NumPy would compare wider integers
    for one in these[1:]:
        found |= status == int(one)
    return np.asarray(found)


class _Named(Mapping[str, NDArray[Any]]):
    """Maps (*X) by the names of parameters, then of derived maps; each is made when it is asked for."""

    def __init__(self, model: SignalModel, values: NDArray[Any], derived: Callable[[Derived], NDArray[Any]]) -> None:
        self._model, self._values, self._derived = model, values, derived

    def __getitem__(self, name: str) -> NDArray[Any]:
        names = [parameter.name for parameter in self._model.parameters]
        if name in names:
            return np.asarray(self._values[names.index(name)])
        for d in self._model.derived:
            if d.name == name:
                return self._derived(d)
        raise KeyError(f"no map {name!r}: {self._model.title} has {', '.join(self)}")

    def __contains__(self, name: object) -> bool:
        return name in list(self)  # without making the map

    def __iter__(self) -> Iterator[str]:
        yield from (parameter.name for parameter in self._model.parameters)
        yield from (d.name for d in self._model.derived)

    def __len__(self) -> int:
        return len(self._model.parameters) + len(self._model.derived)


@dataclass(frozen=True, eq=False)
class ParameterMaps(Mapping[str, NDArray[Any]]):
    """The maps of an estimator: ``maps["T1"]`` (*X) in ms, ``maps.sd["T1"]``, ``maps.status``.

    Iteration gives the names of the parameters, then of the derived maps. Maps can be copied and pickled.

    Parameters
    ----------
    kappa
        (Q, *X) in the order of `model.parameters`; NaN if there is no answer.
    model
        The signal model that was fitted.
    status
        (*X), values of `Status`.
    sd_kappa
        (Q, *X) standard deviations, of which `sd_source` says what they are; NaN where unknown.
    covariance
        (Q (Q + 1)/2, *X): the upper triangle of each voxel's covariance of κ, row by row (for Q = 3: AA, AB, AT, BB,
        BT, TT); NaN where unknown. Estimators fill it for models with derived maps, whose standard deviations need it.
    sd_derived
        Standard deviations of derived maps (*X) by name, if they are known otherwise than from `covariance`: from
        files.
    residual
        (*X) root mean square of S − f over the images, in their unit.
    noise
        The noise with the σ that was used.
    sigma_source
        Origin of σ: ``given``, ``residuals``, ``background``.
    estimator, settings
        Its name and its options, for sidecars and reports.
    warnings
        What the user should know, in plain words, the most important first (`rimap.advice`).
    correlation
        How the noise of neighbouring voxels is correlated, measured from residuals; `None` if that is not known.
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
    sd_derived: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    correlation: NoiseCorrelation | None = None

    def __post_init__(self) -> None:
        for name in ("settings", "sd_derived"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __getstate__(self) -> dict[str, Any]:
        return as_plain(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(as_read_only(state))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._named[name]

    def __contains__(self, name: object) -> bool:
        return name in self._named

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    @property
    def _named(self) -> _Named:
        return _Named(self.model, self.kappa, lambda d: derived_map(self.model, d, self.kappa))

    @property
    def sd(self) -> Mapping[str, NDArray[Any]]:
        """Standard deviations by name; NaN throughout where the estimator gives none.

        Those of derived maps follow by the delta method from `covariance`. Without it they are known only if the
        formula depends on one parameter.
        """
        values = np.full_like(self.kappa, np.nan) if self.sd_kappa is None else self.sd_kappa
        return _Named(self.model, values, self._sd_of_derived)

    def has_sd(self, name: str) -> bool:
        """Return whether the standard deviation of a map is known in some voxels, without making that map."""
        derived = next((d for d in self.model.derived if d.name == name), None)
        if derived is None:
            return self.sd_kappa is not None and name in self.sd
        if name in self.sd_derived or self.covariance is not None:
            return True
        return self.sd_kappa is not None and len(depends_on(self.model, derived)) == 1

    def _sd_of_derived(self, what: Derived) -> NDArray[Any]:
        if what.name in self.sd_derived:
            return np.asarray(self.sd_derived[what.name])
        return derived_sd(self.model, what, self.kappa, self.sd_kappa, self.covariance)

    def signal(self, values: Values | None = None, /, **settings: Any) -> NDArray[Any]:
        """Return the images (N, *X) that the maps predict, for the settings of the model or for others.

        Parameters
        ----------
        values
            Of the axis of the model (its times), one for each image; one is enough.
        settings
            Any settings by name, in their units.

        Raises
        ------
        InputError
            For settings that the model does not have or cannot have.

        Examples
        --------
        >>> from rimap import NLLS, T2Decay, WeightedSeries
        >>> model = T2Decay(tau=[10, 20, 40, 80])
        >>> images = model.signal(np.array([100.0, 50.0])[:, None, None] * np.ones((2, 4, 4)))
        >>> maps = NLLS(threads=1).estimate(WeightedSeries(images, model))
        >>> maps.signal([5, 60])[:, 0, 0].round(2)
        array([90.48, 30.12])
        """
        changed = dict(settings) if values is None else {self.model.axis.name: values, **settings}
        return np.asarray(self.model.with_settings(**changed).signal(self.kappa))

    @property
    def sd_source(self) -> str:
        """What the standard deviations are: the Cramér-Rao bound at the estimate, a network's own, or its bootstrap."""
        draws = self.settings.get("sd_draws")
        if self.settings.get("sd_from") == "network":
            return "expected error, an output of the network"
        if self.settings.get("denoise"):
            return "Cramér-Rao bound, scaled to the error after denoising"
        return f"parametric bootstrap, {draws} draws" if draws else "Cramér-Rao bound"

    def count(self) -> dict[Status, int]:
        """Return the number of voxels of each status that occurs."""
        values, counts = np.unique(self.status, return_counts=True)
        return {Status(int(value)): int(count) for value, count in zip(values, counts)}

    @property
    def described(self) -> Region:
        """The voxels that figures describe, if the images are not there: the mask, else the foreground of the predicted
        images.

        Their power is that of the signal of the maps and of the residual; a voxel without a value has none.
        """
        selected = np.asarray(self.status != Status.OUTSIDE_MASK)
        if not selected.all():
            return Region.of_mask(selected)
        estimated = np.isfinite(self.kappa).all(0)
        at, power = np.flatnonzero(estimated), np.zeros(estimated.size)
        kappa = self.kappa.reshape(len(self.kappa), -1)
        for index in range(0, len(at), _AT_ONCE):
            some = at[index : index + _AT_ONCE]
            power[some] = np.square(self.model.signal(np.asarray(kappa[:, some], float))).mean(0)
        if self.residual is not None:
            power += np.nan_to_num(np.square(self.residual, dtype=float)).reshape(-1)
        return Region.found(foreground(np.sqrt(power).reshape(1, *estimated.shape)), HOW_OF_MAPS)

    def typical(self) -> NDArray[np.intp]:
        """Return flat indices of voxels that figures are about, at most 100,000, evenly over the volume.

        Those that are estimated or at a bound, and where σ is known have a signal above 3σ (root mean square over the
        images): air has values too, and would set window and medians.
        """
        use = np.flatnonzero(np.isin(self.status, (Status.OK, Status.AT_BOUND)))
        use = at_most(use, 100_000)
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
        use, rows, n = self.typical(), [], notebook_card.significant
        for q in quantities_of(self.model):
            values = values_of(q, self.model, self).reshape(-1)[use]
            deviation = self.sd[q.name].reshape(-1)[use] if q.name in self.sd else np.full_like(values, np.nan)
            unit = unit_symbol(q.unit)
            if not np.isfinite(values).any():
                rows.append((name_of(q), "–", "–", "–"))
                continue
            low, middle, high = (float(x) for x in np.nanquantile(values, (0.25, 0.5, 0.75)))
            median_sd = float(np.nanmedian(deviation)) if np.isfinite(deviation).any() else float("nan")
            rows.append((name_of(q), f"{n(middle)} {unit}".rstrip(), f"{n(low)} to {n(high)}", n(median_sd)))
        return rows

    def _counts(self) -> str:
        return ", ".join(f"{s.name.lower().replace('_', ' ')} {value:,}" for s, value in self.count().items())

    def __repr__(self) -> str:
        """Return a line for people: medians with units, and how many voxels have which status."""
        medians = ", ".join(f"{name} {median}" for name, median, *_ in self._rows())
        return (
            f"ParameterMaps({self.estimator}; {by_words(self.status.shape)} voxels; medians {medians}; "
            f"{self._counts()})"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: slices of the main map, medians, quality flags, warnings."""
        q = self.model.main
        values, unit = values_of(q, self.model, self), unit_symbol(q.unit)
        label = f"{name_of(q)} in {unit}" if unit else name_of(q)
        pictures, shown = [], np.isfinite(self.kappa).all(0)
        if shown.any():
            view = view_of(self.affine, shown, limit=3)
            scale = notebook_card.Scale(self.window(q.name), palette_of(q), logarithmic=is_relaxation(q))
            pictures = [
                notebook_card.picture(values, view, slice_, scale, f"{label}, slice {slice_number(slice_)}", bar=True)
                for slice_ in view.slices
            ]
        rows = [("", "median", "quartiles", "median SD"), *self._rows()]
        inside = self.status != Status.OUTSIDE_MASK
        noise = [] if self.noise is None else [f"{noise_words(self.noise, inside)} ({self.sigma_source})"]
        notes = [
            f"Voxels: {self._counts()}",
            *noise,
            *(f"Warning: {w}" for w in warnings_of(self.warnings)),
            *notes_of(self.warnings),
        ]
        about = f"{self.estimator}, {by_words(self.status.shape)} voxels"
        return notebook_card.card("ParameterMaps", about, pictures, rows, notes)


def by_words(sizes: Sequence[float]) -> str:
    return " × ".join(f"{size:.3g}" if isinstance(size, float) else str(size) for size in sizes)


def noise_words(noise: Noise, where: NDArray[np.bool_]) -> str:
    if noise.sigma is None:
        return f"{type(noise).__name__} noise"
    return f"{type(noise).__name__} noise, σ {notebook_card.significant(noise.typical_sigma(where))}"


def as_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object with dictionaries for read-only views, which cannot be copied or pickled."""
    return {name: dict(value) if isinstance(value, MappingProxyType) else value for name, value in state.items()}


def as_read_only(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object with read-only views for dictionaries: the inverse of `as_plain`."""
    return {name: MappingProxyType(value) if isinstance(value, dict) else value for name, value in state.items()}
