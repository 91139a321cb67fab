"""Where the iterations of a RIM begin: the constants of §4.4.4, or maximum likelihood with a smooth field.

The smooth field is found in two passes. Coarse, on quietened images: for each field of a grid, the misfit of some
voxels at their own best amplitude and time is one matrix product, and their sum determines one field for the image.
Fine: some Gauss-Newton steps in which amplitude and time are the voxel's own and the field is shared by a
neighbourhood; only voxels that determine the field by themselves have a say there. All lengths along the field are in
units of its standard deviation over scans (`Layout.field_sd`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.arrays import Array, floating, is_torch, namespace, to_numpy
from rimap.estimators.rim.data_term import Sums, has_fast_table
from rimap.estimators.rim.elimination import Factors
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.neighbour_sums import convolved, gaussian_sum
from rimap.estimators.table import ShapeTable
from rimap.signals.base import SignalModel

#: Points of the grid of log T.
N_T = 48
#: Standard deviation of the neighbourhood that shares a field, pixels.
WIDTH = 5.0
#: In standard deviations of the field: between points of the coarse grid; of the field in an image around its mean; of
#: the mean that the coarse pass gives; of the field that a voxel with a say determines by itself; the largest step; and
#: between the fields for which `at_field` searches the time.
GRID_STEP, DEPARTURE, MEAN_SD, OWN_SD, LARGEST_STEP, LEVEL_STEP = 0.5, 0.5, 0.25, 5.0, 1.0, 0.1
#: Voxels of an image that the coarse pass looks at.
N_COARSE = 1024
#: The SNR to which images are blurred.
QUIET_SNR = 20.0
#: Gauss-Newton steps with a field that is estimated, with one that is known, and without one.
N_STEPS, N_STEPS_KNOWN_FIELD, N_STEPS_NO_FIELD = 8, 5, 2
#: Those for a known field and Gaussian noise, where they only serve to find that field, or continue from the T of a
#: similar field.
N_STEPS_OF_ALONE = 3
#: χ², three standard deviations: how much better a voxel's own time must be than that of its neighbourhood.
OWN_TIME_CHI2 = 9.0
#: Error of the grid, relative to the signal.
MODEL_ERROR = 0.04
#: A voxel that no field explains counts no more than ten standard deviations.
LARGEST_CHI2 = 100.0
#: Standard deviation of a weak prior of log T around `Problem.reference_time`, for voxels that say nothing.
PRIOR_LOG_T = 2.0

#: An estimate (P, n, h, w) to its `Sums`.
SumsAt = Callable[[Array], Sums]


@dataclass(frozen=True, eq=False)
class Problem:
    """The images of which a start is sought, and what they say at an estimate.

    Parameters
    ----------
    model
        The signal model.
    S
        (N, n, h, w): n images of one slice or patch each, treated apart.
    sigma
        (n, 1, 1) or (n, h, w), in the unit of S.
    sums_at
        Gives the `Sums` at an estimate.
    known
        Parameters that are given: numbers or maps (n, h, w), by name.
    reference_time
        Centre of the weak prior of T.
    """

    model: SignalModel
    S: Array
    sigma: Array
    sums_at: SumsAt
    known: Mapping[str, Any] = field(default_factory=dict)
    reference_time: float = 1000.0

    @property
    def layout(self) -> Layout:
        """Which parameters are carried."""
        return Layout.of(self.model)

    @property
    def variance(self) -> Array:
        """σ² (n, h, w)."""
        return self.sigma**2 + 0 * self.S[0]

    @property
    def log_times(self) -> NDArray[np.float64]:
        """The grid of log T (G,)."""
        low, high = np.log(self.model.time.searched)
        return np.linspace(low, high, N_T, dtype=np.float64)

    @property
    def log_prior(self) -> NDArray[np.float64]:
        """The weak prior on that grid, −2 log p."""
        return np.asarray((self.log_times - np.log(self.reference_time)) ** 2 / PRIOR_LOG_T**2)

    @property
    def given_field(self) -> Array:
        """The map or number of a field that the model takes as given; `None` without one."""
        known_field = self.model.field is not None and self.layout.field is None
        return self.known[self.model.field.name] if known_field and self.model.field else None

    def atoms(self, fields: Array | None) -> Array:
        """Return unit columns that span the signals of the grid of log T, (K, m, N, G), for m values of the field.

        With several amplitudes they are orthonormal; without one they are the signal itself. What else is given is
        taken at its median.
        """
        array_api, T = namespace(self.S), np.exp(self.log_times)
        if has_fast_table(self.model):
            phi = floating(self.model.basis(T), self.S)  # (N, 1 or 2, G)
            g = (
                phi[:, 0][None]
                if fields is None
                else phi[:, 0][None] + floating(fields, self.S)[:, None, None] * phi[:, 1]
            )
            g = abs(g) if self.model.magnitude else g
            return (g / array_api.sqrt((g * g).sum(1)[:, None] + 1e-12))[None]
        F = np.zeros(1) if fields is None else to_numpy(fields).astype(float)
        axis = None if self.model.field is None else self.model.field.name
        held = {key: float(np.nanmedian(to_numpy(value))) for key, value in self.known.items() if key != axis}
        columns = ShapeTable.of(self.model, held).evaluate(T[None] + 0 * F[:, None], F[:, None])[0]  # (N, K, m, G)
        columns = np.moveaxis(columns, (2, 3), (0, 1))  # (m, G, N, K)
        if not self.layout.n_amplitudes:
            return floating(np.moveaxis(columns, (3, 1), (0, 3)), self.S)
        if columns.shape[-1] > 1:
            columns = np.linalg.qr(columns)[0]
        else:
            columns = abs(columns) if self.model.magnitude else columns
            columns = columns / np.sqrt((columns * columns).sum(2, keepdims=True) + 1e-12)
        return floating(np.moveaxis(columns, (3, 1), (0, 3)), self.S)


def start(kind: str, problem: Problem, weight: Array | None = None) -> Array:
    """Return the first estimate (P, n, h, w): `paper_start` or `likelihood_start` by the name in a `RIMConfig`."""
    return paper_start(problem) if kind == "paper" else likelihood_start(problem, weight)


def paper_start(problem: Problem) -> Array:
    """Return A = maximum over the images, and what the model declares of the others (§4.4.4), (P, *X)."""
    return problem.layout.carried_of(problem.model.initial_guess(problem.S))


def likelihood_start(problem: Problem, weight: Array | None = None) -> Array:
    """Return the maximum of the (Gaussian) likelihood with a field that varies slowly, (P, n, h, w).

    Parameters
    ----------
    weight
        (n, h, w), zero for voxels that must not have a say in the field.
    """
    layout, S = problem.layout, problem.S
    array_api, variance = namespace(S), problem.variance
    if np.ndim(problem.given_field):
        return at_field(problem, None)
    n_images, n, h, w = S.shape
    estimated = layout.field
    shared = estimated is not None and estimated.smooth
    images, s2_images = quietened(S, variance) if shared else (S, variance)
    values = array_api.permute_dims(images, (1, 2, 3, 0)).reshape(n, h * w, n_images)
    scale = s2_images.reshape(n, h * w) + (values * values).sum(2) * (MODEL_ERROR**2 / n_images)
    if estimated is None:
        given = problem.given_field
        atoms = problem.atoms(None if given is None else np.array([float(given)]))
        _, T = _best_time(problem, values, scale, atoms)
        return _refined(problem, _with_amplitudes(problem, None, T.reshape(n, h, w)))
    grid = field_grid(layout)
    if not shared:
        found = [
            _best_time(problem, values, scale, problem.atoms(grid[index : index + 1])) for index in range(len(grid))
        ]
        best = array_api.argmin(array_api.stack([misfit for misfit, _ in found]), axis=0).reshape(-1)
        T = _take(array_api, array_api.stack([T.reshape(-1) for _, T in found], axis=1), best)
        F = floating(grid, S)[best]
        carried = _with_amplitudes(problem, F.reshape(n, h, w), T.reshape(n, h, w))
        return _refined(problem, carried, free=True)
    speaks = 0 * variance + 1 if weight is None else weight
    some = slice(None, None, max(1, h * w // N_COARSE))
    C = array_api.stack(
        [
            _best_time(problem, values[:, some], scale[:, some], problem.atoms(grid[index : index + 1]))[0]
            for index in range(len(grid))
        ]
    )  # (nF, n, some)
    C = C - array_api.min(C, axis=0)[None]
    C = array_api.where(C < LARGEST_CHI2, C, 0 * C + LARGEST_CHI2) * speaks.reshape(1, n, h * w)[:, :, some]
    F = _least(array_api, C.sum(2), grid)  # one field for each image
    _, T = _best_time(problem, values, scale, problem.atoms(F))
    return _refined(problem, _with_amplitudes(problem, F[:, None, None] + 0 * variance, T.reshape(n, h, w)), speaks)


def field_grid(layout: Layout) -> NDArray[np.float64]:
    """Return the fields that a coarse search tries."""
    assert layout.field is not None
    low, high = layout.field.searched
    step = GRID_STEP * layout.field.in_a_scan.deviation
    return np.asarray(low + step * np.arange(round((high - low) / step) + 1), dtype=np.float64)


def _best_time(problem: Problem, values: Array, s2: Array, atoms: Array) -> tuple[Array, Array]:
    """Return the least misfit in χ² and its T, (n, P) each, of voxels (n, P, N) whose `atoms` are those of their
    image.
    """
    array_api = namespace(values)
    Z = (_explained(problem, values, atoms) / s2[..., None] - floating(problem.log_prior, values)).reshape(-1, N_T)
    log_T, peak = _peak(array_api, Z, array_api.argmax(Z, axis=1), problem.log_times)
    return (values * values).sum(2) / s2 - peak.reshape(s2.shape), array_api.exp(log_T).reshape(s2.shape)


def quietened(S: Array, s2: Array) -> tuple[Array, Array]:
    """Return images blurred until their SNR is about `QUIET_SNR`, and what is left of σ²: (N, n, h, w), (n, h, w).

    At low SNR a field fitted beside one T for each noisy voxel is biased; beside one T for each neighbourhood it is
    not.
    """
    array_api = namespace(S)
    n, h, w = S.shape[1:]
    noise = s2.mean((1, 2))
    power = (S * S).mean((0, 2, 3)) - noise
    power = array_api.where(power > 0.01 * noise, power, 0.01 * noise)
    width = array_api.clip(QUIET_SNR * array_api.sqrt(noise / power) / 3.545, 0.05, 2.5)  # Σ G² = 1/(2√π b)²
    if not is_torch(S) and S.dtype == np.float32 and n == 1:
        return _quietened(S, s2, float(width[0]))

    def matrix(m: int) -> Array:
        x = floating(np.arange(m), S)
        G = array_api.exp(-0.5 * ((x[:, None] - x[None]) / width[:, None, None]) ** 2)
        return G / G.sum(2)[..., None]

    G, n_amplitudes = matrix(h), matrix(w)
    left = (G * G).sum(2)[:, :, None] * (n_amplitudes * n_amplitudes).sum(2)[:, None, :]
    return G @ S @ array_api.permute_dims(n_amplitudes, (0, 2, 1)), s2 * left


def _quietened(S: NDArray[np.float32], s2: NDArray[Any], width: float) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return `quietened` of one slice."""
    if not width >= 0.2:  # a neighbour would weigh less than 4e-6, or the squares are beyond all numbers
        return S, s2
    half = np.exp(-0.5 * (np.arange(int(4.8 * width) + 2) / width) ** 2)
    band = np.concatenate([half[:0:-1], half])
    sums, squares = (
        [np.convolve(np.ones(m), band**power)[len(half) - 1 :][:m] for m in S.shape[2:]] for power in (1, 2)
    )
    smooth = convolved(S, half)
    smooth /= np.multiply.outer(*sums).astype(np.float32)
    return smooth, s2 * np.multiply.outer(squares[0] / sums[0] ** 2, squares[1] / sums[1] ** 2).astype(np.float32)


