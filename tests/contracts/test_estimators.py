"""What every estimator that needs no trained network must hold, on every signal model it takes."""

from __future__ import annotations

import numpy as np
import pytest

from rimap import Gaussian, Status, WeightedSeries
from rimap.estimators import Estimator, estimators
from rimap.signals import SignalModel

from .cases import MODELS, draw

#: What has a `load` needs a trained network: test_networks.py.
READY = {name: cls for name, cls in sorted(estimators().items()) if not hasattr(cls, "load")}
SIGMA = 0.02

every = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
pytestmark = pytest.mark.parametrize("cls", READY.values(), ids=READY)


def _series(model: SignalModel, shape: tuple[int, ...] = (9, 8), seed: int = 0, **options: object) -> WeightedSeries:
    kappa = draw(model, shape, seed, inner=0.42, even=True)
    rng = np.random.default_rng(seed)
    S = model.signal(kappa) + SIGMA * rng.standard_normal((model.n_images, *shape))
    images = abs(S) if model.magnitude else S
    return WeightedSeries(images=images, model=model, **{"noise": Gaussian(sigma=SIGMA), **options})  # type: ignore[arg-type]


def _same(a: np.ndarray, b: np.ndarray, rtol: float = 1e-4) -> None:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


@every
def test_it_finds_the_tissue(cls: type[Estimator], model: SignalModel) -> None:
    series = _series(model)
    maps = cls().estimate(series)
    truth = draw(model, series.shape, 0, inner=0.42, even=True)
    T = model.parameters[-1].name
    assert np.nanmedian(abs(maps[T] / truth[-1] - 1)) < 0.1
    assert maps.kappa.shape == truth.shape and maps.status.shape == series.shape
    assert maps.estimator == cls.name and maps.model == model
    assert np.isfinite(maps.kappa[:, maps.status == Status.OK]).all()
    for q, p in enumerate(model.parameters):
        found = maps.kappa[q][np.isfinite(maps.kappa[q])]
        assert (found >= p.bounds[0]).all() and (found <= p.bounds[1] * (1 + 1e-12)).all()


@every
def test_the_mask_is_honoured(cls: type[Estimator], model: SignalModel) -> None:
    mask = np.zeros((9, 8), bool)
    mask[2:7, 1:6] = True
    mask[4, 3] = False
    maps = cls().estimate(_series(model, mask=mask))
    assert (maps.status[~mask] == Status.OUTSIDE_MASK).all() and np.isnan(maps.kappa[:, ~mask]).all()
    assert (maps.status[mask] != Status.OUTSIDE_MASK).all()


@every
def test_the_order_of_the_images_does_not_matter(cls: type[Estimator], model: SignalModel) -> None:
    series = _series(model)
    order = np.random.default_rng(1).permutation(model.n_images)
    _same(cls().estimate(series).kappa, cls().estimate(series.subset(order)).kappa)


@every
@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_scaling_the_images_scales_A_and_nothing_else(cls: type[Estimator], model: SignalModel, factor: float) -> None:
    series = _series(model)
    scaled = _series(model, noise=Gaussian(sigma=SIGMA * factor))
    scaled = WeightedSeries(images=series.images * factor, model=model, noise=scaled.noise)
    a, b = cls().estimate(series), cls().estimate(scaled)
    np.testing.assert_array_equal(a.status, b.status)
    rtol = 1e-6 if cls.name == "nlls" else 1e-4
    _same(factor * a.kappa[0], b.kappa[0] + 0.0, rtol) if factor > 1 else _same(a.kappa[0], b.kappa[0] / factor, rtol)
    _same(a.kappa[1:], b.kappa[1:], rtol)


@every
def test_an_odd_voxel_harms_no_other(cls: type[Estimator], model: SignalModel) -> None:
    series = _series(model)
    images = series.images.copy()
    images[2, 0, 0], images[0, 8, 7], images[:, 4, 4] = np.nan, np.inf, 0.0
    maps = cls().estimate(WeightedSeries(images=images, model=model, noise=series.noise))
    assert maps.status[0, 0] == maps.status[8, 7] == Status.NOT_FINITE and maps.status[4, 4] == Status.NO_SIGNAL
    tissue = [q for q, p in enumerate(model.parameters) if not p.smooth]  # what is smooth may be continued
    assert np.isnan(maps.kappa[tissue][:, [0, 8, 4], [0, 7, 4]]).all()
    far = np.ones(series.shape, bool)
    if cls.halo != 0:
        far[:] = False
    far[[0, 8, 4], [0, 7, 4]] = False
    whole = cls().estimate(series)
    _same(maps.kappa[:, far], whole.kappa[:, far])


@every
def test_a_cut_gives_the_map_of_the_whole(cls: type[Estimator], model: SignalModel) -> None:
    if cls.halo is None:
        pytest.skip("solves the volume whole")
    series, halo = _series(model, (12, 6)), cls.halo
    whole = cls().estimate(series)
    low, high = 4 - min(halo, 4), 8 + min(halo, 4)
    part = WeightedSeries(images=series.images[:, low:high], model=model, noise=series.noise)
    cut = cls().estimate(part)
    _same(cut.kappa[:, 4 - low : 8 - low], whole.kappa[:, 4:8])


@every
def test_types_and_shapes(cls: type[Estimator], model: SignalModel) -> None:
    series = _series(model, (3, 4, 5))
    whole = cls().estimate(series)
    assert whole.kappa.shape[1:] == (3, 4, 5)
    single = WeightedSeries(images=series.images.astype(np.float32), model=model, noise=series.noise)
    maps = cls().estimate(single)
    ok = (whole.status == Status.OK) & (maps.status == Status.OK)
    assert ok.mean() > 0.8
    assert np.median(abs(maps.kappa[:, ok] / whole.kappa[:, ok] - 1)) < 1e-4
    if cls.halo == 0:
        turned = WeightedSeries(images=np.asfortranarray(series.images), model=model, noise=series.noise)
        _same(cls().estimate(turned).kappa, whole.kappa, 1e-9)
        line = WeightedSeries(images=series.images[:, :, 0, 0], model=model, noise=series.noise)
        _same(cls().estimate(line).kappa, whole.kappa[:, :, 0, 0], 1e-9)


def test_progress_ends_at_its_total(cls: type[Estimator]) -> None:
    seen: list[tuple[int, int]] = []
    cls().estimate(_series(MODELS["t2"]), progress=lambda done, total: seen.append((done, total)))
    assert not seen or seen[-1][0] == seen[-1][1]


def test_sigma_is_found_where_it_is_not_given(cls: type[Estimator]) -> None:
    maps = cls().estimate(_series(MODELS["ir"], (40, 30), noise=None))
    assert maps.noise is not None and maps.sigma_source == "residuals"
    assert maps.noise.sigma == pytest.approx(SIGMA, rel=0.1)
