"""Put the results of `rimap evaluate all -o RUN` into docs/results.md and docs/results.

python -m benchmarks.write_results RUN
python -m benchmarks.write_results RUN --rows rim:universal     only the rows of this estimator; the others stay

Each block between `<!-- NAME -->` and `<!-- end -->` becomes the summary of that experiment and how it was run; its
figures, table and recipe are copied to docs/results/NAME. An experiment whose figures show maps has to be run whole.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import tempfile
from pathlib import Path

from rimap.evaluation.experiment import draw, experiments

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"<!-- ([a-z0-9-]+) -->\n.*?<!-- end -->", re.DOTALL)
#: How a block says what was typed for a part of its rows.
ROWS = "Rows of `{}`: "


def main() -> None:
    """Fill the blocks and copy the files; experiments that were not run keep what they have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", metavar="ESTIMATOR", help="replace the rows of this estimator alone")
    options = parser.parse_args()
    page = DOCS / "results.md"
    missing, made_anew = [], {}

    def block(match: re.Match[str]) -> str:
        name = match[1]
        source = options.run / name
        if not (source / "summary.txt").is_file():
            missing.append(name)
            return match[0]
        made, folder = [typed(source)], source
        if options.rows:
            made = [*how(match[0], options.rows), f"{ROWS.format(options.rows)}{typed(source)}"]
            folder = merged(name, source, Path(work) / name, options.rows)
        made_anew[name] = folder
        summary = (folder / "summary.txt").read_text().strip()
        return "\n".join([f"<!-- {name} -->", summary, "", *made, "<!-- end -->"])

    with tempfile.TemporaryDirectory() as work:
        text = BLOCK.sub(block, page.read_text())
        # After all are made: one that cannot be made leaves the docs as they are.
        for name, folder in made_anew.items():
            copied(folder, DOCS / "results" / name, *([] if options.rows else ["recipe.json"]))
    page.write_text(text)
    if missing:
        print("not in this run, left as they are:", ", ".join(missing))


def merged(name: str, source: Path, folder: Path, estimator: str) -> Path:
    """Put the rows that a run has of an estimator into the table of the docs, draw it in a folder, and return that."""
    folder.mkdir()
    target = DOCS / "results" / name
    table = rows_of(target / "table.csv")
    at = [number for number, row in enumerate(table) if row["estimator"] == estimator]
    new = [row for row in rows_of(source / "table.csv") if row["estimator"] == estimator]
    if [texts(table[number]) for number in at] != [texts(row) for row in new]:
        raise SystemExit(
            f"{name}: expected {len(at)} rows as in the docs, got {len(new)}, or other ones. Run it whole."
        )
    for number, row in zip(at, new):
        table[number] = row
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    if (source / "pictures.npz").is_file():
        shutil.copyfile(source / "pictures.npz", folder / "pictures.npz")
    try:
        draw(experiments()[name], folder)
    except KeyError as error:
        raise SystemExit(
            f"{name}: its figures show maps of all estimators, got none for {error}. Run it whole."
        ) from None
    return folder


def texts(row: dict[str, str]) -> list[str]:
    """Return the cells of a row that are no numbers: what it is about."""
    return [cell for cell in row.values() if not re.fullmatch(r"-?[\d.]+(e[-+]\d+)?|-?inf|nan|", cell)]


def copied(source: Path, target: Path, *more: str) -> None:
    """Copy figures, table and `more` into the docs, in place of the figures that are there."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.png"):
        old.unlink()
    for file in [*source.glob("*.png"), source / "table.csv", *(source / name for name in more)]:
        shutil.copyfile(file, target / file.name)


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table as they are written."""
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def how(block: str, estimator: str) -> list[str]:
    """Return the lines of a block that say what was typed, but not for this estimator."""
    lines = [line for line in block.splitlines() if "`rimap evaluate " in line]
    return [line for line in lines if not line.startswith(ROWS.format(estimator))]


def typed(source: Path) -> str:
    """Return what was typed, and the code that ran."""
    recipe = json.loads((source / "recipe.json").read_text())
    return f"`{command(source.name, recipe)}` (rimap {recipe['rimap']}, code {recipe['source']})"


def command(name: str, recipe: dict[str, object]) -> str:
    """Return what was typed."""
    settings, estimators = recipe["settings"], recipe["estimators"]
    assert isinstance(settings, dict) and isinstance(estimators, dict)
    options = [f"--estimators {','.join(estimators)}"] if name not in ("lambda-sweep",) else []
    options += ["--data DIR"] if settings["data"] else []
    options += [f"--repeats {settings['repeats']}"] if settings["repeats"] else []
    options += [f"--seed {settings['seed']}"] if settings["seed"] else []
    options += ["--quick"] if settings["quick"] else []
    scans = [f"DIR/{scan}" for scan in settings.get("scans") or ()]
    return " ".join(["rimap evaluate", name, *scans, "-o OUT", *options])


if __name__ == "__main__":
    main()