def at_field(problem: Problem, field_map: Array | None, *, alone: bool = False) -> Array:
    """Return the amplitudes and T of maximum likelihood, over all T, for a field that is known, (P, n, h, w).

    If noise leaves several T, it is the one that the neighbourhood has as well: a voxel departs from it if its data ask
    for it (by `OWN_TIME_CHI2`), as a single odd voxel does.

    Parameters
    ----------
    field_map
        (n, h, w), the field at which to start; `None` for a model that takes its field as given.
    alone
        Whatever T the neighbourhood has.
    """
    S, variance = problem.S, problem.variance
    array_api, n_images = namespace(S), S.shape[0]
    smooth, s2_smooth = (S, variance) if alone else quietened(S, variance)
    own, around = (array_api.permute_dims(x, (1, 2, 3, 0)).reshape(-1, n_images) for x in (S, smooth))
    s2_own, s2_around = variance.reshape(-1), (s2_smooth + 0 * variance).reshape(-1)
    known_field = problem.given_field if field_map is None else field_map
    assert problem.model.field is not None
    step = LEVEL_STEP * problem.model.field.in_a_scan.deviation
    levels = array_api.round((floating(known_field, S) + 0 * variance) / step).reshape(-1)
    log_T, prior = 0 * s2_own, floating(problem.log_prior, S)
    for level in array_api.unique_values(levels):
        here = array_api.nonzero(levels == level)[0]
        D = problem.atoms(np.array([float(level) * step]))[:, 0]  # (K, N, G)
        Z, Y = (
            _explained(problem, x[here], D) / v[here][:, None] - prior for x, v in ((own, s2_own), (around, s2_around))
        )
        best, near = array_api.argmax(Z, axis=1), array_api.argmax(Y, axis=1)
        k = array_api.where(_take(array_api, Z, best) > _take(array_api, Z, near) + OWN_TIME_CHI2, best, near)
        log_T[here] = _peak(array_api, Z, k, problem.log_times)[0]
    T = array_api.clip(array_api.exp(log_T), *problem.model.time.bounds).reshape(variance.shape)
    return _refined(problem, _with_amplitudes(problem, field_map, T), known_field=True)


