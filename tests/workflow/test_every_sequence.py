"""Every signal model, from a BIDS data set to maps: the derivative is valid, and reading returns what was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rimap.io import find_series
from rimap.io.results import find_results
from rimap.map_display import name_of
from rimap.report.page import RUN_BLOCK
from rimap.signals import SignalModel, signal_models
from rimap.workflow import Request, map_series, summary
from rimap.workflow.mapping import Run

from ..io.model_files import SHAPE, example, images_of, save, suffix_of, write_bids
from ..io.test_writing import VALIDATOR, validate

MODELS = signal_models()
every_model = pytest.mark.parametrize("name", MODELS)


class Mapped:
    """A data set with one subject for each signal model, and its derivative."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.out = folder / "raw", folder / "out"
        self.subjects = {name: str(n) for n, name in enumerate(MODELS, 1)}
        self.runs: dict[str, Run] = {}
        for name, cls in MODELS.items():
            self.write(example(cls), self.subjects[name])
        for name, subject in self.subjects.items():
            self.runs[name] = map_series(
                Request(
                    inputs=self.raw / f"sub-{subject}",
                    out=self.out,
                    sequence=name,
                    estimator="nlls",
                    sigma=0.01 * float(np.abs(images_of(example(MODELS[name]))).max()),
                    threads=1,
                )
            )

    def write(self, model: SignalModel, subject: str) -> None:
        write_bids(self.raw, model, subject)
        for p in model.parameters:
            if p.given and p.suffix == "TB1map":
                b1 = np.full(SHAPE, 0.97, np.float32)
                save(self.raw / f"sub-{subject}" / "fmap" / f"sub-{subject}_TB1map.nii.gz", b1, {"Units": "arbitrary"})


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Mapped:
    return Mapped(tmp_path_factory.mktemp("every"))


@pytest.mark.skipif(not VALIDATOR.exists(), reason="bids-validator-deno is not installed")
def test_the_derivative_is_valid(mapped: Mapped) -> None:
    assert validate(mapped.out) == []


@every_model
def test_the_summary_names_maps_and_units(mapped: Mapped, name: str) -> None:
    lines = summary.lines(mapped.runs[name])
    (result,) = mapped.runs[name].results
    figures = [line for line in lines if "median" in line or "known and not estimated" in line]
    for q in (*MODELS[name].parameters, *MODELS[name].derived):
        (line,) = [line for line in figures if line.split()[0] == name_of(q)]
        assert q.unit == "1" or line.count(result.units[q.name]) >= 1, line
        known = isinstance(q, type(MODELS[name].parameters[0])) and q.given
        assert ("known" in line) == known, line
    assert not [line for line in figures if "star" in line]


@every_model
def test_derived_maps_have_standard_deviations_in_files_and_when_read(mapped: Mapped, name: str) -> None:
    (result,) = find_results(mapped.out / f"sub-{mapped.subjects[name]}")
    maps = result.load()
    for q in (*MODELS[name].parameters, *MODELS[name].derived):
        if getattr(q, "given", False):
            continue
        known = maps.sd[q.name][maps.status == 0]
        assert np.isfinite(known).mean() > 0.9 and (known[np.isfinite(known)] > 0).all(), q.name


@every_model
def test_a_map_that_was_given_is_a_source_and_an_input(mapped: Mapped, name: str) -> None:
    (run,) = mapped.runs[name].results
    sidecar = json.loads(Path(str(run.maps[0]).replace(".nii.gz", ".json")).read_text())
    page = run.report.read_text()
    inputs = json.loads(page[page.index(RUN_BLOCK) + len(RUN_BLOCK) :].partition("</script>")[0])["inputs"]
    (files,) = find_series(mapped.raw / f"sub-{mapped.subjects[name]}", sequence=name)
    given = any(p.given and p.suffix == "TB1map" for p in MODELS[name].parameters)
    assert any("TB1map" in source for source in sidecar["Sources"]) == given
    assert any("TB1map" in file for file in inputs) == given
    assert len(sidecar["Sources"]) == len(files.images) + given
    assert suffix_of(MODELS[name]) in sidecar["Sources"][0]
