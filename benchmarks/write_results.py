"""Put the results of `rimap evaluate all -o RUN` into docs/results.md and docs/results.

python -m benchmarks.write_results RUN

Each block between `<!-- NAME -->` and `<!-- end -->` becomes the summary of that experiment and how it was run; its
figures, table and recipe are copied to docs/results/NAME.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"<!-- ([a-z0-9-]+) -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    """Fill the blocks and copy the files; experiments that were not run keep what they have."""
    run = Path(sys.argv[1])
    page = DOCS / "results.md"
    missing = []

    def block(match: re.Match[str]) -> str:
        name = match[1]
        source, target = run / name, DOCS / "results" / name
        if not (source / "summary.txt").is_file():
            missing.append(name)
            return match[0]
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob("*"):
            old.unlink()
        for file in [*source.glob("*.png"), source / "table.csv", source / "recipe.json"]:
            shutil.copyfile(file, target / file.name)
        recipe = json.loads((source / "recipe.json").read_text())
        made = f"`{command(name, recipe)}` (rimap {recipe['rimap']}, code {recipe['source']})"
        summary = (source / "summary.txt").read_text().strip()
        return f"<!-- {name} -->\n{summary}\n\n{made}\n<!-- end -->"

    page.write_text(BLOCK.sub(block, page.read_text()))
    if missing:
        print("not in this run, left as they are:", ", ".join(missing))


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
