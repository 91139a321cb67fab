"""What kind of series images are: gradient echoes are never T2, and loose files follow the setting that differs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.reading_options import Reading
from rimap.io.sequence_detection import GRADIENT, SPIN, UNKNOWN, echo_kind
from rimap.signals import signal_models
from rimap.signals.base import axis_of
from rimap.workflow.read_series import read

from .model_files import example, images_of, save, sidecars_of, write_bids

MODELS = signal_models()
TE = (5.0, 10.0, 15.0, 20.0, 25.0)


def echoes(folder: Path, names: str = "scan_{}", **about: Any) -> Path:
    """Write loose images that differ in the echo time."""
    for n, te in enumerate(TE, 1):
        save(
            folder / f"{names.format(n)}.nii.gz",
            np.full((4, 5, 2), 100 * np.exp(-te / 30)),
            {"EchoTime": te / 1000, **about},
        )
    return folder


@pytest.mark.parametrize(
    ("about", "kind"),
    [
        ({"ScanningSequence": "GR"}, GRADIENT),
        ({"ScanningSequence": ["GR", "EP"]}, GRADIENT),
        ({"ScanningSequence": "SE"}, SPIN),
        ({"ScanningSequence": "SE\\IR"}, SPIN),
        ({"ScanningSequence": "RM", "FlipAngle": 25, "RepetitionTime": 0.13}, GRADIENT),
        ({"ScanningSequence": "RM", "FlipAngle": 90, "RepetitionTime": 3}, UNKNOWN),
        ({"PulseSequenceType": "Multi-echo gradient echo"}, GRADIENT),
        ({"PulseSequenceType": "Spin echo"}, SPIN),
        ({"PulseSequenceType": "GRASE, gradient and spin echo"}, UNKNOWN),
        ({"SequenceName": "*fl3d12r"}, GRADIENT),
        ({"SequenceName": "*se2d16"}, SPIN),
        ({"SequenceName": "*tse2d1_11"}, SPIN),
        ({"PulseSequenceDetails": "FFE"}, GRADIENT),
        ({}, UNKNOWN),
        ({"ScanningSequence": 3, "FlipAngle": "15"}, UNKNOWN),
    ],
)
def test_echo_kind(about: dict[str, Any], kind: str) -> None:
    assert echo_kind([about])[0] == kind


class TestGradientEchoes:
    def test_loose(self, tmp_path: Path) -> None:
        series = read(echoes(tmp_path, ScanningSequence="GR"))
        assert series.model.name == "megre"
        assert "T2*, not T2" in series.notes[0]

    def test_asked_for_as_t2(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"got gradient echoes \(ScanningSequence GR .*T2\*.*--sequence megre"):
            read(echoes(tmp_path, ScanningSequence="GR"), sequence="t2")
        with pytest.raises(InputError, match="got gradient echoes"):
            read(echoes(tmp_path, ScanningSequence="GR"), sequence="t2", times_ms=TE)

    def test_named_as_spin_echoes(self, tmp_path: Path) -> None:
        root = echoes(tmp_path, "sub-1/anat/sub-1_echo-{}_MESE", ScanningSequence="GR")
        with pytest.raises(InputError, match=r"got gradient echoes .*--sequence megre"):
            read(root)
        assert read(root, sequence="megre").model.name == "megre"

    def test_a_preparation_read_by_gradient_echoes_is_no_gradient_echo_series(self, tmp_path: Path) -> None:
        for n, te in enumerate(TE, 1):
            save(
                tmp_path / f"prep_{n}.nii.gz",
                np.full((4, 5, 2), 100 * np.exp(-te / 30)),
                {"EchoTime": 0.0012, "ScanningSequence": "GR"},
            )
        assert read(tmp_path, sequence="t2", times_ms=TE).model.tau == TE

    def test_nothing_says_which(self, tmp_path: Path) -> None:
        series = read(echoes(tmp_path))
        assert series.model.name == "t2"
        assert "nothing says whether these are spin or gradient echoes" in series.notes[0]
        assert read(tmp_path, sequence="t2").notes == ()
        (decision,) = read(echoes(tmp_path / "se", ScanningSequence="SE")).notes
        assert "T2 decay (t2) was chosen" in decision


@pytest.mark.parametrize(
    "name",
    [n for n, m in MODELS.items() if m.bids_suffix and not any(s.read_from for s in example(m).settings.values())],
)
def test_loose_files_are_what_differs_between_them(name: str, tmp_path: Path) -> None:
    model = example(MODELS[name], optional=False)
    about = {"ScanningSequence": "GR"} if MODELS[name].gradient_echo else {}
    part = {"signed": True} if model.is_signed else {}
    for n, (image, sidecar) in enumerate(zip(images_of(model), sidecars_of(model)), 1):
        save(tmp_path / f"scan_{n}.nii.gz", image, sidecar | about)
    (files,) = find_series(tmp_path)
    assert files.model_class().name == name
    assert files.load(Reading(**part)).model == model


def test_two_settings_that_differ_are_no_series_of_one(tmp_path: Path) -> None:
    for n in range(1, 6):
        save(tmp_path / f"x_{n}.nii.gz", np.full((4, 5, 2), 100.0), {"EchoTime": 0.01 * n, "InversionTime": 0.1 * n})
    with pytest.raises(InputError, match="EchoTime and InversionTime differ between the images"):
        read(tmp_path)


def test_half_of_what_belongs_together_is_left_out_with_a_note(tmp_path: Path) -> None:
    cls = MODELS["look-locker"]
    root = write_bids(tmp_path, example(cls, optional=False), ReadoutFlipAngle=8)
    series = read(root, sequence="look-locker")
    assert series.model == example(cls, optional=False)
    assert "ReadoutFlipAngle of the sidecars was not used" in series.notes[0] and "together" in series.notes[0]
    with pytest.raises(InputError, match="together"):  # what the user gives counts
        read(root, sequence="look-locker", settings={"readout_flip_angle": 8})


def test_a_stack_beside_its_images_is_refused(tmp_path: Path) -> None:
    model = example(MODELS["ir"])
    root = write_bids(tmp_path, model)
    times = {axis_of(MODELS["ir"]).bids[0]: [t / 1000 for t in model.times]}
    save(root / "sub-1/anat/sub-1_IRT1.nii.gz", np.moveaxis(images_of(model), 0, -1), times)
    with pytest.raises(InputError, match=r"expected inv- in the names of all images or of none, got 1 of 7"):
        find_series(root)


def test_an_optional_setting_that_some_sidecars_lack_is_said(tmp_path: Path) -> None:
    root = write_bids(tmp_path, example(MODELS["ir"]))
    path = next(root.rglob("*inv-3_IRT1.json"))
    about = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in about.items() if not k.startswith("RepetitionTime")}))
    series = read(root)
    assert series.model.tr is None
    assert "not in all sidecars (sub-1_inv-3_IRT1.nii.gz lacks it)" in series.notes[0]


def test_an_image_without_the_time_that_the_others_have_is_named(tmp_path: Path, build: SimpleNamespace) -> None:
    for n, (t, image) in enumerate(zip(build.TI, build.recovery()), 1):
        meta = {"InversionTime": t / 1000} if n != 3 else {}
        build.save(tmp_path / f"ir_{n}.nii.gz", image, meta | {"RepetitionTime": 10.0})
    with pytest.raises(
        InputError, match=r"expected InversionTime in the sidecars of all images, got none for ir_3\.nii\.gz"
    ):
        read(tmp_path)
