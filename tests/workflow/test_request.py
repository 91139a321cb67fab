"""Each name in a request, from Python or the command line, reaches the series whose model has it; none is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io import find_series
from rimap.signals import signal_models
from rimap.workflow import Listener, Request, map_series, summary
from rimap.workflow.checks import record_for
from rimap.workflow.estimator_choice import chosen, default_estimator, sequence_named
from rimap.workflow.series_options import check_names, constraints_for, given_for, settings_for

TAU, SHAPE = (50.0, 200.0, 500.0, 1000.0, 2500.0), (6, 5, 2)
IR, T2, VFA = (signal_models()[name] for name in ("ir", "t2", "vfa"))


def save(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), np.diag([2.0, 2.0, 4.0, 1.0])), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inversion recovery without noise, B = 1.8, T1 from 600 to 1400 ms."""
    kappa = np.stack([np.full(SHAPE, 100.0), np.full(SHAPE, 1.8), np.linspace(600, 1400, 60).reshape(SHAPE)])
    S = IR(tau=TAU).signal(kappa)
    return save(tmp_path_factory.mktemp("images") / "ir.nii.gz", np.moveaxis(S, 0, -1))


def request(images: Path, out: Path, **options: Any) -> Request:
    return Request(inputs=images, out=out, **({"sequence": "ir", "times_ms": TAU, "threads": 1} | options))


