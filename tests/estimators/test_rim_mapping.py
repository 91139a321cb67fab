"""Mapping with an exported cell: the same numbers as torch, and the properties that a user relies on."""

# ruff: noqa: E402 - torch is asked for first
from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rimap
from rimap.errors import InputError
from rimap.estimators.network_files import metadata_of, path_of, session
from rimap.estimators.networks.restore import weights_of
from rimap.estimators.rim.estimator import RIM
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.loop import GENERAL, from_state, slopes
from rimap.estimators.rim.network_input import TYPICAL_A, image_scale
from rimap.estimators.rim.steps import Loop
from rimap.likelihood import Gaussian
from rimap.series import Status, WeightedSeries
from rimap.training.loop import build_network, export
from rimap.training.recipe import training_recipe

TAU = (100.0, 250.0, 500.0, 900.0, 1500.0, 3000.0)
MODEL = rimap.InversionRecovery(tau=TAU)


@pytest.fixture(scope="module", params=["paper", "general", "sd"])
def network(request, tmp_path_factory):
    """A network with random weights whose updates are small: (torch module, exported file)."""
    variant = "paper" if request.param == "paper" else "general"
    more = (
        {"rim": {"sd_outputs": True, "inputs": [*GENERAL.inputs, "contrast", "pull"]}} if request.param == "sd" else {}
    )
    recipe = training_recipe(
        {"name": f"some_{request.param}", "variant": variant, "sequence": "ir", "times_ms": list(TAU)} | more
    )
    rim = build_network(recipe)
    torch.manual_seed(1)
    torch.nn.init.normal_(rim.cell.output.weight, std=0.01)
    path = tmp_path_factory.mktemp("nets") / f"{recipe.name}.onnx"
    export(recipe, rim, path, 7, {"error_pct": 3.0})
    return rim, path


def series(shape=(24, 20), sigma=0.02, unit=300.0, seed=0, model=MODEL, **more):
    rng = np.random.default_rng(seed)
    y = np.linspace(0, 1, shape[0]).reshape(-1, *(1,) * (len(shape) - 1)) + np.zeros(shape)
    kappa = np.stack([0.7 + 0.2 * y, 1.8 + 0.1 * y, 700 + 900 * y])
    S = model.signal(kappa) + sigma * rng.standard_normal((model.n_images, *shape))
    return rimap.WeightedSeries(
        images=(unit * S).astype(np.float32), model=model, noise=rimap.Gaussian(sigma=unit * sigma), **more
    )


@pytest.mark.parametrize("rician", [False, True], ids=["gaussian", "rician"])
def test_onnx_and_numpy_are_torch(network, rician):
    rim, path = network
    S = np.abs(series(unit=1.0).images)
    with torch.no_grad():
        theirs = rim(MODEL, torch.from_numpy(S[None]), torch.tensor([0.02]), rician=rician)
    loop = Loop(MODEL, rim.config, session(path, 1))
    ours = list(loop.steps(DataTerm(MODEL, S[:, None], np.full((1, 1, 1), 0.02, np.float32), rician)))[1:]
    assert len(ours) == len(theirs.steps) == 6
    for (kappa, _, _), u in zip(ours, theirs.steps):
        np.testing.assert_allclose(kappa, from_state(rim.config, rim.layout, u).numpy(), rtol=2e-4, atol=1e-4)
    assert (theirs.sd is None) == (ours[-1].sd is None) == (not rim.config.sd_outputs)
    if theirs.sd is not None:
        slope = np.stack(slopes(rim.config, rim.layout, ours[-1].carried))
        slope[-1] *= ours[-1].carried[-1]
        np.testing.assert_allclose(ours[-1].sd, theirs.sd.numpy() * slope, rtol=1e-3)


def test_a_network_that_gives_standard_deviations_has_them_in_its_maps(network):
    rim, path = network
    few, many = (rimap.RIM(network=str(path), threads=1).estimate(series(unit=u)) for u in (1.0, 1000.0))
    if not rim.config.sd_outputs:
        assert few.sd_kappa is None
        return
    ok = few.status == rimap.Status.OK
    assert ok.any() and (few.sd["T1"][ok] > 0).all() and "network" in few.sd_source
    np.testing.assert_allclose(many.sd["A"][ok], 1000 * few.sd["A"][ok], rtol=1e-3)
    np.testing.assert_allclose(many.sd["T1"][ok], few.sd["T1"][ok], rtol=1e-3)


