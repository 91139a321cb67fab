"""The HTML page: whole, self-contained, and true to the maps."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from rimap.likelihood import Gaussian, Rician, cramer_rao_sd
from rimap.report import Run, page, roi_table
from rimap.report.charts import precision
from rimap.report.methods import methods
from rimap.report.number_formats import number
from rimap.report.panels import STATUS_COLOURS
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.t2_decay import T2Decay


def example(shape, model=None, *, mask=True, affine=None):
    """A disc with values known beforehand, mapped without an error."""
    model = model or InversionRecovery(tau=[50, 400, 1100, 2500], tr=6000)
    rng = np.random.default_rng(0)
    inside = np.zeros(shape, bool)
    inside[tuple(slice(s // 4, max(3 * s // 4, 1)) for s in shape)] = True
    kappa = np.full((len(model.parameters), *shape), np.nan)
    kappa[:, inside] = np.array([100.0, 1.9, 900.0] if len(kappa) == 3 else [100.0, 70.0])[:, None]
    kappa[-1, inside] *= 1 + 0.1 * rng.standard_normal(int(inside.sum()))
    status = np.where(inside, Status.OK, Status.OUTSIDE_MASK if mask else Status.NO_SIGNAL).astype(np.uint8)
    images = np.nan_to_num(model.signal(np.nan_to_num(kappa, nan=1.0))) * inside + 1e-3
    series = WeightedSeries(images, model, None, inside if mask else None, affine)
    maps = ParameterMaps(
        kappa, model, status, 0.02 * kappa, np.ones(shape), Gaussian(2.0), "residuals", "mle", {"lambda_B": 50.0},
        ("TR is short.",), affine,
    )  # fmt: skip
    return series, maps


def without_data(html):
    """The page without its blocks of base64, in which any four letters occur."""
    return re.sub(r'(<script type="text/plain"[^>]*>)[^<]*|(data:image/png;base64,)[^"]*', r"\1\2", html)


class Checker(HTMLParser):
    """Every tag is closed, and nothing is fetched."""

    void = frozenset(("meta", "img", "br", "rect", "line", "input", "circle", "polyline"))

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.void:
            self.open.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 1), (40, 30, 20)])
@pytest.mark.parametrize("model", [None, T2Decay(tau=[10, 40, 80])])
@pytest.mark.parametrize("mask", [True, False])
def test_page_is_whole_and_self_contained(shape, model, mask):
    affine = np.diag([1.0, 1.0, 4.0, 1.0]) if len(shape) == 3 else None
    html = page(*example(shape, model, mask=mask, affine=affine), Run("sub-01"))
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    assert checker.sources and all(s.startswith("data:image/png;base64,") for s in checker.sources)
    text = without_data(html).replace("http-equiv", "")
    assert not [word for word in ("http", "@import", "url(", "import(") if word in text]
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html and "default-src 'none'" in html


def test_page_says_what_was_found_and_how():
    series, maps = example((40, 30))
    html = page(series, maps, Run("sub-01", "Regularised MLE", "the default", command="rimap map x -o y", seconds=1.5))
    text = re.sub(r"<[^>]+>", " ", html)
    for word in (
        "sub-01", "Regularised MLE", "the default", "rimap map x -o y", "TR is short.", "lambda_B",
        "50, 400, 1100, 2500",
        "Cramér-Rao bound of T1", "10.1002/mrm.30290", "10.1038/s41597-022-01571-4", "10.1002/mrm.22497", "unbiased",
        "6000", "10.1016/j.media.2021.102220", "outside the mask", "300 of 300 voxels",
        "inversion times of 50, 400, 1100 and 2500 ms", "Inversion time, ms",
    ):  # fmt: skip
        assert word in text, word
    median = float(np.nanmedian(maps["T1"]))
    assert f"{median:,.0f} ms" in text


def test_page_without_standard_deviations_does_not_speak_of_them():
    series, maps = example((60, 50))
    said = ("median SD", "Dots show", "SD is the uncertainty", "The ring marks", "Standard deviations are")
    assert all(word in page(series, maps, Run("x")) for word in said)
    for none in (None, np.full_like(maps.sd_kappa, np.nan)):
        html = page(series, replace(maps, sd_kappa=none), Run("x"))
        assert not [word for word in said if word in html]


@pytest.mark.parametrize("signed", [True, False])
def test_settings_and_methods_have_one_formula(signed):
    series, maps = example((20, 20), InversionRecovery(tau=[50, 400, 1100, 2500], signed=signed))
    html = page(series, maps, Run("x"))
    inner = "1 − B e^(−TI/T1) + (B−1) e^(−TR/T1)"
    formula = f"S = A ({inner})" if signed else f"S = |A ({inner})|"
    assert f"<td>{formula}</td>" in html and f"modelled as {formula}" in html
    assert "The repetition time was not known, so the terms with it were left out." in html


def test_names_from_files_cannot_become_markup():
    series, maps = example((20, 20))
    html = page(series, maps, Run("<script>alert(1)</script>", inputs=['"><img src=http://x>'], warnings=["<b>&"]))
    assert "<script>alert" not in html and "<img src=http" not in html and "&lt;b&gt;&amp;" in html
    run = re.search(r'<script type="application/json" id="run">(.*?)</script>', html)[1]
    assert json.loads(run)["title"] == "<script>alert(1)</script>"


def test_page_of_maps_without_any_value():
    series, maps = example((20, 20))
    empty = ParameterMaps(np.full_like(maps.kappa, np.nan), maps.model, np.full((20, 20), Status.NO_SIGNAL, np.uint8))
    assert "no signal" in page(series, empty, Run("x"))


def test_a_volume_of_many_slices_stays_small():
    """210 × 210 × 10 voxels of noise without a mask, which is the most that such a series can take."""
    n_images = 31
    model = InversionRecovery(tau=np.linspace(40, 3000, n_images), tr=6000)
    rng, shape = np.random.default_rng(0), (210, 210, 10)
    kappa = np.array([500.0, 1.9, 900.0], np.float32)[:, None, None, None] * (
        1 + 0.1 * rng.random((3, *shape), np.float32)
    )
    images = model.signal(kappa) + 5 * rng.standard_normal((n_images, *shape), np.float32)
    noisy = [0.02 * kappa * (1 + rng.random(kappa.shape, np.float32)), 5 + rng.random(shape, np.float32)]
    maps = ParameterMaps(kappa, model, np.zeros(shape, np.uint8), *noisy, Gaussian(5.0), "residuals", "mle")
    html = page(WeightedSeries(images, model, affine=np.diag([1.0, 1.0, 4.0, 1.0])), maps, Run("x"))
    assert len(html.encode()) < 10e6
    about = json.loads(re.search(r'id="viewer-data">(.*?)</script>', html)[1])
    assert about["images"] and (about["images"]["every"] > 1) == ("one slice in" in html)


def test_methods_cite_what_was_used():
    _, maps = example((20, 20))
    for name, doi in (("nlls", "mrm.22497"), ("rim", "1706.04008"), ("resnet", "CVPR.2016.90"), ("other", "j.media")):
        text, books = methods(replace(maps, estimator=name), name)
        assert any(doi in b for b in books) and "10.1016/j.media.2021.102220" in books[0]
        cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(",")}
        assert cited == set(range(1, len(books) + 1))
    text, books = methods(replace(maps, noise=Rician(2.0)), "MLE")
    assert "Rician" in text and any("mrm.1910340618" in b for b in books)
    assert "e^(−TR/T1)" in text and "repetition time of 6000 ms" in text and "not known, so the terms" not in text
    _, decay = example((20, 20), T2Decay(tau=[10, 40, 80]))
    text, _ = methods(decay, "MLE")
    assert "S = A e^(−TE/T2)" in text and "echo times of 10, 40 and 80 ms" in text


def test_methods_of_a_model_without_a_smooth_parameter():
    """There is nothing to regularise: `mle` is least squares, or maximum likelihood, in each voxel."""
    series, decay = example((20, 20), T2Decay(tau=[10, 40, 80]))
    for noise, by in ((Gaussian(2.0), "least squares"), (Rician(2.0), "maximum likelihood")):
        maps = replace(decay, noise=noise)
        text, books = methods(maps, "Regularised maximum likelihood")
        assert f"Each voxel was fitted separately by {by}" in text and not any("Barral" in b for b in books)
        html = page(series, maps, Run("x", "Regularised maximum likelihood"))
        assert not [word for word in ("together", "egularised", "Eq. 2", "lambda_B") if word in html]
    _, maps = example((20, 20))
    assert "fitted together by regularised" in methods(maps, "MLE")[0]
    text, books = methods(replace(maps, settings={"lambda_B": 0.0}), "MLE")
    assert "separately by least squares" in text and "lambda_B = 0" in text and any("Barral" in b for b in books)
    text, _ = methods(replace(decay, estimator="nlls", noise=Rician(2.0)), "Nonlinear least squares")
    assert (
        "For the standard deviations, the noise was assumed to be Rician" in text and "The likelihood was" not in text
    )


@pytest.mark.parametrize(
    ("estimator", "network", "own"),
    [("rim", "t1", True), ("rim", "rim_t1_31", False), ("resnet", "resnet_t1_31", False), ("rim", "mine", False)],
)
def test_methods_say_which_network(estimator, network, own, monkeypatch):
    _, maps = example((20, 20))
    maps = replace(maps, estimator=estimator, settings={"network": network, "scale": 123.456, "sd_draws": 4})
    text, _ = methods(maps, "Recurrent inference machine")
    assert f", the network {network}" in text and ("does not ship" in text) == (network == "mine")
    assert (
        ("Its design differs from that of [1]" in text) == own == ("maximum of the likelihood with a smooth B" in text)
    )
    assert "123.456" not in text and "4 noise draws" in text
    monkeypatch.setattr("rimap.report.methods.shipped", dict)  # its file is gone
    assert f"the network {network}, which does not ship" in methods(maps, "")[0]
    assert "Its design differs" in methods(maps, "", start="smooth_B")[0]  # its file was there when it mapped


def test_methods_of_the_network_for_T2_promise_no_smooth_parameter():
    _, maps = example((20, 20), T2Decay(tau=[10, 40, 80]))
    text, _ = methods(replace(maps, estimator="rim", settings={"network": "t2"}), "")
    assert "starts at the maximum of the likelihood, and" in text and "smooth" not in text


def test_the_bound_is_that_of_the_likelihood():
    _, maps = example((40, 40))
    chart = precision(maps, maps.status == Status.OK)
    middle = np.median(maps.kappa[:, maps.status == 0], axis=1)
    sd = cramer_rao_sd(maps.model, Gaussian(2.0), middle[:, None])[-1, 0] / middle[-1] * 100
    assert f"{sd:.1f} %" in chart["words"] and len(chart["curves"]) == 2
    free, known = ([float(p.split(",")[1]) for p in c["points"].split()] for c in chart["curves"])
    assert min(known) >= min(free) - 1  # lower in percent is lower on the page: a larger y
    assert precision(replace(maps, noise=None), maps.status == 0) is None


def test_every_status_has_a_colour_and_a_meaning_on_the_page():
    series, maps = example((20, 20))
    status = maps.status.copy()
    status.flat[: len(Status)] = list(Status)
    html = page(series, ParameterMaps(maps.kappa, maps.model, status), Run("x"))
    for s in Status:
        assert s.meaning in html and STATUS_COLOURS[s] in html
    assert len(set(STATUS_COLOURS.values())) == len(Status)


def test_regions():
    series, maps = example((20, 20))
    labels = np.zeros((20, 20), int)
    labels[5:10, 5:15], labels[10:15, 5:15] = 1, 7
    rows = roi_table(maps, labels, {7: "putamen"})
    assert [(r["label"], r["map"], r["n"], r["unit"]) for r in rows] == [(1, "T1", 50, "ms"), (7, "T1", 50, "ms")]
    assert rows[0]["median"] == pytest.approx(np.median(maps["T1"][labels == 1]), rel=1e-6)  # as its file has it
    assert rows[1]["sd"] == pytest.approx(maps["T1"][labels == 7].std(ddof=1), rel=1e-6)
    assert "putamen" in page(series, maps, Run("x", rois=rows))


def test_values_at_a_bound_count_and_others_do_not():
    _, maps = example((20, 20))
    status, labels = maps.status.copy(), (maps.status == 0).astype(int)
    inside = np.flatnonzero(labels)
    status.flat[inside[:10]], status.flat[inside[10:30]] = Status.AT_BOUND, Status.NOT_CONVERGED
    (row,) = roi_table(ParameterMaps(maps.kappa, maps.model, status), labels)
    assert (row["voxels"], row["n"]) == (100, 80)
    assert tuple(row[f"share_{x}"] for x in ("ok", "at_bound", "not_converged", "off_model")) == (0.7, 0.1, 0.2, 0.0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.zeros((20, 20)), "only zeros"), (np.ones((19, 20)), "shape"), (np.full((20, 20), 0.5), "whole numbers")],
)
def test_regions_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        roi_table(example((20, 20))[1], labels)


@pytest.mark.parametrize(
    ("x", "text"), [(1234.5, "1,234"), (64.23, "64.2"), (0.01234, "0.0123"), (1.5e-7, "1.5e-07"), (float("nan"), "–")]
)
def test_number(x, text):
    assert number(x) == text


def described(series: WeightedSeries) -> tuple[np.ndarray, str]:
    """Return the voxels that figures describe, and what they are called."""
    found = series.described
    return found.inside, found.words


def test_without_a_mask_the_background_is_left_out_of_the_figures():
    rng = np.random.default_rng(0)
    head = np.zeros((60, 60), bool)
    head[20:40, 15:45] = True
    images = 2 * rng.random((4, 60, 60)) + 100 * head
    model = InversionRecovery(tau=[50, 400, 1100, 2500])
    where, words = described(WeightedSeries(images, model))
    assert (where == head).all() and words == "in the foreground"
    where, words = described(WeightedSeries(images, model, mask=~head))
    assert (where == ~head).all() and words == "in the mask"
    tissue = np.stack([np.full((50, 50), 100.0), np.full((50, 50), 1.9), np.linspace(500, 3000, 2500).reshape(50, 50)])
    assert described(WeightedSeries(model.signal(tissue), model))[0].all()  # tissue alone is not split
    where, words = described(WeightedSeries(np.ones((4, 6, 6)), model))
    assert where.all() and words == "of all voxels"
