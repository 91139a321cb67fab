"""`rimap report`: the page again from a folder of results, and maps read back as they were written."""

import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rimap.cli import build
from rimap.errors import InputError
from rimap.io import Writing, find_series, write_maps
from rimap.io.reading_options import Reading
from rimap.io.results import find_results
from rimap.likelihood import Gaussian, Rician
from rimap.report import Run, page
from rimap.report.page_rewriting import page_again
from rimap.series import ParameterMaps, Status

SHAPE, TI, TE = (14, 12, 3), (50, 400, 1100, 2500), (10, 20, 40, 80)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), np.diag([2.0, 2.0, 4.0, 1.0])), path)


def images_of(times, *, decay):
    rng, t = np.random.default_rng(1), np.array(times, float)[:, None, None, None]
    T = np.linspace(40, 90, int(np.prod(SHAPE))).reshape(SHAPE) * (1 if decay else 15)
    S = 100 * np.exp(-t / T) if decay else np.abs(100 * (1 - 1.9 * np.exp(-t / T) + 0.9 * np.exp(-6000 / T)))
    return S + rng.normal(0, 0.5, S.shape), np.stack(
        [np.full(SHAPE, 100.0), *([] if decay else [np.full(SHAPE, 1.9)]), T]
    )


def write_bids(root):
    """One subject with an IRT1 and a MESE of the same entities."""
    root.mkdir()
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    for suffix, entity, field, times in (("IRT1", "inv", "InversionTime", TI), ("MESE", "echo", "EchoTime", TE)):
        for n, (image, t) in enumerate(zip(images_of(times, decay=suffix == "MESE")[0], times), start=1):
            stem = root / "sub-01" / "anat" / f"sub-01_{entity}-{n}_{suffix}"
            save(stem.with_name(stem.name + ".nii.gz"), image)
            sidecar = {field: t / 1000} | ({"RepetitionTimePreparation": 6} if suffix == "IRT1" else {})
            stem.with_name(stem.name + ".json").write_text(json.dumps(sidecar))
    return root


def estimate(series, *, name="mle", noise=None):
    """Maps that are as good as true, without an estimator."""
    _, kappa = images_of(series.model.times, decay=len(series.model.parameters) == 2)
    status = np.zeros(SHAPE, np.uint8)
    status[0], status[1, 0], status[1, 1] = Status.OUTSIDE_MASK, Status.AT_BOUND, Status.NO_SIGNAL
    gone = np.isin(status, (Status.OUTSIDE_MASK, Status.NO_SIGNAL))
    residual = np.sqrt(np.mean((series.images - series.model.signal(kappa)) ** 2, axis=0))
    return ParameterMaps(
        np.where(gone, np.nan, kappa), series.model, status, np.where(status != 0, np.nan, 0.01 * kappa),
        np.where(gone, np.nan, residual), noise or Gaussian(0.5), "residuals", name, {"lambda_B": 50.0, "x": None},
        ("TR is short.",), series.affine,
    )  # fmt: skip


def map_folder(bids, out, **options):
    """Maps of every series of a folder, and their pages."""
    fill = options.pop("fill", np.nan)
    made = {}
    for files in find_series(bids):
        series = files.load()
        maps = estimate(series, **options)
        main, *_ = write_maps(maps, files, out, Writing(fill=fill, rates=True))
        name = f"{main.name.removesuffix('.nii.gz')}{'' if files.dataset else '_report'}.html"
        (out / name).write_text(
            page(series, maps, Run("a title", command="rimap map x", seconds=7.0)), encoding="utf-8"
        )
        made[main.name] = maps
    return made


@pytest.fixture
def bids(tmp_path):
    return write_bids(tmp_path / "data set")


@pytest.fixture
def rimap():
    app = build()
    return lambda *args: CliRunner().invoke(app, [str(a) for a in args], prog_name="rimap")


def block(html, name):
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', html)[1])


