"""Maps as figures, and what a notebook shows: units, black where there is no value, clear refusals."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import rimap
from rimap import Gaussian, InputError, InversionRecovery, ParameterMaps, Status, T2Decay, WeightedSeries, colours

mpl.use("Agg")
import matplotlib.pyplot as plt

SHAPE = (12, 10, 6)
AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])
MODEL = InversionRecovery(tau=[50, 400, 1100, 2500])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def maps_of(model=MODEL, shape=SHAPE, affine=AFFINE, **options) -> ParameterMaps:
    Q = len(model.parameters)
    kappa = np.ones((Q, *shape)) * np.reshape(
        [100.0, 1.9, 900.0][3 - Q :] if Q == 3 else [100.0, 60.0], (Q,) + (1,) * len(shape)
    )
    kappa[-1] += np.linspace(0, 100, int(np.prod(shape))).reshape(shape)
    status = np.zeros(shape, np.uint8)
    status[0], kappa[:, 0] = Status.NO_SIGNAL, np.nan
    return ParameterMaps(
        kappa,
        model,
        status,
        sd_kappa=0.02 * kappa,
        noise=Gaussian(sigma=2.0),
        estimator="nlls",
        affine=affine,
        **options,
    )


def test_units_title_slices_and_black():
    figure = rimap.plot(maps_of())
    assert isinstance(figure, mpl.figure.Figure)
    *panels, bar = figure.axes
    assert [p.get_xlabel() for p in panels] == ["slice 1", "slice 3", "slice 4", "slice 6"]
    assert bar.get_ylabel() == "T1 (ms)" and figure.get_suptitle() == "T1, NLLS"
    assert "R at the left" in panels[0].get_ylabel()
    (image,) = panels[0].get_images()
    drawn = image.cmap(image.norm(image.get_array()))[..., :3]
    entries = np.asarray(image.get_array())
    assert (drawn[entries == 0] == 0).all() and (entries == 0).any() and drawn[entries > 0].max() > 0.3
    expected = colours.palette("lipari")[entries[entries > 0]] / 255
    np.testing.assert_allclose(drawn[entries > 0], expected, atol=1e-3)
    labels = [float(t.get_text()) for t in bar.get_yticklabels()]
    assert len(labels) >= 3 and labels[-1] <= 2 * 1000


def test_any_map_slice_window_and_standard_deviation():
    figure = rimap.plot(maps_of(), "B", slices=3)
    assert [a.get_ylabel() for a in figure.axes][-1] == "B" and len(figure.axes) == 2
    figure = rimap.plot(maps_of(), "A", slices=[1, 4], window=(0, 50))
    assert figure.axes[-1].get_ylabel() == "A (a.u.)"
    assert int(np.asarray(figure.axes[0].get_images()[0].get_array()).max()) == 255
    figure = rimap.plot(maps_of(T2Decay(tau=[10, 20, 40])), sd=True)
    assert [a.get_ylabel() for a in figure.axes if "SD" in a.get_ylabel() or "T2 (" in a.get_ylabel()] == [
        "T2 (ms)", "SD of T2 (% of T2)",
    ]  # fmt: skip
    figure.savefig(io.BytesIO())


@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 5, 1)])
@pytest.mark.parametrize("affine", [None, AFFINE])
def test_any_number_of_axes(shape, affine):
    maps = maps_of(shape=shape, affine=affine)
    assert len(rimap.plot(maps).axes) == 2
    rimap.plot(maps, sd=True).savefig(io.BytesIO())
    assert "img" in maps._repr_html_()


def test_nothing_estimated_is_black_all_over():
    maps = maps_of()
    none = ParameterMaps(np.full_like(maps.kappa, np.nan), MODEL, np.full(SHAPE, Status.NOT_FINITE, np.uint8))
    (image,) = rimap.plot(none, sd=True, slices=0).axes[0].get_images()
    assert (np.asarray(image.get_array()) == 0).all()
    assert "not finite 720" in none._repr_html_() and "not finite 720" in repr(none)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "T2"}, "expected one of the maps T1, B, A of inversion recovery, got 'T2'"),
        ({"slices": 6}, "slices: expected indices from 0 to 5, got 6"),
        ({"slices": []}, "slices: expected"),
        ({"window": (100, 100)}, "window"),
    ],
)
def test_what_is_not_there_is_refused(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        rimap.plot(maps_of(), **options)


def test_only_maps_are_drawn():
    for x in (None, np.ones(SHAPE), WeightedSeries(np.ones((4, 3, 3)), MODEL)):
        with pytest.raises(InputError, match="expected the maps of an estimator"):
            rimap.plot(x)


def test_without_matplotlib_it_says_so_and_the_card_needs_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        rimap.plot(maps_of())
    assert "data:image/png" in maps_of()._repr_html_()


def test_in_a_notebook_the_figure_is_drawn_once(monkeypatch):
    monkeypatch.setattr(mpl, "get_backend", lambda *_, **__: "module://matplotlib_inline.backend_inline")
    figure = rimap.plot(maps_of())
    assert figure.number not in plt.get_fignums()


def test_the_card_of_maps():
    maps = maps_of(warnings=("do not rely on <this>",))
    page = maps._repr_html_()
    for text in ("T1", "median", "ms", "a.u.", "ok 660", "no signal 60", "σ 2", "Warning: do not rely on &lt;this&gt;"):
        assert text in page, text
    first = re.findall(r'src="data:image/png;base64,([^"]+)"', page)[0]
    picture = Image.open(io.BytesIO(base64.b64decode(first)))
    assert picture.mode == "P" and len(page) < 60_000
    assert not re.search(r"https?://|<script", page)
    assert re.search(r"T1 [\d,]+ ms", repr(maps)) and len(repr(maps)) < 300


def test_the_card_of_a_series():
    images = MODEL.signal(maps_of().kappa)
    series = WeightedSeries(np.nan_to_num(images), MODEL, affine=AFFINE, source="sub-01 IRT1", mask=np.ones(SHAPE))
    assert repr(series) == (
        "WeightedSeries(4 images of 12 × 10 × 6 voxels, 2 × 2 × 4 mm; Inversion recovery, TI 50 to 2500 ms; noise "
        "level not given; mask of 720 voxels; sub-01 IRT1)"
    )
    page = series._repr_html_()
    assert page.count("<img") == 4 and "2500 ms" in page and "sub-01 IRT1" in page
    assert "Gaussian noise, σ 2" in repr(series.with_noise(Gaussian(sigma=2.0)))


def test_cards_import_neither_matplotlib_nor_pillow_before_they_are_drawn():
    code = """
import sys, numpy as np, rimap
model = rimap.T2Decay(tau=[1, 2, 3])
series = rimap.WeightedSeries(np.ones((3, 4, 4)), model)
repr(series)
assert not {"matplotlib", "PIL", "cmcrameri"} & set(sys.modules)
series._repr_html_()
assert not {"matplotlib", "cmcrameri"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_air_sets_neither_window_nor_medians():
    maps = maps_of()
    kappa = np.array(maps.kappa)
    kappa[0, 1:5], kappa[2, 1:5] = 1.0, 9000.0  # σ is 2
    aired = ParameterMaps(kappa, MODEL, maps.status, noise=maps.noise, estimator="nlls")
    assert aired.window("T1") == maps.window("T1") == (0.0, 1000.0)
    assert "T1 9" in repr(aired) and "9,000" not in repr(aired)
    of_map = ParameterMaps(kappa, MODEL, maps.status, noise=Gaussian(sigma=np.full(SHAPE, 2.0)))
    assert of_map.window("T1") == (0.0, 1000.0)