def test_python_maps_what_the_command_line_maps(images: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    run = map_series(request(images, tmp_path / "out", estimator="nlls"), Listener(warn=heard.append))
    (result,) = run.results
    assert result.main == "T1" and result.statistics["T1"].median == pytest.approx(1000, rel=0.02) and heard == []
    assert result.report.is_file() and all(path.is_file() for path in result.maps)
    assert any("T1" in line and "median" in line for line in summary.lines(run))
    again = map_series(request(images, tmp_path / "out", estimator="nlls"))
    assert again.results == () and again.kept == (result.label,)


def test_settings_are_those_of_the_options_of_their_own(images: Path, tmp_path: Path) -> None:
    by_option = map_series(request(images, tmp_path / "a", estimator="nlls", tr_ms=(9000.0,)))
    by_name = map_series(
        request(images, tmp_path / "b", estimator="nlls", times_ms=None, settings={"tau": TAU, "tr": 9000.0})
    )
    sidecars = [next(Path(r.results[0].maps[0].parent).glob("*_T1map.json")) for r in (by_option, by_name)]
    first, second = (json.loads(path.read_text()) for path in sidecars)
    assert first == second and first["RepetitionTimePreparation"] == 9


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("settings", {"tua": TAU}, ("--set tua", "tau, tr", "Did you mean tau?")),
        ("given", {"B1": 1.0}, ("--given B1", "(B)")),
        ("fixed", {"T": 1.0}, ("--fixed T", "B, T1")),
        ("bounds", {"A": (0.0, 1.0)}, ("--bounds A", "B, T1")),
        ("bounds", {"T1": (5.0, 1.0)}, ("--bounds T1", "LOW below HIGH")),
        ("given", {"B": "nowhere.nii.gz"}, ("--given B=nowhere.nii.gz", "a number or a file")),
    ],
)
def test_names_are_checked_before_any_work(
    images: Path, tmp_path: Path, option: str, value: Any, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as refused:
        map_series(request(images, tmp_path / "out", **{option: value}))
    assert all(word in str(refused.value) for word in words), refused.value
    assert not (tmp_path / "out").exists()


def test_a_name_is_for_the_series_whose_model_has_it() -> None:
    asked = Request(
        inputs="x", out="y", settings={"tr": 15.0}, given={"B1": 0.9}, fixed={"B": 2.0}, bounds={"T1": (100.0, 3000.0)}
    )
    check_names(asked, {IR, T2, VFA})
    assert settings_for(asked, T2) == {} and settings_for(asked, VFA) == {"tr": 15.0}
    assert given_for(asked, IR) == {} and given_for(asked, VFA) == {"B1": 0.9}
    assert constraints_for(asked, IR) == {"fixed": {"B": 2.0}, "bounds": {"T1": (100.0, 3000.0)}}
    assert constraints_for(asked, VFA) == {"bounds": {"T1": (100.0, 3000.0)}} and constraints_for(asked, T2) == {}


def test_another_setting_is_another_result(images: Path, tmp_path: Path) -> None:
    map_series(request(images, tmp_path / "out", estimator="mle", fixed={"B": 1.8}))
    for change in (
        {"settings": {"tr": 9000.0}},
        {"fixed": {"B": 1.9}},
        {"fixed": {}},
        {"bounds": {"T1": (1.0, 3000.0)}},
    ):
        with pytest.raises(InputError, match="maps with different settings already exist"):
            map_series(request(images, tmp_path / "out", **({"estimator": "mle", "fixed": {"B": 1.8}} | change)))
    assert map_series(request(images, tmp_path / "out", estimator="mle", fixed={"B": 1.8})).kept


def test_a_given_map_is_part_of_the_record(images: Path, tmp_path: Path) -> None:
    B = save(tmp_path / "B.nii.gz", np.full(SHAPE, 1.8))
    asked = request(images, tmp_path / "out", estimator="mle", given={"B": B})
    (files,) = find_series(asked.inputs, sequence="ir")
    before = record_for(asked, files).wanted
    save(B, np.full(SHAPE, 1.7))
    assert record_for(asked, files).wanted != before and "B.nii.gz " in str(before["given B"])


def test_a_known_parameter_reaches_the_estimate(images: Path, tmp_path: Path) -> None:
    B = save(tmp_path / "B.nii.gz", np.full(SHAPE, 1.8))
    (result,) = map_series(request(images, tmp_path / "out", estimator="mle", given={"B": B})).results
    T1 = nib.load(next(path for path in result.maps if path.name.endswith("_T1map.nii.gz"))).get_fdata()
    np.testing.assert_allclose(T1.ravel() * 1000, np.linspace(600, 1400, 60), rtol=1e-3)
    sidecar = json.loads(next(result.maps[0].parent.glob("*_T1map.json")).read_text())
    assert "B.nii.gz" in json.dumps(sidecar)


def test_the_default_estimator_follows_from_roles() -> None:
    """Models for which a network has passed its tests have that; roles decide for the others."""
    for model in signal_models().values():
        name, why = default_estimator(model)
        if model in (IR, T2):
            assert name == "rim"
            continue
        smooth = any(p.smooth for p in model.parameters)
        assert name == (
            "mle"
            if smooth or not (model is VFA or model.changes_sign or not any(p.amplitude for p in model.parameters))
            else "nlls"
        ), model
        assert model.title.lower() in why
    assert default_estimator(VFA)[0] == "nlls"


def test_an_option_chooses_the_estimator_that_has_it(tmp_path: Path) -> None:
    for options in (
        {"fixed": {"B": 2.0}},
        {"bounds": {"T1": (100.0, 3000.0)}},
        {"estimator_options": {"lambda_B": 1.0}},
    ):
        estimator, why = chosen(Request(inputs="x", out=tmp_path, **options), IR)
        assert estimator.name == "mle" and "--" in why
    with pytest.raises(InputError, match=r"--fixed.*rim has no such option.*mle"):
        chosen(Request(inputs="x", out=tmp_path, estimator="rim", fixed={"B": 2.0}), IR)


@pytest.mark.parametrize(
    ("text", "name"),
    [("ir", "ir"), (" IR ", "ir"), ("IRT1", "ir"), ("inversion-recovery", "ir"), ("VFA", "vfa"), ("MEGRE", "megre")],
)
def test_a_sequence_has_several_names(text: str, name: str) -> None:
    assert sequence_named(text) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [("T1", "share"), ("T2map", "mese, t2"), ("flair", "expected one of"), ("vfq", "Did you mean vfa?")],
)
def test_an_unclear_sequence_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        sequence_named(text)


def test_the_public_names() -> None:
    assert rimap.map_series is map_series and rimap.Request is Request
