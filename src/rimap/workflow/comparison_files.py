"""What a comparison leaves: the columns of its table, its files, and its text for a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rimap.errors import InputError
from rimap.io.atomic import Content, as_bytes
from rimap.io.bids import read_json, strip_nii
from rimap.io.nifti_bytes import nifti_file
from rimap.io.provenance import to_json
from rimap.map_display import shown_name
from rimap.workflow.compare import Comparison, Row
from rimap.workflow.region_names import tsv
from rimap.workflow.rois import told
from rimap.workflow.tables import write_new

#: Files that every comparison has: the page, the table and what its columns are.
FIXED = ("compare.html", "compare.tsv", "compare.json")
#: What the sidecars of difference maps say.
_OF_COMPARISON = "of the second source minus the first"
#: Rows that are printed; the table in the folder has all.
_MOST_ROWS = 120


def columns() -> dict[str, dict[str, str]]:
    """Return the descriptions of the columns of the table."""
    return {
        "level": {
            "Description": "What is repeated: voxels of a region in one pair, medians of the regions of one pair "
            "(regions), voxels of a region in all repeats of "
            "a subject (repeats), or medians of a region over subjects"
        },
        "first": {"Description": "First map; differences are second minus first"},
        "second": {"Description": "Second map"},
        "map": {"Description": "What the maps show"},
        "unit": {"Description": "Unit of the figures"},
        "label": {"Description": "Region: its label; whole: all voxels that both maps describe"},
        "name": {"Description": "Name of the region"},
        "n": {"Description": "Number of voxels, regions or subjects with a value in all repeats"},
        "repeats": {"Description": "Number of repeats"},
        "median_first": {"Description": "Median of the first map"},
        "median_second": {"Description": "Median of the second map"},
        "bias": {"Description": "Mean difference"},
        "bias_percent": {"Description": "Mean difference relative to the mean", "Units": "%"},
        "sd_difference": {"Description": "Standard deviation of the differences"},
        "limit_low": {"Description": "Lower limit of agreement: bias minus 1.96 SD of the differences (Bland & Altman "
        "1986, doi:10.1016/S0140-6736(86)90837-8)"},
        "limit_high": {"Description": "Upper limit of agreement"},
        "within_sd": {"Description": "Within-subject standard deviation: root of the mean variance over the repeats "
        "(Bland & Altman 1999, doi:10.1177/096228029900800204)"},
        "within_cv_percent": {"Description": "Within-subject coefficient of variation: root mean square of SD over "
        "mean (Raunig et al. 2015, doi:10.1177/0962280214537344)", "Units": "%"},
        "repeatability_coefficient": {"Description": "1.96 √2 times the within-subject SD: 95 % of pairs of repeats "
        "differ by less"},
        "icc": {"Description": "ICC(A,1): two-way random effects, absolute agreement, one measurement (McGraw & Wong "
        "1996, doi:10.1037/1082-989X.1.1.30)"},
        "z_n": {"Description": "Voxels with standard deviations in both maps"},
        "z_mean": {"Description": "Mean of z, the difference over the root of the sum of both variances"},
        "z_sd": {"Description": "Standard deviation of z: 1 if the standard deviations are calibrated"},
        "z_robust_sd": {"Description": "Interquartile range of z over that of a normal distribution"},
        "z_share_95": {"Description": "Share of voxels with |z| below 1.96; 0.95 if calibrated", "Units": "1"},
    }  # fmt: skip


def _earlier(out: Path) -> list[Path]:
    """Return the maps that an earlier comparison has left in a folder: those whose sidecars have its description."""
    found: list[Path] = []
    for kind in ("difference", "z"):
        for sidecar in sorted(out.glob(f"*_{kind}.json")):
            with contextlib.suppress(InputError):
                if _OF_COMPARISON in str(read_json(sidecar).get("Description")):
                    found += [sidecar, sidecar.with_suffix(".nii.gz")]
    return found


def files_of(found: Comparison, out: Path, command: str = "") -> dict[Path, Content]:
    """Return the files of a comparison by path: the table, a page, and maps of the differences and of z."""
    from rimap.report.comparison import page

    files: dict[Path, Content] = {
        out / "compare.tsv": as_bytes(tsv(found.rows)),
        out / "compare.json": to_json(columns()),
    }
    for n, pair in enumerate(found.pairs, start=1):
        header = pair.first.file().header
        number = f"_pair-{n}" if len(found.pairs) > 1 else ""
        stem = f"{strip_nii(pair.second.path)}{number}"
        sources = [pair.first.path.name, pair.second.path.name]
        difference = (pair.values[1] - pair.values[0]) / pair.first.scale
        unit = pair.first.unit_of_file
        what = f"{shown_name(pair.first.name)} {_OF_COMPARISON}"
        images = [("difference", difference, unit, what)]
        if pair.z is not None:
            images.append(("z", pair.z, "1", f"{what}, over the root of the sum of both variances"))
        for kind, values, units, about in images:
            files[out / f"{stem}_{kind}.nii.gz"] = partial(nifti_file, values, header)
            files[out / f"{stem}_{kind}.json"] = to_json(
                {"Description": about, **({"Units": units} if units else {}), "Sources": sources}
            )
    files[out / "compare.html"] = as_bytes(page(found, command=command))
    return files


def write(found: Comparison, out: Path | str, command: str = "", *, overwrite: bool = False) -> list[Path]:
    """Write the table, the page, and the maps of differences and z into a folder, as `write_new` does."""
    files = files_of(found, Path(out), command)
    return write_new(files, overwrite=overwrite, remove=[path for path in _earlier(Path(out)) if path not in files])


def lines(found: Comparison) -> Iterator[str]:
    """Yield the comparison for a terminal."""
    from rimap.report.number_formats import number

    width = min(max([8, *(len(_region(row)) for row in found.rows)]), 34)
    head = f"  {'region':<{width}}{'n':>9}{'first':>9}{'second':>9}{'bias':>10}{'':>9}"
    head += f"{'limits of agreement':>22}{'wCV':>8}{'RC':>9}{'ICC':>7}"
    with_z = any(row["z_n"] for row in found.rows)
    before = None
    for row in found.rows[:_MOST_ROWS]:
        if (about := (row["first"], row["second"])) != before:
            before = about
            unit = f", {row['unit']}" if row["unit"] else ""
            pair = f"{row['second']} minus {row['first']}" if row["second"] else row["first"] or "Medians over subjects"
            yield f"{pair}: {shown_name(row['map'])}{unit}"
            yield head + (f"{'z SD':>7}{'|z|<1.96':>10}" if with_z else "")
        finite = row["limit_low"] == row["limit_low"]
        limits = f"{number(row['limit_low'])} to {number(row['limit_high'])}" if finite else "–"
        icc = "–" if row["icc"] != row["icc"] else f"{row['icc']:.3f}"
        text = f"  {_region(row):<{width}}{row['n']:>9,}"
        text += f"{number(row['median_first'], 4):>9}{number(row['median_second'], 4):>9}"
        text += f"{number(row['bias']):>10}{_percent(row['bias_percent'], '+.1f'):>9}{limits:>22}"
        text += f"{_percent(row['within_cv_percent'], '.1f'):>8}{number(row['repeatability_coefficient']):>9}{icc:>7}"
        if with_z and row["z_n"]:
            text += f"{number(row['z_sd'], 3):>7}{_percent(100 * row['z_share_95'], '.1f'):>10}"
        yield text.rstrip()
    if len(found.rows) > _MOST_ROWS:
        yield f"… and {len(found.rows) - _MOST_ROWS} more rows in the table (-o)"
    yield "wCV: within-subject CV; RC: repeatability coefficient; ICC(A,1)." + (
        " z is calibrated if its SD is 1 and 95 % of |z| are below 1.96." if with_z else ""
    )
    yield from told(found.notes)


def _region(row: Row) -> str:
    return f"{row['label']} {row['name']}".strip()


def _percent(value: float, form: str) -> str:
    return "–" if value != value else f"{value:{form}} %"
