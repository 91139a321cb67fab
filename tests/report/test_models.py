"""The report of every registered signal model renders, names the axis of the model and draws its curve."""

from __future__ import annotations

import base64
import html
import json
import re
import zlib
from typing import Any

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.likelihood import Gaussian
from rimap.map_display import label_of, name_of, quantities_of
from rimap.report import Run, page
from rimap.report.curves import SignalTable, TableAxis
from rimap.report.embedding import decode
from rimap.report.methods import methods
from rimap.series import ParameterMaps, WeightedSeries
from rimap.signals import SignalModel, signal_models
from rimap.signals.settings import unit_symbol
from rimap.testing.example_models import draw, example_models

SHAPE = (14, 12, 2)
SNR = 200


def cases() -> list[Any]:
    """Return every registered model with plausible settings; skip, with a reason, those without an example."""
    found = []
    for name, cls in signal_models().items():
        try:
            models = example_models(cls)
        except InputError as error:
            found.append(pytest.param(None, id=name, marks=pytest.mark.skip(reason=f"no example: {error}")))
            continue
        found += [pytest.param(model, id=f"{name} {label}".strip()) for label, model in models.items()]
    return found


CASES = cases()


def report(model: SignalModel) -> tuple[str, ParameterMaps, dict[str, Any]]:
    """Return the page of maps that are drawn from the box of a model, the maps, and the data of the viewer."""
    kappa = draw(model, SHAPE, 1)
    signal = np.asarray(model.signal(kappa))
    sigma = float(np.abs(signal).max()) / SNR
    images = signal + np.random.default_rng(0).normal(0, sigma, signal.shape)
    images = np.abs(images) if model.magnitude else images
    known = np.array([p.given for p in model.parameters]).reshape(-1, 1, 1, 1)
    maps = ParameterMaps(
        kappa, model, np.zeros(SHAPE, np.uint8), np.where(known, np.nan, 0.02 * np.abs(kappa)), np.full(SHAPE, sigma),
        Gaussian(sigma), "residuals", "nlls",
    )  # fmt: skip
    series = WeightedSeries(images, model, mask=np.ones(SHAPE), affine=np.diag([2.0, 2, 5, 1]))
    text = page(series, maps, Run("sub-01", "Least squares"))
    return text, maps, json.loads(re.search(r'id="viewer-data">(.*?)</script>', text)[1])


def block(text: str, name: str) -> np.ndarray[Any, Any]:
    """Return the codes of a block, as the page reads them."""
    data = re.search(rf'id="block-{re.escape(name)}">(.*?)</script>', text)[1]
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(data)), np.uint8).reshape(2, -1)
    return low.astype(np.uint16) | (high.astype(np.uint16) << 8)


def curves(text: str, about: dict[str, Any]) -> tuple[SignalTable, np.ndarray[Any, Any]]:
    """Return the table of the page, and the signal (P, V) at its points in all voxels that it contains."""
    t = about["table"]
    table = SignalTable(
        block(text, "table").view(np.int16).reshape(t["shape"]),
        t["scale"],
        tuple(TableAxis(a["name"], a["log"], a["low"], a["step"], a["n"]) for a in t["axes"]),
        tuple(t["amplitudes"]),
        np.array(t["points"]),
        np.array(t["images"]),
        t["continuous"],
        t["magnitude"],
        0.0,
    )
    maps = {name: decode(block(text, name), how) for name, how in about["codes"].items() if not name.startswith("sd ")}
    signal = table.reader(maps)
    return table, np.stack([signal(point) for point in range(len(table.points))])


