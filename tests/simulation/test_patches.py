"""Training patches: the distributions of §4.2, seeding, structures."""

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rimap.errors import InputError
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.simulation.acquisitions import draw_acquisition, stream
from rimap.simulation.anatomies import Anatomy, brain_mask, digital_brain
from rimap.simulation.patches import Structure, _rung, draw_patch, simulate_batch
from rimap.simulation.recipe import general_t1, general_t2, paper
from rimap.simulation.tissues import CSF, GM, SKULL, TISSUES, WM

# What seed 0 gave when this was written.
SIGMA = [0.008964, 0.006932]
KAPPA = [[0.345615, 1.850097, 1230.250854], [0.732526, 1.922126, 1025.74292]]
IMAGES = [0.223969, 0.495094]


@pytest.fixture(scope="module")
def head():
    return Anatomy.of(digital_brain((96, 108, 72)))


def clean(recipe, **changes):
    """The recipe without voxelwise variation and smoothing."""
    return replace(recipe, white_A=0.0, white_T_ms=0.0, blur=(0.0, 0.0), **changes)


@pytest.mark.parametrize(("sequence", "T"), [("ir", "T1"), ("t2", "T2")])
def test_tissue_draws_follow_table_1(head, sequence, T):
    recipe = clean(paper(sequence), patch_size=16)
    values = {t: [] for t in (CSF, GM, WM, SKULL)}
    for i in range(900):
        patch = draw_patch(recipe, head, i)
        for t, found in values.items():
            where = patch.labels == t
            if where.any():
                assert np.ptp(patch.kappa[-1][where]) == 0  # one value for a tissue of a patch
                found.append((patch.kappa[0][where][0], patch.kappa[-1][where][0]))
    for t, found in values.items():
        A, Ts = np.array(found).T
        n = len(A)
        assert n > 100
        for x, row in ((A, TISSUES[t].A), (Ts, TISSUES[t].of(T))):
            # Floored at a tenth of the mean: the distribution that must come out.
            z = (0.1 - 1) * row.mean / row.sd
            mean = row.mean + row.sd * (stats.norm.pdf(z) + z * stats.norm.cdf(z))
            assert abs(x.mean() - mean) < 4.5 * row.sd / n**0.5
            assert abs(x.std() - row.sd) < 0.05 * row.sd + 4.5 * row.sd / (2 * n) ** 0.5
            assert x.min() >= 0.0999 * row.mean


def test_sigma_is_log_uniform_and_B_two_minus_a_half_normal(head):
    recipe = paper()
    patches = [draw_patch(replace(recipe, patch_size=8), head, i) for i in range(700)]
    low, high = np.log(recipe.sigma)
    u = (np.log([p.sigma for p in patches]) - low) / (high - low)
    assert stats.kstest(u, "uniform").pvalue > 0.001
    assert all(np.ptp(p.kappa[1]) == 0 for p in patches)
    gamma = 2 - np.array([p.kappa[1, 0, 0] for p in patches])
    assert stats.kstest(gamma, stats.halfnorm(scale=0.2).cdf).pvalue > 0.001


def test_centres_are_uniform_over_the_brain_and_orientations_equally_frequent(head):
    patches = [draw_patch(replace(paper(), patch_size=1), head, i) for i in range(1200)]
    centres = np.array([p.centre for p in patches])
    brain = brain_mask(head.labels)
    assert brain[tuple(centres.T)].all()
    for axis in range(3):
        share = np.cumsum(brain.sum(tuple({0, 1, 2} - {axis}))) / brain.sum()
        drawn = np.searchsorted(np.sort(centres[:, axis]), np.arange(brain.shape[axis]), side="right") / len(centres)
        assert abs(drawn - share).max() < 1.95 / len(centres) ** 0.5
    counts = np.bincount([p.axis for p in patches], minlength=3)
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_patch_shows_the_anatomy_around_its_centre(head):
    for i in range(12):
        patch = draw_patch(clean(paper(), patch_size=20), head, i)
        plane = np.take(head.labels, patch.centre[patch.axis], axis=patch.axis)
        r, c = (patch.centre[a] for a in range(3) if a != patch.axis)
        padded = np.pad(plane, 20)
        np.testing.assert_array_equal(patch.labels, padded[r + 10 : r + 30, c + 10 : c + 30])


def test_voxelwise_variation_and_its_smoothing(head):
    def sd_in_white_matter(recipe):
        patches = [draw_patch(recipe, head, i) for i in range(80)]
        pure = [p.kappa[:, p.labels == WM] for p in patches if (p.labels == WM).mean() > 0.6]
        return np.median([k.std(axis=1) for k in pure], axis=0)

    white = sd_in_white_matter(replace(paper(), blur=(0.0, 0.0), patch_size=16))
    np.testing.assert_allclose(white, [0.05, 0.0, 100.0], rtol=0.05, atol=1e-5)
    x = np.exp(-0.5 * (np.arange(-3, 4) / 0.4) ** 2)
    factor = ((x / x.sum()) ** 2).sum()  # of a white field under the Gaussian of 0.4 px, two axes
    _, _, smoothed = sd_in_white_matter(replace(paper(), patch_size=16))
    assert smoothed == pytest.approx(100 * factor, rel=0.1)


