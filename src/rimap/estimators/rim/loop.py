"""What is around the cell of a RIM: what it reads and how its output moves the estimate (Eqs. 4–5).

The same lines serve training (torch) and mapping (NumPy), and every signal model: parameters are known by their role
(`Layout`). Images are in units of the image scale here, so that A ≈ 1 in CSF. The estimate is carried as `u`, the
coordinates in which the network moves it.

Two designs are kept by name: `PAPER` is §4.4.4; `GENERAL` works in coordinates whose errors are alike for every
protocol and noise level. Both are plain `RIMConfig` values, and every choice is one field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rimap.allowed_numbers import COUNT, NOT_NEGATIVE, POSITIVE, Allowed, refuse_other_numbers
from rimap.arrays import Array, namespace
from rimap.errors import InputError
from rimap.estimators.rim.data_term import Sums
from rimap.estimators.rim.elimination import Factors
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.neighbour_sums import gaussian_sum

#: What a cell may read, by name. A network stores the names, so an old one keeps its inputs.
INPUTS = (
    "state", "gradient", "step", "step_known_field", "field_step", "score", "sd", "log_sigma", "log_noise", "misfit",
    "contrast", "pull",
)  # fmt: skip
#: Standard deviations (pixels) of the means of the first amplitude and of the time that ``contrast`` compares a voxel
#: with.
AMPLITUDE_WIDTHS, TIME_WIDTHS = (1.0, 2.0), (0.7, 1.4, 2.8)
#: Standard deviations (pixels) of the neighbourhoods over which ``pull`` sums how far the data are from the estimate.
PULL_WIDTHS = (0.7, 1.4, 2.8)
#: Standard deviations (pixels) of the neighbourhoods over which ``field_step`` assumes that the field is constant.
FIELD_WIDTHS = (2.0, 6.0)
#: Bounds of the logarithm of a standard deviation that the network gives, in units of the Cramér-Rao bound.
LOG_SD_BOUNDS = (-4.0, 4.0)
#: Below a tenth of the image scale, an amplitude is carried on a linear scale.
LINEAR_BELOW = 0.1
#: In u, what the channels of ``state`` are measured from and in: the first amplitude (0.74 of the image scale, the
#: median of a head) and any others, and the spread of amplitudes and of the logarithm of the time over tissues.
FIRST_AMPLITUDE, OTHER_AMPLITUDES, AMPLITUDE_SPREAD, TIME_SPREAD = 2.7, 0.0, 0.5, 0.7
#: The standard deviation in u that every field has: fields of different models look alike to a network.
FIELD_SPREAD = 0.2
#: The time from which u of the time is measured, in its unit, where a configuration has ``reference = "second"``.
SECOND = {"ms": 1000.0, "s": 1.0, "µs": 1e6, "us": 1e6}
#: The standard deviation of a field that a model does not have, as ``sd`` gives it to a cell that has a place for one.
SD_WITHOUT_FIELD = 2.5e-3
#: No amplitude exceeds so many image scales.
LARGEST_AMPLITUDE = 100.0
#: The gradient is given as if there were so many images: those of the paper's protocol.
N_IMAGES_OF_THE_PAPER = 31.0
#: What rimap 0.1.0 called some choices, which its networks and recipes name.
_EARLIER = {"smooth_B": "likelihood", "step_known_B": "step_known_field"}


#: What numbers each field of `RIMConfig` may have. The largest cell has a hundred times the weights of a usual one.
ALLOWED = {
    "gain": POSITIVE,
    "limit": NOT_NEGATIVE,
    "n_steps": COUNT,
    "features": Allowed(1.0, 1024.0),
    "prior_sd": POSITIVE,
    "floor": POSITIVE,
}


@dataclass(frozen=True)
class RIMConfig:
    """The choices of a RIM, stored in its recipe and in its exported file.

    Parameters
    ----------
    inputs
        What the cell reads, in this order, for the P parameters that it carries (amplitudes, field, time):
        ``state`` (P) the estimate; ``gradient`` (P) ∇κ of ½Σ(S − f)², times 31/N, never divided by σ²;
        ``step`` (P) the damped Gauss-Newton step; ``step_known_field`` (1) that of the time with the field fixed;
        ``field_step`` (2) that of the field, assumed to be constant over neighbourhoods of two sizes: the steps of the
        voxels, weighted by what each knows of the field;
        ``score`` (P) the gradient in units of its own standard deviation;
        ``sd`` (1, or 3 if there is a field) logarithm of the Cramér-Rao bound of log T with the field known, with
        the field free, and of the field; ``log_sigma`` (1); ``log_noise`` (1) logarithm of σ over the root mean square
        of the predicted images, which has no unit for any sequence; ``misfit`` (1) log χ²/N;
        ``contrast`` (5; 3 without an amplitude) how far the precision-weighted means of the first amplitude and the
        time over neighbourhoods of several sizes are from the voxel, in units of its Cramér-Rao bound: what a smoother
        would do, for the cell to weigh; ``pull`` (3) how far the data of neighbourhoods of several sizes are from the
        estimate of the time, in units of the standard deviation of their mean: what was smoothed away although the data
        show it.
    state
        ``linear``: A, F, T/T₀. ``log``: asinh(10 A), F, log(T/T₀). The field F is scaled to a standard deviation of
        0.2.
    start
        ``paper``: §4.4.4. ``likelihood``: maximum likelihood with a smooth field.
    update
        ``abs``: κ ← |κ + Δ|, the domain guard of the authors' package. ``clip``: into the box.
    unit
        What an output of 1 means: ``fixed``: `gain`; ``sd``: the Cramér-Rao bound of each voxel with a smooth field
        known (for that field: `gain`).
    gain
        Size of an output of 1 in u, for amplitudes, field and time.
    limit
        Largest change in one step, in units of the output, by a tanh; 0 for none.
    n_steps
        Number of steps J.
    features
        Channels of the cell.
    zero_output
        The output layer starts at zero: an untrained network returns its start.
    prior_sd
        Standard deviations in u of the weak prior that damps the Gauss-Newton step, for amplitudes, field and time.
    floor
        Smallest standard deviation of log T and log A that is distinguished.
    any_sequence
        One cell serves every model with one amplitude: a model without a field leaves the channels of the field zero.
    restore
        What the cell smoothed away although the data show it is put back after the last step (`restoring`); needs
        `sd_outputs`.
    sd_outputs
        The cell also gives the logarithm of each parameter's standard deviation, in units of the Cramér-Rao bound.
    reference
        T₀ of the state, and the centre of the weak prior of the start: ``second``, or the ``start`` of the time that
        the model declares.
    """

    inputs: tuple[str, ...] = ("state", "gradient")
    state: str = "linear"
    start: str = "paper"
    update: str = "abs"
    unit: str = "fixed"
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    limit: float = 0.0
    n_steps: int = 6
    features: int = 36
    zero_output: bool = False
    prior_sd: tuple[float, float, float] = (2.0, 0.3, 1.5)
    floor: float = 0.01
    reference: str = "second"
    sd_outputs: bool = False
    restore: bool = False
    any_sequence: bool = False

    def __post_init__(self) -> None:
        for name in ("gain", "prior_sd"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "inputs", tuple(_EARLIER.get(i, i) for i in self.inputs))
        object.__setattr__(self, "start", _EARLIER.get(self.start, self.start))
        refuse_other_numbers(self, ALLOWED, "rim")
        if not self.inputs:
            raise InputError(f"rim.inputs: expected one or more of {', '.join(INPUTS)}, got none.")
        if self.restore and not self.sd_outputs:
            raise InputError("restore = true in the network's settings needs sd_outputs = true.")
        for value, allowed in (
            (self.state, ("linear", "log")),
            (self.start, ("paper", "likelihood")),
            (self.update, ("abs", "clip")),
            (self.unit, ("fixed", "sd")),
            (self.reference, ("second", "start")),
            *((i, INPUTS) for i in self.inputs),
        ):
            if value not in allowed:
                raise InputError(f"{value!r} in the network's settings: expected one of {', '.join(allowed)}.")

    def slots(self, layout: Layout) -> tuple[int, ...]:
        """Return the place among the cell's channels of each parameter that is carried.

        Raises
        ------
        InputError
            If one cell for any sequence is to carry several amplitudes, or none.
        """
        if not self.any_sequence:
            return layout.every
        if layout.n_amplitudes != 1:
            raise InputError(
                f"a network for any sequence: expected a model with one amplitude, got {layout.n_amplitudes}. Train a "
                "network for this sequence."
            )
        return (0, 2) if layout.field is None else (0, 1, 2)

    def n_slots(self, layout: Layout) -> int:
        """Return for how many parameters the cell has channels."""
        return 3 if self.any_sequence else len(layout.carried)

    def channels(self, layout: Layout) -> int:
        """Return the number of input channels of the cell."""
        without_field = layout.field is None and not self.any_sequence
        one = {"step_known_field": 1, "log_sigma": 1, "log_noise": 1, "misfit": 1, "sd": 1 if without_field else 3}
        one["contrast"] = len(AMPLITUDE_WIDTHS) * (layout.n_amplitudes > 0) + len(TIME_WIDTHS)
        one["pull"] = len(PULL_WIDTHS)
        one["field_step"] = len(FIELD_WIDTHS)
        return sum(one.get(i, self.n_slots(layout)) for i in self.inputs)

    def outputs(self, layout: Layout) -> int:
        """Return the number of output channels of the cell: the update, and the standard deviations if it gives
        them.
        """
        return self.n_slots(layout) * (2 if self.sd_outputs else 1)

    def of_carried(self, layout: Layout, out: Array) -> tuple[Array, Array]:
        """Return the update (P, *X) and the logarithm of the standard deviations (P, *X; none if the cell gives none)
        of an output.
        """
        slots, n = list(self.slots(layout)), self.n_slots(layout)
        return out[:n][slots], out[n:][slots] if self.sd_outputs else out[n:]

    def reference_time(self, layout: Layout) -> float:
        """Return T₀, in the unit of the time.

        In a unit that is no time (Hz, µm²/ms) it is the start of the model: T/T₀ is then in the range that a network
        has seen. Far outside, it would still give values, with standard deviations that are wrong.
        """
        start = layout.time.start or 1.0
        return start if self.reference == "start" else SECOND.get(layout.time.unit, start)

    @classmethod
    def of(cls, values: dict[str, Any]) -> RIMConfig:
        """Return the configuration of its fields as a dictionary."""
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return its fields."""
        return dataclasses.asdict(self)


