"""Which model images support: each step of the criterion against its definition, and both models where each is true."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from rimap import InversionRecovery, MultiEchoSpinEcho, SignalModel, T2Decay
from rimap.estimators.checks import model_selection as module
from rimap.estimators.checks.model_selection import FIELDS, TIMES, evidence
from rimap.signals.saturation_recovery import SaturationRecovery

Floats = NDArray[np.float64]
TI = (50.0, 200.0, 500.0, 1000.0, 2000.0, 4000.0)
TE = 10.0 * np.arange(1, 7)
DECAY, SATURATED = T2Decay(tau=TE), SaturationRecovery(tau=TI, signed=True)
INVERTED = InversionRecovery(tau=TI, signed=True)
X = np.array([-1.0, 0.0, 1.0])


def columns(*curves: Floats) -> list[Floats]:
    return list(np.array(curves).T)


@pytest.mark.parametrize(("vertex", "inside"), [(-0.5, True), (0.3, True), (0.5, True), (0.51, False), (-0.9, False)])
def test_the_minimum_of_a_parabola_near_its_middle(vertex: float, inside: bool) -> None:
    curve = 3 * (X - vertex) ** 2 + 2
    (found,) = module._parabola(*columns(curve))
    assert found == pytest.approx(2.0 if inside else curve.min())


def test_what_is_no_valley_has_its_least_node() -> None:
    found = module._parabola(*columns([2.0, 3.0, 2.5], [1.0, 1.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]))
    assert found.tolist() == [2.0, 1.0, 1.0, 1.0]


def test_the_least_of_a_curve_is_between_its_nodes() -> None:
    nodes = np.arange(7.0)[:, None]
    vertices = np.array([3.2, 0.6, 5.4, -2.0, 9.0])
    curves = (nodes - vertices) ** 2 + 1
    np.testing.assert_allclose(module._least(curves), [1, 1, 1, 5, 10])
    np.testing.assert_allclose(module._least(curves[:3]), [2.44, 1, 12.56, 5, 50], rtol=1e-9)
    np.testing.assert_allclose(module._least(curves[:2]), curves[:2].min(0))
    holed = curves.copy()
    holed[6] = np.nan
    np.testing.assert_allclose(module._least(holed)[:2], [1, 1])


def test_a_curve_at_a_known_field() -> None:
    F = np.linspace(0.4, 1.6, 7)
    values = np.array([0.4, 0.47, 1.0, 1.33, 1.6, 0.2, np.nan])
    curves = 2 + 5 * (F[:, None] - np.full(7, 0.9)) ** 2 + 3 * F[:, None]
    found = module._at(curves, F, values)
    assert found.shape == (1, 7)
    np.testing.assert_allclose(found[0], 2 + 5 * (values - 0.9) ** 2 + 3 * values)
    assert module._at(np.linspace(3, -3, 7)[:, None], F, np.array([1.6]))[0, 0] == 0
    cubic = F[:, None] ** 3  # of the nearest three nodes, which are not the same for each value
    for value in (0.69, 0.71):
        k = int(np.round((value - 0.4) / 0.2))
        near = np.polyfit(F[k - 1 : k + 2], F[k - 1 : k + 2] ** 3, 2)
        assert module._at(cubic, F, np.array([value]))[0, 0] == pytest.approx(np.polyval(near, value))


@pytest.mark.parametrize("has_field", [True, False])
def test_sigma_is_that_of_the_median_residual(has_field: bool) -> None:
    weight = np.ones((6, 9))
    free = 6 - 2 - has_field
    rss = 9.0 * special.chdtri(free, 0.5) * np.linspace(0.5, 1.5, 9)
    fit = module._Fit(rss[None], weight, has_field)
    assert module._sigma(fit, weight) == pytest.approx(3.0)
    weight[4:] = 0  # fewer images: fewer degrees of freedom, each voxel with its own
    assert module._sigma(fit, weight) == pytest.approx(
        3 * np.sqrt(special.chdtri(free, 0.5) / special.chdtri(free - 2, 0.5))
    )
    weight[:, 5:] = 1
    lower = rss[:5] / special.chdtri(free - 2, 0.5)
    expected = np.sqrt(np.median(np.concatenate([lower, rss[5:] / special.chdtri(free, 0.5)])))
    assert module._sigma(fit, weight) == pytest.approx(expected)
    assert np.isnan(module._sigma(fit, np.zeros((6, 9)))) and np.isnan(module._sigma(fit, weight[: 2 + has_field]))


def test_blocks_are_cut_at_the_median_of_their_longest_edge() -> None:
    positions = np.array([[0.0, 1, 2, 3, 0, 1, 2, 3], [0, 0, 0, 0, 2, 2, 2, 2]])
    blocks = module._tree(positions)
    assert [int(block.max()) + 1 for block in blocks] == [1, 2, 4, 8]
    assert blocks[1].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]  # x is longer
    assert blocks[2].tolist() == [0, 0, 2, 2, 1, 1, 3, 3]  # then y
    assert sorted(blocks[3].tolist()) == list(range(8))
    odd = module._tree(np.arange(5.0)[None])
    assert [int(block.max()) + 1 for block in odd] == [1, 2, 4, 5]
    assert odd[1].tolist() == [0, 0, 1, 1, 1] and odd[2].tolist() == [0, 1, 2, 3, 3]
    assert [block.tolist() for block in module._tree(np.zeros((1, 1)))] == [[0]]


def test_the_criterion_counts_one_field_for_each_block() -> None:
    nodes, rng = np.linspace(0, 1, 21)[:, None], np.random.default_rng(0)
    tree = module._tree(np.arange(8.0)[None])
    own = np.where(np.arange(8) < 4, 0.2, 0.8) + rng.normal(0, 0.003, 8)
    curves = 3000 * (nodes - own) ** 2 + 1
    of_blocks = []
    for block in tree:
        n = block.max() + 1
        spread = sum(3000 * ((own[block == b] - own[block == b].mean()) ** 2).sum() for b in range(n))
        of_blocks.append(8 + spread + 2 * n)
    assert int(np.argmin(of_blocks)) == 1  # two blocks
    assert module._criterion(curves, True, tree) == pytest.approx(min(of_blocks), rel=1e-6)
    assert module._criterion(curves[:1], False, tree) == pytest.approx(curves[0].sum())
    exact = 3000 * (nodes - np.full(8, 0.2)) ** 2 + 0.1  # nearly without residuals
    assert module._criterion(exact, True, tree) == pytest.approx(0.8 + 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_profile_is_the_least_residual_over_time_and_amplitude(weighted: bool) -> None:
    rng, times = np.random.default_rng(1), np.geomspace(10, 300, TIMES)
    atoms = np.exp(-TE[:, None, None] / times[None, None]) * np.array([1.0, 0.5])[None, :, None]
    atoms = atoms + np.array([0.0, 0.3])[None, :, None]
    S = 50 * np.exp(-TE[:, None] / np.array([40.0, 5000.0, 150.0, 1.0, 80.0])) + rng.normal(0, 0.01, (6, 5))
    S[:, 4] *= -1  # no amplitude is negative
    weight = np.ones(S.shape)
    if weighted:
        weight[4:, :2] = 0
    rss, signal = module._profile(atoms, S, weight)
    for v in range(5):
        used = weight[:, v] > 0
        explained = np.empty((2, TIMES))
        for f in range(2):
            for k in range(TIMES):
                a = atoms[used, f, k]
                explained[f, k] = max(a @ S[used, v], 0) ** 2 / (a @ a)
        power = (S[used, v] ** 2).sum()
        middle = np.clip(explained.argmax(1), 1, TIMES - 2)
        least = [power + module._parabola(*(-explained[f, middle[f] + np.arange(-1, 2)])) for f in range(2)]
        np.testing.assert_allclose(rss[:, v], np.maximum(least, 0), rtol=1e-9, atol=1e-9 * power)
        best = int(np.argmin(least))
        a = atoms[:, best, np.clip(explained[best].argmax(), 1, TIMES - 2)]
        amplitude = max(a[used] @ S[used, v], 0) / (a[used] @ a[used])
        np.testing.assert_allclose(signal[:, v], amplitude * a, rtol=1e-9)


def test_atoms_are_shapes_on_the_grid() -> None:
    times, F = np.geomspace(100, 3000, TIMES), np.linspace(1.0, 2.0, 4)
    grid = module._atoms(INVERTED, times, F, "B", {})
    assert grid.shape == (6, 4, TIMES)
    np.testing.assert_allclose(grid[:, 2, 9], INVERTED.shape(B=F[2:3], T1=times[9:10])[:, 0])
    known = module._atoms(INVERTED, times, np.zeros(1), "", {"B": 1.7})
    assert known.shape == (6, 1, TIMES)
    np.testing.assert_allclose(known[:, 0, 9], INVERTED.shape(B=np.array([1.7]), T1=times[9:10])[:, 0])


def sampled(model: SignalModel, *rows: Floats | float, noise: float = 0.0, seed: int = 0) -> Floats:
    V = max(np.size(row) for row in rows)
    clean = np.asarray(model.signal(np.stack([np.full(V, row, float) for row in rows])))
    return clean + np.random.default_rng(seed).normal(0, noise, clean.shape)


T1 = np.linspace(500.0, 1500.0, 30)
GRID = np.geomspace(100, 4000, TIMES)


def test_a_free_field_has_a_curve_and_a_known_one_a_value() -> None:
    B = np.linspace(1.6, 2.0, 30)
    S, weight = sampled(INVERTED, 100.0, B, T1, noise=0.5), np.ones((6, 30))
    free = module._fit(INVERTED, GRID, S, weight, {})
    assert free.rss.shape == (FIELDS, 30) and free.has_field
    number = module._fit(INVERTED, GRID, S, weight, {"B": 1.9})
    assert number.rss.shape == (1, 30) and not number.has_field
    own = module._fit(INVERTED, GRID, S, weight, {"B": B})
    assert own.rss.shape == (1, 30) and not own.has_field
    true = np.array([S[:, v] @ S[:, v] for v in range(30)])
    assert (own.rss[0] < 0.01 * true).all() and (own.rss[0] < number.rss[0] + 4).all()
    assert (free.least() <= own.rss[0] + 2).all() and number.rss[0, 0] > 10 * own.rss[0].mean()
    holed = np.where(np.arange(30) == 7, np.nan, B)
    assert np.flatnonzero(np.isnan(module._fit(INVERTED, GRID, S, weight, {"B": holed}).rss[0])).tolist() == [7]


def test_voxels_share_the_atoms_of_a_rounded_map() -> None:
    """A known T1 of a train is rounded to steps of 0.15 in its logarithm; without a value there is no fit."""
    train = MultiEchoSpinEcho(te=TE, profile="hard", refocusing_angle=150.0)
    T1_map = np.array([300.0, 310.0, 1000.0, 0.0, np.nan, 0.8])
    S = np.asarray(
        train.signal(np.stack([np.full(6, 9.0), np.full(6, 0.9), np.where(T1_map > 0, T1_map, 9.0), np.full(6, 70.0)]))
    )
    times = np.geomspace(10, 300, TIMES)
    found = module._fit(train, times, S, np.ones(S.shape), {"B1": 0.9, "T1": T1_map})
    assert np.isnan(found.rss[0]).tolist() == [False, False, False, True, True, False]
    for v in (0, 1, 2, 5):
        rounded = float(np.exp(0.15 * np.round(np.log(T1_map[v]) / 0.15)))
        alone = module._fit(train, times, S[:, [v]], np.ones((6, 1)), {"B1": 0.9, "T1": rounded})
        np.testing.assert_allclose(found.rss[0, v], alone.rss[0, 0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.signal[:, v], alone.signal[:, 0], rtol=1e-9)


POSITIONS = np.stack([np.arange(30.0), np.zeros(30)])


def test_the_true_model_has_the_lower_criterion() -> None:
    for true, kappa in ((INVERTED, (100.0, 1.9, T1)), (SATURATED, (100.0, 0.9, T1))):
        S = sampled(true, *kappa, noise=8.0)  # with less, the grid of the field is too coarse for so wide a range of B
        found = evidence(S, POSITIONS, [SATURATED, INVERTED], [{}, {}], has_floor=False)
        assert int(np.argmin(found.aic)) == [SATURATED, INVERTED].index(true)
        assert found.n_voxels == 30 and found.sigma == pytest.approx(8.0, rel=0.25)


def test_the_criterion_is_chi_squared_and_twice_the_number_of_fields() -> None:
    """Of a model without a field: Σ χ² with σ from the median residual. A field that is known costs nothing."""
    S = sampled(INVERTED, 100.0, 1.9, T1, noise=1.0)
    known = evidence(S, POSITIONS, [INVERTED], [{"B": 1.9}], has_floor=False)
    rss = np.empty(30)
    fine = np.geomspace(200, 3000, 4000)
    atoms = np.asarray(INVERTED.shape(B=np.full(4000, 1.9), T1=fine))
    for v in range(30):
        rss[v] = (S[:, v] ** 2).sum() - ((atoms.T @ S[:, v]) ** 2 / (atoms**2).sum(0)).max()
    sigma = np.sqrt(np.median(rss) / special.chdtri(4, 0.5))
    assert known.sigma == pytest.approx(sigma, rel=0.06)  # the grid of T1 is coarse
    assert known.aic[0] * known.sigma**2 == pytest.approx(rss.sum(), rel=0.1)
    free = evidence(S, POSITIONS, [INVERTED], [{}], has_floor=False)
    assert free.aic[0] * free.sigma**2 < known.aic[0] * known.sigma**2 + 2 * free.sigma**2


@pytest.mark.parametrize("unit", [1e-4, 1e3])
@pytest.mark.parametrize("has_floor", [True, False])
def test_the_unit_of_the_images_does_not_matter(unit: float, has_floor: bool) -> None:
    S = abs(sampled(INVERTED, 100.0, 1.9, T1, noise=6.0))
    model = InversionRecovery(tau=TI)
    one = evidence(S, POSITIONS, [model, model], [{}, {"B": 1.9}], has_floor=has_floor)
    other = evidence(unit * S, POSITIONS, [model, model], [{}, {"B": 1.9}], has_floor=has_floor)
    np.testing.assert_allclose(other.aic, one.aic, rtol=1e-6)
    assert other.sigma == pytest.approx(unit * one.sigma) and other.n_voxels == one.n_voxels


def test_voxels_that_nothing_describes_are_left_out() -> None:
    S = sampled(DECAY, 100.0, np.linspace(40, 120, 30), noise=1.0)
    S[:, 3] = [1, 50, 1, 50, 1, 50]
    found = evidence(S, POSITIONS, [DECAY], [{}], has_floor=False)
    assert found.n_voxels == 29
    few = evidence(S[:2], POSITIONS, [T2Decay(tau=TE[:2])], [{}], has_floor=False)
    assert few.n_voxels == 0 and few.aic.tolist() == [0.0]
    three = evidence(S[:3, :3], POSITIONS[:, :3], [T2Decay(tau=TE[:3])], [{}], has_floor=False)
    assert three.n_voxels == 3


def test_images_without_noise_have_a_least_sigma() -> None:
    S = sampled(DECAY, 100.0, np.geomspace(40, 120, 30))
    found = evidence(S, POSITIONS, [DECAY], [{}], has_floor=False)
    assert found.sigma == pytest.approx(1e-3 * np.sqrt((S**2).mean()), rel=1e-6)


def test_the_noise_floor_is_left_out_and_what_remains_of_it_is_subtracted() -> None:
    """Short T2 in magnitudes: the last echoes are noise, and three echoes are above it."""
    te = 10.0 * np.arange(1, 17)
    model, T2 = T2Decay(tau=te), np.geomspace(20, 60, 30)
    clean = np.asarray(model.signal(np.stack([np.full(30, 100.0), T2])))
    e = np.random.default_rng(3).normal(0, 2.0, (2, *clean.shape))
    S = np.hypot(clean + e[0], e[1])
    found = evidence(S, POSITIONS, [model], [{}], has_floor=True)
    assert found.sigma == pytest.approx(2.0, rel=0.15) and found.n_voxels == 30
    number = (clean > 3 * found.sigma).sum()
    assert found.aic[0] == pytest.approx(
        number - 60, rel=0.25
    )  # one degree of freedom for each value, less two for each voxel
    whole = evidence(S, POSITIONS, [model], [{}], has_floor=False)
    assert whole.aic[0] > 1.5 * found.aic[0]


def test_noise_alone_supports_nothing() -> None:
    e = np.random.default_rng(4).normal(0, 1, (2, 6, 30))
    found = evidence(np.hypot(*e), POSITIONS, [DECAY], [{}], has_floor=True)
    assert found.n_voxels < 30 and np.isfinite(found.aic).all()


@pytest.mark.parametrize("snr", [30.0, 300.0, 3000.0])
@pytest.mark.parametrize("bounds", [(0.0, 3.0), (0.0, 20.0), (0.0, 300.0)])
def test_one_field_never_fits_better_than_a_field_of_each_voxel(snr: float, bounds: tuple[float, float]) -> None:
    """Nor better than exactly, however wide its range and however low the noise: nodes may be far apart."""
    model = INVERTED.with_bounds({"B": bounds})
    S = sampled(INVERTED, 100.0, 1.9, np.linspace(500, 2000, 30), noise=100.0 / snr)
    fit = module._fit(model, np.geomspace(10, 10_000, module.TIMES), S, np.ones_like(S), {})
    chi2s = fit.rss / (100.0 / snr) ** 2
    tree = module._tree(POSITIONS[:, : S.shape[1]])
    own = np.maximum(module._least(chi2s), 0)
    assert (fit.least() >= 0).all()
    assert module._criterion(chi2s, True, tree) >= own.sum() + 2


def test_the_order_of_the_images_does_not_matter() -> None:
    """Images below the floor, and later ones, are left out: later in time, not in the array."""
    te = np.array([4.0, 8.0, 8.0, 16.0, 20.0, 26.0, 34.0, 44.0, 56.0, 70.0])
    rng, V = np.random.default_rng(0), 300
    f = np.exp(-te[:, None] / (25 * np.exp(0.2 * rng.standard_normal(V))))
    S, positions = np.hypot(f + rng.normal(0, 0.05, f.shape), rng.normal(0, 0.05, f.shape)), rng.uniform(0, 200, (3, V))
    sorted_, *others = (
        evidence(S[p], positions, [T2Decay(tau=te[p])], [{}], has_floor=True)
        for p in (np.arange(10), np.arange(10)[::-1], rng.permutation(10))
    )
    assert sorted_.n_voxels > 0.9 * V
    for other in others:
        assert other.n_voxels == sorted_.n_voxels
        assert other.sigma == pytest.approx(sorted_.sigma) and other.aic == pytest.approx(sorted_.aic)


def refined(images: Floats, models: list[SignalModel], known: list[dict[str, float]]) -> list[float]:
    """Return σ after each of the rounds of magnitude images, from the first and the middle model until the last one."""
    times = np.geomspace(max(m.time.searched[0] for m in models), min(m.time.searched[1] for m in models), module.TIMES)
    S, weight, sigmas = images, np.ones(images.shape), []
    for some in ((0, len(models) // 2), (0, len(models) // 2), range(len(models))):
        fits = [module._fit(models[c], times, S, weight, known[c]) for c in some]
        levels = [module._sigma(fit, weight) for fit in fits]
        signal, sigma = fits[int(np.argmin(levels))].signal, min(levels)
        sigmas.append(sigma)
        weight = np.cumprod(signal > 3 * sigma, axis=0).astype(float)
        S = images - sigma * module.excess(signal / sigma) * weight
    return sigmas


def test_the_floor_is_subtracted_twice_with_the_noise_level_that_the_first_and_the_middle_model_show() -> None:
    """The middle one of four is right. The noise level of each round is that of images without the floor before."""
    te, T2 = 10.0 * np.arange(1, 13), np.geomspace(20, 60, 30)
    decay = T2Decay(tau=te)
    train = MultiEchoSpinEcho(te=te, profile="hard", refocusing_angle=180.0)
    f = np.asarray(decay.signal(np.stack([np.full(30, 100.0), T2])))
    S = np.hypot(*(np.random.default_rng(5).normal(0, 3.0, (2, *f.shape)) + np.stack([f, 0 * f])))
    models, known = [train, train, decay, train], [{"B1": b, "T1": 1000.0} for b in (0.5, 0.52, 1.0, 0.54)]
    known[2] = {}
    sigmas = refined(S, models, known)
    assert len(set(np.round(sigmas, 6))) == 3 and sigmas[-1] == pytest.approx(3.0, rel=0.15)
    found = evidence(S, POSITIONS, models, known, has_floor=True)
    assert found.sigma == pytest.approx(sigmas[-1], rel=1e-9)
    assert int(np.argmin(found.aic)) == 2


def test_a_voxel_with_as_many_images_above_the_floor_as_parameters_is_not_compared() -> None:
    """Two echoes of a fast decay are above the noise, and A and T2 fit any two values: they support every model."""
    te = 10.0 * np.arange(1, 9)
    model, T2 = T2Decay(tau=te), np.where(np.arange(30) < 6, 7.0, 60.0)
    f = np.asarray(model.signal(np.stack([np.where(np.arange(30) < 6, 200.0, 100.0), T2])))
    assert (f[:2, :6] > 10).all() and (f[2:, :6] < 3).all()
    S = np.hypot(*(np.random.default_rng(1).normal(0, 2.0, (2, *f.shape)) + np.stack([f, 0 * f])))
    found = evidence(S, POSITIONS, [model], [{}], has_floor=True)
    assert found.n_voxels == 24 and found.aic[0] < 2 * 24 * 6


def test_images_of_which_too_few_are_known_show_no_noise_level() -> None:
    S = sampled(DECAY, 100.0, np.linspace(40, 120, 30), noise=1.0)[:2]
    assert evidence(S, POSITIONS, [T2Decay(tau=TE[:2])], [{}], has_floor=False).sigma == 0


@pytest.mark.parametrize("node", [0, 1, 60, TIMES - 2, TIMES - 1])
def test_a_time_at_an_end_of_the_grid_is_found(node: int) -> None:
    times = np.geomspace(10, 300, TIMES)
    atoms = np.exp(-TE[:, None, None] / times[None, None])
    rss, signal = module._profile(atoms, 50 * atoms[:, 0, [node]], np.ones((6, 1)))
    assert rss[0, 0] < 1e-9 * 2500
    if 0 < node < TIMES - 1:
        np.testing.assert_allclose(signal, 50 * atoms[:, 0, [node]])
