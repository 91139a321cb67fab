"""Every experiment with --quick: numbers that are known, and that pieces are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from rimap.errors import InputError
from rimap.evaluation import experiment
from rimap.evaluation.experiment import Experiment, Result, Settings, _key, draw, experiments, run
from rimap.evaluation.monte_carlo import SMOOTH, TEXTURE, WHOLE_B, MonteCarlo, truth
from rimap.evaluation.scans import given_scans
from rimap.evaluation.simulated_slices import brain_slice
from rimap.evaluation.tables import Row, read_table, select
from rimap.simulation.tissues import WM

ALL = experiments()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiments")


def _quick(name: str, out: Path, estimators: Sequence[str] = ("mle",), **options: Any) -> Result:
    result = run(ALL[name], Settings(estimators=tuple(estimators), quick=True, threads=2, **options), out)
    for picture in result.folder.glob("*.png"):
        with Image.open(picture) as image:
            assert image.width >= 450
            assert len(np.unique(np.asarray(image.convert("L")))) > 20  # something is drawn
    assert list(result.folder.glob("*.png"))
    assert result.summary == (result.folder / "summary.txt").read_text().rstrip("\n")
    return result


@pytest.fixture(scope="module")
def monte_carlo(out: Path) -> Result:
    return _quick("monte-carlo", out, ("mle", "global_b"))


def _one(rows: Sequence[Row], **where: Any) -> Row:
    found = select(rows, **where)
    assert len(found) == 1
    return found[0]


def test_every_experiment_of_the_paper_is_there() -> None:
    paper = {
        "monte-carlo",
        "blurriness",
        "phantom",
        "repeatability",
        "sharpness",
        "generalizability",
        "timing",
        "lambda-sweep",
    }
    assert paper | {"crlb", "t2-range", "out-of-distribution"} <= set(ALL)
    for name, one in ALL.items():
        assert one.name == name and one.title and one.paper


def test_monte_carlo(monte_carlo: Result) -> None:
    table = monte_carlo.table
    at = {"quantity": "T1", "truth": "smooth", "parameter": "T1", "region": "brain"}
    for spec in ("mle", "global_b"):
        noisy, clean = (_one(table, **at, estimator=spec, snr=s, metric="cv") for s in (5.0, 30.0))
        assert 3 < noisy["q50"] / clean["q50"] < 12  # in proportion to the noise
        assert abs(_one(table, **at, estimator=spec, snr=30.0, metric="bias")["q50"]) < 2
    assert {r["estimator"] for r in select(table, quantity="T2")} == {"mle"}
    for r in table:
        assert [r[f"q{p}"] for p in (0, 5, 25, 50, 75, 95, 100)] == sorted(
            r[f"q{p}"] for p in (0, 5, 25, 50, 75, 95, 100)
        )


def test_monte_carlo_has_the_truth_of_the_paper_and_every_B(monte_carlo: Result) -> None:
    settings = Settings(estimators=(), quick=True)
    labels = brain_slice(settings)
    smooth, white, whole = (truth(settings, "T1", kind)[1] for kind in (SMOOTH, TEXTURE, WHOLE_B))
    inside = labels == WM
    assert smooth[2][inside].std() < 0.09 * smooth[2][inside].mean()
    assert white[2][inside].std() == pytest.approx(100, rel=0.1)
    assert whole[1].min() == pytest.approx(1.6, abs=0.01) and whole[1].max() == pytest.approx(2.0, abs=0.01)
    table = monte_carlo.table
    at = {"quantity": "T1", "truth": WHOLE_B, "parameter": "T1", "region": "brain", "snr": 30.0, "metric": "rmse"}
    assert _one(table, **at, estimator="mle")["q50"] < 0.5 * _one(table, **at, estimator="global_b")["q50"]


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures, which take longer to draw than what they show to compute."""
    monkeypatch.setattr(experiment, "draw", lambda *_: "")


@pytest.mark.usefixtures("without_figures")
def test_pieces_are_kept_and_threads_give_the_same(tmp_path: Path) -> None:
    options = {"estimators": ("nlls",), "quick": True, "repeats": 2, "threads": 1}
    first = run(MonteCarlo(), Settings(**options), tmp_path / "a")
    assert first.computed == 10  # T1 of three truths, T2 of two, two SNRs
    again = run(MonteCarlo(), Settings(**options), tmp_path / "a")
    assert again.computed == 0 and again.table == first.table
    parts = sorted((tmp_path / "a" / "monte-carlo" / "parts").rglob("*.npz"))
    parts[0].unlink()
    assert run(MonteCarlo(), Settings(**options), tmp_path / "a").computed == 1
    assert run(MonteCarlo(), Settings(**options, seed=1), tmp_path / "a").computed == 10
    with ThreadPoolExecutor(2) as pool:
        threaded = run(MonteCarlo(), Settings(**options), tmp_path / "b", executor=pool)
    assert threaded.table == first.table
    recipe = json.loads((tmp_path / "b" / "monte-carlo" / "recipe.json").read_text())
    assert recipe["settings"]["seed"] == 0 and recipe["rimap"] and recipe["packages"]["numpy"]


