"""Which of several models of the same images they support: Akaike's information criterion over a sample of voxels.

Each voxel is fitted by least squares on a grid of the time and, if there is one, the field, with the amplitude solved.
The field varies slowly in space, so a volume has far fewer values of it than voxels: it is one value in each of K
blocks of neighbouring voxels, and the criterion itself chooses K, from one block to one voxel each. A model with a
field in every voxel would pay for V parameters that the images do not have, and lose at low SNR although it is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.estimators.base import by_time
from rimap.estimators.checks.noise_floor import excess
from rimap.estimators.sigma import chi2
from rimap.signals.base import SignalModel

Floats = NDArray[np.float64]
#: What is known of the parameters of a model, by name: a number, or one for each voxel (V,).
Known = Mapping[str, float | Floats]

#: Nodes of the grid along the time and the field. Between them a parabola gives the optimum.
TIMES, FIELDS = 128, 25
#: Images whose fitted signal is below so many σ are left out, with all later ones: the noise floor has another shape
#: for every receiver. The floor of the others is subtracted.
FLOOR = 3.0
#: No image is trusted to less than this share of the root mean square of all.
PRECISION = 1e-3
#: Voxels are left out whose χ² exceeds that of noise by this factor with the best model: none describes them (flow,
#: edges).
OUTLIER = 8.0
#: Steps in ln T to which a given map of a further parameter is rounded.
STEP = 0.15


@dataclass(frozen=True)
class Evidence:
    """What the images say of several models.

    Parameters
    ----------
    aic
        Akaike's information criterion of each model (C,), up to a constant: Σ χ² + 2 × parameters. The lowest is the
        best.
    n_voxels
        How many voxels were compared.
    sigma
        The noise level that was found, the same for all models, in the unit of the images.

    References
    ----------
    Akaike 1974, doi:10.1109/TAC.1974.1100705.
    """

    aic: Floats
    n_voxels: int
    sigma: float


@dataclass(frozen=True)
class _Fit:
    """Least squares of one model.

    Parameters
    ----------
    rss
        Residual sum of squares at each node of the field (F, V); NaN in voxels where a known map has no value.
    signal
        What is fitted at the best node, (N, V).
    has_field
        Whether the field is estimated; if it is known or absent, there is one row.
    """

    rss: Floats
    signal: Floats
    has_field: bool

    def least(self) -> Floats:
        """Return the residual sum of squares of each voxel with its own field."""
        return np.maximum(_least(self.rss), 0)


def evidence(
    images: Floats, positions: Floats, models: Sequence[SignalModel], known: Sequence[Known], *, has_floor: bool
) -> Evidence:
    """Compare models of one amplitude, a time and at most one field that is not known.

    σ comes from the residuals of the model that describes the median voxel best, and is the same for all.

    Parameters
    ----------
    images
        (N, V), of voxels that are spread over the volume.
    positions
        (D, V), mm.
    models
        Models of these images, C of them; the first one is the simplest.
    known
        What is known of the parameters, for each model: the defaults of given parameters among them.
    has_floor
        Whether the images are magnitudes, which noise keeps above zero.
    """
    S, weight, sigma, order = images, np.ones(images.shape), 0.0, by_time(models[0])
    ranges = [model.time.searched for model in models]
    times = np.geomspace(max(low for low, _ in ranges), min(high for _, high in ranges), TIMES)
    for last in (False, False, True) if has_floor else (True,):
        some = range(len(models)) if last else (0, len(models) // 2)
        fits = [_fit(models[c], times, S, weight, known[c]) for c in some]
        levels = [_sigma(fit, weight) for fit in fits]
        if not np.isfinite(levels).any():  # too few images above the noise
            return Evidence(np.zeros(len(models)), 0, sigma)
        best = fits[int(np.nanargmin(levels))]
        sigma = max(float(np.nanmin(levels)), PRECISION * float(np.sqrt(np.mean(images**2))))
        if not last:
            above = np.empty_like(weight)
            above[order] = np.cumprod(best.signal[order] > FLOOR * sigma, axis=0)
            S, weight = images - sigma * excess(best.signal / sigma) * above, above
    most = max(2 + fit.has_field for fit in fits)
    count = weight.sum(0)
    described = best.least() < OUTLIER * sigma**2 * np.maximum(count, 1)
    used = (count > most) & described & np.logical_and.reduce([np.isfinite(fit.rss).all(0) for fit in fits])
    if not used.any():
        return Evidence(np.zeros(len(models)), 0, sigma)
    tree = _tree(positions[:, used])
    aic = np.array([_criterion(fit.rss[:, used] / sigma**2, fit.has_field, tree) for fit in fits])
    return Evidence(aic, int(used.sum()), sigma)


def _fit(model: SignalModel, times: Floats, S: Floats, weight: Floats, known: Known) -> _Fit:
    """Fit all voxels; those that share the known parameters (rounded) share the atoms."""
    V, field = S.shape[1], model.field
    free = field is not None and field.name not in known
    maps = {name: np.asarray(value, dtype=float) for name, value in known.items() if np.ndim(value) == 1}
    own = maps.pop(field.name, None) if field is not None else None  # the known field of each voxel
    F = np.linspace(*field.bounds, FIELDS) if field is not None and (free or own is not None) else np.zeros(1)
    rounded = [np.round(np.log(np.where(map_ > 0, map_, np.nan)) / STEP) for map_ in maps.values()]
    rss, signal = np.full((len(F), V), np.nan), np.zeros_like(S)
    keys = np.stack(rounded, axis=1) if rounded else np.zeros((V, 0))
    whole = np.isfinite(keys).all(1) if own is None else np.isfinite(keys).all(1) & np.isfinite(own)
    for key in np.unique(keys[whole], axis=0) if rounded else keys[:1]:
        at = np.flatnonzero(whole & (keys == key).all(1))
        numbers = {name: float(value) for name, value in known.items() if np.ndim(value) == 0}
        numbers |= dict(zip(maps, np.exp(key * STEP).tolist()))
        moves = field.name if field is not None and len(F) > 1 else ""
        rss[:, at], signal[:, at] = _profile(_atoms(model, times, F, moves, numbers), S[:, at], weight[:, at])
    return _Fit(rss if own is None else _at(rss, F, own), signal, free)


def _atoms(model: SignalModel, times: Floats, F: Floats, moves: str, numbers: Mapping[str, float]) -> Floats:
    """Return the shape (N, F, T) on the grid; `moves` is the name of the field that has an axis."""
    values: dict[str, Any] = {name: np.array([[value]]) for name, value in numbers.items()}
    values |= {model.time.name: times[None]}
    values |= {moves: F[:, None]} if moves else {}
    found = np.asarray(
        model.shape(**{parameter.name: values[parameter.name] for parameter in model.nonlinear}), dtype=float
    )
    return np.broadcast_to(found, (model.n_images, len(F), TIMES))


def _profile(atoms: Floats, S: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return the least residual over time and amplitude at each field (F, V), and the signal at the best field (N, V).

    The amplitude is not negative. Around the best time the explained power is a parabola in ln T.
    """
    V = S.shape[1]
    voxels, power = np.arange(V), (weight * S * S).sum(0)
    rss, best = np.empty((atoms.shape[1], V)), np.empty((atoms.shape[1], V), int)
    for f in range(atoms.shape[1]):
        atom = atoms[:, f]
        explained = np.maximum((weight * S).T @ atom, 0) ** 2 / np.maximum(weight.T @ atom**2, 1e-300)
        k = np.clip(explained.argmax(1), 1, TIMES - 2)
        rss[f] = power + _parabola(*(-explained[voxels, k + side] for side in (-1, 0, 1)))
        best[f] = k
    f = rss.argmin(0)
    chosen = atoms[:, f, best[f, voxels]]
    amplitude = np.maximum((weight * S * chosen).sum(0), 0) / np.maximum((weight * chosen**2).sum(0), 1e-300)
    return np.maximum(rss, 0), amplitude * chosen


