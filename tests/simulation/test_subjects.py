"""Truth maps of subjects and their series."""

from dataclasses import replace

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.likelihood import Gaussian, Rician
from rimap.signals.base import FieldPrior
from rimap.signals.look_locker import MOLLI, LookLocker
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.simulation.anatomies import digital_brain
from rimap.simulation.random_fields import smooth_field
from rimap.simulation.recipe import general_t1, paper
from rimap.simulation.subjects import simulate_acquisition, simulate_series, simulate_subject
from rimap.simulation.tissues import GM, TISSUES, WM

HEAD = digital_brain()[:, :, 26]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_smooth_B_spans_its_range_and_constant_B_none():
    smooth = simulate_subject(HEAD, "T1", rng())[1]
    assert np.ptp(smooth) / 1.85 == pytest.approx(0.1)
    assert abs(np.diff(smooth, axis=0)).max() < 0.02
    assert np.ptp(simulate_subject(HEAD, "T1", rng(), field_map="constant")[1]) == 0


@pytest.mark.parametrize("start", [0.0, -5.0])
def test_a_smooth_field_around_zero_varies_as_much_as_its_prior_says(start):
    A, B, T = rimap.InversionRecovery.parameters
    prior = FieldPrior(mean=(-10.0, 10.0), sd=8.0)
    F = replace(B, name="F", unit="Hz", bounds=(-200.0, 200.0), start=start, prior=prior)
    kind = type("Beat", (rimap.InversionRecovery,), {"name": "beat", "parameters": (A, F, T)})
    field = simulate_subject(HEAD, kind(tau=(50, 200, 800, 2000)), rng())[1]
    assert np.ptp(field) == pytest.approx(8.0) and abs(field - 0.925 * start).max() < 8.0


def test_tissues_are_off_table_1_by_the_scale_asked_for():
    for seed in range(6):
        kappa = simulate_subject(HEAD, PROTOCOLS["IV_T2"], rng(seed), texture="none")
        for t in (GM, WM):
            for value, row in zip(kappa, (TISSUES[t].A, TISSUES[t].T2)):
                off = abs(value[np.equal(HEAD, t)] / row.mean - 1)
                assert np.ptp(off) < 1e-9 and 0.1 <= off[0] <= 0.2
    exact = simulate_subject(HEAD, "T1", rng(), texture="none", tissue_scale=(0.0, 0.0))
    assert (exact[2][HEAD == GM] == 1400).all()


def test_texture():
    T = {t: simulate_subject(HEAD, "T1", rng(3), texture=t)[2] for t in ("smooth", "white")}
    wm = HEAD == WM
    inner = wm[1:] & wm[:-1]
    step = {t: np.diff(T[t], axis=0)[inner].std() / T[t][wm].std() for t in T}
    assert step["smooth"] < 0.6 and step["white"] > 1.2  # neighbours are alike, or independent
    assert T["white"][wm].std() == pytest.approx(100, rel=0.1)
    assert 0.02 < T["smooth"][wm].std() / T["smooth"][wm].mean() < 0.1


def test_background_and_unknown_quantity():
    kappa = simulate_subject(HEAD, "T2", rng())
    assert kappa.shape == (2, *HEAD.shape)
    assert (kappa[0][HEAD == 0] == 0).all() and np.isfinite(kappa).all() and (kappa[0][HEAD > 0] > 0).all()
    with pytest.raises(InputError, match="expected one of T1, T2, got 'T3'"):
        simulate_subject(HEAD, "T3", rng())


def test_series_has_the_noise_asked_for():
    model = PROTOCOLS["IV_T1"]
    kappa = simulate_subject(HEAD, model, rng())
    series = simulate_series(kappa, model, Gaussian(sigma=0.05), rng())
    assert series.images.dtype == np.float32 and series.images.shape == (31, *HEAD.shape)
    assert (series.images - model.signal(kappa)).std() == pytest.approx(0.05, rel=0.01)
    np.testing.assert_array_equal(series.mask, HEAD > 0)
    assert simulate_series(kappa, model, Rician(sigma=0.05), rng()).images.min() >= 0


def test_volume_and_acquisition():
    volume = digital_brain((32, 36, 24))
    recipe = replace(paper("t2"), sigma=(0.02, 0.02))
    series, kappa = simulate_acquisition(recipe, volume, 3, affine=np.eye(4))
    again, _ = simulate_acquisition(recipe, volume, 3)
    np.testing.assert_array_equal(series.images, again.images)
    assert series.images.shape == (6, *volume.shape) and series.noise.sigma == pytest.approx(0.02)
    assert (series.images - series.model.signal(kappa)).std() == pytest.approx(0.02, rel=0.02)
    other, _ = simulate_acquisition(recipe, volume, 4)
    assert not np.array_equal(other.images, series.images)


def test_hidden_tr_is_in_the_effective_truth():
    recipe = replace(general_t1(), optional_share=0.0, hidden_share=1.0, signed_share=0.0, rician_share=0.0)
    recipe = replace(recipe, sigma=(1e-4, 1e-4))
    series, kappa = simulate_acquisition(recipe, HEAD, 0)
    assert series.model.tr is None
    np.testing.assert_allclose(series.images, series.model.signal(kappa), atol=1e-3)


def test_smooth_field_is_standard_and_works_in_any_dimension():
    for shape in ((50,), (40, 30), (20, 1, 25), (12, 14, 16)):
        field = smooth_field(shape, 4.0, rng())
        assert field.shape == shape
        assert field.mean() == pytest.approx(0, abs=1e-9) and field.std() == pytest.approx(1)


@pytest.mark.parametrize("kind", [LookLocker, MOLLI])
def test_the_T1_of_a_look_locker_subject_is_that_of_the_tissue(kind):
    model = kind(ti=[50, 300, 800, 2000])
    maps = model.by_name(simulate_subject(HEAD, model, rng(), texture="none", tissue_scale=(0.0, 0.0)))
    T1 = np.asarray(model.derived[0].formula(model, maps))
    for tissue in (GM, WM):
        inside = np.equal(HEAD, tissue)
        np.testing.assert_allclose(T1[inside], TISSUES[tissue].T1.mean, rtol=1e-9)
        assert (maps["T1star"][inside] < T1[inside]).all()