def test_figures_are_drawn_again_from_the_table_alone(monte_carlo: Result, out: Path) -> None:
    folder = monte_carlo.folder
    figure = folder / "T1_boxes.png"
    before = figure.read_bytes()
    figure.unlink()
    draw(ALL["monte-carlo"], folder)
    assert figure.read_bytes() == before
    with pytest.raises(InputError, match="no table"):
        draw(ALL["monte-carlo"], out / "nothing")


def test_the_mle_keeps_small_structures(out: Path) -> None:
    table = _quick("blurriness", out).table
    for structure in ("hypo_point", "hyper_point", "vertical_line", "horizontal_line"):
        for region in ("structure", "neighbourhood"):
            for scenario in ("E1", "E2"):
                row = _one(table, structure=structure, region=region, scenario=scenario, metric="bias")
                assert abs(row["q50"]) < 8  # a few draws at SNR 10: 5 % of noise each
                assert row["n"] > 0 and 0 <= row["p"] <= 1


def test_t2_is_right_from_20_to_2000_ms(out: Path) -> None:
    table = _quick("t2-range", out).table
    rows = select(table, times="to 640 ms")
    assert (min(r["T2"] for r in rows), max(r["T2"] for r in rows)) == (20, 2000)
    for r in rows:
        assert abs(r["bias"]) < 3
        assert 0.85 < r["cv"] / r["cramer_rao"] < 1.15  # least squares is efficient here


def test_the_mle_reaches_the_bound_of_a_known_B(out: Path) -> None:
    table = _quick("crlb", out, ("mle", "nlls")).table
    assert {r["estimator"] for r in select(table, protocol="9 TIs to 4 s")} == {"mle", "nlls"}
    for r in select(table, estimator="mle", protocol="9 TIs to 4 s"):
        assert r["bound_B_known"] < r["bound_B_free"]
        assert 0.8 < r["rmse"] / r["bound_B_known"] < 1.4
    for r in select(table, estimator="nlls", protocol="9 TIs to 4 s"):
        assert 0.8 < r["rmse"] / r["bound_B_free"] < 1.3


def test_timing(out: Path) -> None:
    table = _quick("timing", out, ("nlls", "mle")).table
    assert [r["estimator"] for r in table] == ["nlls", "mle"]
    for r in table:
        assert 0 < r["seconds"] <= r["slowest"] and r["hours_700_slices"] == pytest.approx(r["seconds"] * 700 / 3600)


def test_lambda_sweep(out: Path) -> None:
    table = _quick("lambda-sweep", out).table
    outliers = {r["lambda_B"]: r["outliers"] for r in table}
    assert outliers[0.0] > 20 > 1 > outliers[1e6]  # B of every voxel by itself, and smooth
    rmse = {r["lambda_B"]: r["median_rmse"] for r in table}
    assert rmse[1e6] < rmse[5e2] < rmse[0.0]


def test_generalizability(out: Path) -> None:
    table = _quick("generalizability", out, ("mle", "global_b")).table
    cv = {r["protocol"]: r["q50"] for r in select(table, estimator="mle", metric="cv")}
    assert len(cv) == 5 and cv["IV noisy, 25 TIs"] > cv["IV, 31 TIs"]
    assert all(abs(r["q50"]) < 4 for r in select(table, metric="bias"))


def test_sharpness_of_the_mle_is_that_of_the_truth(out: Path) -> None:
    table = _quick("sharpness", out).table
    nu = {s: np.array([r["nu"] for r in select(table, estimator=s)]) for s in ("mle", "reference")}
    assert len(nu["mle"]) >= 10
    assert np.nanmedian(nu["mle"]) == pytest.approx(np.nanmedian(nu["reference"]), rel=0.3)


def test_out_of_distribution(out: Path) -> None:
    table = _quick("out-of-distribution", out).table
    bias = {(r["case"], r["region"]): r["q50"] for r in select(table, metric="bias")}
    assert abs(bias["nothing odd", "GM"]) < 2
    for T1 in (150, 250, 2500, 4500):
        assert abs(bias[f"lesion of {T1} ms", "lesion"]) < 6  # the MLE has no prior of T1
    assert abs(bias["motion of a voxel", "GM"]) > 3 * abs(bias["nothing odd", "GM"])
    assert abs(bias["B = 1.3", "GM"]) < 3


