"""Training patches (§4.2): labels cut from a head, tissue values drawn, textures, structures, signal, noise.

`simulate_batch` is a pure function of the recipe, the anatomies and an index. Each patch has its own random stream,
seeded by (seed, patch), and so does its noise; the times of a batch have one by (seed, batch). So a patch is the
same in any batch, worker and machine, to the rounding of exponentials (and for one NumPy series of releases:
NumPy may change its samplers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import sici

from rimap.errors import InputError
from rimap.likelihood import Gaussian, cramer_rao_sd
from rimap.signals.base import FIELD, FREE, TIME, Parameter, SignalModel
from rimap.simulation.acquisitions import Acquisition, draw_acquisition, stream
from rimap.simulation.anatomies import Anatomy
from rimap.simulation.faint_structures import Faint, put_faint
from rimap.simulation.random_fields import smooth_kernel
from rimap.simulation.recipe import PatchRecipe, Range, model_class
from rimap.simulation.tissues import BACKGROUND_T, BRAIN_LABELS, FLOOR, LABELS, property_of

F32 = NDArray[np.float32]
_MARGIN = 2  # pixels around a patch, so that its blur does not see its edge
_LARGEST_SHIFT = 0.35  # pixels
#: Whether each label is brain.
_IS_BRAIN = np.isin(np.arange(len(LABELS)), BRAIN_LABELS)


class Structure(IntEnum):
    """A structure that was added to the tissues of a patch."""

    NONE = 0
    LESION = 1
    VOXEL = 2
    LINE = 3
    FAINT = 4


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches with their truth. All share the times.

    Parameters
    ----------
    images
        (b, N, h, w) float32, with noise.
    kappa
        (b, Q, h, w) float32, truth; T in ms. In the background amplitudes are zero and T is 1000 ms.
    sigma
        (b,) float32.
    model
        The signal model of the batch.
    rician
        Whether the noise is Rician.
    labels
        (b, h, w) uint8, BrainWeb.
    structures
        (b, h, w) uint8, `Structure`.
    index
        Which batch it is.
    hidden
        Whether the scan had a setting that the model does not know.
    known
        Parameters that the model takes as given, as they were measured: numbers or maps (b, h, w), by name.
    """

    images: F32
    kappa: F32
    sigma: F32
    model: SignalModel
    rician: bool
    labels: NDArray[np.uint8]
    structures: NDArray[np.uint8]
    index: int = 0
    hidden: bool = False
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weight(self) -> NDArray[np.bool_]:
        """Tissue mask (b, h, w). T has a true value only inside."""
        return np.asarray(self.labels > 0)

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Brain mask (b, h, w)."""
        return np.asarray(_IS_BRAIN[self.labels])


def simulate_batch(recipe: PatchRecipe, anatomies: Sequence[Anatomy], index: int, batch_size: int) -> Batch:
    """Return batch `index`: the patches `index · batch_size` and following.

    Parameters
    ----------
    anatomies
        Patches take turns over them.
    batch_size
        Images in the batch; a multiple of `recipe.noise_draws`.

    Raises
    ------
    InputError
        Where `batch_size` is not a multiple of `recipe.noise_draws`.
    """
    draws = recipe.noise_draws
    if batch_size < 1 or batch_size % draws:
        raise InputError(f"batch_size: expected a multiple of noise_draws, {draws}, got {batch_size}.")
    first = index * (batch_size // draws)
    numbers = np.arange(first, first + batch_size // draws)
    acquisition = draw_acquisition(recipe, stream(recipe.seed, 1, index))
    truth = [draw_patch(recipe, anatomies[int(number) % len(anatomies)], int(number)) for number in numbers]
    model = acquisition.model
    for number, t in zip(numbers, truth):
        _put_faint(recipe, model, t, int(number))
    kappa = np.stack([t.kappa for t in truth])
    if acquisition.hidden:
        kappa = np.moveaxis(model.effective(np.moveaxis(kappa, 1, 0), **acquisition.hidden), 0, 1)
    for row, parameter in enumerate(model.parameters):  # some boxes depend on the settings
        np.clip(kappa[:, row], *parameter.bounds, out=kappa[:, row])
    measured = [draw_measured(recipe, t.kappa, int(number)) for t, number in zip(truth, numbers)]
    known: dict[str, Any] = {parameter.name: parameter.start for parameter in model.parameters if parameter.given}
    known |= {name: np.repeat(np.stack([m[name] for m in measured]), draws, axis=0) for name in measured[0]}
    clean = np.asarray(model.signal(np.moveaxis(kappa, 1, 0)), np.float32)  # (N, b, h, w)
    for i, t in enumerate(truth):
        if t.ringing is not None:
            clean[:, i] = _rung(model, kappa[i], t.ringing)
    images = _noisy(clean.swapaxes(0, 1), recipe, acquisition, numbers, np.array([t.sigma for t in truth], np.float32))

    def repeat(x: list[object]) -> NDArray[np.generic]:
        return np.repeat(np.stack(x), draws, axis=0)  # type: ignore[arg-type]

    return Batch(
        images=images,
        kappa=np.repeat(kappa, draws, axis=0),
        sigma=np.repeat(np.array([t.sigma for t in truth], np.float32), draws),
        model=model,
        rician=acquisition.rician,
        labels=np.repeat(np.stack([t.labels for t in truth]), draws, axis=0),
        structures=np.repeat(np.stack([t.structures for t in truth]), draws, axis=0),
        index=index,
        hidden=bool(acquisition.hidden),
        known=known,
    )


def _put_faint(recipe: PatchRecipe, model: SignalModel, truth: Truth, number: int) -> None:
    """Put structures into a patch, in place, whose contrast follows from the noise: their detectability is drawn."""
    rng = stream(recipe.seed, 4, number)
    if recipe.faint_share == 0 or truth.ringing is not None or rng.random() >= recipe.faint_share:
        return
    tissue, kappa = truth.labels > 0, truth.kappa
    known = {parameter.name for parameter in model.nonlinear if parameter is not model.time}
    with np.errstate(all="ignore"):
        deviation = cramer_rao_sd(model, Gaussian(sigma=truth.sigma), kappa.astype(float), held=known)[
            model.index(model.time.name)
        ]
    time, amplitude = kappa[model.index(model.time.name)], model.amplitude(kappa)
    relative = np.where(np.isfinite(deviation), deviation / time, 0.0).astype(np.float32)
    faint = Faint(recipe.faint_blobs, recipe.faint_radius, recipe.faint_detectability)
    changed = put_faint(amplitude, time, relative, tissue, faint, rng)
    np.clip(time, *model.time.bounds, out=time)
    truth.structures[changed] = Structure.FAINT


def _noisy(clean: F32, recipe: PatchRecipe, how: Acquisition, numbers: NDArray[np.int64], sigma: F32) -> F32:
    """Add noise (Eq. 1) to the images (b, N, h, w), one stream for each patch and draw."""
    draws, one = recipe.noise_draws, clean.shape[1:]
    images = np.empty((len(numbers) * draws, *one), np.float32)
    for index, number in enumerate(numbers):
        for d in range(draws):
            out, rng = images[index * draws + d], stream(recipe.seed, 2, int(number), d)
            rng.standard_normal(dtype=np.float32, out=out)
            out *= sigma[index]
            out += clean[index]
            if how.rician:
                np.hypot(out, sigma[index] * rng.standard_normal(one, dtype=np.float32), out=out)
    return images


@dataclass(frozen=True, eq=False)
class Truth:
    """One patch before its signal: κ (Q, h, w), labels and structures (h, w), σ, where it was cut, Gibbs ringing."""

    kappa: F32
    labels: NDArray[np.uint8]
    structures: NDArray[np.uint8]
    sigma: float
    centre: tuple[int, int, int]
    axis: int
    ringing: Range | None = None


def draw_patch(recipe: PatchRecipe, anatomy: Anatomy, number: int) -> Truth:
    """Return the truth of patch `number`."""
    rng = stream(recipe.seed, 0, number)
    ringing = _draw_ringing(recipe, number)
    if ringing is not None:  # what is as small as a pixel has no sharp truth between pixels
        recipe = replace(recipe, white_share=0.0, odd_share=0.0, line_share=0.0)
    labels, centre, axis = cut_labels(recipe, anatomy, rng)
    tissue = labels > 0
    has_white = rng.random() < recipe.white_share
    white = _amount(rng, recipe.white_relative) if has_white else 0.0
    smooth = _amount(rng, recipe.smooth_relative) if rng.random() < recipe.smooth_share else 0.0
    blur = _blur_matrix(labels.shape[0], _uniform(rng, recipe.blur))
    parameters = model_class(recipe.sequence).parameters
    maps: list[F32] = []
    first: F32 | None = None  # the values by tissue of the first amplitude
    for parameter in parameters:
        if parameter.role == FIELD and not property_of(parameter) and parameter.treatment != FREE:
            maps.append(_draw_field(recipe, parameter, labels.shape, rng))
            continue
        lut, spread = _tissue_values(recipe, parameter, rng, first)
        first = lut if parameter.amplitude and first is None else first
        value = lut[labels]
        if has_white:
            deviation = recipe.white_A if parameter.amplitude else recipe.white_T_ms if parameter.role == TIME else 0.0
            value += (deviation + white * value) * rng.standard_normal(labels.shape, dtype=np.float32)
        if smooth > 0:  # tissues differ in how strongly, and in which direction, they follow the field
            variation = _field(labels.shape, _uniform(rng, recipe.smooth_length), rng)
            value *= 1 + smooth * spread[labels] * variation
        np.maximum(value, FLOOR * lut[labels], out=value)
        if blur is not None:
            value = _blurred(value, tissue, blur, keep_edge=not parameter.amplitude)
        maps.append(value)
    inner = (slice(_MARGIN, -_MARGIN),) * 2
    kappa = np.stack([map_[inner] for map_ in maps]).astype(np.float32, copy=False)
    labels = labels[inner]
    amplitudes = [row for row, parameter in enumerate(parameters) if parameter.amplitude]
    time = next(row for row, parameter in enumerate(parameters) if parameter.role == TIME)
    amplitude = kappa[amplitudes[0]] if amplitudes else np.ones_like(kappa[time])
    structures = _draw_structures(recipe, kappa[time], amplitude, labels, rng)
    shading = _uniform(rng, recipe.shading)
    if shading > 0:
        received = np.exp(shading * _field(labels.shape, _uniform(rng, recipe.shading_length), rng))
        for q in amplitudes:
            kappa[q] *= received
    background = labels == 0
    for q, parameter in enumerate(parameters):
        np.clip(kappa[q], *parameter.bounds, out=kappa[q])
        if parameter.amplitude:
            kappa[q][background] = 0.0
        elif parameter.role == TIME:
            kappa[q][background] = np.clip(BACKGROUND_T, *parameter.bounds)
    sigma = _log_uniform(rng, recipe.sigma)
    return Truth(kappa, np.ascontiguousarray(labels), structures, sigma, centre, axis, ringing)


def _draw_ringing(recipe: PatchRecipe, number: int) -> Range | None:
    """Return where the samples lie between the edges of the pixels (y, x), or `None`; from a stream of its own."""
    if recipe.ringing_share == 0:
        return None
    draw, y, x = stream(recipe.seed, 3, number).random(3)
    return (_LARGEST_SHIFT * (2 * y - 1), _LARGEST_SHIFT * (2 * x - 1)) if draw < recipe.ringing_share else None


def _rung(model: SignalModel, kappa: F32, shift: Range) -> F32:
    """Return the images (N, h, w) of pixels of constant κ as a scanner samples them: k-space ends at ±½ per pixel."""
    S = (replace(model, signed=True) if model.magnitude else model).signal(kappa)  # type: ignore[call-arg]
    y, x = (_truncation(n, d) for n, d in zip(S.shape[1:], shift))
    S = y @ S @ x.T
    return np.asarray(S if model.is_signed else abs(S), np.float32)


def _truncation(n: int, shift: float) -> F32:
    """Return the matrix (n, n) from pixels, moved by `shift`, to samples: sinc, integrated over each pixel."""
    wide = np.arange(-n, 2 * n)  # the edge of the patch extends beyond it
    edges = np.append(wide, 2 * n) - 0.5 + shift - np.arange(n)[:, None]
    weights = np.diff(sici(np.pi * edges)[0] / np.pi, axis=1)
    out = np.zeros((n, n))
    np.add.at(out.T, np.clip(wide, 0, n - 1), weights.T)
    return np.asarray(out / out.sum(1, keepdims=True), np.float32)


def cut_labels(
    recipe: PatchRecipe, anatomy: Anatomy, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[int, int, int], int]:
    """Return the labels of a patch with its margin, its centre (voxel of the anatomy) and the normal of its plane.

    Centres are uniform over the brain mask: voxels of its bounding box are drawn until one is brain.
    """
    axis = recipe.orientations[int(rng.integers(len(recipe.orientations)))]
    while True:
        c = rng.integers(anatomy.low, anatomy.high)
        if _IS_BRAIN[anatomy.labels[c[0], c[1], c[2]]]:
            break
    size = recipe.patch_size + 2 * _MARGIN
    zoom = _uniform(rng, recipe.zoom)
    offset = np.floor((np.arange(size) - size // 2) * zoom + 0.5).astype(np.int64)
    plane = np.moveaxis(anatomy.labels, axis, 0)[c[axis]]  # a view
    rows, columns = (c[a] + offset for a in range(3) if a != axis)
    inside = [(x >= 0) & (x < length) for x, length in zip((rows, columns), plane.shape)]
    labels = plane[np.ix_(np.clip(rows, 0, plane.shape[0] - 1), np.clip(columns, 0, plane.shape[1] - 1))]
    labels = labels * (inside[0][:, None] & inside[1])
    if recipe.flips:
        flip = rng.integers(2, size=3)
        labels = labels[:: 1 - 2 * flip[0], :: 1 - 2 * flip[1]]
        labels = labels.T if flip[2] else labels
    return labels, (int(c[0]), int(c[1]), int(c[2])), axis


def _tissue_values(recipe: PatchRecipe, p: Parameter, rng: np.random.Generator, first: F32 | None) -> tuple[F32, F32]:
    """Return the patch's value of each tissue (12,), and how each follows the smooth field (12,).

    Parameters
    ----------
    first
        The values of the first amplitude, of which further ones are a part.
    """
    n = len(LABELS)
    if p.amplitude and first is not None:
        value = first * rng.uniform(*recipe.offset, n)
    elif p.role == FIELD and not property_of(p):  # of each voxel by itself: it follows the tissue
        low, high = recipe.field_mean if recipe.field_mean[1] > 0 else p.in_a_scan.mean
        value = rng.uniform(low, high, n)
    else:
        mean, deviation = recipe.table_of(p)
        value = np.maximum(mean + deviation * rng.standard_normal(n), FLOOR * mean)
        if p.role == TIME:
            wide = rng.random(n) < recipe.wide_share
            least, greatest = np.log(recipe.wide_T_ms)
            value = np.where(wide, np.exp(rng.uniform(least, greatest, n)), value)
            value[0] = BACKGROUND_T
    return value.astype(np.float32), rng.uniform(-1, 1, n).astype(np.float32) * np.float32(3**0.5)


def _draw_field(recipe: PatchRecipe, p: Parameter, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Return a field that does not follow the tissues, smooth or constant over the patch."""
    if recipe.field_mean[1] > 0:
        mean = _uniform(rng, recipe.field_mean)
    else:
        mean = (p.start or 0.0) - abs(recipe.field_gamma * float(rng.standard_normal()))  # §4.2
    deviation = _uniform(rng, recipe.field_spread)
    if deviation > 0:
        return np.asarray(mean * (1 + deviation * _field(shape, _uniform(rng, recipe.field_length), rng)), np.float32)
    return np.full(shape, mean, np.float32)


