"""Truth maps of one subject, and the series that a scanner would give of them: for tests and experiments.

What a network is trained on is drawn elsewhere (`rimap.simulation.patches`), by other code.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.series import WeightedSeries
from rimap.signals.base import SignalModel
from rimap.simulation.acquisitions import draw_acquisition, effective, stream
from rimap.simulation.fields import smooth_field
from rimap.simulation.recipe import PatchRecipe
from rimap.simulation.tissues import BACKGROUND_T, FLOOR, table

#: Parameters of a quantity, where no model is at hand.
QUANTITIES = {"T1": ("A", "B", "T1"), "T2": ("A", "T2")}
#: The paper's voxelwise standard deviation in the ground truth (found in the authors' code): A in units of CSF, ms.
WHITE_SD = {"A": 0.05, "T1": 100.0, "T2": 10.0}


def simulate_subject(
    labels: NDArray[Any],
    model: SignalModel | str,
    rng: np.random.Generator,
    *,
    texture: Literal["smooth", "white", "none"] = "smooth",
    texture_sd: float = 0.06,
    texture_length: float = 5.0,
    b_map: Literal["smooth", "constant"] = "smooth",
    b_mean: float = 1.85,
    b_range: float = 0.1,
    tissue_scale: tuple[float, float] = (0.1, 0.2),
) -> NDArray[np.float64]:
    """Return the truth maps κ (Q, *X) of one subject.

    Each tissue has one T and one A, its mean in Table 1 off by `tissue_scale`; T and A vary inside the tissue;
    B belongs to the pulse and not to the tissue.

    Parameters
    ----------
    labels
        (*X), a slice or a volume.
    model
        A signal model, or ``"T1"`` or ``"T2"``.
    texture
        ``smooth``: a random field inside each tissue, of standard deviation `texture_sd` (relative) and kernel
        `texture_length` (voxels). ``white``: independent from voxel to voxel with the paper's 100 ms for T1, 10 ms
        for T2 and 0.05 for A. ``none``.
    b_map
        ``smooth``: B is smooth over the slice, around `b_mean`, and spans `b_range` of it from its least to its
        greatest value. ``constant``: `b_mean`.
    tissue_scale
        Least and greatest relative distance of a tissue's value from Table 1; the sign is drawn.

    Returns
    -------
    kappa
        T in ms. In the background A = 0, T = 1000 ms.

    Examples
    --------
    >>> from rimap.simulation.anatomies import digital_brain
    >>> kappa = simulate_subject(digital_brain()[:, :, 24], "T1", np.random.default_rng(0))
    >>> kappa.shape, round(float(np.ptp(kappa[1]) / 1.85), 3)
    ((3, 64, 72), 0.1)
    """
    labels = np.asarray(labels)
    if isinstance(model, str):
        if model not in QUANTITIES:
            raise InputError(f"the quantity must be one of {', '.join(QUANTITIES)}; {model!r} came.")
        names: tuple[str, ...] = QUANTITIES[model]
    else:
        names = tuple(p.name for p in model.parameters)
    present = [int(t) for t in np.unique(labels) if t]
    maps = []
    for name in names:
        if name == "B":
            field = smooth_field(labels.shape, max(labels.shape) / 5, rng) if b_map == "smooth" else None
            maps.append(np.full(labels.shape, b_mean) if field is None else b_mean * (1 + b_range * _span(field)))
            continue
        mean, _ = table(name)
        value = np.where(labels == 0, 0.0 if name == "A" else BACKGROUND_T, 0.0)
        for tissue in present:
            where = labels == tissue
            off = rng.choice([-1.0, 1.0]) * rng.uniform(*tissue_scale)
            m = mean[tissue] * (1 + off)
            if texture == "smooth":
                x = m * (1 + texture_sd * smooth_field(labels.shape, texture_length, rng)[where])
            elif texture == "white":
                x = m + WHITE_SD[name] * rng.standard_normal(int(where.sum()))
            else:
                x = np.full(int(where.sum()), m)
            value[where] = np.maximum(x, FLOOR * m)
        maps.append(value)
    return np.stack(maps)


def _span(field: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((field - field.min()) / np.ptp(field) - 0.5)


def simulate_series(
    kappa: NDArray[Any],
    model: SignalModel,
    noise: Noise,
    rng: np.random.Generator,
    *,
    mask: NDArray[Any] | None = None,
    affine: NDArray[Any] | None = None,
) -> WeightedSeries:
    """Return the series of the maps `kappa` (Q, *X) with noise (Eq. 1), as float32.

    Parameters
    ----------
    noise
        With its σ. Gaussian noise is added after the modulus, as in the paper.
    mask
        (*X); where A > 0 if left out.
    """
    kappa = np.asarray(kappa)
    if kappa.ndim == 4 and np.ndim(noise.sigma) == 0:  # slice by slice: a volume's signal in float64 is large
        images = np.empty((model.n_images, *kappa.shape[1:]), np.float32)
        for z in range(kappa.shape[3]):
            images[..., z] = noise.sample(model.signal(kappa[..., z]), rng)
    else:
        images = noise.sample(model.signal(kappa), rng).astype(np.float32)
    mask = kappa[0] > 0 if mask is None else mask
    return WeightedSeries(images=images, model=model, noise=noise, mask=mask, affine=affine, source="simulated")


def simulate_acquisition(
    recipe: PatchRecipe, labels: NDArray[Any], subject: int, *, affine: NDArray[Any] | None = None
) -> tuple[WeightedSeries, NDArray[np.float64]]:
    """Return the series and the truth κ (Q, *X) of one subject under a recipe's protocol and noise.

    The subject is that of `simulate_subject`. Times, TR, kind of noise and σ are the recipe's, drawn where it
    leaves them open. The same recipe and subject number give the same data.

    Parameters
    ----------
    labels
        (*X), a slice or a volume.
    subject
        A number.
    """
    rng = stream(recipe.seed, 3, subject)
    acquisition = draw_acquisition(recipe, rng)
    kappa = simulate_subject(labels, acquisition.model, rng)
    if acquisition.hidden_tr is not None:
        kappa = effective(kappa, acquisition.hidden_tr)
    sigma = float(np.exp(rng.uniform(*np.log(recipe.sigma))))
    noise = Rician(sigma=sigma) if acquisition.rician else Gaussian(sigma=sigma)
    return simulate_series(kappa, acquisition.model, noise, rng, affine=affine), kappa
