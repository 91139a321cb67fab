"""What a signal model is: an amplitude times a shape, S = A · g(T, F), declared in one file.

A model says once what the scanner was set to (`setting` fields), what is estimated (`Parameter`), and the shape g: the
signal for A = 1. Reading, writing, the command line, the estimators, the report and the training follow from it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, derivative, floating, is_torch, namespace
from rimap.errors import InputError, count_of
from rimap.signals.model_options import BOX, POLARITY
from rimap.signals.scan_cycle import Cycle
from rimap.signals.settings import Setting, Values, setting, settings_of

__all__ = ["Cycle", "Derived", "FieldPrior", "Parameter", "Setting", "SignalModel", "Values", "setting"]

#: Roles of parameters. Estimators read roles and never names.
AMPLITUDE, TIME, FIELD = "amplitude", "time", "field"
#: How a field is treated: smooth over the image, known, or free in each voxel.
SMOOTH, GIVEN, FREE = "smooth", "given", "free"


@dataclass(frozen=True)
class FieldPrior:
    """What a field is like in a scan: training and simulation draw it from this, and searches for it use it.

    Parameters
    ----------
    mean
        The least and the greatest mean over an image.
    spread
        Standard deviation within an image around its mean, relative: the least and the greatest.
    typical
        The value where nothing determines it. The default is the middle of `mean`.
    sd
        Standard deviation over all voxels of all scans, in the unit of the field: the step of a search, and what a
        change of the field is measured in. The default follows from `mean` and `spread`.
    """

    mean: tuple[float, float]
    spread: tuple[float, float] = (0.0, 0.1)
    typical: float | None = None
    sd: float | None = None

    @property
    def middle(self) -> float:
        """`typical`, or its default."""
        return sum(self.mean) / 2 if self.typical is None else self.typical

    @property
    def deviation(self) -> float:
        """`sd`, or its default: that of a uniform mean and of the spread around it."""
        if self.sd is not None:
            return self.sd
        return float(np.hypot((self.mean[1] - self.mean[0]) / 12**0.5, self.spread[1] * self.middle))


@dataclass(frozen=True)
class Parameter:
    """One parameter of a voxel.

    Parameters
    ----------
    name
        The paper's letter or the field's term: ``A``, ``B``, ``T1``, ``B1``.
    unit
        ``ms``, ``a.u.`` (that of the images) or ``1``.
    bounds
        The box in which it is estimated, in `unit`; the upper one of an amplitude may be infinite.
    role
        ``amplitude`` (linear), ``time`` (the relaxation time that is wanted), or ``field`` (a property of the scan: B,
        B1).
    treatment
        Of a field: ``smooth`` (it varies slowly in space, Eq. 2), ``given`` (a map, or `start` everywhere), or ``free``
        (in every voxel by itself). Amplitudes and the time are free.
    transform
        ``log`` or ``linear``: the scale on which its errors are alike. The default is ``log`` for the time.
    start
        Where an iteration starts (in `unit`), and the value of a given field without a map. The default is the middle
        of the box on the scale of `transform`.
    suffix
        BIDS suffix of its map, or `None` if BIDS has none.
    prior
        Of a field: what it is like in a scan.
    tissue
        The tissue property whose table (`rimap.simulation.tissues`) it is drawn from to simulate scans: ``T1``, ``T2``
        or ``T2star``. The default is its name.
    search
        The range of a coarse search for a start, in `unit`. The default is the box, and for a field the means of its
        `prior`.
    meaning
        What it is, in a few words, for the table of parameters.
    physical
        The range that a scan can have, in `unit`, if it is narrower than the box: values beyond it are reported.
    if_unphysical
        What to ask if they are.
    usual
        The range of the median over an object in most scans, in `unit`, if it is narrower than `physical`.
    if_unusual
        What that may mean, and what to do.
    """

    name: str
    unit: str
    bounds: tuple[float, float]
    role: str
    treatment: str = FREE
    transform: str = ""
    start: float | None = None
    suffix: str | None = None
    prior: FieldPrior | None = None
    tissue: str = ""
    search: tuple[float, float] | None = None
    meaning: str = ""
    physical: tuple[float, float] | None = None
    if_unphysical: str = ""
    usual: tuple[float, float] | None = None
    if_unusual: str = ""

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("role", self.role, (AMPLITUDE, TIME, FIELD)),
            ("treatment", self.treatment, (SMOOTH, GIVEN, FREE)),
            ("transform", self.transform, ("", "log", "linear")),
        ):
            if value not in allowed:
                raise InputError(
                    f"parameter {self.name}: expected {what} {', '.join(filter(None, allowed))}, got {value!r}."
                )
        if not self.bounds[0] < self.bounds[1]:
            raise InputError(f"parameter {self.name}: expected bounds (low, high) with low < high, got {self.bounds}.")
        if not self.transform:
            object.__setattr__(self, "transform", "log" if self.role == TIME else "linear")
        if self.start is None and self.role != AMPLITUDE:
            low, high = self.bounds
            middle = (low * high) ** 0.5 if self.transform == "log" else (low + high) / 2
            object.__setattr__(self, "start", middle)

    @property
    def in_a_scan(self) -> FieldPrior:
        """Its `prior`; without one, that of a field which fills the middle of its box."""
        low, high = self.bounds
        return self.prior or FieldPrior(mean=(low + 0.3 * (high - low), high - 0.3 * (high - low)), typical=self.start)

    @property
    def searched(self) -> tuple[float, float]:
        """`search`, or its default, inside the box."""
        low, high = self.bounds
        if self.role == FIELD and self.search is None:
            prior = self.in_a_scan
            return max(low, prior.mean[0] - prior.deviation), min(high, prior.mean[1] + prior.deviation)
        least, greatest = self.search or self.bounds
        return max(low, least), min(high, greatest)

    @property
    def around_zero(self) -> bool:
        """Whether its box has values of both signs, so that a share of its value is no measure of a change."""
        return self.bounds[0] < 0 < self.bounds[1]

    @property
    def smooth(self) -> bool:
        """Whether it varies slowly in space whatever the tissue."""
        return self.treatment == SMOOTH

    @property
    def given(self) -> bool:
        """Whether it is known and not estimated."""
        return self.treatment == GIVEN

    @property
    def amplitude(self) -> bool:
        """Whether the signal is linear in it."""
        return self.role == AMPLITUDE


@dataclass(frozen=True)
class Derived:
    """A map that follows from the parameters: T1 from T1*, a rate. Its standard deviation follows by the delta method.

    Parameters
    ----------
    name, unit, suffix, meaning
        As of `Parameter`.
    formula
        (model, maps by name) -> the map. It is written over the array namespace and must be smooth.
    main
        Whether it is what the sequence is for, in place of the time parameter.
    """

    name: str
    unit: str
    formula: Callable[[Any, Mapping[str, Array]], Array]
    suffix: str | None = None
    meaning: str = ""
    main: bool = False


@dataclass(frozen=True)
class SignalModel(ABC):
    """A model of the signal of one voxel, S = A · g(T, F), for the settings that are its fields.

    A subclass is one file. It declares its settings with `setting`, its `parameters`, and `shape`; all else has
    defaults.

    Parameters
    ----------
    box
        Other bounds than those of `parameters`: ((name, low, high), …). `with_bounds` sets it.

    Examples
    --------
    >>> from rimap import T2Decay
    >>> model = T2Decay(tau=[10, 20, 40])
    >>> model.time.name, model.axis.title, model.n_images
    ('T2', 'echo time', 3)
    """

    box: tuple[tuple[str, float, float], ...] = field(default=(), kw_only=True, repr=False)

    name: ClassVar[str]
    """What ``--sequence`` takes."""
    title: ClassVar[str]
    formula: ClassVar[str] = ""
    """The signal, in LaTeX, for its page and the methods text."""
    reference: ClassVar[str] = ""
    """Who published it, with the DOI."""
    parameters: ClassVar[tuple[Parameter, ...]]
    derived: ClassVar[tuple[Derived, ...]] = ()
    bids_suffix: ClassVar[str] = ""
    """Suffix of the weighted images in BIDS that means this model: IRT1, MESE."""
    also_reads: ClassVar[tuple[str, ...]] = ()
    """Other suffixes that ``--sequence`` may read as this model."""
    gradient_echo: ClassVar[bool | None] = None
    """Whether images with several TE are gradient echoes (T2*) or spin echoes (T2); `None` if it does not matter."""
    normalised_range: ClassVar[tuple[float, float] | None] = None
    """The range of a signal without a unit: images that a scanner stores as whole numbers from 0 are brought to it."""
    linear_in_field: ClassVar[bool] = False
    """The claim that the shape is linear in the field; it is checked before it is used."""
    changes_sign: ClassVar[bool] = False
    """Whether the signal can be negative. The model then has an option `signed`, and takes the modulus without it."""

    chosen_over: ClassVar[str] = ""
    """The name of a simpler model of the same images: if the user names neither, the images decide between the two."""
    candidates: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Options among which the images decide if the user gives none: ``({"profile": …}, …)``."""
    if_first_is_skipped: ClassVar[str] = ""
    """What it means for the maps if the images of the shortest times are left out, a sentence for a note."""
    if_misfit: ClassVar[str] = ""
    """What commonly makes good images contradict the model, a clause for warnings."""

    typical_protocol: ClassVar[Mapping[str, Any]] = {}
    """Settings of a usual scan, by name, if they depend on each other; simulated protocols vary around them."""
    cycle: ClassVar[Cycle] = Cycle()
    """How long a scan takes: what it repeats and how often."""
    hideable: ClassVar[tuple[str, ...]] = ()
    """Optional settings of a scan that a model may not know, for which `effective` says what it then sees."""

    # What a subclass gives.

    @abstractmethod
    def shape(self, **nonlinear: Array) -> Array:
        """Return the signal for A = 1, (N, *X), from the parameters that are no amplitudes, by name, each (*X).

        With K amplitudes it returns one column for each, (N, K, *X). Before any modulus.
        """

    def shape_partials(self, **nonlinear: Array) -> dict[str, Array]:
        """Return the derivative of `shape` in each of its parameters, by name.

        The default is the complex step (NumPy) or forward differentiation (torch); a model may give its own.
        """
        return {name: derivative(self.shape, nonlinear, name) for name in nonlinear}

    @classmethod
    def effective(cls, kappa: Array, **hidden: float) -> Array:
        """Return the κ (Q, *X) that the model sees in a scan with optional settings that it does not know (`hideable`).

        Raises
        ------
        InputError
            By default.
        """
        raise InputError(f"{cls.title}: expected no hidden setting, got {', '.join(hidden)}.")

    # What follows.

    def __post_init__(self) -> None:
        N = None
        for s in self.settings.values():
            value = getattr(self, s.name)
            if value is None and not s.required:
                continue
            values = s.checked(value)
            if not values:
                raise InputError(f"{s.name}: expected numbers in {s.unit}, got none.")
            if N is None and s.per_image:
                N = len(values)
            if s.per_image is None and len(values) == 1 and N is not None:
                values = values * N
            if s.per_image is not False and N is not None and len(values) != N:
                raise InputError(
                    f"{s.name}: expected one value{'' if s.per_image else ', or one'} for each of the {N} images, got "
                    f"{len(values)}."
                )
            if s.per_image is False and len(values) not in s.lengths:
                expected = " or ".join("one" if length == 1 else str(length) for length in s.lengths)
                raise InputError(f"{s.name}: expected {expected} value{'s' * (s.lengths != (1,))}, got {len(values)}.")
            single = s.per_image is False and s.lengths == (1,)
            object.__setattr__(self, s.name, values[0] if single else values)
        if self.box:
            object.__setattr__(self, "parameters", _boxed(type(self), self.box))
        self._check_enough_images()

    def _check_enough_images(self) -> None:
        Q = sum(not parameter.given for parameter in self.parameters)
        distinct = len(set(self.conditions))
        if distinct < Q:
            names = ", ".join(parameter.name for parameter in self.parameters if not parameter.given)
            raise InputError(
                f"{self.title} has {Q} parameters ({names}): expected images at {Q} or more distinct values of "
                f"{self.axis.title}, got {distinct} ({count_of(self.n_images, 'image')}). Add images at others."
            )

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings, by name."""
        return _settings(type(self))

    @property
    def axis(self) -> Setting:
        """The setting along which the images differ: the first one that each image has for itself."""
        return axis_of(type(self))

    @property
    def times(self) -> NDArray[np.float64]:
        """The values of `axis` (N): times in ms for most models, flip angles in degrees for some."""
        return np.asarray(getattr(self, self.axis.name), dtype=float)

    @property
    def conditions(self) -> list[tuple[float, ...]]:
        """The settings of each image, (N) tuples: images with the same ones are repeats."""
        values = [getattr(self, setting.name) for setting in self.settings.values() if setting.per_image is not False]
        return list(zip(*(value for value in values if value is not None)))

    @property
    def n_images(self) -> int:
        """N, the number of images."""
        return len(getattr(self, self.axis.name))

    @property
    def magnitude(self) -> bool:
        """Whether the signal is a modulus whose polarity is lost."""
        return self.changes_sign and not self.is_signed

    @property
    def is_signed(self) -> bool:
        """Whether the images keep their polarity (real part)."""
        return bool(getattr(self, POLARITY, False))

    @property
    def time(self) -> Parameter:
        """The relaxation time that is estimated."""
        return next(parameter for parameter in self.parameters if parameter.role == TIME)

    @property
    def time_index(self) -> int:
        """The position of the relaxation time in κ."""
        return self.index(self.time.name)

    @property
    def main(self) -> Parameter | Derived:
        """The map that the sequence is for: the derived one that is declared as main, else the relaxation time."""
        return next((d for d in self.derived if d.main), self.time)

    @property
    def field(self) -> Parameter | None:
        """The field, if the model has one that is not given; else the given one, else `None`."""
        fields = [parameter for parameter in self.parameters if parameter.role == FIELD]
        return next((field for field in fields if not field.given), fields[0] if fields else None)

    @property
    def amplitudes(self) -> tuple[Parameter, ...]:
        """The parameters in which the signal is linear."""
        return tuple(parameter for parameter in self.parameters if parameter.amplitude)

    @property
    def nonlinear(self) -> tuple[Parameter, ...]:
        """The other parameters, the arguments of `shape`."""
        return tuple(parameter for parameter in self.parameters if not parameter.amplitude)

    def index(self, name: str) -> int:
        """Return the position of the parameter `name` in κ."""
        return [parameter.name for parameter in self.parameters].index(name)

    @classmethod
    def at(cls, values: Values, **settings: Any) -> Self:
        """Return the model with these values of its axis, and other settings by name."""
        options: dict[str, Any] = {axis_of(cls).name: values, **settings}
        return cls(**options)

    def subset(self, keep: Array) -> Self:
        """Return the model of some images: `keep` has their indices (n,)."""
        kept: dict[str, Any] = {}
        for s in self.settings.values():
            value = getattr(self, s.name)
            if s.per_image is not False and value is not None:
                kept[s.name] = tuple(float(v) for v in np.asarray(value)[keep])
        return replace(self, **kept)

    def with_settings(self, **changed: Any) -> SignalModel:
        """Return the model with other settings, to predict images: it may have too few of them to estimate from.

        A setting that has one value in all images keeps it, however many images there are then.

        Raises
        ------
        InputError
            For a setting that the model does not have or cannot have.
        """
        known = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        for name in changed:
            if name not in known or name == BOX:
                raise InputError(f"settings: expected some of {', '.join(n for n in known if n != BOX)}, got {name!r}.")
        if self.axis.name in changed:
            N = np.size(changed[self.axis.name])
            for s in self.settings.values():
                value = known[s.name]
                if s.per_image is not False and s.name not in changed and value is not None and len(set(value)) == 1:
                    known[s.name] = (value[0],) * N
        return predicting(type(self))(**known | changed)

    def with_bounds(self, bounds: Mapping[str, tuple[float, float]]) -> Self:
        """Return the model with other bounds of some parameters, in their unit.

        Raises
        ------
        InputError
            For a parameter that the model does not have.
        """
        merged = {name: (low, high) for name, low, high in self.box} | dict(bounds)
        return (
            replace(self, box=tuple((n, float(low), float(high)) for n, (low, high) in merged.items()))
            if merged
            else self
        )

    def by_name(self, kappa: Array) -> dict[str, Array]:
        """Return the maps of κ (Q, *X) by name."""
        return dict(zip((parameter.name for parameter in self.parameters), unpack(kappa, len(self.parameters))))

    def amplitude(self, kappa: Array) -> Array:
        """Return the first amplitude (*X) of the maps κ (Q, *X); 1 if the model has none."""
        return kappa[self.index(self.amplitudes[0].name)] if self.amplitudes else 1 + 0 * kappa[0]

    def columns(self, maps: Mapping[str, Array]) -> Array:
        """Return one column for each amplitude, (N, K, *X), from the maps of the other parameters.

        A model without amplitudes has one column, whose amplitude is 1.
        """
        g = self.shape(**{parameter.name: maps[parameter.name] for parameter in self.nonlinear})
        return g if len(self.amplitudes) > 1 else g[:, None]

    def signal(self, kappa: Array) -> Array:
        """Return the images (N, *X) of the maps κ (Q, *X)."""
        f = self._before_modulus(self.by_name(kappa))
        return abs(f) if self.magnitude else f

    def _before_modulus(self, maps: Mapping[str, Array]) -> Array:
        amplitudes = self.amplitudes
        if len(amplitudes) <= 1:
            g = self.shape(**{parameter.name: maps[parameter.name] for parameter in self.nonlinear})
            return maps[amplitudes[0].name] * g if amplitudes else g
        columns = self.columns(maps)
        f: Any = 0
        for k, parameter in enumerate(amplitudes):
            f = f + maps[parameter.name] * columns[:, k]
        return f

    def partials(self, kappa: Array) -> Array:
        """Return the derivatives of the signal in each parameter, (N, Q, *X)."""
        maps = self.by_name(kappa)
        nonlinear = {parameter.name: maps[parameter.name] for parameter in self.nonlinear}
        array_api, columns = namespace(*maps.values()), self.columns(maps)
        slopes = self.shape_partials(**nonlinear)
        several = len(self.amplitudes) > 1
        found: dict[str, Array] = {} if self.amplitudes else dict(slopes)
        f: Any = 0 if self.amplitudes else columns[:, 0]
        for k, p in enumerate(self.amplitudes):
            found[p.name] = columns[:, k] + 0 * maps[p.name]
            f = f + maps[p.name] * columns[:, k]
            for name, slope in slopes.items():
                found[name] = found.get(name, 0) + maps[p.name] * (slope[:, k] if several else slope)
        d = array_api.stack([found[parameter.name] for parameter in self.parameters], axis=1)
        return array_api.where((f < 0)[:, None], -d, d) if self.magnitude else d

    def initial_guess(self, images: Array) -> Array:
        """Return where an iteration starts, (Q, *X): the largest modulus of the images (N, *X), and `start`
        (§4.4.4).
        """
        S = floating(images)
        array_api = namespace(S)
        peak = array_api.max(abs(S), axis=0)
        first = next((amplitude.name for amplitude in self.amplitudes), None)
        return array_api.stack(
            [
                peak
                if parameter.name == first
                else 0 * peak + (parameter.start if parameter.start is not None else 0.0)
                for parameter in self.parameters
            ]
        )

    @property
    def separable(self) -> bool:
        """Whether `basis` describes the model: one amplitude, and at most one field in which the shape is linear."""
        if len(self.amplitudes) != 1 or len(self.nonlinear) != 1 + (self.field is not None):
            return False
        return self.field is None or (self.linear_in_field and self.field.treatment != GIVEN and _is_linear(self))

    def basis(self, T: Array) -> Array:
        """Return φ (N, K, *T.shape) with S = |A (φ₀(T) + F φ₁(T))|, before any modulus; K = 1 without a field."""
        T = floating(T)
        if self.field is None:
            return self.shape(**{self.time.name: T})[:, None]
        at_0, at_1 = (self.shape(**{self.time.name: T, self.field.name: 0 * T + F}) for F in (0.0, 1.0))
        return namespace(T).stack([at_0, at_1 - at_0], axis=1)


@lru_cache(maxsize=64)
def predicting(model: type[SignalModel]) -> type[SignalModel]:
    """Return the model without the need for enough images, which estimating has and predicting has not."""
    lifted = {"_check_enough_images": lambda self: None, "__module__": model.__module__}
    return type(model.__name__, (model,), lifted)


@lru_cache(maxsize=64)
def _settings(model: type[SignalModel]) -> dict[str, Setting]:
    return settings_of(model)


def axis_of(model: type[SignalModel]) -> Setting:
    """Return the setting along which the images of a model differ.

    Raises
    ------
    InputError
        If it declares none.
    """
    axis = next((s for s in _settings(model).values() if s.per_image), None)
    if axis is None:
        raise InputError(
            f"{model.__name__}: expected a setting with a value for each image, got none. Declare it with "
            "rimap.setting, and decorate the class with @dataclass(frozen=True)."
        )
    return axis


def image_suffix(model: SignalModel | type[SignalModel]) -> str:
    """Return the suffix of the images of a model: that of BIDS, one that it reads as well, or its name in letters and
    digits.
    """
    return next((s for s in (model.bids_suffix, *model.also_reads) if s), re.sub(r"[^A-Za-z0-9]", "", model.name))


def main_of(model: type[SignalModel]) -> Parameter | Derived:
    """Return the map that a sequence is for: the derived one that is declared as main, else the relaxation time."""
    derived = next((d for d in model.derived if d.main), None)
    return derived or next(parameter for parameter in model.parameters if parameter.role == TIME)


def _boxed(model: type[SignalModel], box: tuple[tuple[str, float, float], ...]) -> tuple[Parameter, ...]:
    known = {parameter.name: parameter for parameter in model.parameters}
    for name, low, high in box:
        if name not in known:
            raise InputError(f"bounds: expected one of {', '.join(known)}, got {name!r}.")
        p = known[name]
        start = p.start if p.start is None or low <= p.start <= high else None
        known[name] = replace(p, bounds=(low, high), start=start)
    return tuple(known.values())


@lru_cache(maxsize=32)
def _is_linear(model: SignalModel) -> bool:
    """Return whether `basis` gives the shape: the claim of `linear_in_field`, tried at some T and F."""
    T, F = model.time, model.field
    assert F is not None
    rng = np.random.default_rng(0)
    low, high = np.log(T.bounds)
    times = np.exp(rng.uniform(low, high, 64))
    fields = rng.uniform(*F.bounds, 64)
    phi = np.asarray(model.basis(times))
    true = np.asarray(model.shape(**{T.name: times, F.name: fields}))
    return bool(np.allclose(phi[:, 0] + fields * phi[:, 1], true, rtol=1e-9, atol=1e-9 * abs(true).max()))


def unpack(kappa: Array, n: int) -> tuple[Array, ...]:
    """Split κ (n, *X) into its n maps (*X), as floating-point arrays.

    Raises
    ------
    InputError
        If κ has another number of maps.
    """
    if not is_torch(kappa) and isinstance(kappa, (tuple, list)) and any(is_torch(k) for k in kappa):
        kappa = namespace(*kappa).stack(list(kappa))
    kappa = floating(kappa)
    if kappa.shape[0] != n:
        raise InputError(f"kappa: expected {n} maps along its first axis, got the shape {tuple(kappa.shape)}.")
    return tuple(kappa[index] for index in range(n))