def draw_measured(recipe: PatchRecipe, kappa: F32, number: int) -> dict[str, F32]:
    """Return the maps (h, w) of patch `number` that were measured of the parameters that the model takes as given, by
    name.

    A map of a field has an error that is smooth over the patch and one that is not. A property of the tissue (T1 for a
    T2 scan) is not measured: it is known as the start that the model declares, and its truth differs.
    """
    found = {}
    for q, parameter in enumerate(model_class(recipe.sequence).parameters):
        if not parameter.given or property_of(parameter):
            continue
        rng = stream(recipe.seed, 4, number, q)
        deviation = _uniform(rng, recipe.given_error)
        error = _field(kappa.shape[1:], _uniform(rng, recipe.field_length), rng)
        error += 0.5 * rng.standard_normal(kappa.shape[1:], dtype=np.float32)
        found[parameter.name] = np.clip(kappa[q] * (1 + deviation * error), *parameter.bounds).astype(np.float32)
    return found


def _draw_structures(
    recipe: PatchRecipe, T: F32, amplitude: F32, labels: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Put lesions, lines and single voxels into T (and lesions into the amplitude), in place; return where they are."""
    structures = np.zeros(labels.shape, np.uint8)
    n = labels.shape[0]
    tissue = labels > 0
    low, high = recipe.wide_T_ms
    if rng.random() < recipe.lesion_share:
        grid = np.arange(n, dtype=np.float32)
        for _ in range(rng.integers(1, recipe.lesions + 1)):
            cy, cx = rng.uniform(0, n, 2)
            ry, rx = _log_uniform(rng, recipe.lesion_radius), _log_uniform(rng, recipe.lesion_radius)
            angle = rng.uniform(0, np.pi)
            y, x = grid[:, None] - cy, grid - cx
            u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
            where = ((u / rx) ** 2 + (v / ry) ** 2 < 1) & tissue
            value, factor = _log_uniform(rng, (low, high)), rng.uniform(0.7, 1.4)
            T[where] = value
            amplitude[where] *= np.float32(factor)
            structures[where] = Structure.LESION
    if rng.random() < recipe.line_share:
        for _ in range(rng.integers(1, recipe.lines + 1)):
            y, x = rng.integers(n, size=2)
            dy, dx = ((0, 1), (1, 0), (1, 1), (1, -1))[int(rng.integers(4))]
            k = np.arange(int(rng.integers(3, max(4, n // 2))))
            rows, columns = y + dy * k, x + dx * k
            valid = (rows < n) & (columns >= 0) & (columns < n)
            rows, columns = rows[valid], columns[valid]
            _replace(T, (rows, columns), tissue, rng, (low, high), structures, Structure.LINE)
    if rng.random() < recipe.odd_share:
        for _ in range(rng.integers(1, recipe.odd_voxels + 1)):
            y, x = rng.integers(n, size=2)
            _replace(T, (y[None], x[None]), tissue, rng, (low, high), structures, Structure.VOXEL)
    return structures


def _replace(
    T: F32,
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    tissue: NDArray[np.bool_],
    rng: np.random.Generator,
    wide: Range,
    structures: NDArray[np.uint8],
    kind: Structure,
) -> None:
    """Give the voxels `at` one T: a multiple of what is there (0.25 to 4), or any."""
    factor, value, any_value = _log_uniform(rng, (0.25, 4.0)), _log_uniform(rng, wide), rng.random() < 0.25
    keep = tissue[at]
    rows, columns = at[0][keep], at[1][keep]
    if len(rows):
        T[rows, columns] = value if any_value else np.clip(factor * T[rows[0], columns[0]], *wide)
        structures[rows, columns] = kind


def _uniform(rng: np.random.Generator, between: Range) -> float:
    return float(rng.uniform(*between)) if between[0] != between[1] else float(between[0])


def _amount(rng: np.random.Generator, between: Range) -> float:
    """Return how much texture: uniform from 0, or log-uniform, so that each noise level sees texture below and
    above.
    """
    return _log_uniform(rng, between) if between[0] > 0 else _uniform(rng, between)


def _log_uniform(rng: np.random.Generator, between: Range) -> float:
    return float(np.exp(rng.uniform(np.log(between[0]), np.log(between[1]))))


def _field(shape: tuple[int, ...], length: float, rng: np.random.Generator) -> F32:
    """Return a smooth field (h, w), zero mean and unit variance over many draws (not within each patch)."""
    K = smooth_kernel(shape[0], length).astype(np.float32)
    white = rng.standard_normal((K.shape[1], K.shape[1]), dtype=np.float32)
    return np.asarray(K @ white @ K.T)


def _blur_matrix(n: int, sd: float) -> F32 | None:
    if sd < 0.05:
        return None
    x = np.arange(n)
    G = np.exp(-0.5 * ((x[:, None] - x) / sd) ** 2)
    return np.asarray(G / G.sum(1, keepdims=True), np.float32)


def _blurred(value: F32, tissue: NDArray[np.bool_], G: F32, *, keep_edge: bool) -> F32:
    """Smooth a map; `keep_edge`: as a mean over tissue alone, so that the background's value does not leak in."""
    if not keep_edge or tissue.all():
        return np.asarray(G @ value @ G.T, np.float32)
    w = tissue.astype(np.float32)
    total = G @ w @ G.T
    return np.asarray(np.where(tissue, (G @ (value * w) @ G.T) / np.where(tissue, total, 1), value), np.float32)
