"""The acquisition of a batch: its settings and what the model knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.signals.base import Setting, SignalModel, axis_of
from rimap.signals.model_options import polarity
from rimap.signals.settings import settings_of
from rimap.simulation.recipe import AROUND_TYPICAL, PatchRecipe, model_class

#: A setting that must exceed the axis (TR) is the largest value of the axis and this (ms): from next to nothing to full
#: recovery.
REST_MS = (100.0, 10_000.0)
#: Share of scans in which such a setting grows with the axis (TR = TI + rest), as on some scanners.
GROWING_SHARE = 0.2
#: Times of a protocol scatter by this (relative) around a rule.
JITTER = 0.02
#: So many protocols are drawn until the model accepts one.
_TRIALS = 200


@dataclass(frozen=True)
class Acquisition:
    """What one batch shares.

    Parameters
    ----------
    model
        As the estimator will know it.
    rician
        Whether the noise is Rician.
    hidden
        Settings of the scan that the model does not know, by name.
    """

    model: SignalModel
    rician: bool
    hidden: Mapping[str, float] = field(default_factory=dict)


def stream(*key: int) -> np.random.Generator:
    """Return the random generator of a key of whole numbers."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))


def draw_acquisition(recipe: PatchRecipe, rng: np.random.Generator) -> Acquisition:
    """Return the acquisition of one batch.

    Raises
    ------
    InputError
        If the model accepts no protocol that the recipe allows.
    """
    kind = model_class(recipe.sequence)
    refusal = ""
    for _ in range(_TRIALS):
        try:
            return _drawn(recipe, kind, rng)
        except InputError as error:  # settings that depend on each other
            refusal = str(error)
    raise InputError(f"no protocol of {recipe.sequence} that the recipe allows is possible: {refusal}")


def _drawn(recipe: PatchRecipe, kind: type[SignalModel], rng: np.random.Generator) -> Acquisition:
    u = rng.random(4)
    settings: dict[str, Any] = {}
    hidden: dict[str, float] = {}
    axis = axis_of(kind)
    typical = {} if recipe.times_ms or recipe.settings else dict(kind.typical_protocol)
    if typical:
        counts = {s.name for s in settings_of(kind).values() if s.unit == "1"}
        settings |= {name: _around(value, rng, whole=name in counts) for name, value in typical.items()}
        times = np.asarray(settings.pop(axis.name), dtype=float)
    else:
        times = np.asarray(recipe.times_ms) if recipe.times_ms else draw_times(recipe, rng)
    if kind.changes_sign and u[0] < recipe.signed_share:
        settings |= polarity(True)
    for s in settings_of(kind).values():
        if s.name == axis.name or s.name in settings:
            continue
        if s.name in recipe.settings:
            settings[s.name] = recipe.settings[s.name]
        elif s.required:
            settings[s.name] = _drawn_setting(recipe, s, rng)
        elif s.longer_than == axis.name and u[1] < recipe.optional_share + recipe.hidden_share:
            rest = float(np.exp(rng.uniform(*np.log(REST_MS))))
            known = u[1] < recipe.optional_share
            if known:
                growing = u[2] < GROWING_SHARE
                settings[s.name] = tuple(times + rest) if growing else float(times.max() + rest)
            elif s.name in kind.hideable:
                hidden[s.name] = float(times.max() + rest)
    model = kind.at(tuple(float(t) for t in times), **settings)
    rician = bool(u[3] < recipe.rician_share) and not model.is_signed and bool(model.amplitudes)
    return Acquisition(model, rician, hidden)


def _drawn_setting(recipe: PatchRecipe, s: Setting, rng: np.random.Generator) -> float:
    """Return one value of a setting that all images share, log-uniform."""
    low, high = recipe.setting_ranges.get(s.name, s.drawn_from)
    if not low > 0 or not np.isfinite(high):
        raise InputError(
            f"{s.name}: expected its value in settings, or a range to draw it from in setting_ranges; the model "
            f"declares none."
        )
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _around(value: Any, rng: np.random.Generator, *, whole: bool) -> Any:
    """Return a setting of a typical protocol, with one factor for all its values; a count of more than one stays
    whole.
    """
    if isinstance(value, (bool, str)) or value is None:
        return value
    values = np.asarray(value, dtype=float) * np.exp(AROUND_TYPICAL * rng.standard_normal())
    values = np.round(values) if whole and values.max() > 1 else values
    return float(values) if values.ndim == 0 else tuple(float(value) for value in values)


def draw_times(recipe: PatchRecipe, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return sorted values of the axis (N,), for most models times in ms, of one of the kinds of protocol that scanners
    run.

    Even or geometric spacing over a wide range; a dense train (as the paper's, or a multi-echo train); a few times
    chosen by hand. N is log-uniform, but never below the number of parameters. An echo train, whose times are multiples
    of the first one, has no other kind.
    """
    least, greatest = recipe.time_range_ms
    n_least, n_greatest = recipe.n_images

    def log_uniform(a: float, b: float) -> float:
        return float(np.exp(rng.uniform(np.log(a), np.log(max(a, b)))))

    N = min(n_greatest, int(log_uniform(n_least, n_greatest + 1)))
    if axis_of(model_class(recipe.sequence)).even:
        first = log_uniform(least, greatest / N)
        return np.asarray(round(first, 3) * np.arange(1, N + 1))
    style = rng.integers(4)
    decades = greatest / least
    if style == 3:  # few times, by hand
        N = int(np.clip(N, n_least, max(n_least, min(12, n_greatest))))
        times = np.exp(np.sort(_stratified(rng, N)) * np.log(decades)) * least
    elif style == 2:  # a dense train that ends early
        first = least * decades ** rng.uniform(0.0, 0.45)
        last = log_uniform(max(3 * first, least * decades**0.5), greatest)
        times = np.linspace(first, last, N)
    else:
        first = least * decades ** rng.uniform(0.0, 0.4)
        last = greatest * decades ** -rng.uniform(0.0, 0.35)
        times = np.linspace(first, last, N) if style == 0 else np.geomspace(first, last, N)
    times = np.clip(times * np.exp(JITTER * rng.standard_normal(N)), least, greatest)
    return np.sort(np.round(times + 1e-3 * np.arange(N), 3))


def _stratified(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.asarray((np.arange(n) + rng.random(n)) / n)
