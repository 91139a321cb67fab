"""The exported ResNet."""

# ruff: noqa: E402 - torch is asked for first
from __future__ import annotations

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from onnx import numpy_helper

import rimap
from rimap.errors import InputError
from rimap.estimators.network_files import metadata_of, path_of, session, shipped
from rimap.estimators.networks.export import save_onnx
from rimap.estimators.networks.resnet import ResNet as Module
from rimap.estimators.networks.sixteen_bits import in_sixteen_bits
from rimap.estimators.resnet.estimator import ResNet
from rimap.training.loop import export
from rimap.training.recipe import training_recipe

TAU = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    recipe = training_recipe({"name": "small", "network": "resnet", "sequence": "t2", "times_ms": list(TAU)})
    torch.manual_seed(0)
    net = Module(6, 2, (8, 8, 12, 4))
    with torch.no_grad():
        net(torch.rand(4, 6, 9, 9))  # running statistics that are not the default
    net.eval()
    path = tmp_path_factory.mktemp("nets") / "small.onnx"
    export(recipe, net, path, 1, None)
    return net, path


def test_onnx_is_torch(network):
    net, path = network
    S = np.random.default_rng(0).random((2, 6, 11, 7), np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(S)).numpy()
    np.testing.assert_allclose(session(path, 1).run(None, {"S": S})[0], expected, atol=1e-5)


def unrounded(model, rng):
    """Return a shipped ResNet with float32 weights, each drawn from the interval that its 16-bit integer represents."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scales = [name for name in values if name.endswith(".scale")]
    del out.graph.initializer[:], out.graph.node[:]
    for name in (n.removesuffix(".scale") for n in scales):
        integers, scale = values.pop(f"{name}.integers"), values.pop(f"{name}.scale")
        values[name] = ((integers + rng.uniform(-0.5, 0.5, integers.shape)) * scale).astype(np.float32)
    out.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items())
    out.graph.node.extend(n for n in model.graph.node if n.op_type not in ("Cast", "Mul"))
    return out


@pytest.mark.parametrize("name", ["resnet_t1_31", "resnet_t2"])
def test_sixteen_bits_give_the_same_maps_from_half_of_the_file(name, tmp_path):
    path = shipped()[name]
    about, rng = metadata_of(path), np.random.default_rng(0)
    whole = unrounded(onnx.load(str(path)), rng)
    half = in_sixteen_bits(whole)
    for stem, model in (("whole", whole), ("half", half)):
        save_onnx(model, tmp_path / f"{stem}.onnx")
    T = np.repeat(np.array([400.0, 800.0, 1400.0, 3500.0]), 6)[:, None] + np.zeros((24, 16))
    times = about["trained_on"]["times_ms"]
    model = rimap.T2Decay(tau=times) if about["sequence"] == "t2" else rimap.InversionRecovery(tau=times)
    kappa = [0.8 + 0 * T, T / 10] if about["sequence"] == "t2" else [0.8 + 0 * T, 1.8 + 0 * T, T]
    S = (model.signal(kappa) + 0.03 * rng.standard_normal((len(times), *T.shape)))[None].astype(np.float32)
    a, b = (session(tmp_path / f"{stem}.onnx", 1).run(None, {"S": S})[0][0] for stem in ("whole", "half"))
    np.testing.assert_allclose(b, a, rtol=1e-3)
    assert (abs(b - a) > 0).any()
    assert (tmp_path / "half.onnx").stat().st_size < 0.52 * (tmp_path / "whole.onnx").stat().st_size
    assert in_sixteen_bits(half) == half


def test_the_resnets_that_ship_are_stored_in_sixteen_bits():
    found = [path for path in shipped().values() if metadata_of(path)["kind"] == "resnet"]
    assert found and all(in_sixteen_bits(model) == model for model in (onnx.load(str(path)) for path in found))


def test_maps_of_a_series(network):
    model = rimap.T2Decay(tau=TAU)
    S = model.signal([np.full((8, 9, 2), 500.0), np.full((8, 9, 2), 100.0)])
    series = rimap.WeightedSeries(images=S, model=model, noise=rimap.Gaussian(sigma=5.0))
    maps = ResNet.load(network[1]).estimate(series)
    assert maps["T2"].shape == (8, 9, 2) and np.isfinite(maps["T2"]).all() and maps.estimator == "resnet"


def test_another_number_of_images_is_refused(network):
    model = rimap.T2Decay(tau=TAU[:4])
    series = rimap.WeightedSeries(images=np.ones((4, 5, 5)), model=model, noise=rimap.Gaussian(sigma=0.1))
    with pytest.raises(InputError, match="was trained on 6 images; this series has 4"):
        ResNet.load(network[1]).estimate(series)


def test_where_one_for_so_many_images_ships_it_is_named(network):
    model = rimap.InversionRecovery(tau=np.linspace(100, 900, 31))
    series = rimap.WeightedSeries(images=np.ones((31, 5, 5)), model=model, noise=rimap.Gaussian(sigma=0.1))
    with pytest.raises(InputError, match=r"was trained on \d+ images; this series has 31.*--network resnet_t1_31"):
        ResNet.load("resnet_t1_23").estimate(series)


@pytest.mark.parametrize(("tau", "told"), [(TAU, False), (TAU[::-1], False), ((10, 20, 40, 80, 160, 300), True)])
def test_a_resnet_says_where_the_times_are_not_its_own(network, tau, told):
    model = rimap.T2Decay(tau=tau)
    S = model.signal([np.full((9, 9), 500.0), np.full((9, 9), 100.0)])
    maps = ResNet.load(network[1]).estimate(rimap.WeightedSeries(S, model, noise=rimap.Gaussian(sigma=5.0)))
    assert told == any("a ResNet does not read the" in w for w in maps.warnings)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_voxels_of_other_times_than_those_of_the_training_have_a_status(factor):
    times = metadata_of(path_of("resnet_t2"))["trained_on"]["times_ms"]
    model = rimap.T2Decay(tau=[factor * t for t in times])
    S = model.signal([np.full((12, 12), 500.0), np.full((12, 12), 100.0)])
    maps = ResNet.load("resnet_t2").estimate(rimap.WeightedSeries(S, model, noise=rimap.Gaussian(sigma=5.0)))
    assert set(np.unique(maps.status)) == {rimap.Status.OK if factor == 1 else rimap.Status.OUTSIDE_TRAINING}


def test_a_resnet_is_not_a_rim(network):
    with pytest.raises(InputError, match="is a resnet, not a RIM"):
        rimap.RIM.load(network[1])