def _parabola(left: Floats, middle: Floats, right: Floats) -> Floats:
    """Return the minimum of a parabola through three neighbouring nodes; beyond them, the least of the three."""
    bend = left - 2 * middle + right
    least = np.minimum(np.minimum(left, right), middle)
    inside = (bend > 0) & (abs(right - left) <= bend)
    return np.where(inside, np.minimum(least, middle - (right - left) ** 2 / (8 * np.where(inside, bend, 1))), least)


def _least(curves: Floats) -> Floats:
    """Return the minimum along the first axis of curves (F, K), between the nodes as well."""
    if len(curves) < 3:
        return np.asarray(curves.min(0))
    k, columns = np.clip(np.nan_to_num(curves, nan=np.inf).argmin(0), 1, len(curves) - 2), np.arange(curves.shape[1])
    return _parabola(curves[k - 1, columns], curves[k, columns], curves[k + 1, columns])


def _at(curves: Floats, F: Floats, values: Floats) -> Floats:
    """Return curves (F, V) at the known field of each voxel, (1, V): by the parabola through the nearest nodes."""
    step, columns = F[1] - F[0], np.arange(len(values))
    k = np.clip(np.round((np.nan_to_num(values, nan=F[0]) - F[0]) / step).astype(int), 1, len(F) - 2)
    t = (values - F[k]) / step
    left, middle, right = curves[k - 1, columns], curves[k, columns], curves[k + 1, columns]
    found = middle + t * (right - left) / 2 + t**2 * (left - 2 * middle + right) / 2
    return np.asarray(np.maximum(found, 0)[None])


