"""Whether a series lies inside what a network was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rimap import legacy_names
from rimap.advice import note, unreliable
from rimap.estimators.base import estimated_rows
from rimap.estimators.checks.final_checks import Fit, warnings_for, with_statuses
from rimap.estimators.checks.missing_values import Screened
from rimap.estimators.checks.uncertain_polarity import uncertain_polarity
from rimap.estimators.network_files import UNSEEN
from rimap.likelihood import Rician
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import FIELD, SignalModel
from rimap.signals.settings import unit_symbol, with_unit

if TYPE_CHECKING:
    from rimap.estimators.rim.network_input import Prepared

#: By how much an estimate may raise χ² over the maximum of the likelihood before a network is taken for wrong: four
#: standard deviations. A network that reads neighbours does not follow the noise of a voxel.
FARTHEST_CHI2 = 16.0
#: Quality flags of voxels without a value in the maps.
_WITHOUT_VALUE = (Status.NO_SIGNAL, Status.NOT_FINITE, Status.OUTSIDE_MASK)
_SLACK = 1.1  # a tenth beyond the range is not worth a warning
#: The share of voxels whose field is outside the training from which on the user is warned.
MANY = 0.1


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
        seen = legacy_names.training(about["trained_on"], model)
        known = seen.get("settings", {})
        known = dict.fromkeys(model.settings) if known is None else known
        settings = {name: None if ends is None else (ends[0], ends[1]) for name, ends in known.items()}
        parameters = {name: (ends[0], ends[1]) for name, ends in seen.get("parameters", {}).items()}
        low, high = seen["time_range_ms"]
        fewest, most = seen["n_images"]
        return cls((low, high), tuple(seen["times_ms"]), (fewest, most), settings, parameters)


def compare(
    about: dict[str, Any], series: WeightedSeries, ready: Prepared, maps: ParameterMaps
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return the voxels (*X) outside the training, and why, in plain words.

    Settings, N, noise and polarity put the whole series outside; times and fields only their voxels.
    """
    seen, model, name = Seen.of(about, series.model), series.model, about["name"]
    reasons = _reasons(about, seen, series, ready)
    outside = np.zeros(series.shape, bool)
    warnings = [
        unreliable(f"Network {name!r} was trained for {reason}: do not rely on its maps here.") for reason in reasons
    ]
    if others := about.get(UNSEEN):
        warnings.append(
            note(
                f"Network {name!r} is for any sequence with one amplitude, but its training had only "
                f"{', '.join(others)}, and not {model.name}. Compare its maps with those of mle or nlls before you "
                f"rely on them."
            )
        )
    has_value = np.isfinite(maps.kappa).all(0)
    for parameter in model.parameters:
        if parameter.name not in seen.parameters or parameter.name in series.held:
            continue
        low, high = seen.parameters[parameter.name]
        values = maps.kappa[model.index(parameter.name)]
        least, most = _widened(low, high)
        beyond = ~((least <= values) & (values <= most))
        outside |= beyond
        if parameter.role == FIELD and has_value.any():
            share = float(beyond[has_value].mean())
            if share > MANY:
                warnings.append(
                    unreliable(
                        f"{parameter.name} is outside {low:g} to {high:g}, for which network {name!r} was trained, in "
                        f"{100 * share:.0f} % of the voxels: do not rely on its maps there."
                    )
                )
    if reasons:
        outside[...] = True
    return outside, tuple(warnings)


def _reasons(about: Mapping[str, Any], seen: Seen, series: WeightedSeries, ready: Prepared) -> list[str]:
    """Return why the whole series is outside the training."""
    reasons, trained = _of_model(about, seen, series.model), about["trained_on"]
    sigma, (least, greatest) = ready.relative_sigma, trained["sigma"]
    # with less noise, a RIM that begins at maximum likelihood goes towards it
    if not (sigma <= greatest * _SLACK and (sigma >= least / _SLACK or _begins_at_likelihood(about))):
        reasons.append(f"noise of {least:g} to {greatest:g} of A in CSF, and this series has {sigma:.2g}")
    if isinstance(ready.noise, Rician) and "rician" not in trained["noise"]:
        reasons.append("Gaussian noise, and this series is Rician")
    return reasons


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return a range with its ends a tenth farther out: of themselves, or of half the range if it reaches below 0."""
    if low >= 0:
        return low / _SLACK, high * _SLACK
    slack = (_SLACK - 1) * (high - low) / 2
    return low - slack, high + slack


def unsuited(about: Mapping[str, Any], model: SignalModel) -> list[str]:
    """Return why a network was not trained for a scan, in plain words, from the settings of the scan alone."""
    return _of_model(about, Seen.of(about, model), model)


def _of_model(about: Mapping[str, Any], seen: Seen, model: SignalModel) -> list[str]:
    trained, axis = about["trained_on"], model.axis
    reasons = []
    t = model.times
    low, high = seen.axis
    least, most = _widened(low, high)
    if t.min() < least or t.max() > most:
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
            f"images at {own} {unit_symbol(axis.unit)}, and this series has others; a ResNet does not read the "
            f"{axis.title}s"
        )
    for setting in model.settings.values():
        value = getattr(model, setting.name)
        if setting.name == axis.name or value is None:
            continue
        if setting.name not in seen.settings:
            if about["kind"] == "rim" and about["rim"].get("any_sequence"):
                continue  # it reads what the data say of the parameters, whatever the settings
            reasons.append(f"series without a {setting.title} ({setting.symbol}) in the model, and this one has it")
            continue
        ends, values = seen.settings[setting.name], np.atleast_1d(np.asarray(value, dtype=float))
        if ends is None:
            continue
        least, most = _widened(*ends)
        if not (least <= values.min() and values.max() <= most):
            reasons.append(
                f"a {setting.title} of {ends[0]:g} to {with_unit(ends[1], setting.unit)}, and this series has "
                f"{values.min():g} to {with_unit(values.max(), setting.unit)}"
            )
    if model.is_signed and not trained["signed"]:
        reasons.append("magnitude images, and these are signed")
    return reasons


def _begins_at_likelihood(about: Mapping[str, Any]) -> bool:
    return bool(about["kind"] == "rim" and about["rim"]["start"] != "paper")


def checked_maps(
    about: dict[str, Any],
    series: WeightedSeries,
    ready: Prepared,
    kappa: NDArray[np.float32],
    residual: NDArray[np.float32],
    estimator: str,
    settings: dict[str, Any],
    screen: Screened,
) -> ParameterMaps:
    """Return the maps of a network, with the status of each voxel; κ and residual become NaN if there is no answer.

    Parameters
    ----------
    kappa, residual
        (Q, *X) and (*X), in the unit of the images.
    screen
        The series, what its images lack, and their census.
    """
    status = ready.status(series, kappa, screen.census)
    gone = np.isin(status, _WITHOUT_VALUE)
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
    fit = Fit(estimated=len(estimated_rows(series, maps)[0]), farther=FARTHEST_CHI2)
    maps, air = with_statuses(series, maps, fit, doubtful=screen.missing.doubtful, census=screen.census)
    outside, found = compare(about, series, ready, maps)
    status = maps.status.copy()
    # A whole series outside the training has no voxel at a bound that means anything.
    flagged = (Status.OK, Status.AT_BOUND) if outside.all() else (Status.OK,)
    status[outside & has(status, flagged)] = Status.OUTSIDE_TRAINING
    maps = replace(maps, status=status)
    found = (*found, *screen.missing.advice(series.model), *uncertain_polarity(series, maps))
    return replace(maps, warnings=warnings_for(series, maps, fit, found, air, screen.census))