def _explained(problem: Problem, values: Array, atoms: Array) -> Array:
    """Return by how much the best amplitudes lower the power of values (…, M, N), for columns (K, …, N, G), (…, M, G).

    One amplitude alone is not negative.
    """
    array_api = namespace(values)
    along = [values @ atom for atom in atoms]
    if problem.layout.n_amplitudes == 0:
        return 2 * along[0] - (atoms[0] * atoms[0]).sum(-2)[..., None, :]
    return sum(a * a for a in along) if len(along) > 1 else array_api.clip(along[0], 0.0, None) ** 2


def _peak(xp: Any, Z: Array, k: Array, grid: NDArray[np.float64]) -> tuple[Array, Array]:
    """Return log T and the value of the parabola's peak around grid point k (M) of the curves Z (M, G)."""
    k = xp.clip(k, 1, N_T - 2)
    before, at, after = (_take(xp, Z, k + d) for d in (-1, 0, 1))
    curve = before - 2 * at + after
    curve = xp.where(curve < -1e-6, curve, 0 * curve - 1e-6)
    shift = xp.clip(0.5 * (before - after) / curve, -1.0, 1.0)
    log_T = float(grid[0]) + (xp.astype(k, Z.dtype) + shift) * float(grid[1] - grid[0])
    return log_T, at - 0.25 * (before - after) * shift