def _sigma(fit: _Fit, weight: Floats) -> float:
    """Return σ from the median residual, with the degrees of freedom of a voxel that is fitted by itself."""
    free = weight.sum(0).astype(int) - 2 - fit.has_field
    rss = fit.least()
    usable = (free > 0) & np.isfinite(rss)
    if not usable.any():
        return float("nan")
    middle = np.array([0.0, *(chi2(0.5, n) for n in range(1, free.max() + 1))])
    return float(np.sqrt(np.median(np.maximum(rss[usable], 0) / middle[free[usable]])))


def _criterion(chi2s: Floats, has_field: bool, tree: Sequence[NDArray[np.intp]]) -> float:
    """Return Σ χ² + 2 × parameters. Amplitude and time, two in each voxel for every model, are left out."""
    if not has_field:
        return float(chi2s.sum())
    found, own = [], np.maximum(_least(chi2s), 0)
    for block in tree:
        n = int(block.max()) + 1
        together: Floats = np.stack([np.bincount(block, row, n) for row in chi2s]).astype(
            float
        )  # one field for each block
        # One field cannot fit better than a field of each voxel's own; a parabola through distant nodes might.
        found.append(float(np.maximum(_least(together), np.bincount(block, own, n)).sum()) + 2 * n)
    return min(found)


def _tree(positions: Floats) -> list[NDArray[np.intp]]:
    """Return the block of each voxel (V,) for 1, 2, 4 … blocks: each is cut at its median along its longest edge."""
    V = positions.shape[1]
    block = np.zeros(V, np.intp)
    found = [block]
    while (n := int(block.max()) + 1) < V:
        halves = np.zeros(V, np.intp)
        new = 0
        for b in range(n):
            at = np.flatnonzero(block == b)
            longest = int(np.ptp(positions[:, at], axis=1).argmax())
            order = at[np.argsort(positions[longest, at], kind="stable")]
            for half in (order[: len(at) // 2], order[len(at) // 2 :]):
                halves[half] = new
                new += len(half) > 0
        block = halves
        found.append(block)
    return found
