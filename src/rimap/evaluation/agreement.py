"""Agreement of repeated measurements: Bland-Altman, within-subject variation, repeatability coefficient, ICC, and the
calibration of standard deviations.

References
----------
Bland & Altman 1986, doi:10.1016/S0140-6736(86)90837-8 (limits of agreement). Bland & Altman 1999,
doi:10.1177/096228029900800204, and Raunig et al. 2015, doi:10.1177/0962280214537344 (within-subject SD and CV,
repeatability coefficient). McGraw & Wong 1996, doi:10.1037/1082-989X.1.1.30 (ICC).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rimap.likelihood import HALF_OF_95

#: What the calibration is read at: shares of a normal distribution.
LEVELS = (0.5, 0.683, 0.9, 0.95, 0.99)
#: What a figure is if there are too few values.
_NAN = float("nan")


@dataclass(frozen=True)
class Agreement:
    """How well repeated measurements of the same things agree.

    Parameters
    ----------
    n, repeats
        Things that were measured, and how often each was.
    bias, sd_difference
        Mean and standard deviation of the differences, second minus first; NaN for more than two repeats.
    within_sd
        Within-subject standard deviation: the root of the mean variance over the repeats. A bias between them is part
        of it.
    within_cv_percent
        Within-subject coefficient of variation: the root mean square over the things of SD over mean.
    icc
        ICC(A,1): two-way random effects, absolute agreement, one measurement; NaN for fewer than three things.
    """

    n: int
    repeats: int
    bias: float
    sd_difference: float
    within_sd: float
    within_cv_percent: float
    icc: float

    @property
    def limits(self) -> tuple[float, float]:
        """The limits of agreement: 95 % of the differences are between them if these are normally distributed."""
        return self.bias - HALF_OF_95 * self.sd_difference, self.bias + HALF_OF_95 * self.sd_difference

    @property
    def repeatability_coefficient(self) -> float:
        """The difference that 95 % of pairs of repeats do not exceed: 1.96 √2 times the within-subject SD."""
        return HALF_OF_95 * float(np.sqrt(2)) * self.within_sd


def agreement(measurements: NDArray[Any]) -> Agreement:
    """Return the agreement of repeated measurements.

    Parameters
    ----------
    measurements
        (n, repeats); things with a value that is not finite are left out.

    Examples
    --------
    >>> a = agreement(np.array([[100.0, 102.0], [200.0, 198.0], [300.0, 306.0]]))
    >>> a.bias, round(a.within_sd, 3), round(a.repeatability_coefficient, 2), round(a.icc, 4)
    (2.0, 2.708, 7.51, 0.9993)
    """
    x = np.asarray(measurements, dtype=float)
    x = x[np.isfinite(x).all(axis=1)]
    n, k = x.shape
    if not n or k < 2:
        return Agreement(n, k, *(_NAN,) * 5)
    difference = x[:, 1] - x[:, 0]
    bias = float(difference.mean()) if k == 2 else _NAN
    deviation = float(difference.std(ddof=1)) if k == 2 and n > 1 else _NAN
    variance, mean = x.var(axis=1, ddof=1), x.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = variance / mean**2
    cv = 100 * float(np.sqrt(relative[np.isfinite(relative)].mean())) if np.isfinite(relative).any() else _NAN
    return Agreement(n, k, bias, deviation, float(np.sqrt(variance.mean())), cv, icc(x))


def icc(x: NDArray[np.float64]) -> float:
    """Return ICC(A,1) of measurements (n, repeats): two-way random effects, absolute agreement, one measurement.

    (MSR − MSE) / (MSR + (k − 1) MSE + k (MSC − MSE) / n), with the mean squares of rows, columns and error (McGraw &
    Wong 1996, case 2A).
    """
    n, k = x.shape
    if n < 3 or k < 2:
        return _NAN
    grand, rows, columns = x.mean(), x.mean(axis=1), x.mean(axis=0)
    ms_rows = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    ms_columns = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    ms_error = float(((x - rows[:, None] - columns + grand) ** 2).sum()) / ((n - 1) * (k - 1))
    below = ms_rows + (k - 1) * ms_error + k * (ms_columns - ms_error) / n
    return (ms_rows - ms_error) / below if below > 0 else _NAN


@dataclass(frozen=True)
class Calibration:
    """Whether standard deviations are as large as the differences.

    Parameters
    ----------
    n
        Differences with standard deviations.
    mean, sd
        Of z, the difference over its standard deviation. An SD of 1 is calibrated, and above 1 the standard deviations
        are too small.
    robust_sd
        The interquartile range of z over that of a normal distribution: outliers do not change it.
    shares
        Of the |z| that a normal distribution has below each of `LEVELS`.
    """

    n: int
    mean: float
    sd: float
    robust_sd: float
    shares: tuple[float, ...]


def z_scores(a: NDArray[Any], b: NDArray[Any], sd_a: NDArray[Any], sd_b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the differences b − a over their standard deviations √(SD² + SD²): the noise of both is independent."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (np.asarray(b, float) - a) / np.sqrt(np.asarray(sd_a, float) ** 2 + np.asarray(sd_b, float) ** 2)
    return np.where(np.isfinite(z), z, np.nan)


def calibration(z: NDArray[Any]) -> Calibration:
    """Return the calibration of finite z.

    Examples
    --------
    >>> c = calibration(np.random.default_rng(0).standard_normal(100_000))
    >>> round(c.sd, 1), round(c.shares[3], 2)
    (1.0, 0.95)
    """
    x = np.asarray(z, dtype=float)
    x = x[np.isfinite(x)]
    if x.size < 2:
        return Calibration(x.size, _NAN, _NAN, _NAN, (_NAN,) * len(LEVELS))
    q25, q75 = np.quantile(x, [0.25, 0.75])
    limits = stats.norm.ppf(0.5 + np.array(LEVELS) / 2)
    shares = tuple(float((np.abs(x) < limit).mean()) for limit in limits)
    iqr_of_normal = float(2 * stats.norm.ppf(0.75))
    return Calibration(x.size, float(x.mean()), float(x.std(ddof=1)), float(q75 - q25) / iqr_of_normal, shares)