def _refined(
    problem: Problem,
    carried: Array,
    speaks: Array | None = None,
    *,
    free: bool = False,
    known_field: bool = False,
) -> Array:
    """Take Gauss-Newton steps: amplitudes and log T voxel by voxel.

    Parameters
    ----------
    speaks
        (n, h, w), who has a say in a field that is shared by neighbourhoods.
    free
        Whether the field too is the voxel's own.
    known_field
        Whether the field is held.
    """
    layout, variance = problem.layout, problem.variance
    array_api, n_parameters, n_amplitudes = namespace(carried), len(layout.carried), layout.n_amplitudes
    low, high = problem.model.time.bounds
    own = layout.every if free else layout.without_field
    ridge = variance / PRIOR_LOG_T**2
    mean = layout.coordinate(carried[n_amplitudes])
    for _ in range(N_STEPS if speaks is not None or free else N_STEPS_KNOWN_FIELD if known_field else N_STEPS_NO_FIELD):
        sums = problem.sums_at(carried)
        H = {
            (i, j): sums.H[k]
            for k, (i, j) in enumerate((i, j) for i in range(n_parameters) for j in range(i, n_parameters))
        }
        g = [sums.g[index] for index in range(n_parameters)]
        g[-1] = g[-1] + ridge * array_api.log(carried[n_parameters - 1] / problem.reference_time)
        damping = {index: 1e-3 * H[index, index] + 1e-6 * variance for index in range(n_amplitudes)}
        damping[n_parameters - 1] = 1e-3 * H[n_parameters - 1, n_parameters - 1] + ridge
        if free:
            damping[n_amplitudes] = 1e-3 * H[n_amplitudes, n_amplitudes] + variance / (OWN_SD * layout.field_sd) ** 2
        block = {(i, j): H[q, r] for i, q in enumerate(own) for j, r in enumerate(own) if i <= j}
        factors = Factors.of(block, [damping[row] for row in own])
        step = factors.solve([g[row] for row in own])
        rows = [carried[index] for index in range(n_parameters)]
        if speaks is not None:
            across = [H[min(row, n_amplitudes), max(row, n_amplitudes)] for row in own]
            follow = factors.solve(across)  # how the voxel's own parameters follow the field
            g_field = g[n_amplitudes] - sum(h * d for h, d in zip(across, step))  # of the misfit at the voxel's best
            h_field = H[n_amplitudes, n_amplitudes] - sum(h * d for h, d in zip(across, follow))
            change, mean = _field_step(
                layout, rows[n_amplitudes], mean, g_field, h_field, H[n_amplitudes, n_amplitudes], variance, speaks
            )
            step = [d + c * change for d, c in zip(step, follow)]
            rows[n_amplitudes] = _moved_field(layout, rows[n_amplitudes], change)
        elif free:
            rows[n_amplitudes] = _moved_field(
                layout, rows[n_amplitudes], array_api.clip(-step[n_amplitudes], -layout.field_sd, layout.field_sd)
            )
        for index, parameter in enumerate(layout.carried[:n_amplitudes]):
            least, most = (0.5 * rows[index], 2.0 * rows[index]) if n_amplitudes == 1 else parameter.bounds
            rows[index] = array_api.clip(rows[index] - step[index], least, most)
        rows[-1] = array_api.clip(rows[-1] * array_api.exp(array_api.clip(-step[-1], -0.5, 0.5)), low, high)
        carried = array_api.stack(rows)
    return carried