@pytest.mark.parametrize("model", CASES)
def test_the_page_has_the_axis_and_the_maps_of_the_model(model: SignalModel) -> None:
    text, _, about = report(model)
    axis = model.axis
    assert about["axis"] == {"title": axis.title, "unit": unit_symbol(axis.unit)}
    assert about["main"] == model.main.name
    assert [m["key"] for m in about["maps"]] == [q.name for q in quantities_of(model)]
    assert len(about["labels"]) == model.n_images and all(
        label.startswith(axis.text(value)) for label, value in zip(about["labels"], model.times)
    )
    words = html.unescape(re.sub(r"<[^>]+>", " ", text))
    unit = unit_symbol(axis.unit)
    assert axis.title[:1].upper() + axis.title[1:] + (f", {unit}" if unit else "") in words
    assert f"{name_of(model.main)} map of sub-01" in words
    for q in quantities_of(model):
        assert name_of(q) in words and label_of(q)


@pytest.mark.parametrize("model", CASES)
def test_the_curve_of_the_page_is_the_signal_of_the_model(model: SignalModel) -> None:
    text, maps, about = report(model)
    table, found = curves(text, about)
    signal = np.asarray(model.signal(maps.kappa.reshape(len(maps.kappa), -1)))
    np.testing.assert_allclose(found[table.images], signal, atol=1e-3 * np.abs(signal).max())
    np.testing.assert_allclose(table.points[table.images], model.times)
    assert table.entries.size < 700_000


@pytest.mark.parametrize("model", CASES)
def test_the_methods_follow_from_the_declarations(model: SignalModel) -> None:
    _, maps, _ = report(model)
    text, books = methods(maps, "Least squares")
    assert f"{name_of(model.main)} maps were estimated with rimap" in text
    for setting in model.settings.values():
        if getattr(model, setting.name) is not None:
            assert setting.title.split(" ")[0] in text and unit_symbol(setting.unit) in text
    for p in model.parameters:
        assert (f"{name_of(p)} was " in text) == p.given, p.name
    assert any(re.search(r"doi:\S+", model.reference)[0].rstrip(".,;") in book for book in books)
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(",")}
    assert cited == set(range(1, len(books) + 1))
    assert not re.search(r"\\|\$|[{}]|None|  ", text), text


def test_a_model_with_other_bounds_has_the_same_panels() -> None:
    model = example_models(signal_models()["ir"])[""]
    keys = [p["key"] for p in report(model.with_bounds({"T1": (5.0, 9000.0)}))[2]["panels"]]
    assert keys == ["T1", "sd T1", "B", "A", "residual"]


def test_a_curve_in_a_browser_passes_through_the_model(browser: Any, tmp_path: Any) -> None:
    """The script of the page interpolates as Python does, also along a field that is not linear."""
    for name in ("vfa", "megre-offset", "ir"):
        model = example_models(signal_models()[name])[""]
        text, maps, about = report(model)
        path = tmp_path / f"{name}.html"
        path.write_text(text, encoding="utf-8")
        browser.open(path)
        assert browser.log == []
        at = tuple(int(i) for i in browser.js("document.getElementById('viewer').dataset.voxel").split())
        d = browser.js("document.querySelector('#curve .fit').getAttribute('d')")
        xy = np.array([[float(v) for v in p.split()] for p in re.split("[ML]", d)[1:]])
        dots = np.array(
            browser.js(
                "[...document.querySelectorAll('#curve circle')].map(c => [+c.getAttribute('cx'), "
                "+c.getAttribute('cy')])"
            )
        )
        title = "[...document.querySelectorAll('#curve circle title')].map(t => t.textContent)"
        measured = [float(t.split(": ")[1].replace(",", "")) for t in browser.js(title)]
        scale = np.polyfit(measured, dots[:, 1], 1)
        signal = np.asarray(model.signal(maps.kappa[(slice(None), *at)]))
        np.testing.assert_allclose(np.interp(dots[:, 0], xy[:, 0], xy[:, 1]), np.polyval(scale, signal), atol=1.5)
        axis = browser.js("[...document.querySelectorAll('#curve text')].map(t => t.textContent)")
        unit = about["axis"]["unit"]
        assert about["axis"]["title"] + (f" ({unit})" if unit else "") in axis
