"""The exported ResNet."""

# ruff: noqa: E402 - torch is asked for first
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rimap
from rimap.errors import InputError
from rimap.estimators.networks.resnet import ResNet as Module
from rimap.estimators.resnet.estimator import ResNet
from rimap.estimators.shipped import session
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
    assert told == any("a ResNet does not know the" in w for w in maps.warnings)
    assert not told or not (maps.status == rimap.Status.OK).any()


def test_a_resnet_is_not_a_rim(network):
    with pytest.raises(InputError, match="is a resnet, not a RIM"):
        rimap.RIM.load(network[1])