#: §3 and §4.4.4, with the gradient and the domain guard of the authors' package.
PAPER = RIMConfig()

#: Made for any protocol and noise level.
GENERAL = RIMConfig(
    inputs=("state", "step", "step_known_field", "score", "sd", "log_sigma"),
    state="log",
    start="likelihood",
    update="clip",
    unit="sd",
    gain=(1.0, 0.05, 1.0),
    limit=4.0,
    features=32,  # whole registers of a CPU: maps 1.7 times as fast as 36
    zero_output=True,
    reference="start",
)
#: By the name in a recipe.
VARIANTS = {"paper": PAPER, "general": GENERAL}


def by_role(layout: Layout, values: Sequence[float]) -> list[float]:
    """Return P values from those for amplitudes, field and time."""
    amplitude, field, time = values
    return [amplitude] * layout.n_amplitudes + [field] * (layout.field is not None) + [time]


def to_state(config: RIMConfig, layout: Layout, carried: Array) -> Array:
    """Return u (P, *X) of what is carried (P, *X), amplitudes in units of the image scale, the time in ms."""
    array_api, n_amplitudes = namespace(carried), layout.n_amplitudes
    log = config.state == "log"
    u = [array_api.asinh(a / LINEAR_BELOW) if log else a for a in (carried[index] for index in range(n_amplitudes))]
    if layout.field is not None:
        u.append(layout.coordinate(carried[n_amplitudes]) * _field_scale(layout))
    T = carried[len(layout.carried) - 1] / config.reference_time(layout)
    return array_api.stack([*u, array_api.log(T) if log else T])


