"""Generate the API of the submodules from their ``__all__``, or from their names without an underscore."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

from rimap.report.markdown import code, escaped

PAGE = "reference/modules.md"
#: The page of the names of `rimap` itself, which is written by hand for its order.
MAIN_PAGE = Path(__file__).parent / "api.md"
MODULES = (
    "rimap.arrays",
    "rimap.signals",
    "rimap.estimators",
    "rimap.workflow",
    "rimap.workflow.bids",
    "rimap.workflow.sequence_page",
    "rimap.workflow.sequence_picture",
    "rimap.io",
    "rimap.report",
    "rimap.registration",
    "rimap.parallel",
    "rimap.testing",
    "rimap.simulation.subjects",
    "rimap.simulation.anatomies",
    "rimap.simulation.label_volumes",
    "rimap.simulation.tissues",
    "rimap.simulation.recipe",
    "rimap.simulation.patches",
    "rimap.training.recipe",
    "rimap.training.loop",
)


def on_files(files: Files, config) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """Return the page in Markdown, for mkdocstrings to fill."""
    elsewhere = set(re.findall(r"^::: (\S+)", MAIN_PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    lines = [
        "# Submodules",
        "",
        "These modules are public as well. What `rimap` itself offers is on the page [API](../api.md); names without "
        "an underscore that are on neither page may change without notice.",
        "",
    ]
    for name in MODULES:
        about, places = declared(name)
        lines += [f"## {name}", "", escaped(about), ""]
        if there := [place.rpartition(".")[2] for place in places if place in elsewhere]:
            lines += [f"On the page [API](../api.md): {code(there)}.", ""]
        for place in places:
            if place not in elsewhere:
                elsewhere.add(place)
                lines += [f"::: {place}", ""]
    return "\n".join(lines)


def declared(name: str) -> tuple[str, list[str]]:
    """Return the first paragraph of a module, and its public names, each in full as where it is defined.

    The source is read and not imported: training needs packages that the documentation does not.
    """
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    about = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    defined = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name[0] != "_"]
    listed = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    imported = {a.name: n.module for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    names = ast.literal_eval(listed[0]) if listed else defined
    return about, [f"{imported.get(public, name)}.{public}" for public in names]