@pytest.mark.parametrize("fill", [np.nan, 0.0])
@pytest.mark.parametrize("noise", [Gaussian(0.5), Rician(0.5)])
def test_maps_are_read_back_as_they_were(bids, tmp_path, fill, noise):
    made = map_folder(bids, tmp_path / "out", fill=fill, noise=noise)
    found = find_results(tmp_path / "out")
    assert sorted(r.main.name for r in found) == sorted(made) == ["sub-01_T1map.nii.gz", "sub-01_T2map.nii.gz"]
    for result in found:
        maps, was = result.load(), made[result.main.name]
        assert maps.model == was.model and maps.estimator == "mle" and maps.warnings == was.warnings
        assert maps.settings["lambda_B"] == 50.0 and maps.noise.name == noise.name and maps.noise.sigma == 0.5
        np.testing.assert_array_equal(maps.status, was.status)
        np.testing.assert_allclose(maps.kappa, was.kappa, rtol=1e-6)
        np.testing.assert_allclose(maps.sd_kappa, was.sd_kappa, rtol=1e-6)
        np.testing.assert_allclose(maps.residual, was.residual, rtol=1e-6)
        series = result.series(maps)
        assert series.images.shape == (4, *SHAPE) and (series.mask == (was.status != Status.OUTSIDE_MASK)).all()


def test_the_page_is_made_again_with_its_signal(bids, tmp_path, rimap):
    out = tmp_path / "out"
    map_folder(bids, out)
    before = {p.name: p.read_text(encoding="utf-8") for p in out.glob("*.html")}
    table = out / "sub-01_T1map_rois.tsv"
    table.write_text(
        "label\tname\tmap\tunit\tvoxels\tn\tmedian\tiqr\tmean\tsd\n4\tputamen\tT1\tms\t9\t8\t1234.5\t1\t1\tn/a\n"
    )
    result = rimap("report", out)
    assert result.exit_code == 0, result.output
    assert len(before) == 2 and sorted(result.stdout.split()) == sorted(str(p) for p in out.glob("*.html"))
    for path in out.glob("*.html"):
        html = path.read_text(encoding="utf-8")
        assert block(html, "viewer-data")["images"] and "rimap map x" in html and "7.00 s" in html and "a title" in html
        was, now = (re.search(r"<b>([\d,.]+ ms)</b>", h)[1] for h in (before[path.name], html))
        assert was == now
        if "T1" in path.name:
            assert "putamen" in html and "1,234" in html
    one = rimap("report", out / "sub-01" / "anat" / "sub-01_T2map.nii.gz")
    assert one.exit_code == 0 and one.stdout.split() == [str(out / "sub-01_T2map.html")]


def test_without_an_earlier_page_the_sidecars_tell(bids, tmp_path, rimap):
    map_folder(bids, tmp_path / "out")
    for path in (tmp_path / "out").glob("*.html"):
        path.unlink()
    assert rimap("report", tmp_path / "out").exit_code == 0
    html = (tmp_path / "out" / "sub-01_T1map.html").read_text(encoding="utf-8")
    for words in (
        "sub-01 IRT1",
        "Regularised maximum likelihood",
        "50, 400, 1100, 2500",
        "6000",
        "inv-4_IRT1",
        "numba",
    ):
        assert words in html, words


def test_the_median_of_a_map_of_sigma_is_called_that(bids, tmp_path, rimap):
    sigma = np.full(SHAPE, 0.5)
    sigma[0] = 5.0
    map_folder(bids, tmp_path / "out", noise=Gaussian(sigma))
    path = tmp_path / "out" / "sub-01_T1map.html"
    before = path.read_text(encoding="utf-8")
    assert rimap("report", tmp_path / "out").exit_code == 0
    for html in (before, path.read_text(encoding="utf-8")):
        assert html.count("from the residuals, median of a map") == 3  # tile, settings, methods


def test_what_is_missing_is_said(bids, tmp_path, rimap):
    out = tmp_path / "out"
    map_folder(bids, out)
    image = bids / "sub-01" / "anat" / "sub-01_inv-2_IRT1.nii.gz"
    kept = image.read_bytes()
    save(image, np.full(SHAPE, 55.0))
    before = (out / "sub-01_T1map.html").read_bytes()
    result = rimap("report", out)
    assert result.exit_code == 0 and "kept, because" in result.stdout and "the sources have changed" in result.stdout
    assert (out / "sub-01_T1map.html").read_bytes() == before
    image.write_bytes(kept)
    image.unlink()
    result = rimap("report", out, "--overwrite")
    assert result.exit_code == 0 and "sub-01_inv-2_IRT1.nii.gz no longer exists" in result.stdout
    html = (out / "sub-01_T1map.html").read_text(encoding="utf-8")
    assert block(html, "viewer-data")["images"] is None and "This page has no measured signal" in html
    (out / "sub-01" / "anat" / "sub-01_desc-status_T2map.nii.gz").unlink()
    result = rimap("report", out)
    assert result.exit_code == 2 and "expected sub-01_desc-status_T2map.nii.gz" in result.stderr
    assert "sub-01_T1map.html" in result.stdout


