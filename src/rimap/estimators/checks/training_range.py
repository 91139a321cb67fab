"""Whether a series lies inside what a network was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from rimap import earlier
from rimap.errors import InputError
from rimap.estimators.base import brightness, model_warnings
from rimap.estimators.checks.field_range import field_warnings
from rimap.estimators.checks.misfit import misfit_warnings
from rimap.estimators.checks.noise_floor import noise_floor_warnings
from rimap.likelihood import Rician
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import FIELD, SignalModel
from rimap.signals.settings import unit_symbol, with_unit

if TYPE_CHECKING:
    from rimap.estimators.rim.network_input import Prepared

#: A, in σ, of a voxel and, on average, of the nine around it in its slice, below which it is taken for air: in tissue at
#: SNR 3 one voxel of a thousand is below 1.5, but not its neighbours. A network paints air with what it knows of tissue.
#: The mean magnitude of noise alone is 1.25 σ. The paper's RIMs are not asked: at SNR 3 their A scatters by as much.
FAINT, FAINT_AROUND = 2.0, 1.35
_SLACK = 1.1  # a tenth beyond the range is not worth a warning
#: The share of voxels whose field is outside the training from which on the user is warned.
MANY = 0.1


def fits(about: dict[str, Any], model: SignalModel) -> None:
    """Refuse a series of another sequence.

    Raises
    ------
    InputError
        Saying what the network is for.
    """
    if about["sequence"] != model.name:
        raise InputError(
            f"network {about['name']!r} was trained for the sequence {about['sequence']}; this series is {model.name}. "
            "`rimap models` lists the networks for it."
        )


@dataclass(frozen=True)
class Seen:
    """What a network has seen in training.

    Parameters
    ----------
    axis
        The least and the greatest value of the axis.
    protocol
        The values of the axis, if they were always the same.
    n_images
        The fewest and the most.
    settings
        The range of each other setting that the model had, by name; `None` for any value.
    parameters
        The range of each parameter, by name; of a field, that of its mean over an image.
    """

    axis: tuple[float, float]
    protocol: tuple[float, ...]
    n_images: tuple[int, int]
    settings: Mapping[str, tuple[float, float] | None]
    parameters: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, about: Mapping[str, Any], model: SignalModel) -> Seen:
        """Return what the metadata of a network say."""
        seen = earlier.training(about["trained_on"], model)
        settings = {
            name: None if ends is None else (ends[0], ends[1]) for name, ends in seen.get("settings", {}).items()
        }
        parameters = {name: (ends[0], ends[1]) for name, ends in seen.get("parameters", {}).items()}
        low, high = seen["time_range_ms"]
        fewest, most = seen["n_images"]
        return cls((low, high), tuple(seen["times_ms"]), (fewest, most), settings, parameters)


def compare(
    about: dict[str, Any], series: WeightedSeries, ready: Prepared, kappa: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return the voxels (*X) outside the training, and why, in plain words.

    Settings, N, noise and polarity put the whole series outside; times and fields only their voxels.
    """
    seen, model, name = Seen.of(about, series.model), series.model, about["name"]
    reasons = _reasons(about, seen, series, ready)
    outside = np.zeros(series.shape, bool)
    warnings = [f"Network {name!r} was trained for {r}: do not rely on its maps here." for r in reasons]
    for p in model.parameters:
        if p.name not in seen.parameters or p.name in series.held:
            continue
        low, high = seen.parameters[p.name]
        values = kappa[model.index(p.name)]
        beyond = ~((low / _SLACK <= values) & (values <= high * _SLACK))
        outside |= beyond
        if p.role == FIELD and series.selected.any():
            share = float(beyond[series.selected].mean())
            if share > MANY:
                warnings.append(
                    f"{p.name} is outside {low:g} to {high:g}, for which network {name!r} was trained, in "
                    f"{100 * share:.0f} % of the voxels: do not rely on its maps there."
                )
    if reasons:
        outside[...] = True
    return outside, tuple(warnings)