def test_the_same_patch_whatever_the_batch_the_order_and_the_worker(head):
    recipe = replace(general_t1(), times_ms=(50.0, 400.0, 1100.0, 2500.0), rician_share=0.0, hidden_share=0.0)
    recipe = replace(recipe, optional_share=0.0, signed_share=0.0)
    whole = simulate_batch(recipe, [head], 0, 12)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda k: simulate_batch(recipe, [head], k, 3), [3, 1, 0, 2]))
    for k, part in zip([3, 1, 0, 2], parts):
        cut = slice(3 * k, 3 * k + 3)
        for name in ("images", "kappa", "sigma", "labels", "structures"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[cut])
    other = simulate_batch(replace(recipe, seed=1), [head], 0, 12)
    assert not np.array_equal(other.labels, whole.labels)


def test_the_stream_of_patches_does_not_change_unnoticed(head):
    batch = simulate_batch(replace(paper(), patch_size=8), [head], 0, 2)
    np.testing.assert_allclose(batch.sigma, SIGMA, atol=1e-6)
    np.testing.assert_allclose(batch.kappa[:, :, 4, 4], KAPPA, rtol=1e-4)
    np.testing.assert_allclose(batch.images[:, 0, 4, 4], IMAGES, rtol=1e-3)


def test_anatomies_take_turns(head):
    empty = np.zeros((40, 40, 40), np.uint8)
    empty[18:22, 18:22, 18:22] = CSF
    batch = simulate_batch(paper(), [head, Anatomy.of(empty)], 0, 6)
    assert set(np.unique(batch.labels[1::2])) == {0, CSF}
    assert all(len(np.unique(x)) > 2 for x in batch.labels[::2])


def test_images_are_the_signal_of_the_truth_with_the_noise_stated(head):
    for recipe in (paper(), paper("t2"), general_t1(), general_t2()):
        for k in range(4):
            batch = simulate_batch(recipe, [head], k, 6)
            assert batch.images.dtype == batch.kappa.dtype == batch.sigma.dtype == np.float32
            assert np.isfinite(batch.images).all() and np.isfinite(batch.kappa).all()
            clean_images = np.moveaxis(batch.model.signal(np.moveaxis(batch.kappa, 1, 0)), 0, 1)
            residual = (batch.images - clean_images) / batch.sigma[:, None, None, None]
            if batch.rician:
                assert batch.images.min() >= 0
            else:
                n = residual[0].size
                np.testing.assert_allclose(residual.std(axis=(1, 2, 3)), 1, atol=5 / (2 * n) ** 0.5)
                np.testing.assert_allclose(residual.mean(axis=(1, 2, 3)), 0, atol=5 / n**0.5)


def test_the_paper_has_no_structures_and_gaussian_noise(head):
    batch = simulate_batch(paper(), [head], 0, 24)
    assert not batch.structures.any() and not batch.rician
    assert batch.images.min() < 0  # added after the modulus


def test_structures_are_marked_and_only_there_does_T_change(head):
    base = clean(paper(), lesion_share=1.0, odd_share=1.0, line_share=1.0)
    seen = set()
    for i in range(20):
        patch = draw_patch(base, head, i)
        seen |= set(np.unique(patch.structures))
        assert not patch.structures[patch.labels == 0].any()
        for t in np.unique(patch.labels[patch.labels > 0]):
            plain = (patch.labels == t) & (patch.structures == Structure.NONE)
            assert np.ptp(patch.kappa[-1][plain]) == 0 if plain.any() else True
    assert seen == set(Structure) - {Structure.FAINT}


def test_general_T_has_no_gap(head):
    for recipe, low, high in ((general_t1(), 20, 5000), (general_t2(), 5, 2500)):
        values = np.concatenate([p.kappa[-1][p.labels > 0] for p in (draw_patch(recipe, head, i) for i in range(300))])
        counts, _ = np.histogram(values, np.geomspace(low, high, 13))
        assert counts.min() > 0.001 * len(values)


def test_general_B_is_smooth_and_in_range(head):
    B = np.stack([draw_patch(general_t1(), head, i).kappa[1] for i in range(200)])
    means = B.mean((1, 2))
    assert means.min() < 1.6 and means.max() > 2.0 and means.min() > 1.2 and means.max() < 2.4
    assert np.median(np.ptp(B, axis=(1, 2))) > 0.01
    assert abs(np.diff(B, axis=2)).max() < 0.06


def test_background_has_no_signal(head):
    batch = simulate_batch(general_t1(), [head], 0, 12)
    outside = ~batch.weight
    assert outside.any() and (batch.kappa[:, 0][outside] == 0).all() and (batch.kappa[:, 2][outside] == 1000).all()
    assert (batch.brain <= batch.weight).all()


