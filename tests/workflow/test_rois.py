"""Regions on maps that exist: the figures are those of the values, whatever the maps and the labels are called."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import rimap
from rimap import InputError, Status
from rimap.cli import build
from rimap.evaluation.references import LAYOUTS, layout_of, references_of
from rimap.io.map_images import map_images
from rimap.report.group import columns as group_columns
from rimap.report.statistics import FIGURES, roi_table, share_column
from rimap.workflow.rois import Judging, columns, judged, lines

AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])
SHAPE = (12, 10, 2)
T1 = np.random.default_rng(3).uniform(300, 1800, SHAPE)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[2:6, 2:8] = 1
LABELS[6:10, 2:8] = 4


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, **about: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values), affine), path)
    if about:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    return path


@pytest.fixture
def derivative(tmp_path: Path) -> Path:
    """A derivative with a T1 map, its status and its standard deviations, as rimap writes them."""
    anat = tmp_path / "out" / "sub-01" / "anat"
    about = {"Estimator": "nlls", "SignalModel": "ir", "Sources": ["a"], "MagneticFieldStrength": 3.0}
    status = np.zeros(SHAPE, np.uint8)
    status[2, 2:8] = Status.OFF_MODEL
    save(anat / "sub-01_T1map.nii.gz", np.float32(T1 / 1000), Units="s", **about)
    save(anat / "sub-01_desc-sd_T1map.nii.gz", np.float32(T1 / 1e5), Units="s", **about)
    save(anat / "sub-01_desc-B_T1map.nii.gz", np.full(SHAPE, 1.9, np.float32), Units="1", **about)
    save(anat / "sub-01_desc-status_T1map.nii.gz", status, **about)
    save(anat / "sub-01_M0map.nii.gz", np.float32(T1), Units="arbitrary", **about)
    save(tmp_path / "labels.nii.gz", LABELS)
    return tmp_path / "out"


def test_figures_are_those_of_the_voxels_that_count(derivative: Path, tmp_path: Path) -> None:
    first, second = rimap.rois(derivative, tmp_path / "labels.nii.gz").rows
    counts = (LABELS == 1) & (np.arange(12)[:, None, None] != 2)
    assert (first["label"], second["label"], first["map"], first["unit"]) == (1, 4, "T1", "ms")
    assert first["voxels"] == (LABELS == 1).sum() and first["n"] == counts.sum()
    assert first["median"] == pytest.approx(np.median(T1[counts]), rel=1e-6)
    assert first["sd"] == pytest.approx(T1[counts].std(ddof=1), rel=1e-6)
    assert first["share_off_model"] == pytest.approx(0.25)
    assert second["share_ok"] == 1 and second["mean"] == pytest.approx(T1[LABELS == 4].mean(), rel=1e-6)


def test_other_quality_flags_count_on_request(derivative: Path, tmp_path: Path) -> None:
    row = rimap.rois(derivative, tmp_path / "labels.nii.gz", include=["off_model"]).rows[0]
    assert row["n"] == row["voxels"] and row["median"] == pytest.approx(np.median(T1[LABELS == 1]), rel=1e-6)
    with pytest.raises(InputError, match="expected one of ok"):
        rimap.rois(derivative, tmp_path / "labels.nii.gz", include=["offmodell"])


def test_maps_and_map_rois_have_the_same_figures(tmp_path: Path) -> None:
    model = rimap.InversionRecovery(tau=[50, 400, 1100, 2500], tr=6000)
    images = model.signal(np.stack([np.full(SHAPE, 100.0), np.full(SHAPE, 1.9), T1]))
    images = images + np.random.default_rng(0).standard_normal(images.shape)
    maps = rimap.NLLS(threads=1).estimate(rimap.WeightedSeries(images, model, affine=AFFINE))
    rimap.write(maps, tmp_path / "out", name="x")
    save(tmp_path / "labels.nii.gz", LABELS)
    table = rimap.rois(tmp_path / "out", tmp_path / "labels.nii.gz")
    for expected, row in zip([r for r in roi_table(maps, LABELS) if r["map"] == "T1"], table.rows, strict=True):
        assert (row["label"], row["unit"]) == (expected["label"], expected["unit"])
        for figure in (*FIGURES, *map(share_column, Status)):
            assert row[figure] == pytest.approx(expected[figure], rel=1e-9), figure


def test_rates_are_computed_and_not_mapped(derivative: Path, tmp_path: Path) -> None:
    rows = rimap.rois(derivative, tmp_path / "labels.nii.gz", rates=True, include=[Status.OFF_MODEL]).rows
    rate = next(r for r in rows if r["map"] == "R1" and r["label"] == 1)
    assert rate["unit"] == "1/s" and rate["median"] == pytest.approx(np.median(1000 / T1[LABELS == 1]), rel=1e-6)
    (r1,) = [m for m in map_images([derivative], rates=True) if m.name == "R1"]
    sd = r1.sd()
    assert sd is not None
    np.testing.assert_allclose(sd, (T1 / 100) / T1**2 * 1000, rtol=1e-5)


def test_maps_of_a_folder_by_name(derivative: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.nii.gz"

    def names(*wanted: str) -> set[str]:
        return {r["map"] for r in rimap.rois(derivative, labels, names=wanted).rows}

    assert names() == {"T1"}
    assert names("B", "sd") == {"B", "sd T1"}
    assert names("all") == {"T1", "B", "sd T1", "M0"}
    with pytest.raises(InputError, match=r"--map T3: expected one of B, M0, T1, sd T1"):
        names("T3")


@pytest.mark.parametrize(("scale", "unit"), [(1e-3, "s"), (1.0, "ms")])
def test_a_map_of_other_software_has_the_unit_that_its_values_fit(tmp_path: Path, scale: float, unit: str) -> None:
    values = np.where(LABELS == 1, T1, 0) * scale  # others write zeros where they have no value
    values[2, 2] = np.nan
    path = save(tmp_path / "my_t1.nii.gz", values.astype(np.float32))
    table = rimap.rois(path, save(tmp_path / "labels.nii.gz", LABELS))
    expected = (LABELS == 1) & ~np.isnan(values)
    assert table.rows[0]["median"] == pytest.approx(np.median(T1[expected]), rel=1e-6)
    assert table.rows[0]["unit"] == "ms" and table.rows[1]["n"] == 0
    assert any(f"rimap inferred {unit} from the values" in text for text in table.notes)
    assert any("no map of quality flags" in text for text in table.notes)


def test_a_threshold_without_probabilities_is_reported(derivative: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.nii.gz"
    assert not any("threshold" in text for text in rimap.rois(derivative, labels).notes)
    notes = rimap.rois(derivative, labels, threshold=0.9).notes
    assert any("contains whole-number labels and no probabilities: --threshold was not used" in n for n in notes)


def test_probabilities_become_regions_by_a_threshold_that_is_said(derivative: Path, tmp_path: Path) -> None:
    p = np.random.default_rng(1).uniform(0, 1, (*SHAPE, 2)).astype(np.float32)
    both = save(tmp_path / "seg_probseg.nii.gz", p)
    one = save(tmp_path / "label-GM_probseg.nii.gz", p[..., 0])
    table = rimap.rois(derivative, [both, one], threshold=0.8)
    assert [r["voxels"] for r in table.rows] == [int((p[..., n] >= 0.8).sum()) for n in (0, 1, 0)]
    assert table.rows[2]["name"] == "GM"
    assert any("0.8 or more" in text for text in table.notes)
    assert rimap.rois(derivative, one).rows[0]["voxels"] == (p[..., 0] >= 0.5).sum()
    with pytest.raises(InputError, match="above 0 and up to 1"):
        rimap.rois(derivative, one, threshold=50)


def test_labels_beside_the_map_by_pattern_and_by_folder_are_the_same(derivative: Path, tmp_path: Path) -> None:
    expected = rimap.rois(derivative, tmp_path / "labels.nii.gz").rows
    for desc, values in (("a", LABELS), ("spheresT2", LABELS * 0 + 1)):
        save(tmp_path / "seg" / "sub-01" / "anat" / f"sub-01_desc-{desc}_dseg.nii.gz", values)
    (tmp_path / "seg" / "sub-01" / "anat" / "sub-01_desc-a_dseg.nii.gz").rename(
        tmp_path / "seg" / "sub-01" / "anat" / "sub-01_desc-spheresT1_dseg.nii.gz"
    )
    save(derivative / "sub-01" / "anat" / "sub-01_dseg.nii.gz", LABELS)
    (derivative / "dseg.tsv").write_text("index\tname\n1\tputamen\n4\tcaudate\n")
    beside = rimap.rois(derivative)
    by_folder = rimap.rois(derivative, tmp_path / "seg")
    by_pattern = rimap.rois(derivative, str(tmp_path / "seg/sub-{sub}/anat/sub-{sub}_desc-spheres{map}_dseg.nii.gz"))
    for table in (beside, by_folder, by_pattern):
        assert [r["median"] for r in table.rows] == [r["median"] for r in expected]
    assert [r["name"] for r in beside.rows] == ["putamen", "caudate"]  # inherited from a folder above


def test_what_does_not_fit_is_refused_with_the_remedy(derivative: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a _dseg or _probseg image"):
        rimap.rois(derivative)
    with pytest.raises(InputError, match="Resample"):
        rimap.rois(derivative, save(tmp_path / "small.nii.gz", LABELS[:5]))
    moved = AFFINE.copy()
    moved[0, 3] = 30
    with pytest.raises(InputError, match="another affine"):
        rimap.rois(derivative, save(tmp_path / "moved.nii.gz", LABELS, moved))
    with pytest.raises(InputError, match="expected an existing file or folder"):
        rimap.rois(tmp_path / "nowhere", tmp_path / "labels.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected maps with names like"):
        rimap.rois(tmp_path / "empty", tmp_path / "labels.nii.gz")
    series = save(tmp_path / "series.nii.gz", np.zeros((*SHAPE, 3), np.float32))
    with pytest.raises(InputError, match="got 3 volumes"):
        rimap.rois(series, tmp_path / "labels.nii.gz")


def test_reference_values_give_bias_and_verdict(derivative: Path, tmp_path: Path) -> None:
    table = tmp_path / "reference.tsv"
    median = float(np.median(T1[LABELS == 4]))
    table.write_text(f"label\treference\n1\t100\n4\t{median / 1.04}\n")
    done = rimap.rois(derivative, tmp_path / "labels.nii.gz", judging=Judging(reference=table))
    assert [r["verdict"] for r in done.rows] == ["fail", "pass"]
    assert done.rows[1]["bias_percent"] == pytest.approx(4, abs=1e-4)
    strict = Judging(reference=table, tolerance_percent=3)
    assert rimap.rois(derivative, tmp_path / "labels.nii.gz", judging=strict).rows[1]["verdict"] == "fail"
    assert judged(float("nan"), 100.0, 10)["verdict"] == "no value"
    assert "1 of 2 regions with a reference value pass." in list(lines(done))


def test_spheres_of_a_phantom_by_a_word_before_the_labels(derivative: Path, tmp_path: Path) -> None:
    rows = rimap.rois(derivative, f"nist-t1:{tmp_path / 'labels.nii.gz'}").rows
    assert [r["reference"] for r in rows] == [1989, 706]  # 3 T is in the sidecar
    at_1p5 = rimap.rois(derivative, tmp_path / "labels.nii.gz", judging=Judging(reference="nist-t1", field_T=1.5))
    assert [r["reference"] for r in at_1p5.rows] == [2033, 730.8]
    with pytest.raises(InputError, match="Did you mean nist-t1"):
        rimap.rois(derivative, f"nist-1:{tmp_path / 'labels.nii.gz'}")
    with pytest.raises(InputError, match=r"at 1.5 or 3 T, got 7 T"):
        rimap.rois(derivative, tmp_path / "labels.nii.gz", judging=Judging(reference="nist-t1", field_T=7))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reference_values_fall_from_sphere_1_to_14(layout: str) -> None:
    assert LAYOUTS[layout].values
    for name, field in LAYOUTS[layout].values:
        values = list(references_of(layout_of(layout), name, field).values.values())
        assert len(values) >= 13 and values == sorted(values, reverse=True)


def test_temperature_corrects_what_is_published_and_says_what_is_not() -> None:
    layout = layout_of("nist-t1")
    plain, warm = (references_of(layout, "T1", 3.0, t) for t in (20.0, 22.0))
    assert references_of(layout, "T1", 3.0, 20.0).values == plain.values
    assert warm.values[1] / plain.values[1] == pytest.approx(1937.34 / 1883.97)
    assert "10.1002/mrm.30111" in warm.source and not warm.notes
    between = references_of(layout, "T1", 3.0, 21.0).values[1]
    assert plain.values[1] < between < warm.values[1]
    other = references_of(layout, "T2", 3.0, 22.0)
    assert other.values == references_of(layout, "T2", 3.0).values and "not corrected" in other.notes[0]
    with pytest.raises(InputError, match="expected 16 to 26"):
        references_of(layout, "T1", 3.0, 37.0)


def test_the_columns_of_regions_are_listed_once(derivative: Path, tmp_path: Path) -> None:
    row = rimap.rois(derivative, tmp_path / "labels.nii.gz").rows[0]
    shares = [share_column(s) for s in Status]
    assert list(row) == list(columns())
    assert [k for k in row if k in FIGURES or k in shares] == [*FIGURES, *shares]
    assert [k for k in group_columns() if k in FIGURES or k in shares] == [*FIGURES, *shares]


def test_command_line_writes_a_table_with_its_columns(derivative: Path, tmp_path: Path) -> None:
    def run(*args: object) -> object:
        return CliRunner().invoke(build(), ["rois", *map(str, args)])

    out = tmp_path / "regions.tsv"
    done = run(derivative, "--labels", tmp_path / "labels.nii.gz", "-o", out)
    assert done.exit_code == 0, done.output
    header, *body = out.read_text().splitlines()
    assert header.split("\t") == list(json.loads(out.with_suffix(".json").read_text())) and len(body) == 2
    again = run(derivative, "--labels", tmp_path / "labels.nii.gz", "-o", out)
    assert again.exit_code == 2 and "--overwrite" in again.output
    whole = run(derivative, "--labels", tmp_path / "labels.nii.gz", "-o", tmp_path / "all.json")
    assert whole.exit_code == 0 and len(json.loads((tmp_path / "all.json").read_text())["rows"]) == 2
    assert run(derivative, "--labels", tmp_path / "labels.nii.gz", "-o", tmp_path / "x.csv").exit_code == 2


def test_nist_is_the_array_whose_values_fit_best(tmp_path: Path) -> None:
    array = references_of(layout_of("nist-t2"), "T2", 3.0).values
    labels = np.zeros((15, 4, 1), np.uint8)
    times = np.full(labels.shape, 2500.0)
    for n, value in array.items():
        labels[n], times[n] = n, 1.06 * value
    path = save(tmp_path / "x_T2map.nii.gz", np.float32(times / 1000), Units="s", MagneticFieldStrength=2.89)
    table = rimap.rois(path, f"nist:{save(tmp_path / 'spheres.nii.gz', labels)}")
    assert {r["verdict"] for r in table.rows} == {"pass"} and any("T2 array" in text for text in table.notes)
    wrong = rimap.rois(path, tmp_path / "spheres.nii.gz", judging=Judging(reference="nist-t1"))
    assert any("Check that the references" in text for text in wrong.notes)


def test_a_table_of_references_can_be_for_one_map(derivative: Path, tmp_path: Path) -> None:
    table = tmp_path / "reference.tsv"
    table.write_text("map\tlabel\treference\nT1\t1\t1000\nB\t1\t2\n")
    rows = rimap.rois(
        derivative, tmp_path / "labels.nii.gz", names=["T1", "B", "M0"], judging=Judging(reference=table)
    ).rows
    found = {r["map"]: r["reference"] for r in rows if r["label"] == 1}
    assert found["T1"] == 1000 and found["B"] == 2 and np.isnan(found["M0"])


def test_two_reference_values_for_one_label_are_refused(derivative: Path, tmp_path: Path) -> None:
    table = tmp_path / "reference.tsv"
    table.write_text("label\treference\n1\t1000\n4\t900\n1\t1100\n")
    with pytest.raises(InputError, match="one reference value for each label, got two different ones for 1"):
        rimap.rois(derivative, tmp_path / "labels.nii.gz", judging=Judging(reference=table))


def test_the_edges_of_a_voxel_are_in_mm_whatever_the_unit_of_the_header(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.float32(T1), AFFINE @ np.diag([1e-3, 1e-3, 1e-3, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a_T1map.nii.gz")
    (found,) = map_images([tmp_path / "a_T1map.nii.gz"])
    affine, edges = found.geometry()
    assert affine is not None
    np.testing.assert_allclose(edges, (2, 2, 4), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), edges, rtol=1e-6)


def test_a_map_without_labels_does_not_stop_the_others(derivative: Path, tmp_path: Path) -> None:
    anat = derivative / "sub-02" / "anat"
    save(anat / "sub-02_T1map.nii.gz", np.float32(T1 / 1000), Units="s")
    save(derivative / "sub-01" / "anat" / "sub-01_dseg.nii.gz", LABELS)
    table = rimap.rois(derivative)
    assert {r["participant_id"] for r in table.rows} == {"sub-01"}
    assert table.refused[0][0] == "sub-02_T1map" and "expected a _dseg or _probseg image" in table.refused[0][1]
    done = CliRunner().invoke(build(), ["rois", str(derivative), "-o", str(tmp_path / "x.tsv")])
    assert done.exit_code == 2 and "1 of 2 maps could not be measured" in done.output and (tmp_path / "x.tsv").exists()


@pytest.mark.parametrize(("factor", "words"), [(1e-3, "1,000 times smaller"), (1e3, "1,000 times larger")])
def test_reference_values_in_another_unit_are_refused(
    derivative: Path, tmp_path: Path, factor: float, words: str
) -> None:
    table = tmp_path / "reference.tsv"
    table.write_text(f"label\treference\n1\t{900 * factor}\n4\t{1100 * factor}\n")
    with pytest.raises(InputError, match=rf"expected reference values in ms, .* about {words}"):
        rimap.rois(derivative, tmp_path / "labels.nii.gz", judging=Judging(reference=table))


def test_options_that_would_be_without_effect_are_reported(derivative: Path, tmp_path: Path) -> None:
    labels, file = tmp_path / "labels.nii.gz", derivative / "sub-01" / "anat" / "sub-01_T1map.nii.gz"
    assert any(
        "--reference" in text for text in rimap.rois(derivative, labels, judging=Judging(temperature_C=22)).notes
    )
    assert not any("--reference" in text for text in rimap.rois(derivative, labels).notes)
    with pytest.raises(InputError, match=r"--map R1: expected folders .* got sub-01_T1map \(T1\)"):
        rimap.rois(file, labels, names=["R1"])
    assert {row["map"] for row in rimap.rois(file, labels, names=["R1"], rates=True).rows} == {"T1", "R1"}
    with pytest.raises(InputError, match="Did you mean nist-t1"):
        rimap.rois(file, labels, judging=Judging(reference="nist-t1x"))


@pytest.mark.parametrize(
    ("name", "value", "unit", "told"),
    [
        ("T1map", 900.0, "s", "the median of T1 is 900000 ms, which no tissue has"),
        ("T1map", 0.9, "ms", "the median of T1 is 0.9 ms, which no tissue has"),
        ("T2map", 0.08, "ms", "the median of T2 is 0.08 ms, which no tissue has"),
        ("R1map", 0.001, "1/s", "the median of R1 is 0.001 1/s, which no tissue has"),
        ("T1map", 0.9, "s", ""),
        ("T2map", 0.08, "s", ""),
        ("R1map", 1.1, "1/s", ""),
    ],
)
def test_a_map_in_another_unit_than_its_sidecar_says_is_reported(
    tmp_path: Path, name: str, value: float, unit: str, told: str
) -> None:
    path = save(tmp_path / f"sub-01_{name}.nii.gz", np.full((4, 4, 3), value, "f4"), Units=unit)
    labels = save(tmp_path / "labels.nii.gz", np.ones((4, 4, 3), np.uint8))
    notes = " ".join(rimap.rois(path, labels).notes)
    assert told in notes and ("which no tissue has" in notes) == bool(told)


def test_two_names_for_one_region_are_refused(tmp_path: Path, derivative: Path) -> None:
    labels = save(tmp_path / "labels.nii.gz", np.ones(SHAPE, np.uint8))
    labels.with_name("labels.tsv").write_text("index\tname\n1\tGM\n1\tWM\n")
    with pytest.raises(InputError, match="expected one name for each index, got 'GM' and 'WM' for 1"):
        rimap.rois(derivative, labels)


def test_labels_of_a_series_with_a_longer_name_are_not_those_of_another(tmp_path: Path) -> None:
    for stem in ("leg", "leg2"):
        save(tmp_path / f"{stem}_T1map.nii.gz", np.float32(T1), Units="ms")
    save(tmp_path / "leg2_dseg.nii.gz", LABELS)
    save(tmp_path / "other_dseg.nii.gz", LABELS)
    assert {row["series"] for row in rimap.rois(tmp_path / "leg2_T1map.nii.gz").rows} == {"leg2_T1map"}
    with pytest.raises(InputError, match="expected one _dseg or _probseg image next to the map, got 2"):
        rimap.rois(tmp_path / "leg_T1map.nii.gz")
