"""The spheres of a phantom are found wherever they are, and what is not a phantom is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

import rimap
from rimap import InputError
from rimap.cli import build
from rimap.evaluation.references import LAYOUTS, layout_of, references_of
from rimap.evaluation.spheres import INNER_MM, RING_MM, Array, find_array
from rimap.workflow.rois import Judging

WATER = 2600.0
EDGES = (1.3, 1.3, 5.0)
T1 = references_of(layout_of("nist-t1"), "T1", 3.0).values
_rng = np.random.default_rng(5)


def true_centres(turn: float, middle: tuple[float, float], mirrored: bool = False) -> np.ndarray:
    """Centres (14, 2) in mm: a ring of ten, 36° apart, and a square of four, turned by 45°."""
    angle = np.radians(turn + np.array([*(-36 * np.arange(10)), 45, -45, -135, -225]))
    radius = np.array([RING_MM] * 10 + [INNER_MM] * 4)
    xy = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return xy * ([-1, 1] if mirrored else [1, 1]) + middle


def phantom_map(
    values: dict[int, float] = T1,
    *,
    turn: float = 95.0,
    mirrored: bool = False,
    middle: tuple[float, float] = (125.0, 122.0),
    shape: tuple[int, int] = (192, 192),
    edges: tuple[float, float] = EDGES[:2],
    without: tuple[int, ...] = (),
    noise: float = 0.05,
) -> tuple[np.ndarray, np.ndarray]:
    """A map (X, Y, 1) of times in ms and the centres (14, 2) of its spheres as indices."""
    places = np.stack(np.meshgrid(*((np.arange(n) + 0.5) * e for n, e in zip(shape, edges)), indexing="ij"), -1)
    centres = true_centres(turn, middle, mirrored)
    times = np.where(np.linalg.norm(places - middle, axis=-1) < 85, WATER, np.nan)
    for n, c in enumerate(centres, start=1):
        distance = np.linalg.norm(places - c, axis=-1)
        if n not in without:
            times[distance < 9] = np.nan  # the wall
            times[distance < 7.5] = values.get(n, WATER)
    times = times * np.exp(noise * np.random.default_rng(0).standard_normal(times.shape))
    return times[..., None], centres / np.array(edges) - 0.5


def off_mm(array: Array, centres: np.ndarray, edges: tuple[float, float] = EDGES[:2]) -> np.ndarray:
    found = np.array([s.centre[:2] for s in array.spheres])
    return np.linalg.norm((found - centres) * edges, axis=1)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", _rng.uniform(0, 360, 4).round())
def test_any_turn_and_side(turn: float, mirrored: bool) -> None:
    times, centres = phantom_map(turn=turn, mirrored=mirrored)
    array = find_array(times, EDGES, T1)
    assert array.seen == 14 and off_mm(array, centres).max() < 1.0
    medians = [float(np.nanmedian(times[s.inside])) for s in array.spheres]
    np.testing.assert_allclose(medians, list(T1.values()), rtol=0.06)


@pytest.mark.parametrize(
    ("shape", "edges"),
    [((96, 96), (2.6, 2.6)), ((400, 400), (0.62, 0.62)), ((192, 96), (1.3, 2.6)), ((64, 64), (4.0, 4.0))],
)
def test_any_matrix(shape: tuple[int, int], edges: tuple[float, float]) -> None:
    times, centres = phantom_map(shape=shape, edges=edges, turn=200.0)
    array = find_array(times, (*edges, 5.0), T1)
    assert array.seen == 14 and off_mm(array, centres, edges).max() < max(edges)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_is_searched_for_its_slice(axis: int) -> None:
    times, centres = phantom_map(turn=20.0)
    rng = np.random.default_rng(1)
    volume = np.full((192, 192, 9), np.nan)
    volume[..., 6:7] = times
    volume[..., 2] = WATER * np.exp(0.3 * rng.standard_normal((192, 192)))
    edges = np.insert([1.3, 1.3], axis, 5.0)
    array = find_array(np.moveaxis(volume, 2, axis), edges, T1, (2, 1, 0))
    assert (array.axis, array.index, array.seen) == (axis, 6, 14)
    found = np.delete([s.centre for s in array.spheres], axis, axis=1)
    assert (np.linalg.norm(found - centres, axis=1) < 1).all()


def test_missing_and_cropped_spheres_are_said_and_not_measured() -> None:
    times, centres = phantom_map(without=(2, 9, 13))
    array = find_array(times, EDGES, T1)
    assert [s.number for s in array.spheres if s.problem.startswith("not seen")] == [2, 9, 13]
    assert off_mm(array, centres)[[0, 3, 5, 11]].max() < 1
    times, centres = phantom_map()
    cut = times[72:]
    array = find_array(cut, EDGES, T1)
    outside = {s.number for s in array.spheres if s.problem == "outside the image"}
    assert outside == {n for n, c in enumerate(centres, start=1) if c[0] - 72 < 3.5 / 1.3 - 0.5} and outside
    assert not set(np.unique(array.labels(cut.shape))) & outside


@pytest.mark.parametrize("factor", [0.75, 1.35])
def test_a_common_bias_does_not_turn_the_array(factor: float) -> None:
    times, centres = phantom_map(turn=10.0)
    array = find_array(times * factor, EDGES, T1)
    assert off_mm(array, centres).max() < 1 and array.placement.bias == pytest.approx(np.log(factor), abs=0.1)


def _brain() -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((192, 192)), 4)
    return np.where(smooth > smooth.mean(), 850.0, 1400.0)


NOT_A_PHANTOM = {
    "nothing": np.full((192, 192), np.nan),
    "one value": np.full((192, 192), 900.0),
    "noise": np.random.default_rng(1).uniform(10, 3000, (192, 192)),
    "smooth": np.exp(6 + 40 * ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((192, 192)), 5)),
    "tissue": _brain(),
    "zeros": np.zeros((192, 192)),
    "small": np.full((12, 10), 800.0),
}


@pytest.mark.parametrize("name", NOT_A_PHANTOM)
def test_what_is_not_a_phantom_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no array of spheres was found"):
        find_array(NOT_A_PHANTOM[name][..., None], EDGES, T1)


def test_half_an_array_and_seconds_are_refused() -> None:
    times, _ = phantom_map()
    for wrong in (times[100:], times / 1000):
        with pytest.raises(InputError, match="no array of spheres was found"):
            find_array(wrong, EDGES, T1)


def save(path: Path, times: np.ndarray, field: float | None = 3.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.float32(times / 1000), np.diag([*EDGES, 1.0])), path)
    about = {"Units": "s"} | ({"MagneticFieldStrength": field} if field else {})
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    return path


def test_the_array_is_found_out_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    T2 = references_of(layout_of("nist-t2"), "T2", 3.0).values
    path = save(tmp_path / "sub-x_T2map.nii.gz", phantom_map(T2)[0])
    run = rimap.phantom(path)
    assert run.measured[0].layout.name == "nist-t2" and {r["verdict"] for r in run.rows} == {"pass"}
    with pytest.raises(InputError, match="Use --layout nist-t2"):
        rimap.phantom(path, "nist-t1")
    with pytest.raises(InputError, match=r"expected an array .* Did you mean nist-t2"):
        rimap.phantom(path, "nist2")
    with pytest.raises(InputError, match="--field-strength"):
        rimap.phantom(save(tmp_path / "sub-y_T2map.nii.gz", phantom_map(T2)[0], None), "nist-t2")


def test_the_label_image_gives_the_same_values_in_rois(tmp_path: Path) -> None:
    path = save(tmp_path / "maps" / "sub-x_T1map.nii.gz", phantom_map(turn=33.0)[0])
    done = CliRunner().invoke(build(), ["phantom", str(path), "-o", str(tmp_path / "qa")])
    assert done.exit_code == 0 and "14 of 14 spheres within 10 % of the reference." in done.output
    with (tmp_path / "qa" / "phantom.tsv").open() as file:
        spheres = list(csv.DictReader(file, delimiter="\t"))
    assert list(spheres[0]) == list(json.loads((tmp_path / "qa" / "phantom.json").read_text()))
    labels = tmp_path / "qa" / "sub-x_T1map_spheres_dseg.nii.gz"
    table = rimap.rois(path, labels, judging=Judging(reference="nist-t1"))
    assert [r["median"] for r in table.rows] == pytest.approx([float(r["median"]) for r in spheres], rel=1e-5)
    page = (tmp_path / "qa" / "phantom.html").read_text()
    assert (
        page.count('class="ring') == 14 and str(tmp_path) not in page and "http" not in page.replace("http-equiv", "")
    )
    again = CliRunner().invoke(build(), ["phantom", str(path), "-o", str(tmp_path / "qa")])
    assert again.exit_code == 2 and "--overwrite" in again.output


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_a_map_of_any_name_and_unit_with_a_named_array(tmp_path: Path, scale: float) -> None:
    path = tmp_path / "scan42.nii.gz"
    nib.save(nib.Nifti1Image(np.float32(np.nan_to_num(phantom_map()[0]) * scale), np.diag([*EDGES, 1.0])), path)
    run = rimap.phantom(path, "nist-t1", judging=Judging(field_T=3.0))
    assert {r["verdict"] for r in run.rows} == {"pass"} and any(
        "rimap assumes a map of T1" in text for text in run.notes
    )
    with pytest.raises(InputError, match="Choose the array with --layout"):
        rimap.phantom(path)


def test_drift_over_dates(tmp_path: Path) -> None:
    for day, factor in (("20240131", 1.0), ("20230131", 0.98), ("20240801", 1.01)):
        times, _ = phantom_map()
        save(tmp_path / "out" / "sub-nist" / f"ses-{day}" / "anat" / f"sub-nist_ses-{day}_T1map.nii.gz", times * factor)
    run = rimap.phantom(tmp_path / "out")
    assert [m.date.isoformat() for m in run.measured if m.date] == ["2023-01-31", "2024-01-31", "2024-08-01"]
    row = run.drift[4]
    assert row["maps"] == 3 and row["change_percent"] == pytest.approx(100 * 0.03 / 0.9967, rel=0.05)
    assert row["trend_percent_per_year"] == pytest.approx(2.0, abs=0.2)
    assert row["median_1"] < row["median_2"] < row["median_3"]


def test_drift_is_that_of_one_phantom(tmp_path: Path) -> None:
    """Drift is computed for each of two phantoms with two dates each; phantoms that were measured once are compared."""
    for subject, session, factor in (("a", "20240201", 1.03), ("a", "20240101", 1.0), ("b", "1", 1.1), ("b", "2", 1.1)):
        times, _ = phantom_map()
        name = f"sub-{subject}_ses-{session}_T1map.nii.gz"
        save(tmp_path / "out" / f"sub-{subject}" / f"ses-{session}" / "anat" / name, times * factor)
    out = tmp_path / "qa"
    done = CliRunner().invoke(build(), ["phantom", str(tmp_path / "out"), "-o", str(out)])
    assert done.exit_code == 0 and "sub-b nist-t1" in done.output
    with (out / "phantom_drift.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    about = json.loads((out / "phantom_drift.json").read_text())
    assert list(rows[0]) == list(about) and len(rows) == 28
    changes = {r["participant_id"]: float(r["change_percent"]) for r in rows if r["label"] == "5"}
    assert changes["sub-a"] == pytest.approx(2.956, abs=0.1)  # in the order of the dates, although sub-b has none
    assert changes["sub-b"] == 0
    assert about["median_2"]["Description"] == "Median in sub-a_ses-20240201_T1map or sub-b_ses-2_T1map"
    assert "sub-a, nist-t1, T1: bias" in (out / "phantom.html").read_text()
    once = [next((tmp_path / "out" / f"sub-{s}").rglob("*_T1map.nii.gz")) for s in "ab"]
    between = CliRunner().invoke(build(), ["phantom", *map(str, once), "-o", str(out)])
    assert between.exit_code == 2 and "--overwrite" in between.output
    assert {r["participant_id"] for r in rimap.phantom(once).drift} == {""}
    alone = CliRunner().invoke(build(), ["phantom", str(once[0]), "-o", str(out), "--overwrite"])
    assert alone.exit_code == 0 and not (out / "phantom_drift.tsv").exists()
    assert [path.name for path in out.glob("*_dseg.nii.gz")] == [
        once[0].name.replace(".nii.gz", "_spheres_dseg.nii.gz")
    ]


def test_a_map_without_spheres_among_others_is_left_out_and_said(tmp_path: Path) -> None:
    good = save(tmp_path / "a_T1map.nii.gz", phantom_map()[0])
    bad = save(tmp_path / "b_T1map.nii.gz", NOT_A_PHANTOM["noise"][..., None])
    run = rimap.phantom([good, bad])
    assert len(run.measured) == 1 and run.refused[0][0] == "b_T1map"
    with pytest.raises(InputError, match="no array of spheres"):
        rimap.phantom(bad)


def most_symmetric(image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the point (2,) around which an image of 1.3 mm varies least along circles of up to 10 mm."""
    angle, radius = np.linspace(0, 2 * np.pi, 48, endpoint=False), np.arange(0.5, 10, 1.0) / EDGES[0]
    circles = radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    spline = ndimage.spline_filter(image)

    def asymmetry(centre: np.ndarray) -> float:
        values = ndimage.map_coordinates(spline, np.moveaxis(centre + circles, -1, 0), prefilter=False)
        within = (radius[:, None] * (values - values.mean(axis=1, keepdims=True)) ** 2).sum()
        return float(
            within
            / (
                radius[:, None]
                * (values - np.average(values, weights=np.repeat(radius, 48).reshape(values.shape))) ** 2
            ).sum()
        )

    steps = np.arange(-2, 2.01, 0.2)
    points = [near + np.array([x, y]) for x in steps for y in steps]
    return points[int(np.argmin([asymmetry(point) for point in points]))]