def test_the_cell_alone_is_torchs_to_rounding(network):
    rim, path = network
    F, C = rim.config.features, rim.config.channels(rim.layout)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, C, 9, 7)).astype(np.float32)
    h = rng.uniform(-1, 1, (2, 2, F, 9, 7)).astype(np.float32)
    delta, h1, _ = session(path, 1).run(None, {"x": x, "h1": h[0], "h2": h[1]})
    rows = [torch.from_numpy(m).permute(0, 2, 3, 1).reshape(-1, F) for m in h]
    with torch.no_grad():
        expected, memory = rim.cell(torch.from_numpy(x), tuple(rows))
    np.testing.assert_allclose(delta, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(h1, memory[0].view(2, 9, 7, F).permute(0, 3, 1, 2).numpy(), atol=1e-5)


def test_exported_weights_can_be_trained_on(network):
    rim, path = network
    settings = {"inputs": list(rim.config.inputs), "sd_outputs": rim.config.sd_outputs}
    other = build_network(training_recipe({"variant": "paper" if "paper" in path.name else "general", "rim": settings}))
    other.load_state_dict(weights_of(str(path), other))
    S, sigma = torch.from_numpy(series(unit=1.0).images[None]), torch.tensor([0.02])
    with torch.no_grad():
        assert torch.allclose(rim(MODEL, S, sigma).steps[-1], other(MODEL, S, sigma).steps[-1], atol=1e-4)


def test_the_file_says_what_it_is(network):
    about = metadata_of(network[1])
    assert about["kind"] == "rim" and about["sequence"] == "ir" and about["iterations"] == 7
    assert about["figures"] == {"error_pct": 3.0}
    assert about["trained_on"]["times_ms"] == list(TAU)
    assert about["parameters"] == sum(p.numel() for p in network[0].parameters())


def test_any_image_scale(network):
    rim = RIM.load(network[1])
    a, b = rim.estimate(series(unit=1.0)), rim.estimate(series(unit=4000.0))
    np.testing.assert_allclose(b["A"] / 4000, a["A"], rtol=1e-3)
    np.testing.assert_allclose(b["T1"], a["T1"], rtol=1e-3)


def test_an_object_that_is_small_in_its_field_of_view_has_the_scale_of_its_voxels():
    """It filled less than 2 % of 160 × 160 voxels, and the scale was that of the noise in air."""
    rng, radius = np.random.default_rng(0), np.hypot(*np.mgrid[-80:80, -80:80])
    tube = radius < 6
    kappa = np.stack([700.0 * tube, np.full_like(radius, 1.9), np.full_like(radius, 1200.0)])
    signal = MODEL.signal(kappa)
    images = np.hypot(signal + rng.normal(0, 15, signal.shape), rng.normal(0, 15, signal.shape))
    scales = [
        image_scale(WeightedSeries(images, MODEL, mask=mask), Gaussian(sigma=15.0))
        for mask in (None, tube, radius < 20)
    ]
    np.testing.assert_allclose(scales, 700 / TYPICAL_A, rtol=0.05)


def test_any_number_of_images_and_their_order(network):
    rim, s = RIM.load(network[1]), series()
    a, b = rim.estimate(s), rim.estimate(s.subset([3, 0, 5, 1, 4, 2]))
    np.testing.assert_allclose(b["T1"], a["T1"], rtol=1e-3)
    assert np.isfinite(rim.estimate(s.subset([0, 1, 3, 5]))["T1"]).all()


def test_slices_are_independent_and_a_slab_is_the_whole(network):
    s = series((20, 18, 3))
    rim, s = RIM.load(network[1]).prepare(s)
    whole = rim.estimate(s)
    for k in range(3):
        flat = rim.slab(np.s_[..., k]).estimate(replace(s, images=s.images[..., k]))
        slab = rim.slab(np.s_[..., k : k + 1]).estimate(replace(s, images=s.images[..., k : k + 1]))
        np.testing.assert_allclose(flat["T1"], whole["T1"][..., k], rtol=1e-5)
        np.testing.assert_allclose(slab["T1"][..., 0], whole["T1"][..., k], rtol=1e-5)


def test_nan_stays_where_it_is(network):
    s = series()
    holes = s.images.copy()
    holes[2, 5, 5] = np.nan
    holes[:, 10, 10] = 0
    maps = RIM.load(network[1]).estimate(replace(s, images=holes))
    assert maps.status[5, 5] == Status.NOT_FINITE and maps.status[10, 10] == Status.NO_SIGNAL
    assert np.isnan(maps["T1"]).sum() == 2


def test_mask_selects_what_is_reported(network):
    s = series()
    mask = np.zeros(s.shape, bool)
    mask[4:20, 3:17] = True
    rim, s = RIM.load(network[1]).prepare(s)
    a, b = rim.estimate(s), rim.estimate(replace(s, mask=mask))
    np.testing.assert_array_equal(a["T1"][mask], b["T1"][mask])
    assert np.isnan(b["T1"][~mask]).all() and (b.status[~mask] == Status.OUTSIDE_MASK).all()


def test_sigma_is_estimated_where_it_is_not_given(network):
    s = series()
    maps = RIM.load(network[1]).estimate(replace(s, noise=None))
    assert maps.sigma_source == "residuals" and abs(maps.noise.sigma / 6.0 - 1) < 0.2
    assert np.isfinite(maps["T1"]).all()


def test_a_sigma_map(network):
    rim, s = RIM.load(network[1]), series()
    a = rim.estimate(s)
    b = rim.estimate(s.with_noise(rimap.Gaussian(sigma=np.full(s.shape, 6.0))))
    np.testing.assert_allclose(a["T1"], b["T1"], rtol=1e-3)


def test_outside_the_training_is_said(network):
    rim, s = RIM.load(network[1]), series()
    inside = rim.estimate(s)
    assert not any("was trained for" in w for w in inside.warnings)
    assert (inside.status == Status.OK).mean() > 0.9
    late = rimap.InversionRecovery(tau=np.array(TAU) * 2)
    noisy = s.with_noise(rimap.Gaussian(sigma=150.0))
    for bad, word in ((series(model=late), "times"), (noisy, "noise")):
        maps = rim.estimate(bad)
        assert any(word in w and "was trained for" in w for w in maps.warnings)
        assert not (maps.status == Status.OK).any()
        outside = maps.status == Status.OUTSIDE_TRAINING
        assert np.isfinite(maps["T1"][outside]).all() and outside.mean() > (0.9 if word == "times" else 0)


def test_what_lies_below_the_noise_is_no_tissue():
    model = rimap.InversionRecovery(tau=(50, 150, 400, 900, 1800, 3500))
    T = np.full((40, 40), 1000.0)
    A = np.where(np.arange(40) < 20, 100.0, 3.0) * np.ones_like(T)
    images = model.signal(np.stack([A, np.full_like(T, 1.95), T]))
    maps = RIM.load("t1").estimate(rimap.WeightedSeries(images=images, model=model, noise=rimap.Gaussian(sigma=6.0)))
    assert (maps.status[:, :18] == Status.OK).all()
    assert (maps.status[:, 24:] == Status.NO_SIGNAL).all()
    assert np.isnan(maps["T1"][maps.status == Status.NO_SIGNAL]).all()


def test_another_sequence_is_refused(network):
    T2 = rimap.T2Decay(tau=[10, 20, 40])
    s = rimap.WeightedSeries(images=np.ones((3, 4, 4)), model=T2, noise=rimap.Gaussian(sigma=0.1))
    with pytest.raises(InputError, match="trained for the sequence ir; this series is t2"):
        RIM.load(network[1]).estimate(s)


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="no network 'tea1'"):
        path_of("tea1")


