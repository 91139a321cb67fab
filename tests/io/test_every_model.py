"""The settings of every signal model, built-in or plugin, survive reading, writing and reading back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.io import Writing, find_series, write_maps
from rimap.io.model_metadata import model_from_metadata, settings_metadata
from rimap.io.naming import main_suffix
from rimap.io.reading_options import Reading
from rimap.io.results import find_results
from rimap.series import ParameterMaps
from rimap.signals import SignalModel, signal_models
from rimap.signals.base import axis_of
from rimap.signals.multi_echo_spin_echo import PROFILES
from rimap.signals.settings import settings_of
from rimap.workflow.read_series import read

from .model_files import SHAPE, example, images_of, save, sidecars_of, suffix_of, write_bids
from .test_writing import VALIDATOR, validate

Make = Callable[..., ParameterMaps]
MODELS = signal_models()
every_model = pytest.mark.parametrize("cls", MODELS.values(), ids=MODELS)
NUMBERING = ("inv", "echo", "flip", "mt")


def same_settings(a: SignalModel, b: SignalModel) -> bool:
    """Tell whether two models have the same settings: one value for all images is that of each."""
    values = [[getattr(m, s) for s in m.settings] for m in (a, b)]
    return type(a) is type(b) and all(
        (x is None) == (y is None) and (x is None or np.array_equal(*np.broadcast_arrays(x, y)))
        for x, y in zip(*values)
    )


@every_model
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_settings_in_are_settings_out(cls: type[SignalModel], optional: bool, shared: bool, tmp_path: Path) -> None:
    model = example(cls, optional=optional, shared=shared)
    root = write_bids(tmp_path, model)
    asked = None if cls.bids_suffix else cls.name
    if suffix_of(cls) == "XYZ":
        root = next(root.rglob("*.nii.gz"))
    series = read(root, sequence=asked)
    assert same_settings(series.model, model)
    np.testing.assert_array_equal(series.images, images_of(model))
    if cls.bids_suffix:
        assert same_settings(read(root, sequence=cls.name).model, model)


@every_model
def test_one_file_with_arrays_in_its_sidecar(cls: type[SignalModel], tmp_path: Path) -> None:
    model = example(cls)
    if any(s.read_from for s in model.settings.values()):
        pytest.skip("its settings are in the sidecars of several images")
    several = sidecars_of(model)
    arrays = {f: [s[f] for s in several] for f in several[0]}
    sidecar = {f: v[0] if all(x == v[0] for x in v) and f not in axis_of(cls).bids else v for f, v in arrays.items()}
    path = save(tmp_path / "scan.nii.gz", np.moveaxis(images_of(model), 0, -1), sidecar)
    assert same_settings(read(path, sequence=cls.name, signed=model.is_signed or None).model, model)


@every_model
def test_settings_that_the_user_gives(cls: type[SignalModel], tmp_path: Path) -> None:
    model = example(cls)
    path = save(tmp_path / "scan.nii.gz", np.moveaxis(images_of(model), 0, -1))
    typed = {name: getattr(model, name) for name in model.settings}
    signed = model.is_signed or None
    assert same_settings(read(path, sequence=cls.name, settings=typed, signed=signed).model, model)
    axis = axis_of(cls)
    if axis.unit == "ms":
        others = {name: v for name, v in typed.items() if name != axis.name}
        again = read(path, sequence=cls.name, settings=others, times_ms=typed[axis.name], signed=signed)
        assert again.model == model
        with pytest.raises(InputError, match=r"--times-ms and --set .*expected one of them, got both"):
            read(path, sequence=cls.name, settings=typed, times_ms=typed[axis.name])
    else:
        with pytest.raises(InputError, match=rf"--set {axis.name}=VALUES"):
            read(path, sequence=cls.name, settings=typed, times_ms=typed[axis.name])
    with pytest.raises(InputError, match=rf"--set voltage: expected a setting of .*{axis.name}"):
        read(path, sequence=cls.name, settings={**typed, "voltage": 3})
    for name, setting in model.settings.items():
        with pytest.raises(InputError, match=r"expected numbers in|must have one value|expected one"):
            read(path, sequence=cls.name, settings={**typed, name: "many"})
        if setting.per_image is not False:
            with pytest.raises(
                InputError, match=setting.symbol if setting.per_image is None else rf"(2|3) .*, {model.n_images} image"
            ):
                read(path, sequence=cls.name, settings={**typed, name: (50.0, 60.0, 70.0)[: 3 - (model.n_images > 2)]})


@every_model
def test_a_setting_that_is_missing_is_named_with_its_field_and_its_option(
    cls: type[SignalModel], tmp_path: Path
) -> None:
    model = example(cls)
    for s in settings_of(cls).values():
        if not s.required:
            continue
        root = write_bids(tmp_path / s.name, model)
        own = f"*_{s.read_from}.json" if s.read_from else f"*_{suffix_of(cls)}.json"
        for path in sorted(root.glob(f"sub-*/anat/{own}"))[-1:]:
            about = json.loads(path.read_text())
            path.write_text(json.dumps({k: v for k, v in about.items() if k not in s.bids}))
        with pytest.raises(InputError) as caught:
            read(next(root.rglob("*.nii.gz")), sequence=cls.name)
        text = str(caught.value)
        assert f"no {s.sidecar_field} in its sidecar" in text and f"--set {s.name}=VALUES" in text
        assert ("--times-ms" in text) == (s.name == axis_of(cls).name and s.unit == "ms")


@every_model
def test_another_unit_in_the_sidecars_is_refused(cls: type[SignalModel], tmp_path: Path) -> None:
    model = example(cls)
    for s in settings_of(cls).values():
        if s.name not in model.settings or getattr(model, s.name) is None or s.unit not in ("ms", "deg"):
            continue
        root = write_bids(tmp_path / s.name, model)
        for path in root.glob("sub-*/anat/*.json"):
            about = json.loads(path.read_text())
            factor = 1000.0 if s.unit == "ms" else np.pi / 180 * (0.1 if s.plausible[0] < 1 else 1)
            if s.sidecar_field in about:
                path.write_text(json.dumps(about | {s.sidecar_field: factor * about[s.sidecar_field]}))
        if s.unit == "deg" and max(np.atleast_1d(getattr(model, s.name))) * factor >= s.plausible[0]:
            continue  # a flip angle that is possible in both units
        says = "milliseconds" if s.unit == "ms" else "radians"
        unit = "seconds" if s.unit == "ms" else "degrees"
        with pytest.raises(
            InputError, match=rf"expected {s.sidecar_field} in {unit}, got .*If these are {says}, write"
        ):
            read(next(root.rglob("*.nii.gz")), sequence=cls.name)


@every_model
def test_images_that_differ_in_another_numbering_are_other_series(cls: type[SignalModel], tmp_path: Path) -> None:
    model = example(cls)
    undeclared = [e for e in NUMBERING if e not in {s.entity for s in settings_of(cls).values()}]
    assert undeclared
    for entity in undeclared:
        root = tmp_path / entity
        for n in "12":
            write_bids(root, model, extra=f"_{entity}-{n}")
        if suffix_of(cls) == "XYZ":
            found = find_series(sorted(root.rglob("*.nii.gz")), sequence=cls.name)
        else:
            found = find_series(root, sequence=cls.name)
        assert [s.entities[entity] for s in found] == ["1", "2"]
        assert all(len(s.images) == model.n_images for s in found)


@every_model
def test_maps_are_read_back_with_their_model(cls: type[SignalModel], as_maps: Make, tmp_path: Path) -> None:
    model = example(cls).with_bounds({cls.parameters[-1].name: (2.0, 900.0)})
    root = write_bids(tmp_path / "raw", model)
    (files,) = find_series(next(root.rglob("*.nii.gz")), sequence=cls.name)
    given = {p.name: 1.1 * (p.start or 1.0) for p in cls.parameters if p.given}
    series = files.load(Reading(given=given))
    series = dataclasses.replace(series, model=series.model.with_bounds({cls.parameters[-1].name: (2.0, 900.0)}))
    maps = as_maps(series)
    for name, value in given.items():
        maps.kappa[model.index(name)][maps.status == 0] = value
    written = write_maps(maps, files, tmp_path / "out", Writing(rates=True, given=given))
    assert written[0].name.endswith(f"_{main_suffix(cls)}.nii.gz") and "desc-" not in written[0].name
    (result,) = find_results(tmp_path / "out")
    again = result.load()
    assert again.model == series.model
    np.testing.assert_allclose(again.kappa, maps.kappa, rtol=1e-6)
    assert maps.sd_kappa is not None and again.sd_kappa is not None
    free = [q for q, p in enumerate(cls.parameters) if p.name not in given]
    known = np.where(maps.sd_kappa > 0, maps.sd_kappa, np.nan)  # a deviation of 0 is none
    np.testing.assert_allclose(again.sd_kappa[free], known[free], rtol=1e-6)
    assert again.status.shape == SHAPE


@every_model
def test_old_results_without_the_new_fields_are_read(cls: type[SignalModel], as_maps: Make, tmp_path: Path) -> None:
    """Version 0.1.0 had neither bounds nor options nor given parameters in its sidecars."""
    root = write_bids(tmp_path / "raw", example(cls))
    (files,) = find_series(next(root.rglob("*.nii.gz")), sequence=cls.name)
    series = files.load()
    write_maps(as_maps(series), files, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.json"):
        about = json.loads(path.read_text())
        for field in ("GivenParameters", "ParameterBounds", "SignalModelOptions"):
            about.pop(field, None)
        path.write_text(json.dumps(about))
    (result,) = find_results(tmp_path / "out")
    assert same_settings(result.load().model, series.model)


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_an_option_that_is_an_object_is_written_and_rebuilt(profile: object) -> None:
    model = dataclasses.replace(example(MODELS["mese"]), profile=profile)
    about = json.loads(json.dumps(settings_metadata(model)))
    assert model_from_metadata(MODELS["mese"], about, "x.json") == model
    about["SignalModelOptions"]["profile"] = {"Class": "Popen", "args": "true"}
    with pytest.raises(InputError, match=r"expected an option of class .*got 'Popen'"):
        model_from_metadata(MODELS["mese"], about, "x.json")


@pytest.mark.skipif(not VALIDATOR.exists(), reason="bids-validator-deno is not installed")
def test_derivatives_of_all_models_are_valid(as_maps: Make, tmp_path: Path) -> None:
    for n, cls in enumerate(MODELS.values(), 1):
        for shared in (True, False):
            model = example(cls, shared=shared)
            root = write_bids(tmp_path / "raw", model, f"{n}{int(shared)}")
            first = next(root.glob(f"sub-{n}{int(shared)}/anat/*.nii.gz"))
            (files,) = find_series(first, sequence=cls.name)
            given = {p.name: np.full(SHAPE, p.start) for p in cls.parameters if p.given}
            write_maps(
                as_maps(files.load(Reading(given=given))),
                files,
                tmp_path / "out",
                Writing(rates=True, given=dict.fromkeys(given, "array")),
            )
    assert validate(tmp_path / "out") == []


def test_two_sequences_of_one_subject_do_not_share_a_main_map(as_maps: Make, tmp_path: Path) -> None:
    """Several sequences give a T1map: each has its own name, whatever is mapped first."""
    with_suffix = [m for m in MODELS.values() if m.bids_suffix]
    for cls in with_suffix:
        write_bids(tmp_path / "raw", example(cls))
    names = []
    for order in (1, -1):
        found = find_series(tmp_path / "raw")[::order]
        assert len(found) == len(with_suffix)
        written = [
            f.relative_to(tmp_path / f"out{order}").as_posix()
            for s in found
            for f in write_maps(as_maps(s.load()), s, tmp_path / f"out{order}")
        ]
        assert len(written) == len(set(written))
        names.append(sorted(written))
        assert len(find_results(tmp_path / f"out{order}")) == len(with_suffix)
    assert names[0] == names[1]