def test_a_second_estimator_and_loose_files(bids, tmp_path, rimap):
    out = tmp_path / "out"
    map_folder(bids, out)
    map_folder(bids, out, name="nlls")
    names = sorted(r.main.name for r in find_results(out))
    assert names == [
        "sub-01_T1map.nii.gz",
        "sub-01_T2map.nii.gz",
        "sub-01_desc-nlls_T1map.nii.gz",
        "sub-01_desc-nlls_T2map.nii.gz",
    ]
    assert {r.load().estimator for r in find_results(out)} == {"mle", "nlls"}
    assert rimap("report", out).exit_code == 0 and len(list(out.glob("*.html"))) == 4
    save(tmp_path / "ir.nii.gz", np.moveaxis(images_of(TI, decay=False)[0], 0, -1))
    (files,) = find_series(tmp_path / "ir.nii.gz", sequence="ir")
    write_maps(
        estimate(files.load(Reading(times_ms=TI, tr_ms=6000, sequence="ir"))), files, tmp_path / "loose", sequence="ir"
    )
    result = rimap("report", tmp_path / "loose")
    assert result.exit_code == 0 and result.stdout.split() == [str(tmp_path / "loose" / "ir_T1map_report.html")]
    write_maps(
        estimate(files.load(Reading(times_ms=TI, tr_ms=6000, sequence="ir", skip_first=1))),
        files,
        tmp_path / "less",
        sequence="ir",
    )
    assert "without measured signal" in rimap("report", tmp_path / "less").stdout  # no sidecar has the times


def test_a_sidecar_leads_nowhere_else(bids, tmp_path):
    out = tmp_path / "out"
    map_folder(bids, out)
    save(tmp_path / "secret.nii.gz", np.ones(SHAPE))
    result = find_results(out / "sub-01" / "anat" / "sub-01_T1map.nii.gz")[0]
    for source in (
        "bids:raw:../secret.nii.gz",
        "bids:other:sub-01/x.nii.gz",
        "bids:raw:/etc/passwd",
        "bids:",
        "/etc/passwd",
    ):
        with pytest.raises(InputError, match="data set"):
            replace(result, metadata=result.metadata | {"Sources": [source]}).sources()
    with pytest.raises(InputError, match="contains no sources"):
        replace(result, metadata=result.metadata | {"Sources": 3}).sources()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("SignalModel", "mt"),
        ("InversionTimes", None),
        ("InversionTimes", ["a"]),
        ("InversionTimes", [1, -2, 3]),
        ("InversionTimes", {}),
    ],
)
def test_broken_sidecars_are_named(bids, tmp_path, rimap, field, value):
    out = tmp_path / "out"
    map_folder(bids, out)
    path = out / "sub-01" / "anat" / "sub-01_T1map.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {field: value, "NoiseSigma": "x", "EstimatorSettings": 3})
    )
    result = rimap("report", path.with_suffix(".nii.gz"))
    assert result.exit_code == 2 and "rimap: error:" in result.stderr and "Traceback" not in result.output
    path.write_text("{")
    result = rimap("report", out)
    assert result.exit_code == 2 and "expected valid JSON" in result.stderr


def test_folders_without_maps(tmp_path, rimap):
    assert "expected maps, got none" in rimap("report", tmp_path).stderr
    assert "expected an existing folder" in rimap("report", tmp_path / "x").stderr


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
_FIELDS = (
    "Sources", "EstimatorSettings", "InversionTimes", "RepetitionTimePreparation", "RepetitionTimesPreparation",
    "SignedImages", "NoiseModel", "NoiseSigma", "NoiseSigmaSource", "Warnings", "EstimationSoftwareVersions",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_sidecar_says_it_is_an_error_or_a_page(made, changes):
    result = find_results(made / "sub-01" / "anat" / "sub-01_T1map.nii.gz")[0]
    result = replace(result, metadata=result.metadata | changes)
    try:
        again = page_again(result, overwrite=True)
    except InputError:
        return
    html = again.page.read_text(encoding="utf-8")
    assert "</html>" in html and block(html, "viewer-data")["codes"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    map_folder(write_bids(folder / "bids"), folder / "out")
    return folder / "out"