def test_phantom(out: Path, shared_data: Path) -> None:
    table = _quick("phantom", out, ("nlls", "mle"), data=shared_data).table
    inside = [r for r in select(table, metric="bias") if 80 <= r["nominal"] <= 710]
    assert len(inside) == 14
    for r in inside:
        assert r["in_range"] and abs(r["q50"]) < 6 and abs(r["scan_bias"]) < 6
    cv = {s: np.mean([r["mean"] for r in select(table, metric="cv", estimator=s, in_range=1)]) for s in ("nlls", "mle")}
    assert cv["mle"] < 0.7 * cv["nlls"]


def test_repeatability(out: Path, shared_data: Path) -> None:
    table = _quick("repeatability", out, ("nlls", "mle"), data=shared_data).table
    at = {"quantity": "T1", "region": "brain-like"}
    assert _one(table, **at, estimator="mle", metric="difference")["q50"] == 0
    assert abs(_one(table, **at, estimator="nlls", metric="difference")["q50"]) < 60
    cv = {s: _one(table, **at, estimator=s, metric="cv")["q50"] for s in ("nlls", "mle")}
    assert 1 < cv["mle"] < cv["nlls"] < 20


def test_repeated_scans_that_are_given(tmp_path: Path, shared_data: Path) -> None:
    scan = shared_data / "brain_in_vivo"
    settings = Settings(estimators=("mle",), quick=True, scans=(scan, scan), threads=2)
    units = ALL["repeatability"].units(settings)
    assert units[0] == ("T1", "mle")
    part = ALL["repeatability"].compute(settings, units[0])
    assert int(part["n"]) == 2 and float(np.nanmax(part["m2"])) == 0  # the same scan twice


def test_other_data_at_the_same_place_have_pieces_of_their_own(tmp_path: Path) -> None:
    """A scan that was exchanged is not answered with what was computed before."""
    place = tmp_path / "scan" / "a.nii"
    place.parent.mkdir()
    keys = []
    for content in (b"one", b"two", b"one"):
        place.write_bytes(content)
        keys.append(_key(ALL["repeatability"], Settings(scans=(place.parent,))))
    assert keys[0] == keys[2] != keys[1]


def test_scans_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    tau, rng = [50, 400, 1100, 2500], np.random.default_rng(0)
    images = rng.uniform(90, 100, (6, 5, 4, 4)).astype(np.float32)
    for name, shift in (("a", 0.0), ("b", 8.0)):
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[0, 3] = shift
        folder = tmp_path / name
        folder.mkdir()
        nib.save(nib.Nifti1Image(images, affine), folder / f"{name}.nii")
        (folder / f"{name}.json").write_text(json.dumps({"InversionTime": [t / 1000 for t in tau]}))
    scans = tuple(tmp_path / n / f"{n}.nii" for n in "ab")
    with pytest.raises(InputError, match=r"b\.nii is misaligned with .*a\.nii"):
        given_scans(Settings(scans=scans), "ir")


def test_without_an_mle_nothing_differs_from_it(tmp_path: Path, shared_data: Path) -> None:
    rows = _quick("repeatability", tmp_path, ("nlls",), data=shared_data).table
    assert {r["metric"] for r in rows} == {"cv"}


@pytest.mark.parametrize("name", ["phantom", "repeatability", "test-retest"])
def test_experiments_on_scans_run_without_any(name: str, out: Path) -> None:
    """On simulated ones, whose T1 the estimators find; the summary says so."""
    found = _quick(name, out, ("nlls", "mle"))
    assert found.summary.startswith("Simulated scans, because no data were given")
    if name == "phantom":
        inside = [r for r in select(found.table, metric="bias", estimator="mle") if 80 <= r["nominal"] <= 710]
        assert len(inside) == 7 and all(abs(r["q50"]) < 2 for r in inside)
    if name == "test-retest":
        z = select(found.table, metric="z", estimator="nlls", region="foreground")
        assert len(z) == 2 and all((r["q75"] - r["q25"]) / 1.349 == pytest.approx(1, abs=0.15) for r in z)


def test_data_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        run(ALL["phantom"], Settings(estimators=("mle",), quick=True, data=tmp_path), tmp_path)
    with pytest.raises(InputError, match="none of the estimators"):
        run(ALL["timing"], Settings(estimators=("rim:nobody",), quick=True), tmp_path)


@pytest.mark.usefixtures("without_figures")
def test_a_table_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    class Broken(MonteCarlo):
        def compute(self, settings: Settings, unit: Any) -> Any:
            if unit[2] == 30:
                raise RuntimeError("interrupted")
            return super().compute(settings, unit)

    settings = Settings(estimators=("nlls",), quick=True, repeats=2, threads=2)
    broken: Experiment = Broken()
    with pytest.raises(RuntimeError, match="interrupted"):
        run(broken, settings, tmp_path)
    assert not (tmp_path / "monte-carlo" / "table.csv").exists()
    assert run(MonteCarlo(), settings, tmp_path).computed == 9  # of ten: the first was kept
    assert read_table(tmp_path / "monte-carlo" / "table.csv")
