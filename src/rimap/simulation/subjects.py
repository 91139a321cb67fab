"""Truth maps of one subject, and the series that a scanner would give of them: for tests and experiments.

What a network is trained on is drawn elsewhere (`rimap.simulation.patches`), by other code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.likelihood import Gaussian, Noise, Rician
from rimap.series import WeightedSeries
from rimap.signals.base import FIELD, FREE, Parameter, SignalModel
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.t2_decay import T2Decay
from rimap.simulation.acquisitions import draw_acquisition, stream
from rimap.simulation.random_fields import smooth_field
from rimap.simulation.recipe import PatchRecipe
from rimap.simulation.tissues import BACKGROUND_T, FLOOR, property_of, table, table_of

#: The parameters of a quantity, if no model is at hand.
QUANTITIES = {"T1": InversionRecovery.parameters, "T2": T2Decay.parameters}
#: The paper's voxelwise standard deviation in the ground truth (found in the authors' code): A in units of CSF, ms. T2*
#: has that of T2, relative to the value.
WHITE_SD = {"A": 0.05, "T1": 100.0, "T2": 10.0, "T2star": 6.0}
#: What the mean of a field is by default, relative to the start that its model declares: pulses fall short of what they
#: should do.
FIELD_SHARE = 0.925
#: A `field_range` of 1 spans so many standard deviations (over scans) of a field with values of both signs, as for the
#: B of inversion recovery.
SD_OF_UNIT_RANGE = 10.0
#: Further amplitudes, relative to the first one.
OFFSET = 0.1
#: Error of a measured map of a field that a model takes as given: relative standard deviation.
GIVEN_ERROR = 0.01
#: The kinds of texture inside a tissue.
Kind = Literal["smooth", "white", "none"]


@dataclass(frozen=True)
class Texture:
    """How values differ inside a tissue.

    Parameters
    ----------
    kind
        ``smooth``: a random field inside each tissue. ``white``: independent from voxel to voxel, with the paper's
        standard deviations (100 ms for T1, 10 ms for T2, 0.05 for A). ``none``.
    sd
        Standard deviation of a smooth texture, relative to the mean of the tissue.
    length
        Kernel of a smooth texture, voxels.
    """

    kind: Kind = "smooth"
    sd: float = 0.06
    length: float = 5.0

    def of(self, mean: float, white_sd: float, where: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[Any]:
        """Return the values of a tissue in its voxels (*X)."""
        count = int(where.sum())
        if self.kind == "smooth":
            return mean * (1 + self.sd * smooth_field(where.shape, self.length, rng)[where])
        if self.kind == "white":
            return mean + white_sd * rng.standard_normal(count)
        return np.full(count, mean)


def simulate_subject(
    labels: NDArray[Any],
    model: SignalModel | str,
    rng: np.random.Generator,
    *,
    texture: Texture | Kind = "smooth",
    field_map: Literal["smooth", "constant"] = "smooth",
    field_mean: float | None = None,
    field_range: float = 0.1,
    tissue_scale: tuple[float, float] = (0.1, 0.2),
) -> NDArray[np.float64]:
    """Return the truth maps κ (Q, *X) of one subject.

    Each tissue has one T and one amplitude, its mean in Table 1 off by `tissue_scale`; both vary inside the tissue. A
    field belongs to the pulse and not to the tissue, unless the model estimates it in every voxel by itself. A model
    with `apparent_values` (Look-Locker: T1* and B) has those of the tissue's T.

    Parameters
    ----------
    labels
        (*X), a slice or a volume.
    model
        A signal model, or ``"T1"`` or ``"T2"``.
    texture
        How values differ inside a tissue: a `Texture`, or only its kind (``smooth``, ``white``, ``none``).
    field_map
        ``smooth``: the field is smooth over the slice, around `field_mean`, and spans `field_range` of it from its
        least to its greatest value (of ten of its standard deviations, if it can have both signs). ``constant``:
        `field_mean`.
    field_mean
        0.925 of the start that the model declares if left out: 1.85 for the efficiency of an inversion.
    tissue_scale
        Least and greatest relative distance of a tissue's value from Table 1; the sign is drawn.

    Returns
    -------
    kappa
        T in ms. In the background amplitudes are zero, and T is 1000 ms.

    Raises
    ------
    InputError
        If a string names no quantity.

    Examples
    --------
    >>> from rimap.simulation.anatomies import digital_brain
    >>> kappa = simulate_subject(digital_brain()[:, :, 24], "T1", np.random.default_rng(0))
    >>> kappa.shape, round(float(np.ptp(kappa[1]) / 1.85), 3)
    ((3, 64, 72), 0.1)
    """
    labels = np.asarray(labels)
    texture = Texture(texture) if isinstance(texture, str) else texture
    if isinstance(model, str):
        if model not in QUANTITIES:
            raise InputError(f"quantity: expected one of {', '.join(QUANTITIES)}, got {model!r}.")
        parameters = QUANTITIES[model]
    else:
        parameters = model.parameters
    present = [int(t) for t in np.unique(labels) if t]
    maps: list[NDArray[np.float64]] = []
    first: NDArray[np.float64] | None = None  # the first amplitude
    for parameter in parameters:
        if parameter.role == FIELD and not property_of(parameter) and parameter.treatment != FREE:
            mean = FIELD_SHARE * (parameter.start or 0.0) if field_mean is None else field_mean
            field = smooth_field(labels.shape, max(labels.shape) / 5, rng) if field_map == "smooth" else None
            value = np.full(labels.shape, mean)
            if field is not None and parameter.around_zero:
                value += SD_OF_UNIT_RANGE * parameter.in_a_scan.deviation * field_range * _span(field)
            elif field is not None:
                value *= 1 + field_range * _span(field)
            maps.append(np.clip(value, *parameter.bounds))
            continue
        if parameter.amplitude and first is not None:
            maps.append(OFFSET * first)
            continue
        background = 0.0 if parameter.amplitude else float(np.clip(BACKGROUND_T, *parameter.bounds))
        mean_of, white_sd = _of_tissues(parameter)
        value = np.where(labels == 0, background, 0.0)
        for tissue in present:
            where = labels == tissue
            off = rng.choice([-1.0, 1.0]) * rng.uniform(*tissue_scale)
            m = mean_of[tissue] * (1 + off)
            x = texture.of(m, white_sd, where, rng)
            value[where] = np.clip(np.maximum(x, FLOOR * m), *parameter.bounds)
        maps.append(value)
        first = value if parameter.amplitude and first is None else first
    if not isinstance(model, str) and (values := getattr(model, "apparent_values", None)) is not None:
        T = maps[parameters.index(model.time)]  # that of the tissue; a scan has others in its place, such as T1*
        for name, value in values(T).items():
            q = model.index(name)
            maps[q] = np.where(labels == 0, maps[q], np.clip(value, *parameters[q].bounds))
    return np.stack(maps)


def _of_tissues(p: Parameter) -> tuple[NDArray[np.float64], float]:
    """Return the mean of a parameter by label (12,), and the standard deviation of its white texture."""
    if p.role == FIELD and not property_of(p):  # of each voxel by itself: as different as T1 between tissues
        low, high = p.in_a_scan.mean
        T1 = table("T1")[0]
        return low + (high - low) * np.argsort(np.argsort(T1)) / (len(T1) - 1), 0.05 * (high - low)
    mean, _ = table_of(p)
    return mean, WHITE_SD.get(property_of(p), 0.07 * (p.start or 1.0))


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
    given: Mapping[str, Any] | None = None,
) -> WeightedSeries:
    """Return the series of the maps `kappa` (Q, *X) with noise (Eq. 1), as float32.

    Parameters
    ----------
    noise
        With its σ. Gaussian noise is added after the modulus, as in the paper.
    mask
        (*X); where the first amplitude is above zero if left out, everywhere for a model without one.
    given
        What was measured of parameters that the model takes as given: numbers or maps, by name.
    """
    kappa = np.asarray(kappa)
    if kappa.ndim == 4 and np.ndim(noise.sigma) == 0:  # slice by slice: a volume's signal in float64 is large
        images = np.empty((model.n_images, *kappa.shape[1:]), np.float32)
        for z in range(kappa.shape[3]):
            images[..., z] = noise.sample(model.signal(kappa[..., z]), rng)
    else:
        images = noise.sample(model.signal(kappa), rng).astype(np.float32)
    mask = model.amplitude(kappa) > 0 if mask is None else mask
    return WeightedSeries(
        images=images, model=model, noise=noise, mask=mask, affine=affine, source="simulated", given=given or {}
    )


def simulate_acquisition(
    recipe: PatchRecipe, labels: NDArray[Any], subject: int, *, affine: NDArray[Any] | None = None
) -> tuple[WeightedSeries, NDArray[np.float64]]:
    """Return the series and the truth κ (Q, *X) of one subject under a recipe's protocol and noise.

    The subject is that of `simulate_subject`. Settings, kind of noise and σ are the recipe's, drawn if it leaves them
    open. A field that the model takes as given is measured with an error. The same recipe and subject number give the
    same data.

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
    model = acquisition.model
    if acquisition.hidden:
        kappa = np.asarray(model.effective(kappa, **acquisition.hidden))
    sigma = float(np.exp(rng.uniform(*np.log(recipe.sigma))))
    noise = Rician(sigma=sigma) if acquisition.rician else Gaussian(sigma=sigma)
    given = {
        parameter.name: np.clip(
            value * (1 + GIVEN_ERROR * stream(recipe.seed, 5, subject).standard_normal(labels.shape)), *parameter.bounds
        )
        for parameter, value in zip(model.parameters, kappa)
        if parameter.given and not property_of(parameter)
    }
    mask = None if model.amplitudes else np.asarray(labels) > 0
    return simulate_series(kappa, model, noise, rng, affine=affine, given=given, mask=mask), kappa