def _field_step(
    layout: Layout,
    here: Array,
    mean: Array,
    g: Array,
    h: Array,
    undiminished: Array,
    s2: Array,
    speaks: Array,
) -> tuple[Array, Array]:
    """Return the step of a field that neighbourhoods share, and its mean over each image (n, 1, 1).

    Parameters
    ----------
    here, mean
        The field, and the mean of the step before.
    g, h
        Gradient and curvature of a voxel's misfit in the field, at its best amplitude and time.
    undiminished
        That curvature with amplitude and time held.
    """
    array_api, deviation = namespace(g), layout.field_sd
    h = array_api.where(h > 0, h, 0 * h)
    own = ((OWN_SD * deviation) ** 2 * h / s2) ** 2
    says = speaks * own / (1 + own) / (s2 + g * g / (9.0 * h + 1e-9 * undiminished + 1e-20))
    x, prior = layout.coordinate(here), 1 / (MEAN_SD * deviation) ** 2
    total = (h * says).sum((1, 2))[:, None, None] + prior
    mean = (((h * x - g) * says).sum((1, 2))[:, None, None] + mean * prior) / total
    assert layout.field is not None
    grid = field_grid(layout)
    low, high = (float(layout.coordinate(end)) for end in (grid[0], grid[-1]))
    mean = array_api.clip(mean, low, high)
    departure = 1 / (DEPARTURE * deviation) ** 2
    change = -(gaussian_sum(g * says, WIDTH) + (x - mean) * departure) / (gaussian_sum(h * says, WIDTH) + departure)
    return array_api.clip(change, -LARGEST_STEP * deviation, LARGEST_STEP * deviation), mean


