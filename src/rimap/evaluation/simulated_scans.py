"""Scans that stand for real ones if there are none: the system phantom with its reference values, and a brain.

Every experiment runs with them, so that nobody needs data to try it. What only real scans have is missing: ringing,
motion, flow, and tissue that the signal model does not describe.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rimap.evaluation.experiment import Settings
from rimap.evaluation.references import LAYOUTS
from rimap.evaluation.scans import PhantomScan, Regions
from rimap.evaluation.simulated_slices import at_snr, brain_slice
from rimap.likelihood import Gaussian
from rimap.series import WeightedSeries
from rimap.signals.base import FIELD, SignalModel
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.t2_decay import T2Decay
from rimap.simulation.random_fields import smooth_field
from rimap.simulation.subjects import simulate_series, simulate_subject

#: What a summary says of them.
SAID = "Simulated scans, because no data were given (--data DIR; docs/results.md says where public scans are)."
#: Signal-to-noise ratio of white matter in the simulated brain, and of a sphere.
BRAIN_SNR, PHANTOM_SNR = 30.0, 100.0
#: Times of the public scans of the same kind, ms.
BRAIN: dict[str, SignalModel] = {
    "ir": InversionRecovery(tau=(50, 100, 200, 500, 2000, 4000), tr=15_000),
    "t2": T2Decay(tau=(10, 25, 50, 90, 150, 250)),
}
#: Inversion times, ms.
_TI = (50.0, 100.0, 200.0, 400.0, 600.0, 800.0)
#: TR of the phantom's scans by field strength in T: one, or growing with TI, ms.
_TR: dict[float, float | tuple[float, ...]] = {3.0: 1000.0, 1.5: (1000.0, 1300.0, 1600.0, 1900.0, 2200.0, 2460.0)}
#: Echo times, ms.
_TE = tuple(8.0 * n for n in range(1, 33))
#: Voxels along the sides of the phantom's image, radius of a sphere, and radius of the circle of spheres.
_SIZE, _SPHERE, _CIRCLE = 112, 6.0, 42.0
#: Relative standard deviation of the field over the phantom, and over how many voxels it varies.
_FIELD_SPREAD, _FIELD_LENGTH = 0.03, 40.0


def simulated_brain(settings: Settings, sequence: str, scan: int = 0) -> WeightedSeries:
    """Return a scan of the brain slice of `brain_slice`; scans differ in their noise alone."""
    model = BRAIN[sequence]
    labels = brain_slice(settings)
    kappa = simulate_subject(labels, model, np.random.default_rng([settings.seed, 0]))
    rng = np.random.default_rng([settings.seed, 9, scan])
    return simulate_series(kappa, model, at_snr(BRAIN_SNR), rng, mask=labels > 0)


def simulated_phantom(settings: Settings, scan: PhantomScan) -> Regions:
    """Return a scan of the array of the phantom that a real one has, with its reference values, and water around the
    spheres.
    """
    values = LAYOUTS[scan.layout].values
    T = dict(enumerate(values[scan.spheres, scan.tesla], start=1))
    labels = sphere_labels(len(T))
    model: SignalModel = (
        InversionRecovery(tau=_TI, tr=_TR[scan.tesla]) if scan.sequence == "ir" else T2Decay(tau=_TE[scan.skip_first :])
    )
    rng = np.random.default_rng([settings.seed, 10])
    time = np.vectorize({0: 2.0 * max(T.values()), **T}.get)(labels).astype(float)
    kappa = np.ones((len(model.parameters), *labels.shape))
    for parameter in model.parameters:
        if parameter.role == FIELD:
            field = smooth_field(labels.shape, _FIELD_LENGTH, rng)
            kappa[model.index(parameter.name)] = parameter.in_a_scan.middle * (1 + _FIELD_SPREAD * field / field.std())
    kappa[model.time_index] = time
    series = simulate_series(kappa, model, Gaussian(sigma=1 / PHANTOM_SNR), rng, mask=labels > 0)
    return Regions(series, labels, T)


def sphere_labels(count: int) -> NDArray[np.int64]:
    """Return an image (X, Y) with `count` discs on a circle and inside it, numbered from 1."""
    x, y = np.mgrid[:_SIZE, :_SIZE] - (_SIZE - 1) / 2
    outside = min(count, 10)
    labels = np.zeros((_SIZE, _SIZE), np.int64)
    for n in range(count):
        ring, k, of = (_CIRCLE, n, outside) if n < outside else (0.4 * _CIRCLE, n - outside, count - outside)
        angle = 2 * np.pi * k / of
        labels[np.hypot(x - ring * np.cos(angle), y - ring * np.sin(angle)) < _SPHERE] = n + 1
    return labels