_SCANS = (
    ("sub-philips3TplateT1", "T1"),
    ("sub-philips3TplateT1", "T2"),
    ("sub-philips3TplateT2", "T2"),
    ("sub-siemens1p5TplateT1", "T1"),
    ("sub-siemensSignedplateT1", "T1"),
)


@pytest.mark.parametrize(("subject", "name"), _SCANS)
def test_real_spheres_are_where_their_labels_are(shared_data: Path, subject: str, name: str) -> None:
    """The labels of these scans are a registered template, rounded to voxels; the images are the better reference."""
    folder = shared_data / "nist_phantom"
    image = nib.load(folder / f"derivatives/rois/{subject}/anat/{subject}_desc-spheres{name}_dseg.nii.gz")
    labels = np.asarray(image.dataobj)
    kind = "ir" if name == "T1" else "t2"
    series = rimap.read(folder / subject, sequence=kind)
    maps = rimap.NLLS(threads=1).estimate(series)
    layout = "nist-t2" if "plateT2" in subject else "nist-t1"
    field = 3.0 if "3T" in subject else 1.5
    array = find_array(maps[name], (*image.header.get_zooms(),), references_of(LAYOUTS[layout], name, field).values)
    centres = np.array([np.argwhere(labels == n).mean(0)[:2] for n in range(1, 15)])
    apart = np.array([s.centre[:2] for s in array.spheres]) - centres
    # The image at 200 ms of one scan is clipped in spheres 11 and 12 (210 voxels have its largest value): they have no
    # T1.
    without = [n for n in range(1, 15) if not np.isfinite(maps[name].reshape(labels.shape)[labels == n]).any()]
    assert without == ([11, 12] if (subject, name) == ("sub-philips3TplateT1", "T1") else [])
    assert array.seen == 14 - len(without)
    assert all((s.number in without) == bool(s.problem) for s in array.spheres)
    assert np.abs(apart).max() < 1.15 and np.linalg.norm(apart, axis=1).mean() < 0.8
    image = np.abs(np.asarray(series.images[-1 if name == "T1" else 1], float)).reshape(labels.shape)[..., 0]
    for sphere, label in zip(array.spheres, centres):
        if np.linalg.norm(np.array(sphere.centre[:2]) - label) > 1:
            seen = most_symmetric(image, (label + sphere.centre[:2]) / 2)
            assert np.linalg.norm(seen - sphere.centre[:2]) < 0.5 < np.linalg.norm(seen - label), sphere.number


