"""What the measurement of a phantom leaves: the columns of its table, its files, and its text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rimap.errors import count_of
from rimap.io.atomic import Content, as_bytes
from rimap.io.bids import strip_nii
from rimap.io.map_images import MapImage
from rimap.io.nifti_bytes import nifti_file
from rimap.io.provenance import to_json
from rimap.workflow.drift import drift_columns
from rimap.workflow.phantom import PhantomRun
from rimap.workflow.region_names import tsv
from rimap.workflow.rois import columns as columns_of_regions
from rimap.workflow.rois import told
from rimap.workflow.tables import write_new

#: Files that every run has: the page, the table and what its columns are.
FIXED = ("phantom.html", "phantom.tsv", "phantom.json")
#: Label images of any run.
_LABELS = "*_spheres*_dseg.nii.gz"
#: Files of runs with several maps of one array.
_OF_SEVERAL = ("phantom_drift.tsv", "phantom_drift.json")


def columns() -> dict[str, dict[str, str]]:
    """Return the descriptions of the columns of the table of spheres."""
    about = columns_of_regions(judged=True)
    for name in ("regions", "name"):
        del about[name]
    about["label"] = {"Description": "Number of the sphere"}
    about["verdict"] = {
        "Description": "pass if the bias is within the tolerance, fail if not, no value if no voxel counts, or why the "
        "sphere was not measured"
    }
    ordered_about: dict[str, dict[str, str]] = {}
    for name, text in about.items():
        if name == "label":
            ordered_about["array"] = {"Description": "Array of spheres"}
        ordered_about[name] = text
        if name == "label":
            for axis in "ijk":
                ordered_about[axis] = {
                    "Description": f"Index of the centre of the sphere along axis {axis} of the map, from 0"
                }
    return ordered_about


def files_of(run: PhantomRun, out: Path, command: str = "") -> dict[Path, Content]:
    """Return the files of a run by path: tables, a page, and a label image of the spheres of each map."""
    from rimap.report.phantom import page

    files: dict[Path, Content] = {
        out / "phantom.tsv": as_bytes(tsv(run.rows)),
        out / "phantom.json": to_json(columns()),
    }
    if drift := run.drift:
        files[out / "phantom_drift.tsv"] = as_bytes(tsv(drift))
        files[out / "phantom_drift.json"] = to_json(drift_columns(run.groups))
    for m in run.measured:
        header = m.map.file()
        files[out / _label_name(m.map, run)] = partial(nifti_file, m.array.labels(header.shape), header.header)
    files[out / "phantom.html"] = as_bytes(page(run, command=command))
    return files


def write(run: PhantomRun, out: Path | str, command: str = "", *, overwrite: bool = False) -> list[Path]:
    """Write tables, a page, and a label image of the spheres of each map into a folder, as `write_new` does.

    With `overwrite`, label images of an earlier run are removed, also those of maps that this run does not have.
    """
    out = Path(out)
    earlier = [out / name for name in _OF_SEVERAL]
    if (out / FIXED[0]).exists():
        earlier += sorted(out.glob(_LABELS))
    return write_new(files_of(run, out, command), overwrite=overwrite, remove=earlier)


def _label_name(m: MapImage, run: PhantomRun) -> str:
    """Return the name of the label image of a map. Maps with the same name in several folders are numbered."""
    same = [x.map.path for x in run.measured if strip_nii(x.map.path) == strip_nii(m.path)]
    number = f"-{same.index(m.path) + 1}" if len(same) > 1 else ""
    return f"{strip_nii(m.path)}_spheres{number}_dseg.nii.gz"


def lines(run: PhantomRun) -> Iterator[str]:
    """Yield the run for a terminal: a table of spheres for each map, and of their changes if there are several."""
    from rimap.report.number_formats import number

    for m in run.measured:
        when = f", {m.date.isoformat()}" if m.date else ""
        yield f"{m.map.label}: {m.map.name}, ms, {m.layout.name}{when}"
        yield f"  {'sphere':>6}{'i':>8}{'j':>8}{'k':>6}{'n':>6}{'median':>9}{'IQR':>8}{'reference':>11}{'bias':>9}"
        for r in m.rows:
            bias = "–" if r["bias_percent"] != r["bias_percent"] else f"{r['bias_percent']:+.1f} %"
            where = f"{r['i']:>8.1f}{r['j']:>8.1f}{r['k']:>6.0f}"
            figures = (
                f"{r['n']:>6}{number(r['median'], 4):>9}{number(r['iqr']):>8}{number(r['reference'], 4):>11}{bias:>9}"
            )
            yield f"  {r['label']:>6}{where}{figures}  {r['verdict']}".rstrip()
    if drift := run.drift:
        yield "Changes over the maps, % of the mean"
        arrays = [f"{r['participant_id']} {r['array']}".strip() for r in drift]
        width = max(map(len, arrays)) + 2
        titles = f"{'map':<5}{'sphere':>6}{'maps':>6}{'mean, ms':>10}{'spread':>9}{'change':>9}{'per year':>10}"
        yield f"  {'array':<{width}}{titles}"
        for array, r in zip(arrays, drift):
            shown = "".join(
                f"{'–' if r[c] != r[c] else format(r[c], '+.2f' if c != 'spread_percent' else '.2f'):>{w}}"
                for c, w in (("spread_percent", 9), ("change_percent", 9), ("trend_percent_per_year", 10))
            )
            yield f"  {array:<{width}}{r['map']:<5}{r['label']:>6}{r['maps']:>6}{number(r['mean'], 4):>10}{shown}"
    verdicts = [row["verdict"] for row in run.rows]
    yield (
        f"{verdicts.count('pass')} of {count_of(len(verdicts), 'sphere')} within {run.tolerance_percent:g} % of the "
        "reference."
    )
    yield from told([f"{label} was left out. {reason}" for label, reason in run.refused])
    yield from told(run.notes)
