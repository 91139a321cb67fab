"""The four lines of the paper around an exported cell (§3, Eqs. 4–5), over NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.correlation import NoiseCorrelation
from rimap.estimators.checks.residual_probability import contradicts, usual_misfit
from rimap.estimators.checks.training_range import FARTHEST_CHI2
from rimap.estimators.mle.field_votes import LIMIT
from rimap.estimators.rim.correlated_noise import inflation
from rimap.estimators.rim.data_term import Sums
from rimap.estimators.rim.initial_estimate import start
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import (
    Quadratic,
    RIMConfig,
    box,
    by_role,
    cell_inputs,
    from_state,
    moved,
    sd_of,
    slopes,
    to_state,
    units,
)
from rimap.estimators.rim.restoring import restored
from rimap.signals.base import SignalModel

F32 = NDArray[np.float32]
#: Voxels that contradict the model are hidden from the network unless they are more than this share of a slice.
MOST_HIDDEN = 0.2


class Step(NamedTuple):
    """Where the loop stands.

    Parameters
    ----------
    carried
        (P, 1, h, w), the estimate.
    sums
        What the data say there.
    sd
        (P, 1, h, w), the standard deviations that the network expects of it; `None` if it gives none, and at the start.
    """

    carried: F32
    sums: Sums
    sd: F32 | None = None


class HeldField(NamedTuple):
    """A field (*X) that a network holds, and its standard deviation (*X); `None` if that is not known."""

    field: F32
    sd: F32 | None = None

    def at(self, index: tuple[slice | int, ...]) -> HeldField:
        """Return the field of the voxels ``[index]``."""
        return HeldField(self.field[index], None if self.sd is None else self.sd[index])


class Outcome(NamedTuple):
    """The last estimate (P, 1, h, w), Σ(S − f)² there (1, h, w), and its standard deviations if the network gives
    them.
    """

    carried: F32
    sse: F32
    sd: F32 | None


@dataclass(frozen=True, eq=False)
class Loop:
    """The four lines of the paper, over NumPy."""

    model: SignalModel
    config: RIMConfig
    cell: Any
    about: dict[str, Any] = field(default_factory=dict)
    correlation: NoiseCorrelation | None = None

    @property
    def layout(self) -> Layout:
        """Which parameters the network carries."""
        return Layout.of(self.model)

    def shortened(self, n_steps: int) -> Loop:
        """Return the loop with no more than so many steps."""
        return replace(self, config=replace(self.config, n_steps=min(n_steps, self.config.n_steps)))

    def __call__(self, data: DataTerm, held: HeldField | None = None) -> Outcome:
        """Return the estimate after J steps.

        Parameters
        ----------
        data
            Of images (N, 1, h, w) in units of the image scale.
        held
            (1, h, w), the field, which then stays as it is; `None` if the network estimates it.
        """
        field_map = None if held is None else held.field
        steps = self.steps(data, field_map)
        begun = next(steps)
        hidden = self._contradicting(begun.sums, data)
        if not hidden.any():
            return self._ended(begun, steps, data, held)
        apart = data.without(hidden)
        steps = self.steps(apart, field_map, begun.carried)
        found = self._ended(next(steps), steps, apart, held)
        alone = self._alone(begun, data, held)
        for of_all, own in zip(found, alone):
            if of_all is not None and own is not None:
                of_all[..., hidden] = own[..., hidden]
        return found

    def _contradicting(self, sums: Sums, data: DataTerm) -> NDArray[np.bool_]:
        """Return the voxels (1, h, w) that contradict the model at a start of maximum likelihood.

        The network does not see them: they say nothing about their neighbours, nor these about them. None, where so
        many do that the model or σ is wrong for the whole slice.
        """
        if self.config.start != "likelihood":
            return np.zeros(data.problem.S.shape[1:], bool)
        squares = np.asarray(sums.sse / data.problem.sigma**2, float)
        free = self.model.n_images - len(self.layout.carried)
        signal = data.problem.S.any(0)
        off = signal & contradicts(squares, 1.0, free, limit=LIMIT, usual=usual_misfit(squares[signal], 1.0, free))
        return off if off.sum() < MOST_HIDDEN * signal.sum() else np.zeros_like(off)

    def _alone(self, begun: Step, data: DataTerm, held: HeldField | None) -> Outcome:
        """Return the start as the outcome, with the standard deviations of voxels that are alone."""
        layout, sigma, (carried, sums, _) = self.layout, data.problem.sigma, begun
        if not self.config.sd_outputs:
            return Outcome(carried, sums.sse, None)
        quadratic = Quadratic.of(self.config, layout, carried, sums, sigma)
        deviation = self._sd_alone(carried, quadratic)
        if held is not None:
            deviation = self._with_error_of_field(deviation, carried, quadratic, held.sd)
        return Outcome(carried, sums.sse, deviation)

    def _sd_alone(self, carried: F32, quadratic: Quadratic) -> F32:
        """Return the standard deviations of voxels that are alone; that of a field that all share is zero."""
        sd_of_u = np.zeros_like(carried)
        for row, variance in zip(quadratic.rows_of_voxel, quadratic.alone[1]):
            sd_of_u[row] = np.sqrt(variance)
        return self._sd(carried, sd_of_u)

    def _ended(self, begun: Step, steps: Iterator[Step], data: DataTerm, held: HeldField | None) -> Outcome:
        """Return the outcome of the steps after the start."""
        sigma = data.problem.sigma
        *_, (carried, sums, deviation) = steps
        shared = self.correlation is not None and not self.correlation.is_white
        if deviation is not None and (shared or held is not None):
            quadratic = Quadratic.of(self.config, self.layout, carried, sums, sigma)
            if self.correlation is not None and shared:
                alone = self._sd_alone(carried, quadratic)
                for row in quadratic.rows_of_voxel:
                    deviation[row] *= inflation(deviation[row] / alone[row], self.correlation)
            if held is not None:
                deviation = self._with_error_of_field(deviation, carried, quadratic, held.sd)
        sse = sums.sse
        rise = (sse - begun.sums.sse) / sigma**2 / self._share_of_farthest(sigma)
        if self.config.start == "likelihood" and (far := rise > FARTHEST_CHI2).any():
            carried[:, far] = self._drawn_back(begun.carried[:, far], carried[:, far], rise[far])
            sse[far] = data.of_voxels(far)(np.ascontiguousarray(carried[:, far][:, None, None])).sse[0, 0]
        return Outcome(carried, sse, deviation)

    def _with_error_of_field(self, deviation: F32, carried: F32, quadratic: Quadratic, field_sd: F32 | None) -> F32:
        """Return standard deviations that contain the error of a held field, with which amplitudes and time change."""
        layout, out = self.layout, deviation.copy()
        row = layout.n_amplitudes
        if field_sd is None:
            out[row] = np.nan
            return out
        # all in the coordinates of `Sums`: amplitudes, coordinate of the field, log T
        slope = slopes(self.config, layout, carried)
        error = field_sd / carried[row] if layout.in_log_of_field else field_sd
        response = quadratic.response(row)
        for index, change in zip(layout.without_field, response):
            unit = carried[index] if index == row + 1 else 1.0  # the time, and not its logarithm
            out[index] = np.hypot(out[index], unit * change * slope[index] / slope[row] * error)
        out[row] = field_sd
        return out

    def _restored(self, data: DataTerm, u: F32, sd_of_u: F32) -> Step:
        """Return the last estimate with what it lacks of what the data show."""

        def carried_at(u: F32) -> F32:
            return np.asarray(from_state(self.config, self.layout, self._within(u)), np.float32)

        def quadratic_at(u: F32) -> Quadratic:
            carried = carried_at(u)
            return Quadratic.of(self.config, self.layout, carried, data(carried), data.problem.sigma)

        u, sd_of_u = restored(u.astype(np.float32), sd_of_u, quadratic_at, data.executor)
        carried = carried_at(u)
        return Step(carried, data(carried), self._sd(carried, sd_of_u))

    def _within(self, u: F32) -> F32:
        """Return a state inside its box."""
        return np.stack([np.clip(x, low, high) for x, (low, high) in zip(u, box(self.config, self.layout))])

    def _share_of_farthest(self, sigma: F32) -> F32:
        """Return 1, and less if noise is below that of the training: towards maximum likelihood, which is then best."""
        least = self.about.get("trained_on", {}).get("sigma", (0.0,))[0]
        return np.minimum(sigma / least, 1) ** 2 if least else np.ones_like(sigma)

    def _drawn_back(self, begun: F32, carried: F32, rise: F32) -> F32:
        """Return the estimate (P, n) where χ² has risen by `FARTHEST_CHI2`, on the line to the start."""
        u, u0 = (to_state(self.config, self.layout, x) for x in (carried, begun))
        back = u0 + np.sqrt(FARTHEST_CHI2 / rise) * (u - u0)
        return np.asarray(from_state(self.config, self.layout, back), np.float32)

    def steps(self, data: DataTerm, known_field: F32 | None = None, near: F32 | None = None) -> Iterator[Step]:
        """Yield the start and the estimate after each step; parameters as of `__call__` and `DataTerm.at_field`."""
        config, layout = self.config, self.layout
        S, sigma = data.problem.S, data.problem.sigma
        h, w = S.shape[2:]
        if known_field is None:
            weight = (abs(S).max(0) > 0).astype(np.float32)
            carried = start(config.start, data.problem, weight).astype(np.float32)
        else:
            carried = data.at_field(known_field, near=near)
        bounds = box(config, layout)
        u = self._within(to_state(config, layout, carried))
        memory = [np.zeros((1, config.features, h, w), np.float32)] * 2
        sums, sd_of_u = data(carried), None
        yield Step(carried, sums)
        for _ in range(config.n_steps):
            quadratic = Quadratic.of(config, layout, carried, sums, sigma)
            x = np.stack(
                [cell_input.astype(np.float32) for cell_input in cell_inputs(config, u, sums, quadratic, len(S))], 1
            )
            feed = {"x": x, "h1": memory[0], "h2": memory[1]}
            delta, *memory = self.cell.run(("delta", "h1_next", "h2_next"), feed)  # Eq. 4
            unit = units(config, quadratic)
            update, log_sd = config.of_carried(layout, np.moveaxis(delta, 1, 0))
            if known_field is not None:
                update[layout.n_amplitudes] = 0.0
            u = moved(config, u, update, unit, bounds)  # Eq. 5
            carried = from_state(config, layout, u).astype(np.float32)
            sums = data(carried)
            sd_of_u = sd_of(config, log_sd, unit) if config.sd_outputs else None
            yield Step(carried, sums, None if sd_of_u is None else self._sd(carried, sd_of_u))
        if config.restore and sd_of_u is not None:
            yield self._restored(data, u, sd_of_u)

    def _sd(self, carried: F32, sd_of_u: F32) -> F32:
        """Return the standard deviations of the estimate: those of u, through the slope of what is carried in u."""
        deviation = sd_of_u * np.stack(slopes(self.config, self.layout, carried))
        deviation[-1] *= carried[-1]  # of the time, and not of its logarithm
        if self.layout.in_log_of_field:
            deviation[self.layout.n_amplitudes] *= carried[self.layout.n_amplitudes]
        factors = by_role(self.layout, self.about.get("sd_factors", (1.0, 1.0, 1.0)))
        return np.asarray(deviation * np.reshape(factors, (-1, *(1,) * (deviation.ndim - 1))), np.float32)
