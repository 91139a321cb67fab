"""The page in a real browser: no error, nothing fetched, and what a user does gives what they expect."""

import json
import re

import numpy as np
import pytest

from rimap import colours
from rimap.likelihood import Gaussian
from rimap.report import Run, page
from rimap.series import ParameterMaps, Status, WeightedSeries
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.t2_decay import T2Decay

SIGMA = 2.0
AFFINE = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, -30], [0, 0, 5, 7], [0, 0, 0, 1.0]])


def example(shape=(40, 44, 6), model=None, affine=AFFINE):
    """An ellipsoid whose T grows along every axis, with some noise."""
    model = model or InversionRecovery(tau=[50, 200, 400, 800, 1600, 3000], tr=6000)
    rng, place = np.random.default_rng(0), np.indices(shape)
    middle = np.reshape([(s - 1) / 2 for s in shape], (-1, *[1] * len(shape)))
    inside = (((place - middle) / np.maximum(0.45 * np.reshape(shape, middle.shape), 1)) ** 2).sum(0) <= 1
    T = (60.0 if len(model.parameters) == 2 else 700.0) * (1 + place.sum(0) / 60)
    kappa = np.stack([np.full(shape, 200.0), *([np.full(shape, 1.9)] if len(model.parameters) == 3 else []), T])
    images = model.signal(kappa) + SIGMA * rng.standard_normal((model.n_images, *shape))
    if getattr(model, "magnitude", False):
        images = np.abs(images)
    residual = np.sqrt(np.mean((images - model.signal(kappa)) ** 2, axis=0))
    status = np.where(inside, Status.OK, Status.OUTSIDE_MASK).astype(np.uint8)
    maps = ParameterMaps(
        np.where(inside, kappa, np.nan), model, status, np.where(inside, 0.02 * kappa, np.nan), residual,
        Gaussian(SIGMA), "residuals", "mle", {"lambda_B": 50.0}, ("TR is short.",), affine,
    )  # fmt: skip
    return WeightedSeries(images, model, None, inside, affine), maps


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A page of a volume, with its series and maps."""
    series, maps = example()
    path = tmp_path_factory.mktemp("page") / "a b#%41.html"
    path.write_text(page(series, maps, Run("sub-01 IRT1", "Regularised maximum likelihood")), encoding="utf-8")
    return path, series, maps


def state(browser):
    data = browser.js("({...document.getElementById('viewer').dataset})")
    return [int(v) for v in data["voxel"].split()], int(data["slice"])


def numbers(browser):
    rows = browser.js(
        "[...document.querySelectorAll('#numbers tr')].map(r => [r.cells[0].innerText, r.cells[1].innerText])"
    )
    return dict(rows)


def points(browser):
    """What the points of the chart say: time and value."""
    titles = browser.js("[...document.querySelectorAll('#curve circle title')].map(t => t.textContent)")
    return {float(t.split(" ms: ")[0].split(" ")[1]): float(t.split(": ")[1].replace(",", "")) for t in titles}


def test_it_loads_without_an_error_and_fetches_nothing(browser, volume):
    browser.open(volume[0], fresh=True)
    assert browser.log == []
    keys = browser.js("[...document.querySelectorAll('#viewer .panel')].map(p => p.dataset.key)")
    assert keys == ["T1", "sd T1", "B", "A", "residual", "status", "image"]
    assert browser.js("getComputedStyle(document.querySelector('.paper')).display") == "none"
    assert len(points(browser)) == 6  # a curve is there from the start


def test_a_click_shows_the_signal_and_the_numbers(browser, volume):
    _, series, maps = volume
    browser.open(volume[0])
    browser.click("#hero .frame canvas", 0.4, 0.6)
    voxel, _ = state(browser)
    at = tuple(voxel)
    assert browser.js("document.getElementById('voxel-name').innerText") == f"Voxel [{', '.join(map(str, at))}]"
    mm = AFFINE @ [*at, 1]
    assert f"{abs(mm[0]):.1f} mm {'R' if mm[0] >= 0 else 'L'}" in browser.js(
        "document.getElementById('voxel-mm').innerText"
    )
    shown = numbers(browser)
    T1, sd = (float(x) for x in re.fullmatch(r"([\d,.]+) ± ([\d.]+) ms", shown["T1"].replace(",", "")).groups())
    assert abs(T1 - maps["T1"][at]) < 1 and sd == pytest.approx(maps.sd["T1"][at], rel=0.06)
    assert float(shown["B"].split(" ")[0]) == pytest.approx(1.9, abs=0.005)
    assert float(shown["A"].split(" ")[0]) == pytest.approx(200.0, rel=0.005)
    assert float(shown["Residual"].split(" ")[0]) == pytest.approx(maps.residual[at], rel=0.02)
    assert shown["Flag"] == "ok: estimated"
    found = points(browser)
    assert list(found) == list(series.model.times)
    np.testing.assert_allclose(list(found.values()), series.images[(slice(None), *at)], atol=SIGMA / 4)
    # The curve passes where the model does, in the frame that the points span.
    d = browser.js("document.querySelector('#curve .fit').getAttribute('d')")
    xy = np.array([[float(v) for v in p.split()] for p in re.split("[ML]", d)[1:]])
    dots = np.array(
        browser.js(
            "[...document.querySelectorAll('#curve circle')].map(c => [+c.getAttribute('cx'), +c.getAttribute('cy')])"
        )
    )
    scale = np.polyfit(list(found.values()), dots[:, 1], 1)
    signal = np.asarray(series.model.signal(maps.kappa[(slice(None), *at)]))
    np.testing.assert_allclose(np.interp(dots[:, 0], xy[:, 0], xy[:, 1]), np.polyval(scale, signal), atol=1.0)
    assert browser.log == []


def test_every_map_is_linked(browser, volume):
    browser.open(volume[0], fresh=True)
    before = browser.js("[...document.querySelectorAll('.now')].map(e => e.innerText)")
    browser.click("#row .panel[data-key=B] .frame canvas", 0.62, 0.44)
    after = browser.js("[...document.querySelectorAll('.now')].map(e => e.innerText)")
    assert after[0] != before[0] and len(after) == 7
    voxel, _ = state(browser)
    assert voxel[0] != voxel[1]
    browser.click("#row .panel[data-key=B] .name")
    assert browser.js("document.querySelector('#hero .panel').dataset.key") == "B"
    assert browser.js("document.querySelectorAll('#row .panel').length") == 6


def test_slices_scroll_by_keys_wheel_and_slider(browser, volume):
    browser.open(volume[0])
    browser.click("#hero .frame canvas")
    (x, y, _), start = state(browser)
    browser.key("ArrowUp")
    assert state(browser) == ([x, y, start + 1], start + 1)
    browser.key("ArrowDown")
    browser.key("PageDown")
    assert state(browser)[1] == start - 1
    browser.key("Home")
    first = state(browser)[1]
    browser.key("End")
    last = state(browser)[1]
    assert (first, last) == (0, 5)
    browser.key("ArrowUp")
    assert state(browser)[1] == last
    browser.wheel("#hero .frame canvas", -120)
    browser.js("new Promise(requestAnimationFrame)")
    assert state(browser)[1] < last
    browser.js(
        "(() => { const s = document.getElementById('slice'); s.value = 2; s.dispatchEvent(new Event('input')); })()"
    )
    assert state(browser)[1] == 2 and browser.js("document.getElementById('slice-at').innerText") == "3 of 6"
    (x, y, z), _ = state(browser)
    browser.key("ArrowRight", shift=True)  # to the patient's left, which is towards lower x
    browser.key("ArrowDown", shift=True)
    assert state(browser)[0] == [x - 1, y - 1, z]
    browser.key("ArrowRight")
    assert browser.js("document.querySelector('.panel[data-key=image] .name').innerText") == "Image at TI 200 ms"


def test_the_stage_is_reached_by_the_keyboard_alone(browser, volume):
    browser.open(volume[0], fresh=True)
    reached = []
    for _ in range(8):
        browser.key("Tab")
        reached.append(browser.js("document.activeElement.id"))
    assert "stage" in reached and "slice" in reached
    assert browser.js("document.querySelectorAll('input:not([aria-label]):not([id]):not([type=radio])').length") == 0


def test_three_orientations(browser, volume):
    browser.open(volume[0])
    labels = browser.js("[...document.querySelectorAll('#planes label')].map(l => l.innerText)")
    assert labels == ["axial", "coronal", "sagittal", "all three"]
    browser.js("document.querySelectorAll('#planes input')[1].click()")
    assert browser.js("document.querySelector('#hero .frame canvas').dataset.plane") == "coronal"
    before = state(browser)[0]
    browser.js("document.getElementById('stage').focus()")
    browser.key("ArrowUp")
    assert state(browser)[0][1] == before[1] + 1
    browser.js("document.querySelectorAll('#planes input')[3].click()")
    assert browser.js("[...document.querySelectorAll('#hero .frame canvas')].map(c => c.dataset.plane)") == [
        "axial", "coronal", "sagittal",
    ]  # fmt: skip
    browser.click("#hero .frame canvas[data-plane=sagittal]", 0.3, 0.5)
    assert state(browser)[0][0] == before[0] and browser.log == []


def test_colours_are_those_of_the_recommendation(browser, volume):
    _, _, maps = volume
    browser.open(volume[0], fresh=True)
    low, high = (browser.js(f"document.getElementById('{i}').valueAsNumber") for i in ("low", "high"))
    palette = colours.palette("lipari")
    pixel = (
        "(async () => { await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame); "
        "const c = document.querySelector('#hero .frame canvas'); "
        "const p = c.getContext('2d').getImageData(%d, %d, 1, 1).data; return [...p]; })()"
    )
    for x, y in ((0.35, 0.35), (0.62, 0.4), (0.7, 0.66)):
        browser.click("#hero .frame canvas", x, y)
        at = tuple(state(browser)[0])
        size = browser.js(
            "(() => { const b = document.querySelector('#hero .frame canvas'); return [b.width, b.height]; })()"
        )
        browser.click("#hero .frame canvas", 0.5, 0.2)  # the cross-hair elsewhere
        expected = palette[int(colours.indices(maps["T1"][at], low, high, logarithmic=True))]
        found = browser.js(pixel % (x * size[0], y * size[1]))
        assert np.abs(np.array(found[:3]) - expected).max() <= 6, (at, found, expected)
    assert browser.js(pixel % (3, 3))[:3] == [0, 0, 0]
    browser.js(
        "(() => { const h = document.getElementById('high'); h.value = 900; h.dispatchEvent(new Event('change')); })()"
    )
    marks = browser.js("[...document.querySelectorAll('#hero .marks span')].map(s => s.innerText)")
    assert float(marks[-1]) <= 900
    browser.js("document.getElementById('reset').click()")
    assert browser.js("document.getElementById('high').valueAsNumber") == high


@pytest.mark.parametrize("dark", [False, True])
def test_light_dark_and_paper(browser, volume, dark):
    browser.open(volume[0], dark=dark)
    assert (browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)") is dark
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for selector, display in ((".paper", "block"), ("#stage", "none"), ("#row", "none"), (".toolbar", "none")):
        assert browser.js(f"getComputedStyle(document.querySelector('{selector}')).display") == display
    assert browser.js("document.querySelector('.paper img').getBoundingClientRect().width") > 50
    browser.send("Emulation.setEmulatedMedia", media="")
    browser.open(volume[0], width=400, dark=dark)
    assert browser.js("document.documentElement.scrollWidth") <= 400


def test_without_a_script_the_pictures_are_there(browser, volume, tmp_path):
    old = tmp_path / "old.html"
    old.write_text(
        re.sub(r"<script>.*?</script>", "", volume[0].read_text(encoding="utf-8"), flags=re.DOTALL), encoding="utf-8"
    )
    browser.open(old, ready=False)
    assert browser.js("getComputedStyle(document.querySelector('.paper')).display") == "block"
    assert browser.js("document.getElementById('viewer').hidden") is True


def test_without_the_images_the_curve_stays(browser, tmp_path):
    _, maps = example()
    path = tmp_path / "page.html"
    path.write_text(page(None, maps, Run("x")), encoding="utf-8")
    browser.open(path)
    assert points(browser) == {} and browser.js("document.querySelectorAll('#curve .fit').length") == 1
    assert "does not contain the images" in browser.js("document.getElementById('curve-note').innerText")
    assert browser.log == []


@pytest.mark.parametrize("case", ["plane", "row", "no value", "T2", "signed", "NaN"])
def test_series_of_every_kind(browser, tmp_path, case):
    model = T2Decay(tau=[10, 20, 40, 80]) if case == "T2" else None
    if case == "signed":
        model = InversionRecovery(tau=[50, 400, 1100, 2500], tr=[2000, 3000, 4000, 5000], signed=True)
    shape = {"plane": (40, 30), "row": (60,)}.get(case, (30, 30, 4))
    series, maps = example(shape, model, affine=AFFINE if len(shape) == 3 else None)
    if case == "no value":
        maps = ParameterMaps(np.full_like(maps.kappa, np.nan), maps.model, np.full(shape, Status.NO_SIGNAL, np.uint8))
    if case == "NaN":
        series.images[1, 15, 15, 2] = np.nan
    path = tmp_path / "page.html"
    path.write_text(page(series, maps, Run(case)), encoding="utf-8")
    browser.open(path)
    assert browser.log == []
    assert len(points(browser)) == series.model.n_images
    if case == "signed":
        assert min(points(browser).values()) < -50
    if case == "NaN":
        browser.js(
            "(() => "
            "{ const s = document.getElementById('slice'); s.value = 2; s.dispatchEvent(new Event('input')); })()"
        )
        assert "NaN" not in browser.js("document.getElementById('viewer').innerText")


def test_names_cannot_act(browser, tmp_path):
    series, maps = example((20, 20, 3))
    bad = "</script><script>window.hurt=1</script><img src=x onerror='window.hurt=1'>"
    run = Run(bad, bad, bad, [bad], [bad], bad, 1.0, bad, [bad], [])
    path = tmp_path / "page.html"
    path.write_text(
        page(series, ParameterMaps(maps.kappa, maps.model, maps.status, estimator=bad, settings={bad: bad}), run),
        encoding="utf-8",
    )
    browser.open(path)
    assert browser.js("window.hurt") is None and browser.js("document.images.length") > 0
    assert browser.js("[...document.images].every(i => i.src.startsWith('data:'))")
    assert browser.js("JSON.parse(document.getElementById('run').textContent).title") == bad
    assert browser.log == [] and json.dumps(bad) not in path.read_text(encoding="utf-8")
    injected = path.read_text(encoding="utf-8").replace("<main>", "<main><script>window.hurt=2</script>", 1)
    path.write_text(injected, encoding="utf-8")
    browser.open(path)
    assert browser.js("window.hurt") is None  # the policy knows one script


def region_rows(browser):
    """The table of the drawn region: numbers by map."""
    cells = "[...document.querySelectorAll('#region-rows tr')].map(r => [...r.cells].map(c => c.innerText))"
    return {row[0].split(",")[0]: [c.replace(",", "") for c in row[1:]] for row in browser.js(cells)}


def drawn(browser):
    """How many voxels the region has."""
    return browser.js("Number(document.getElementById('viewer').dataset.region)")


def test_a_drawn_region_has_its_statistics(browser, tmp_path):
    series, maps = example((40, 44, 6))
    status = np.array(maps.status)
    status[19:21, 20:24, :][status[19:21, 20:24, :] == Status.OK] = Status.OFF_MODEL
    maps = ParameterMaps(maps.kappa, maps.model, status, maps.sd_kappa, maps.residual, maps.noise, "residuals", "mle",
                         {}, (), AFFINE)  # fmt: skip
    path = tmp_path / "page.html"
    path.write_text(page(series, maps, Run("x")), encoding="utf-8")
    browser.open(path, fresh=True)
    assert browser.js("document.getElementById('region').hidden") is True
    browser.js("document.querySelector('#tools input[value=region]').click()")
    before = state(browser)
    shown = browser.js("JSON.parse(document.getElementById('viewer-data').textContent)")
    (x0, y0, _), (nx, ny, _) = shown["origin"], shown["shape"]
    box = browser.js(
        "(b => [b.width, b.height])(document.querySelector('#hero .frame canvas').getBoundingClientRect())"
    )
    scale = min(box[0] / nx, box[1] / ny)  # the picture is in the middle of the canvas, as large as fits

    def square(low, high):
        corners = ((low, low), (high, low), (high, high), (low, high))
        return [(0.5 + (x - 0.5) * nx * scale / box[0], 0.5 + (y - 0.5) * ny * scale / box[1]) for x, y in corners]

    browser.drag("#hero .frame canvas", square(0.4, 0.6))
    assert state(browser) == before  # the cross-hair stays
    k = before[1]
    # Picture: x runs to the patient's left (lower index i), y to posterior (lower j). Centres of cells within 40 to 60
    # %.
    inside = np.zeros(status.shape, bool)
    for i in range(nx):
        for j in range(ny):
            x, y = (nx - 1 - i + 0.5) / nx, (ny - 1 - j + 0.5) / ny
            inside[x0 + i, y0 + j, k] = 0.4 < x < 0.6 and 0.4 < y < 0.6
    chosen = status[inside]
    assert drawn(browser) == inside.sum() and (chosen == Status.OFF_MODEL).any()
    counted = maps["T1"][inside][np.isin(chosen, (Status.OK, Status.AT_BOUND))]
    n, median, iqr, mean, sd = region_rows(browser)["T1"]
    assert int(n) == counted.size
    assert float(median) == pytest.approx(np.median(counted), rel=1e-3)
    assert float(iqr.split(" ")[0]) == pytest.approx(np.subtract(*np.quantile(counted, [0.75, 0.25])), rel=0.02)
    assert float(mean) == pytest.approx(counted.mean(), rel=1e-3)
    assert float(sd) == pytest.approx(counted.std(ddof=1), rel=0.02)
    share = 100 * np.mean(chosen != Status.OK)
    note = browser.js("document.getElementById('region-note').innerText")
    assert float(re.search(r"Not ok: ([\d.]+) %", note)[1]) == pytest.approx(share, rel=0.05)
    assert f"off model {np.sum(chosen == Status.OFF_MODEL)}" in note
    # More in the next slice, less of it again, and nothing after Esc.
    browser.key("ArrowUp")
    browser.drag("#hero .frame canvas", square(0.4, 0.6), shift=True)
    assert drawn(browser) == 2 * inside.sum()
    browser.drag("#hero .frame canvas", square(0.0, 1.0), alt=True)
    assert drawn(browser) == inside.sum()
    browser.key("Escape")
    assert drawn(browser) == 0 and browser.js("document.getElementById('region-has').hidden") is True
    assert browser.log == []


@pytest.mark.parametrize("smooth", [False, True])
def test_the_band_of_the_curve_is_that_of_the_covariance(browser, tmp_path, smooth):
    series, maps = example((20, 22, 3))
    model, kappa = maps.model, np.array(maps.kappa)
    kappa[model.index("B")] *= 1 - 0.03 * np.indices(maps.status.shape)[0] / 20
    flat = kappa.reshape(3, -1)
    J = np.swapaxes(np.asarray(model.partials(flat)), 0, 1)  # (Q, N, M)
    information = np.einsum("qnm,pnm->mqp", J, J) / SIGMA**2
    place = model.index("B")
    if smooth:  # B is known better than one voxel tells
        information[:, place, place] += 1 / 0.004**2
    covariance = np.full(information.shape, np.nan)
    good = np.isfinite(flat).all(0)
    covariance[good] = np.linalg.inv(information[good])
    sd = np.sqrt(np.einsum("mqq->qm", covariance)).reshape(kappa.shape)
    maps = ParameterMaps(kappa, model, maps.status, sd, maps.residual, maps.noise, "residuals", "mle", {}, (), AFFINE)
    path = tmp_path / "page.html"
    path.write_text(page(series, maps, Run("x")), encoding="utf-8")
    browser.open(path, fresh=True)
    at = tuple(state(browser)[0])
    expected = 1.96 * np.sqrt(np.einsum("qn,qp,pn->n", J[..., np.ravel_multi_index(at, (20, 22, 3))],
                              covariance[np.ravel_multi_index(at, (20, 22, 3))],
                              J[..., np.ravel_multi_index(at, (20, 22, 3))]))  # fmt: skip
    outline = browser.js("document.querySelector('#curve .band95').getAttribute('d')")
    xy = np.array([[float(v) for v in p.split()] for p in outline.strip("MZ").split("L")])
    upper, lower = xy[: len(xy) // 2], xy[: len(xy) // 2 - 1 : -1]
    dots = browser.js(
        "[...document.querySelectorAll('#curve circle')].map(c => [+c.getAttribute('cx'), +c.getAttribute('cy')])"
    )
    dots = np.array(dots)
    units = abs(np.polyfit(dots[:, 1], list(points(browser).values()), 1)[0])
    signal = np.asarray(model.signal(kappa[(slice(None), *at)]))
    clear = np.abs(signal) > 3 * expected  # the band is not cut at zero
    width = units * (np.interp(dots[:, 0], lower[:, 0], lower[:, 1]) - np.interp(dots[:, 0], upper[:, 0], upper[:, 1]))
    np.testing.assert_allclose(width[clear], 2 * expected[clear], rtol=0.05, atol=0.15 * units)
    assert clear.sum() >= 4 and browser.log == []
