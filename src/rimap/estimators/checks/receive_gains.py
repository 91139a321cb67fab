"""Images of one series with different receive gains, or of different sessions: the fit absorbs them, T is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import unreliable
from rimap.arrays import at_most
from rimap.estimators.checks.smooth_refit import orthonormal, refit, weights
from rimap.series import WeightedSeries
from rimap.signals.base import FIELD, SignalModel

Floats = NDArray[np.float64]

#: Gains that differ by less do not matter; of repeats, which are directly comparable, and of air.
_SMALL = 0.04
#: Values of air are noise if the ratio of their quartiles is that of a Rayleigh distribution, or of the moduli of a
#: normal one.
_RAYLEIGH, _NORMAL, _NEAR = 2.195, 3.610, 0.15
#: or by chance: so many standard errors, which are these numbers over √V.
_CHANCE, _OF_RAYLEIGH, _OF_NORMAL = 4.0, 2.17, 6.2
#: Number of air voxels that determine its level, and number of standard errors by which gains must differ.
_AIR, _SURE = 300, 6.0
#: Of so many images, the others show which voxels of air are darkest.
_SEVERAL = 4
#: Fewer voxels with signal do not show gains.
_VOXELS = 50
#: With more images, a field that is free in each voxel leaves enough of a gain in the residuals.
_FEW_IMAGES = 12
#: About so many values are fitted again with a smooth field, of as many voxels as have them; so many are looked at
#: where that is not needed.
_REFITTED, _OF_MANY = 3_600, 15_000
#: At most so many are read.
_OF_AIR = 20_000
#: Of the places of rounded values within their steps.
_SEED = 3
#: So much of the residuals' power, and so large a range of gains, must the gains explain that fit best. (Of good scans
#: they explain at most 0.02 at an SNR of 5. The error of the model in a head in vivo looks like gains of up to 0.05.)
_EXPLAINED, _RANGE = 0.04, 0.055
#: Gains that are determined worse than the best by this factor (of the information) are not.
_DETERMINED = 1e-3
#: Magnitudes show the gain of an image if the root mean square of its signal exceeds so many σ.
_STRONG = 3.0


@dataclass(frozen=True, eq=False)
class Bright:
    """Voxels with much signal (V): images, what the fit expects, and κ.

    Parameters
    ----------
    S, expected
        (N, V).
    kappa
        (Q, V).
    free
        Positions in κ of what was estimated in each voxel by itself.
    places
        (D, V), where the voxels are.
    """

    S: Floats
    expected: Floats
    kappa: Floats
    free: list[int]
    places: Floats


def gain_warnings(
    series: WeightedSeries, bright: Bright, air: NDArray[np.bool_], *, from_fit: bool = True
) -> tuple[str, ...]:
    """Return a warning if the images have different gains: seen in repeats, in the noise of air, or in the residuals.

    Parameters
    ----------
    series
        The images.
    bright
        Voxels with signal.
    air
        (*X), voxels without signal.
    from_fit
        Whether the residuals can be used: not if the images contradict the model in a more serious way.
    """
    model = series.model
    for source, gains in (
        ("repeated images", _of_repeats(model, bright.S)),
        ("voxels of air", _of_air(series.images, air, model.is_signed)),
        ("the residuals", _of_fit(model, bright) if from_fit else None),
    ):
        if gains is None:
            continue
        low, high = int(np.argmin(gains)), int(np.argmax(gains))
        axis, t = model.axis, model.times
        return (
            unreliable(
                f"The receive gain differs between the images: {source} show a ratio of {gains[high] / gains[low]:.2f} "
                f"between image {high + 1} ({axis.text(t[high])}) and image {low + 1} ({axis.text(t[low])}). "
                f"{model.time.name} is then wrong by "
                "more than this. Check the scaling of the images, and that all are of one session. Until then do not "
                "rely on these maps."
            ),
        )
    return ()


def _of_repeats(model: SignalModel, S: Floats) -> Floats | None:
    """Return gains (N) relative to the mean of the repeats of an image, `None` if they are alike.

    Repeats that are little more than noise differ by chance: gains count if they differ by more than their error.
    """
    conditions = model.conditions
    gains = np.ones(len(S))
    for one in set(conditions):
        same = [n for n, condition in enumerate(conditions) if condition == one]
        if len(same) < 2:
            continue
        mean = S[same].mean(0)
        power = float((mean**2).sum())
        if not power > 0:
            continue
        found = (S[same] * mean).sum(1) / power
        rest = S[same] - found[:, None] * mean
        error = np.sqrt(2 * (rest**2).sum() / ((len(same) - 1) * S.shape[1] * power))  # of the difference of two
        if np.ptp(found) > max(_SMALL, _SURE * error):
            gains[same] = found
    return gains if (gains != 1).any() else None


def _of_air(images: NDArray[Any], air: NDArray[np.bool_], signed: bool) -> Floats | None:
    """Return the level of noise in each image (N) relative to the mean, `None` if it is alike or no noise."""
    where = np.flatnonzero(air)
    if len(where) < _AIR:
        return None
    where = at_most(where, _OF_AIR)
    places = np.unravel_index(where, air.shape)
    values = np.stack([image[places] for image in images])
    values = values[:, (values != 0).all(0)]
    if values.shape[1] < _AIR:
        return None
    values = _darker_half(values)
    # The steps of whole numbers can look like gains, and without them ringing in air, whose steps hide it, can.
    return None if _levels(values, signed) is None else _levels(_without_steps(values), signed)


def _levels(values: NDArray[Any], signed: bool) -> Floats | None:
    """Return the level of values (N, V) in each image relative to the mean, `None` if it is alike or no noise."""
    order = [(q * (values.shape[1] - 1)) // 4 for q in (1, 2, 3)]
    low, level, high = np.partition(abs(values), order, axis=1)[:, order].T.astype(float)  # tissue does not matter
    ratio, error = (_NORMAL, _OF_NORMAL) if signed else (_RAYLEIGH, _OF_RAYLEIGH)
    near = max(_NEAR, _CHANCE * error / np.sqrt(values.shape[1]))
    if not (low > 0).all() or (abs(high / low - ratio) > near).any():
        return None
    gains = np.asarray(level / level.mean())
    error = (1.2 if signed else 0.6) / np.sqrt(values.shape[1])  # of a median, relative
    return gains if np.ptp(gains) > max(_SMALL, _SURE * error) else None


def _darker_half(values: NDArray[Any]) -> NDArray[Any]:
    """Return half of the values (N, V) of each of several images: those of voxels that are dark in the other images.

    Ringing of truncated k-spaces reaches into air, in each image as much as that is bright. The image itself has no say
    in the choice: its noise is that of all of air, whatever its gain.
    """
    if len(values) < _SEVERAL:
        return values
    power = np.square(values, dtype=float)
    others = power.sum(0) - power
    number = values.shape[1] // 2
    return np.stack([v[np.argpartition(p, number)[:number]] for v, p in zip(values, others)])


def _without_steps(values: NDArray[Any]) -> NDArray[Any]:
    """Return rounded values (N, V), each anywhere within its step: the median of whole numbers is a whole number, whose
    next one can differ by more than a gain that matters.
    """
    steps = np.zeros((len(values), 1))
    for n, image in enumerate(values):  # each may be scaled in its own way
        levels = np.unique(image)
        if 1 < levels.size <= image.size // 2:  # rounded
            steps[n] = float(np.diff(levels).min())
    return np.asarray(values + steps * np.random.default_rng(_SEED).uniform(-0.5, 0.5, values.shape))


def _of_fit(model: SignalModel, bright: Bright) -> Floats | None:
    """Return the gains (N) that fit best, `None` if they are alike or not what the residuals are.

    To first order a gain 1 + δ of one image adds (1 − P) e f δ to the residual of a voxel, where P projects on what its
    fit absorbs: T differs between voxels, the δ do not. A field that is free in each voxel absorbs too much of them, so
    the voxels are fitted again with a smooth one. For decays, gains are too much like other deviations (several
    compartments, stimulated echoes) to be distinguished from them.
    """
    S, N = bright.S, len(bright.S)
    if not model.changes_sign or N - len(bright.free) < 1 or S.shape[1] < _VOXELS:
        return None
    S, f, kappa, free = _with_smooth_field(model, bright)
    J = np.asarray(model.partials(kappa))[:, free]
    good = np.isfinite(J).all((0, 1)) & np.isfinite(f).all(0)
    J, f, S = J[..., good], f[:, good], S[:, good]
    absorbs = N <= _FEW_IMAGES and any(model.parameters[q].role == FIELD for q in free)
    if absorbs or J.shape[-1] < _VOXELS:
        return None
    basis = orthonormal(J)
    rest = S - f
    for q in basis:
        rest = rest - q * (q * rest).sum(0)
    squares, weight = (rest**2).sum(0), weights(f, rest)
    # Σ DᵀD and Σ Dᵀr with D = P diag f: P is a projection, so PᵀP = P = 1 − Σ qqᵀ, and Pr = r
    H, b = np.diag((weight * f**2).sum(1)), (weight * f * rest).sum(1)
    for q in basis:
        H -= (weight * f * q) @ (f * q).T
    value, vector = np.linalg.eigh(H)
    sure = value > _DETERMINED * value[-1]
    delta = vector[:, sure] @ ((vector[:, sure].T @ b) / value[sure])
    power = float((weight * squares).sum())
    explained = float(b @ delta) / power if power > 0 else 0.0
    noise = power / max(J.shape[-1] * (N - len(free)), 1)
    error = np.sqrt(noise * ((vector[:, sure] ** 2) / value[sure]).sum(1).max())
    gains = 1 + delta
    if model.magnitude:  # a mean magnitude exceeds a weak signal, as if that image had a gain
        sigma = np.sqrt(np.median(squares) / (N - len(free)))
        strong = np.sqrt((f**2).mean(1)) > _STRONG * sigma
        gains[~strong] = np.median(gains[strong]) if strong.any() else 1.0
    significant = np.ptp(gains) > max(_RANGE, _SURE * error) and gains.min() > 0  # else it is another deviation
    return gains if significant and explained > _EXPLAINED else None


def _with_smooth_field(model: SignalModel, bright: Bright) -> tuple[Floats, Floats, Floats, list[int]]:
    """Return images, what a fit with a smooth field expects, its κ, and what is free in it."""
    S, f, kappa, free = bright.S, bright.expected, bright.kappa, bright.free
    if len(S) > _FEW_IMAGES:
        some = at_most(np.arange(S.shape[1]), max(_OF_MANY // len(S), 2 * _VOXELS))
        return S[:, some], f[:, some], kappa[:, some], free
    if not any(model.parameters[q].smooth for q in free):
        return S, f, kappa, free
    with np.errstate(all="ignore"):
        good = np.flatnonzero(np.isfinite(kappa).all(0) & np.isfinite(f).all(0))
        good = at_most(good, max(_REFITTED // len(S), 2 * _VOXELS))
        good = good[np.isfinite(model.partials(kappa[:, good])).all((0, 1))]
        if len(good) < _VOXELS:
            return S, f, kappa, free
        kappa, free = refit(model, S[:, good], kappa[:, good], free, bright.places[:, good])
        return S[:, good], np.asarray(model.signal(kappa)), kappa, free
