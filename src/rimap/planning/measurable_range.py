"""What a protocol can measure, in words: where the relative standard deviation of T stays below a limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.map_display import shown_name
from rimap.planning.design import Design, Protocol
from rimap.planning.goal import Goal
from rimap.signals.base import GIVEN, Parameter, SignalModel, main_of

#: The limit that is judged unless another one is given, %.
LIMIT_PERCENT = 5.0
#: By this factor an uncertain polarity must raise the standard deviation to be reported.
NOTEWORTHY = 1.3


def spans(T: NDArray[np.float64], sd: NDArray[np.float64], limit: float) -> list[tuple[float, float]]:
    """Return the ranges of T in which the relative SD does not exceed a limit.

    >>> spans(np.array([1.0, 2, 3, 4, 5]), np.array([0.1, 0.2, 0.9, np.nan, 0.1]), 0.3)
    [(1.0, 2.0), (5.0, 5.0)]
    """
    good = np.concatenate([[False], np.nan_to_num(sd, nan=np.inf) <= limit, [False]])
    edges = np.flatnonzero(good[1:] != good[:-1])
    return [(float(T[a]), float(T[b - 1])) for a, b in edges.reshape(-1, 2)]


def what_it_measures(found: Design, protocol: Protocol, limit_percent: float = LIMIT_PERCENT) -> str:
    """Return a sentence or two on what a protocol can and cannot measure in the scan time of the design."""
    name, goal = name_of_time(protocol.model), found.goal
    low, high = goal.T_ms
    lack = why_undetermined(protocol.model, goal)
    if lack:
        return lack
    T = found.T_ms
    deviation = protocol.sd(T)
    where = spans(T, deviation, limit_percent / 100)
    limit = f"{limit_percent:g} %"
    if not where:
        best = float(np.nanmin(deviation, initial=np.inf))
        reached = (
            f"; the smallest is {100 * best:.2g} %, at {_ms(T[int(np.nanargmin(deviation))])}"
            if np.isfinite(best)
            else ""
        )
        return f"It measures {name} nowhere with a standard deviation of {limit} or less{reached}."
    ranges = " and ".join(f"from {_ms(a).removesuffix(' ms')} to {_ms(b)}" for a, b in where)
    edges = " (the ends of the curve)" if where == [(T[0], T[-1])] else ""
    text = f"It measures {name} with a standard deviation of {limit} or less {ranges}{edges}."
    inside = [(max(a, low), min(b, high)) for a, b in where if a <= high and b >= low]
    step = T[1] / T[0]
    if any(a <= low * step and b >= high / step for a, b in inside):
        return text + polarity_note(found, protocol)
    worst = protocol.worst
    reached = f"up to {100 * worst:.2g} %" if np.isfinite(worst) else "not bounded"
    return (
        f"{text}{polarity_note(found, protocol)} Between {low:g} and {high:g} ms, the standard deviation is {reached}."
    )


def polarity_note(found: Design, protocol: Protocol) -> str:
    """Return where in the range a wrong polarity of magnitude images adds to the standard deviation, "" if nowhere."""
    T = found.T_ms
    T = T[(found.goal.T_ms[0] <= T) & (found.goal.T_ms[1] >= T)]
    if not T.size:
        return ""
    with np.errstate(invalid="ignore"):
        ratio = np.nan_to_num(protocol.expected_sd(T) / protocol.sd(T), nan=1.0)
    if ratio.max() < NOTEWORTHY:
        return ""
    at = T[int(ratio.argmax())]
    return (
        f" Near {_ms(at)} the polarity of an image is uncertain, so that errors are up to {ratio.max():.2g} times as "
        "large."
    )


def why_undetermined(model: SignalModel, goal: Goal) -> str:
    """Return why a protocol does not determine all parameters, "" if it does: too few different images."""
    unknown = _unknown(model, goal)
    distinct = len(set(model.conditions))
    if distinct >= len(unknown):
        return ""
    names = ", ".join(shown_name(parameter.name) for parameter in unknown)
    return (
        f"It does not determine {name_of_time(model)}: {len(unknown)} unknowns in each voxel ({names}) need as many "
        f"different images, and it has {distinct}."
    )


def _ms(value: float) -> str:
    """Return a time with its unit, without digits that say nothing."""
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def name_of_time(model: SignalModel) -> str:
    """Return the name of the map that is judged, as people write it."""
    return shown_name(main_of(type(model)).name)


def _unknown(model: SignalModel, goal: Goal) -> list[Parameter]:
    """Return the parameters that are estimated, the field as the goal treats it."""
    field = goal.field
    return [
        parameter
        for parameter in model.parameters
        if (not parameter.given if field is None or parameter.name != field.name else goal.field_treatment != GIVEN)
    ]


def repeats_note(model: SignalModel, goal: Goal) -> str:
    """Return what follows if a protocol has no more different images than unknowns, "" if it has more."""
    distinct = len(set(model.conditions))
    unknown = len(_unknown(model, goal))
    if distinct > unknown:
        return ""
    return (
        f"The best protocol has {distinct} different images for {unknown} unknowns, so that they cannot show whether "
        f"the signal model "
        "is right. One more image at another value does."
    )
