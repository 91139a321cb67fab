"""What the data of a slice say, for mapping: the sums at any estimate, and the best amplitude and T for a field.

The second is `start.at_field`, compiled for models that are linear in the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.rim.data_term import (
    Likelihood,
    SignalTable,
    Sums,
    bessel_ratio_table,
    has_fast_table,
    in_chunks,
    place,
    sums_of_voxel,
)
from rimap.estimators.rim.initial_estimate import (
    N_STEPS_KNOWN_FIELD,
    N_STEPS_OF_ALONE,
    N_T,
    OWN_TIME_CHI2,
    PRIOR_LOG_T,
    Problem,
    at_field,
    quietened,
)
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.shape_sums import ShapeSums
from rimap.kernels import njit
from rimap.signals.base import SignalModel

F32 = NDArray[np.float32]
#: Voxels of one task: small enough to share among cores, large enough to hide the cost of a task.
_CHUNK = 4096


class DataTerm:
    """The `Sums` of images (N, b, h, w) at any estimate (P, b, h, w), from a table.

    Parameters
    ----------
    sigma
        Broadcast against (b, h, w).
    known
        Parameters that are given: numbers or maps (b, h, w), by name.
    reference_time
        Centre of the weak prior of T in `at_field`.
    """

    def __init__(
        self,
        model: SignalModel,
        S: F32,
        sigma: F32,
        rician: bool,
        executor: Executor | None = None,
        *,
        known: Mapping[str, Any] | None = None,
        reference_time: float = 1000.0,
    ) -> None:
        self.model, self.rician, self.executor = model, rician, executor
        self.problem = Problem(model, S, sigma, self, known or {}, reference_time)
        self.fast = has_fast_table(model)
        sigmas = np.broadcast_to(sigma, S.shape[1:]).reshape(-1) if rician else None
        if self.fast:
            self.table = SignalTable.of(model)
            self.voxels, self.sigmas = self.table.voxels(S), sigmas
        else:
            self.general = ShapeSums(model, S, sigmas, known or {})

    def of_voxels(self, where: NDArray[np.bool_]) -> DataTerm:
        """Return the data term of the voxels `where` (1, h, w), as one row (1, 1, ·)."""
        p = self.problem

        def row(values: Any) -> Any:
            return np.ascontiguousarray(np.broadcast_to(values, where.shape)[where][None, None])

        S, known = np.ascontiguousarray(p.S[:, where][:, None, None]), p.known.items()
        maps = {name: row(v) if np.ndim(v) else v for name, v in known}
        return DataTerm(self.model, S, row(p.sigma), self.rician, self.executor, known=maps)

    def without(self, where: NDArray[np.bool_]) -> DataTerm:
        """Return the data term with no signal in the voxels `where` (b, h, w)."""
        p = self.problem
        S = np.where(where, np.float32(0), p.S)
        return DataTerm(
            self.model, S, p.sigma, self.rician, self.executor, known=p.known, reference_time=p.reference_time
        )

    def __call__(self, carried: F32) -> Sums:
        flat = np.ascontiguousarray(carried.reshape(len(carried), -1), np.float32)
        if self.fast:
            found = self.table.sums(self.voxels, flat, self.sigmas, executor=self.executor)
        else:
            found = self.general(flat, self.executor)
        return Sums(*(x.reshape(x.shape[:-1] + self.problem.S.shape[1:]) for x in found))

    def at_field(self, field_map: F32, *, alone: bool = False, near: F32 | None = None) -> F32:
        """Return the estimate (P, b, h, w) of maximum likelihood for a field (b, h, w).

        Parameters
        ----------
        alone
            As of `start.at_field`.
        near
            The estimate (P, b, h, w) for a similar field, whose T is the starting point; without it all T are searched.
        """
        if not self.fast:
            return np.asarray(at_field(self.problem, field_map, alone=alone), np.float32)
        return _compiled_at_field(self, field_map, alone, near)


class _Grid(NamedTuple):
    """The grid of log T: φ₀ and φ₁ (N, 2, G), Σφ₀², Σφ₀φ₁, Σφ₁² (3, G), the weak prior (G), first point and step."""

    phi: F32
    gram: F32
    prior: F32
    first: np.float32
    step: np.float32


class _Fit(NamedTuple):
    """Bounds of log T, the centre of its prior, the steps to take, the kind of noise, whether the signal is a modulus,
    and whether all T are searched."""

    low: np.float32
    high: np.float32
    centre: np.float32
    n_steps: int
    rician: bool
    modulus: bool
    search: bool


def _compiled_at_field(data: DataTerm, field_map: F32, alone: bool, near_by: F32 | None) -> F32:
    """Return the estimate (3, 1, h, w), as `start.at_field` does, or from an estimate near by."""
    problem, table, model = data.problem, data.table, data.model
    S, variance = problem.S, np.asarray(problem.variance, np.float32)
    smooth, s2_smooth = (S, variance) if alone else quietened(S, variance)
    around = data.voxels if smooth is S else table.voxels(smooth)
    log_T = problem.log_times
    phi = np.asarray(model.basis(np.exp(log_T)), np.float32)
    gram = np.stack([(phi[:, i] * phi[:, j]).sum(0) for i, j in ((0, 0), (0, 1), (1, 1))])
    step = np.float32(log_T[1] - log_T[0])
    grid = _Grid(phi, gram, problem.log_prior.astype(np.float32), np.float32(log_T[0]), step)
    low, high = (np.float32(x) for x in np.log(model.time.bounds))
    centre = np.float32(np.log(problem.reference_time))
    n_steps = N_STEPS_OF_ALONE if alone and not data.rician else N_STEPS_KNOWN_FIELD
    fit = _Fit(low, high, centre, n_steps, data.rician, model.magnitude, near_by is None)
    own, F = variance.reshape(-1), field_map.reshape(-1)
    near = np.ascontiguousarray(np.broadcast_to(s2_smooth, variance.shape)).reshape(-1)
    out = np.empty((len(Layout.of(model).carried), len(data.voxels)), np.float32)
    if near_by is not None:
        out[:] = near_by.reshape(out.shape)
    tabulated = (table.values, table.low, table.step, bessel_ratio_table())

    def run(start: int) -> None:
        k = slice(start, start + _CHUNK)
        _fit_voxels(tabulated, grid, fit, (data.voxels[k], around[k]), (own[k], near[k]), F[k], out[:, k])

    in_chunks(run, range(0, len(data.voxels), _CHUNK), data.executor)
    return out.reshape(len(out), *field_map.shape)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _fit_voxels(table, grid, fit, images, variances, field, out):  # type: ignore[no-untyped-def]
    """Fit A and log T of each voxel for its field: the grid's best T, or the one that `out` has, then Gauss-Newton
    steps.

    Parameters
    ----------
    table
        `SignalTable.values`, `low`, `step`, and the table of I₁/I₀.
    grid, fit
        `_Grid` and `_Fit`.
    images, variances
        Of the voxels (M, N) and of their neighbourhoods.
    field
        (M,).
    out
        (3, M): A, the field, T.
    """
    values, table_low, table_step, ratio = table
    gaussian, likelihood = Likelihood(False, fit.modulus, ratio), Likelihood(fit.rician, fit.modulus, ratio)
    S, around = images
    variance, s2_around = variances
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    last = np.float32(values.shape[0] - 1.001)
    weak = np.float32(1 / PRIOR_LOG_T**2)
    own, near = np.empty(N_T, np.float32), np.empty(N_T, np.float32)
    for index in range(S.shape[0]):
        F, inverse = field[index], one / variance[index]
        if fit.search:
            log_T = _best_of_grid(
                grid, fit.modulus, (S[index], around[index]), (inverse, one / s2_around[index]), F, (own, near)
            )
        else:
            log_T = np.log(out[2, index])
        u = min(max(log_T, fit.low), fit.high)
        at = place(u, table_low, table_step, last)
        gradient_A, _, gradient_T, H_AA, _, H_AT, _, _, H_TT, _ = sums_of_voxel(
            values, at, one, F, S[index], inverse, gaussian
        )
        A = max((H_AA - gradient_A) / (H_AA + np.float32(1e-12)), zero)
        ridge = variance[index] * weak
        for _ in range(fit.n_steps):
            at = place(u, table_low, table_step, last)
            gradient_A, _, gradient_T, H_AA, _, H_AT, _, _, H_TT, _ = sums_of_voxel(
                values, at, A, F, S[index], inverse, likelihood
            )
            gradient_T += ridge * (u - fit.centre)
            H_AA = np.float32(1.001) * H_AA + np.float32(1e-6) * variance[index]
            H_TT = np.float32(1.001) * H_TT + ridge
            det = H_AA * H_TT - H_AT * H_AT
            step_A, step_T = (
                (H_TT * gradient_A - H_AT * gradient_T) / det,
                (H_AA * gradient_T - H_AT * gradient_A) / det,
            )
            A = min(max(A - step_A, half * A), np.float32(2) * A)
            u = min(max(u - min(max(step_T, -half), half), fit.low), fit.high)
        out[0, index], out[1, index], out[2, index] = A, F, np.exp(u)


@njit(nogil=True, cache=True, inline="always", fastmath={"reassoc", "contract", "nsz", "arcp"})
def _best_of_grid(grid, modulus, images, inverse, F, work):  # type: ignore[no-untyped-def]
    """Return the log T whose signal explains most of the images (N) of a voxel, or of its neighbourhood's, at the field
    F.
    """
    s, around = images
    own, near = work
    phi, gram, prior = grid.phi, grid.gram, grid.prior
    one, zero, half, two = np.float32(1), np.float32(0), np.float32(0.5), np.float32(2)
    for k in range(N_T):
        own[k] = zero
        near[k] = zero
    for image in range(phi.shape[0]):
        if modulus:
            for k in range(N_T):
                g = abs(phi[image, 0, k] + F * phi[image, 1, k])
                own[k] += s[image] * g
                near[k] += around[image] * g
        else:
            for k in range(N_T):
                g = phi[image, 0, k] + F * phi[image, 1, k]
                own[k] += s[image] * g
                near[k] += around[image] * g
    best = shared = 0
    for k in range(N_T):
        power = gram[0, k] + F * (two * gram[1, k] + F * gram[2, k]) + np.float32(1e-12)
        own[k] = max(own[k], zero) ** 2 / power * inverse[0] - prior[k]
        near[k] = max(near[k], zero) ** 2 / power * inverse[1] - prior[k]
        if own[k] > own[best]:
            best = k
        if near[k] > near[shared]:
            shared = k
    k = min(max(best if own[best] > own[shared] + np.float32(OWN_TIME_CHI2) else shared, 1), N_T - 2)
    curve = min(own[k - 1] - two * own[k] + own[k + 1], np.float32(-1e-6))
    shift = min(max(half * (own[k - 1] - own[k + 1]) / curve, -one), one)
    return grid.first + (np.float32(k) + shift) * grid.step