def _moved_field(layout: Layout, here: Array, change: Array) -> Array:
    assert layout.field is not None
    return namespace(here).clip(layout.field_at(layout.coordinate(here) + change), *layout.field.bounds)


def _with_amplitudes(problem: Problem, field_map: Array | None, T: Array) -> Array:
    """Return the estimate (P, n, h, w) with the best amplitudes for the field and T."""
    layout, S = problem.layout, problem.S
    array_api, n_amplitudes = namespace(S), layout.n_amplitudes
    one = 0 * T + 1
    others = [T] if layout.field is None else [field_map, T]
    if has_fast_table(problem.model):
        f = problem.model.signal(layout.kappa_of(array_api.stack([one, *others]), problem.known))
        A = (f * S).sum(0) / ((f * f).sum(0) + 1e-12)
        return array_api.stack([array_api.where(A > 0, A, 0 * A), *others])
    if not n_amplitudes:
        return array_api.stack(others)
    begin = [one] + [0 * T] * (n_amplitudes - 1)
    sums, n_parameters = problem.sums_at(array_api.stack([*begin, *others])), len(layout.carried)
    H = {
        (i, j): sums.H[k]
        for k, (i, j) in enumerate((i, j) for i in range(n_parameters) for j in range(i, n_parameters))
    }
    damping = [1e-6 * H[index, index] + 1e-12 for index in range(n_amplitudes)]
    step = Factors.of({(i, j): H[i, j] for i in range(n_amplitudes) for j in range(i, n_amplitudes)}, damping).solve(
        sums.g[:n_amplitudes]
    )
    A = [array_api.clip(b - d, *parameter.bounds) for b, d, parameter in zip(begin, step, layout.carried)]
    return array_api.stack([*A, *others])


def _take(xp: Any, Z: Array, k: Array) -> Array:
    """Return Z[m, k[m]]."""
    where = {"device": k.device} if is_torch(k) else {}  # arrays of NumPy 1 have none
    at = k + xp.arange(Z.shape[0], dtype=k.dtype, **where) * Z.shape[1]
    return xp.reshape(Z, (-1,))[at]


def _least(xp: Any, C: Array, grid: NDArray[np.float64]) -> Array:
    """Return the field of the least cost (nF, n) of each image, by a parabola between grid points."""
    step = float(grid[1] - grid[0])
    k = xp.clip(xp.argmin(C, axis=0), 1, len(grid) - 2)
    a, b, c = (_take(xp, C.T, k + d) for d in (-1, 0, 1))
    curve = a - 2 * b + c
    curve = xp.where(curve > 1e-9, curve, 0 * curve + 1e-9)
    shift = xp.clip(0.5 * (a - c) / curve, -1.0, 1.0)
    return float(grid[0]) + step * (xp.astype(k, C.dtype) + shift)
