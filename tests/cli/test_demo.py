"""The demonstration: from nothing to maps that are right."""

import csv
import re


def test_demo_maps_what_it_simulated(rimap, tmp_path):
    result = rimap("demo", "--estimator", "nlls")
    assert result.exit_code == 0, result.output
    root = tmp_path / "rimap-demo"
    assert (root / "maps" / "sub-01" / "anat" / "sub-01_T1map.nii.gz").is_file()
    assert (root / "maps" / "sub-01_T1map.html").is_file()
    assert "sub-01_T1map.html" in result.stdout and "rimap map " in result.stdout
    truth = {
        name: float(T1.replace(",", ""))
        for name, T1 in re.findall(r"(\w+) ([\d,]+) ms", result.stdout.split("Simulated median T1:")[1])
    }
    with (root / "maps" / "sub-01_T1map_rois.tsv").open() as file:
        found = {row["name"]: float(row["median"]) for row in csv.DictReader(file, delimiter="\t")}
    assert set(found) == set(truth) >= {"GM", "WM", "CSF"}
    for tissue in ("GM", "WM", "CSF"):
        assert abs(found[tissue] / truth[tissue] - 1) < 0.03
    assert rimap("demo", "--estimator", "nlls").exit_code == 0  # again, into the same folder


def test_demo_writes_over_nothing_else(rimap, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    result = rimap("demo", "mine")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
