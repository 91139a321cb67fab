"""A smooth field and several amplitudes: optimum of a dense search, correct SDs, less noise than voxelwise fits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import rimap
from rimap import FieldPrior, Parameter, SignalModel, setting
from rimap.arrays import Array, column, namespace

SIGMA = 15.0


@dataclass(frozen=True)
class DephasedEchoes(SignalModel):
    """S = A e^(−t/T2*) sinc(G t/2) + C: gradient echoes over an offset, dephased by a gradient across the slice."""

    te: tuple[float, ...] = setting("echo time", "TE", bids="EchoTime", entity="echo", plausible=(1.0, 1000.0))

    name: ClassVar[str] = "dephased"
    title: ClassVar[str] = "Dephased gradient echoes over an offset"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", suffix="M0map"),
        Parameter(
            "G",
            "1/ms",
            (0.0, 0.12),
            "field",
            treatment="smooth",
            start=0.06,
            prior=FieldPrior(mean=(0.04, 0.08), spread=(0.0, 0.3)),
        ),
        Parameter("C", "a.u.", (0.0, np.inf), "amplitude"),
        Parameter("T2star", "ms", (2.0, 500.0), "time", start=30.0, suffix="T2starmap"),
    )

    def shape(self, G: Array, T2star: Array) -> Array:  # type: ignore[override]
        """Return one column for each amplitude, (N, 2, *X)."""
        xp = namespace(T2star)
        t = column(self.te, T2star)
        turn = G * t / 2 + 1e-9
        decay = xp.exp(-t / T2star) * xp.sin(turn) / turn
        return xp.stack([decay, 1 + 0 * decay], axis=1)


MODEL = DephasedEchoes(te=tuple(4.0 * np.arange(1, 17)))


def series(
    n: int, kind: type[rimap.Gaussian | rimap.Rician] = rimap.Gaussian, slope: float = 0.03
) -> tuple[rimap.WeightedSeries, np.ndarray]:
    """Return a slice with a field that rises along one axis, and its truth (4, n, n)."""
    y, x = np.mgrid[:n, :n] / n
    truth = np.stack([1000 + 200 * np.sin(6 * x), 0.05 + slope * y, 80 + 40 * x, 30 + 9 * np.cos(5 * y)])
    images = kind(SIGMA).sample(MODEL.signal(truth), np.random.default_rng(0))
    return rimap.WeightedSeries(images.astype(np.float32), MODEL, kind(SIGMA)), truth


def test_one_field_is_that_of_a_dense_search() -> None:
    data, _ = series(6, slope=0.0)
    maps = rimap.MLE(lambda_B=math.inf, threads=1).estimate(data)
    fields, times = np.linspace(0.03, 0.07, 161), np.geomspace(12, 80, 400)
    S = data.images.reshape(MODEL.n_images, -1).astype(float)
    left = np.empty((len(fields), len(times), S.shape[1]))
    for i, G in enumerate(fields):
        g = MODEL.columns({"G": np.full(times.shape, G), "T2star": times})  # (N, 2, T)
        for j in range(len(times)):
            basis = np.linalg.qr(g[:, :, j])[0]
            left[i, j] = (S**2).sum(0) - ((basis.T @ S) ** 2).sum(0)
    cost = left.min(1).sum(1) / (2 * SIGMA**2)
    best = int(cost.argmin())
    assert (
        maps["G"] == pytest.approx(maps["G"][0, 0]) and abs(maps["G"][0, 0] - fields[best]) < 1.01 * np.diff(fields)[0]
    )
    found = (np.square(maps.residual).sum() * MODEL.n_images) / (2 * SIGMA**2)
    assert found < cost[best] + 0.05
    np.testing.assert_allclose(maps["T2star"].reshape(-1), times[left[best].argmin(0)], rtol=0.02)


@pytest.mark.parametrize("kind", [rimap.Gaussian, rimap.Rician])
def test_errors_are_honest_and_smaller_than_voxel_by_voxel(kind: type[rimap.Gaussian | rimap.Rician]) -> None:
    data, truth = series(24, kind)
    maps = rimap.MLE(lambda_B=1e4, threads=1).estimate(data)
    alone = rimap.NLLS(threads=1).estimate(data.with_noise(rimap.Gaussian(SIGMA)))
    assert (maps.status == 0).mean() > 0.95
    for q, name in enumerate(("A", "G", "C", "T2star")):
        off = maps[name] - truth[q]
        # A smooth field has few degrees of freedom: the scatter of one draw is a rough estimate of its error.
        least = 0.6 if name == "G" else 0.8
        assert least < np.nanstd(off / maps.sd[name]) < 1.25, name
        assert np.sqrt(np.nanmean(off**2)) < 0.7 * np.sqrt(np.nanmean((alone[name] - truth[q]) ** 2)), name


def test_the_smoothness_is_chosen_and_a_mask_is_honoured() -> None:
    data, truth = series(20, slope=0.06)
    mask = np.ones((20, 20), bool)
    mask[:3] = False
    masked = rimap.WeightedSeries(data.images, MODEL, data.noise, mask=mask)
    maps = rimap.MLE(threads=1).estimate(masked)
    assert np.isnan(maps["T2star"][:3]).all() and np.isfinite(maps["T2star"][3:]).all()
    assert np.isfinite(maps.settings["lambda_B"])  # a field that rises by 0.06 is not one value
    assert np.sqrt(np.mean((maps["G"] - truth[1])[mask] ** 2)) < 0.006


@pytest.mark.parametrize("lambda_B", [0.0, math.inf])
def test_magnitudes_of_zero_have_the_likelihood_of_small_ones(lambda_B: float) -> None:
    """Whole numbers of weak images are often zero; as log S does not depend on the maps, nothing jumps there."""
    model = MODEL if lambda_B else rimap.GradientEchoWithOffset(te=(3, 6, 9, 12, 15, 20, 30, 40, 50, 60, 70, 80))
    kappa = np.array([20.0, 0.05, 0.1, 20.0]) if lambda_B else np.array([6.0, 12.0, 0.0])
    truth = np.ones((len(kappa), 5, 5)) * kappa[:, None, None]
    images = np.floor(rimap.Rician(1.0).sample(model.signal(truth), np.random.default_rng(0)))
    assert 0.05 < (images == 0).mean() < 0.6
    estimator = rimap.MLE(lambda_B=lambda_B, threads=1)
    zero, small = (
        estimator.estimate(rimap.WeightedSeries(S, model, rimap.Rician(1.0)))
        for S in (images, np.where(images == 0, 1e-6, images))
    )
    assert (zero.status == small.status).all()
    known = np.isfinite(zero.kappa).all(0) & np.isfinite(small.kappa).all(0)
    assert known.mean() > 0.9
    np.testing.assert_allclose(zero.kappa[:, known], small.kappa[:, known], rtol=1e-3, atol=1e-4)