def test_thin_slices_are_measured_in_a_ball() -> None:
    """Slices of 1.5 mm: spheres span ten of them, and the middle one is taken."""
    _, centres = phantom_map(shape=(170, 170), edges=(1.5, 1.5), turn=40.0)
    volume = np.full((170, 170, 30), np.nan)
    z = (np.arange(30) - 17.0) * 1.5
    for k in range(30):
        places = np.stack(np.meshgrid(*((np.arange(170) + 0.5) * 1.5,) * 2, indexing="ij"), -1)
        volume[..., k] = np.where(np.linalg.norm(places - (125.0, 122.0), axis=-1) < 85, WATER, np.nan)
        for n, c in enumerate(centres, start=1):
            distance = np.hypot(np.linalg.norm(places - (c + 0.5) * 1.5, axis=-1), z[k])
            volume[distance < 7.5, k] = T1[n]
    array = find_array(volume, (1.5, 1.5, 1.5), T1)
    assert array.seen == 14 and abs(array.index - 17) <= 1 and off_mm(array, centres, (1.5, 1.5)).max() < 1.5
    assert len(np.unique(array.spheres[0].inside[2])) >= 3
    assert [float(np.median(volume[s.inside])) for s in array.spheres] == pytest.approx(list(T1.values()))


def test_each_reason_of_several_maps_is_said(tmp_path: Path) -> None:
    """Maps without a field strength, and one of no phantom."""
    save(tmp_path / "a_T1map.nii.gz", phantom_map()[0], field=None)
    save(tmp_path / "b_T1map.nii.gz", phantom_map()[0], field=None)
    save(tmp_path / "c_T1map.nii.gz", phantom_map()[0], field=7.0)
    with pytest.raises(InputError) as error:
        rimap.phantom(tmp_path, "nist-t1")
    told = str(error.value)
    assert "none of 3 maps could be measured" in told
    assert "a_T1map, b_T1map: nist-t1 has values at" in told and told.count("--field-strength") == 1
    assert "c_T1map: nist-t1 has values of T1 at 1.5 or 3 T, got 7 T" in told
