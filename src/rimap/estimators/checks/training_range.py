"""Whether a series lies inside what a network was trained for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from rimap.errors import InputError
from rimap.estimators.base import model_warnings
from rimap.estimators.checks.misfit import misfit_warnings
from rimap.estimators.checks.noise_floor import noise_floor_warnings
from rimap.likelihood import Rician
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.base import SignalModel

if TYPE_CHECKING:
    from rimap.estimators.rim.network_input import Prepared

#: A, in σ, of a voxel and, on average, of the nine around it in its slice, below which it is taken for air: in tissue at
#: SNR 3 one voxel of a thousand is below 1.5, but not its neighbours. A network paints air with what it knows of tissue.
#: The mean magnitude of noise alone is 1.25 σ. The paper's RIMs are not asked: at SNR 3 their A scatters by as much.
FAINT, FAINT_AROUND = 2.0, 1.35
_SLACK = 1.1  # a tenth beyond the range is not worth a warning


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


def compare(
    about: dict[str, Any], series: WeightedSeries, ready: Prepared, kappa: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return the voxels (*X) outside the training, and why, in plain words.

    The times, N, TR, noise and polarity put the whole series outside; T only its voxels.
    """
    seen, model, name = about["trained_on"], series.model, about["name"]
    reasons = []
    low, high = seen["time_range_ms"]
    t = model.times
    if t.min() < low / _SLACK or t.max() > high * _SLACK:
        reasons.append(f"times of {low:g} to {high:g} ms, and this series has {t.min():g} to {t.max():g} ms")
    fewest, most = seen["n_images"]
    fixed = bool(seen["times_ms"])
    if not (fewest <= model.n_images <= most) and not fixed:
        reasons.append(f"{fewest} to {most} images, and this series has {model.n_images}")
    if fixed and not (0.6 * fewest <= model.n_images <= 1.7 * most):
        reasons.append(f"{fewest} images, and this series has {model.n_images}")
    if about["kind"] == "resnet" and not np.allclose(np.sort(t), np.sort(seen["times_ms"]), rtol=0.02, atol=1):
        own = ", ".join(f"{x:g}" for x in sorted(seen["times_ms"]))
        reasons.append(f"images at {own} ms, and this series has others; a ResNet is not told the times")
    s, (least, greatest) = ready.relative_sigma, seen["sigma"]
    # with less noise, a RIM that begins at maximum likelihood goes towards it
    if not (s <= greatest * _SLACK and (s >= least / _SLACK or _begins_at_likelihood(about))):
        reasons.append(f"noise of {least:g} to {greatest:g} of A in CSF, and this series has {s:.2g}")
    if getattr(model, "tr", None) is not None and not seen["tr"]:
        reasons.append("series without a TR term, and this one has a TR")
    if getattr(model, "signed", False) and not seen["signed"]:
        reasons.append("magnitude images, and these are signed")
    if isinstance(ready.noise, Rician) and "rician" not in seen["noise"]:
        reasons.append("Gaussian noise, and this series is Rician")
    lower, upper = seen["T_ms"]
    T = kappa[-1]
    outside = ~((lower / _SLACK <= T) & (upper * _SLACK >= T))
    if reasons:
        outside[...] = True
    warnings = tuple(f"Network {name!r} was trained for {r}: do not rely on its maps here." for r in reasons)
    return outside, warnings


def _begins_at_likelihood(about: dict[str, Any]) -> bool:
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
        faint = _faint(kappa[0] / np.asarray(ready.noise.sigma))
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
        *warnings,
        *noise_floor_warnings(series, maps),
        *misfit_warnings(series, maps),
    )
    return replace(maps, warnings=warnings)