def test_noise_draws_share_a_truth(head):
    batch = simulate_batch(replace(general_t2(), noise_draws=3), [head], 0, 6)
    np.testing.assert_array_equal(batch.kappa[0], batch.kappa[2])
    assert not np.array_equal(batch.images[0], batch.images[1])
    assert not np.array_equal(batch.kappa[2], batch.kappa[3])
    with pytest.raises(InputError, match="multiple of noise_draws"):
        simulate_batch(replace(general_t2(), noise_draws=3), [head], 0, 4)


def test_effective_parameters_give_the_signal_of_a_hidden_tr():
    kappa = np.array([[0.8, 1.0], [1.9, 1.7], [900.0, 3500.0]])
    tau = [50.0, 400.0, 1500.0]
    with_tr = InversionRecovery(tau=tau, tr=2000.0).signal(kappa)
    np.testing.assert_allclose(
        InversionRecovery(tau=tau).signal(InversionRecovery.effective(kappa, tr=2000.0)), with_tr
    )


@pytest.mark.parametrize("recipe", [general_t1(), general_t2()], ids=["t1", "t2"])
def test_drawn_protocols(recipe):
    found = [draw_acquisition(recipe, stream(5, i)) for i in range(600)]
    N = np.array([f.model.n_images for f in found])
    assert N.min() == recipe.n_images[0] and N.max() >= 35 and N.max() <= recipe.n_images[1]
    for f in found:
        times = f.model.times
        assert (np.diff(times) > 0).all()
        assert times[0] >= recipe.time_range_ms[0] and times[-1] <= recipe.time_range_ms[1] + 0.1
        if f.rician:
            assert not getattr(f.model, "signed", False)
    assert 0.2 < np.mean([f.rician for f in found]) < 0.4
    if recipe.sequence == "ir":
        known = np.mean([f.model.tr is not None for f in found])
        hidden = np.mean(["tr" in f.hidden for f in found])
        assert abs(known - 0.3) < 0.08 and abs(hidden - 0.15) < 0.06
        assert not any(f.model.tr is not None and f.hidden for f in found)
        assert any(len(set(f.model.tr)) > 1 for f in found if f.model.tr)


def test_no_network(head, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("network")

    monkeypatch.setattr(socket, "socket", refuse)
    simulate_batch(general_t1(), [head], 0, 2)


def test_amount_of_texture_is_uniform_from_zero_and_log_uniform_from_more(head):
    """The spread inside white matter is the amount that was drawn."""
    for low, median in ((0.0, 0.05), (0.001, 0.01)):
        recipe = clean(general_t1(), white_relative=(low, 0.1), white_share=1.0, smooth_share=0.0, lesion_share=0.0)
        recipe = replace(recipe, odd_share=0.0, line_share=0.0, shading=(0.0, 0.0), zoom=(1.0, 1.0))
        found = []
        for i in range(150):
            patch = draw_patch(recipe, head, i)
            T = patch.kappa[-1][patch.labels == WM]
            if len(T) > 200:
                found.append(T.std() / T.mean())
        assert len(found) > 60
        drawn = stats.loguniform(low, 0.1) if low else stats.uniform(0, 0.1)
        assert stats.kstest(found, drawn.cdf).pvalue > 1e-3
        assert np.median(found) == pytest.approx(median, rel=0.5)


def test_ringing_is_what_sampling_with_the_end_of_k_space_gives(head):
    """Pixels of constant value, cut off in k-space on a fine grid and sampled: the same images, inside the patch."""
    recipe = clean(general_t1(), ringing_share=1.0, smooth_share=0.0, patch_size=24, field_spread=(0.0, 0.0))
    recipe = replace(recipe, times_ms=(100.0, 700.0, 3000.0), shading=(0.0, 0.0), lesion_share=0.0)
    fine, pad = 20, 24
    for i in range(6):
        patch = draw_patch(recipe, head, i)
        model = InversionRecovery(tau=recipe.times_ms, signed=True)
        S = np.pad(model.signal(patch.kappa), ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        K = np.fft.fft2(S.repeat(fine, 1).repeat(fine, 2))
        n, m = S.shape[1], S.shape[1] * fine
        f = np.fft.fftfreq(m, 1 / fine)  # cycles per pixel
        centre = (fine - 1) / 2 / fine  # of the first pixel, from the first fine one
        y, x = (np.where(abs(f) < 0.5, np.exp(2j * np.pi * f * (centre - d)), 0) for d in patch.ringing)
        expected = np.fft.ifft2(K * y[:, None] * x)[:, ::fine, ::fine].real[:, pad : n - pad, pad : n - pad]
        found = _rung(InversionRecovery(tau=recipe.times_ms), patch.kappa, patch.ringing)
        np.testing.assert_allclose(found[:, 4:-4, 4:-4], abs(expected)[:, 4:-4, 4:-4], atol=0.04)
        assert abs(found - abs(model.signal(patch.kappa))).max() > 0.01


def test_ringing_leaves_other_patches_as_they_are(head):
    some, none = (replace(general_t1(), ringing_share=s, patch_size=16) for s in (0.3, 0.0))
    a, b = (simulate_batch(r, [head], 0, 24) for r in (some, none))
    same = [np.array_equal(x, y) for x, y in zip(a.images, b.images)]
    assert 10 <= sum(same) < 24
