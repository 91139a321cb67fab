"""What is embedded is what was estimated, to far below its standard deviation."""

import base64
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rimap.report.curves import signal_table
from rimap.report.embedding import Shown, decode, embed, encode
from rimap.series import ParameterMaps, WeightedSeries
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.t2_decay import T2Decay


@given(
    st.lists(st.one_of(st.floats(1e-6, 1e9), st.just(0.0), st.just(float("nan")), st.just(float("inf")))), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_codes_give_the_values_back(values, logarithmic):
    x = np.array(values, float)
    codes, how = encode(x, 1e-3, logarithmic=logarithmic)
    back, finite = decode(codes, how), np.isfinite(x)
    assert (np.isnan(back) == ~finite).all()
    if logarithmic:
        np.testing.assert_allclose(back[finite], x[finite], rtol=0.51 * how["step"] + 1e-9)
    else:
        np.testing.assert_allclose(back[finite], x[finite], atol=0.51 * how["step"] + 1e-9)


@pytest.mark.parametrize(
    "model",
    [
        InversionRecovery(tau=[50, 400, 1100, 2500]),
        InversionRecovery(tau=[50, 400, 1100, 2500], tr=3000, signed=True),
        InversionRecovery(tau=[2500, 50, 400, 1100], tr=[4000, 1500, 2000, 2500]),
        T2Decay(tau=[10, 20, 40, 200]),
    ],
)
def test_the_table_is_the_model(model):
    T = np.geomspace(30, 4000, 500)
    kappa = (
        np.stack([np.full(500, 100.0), np.full(500, 1.9), T])
        if len(model.parameters) == 3
        else np.stack([np.full(500, 100.0), T])
    )
    maps = model.by_name(kappa)
    table = signal_table(model, maps)
    signal = table.reader(maps)
    for n, image in enumerate(np.asarray(model.signal(kappa))):
        np.testing.assert_allclose(signal(table.images[n]), image, atol=0.03)  # of A = 100
    assert table.continuous and table.points[0] == 0 and table.points[-1] == model.times.max()


def test_maps_without_a_value_have_no_table():
    nothing = {"A": np.array([np.nan]), "T2": np.array([np.nan])}
    assert signal_table(T2Decay(tau=[10, 20, 40]), nothing) is None


def test_a_model_that_is_known_at_its_images_only_has_no_points_between_them():
    """An echo train with more echoes has another spacing, so other values at the same times."""

    @dataclass(frozen=True)
    class Train(T2Decay):
        def shape(self, T2):
            spacing = np.diff(self.times).min()
            return super().shape(T2) * (1 + 0.1 * spacing / self.times.max())

    model, maps = Train(tau=[10, 20, 40]), {"A": np.full(9, 100.0), "T2": np.geomspace(20, 200, 9)}
    table = signal_table(model, maps)
    assert not table.continuous and table.points.tolist() == [10, 20, 40]
    found = np.stack([table.reader(maps)(n) for n in table.images])
    np.testing.assert_allclose(found, model.signal([maps["A"], maps["T2"]]), atol=0.03)


def example(shape=(40, 30, 12), sigma=2.0, n_images=4):
    model, rng = T2Decay(tau=np.linspace(10, 80, n_images)), np.random.default_rng(0)
    kappa = np.array([500.0, 70.0])[:, None, None, None] * (1 + 0.2 * rng.random((2, *shape)))
    images = model.signal(kappa) + sigma * rng.standard_normal((n_images, *shape))
    status = np.zeros(shape, np.uint8)
    return WeightedSeries(images, model), ParameterMaps(kappa, model, status, 0.02 * kappa, np.full(shape, sigma))


def read(page, name):
    """A map as the page has it."""
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(page.blocks[name])), np.uint8).reshape(2, -1).astype(int)
    return decode(low + 256 * high, page.about["codes"][name])


def test_images_come_back_well_below_the_noise():
    series, maps = example()
    series.images[2, 5, 5, 5] = np.nan
    page = embed(Shown.of(maps), series, np.ones(series.shape, bool), None, 9_000_000)
    raw = np.frombuffer(zlib.decompress(base64.b64decode(page.blocks["images"])), np.uint8).reshape(4, 2, -1)
    codes = raw[:, 0].astype(int) + 256 * raw[:, 1].astype(int)
    how, found = page.about["images"], {name: read(page, name) for name in ("A", "T2")}
    table = signal_table(maps.model, found)
    fitted = table.reader(found)
    difference = np.where(codes & 1, -(codes + 1) // 2, codes // 2) * how["step"]
    for n in range(4):
        S, good = series.images[n].ravel(), np.isfinite(series.images[n].ravel())
        assert (codes[n] == 65535).sum() == (~good).sum()
        np.testing.assert_allclose((fitted(table.images[n]) + difference[n])[good], S[good], atol=0.51 * how["step"])
    assert how["step"] < 2.0 / 3 and how["every"] == 1 and page.notes == []


def test_a_small_room_is_kept_and_what_is_left_out_is_said():
    series, maps = example((60, 50, 12))
    where = np.ones(series.shape, bool)
    sizes = []
    for room in (2_000_000, 400_000, 200_000, 60_000):
        page = embed(Shown.of(maps), series, where, np.diag([1.0, 1.0, 4.0, 1.0]), room)
        sizes.append(page.size)
        assert page.size <= room
    assert sizes == sorted(sizes, reverse=True)
    assert any("one voxel in" in n for n in page.notes) and page.about["stride"][0] > 1
    series, maps = example((60, 50, 12), n_images=40)
    some = embed(Shown.of(maps), series, where, np.diag([1.0, 1.0, 4.0, 1.0]), 600_000)
    assert some.size <= 600_000 and some.about["stride"] == [1, 1, 1]
    assert some.about["images"]["every"] > 1 and "one slice in" in some.notes[0]