def test_mapping_needs_no_torch(network):
    code = (
        "import sys, numpy as np, rimap\n"
        f"m = rimap.InversionRecovery(tau={list(TAU)})\n"
        "S = m.signal([np.full((9, 9), 1.0), np.full((9, 9), 1.9), np.full((9, 9), 900.0)])\n"
        "s = rimap.WeightedSeries(images=S, model=m, noise=rimap.Gaussian(sigma=0.01))\n"
        f"rimap.RIM.load({str(network[1])!r}).estimate(s)\n"
        "assert not {'torch', 'onnx', 'safetensors'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_slice_without_mask_is_left_out(network):
    s = series((20, 18, 3))
    mask = np.ones(s.shape, bool)
    mask[..., 1] = False
    rim, s = RIM.load(network[1]).prepare(s)
    a, b = rim.estimate(s), rim.estimate(replace(s, mask=mask))
    np.testing.assert_array_equal(a["T1"][mask], b["T1"][mask])
    assert np.isnan(b["T1"][..., 1]).all() and (b.status[..., 1] == Status.OUTSIDE_MASK).all()


def test_a_network_written_anew_is_the_same(network, tmp_path):
    from rimap.estimators.networks.export import save_onnx
    from rimap.estimators.networks.restore import written_anew

    save_onnx(written_anew(str(network[1])), tmp_path / "anew.onnx")
    assert metadata_of(tmp_path / "anew.onnx") == metadata_of(network[1])
    a, b = (RIM.load(path).estimate(series()) for path in (network[1], tmp_path / "anew.onnx"))
    np.testing.assert_allclose(a["T1"], b["T1"], rtol=1e-4)


@pytest.mark.parametrize("sigma_map", [False, True])
def test_no_estimate_denies_the_data(network, sigma_map):
    """A network that goes astray is held where χ² has risen by 16 over its start, the maximum of the likelihood."""
    rim, path = network
    if rim.config.start != "likelihood":
        pytest.skip("the paper's start is no maximum of the likelihood")
    s = series(unit=1.0)
    loop = Loop(MODEL, replace(rim.config, gain=(30.0, 0.5, 30.0)), session(path, 1))
    S, sigma = s.images[:, None], np.full((1, *(s.shape if sigma_map else (1, 1))), 0.02, np.float32)
    data = DataTerm(MODEL, S, sigma, False)
    begun, *_, end = loop.steps(data)
    least, astray, sse = begun.sums.sse, end.carried, end.sums.sse
    kappa, held, _ = loop(data)
    far = sse - least > 16 * sigma**2
    assert far.mean() > 0.02
    np.testing.assert_array_equal(kappa[:, ~far], astray[:, ~far])
    assert ((held - least)[far] / 0.02**2).max() < 80  # 16, as far as χ² is a parabola
    assert np.median((held - least)[far]) / 0.02**2 == pytest.approx(16, rel=0.3)
    np.testing.assert_allclose(held, ((S - MODEL.signal(kappa)) ** 2).sum(0), rtol=2e-3)


def test_less_noise_than_in_training_goes_towards_maximum_likelihood():
    s = series(sigma=0.0004)
    maps, mle = RIM.load("t1").estimate(s), rimap.MLE().estimate(s)
    assert (maps.status == Status.OK).all() and not any("was trained for" in w for w in maps.warnings)
    assert np.percentile(abs(maps["T1"] / mle["T1"] - 1), 95) < 0.004


def test_a_map_of_sigma_serves_a_network_without_standard_deviations_of_its_own():
    """Warnings look at some voxels and at their own σ."""
    model = rimap.InversionRecovery(tau=[50, 400, 1100, 2500, 4000])
    kappa = np.ones((3, 60, 60)) * np.reshape([0.65, 1.9, 900.0], (3, 1, 1))
    sigma = np.linspace(0.01, 0.03, 3600).reshape(60, 60)
    noise = rimap.Gaussian(sigma=sigma)
    series = rimap.WeightedSeries(noise.sample(model.signal(kappa), np.random.default_rng(0)), model, noise)
    for network in ("t1", "universal"):
        maps = rimap.RIM(network=network, threads=1).estimate(series)
        assert np.nanmedian(maps["T1"]) == pytest.approx(900, rel=0.02)


@pytest.mark.parametrize("model", [MODEL, rimap.T2Decay(tau=[10, 20, 40, 60, 90, 130])], ids=["ir", "t2"])
@pytest.mark.parametrize("signal", [0.0, 1.0], ids=["hole", "metal"])
def test_voxels_that_contradict_the_model_do_not_move_their_neighbours_more_than_a_hole_does(model, signal):
    rng = np.random.default_rng(3)
    y, x = np.meshgrid(np.arange(40), np.arange(36), indexing="ij")
    T = np.where(x > 18, 80.0, 120.0) * (10 if model is MODEL else 1)
    kappa = np.stack([0 * T + 1, 0 * T + 1.9, T]) if model is MODEL else np.stack([0 * T + 1, T])
    images = (model.signal(kappa) + 0.02 * rng.standard_normal((model.n_images, *T.shape))).astype(np.float32)
    bad = np.hypot(y - 20, x - 20) < 4
    spoilt, hole = images.copy(), images.copy()
    hole[:, bad] = 0
    spoilt[:, bad] = signal * abs(rng.normal(0, 1, (model.n_images, bad.sum())))
    field = np.full(T.shape, 1.9)

    def mapped(S):
        estimator = RIM(start_field=field) if model is MODEL else RIM()
        return estimator.estimate(rimap.WeightedSeries(S, model, noise=rimap.Gaussian(sigma=0.02)))

    one, other = mapped(spoilt), mapped(hole)
    time = model.time.name
    change = abs(one[time] / other[time] - 1)[~bad]
    assert np.median(change) < 1e-4
    assert (change < 0.25 * (other.sd[time] / other[time])[~bad]).mean() > 0.99
    if signal:
        off = one.status[bad] == Status.OFF_MODEL
        assert off.mean() > 0.9
        assert np.isfinite(one.sd[time][bad][off]).all()
