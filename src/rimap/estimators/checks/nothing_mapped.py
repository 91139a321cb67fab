"""Maps without a single value: why there is none, in words."""

from __future__ import annotations

import numpy as np

from rimap.advice import percent, unreliable
from rimap.maps import has
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.settings import with_unit

#: Statuses of voxels without a value.
_WITHOUT_VALUE = (Status.OUTSIDE_MASK, Status.NO_SIGNAL, Status.NOT_FINITE)


def nothing_mapped(series: WeightedSeries, maps: ParameterMaps) -> list[str]:
    """Return a warning if no voxel has a value, with the images' mean magnitudes: scales that contradict each other are
    seen there.
    """
    if not has(maps.status, _WITHOUT_VALUE).all():
        return []
    status = maps.status[maps.status != int(Status.OUTSIDE_MASK)]
    if not status.size:
        return []
    background = float(np.mean(status == int(Status.NO_SIGNAL)))
    means = [float(np.abs(np.nan_to_num(image, posinf=0, neginf=0)).mean(dtype=float)) for image in series.images]
    brightest, faintest = int(np.argmax(means)), int(np.argmin(means))
    model = series.model

    def at(k: int) -> str:
        return f"{means[k]:.3g} in image {k + 1} ({with_unit(float(model.times[k]), model.axis.unit)})"

    text = (
        f"No voxel has a value: in {percent(background)} % of them, no signal exceeds the noise (estimated from the "
        f"residuals of the fit). Mean magnitudes are from {at(faintest)} to {at(brightest)}. Check that all images "
        "have one scale (scl_slope, RescaleSlope), and the times"
    )
    return [unreliable(text)]