def from_state(config: RIMConfig, layout: Layout, u: Array) -> Array:
    """Return what is carried (P, *X) of u."""
    array_api, n_amplitudes = namespace(u), layout.n_amplitudes
    log = config.state == "log"
    carried = [array_api.sinh(a) * LINEAR_BELOW if log else a for a in (u[index] for index in range(n_amplitudes))]
    if layout.field is not None:
        carried.append(layout.field_at(u[n_amplitudes] / _field_scale(layout)))
    T = u[len(layout.carried) - 1]
    return array_api.stack([*carried, (array_api.exp(T) if log else T) * config.reference_time(layout)])


def _field_scale(layout: Layout) -> float:
    return FIELD_SPREAD / layout.field_sd


def box(config: RIMConfig, layout: Layout) -> list[tuple[float, float]]:
    """Return the bounds of u for each parameter that is carried."""
    most = LARGEST_AMPLITUDE
    bounds = [
        (max(parameter.bounds[0], -most), min(parameter.bounds[1], most)) if parameter.amplitude else parameter.bounds
        for parameter in layout.carried
    ]
    low, high = (to_state(config, layout, ends) for ends in np.array(bounds, dtype=float).T)
    return [(float(a), float(b)) for a, b in zip(low, high)]


def slopes(config: RIMConfig, layout: Layout, carried: Array) -> list[Array]:
    """Return the derivatives with respect to u of the coordinates of `Sums`: amplitudes, field, log T (each *X)."""
    array_api, n_amplitudes = namespace(carried), layout.n_amplitudes
    one = 0 * carried[0] + 1
    log = config.state == "log"
    slopes = [array_api.sqrt(carried[index] ** 2 + LINEAR_BELOW**2) if log else one for index in range(n_amplitudes)]
    if layout.field is not None:
        slopes.append(one / _field_scale(layout))
    return [*slopes, one if log else config.reference_time(layout) / carried[len(layout.carried) - 1]]


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The data term at one estimate in the coordinates u: gradient, Gauss-Newton matrix, damping.

    Parameters
    ----------
    layout
        Which rows are what.
    g
        P maps, Σ r ∂f/∂u.
    H
        Upper triangle by (i, j), Σ ∂f/∂uᵢ ∂f/∂uⱼ, without damping.
    damping
        P maps, σ²/sd² of the weak prior.
    sigma
        σ in units of the image scale, broadcast against the maps.
    """

    layout: Layout
    g: list[Array]
    H: Mapping[tuple[int, int], Array]
    damping: list[Array]
    sigma: Array

    @classmethod
    def of(cls, config: RIMConfig, layout: Layout, carried: Array, sums: Sums, sigma: Array) -> Quadratic:
        """Return it at an estimate (P, *X) from the sums over the images."""
        n_parameters = len(layout.carried)
        J = slopes(config, layout, carried)
        pairs = [(i, j) for i in range(n_parameters) for j in range(i, n_parameters)]
        g = [sums.g[index] * J[index] for index in range(n_parameters)]
        H = {(i, j): sums.H[k] * J[i] * J[j] for k, (i, j) in enumerate(pairs)}
        damping = [(sigma / deviation) ** 2 + 1e-12 for deviation in by_role(layout, config.prior_sd)]
        return cls(layout, g, H, damping, sigma)

    def solve(self, free: Sequence[int]) -> tuple[list[Array], list[Array]]:
        """Return the damped step −(H + D)⁻¹ g and the variances σ² diag (H + D)⁻¹ over the parameters `free`."""
        H = {(i, j): self.H[free[i], free[j]] for i in range(len(free)) for j in range(i, len(free))}
        factors = Factors.of(H, [self.damping[i] for i in free])
        step = factors.solve([-self.g[i] for i in free])
        return step, [self.sigma**2 * v for v in factors.inverse_diagonal()]

    def response(self, row: int) -> list[Array]:
        """Return how the best values of all other parameters change with that of one."""
        others = [i for i in self.layout.every if i != row]
        H = {(i, j): self.H[a, b] for i, a in enumerate(others) for j, b in enumerate(others) if i <= j}
        coupled = [-self.H[min(i, row), max(i, row)] for i in others]
        return Factors.of(H, [self.damping[i] for i in others]).solve(coupled)

    @cached_property
    def of_all(self) -> tuple[list[Array], list[Array]]:
        """Step and variances of all parameters (P)."""
        return self.solve(self.layout.every)

    @cached_property
    def of_voxel(self) -> tuple[list[Array], list[Array]]:
        """Step and variances with the field known: of the amplitudes and the time."""
        return self.of_all if self.layout.field is None else self.solve(self.layout.without_field)

    @property
    def rows_of_voxel(self) -> tuple[int, ...]:
        """Which parameters a voxel has to determine by itself: all but a smooth field, which its neighbours
        determine.
        """
        field = self.layout.field
        return self.layout.every if field is None or not field.smooth else self.layout.without_field

    @property
    def alone(self) -> tuple[list[Array], list[Array]]:
        """Step and variances of `rows_of_voxel`."""
        return self.of_all if len(self.rows_of_voxel) == len(self.layout.every) else self.of_voxel


def cell_inputs(config: RIMConfig, u: Array, sums: Sums, quadratic: Quadratic, n_images: int) -> list[Array]:
    """Return the channels that the cell reads (Eq. 4), each (*X)."""
    array_api, layout = namespace(u), quadratic.layout
    every, centre = layout.every, _centre(layout)
    spread = by_role(layout, (AMPLITUDE_SPREAD, FIELD_SPREAD, TIME_SPREAD))
    out: list[Array] = []
    blank = config.any_sequence and layout.field is None

    def placed(values: list[Array]) -> list[Array]:
        """Leave the channel of a field that the model does not have at zero."""
        return [values[0], 0 * values[0], values[-1]] if blank else values

    for name in config.inputs:
        if name == "state":
            out += placed(
                [u[row] if config.state == "linear" else (u[row] - centre[row]) / spread[row] for row in every]
            )
        elif name == "gradient":
            out += placed([quadratic.g[row] * (N_IMAGES_OF_THE_PAPER / n_images) for row in every])
        elif name == "step":
            out += placed([soft(quadratic.of_all[0][row] / spread[row], 2.0) for row in every])
        elif name == "step_known_field":
            out += [soft(quadratic.of_voxel[0][-1] / spread[-1], 2.0)]
        elif name == "field_step":
            out += [soft(x / FIELD_SPREAD, 2.0) for x in pooled_field_steps(config, sums, quadratic, n_images)]
        elif name == "score":
            own_sd = [quadratic.sigma * array_api.sqrt(quadratic.H[row, row] + quadratic.damping[row]) for row in every]
            out += placed([soft(quadratic.g[row] / own_sd[row], 4.0) / 2 for row in every])
        elif name == "sd":
            out += _log_sds(quadratic, blank)
        elif name == "log_sigma":
            out += [array_api.log(quadratic.sigma + 0 * u[0]) / 1.5 + 2.0]
        elif name == "log_noise":
            # ∂f/∂u of the amplitude is the shape times the slope of the state: their ratio to A is close to 1
            relative = quadratic.sigma**2 * n_images / (quadratic.H[0, 0] + quadratic.damping[0])
            out += [0.5 * array_api.log(relative) / 1.5 + 2.0]
        elif name == "contrast":
            out += _contrasts(config, u, quadratic)
        elif name == "pull":
            out += _pulls(quadratic)
        elif name == "misfit":
            out += [soft(array_api.log(sums.sse / (n_images * quadratic.sigma**2) + 0.1), 3.0)]
    return out


def _centre(layout: Layout) -> list[float]:
    """Return what the state of each parameter is measured from."""
    n_amplitudes = layout.n_amplitudes
    centre = [FIRST_AMPLITUDE, *[OTHER_AMPLITUDES] * n_amplitudes][:n_amplitudes]
    if layout.field is not None:
        centre.append(layout.coordinate(layout.typical_field) * _field_scale(layout))
    return [*centre, 0.0]


def _log_sds(quadratic: Quadratic, blank: bool) -> list[Array]:
    """Return standard deviations as channels: of T for a known field, and of T and the field; `blank` if there is none
    but its place.
    """
    array_api, layout = namespace(quadratic.of_voxel[1][-1]), quadratic.layout

    def log_sd(v: Array) -> Array:
        return 0.5 * array_api.log(v) / 1.5 + 2.0  # 5 % is 0

    out = [log_sd(quadratic.of_voxel[1][-1])]
    if layout.field is not None:
        return [*out, log_sd(quadratic.of_all[1][-1]), log_sd(quadratic.of_all[1][layout.n_amplitudes])]
    return [*out, out[0], 0 * out[0] + float(np.log(SD_WITHOUT_FIELD)) / 1.5 + 2.0] if blank else out


def _contrasts(config: RIMConfig, u: Array, quadratic: Quadratic) -> list[Array]:
    """Return how far the means of neighbours are from the state, in standard deviations of a voxel by itself."""
    array_api, every, out = namespace(u), quadratic.layout.every, []
    for q, widths in ((0, AMPLITUDE_WIDTHS if quadratic.layout.n_amplitudes else ()), (-1, TIME_WIDTHS)):
        v, x = quadratic.alone[1][q] + config.floor**2, u[every[q]]
        for width in widths:
            mean = gaussian_sum(x / v, width) / (gaussian_sum(1 / v, width) + 1e-12)
            out += [soft((mean - x) / array_api.sqrt(v), 4.0) / 2]
    return out


def _pulls(quadratic: Quadratic) -> list[Array]:
    """Return the sums over neighbours of the steps that T asks for, in standard deviations of such sums."""
    z = quadratic.alone[0][-1] / namespace(quadratic.alone[1][-1]).sqrt(quadratic.alone[1][-1])
    out = []
    for width in PULL_WIDTHS:
        # the squares of a Gaussian are one that is narrower by √2: the variance of a weighted sum of unit noise
        noise = namespace(z).sqrt(gaussian_sum(0 * z + 1, width / 2**0.5))
        out += [soft(gaussian_sum(z, width) / noise, 8.0) / 4]
    return out


def soft(x: Array, at: float) -> Array:
    """Return x (any shape), limited smoothly to ± `at`."""
    return namespace(x).tanh(x / at) * at


def pooled_field_steps(config: RIMConfig, sums: Sums, quadratic: Quadratic, n_images: int) -> list[Array]:
    """Return the Gauss-Newton step of the field (*X) for each of `FIELD_WIDTHS`, as if it were constant over a
    neighbourhood.

    The step of a voxel over its variance is the part of the gradient that no change of amplitude and time could
    explain. These add up over a neighbourhood, as does the information; the prior of the field counts once and not for
    each voxel. A voxel whose residual exceeds the noise has not converged, and counts as if its noise were that
    residual: without this weight the first steps, far from the optimum, move the field by up to 0.6 in the wrong
    direction.
    """
    n_amplitudes, layout = quadratic.layout.n_amplitudes, quadratic.layout
    if layout.field is None:
        return [0 * quadratic.g[0] for _ in FIELD_WIDTHS]
    prior = by_role(layout, config.prior_sd)[n_amplitudes] ** -2
    step, variance = quadratic.of_all[0][n_amplitudes], quadratic.of_all[1][n_amplitudes]
    array_api = namespace(step)
    excess = array_api.clip(sums.sse / (n_images * quadratic.sigma**2), 1.0, None)
    score, information = step / variance / excess, (1 / variance - prior) / excess
    return [gaussian_sum(score, w) / (abs(gaussian_sum(information, w)) + prior) for w in FIELD_WIDTHS]


def units(config: RIMConfig, quadratic: Quadratic) -> list[Array]:
    """Return the size in u of an output of 1, a number or a map for each parameter."""
    layout = quadratic.layout
    gain: list[Any] = list(by_role(layout, config.gain))
    if config.unit == "fixed":
        return gain
    _, variance = quadratic.alone
    array_api = namespace(variance[0])
    for row, v in zip(quadratic.rows_of_voxel, variance):
        deviation = array_api.sqrt(v + config.floor**2)
        gain[row] = gain[row] * array_api.where(deviation > 0.5, 0 * deviation + 0.5, deviation)
    return gain


def sd_of(config: RIMConfig, log_sd: Array, unit: Sequence[Array]) -> Array:
    """Return the standard deviations of u (P, *X) from the cell's last P outputs and the `units` of the last step."""
    array_api = namespace(log_sd)
    return array_api.stack(
        [unit[index] * array_api.exp(array_api.clip(log_sd[index], *LOG_SD_BOUNDS)) for index in range(len(unit))]
    )


def moved(
    config: RIMConfig, u: Array, delta: Array, unit: Sequence[Array], bounds: Sequence[tuple[float, float]]
) -> Array:
    """Return u + Δ (Eq. 5) with the guard of the domain. `delta` is the cell's output (P, *X)."""
    array_api, n_parameters = namespace(u), u.shape[0]
    if config.limit:
        delta = array_api.tanh(delta / config.limit) * config.limit
    new = [u[index] + unit[index] * delta[index] for index in range(n_parameters)]
    if config.update == "abs":
        # |κ + Δ| of what cannot be negative; T stays above its lower bound, where e^(−τ/T) is still finite
        new = [abs(x) if low >= 0 else x for x, (low, _) in zip(new, bounds)]
        new[-1] = array_api.clip(new[-1], bounds[-1][0], None)
    else:
        new = [array_api.clip(x, low, high) for x, (low, high) in zip(new, bounds)]
    return array_api.stack(new)