def _reasons(about: Mapping[str, Any], seen: Seen, series: WeightedSeries, ready: Prepared) -> list[str]:
    """Return why the whole series is outside the training."""
    model, trained, axis = series.model, about["trained_on"], series.model.axis
    reasons = []
    t = model.times
    low, high = seen.axis
    if t.min() < low / _SLACK or t.max() > high * _SLACK:
        reasons.append(
            f"{axis.title}s of {low:g} to {with_unit(high, axis.unit)}, and this series has {t.min():g} to "
            f"{with_unit(t.max(), axis.unit)}"
        )
    fewest, most = seen.n_images
    if not (fewest <= model.n_images <= most) and not seen.protocol:
        reasons.append(f"{fewest} to {most} images, and this series has {model.n_images}")
    if seen.protocol and not (0.6 * fewest <= model.n_images <= 1.7 * most):
        reasons.append(f"{fewest} images, and this series has {model.n_images}")
    if about["kind"] == "resnet" and not np.allclose(np.sort(t), np.sort(seen.protocol), rtol=0.02, atol=1):
        own = ", ".join(f"{x:g}" for x in sorted(seen.protocol))
        reasons.append(
            f"images at {own} {unit_symbol(axis.unit)}, and this series has others; a ResNet does not know the {axis.title}s"
        )
    for s in model.settings.values():
        value = getattr(model, s.name)
        if s.name == axis.name or value is None:
            continue
        if s.name not in seen.settings:
            reasons.append(f"series without a {s.title} ({s.symbol}) in the model, and this one has it")
            continue
        ends, values = seen.settings[s.name], np.atleast_1d(np.asarray(value, dtype=float))
        if ends is not None and not (ends[0] / _SLACK <= values.min() and values.max() <= ends[1] * _SLACK):
            reasons.append(
                f"a {s.title} of {ends[0]:g} to {with_unit(ends[1], s.unit)}, and this series has {values.min():g} to "
                f"{with_unit(values.max(), s.unit)}"
            )
    sigma, (least, greatest) = ready.relative_sigma, trained["sigma"]
    # with less noise, a RIM that begins at maximum likelihood goes towards it
    if not (sigma <= greatest * _SLACK and (sigma >= least / _SLACK or _begins_at_likelihood(about))):
        reasons.append(f"noise of {least:g} to {greatest:g} of A in CSF, and this series has {sigma:.2g}")
    if model.is_signed and not trained["signed"]:
        reasons.append("magnitude images, and these are signed")
    if isinstance(ready.noise, Rician) and "rician" not in trained["noise"]:
        reasons.append("Gaussian noise, and this series is Rician")
    return reasons


def _begins_at_likelihood(about: Mapping[str, Any]) -> bool:
    return bool(about["kind"] == "rim" and about["rim"]["start"] != "paper")


def _faint(ratio: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which voxels (*X) have an A, in σ, that air has too."""
    size = [3 if i < 2 else 1 for i in range(ratio.ndim)]
    known = np.isfinite(ratio)
    total, share = (uniform_filter(x.astype(float), size) for x in (np.where(known, ratio, 0), known))
    return np.asarray((ratio < FAINT) & (total < FAINT_AROUND * share))


def checked_maps(
    about: dict[str, Any],
    series: WeightedSeries,
    ready: Prepared,
    kappa: NDArray[np.float32],
    residual: NDArray[np.float32],
    estimator: str,
    settings: dict[str, Any],
) -> ParameterMaps:
    """Return the maps of a network, with the status of each voxel; κ and residual become NaN where there is no answer.

    Parameters
    ----------
    kappa, residual
        (Q, *X) and (*X), in the unit of the images.
    """
    status = ready.status(series, kappa, series.model)
    if _begins_at_likelihood(about):
        amplitude = series.model.amplitude(kappa) * brightness(series.model)
        faint = _faint(amplitude / np.asarray(ready.noise.sigma))
        status[faint & np.isin(status, (Status.OK, Status.AT_BOUND))] = Status.NO_SIGNAL
    outside, warnings = compare(about, series, ready, kappa)
    status[outside & (status == Status.OK)] = Status.OUTSIDE_TRAINING
    gone = np.isin(status, (Status.NO_SIGNAL, Status.NOT_FINITE, Status.OUTSIDE_MASK))
    kappa[:, gone] = np.nan
    residual[gone] = np.nan
    maps = ParameterMaps(
        kappa=kappa,
        model=series.model,
        status=status,
        residual=residual,
        noise=ready.noise,
        sigma_source=ready.sigma_source,
        estimator=estimator,
        settings=settings,
        affine=series.affine,
    )
    warnings = (
        *model_warnings(series.model),
        *field_warnings(series, maps),
        *warnings,
        *noise_floor_warnings(series, maps),
        *misfit_warnings(series, maps),
    )
    return replace(maps, warnings=warnings)
