"""Generate the page of recipe keys from the dataclasses that recipes become."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from mkdocs.structure.files import File, Files

from rimap.report.markdown import cell, code, docstring_of, entries_of, escaped, table
from rimap.simulation import recipe as simulation
from rimap.training import recipe as training

PAGE = "reference/recipe-keys.md"
_KINDS = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Range": "[least, greatest]",
    "tuple[int, int]": "[least, greatest], whole numbers",
    "tuple[float, float]": "[least, greatest]",
    "tuple[float, float, float]": "three numbers",
    "tuple[str, ...]": "list of texts",
    "tuple[int, ...]": "list of whole numbers",
    "tuple[float, ...]": "list of numbers",
}
#: Kinds of the keys that are no field; the others are texts.
_EXTRA_KINDS = {"sequences": "list of texts", "tr_ms": "number, or list of numbers"}
#: A longer list is cut in the column of defaults.
_LONGEST_LIST = 8

_INTRODUCTION = """# Keys of recipes

A recipe is a TOML file. `rimap train RECIPE` reads all of it. `rimap simulate RECIPE` reads its table `[simulation]`,
or the top level of a file without tables. This page is generated from the code. Every key is optional, except that a
ResNet needs `times_ms`. rimap refuses unknown keys and suggests the most similar one.

```toml
name = "t1"
sequence = "ir"
times_ms = [50, 400, 1100, 2500]
anatomies = ["builtin"]

[training]
iterations = 3000
```

`rimap train RECIPE --set training.iterations=500` changes one key for one run.
[Train for your own protocol](../training.md) shows whole recipes.

Two sets of defaults exist: `general`, for a RIM, and `paper`, the simulation of the paper, for a ResNet.
The defaults of `general` are given for inversion recovery; those of another sequence follow from its declaration
(`rimap.simulation.recipe.general("vfa")` in Python prints them). Where one value is given, it is that of both."""


def on_files(files: Files, config) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """Return the page in Markdown."""
    general = training.training_recipe({"sequence": "ir"})
    paper = training.training_recipe({"sequence": "ir", "variant": "paper"})
    tables = ("simulation", "rim", "loss", "training")
    top = [f.name for f in fields(training.TrainingRecipe) if f.name not in (*tables, "others")]
    head = ("key", "value", "default", "meaning")
    rows = [*_rows(general, paper, top), *_extra(training.EXTRA_KEYS[""])]
    lines = [_INTRODUCTION, "", "## Top of the file", "", *table(head, rows)]
    lines += [f"These keys of `[simulation]` may be at the top of the file as well: {code(training.SHORT_KEYS)}.", ""]
    for name in tables:
        own, of_paper = getattr(general, name), getattr(paper, name)
        rows = [*_rows(own, of_paper, [f.name for f in fields(own)]), *_extra(training.EXTRA_KEYS.get(name, {}))]
        if name == "simulation":
            rows += _extra(simulation.EXTRA_KEYS)
        lines += [f"## [{name}]", "", escaped(docstring_of(type(own))[0]), "", *table(head, rows)]
    return "\n".join(lines)


def _rows(general: Any, paper: Any, names: list[str]) -> Iterator[tuple[str, ...]]:
    meanings = entries_of(docstring_of(type(general))[1]["Parameters"])
    kinds = {f.name: str(f.type) for f in fields(general)}
    for name in names:
        together, text = meanings[name]
        defaults = [_value(getattr(x, name)) for x in (general, paper)]
        default = defaults[0] if defaults[0] == defaults[1] else f"{defaults[0]}<br>paper: {defaults[1]}"
        shared = f"{code(together)}: " if len(together) > 1 else ""
        yield f"`{name}`", _kind(kinds[name]), default, shared + cell(text)


def _extra(keys: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    for name, text in keys.items():
        yield f"`{name}`", _EXTRA_KINDS.get(name, "text"), "–", cell(text)


def _kind(annotation: str) -> str:
    if annotation.startswith("Mapping[str, "):
        inner = _kind(annotation.removeprefix("Mapping[str, ").removesuffix("]"))
        return "table of " + re.sub("^(table|list) ", r"\1s ", inner)
    return _KINDS[annotation].replace("[", r"\[").replace("]", r"\]")


def _value(value: Any) -> str:
    """Return a default as a recipe has it."""
    if isinstance(value, Mapping):
        return "`{}`" if not value else code([json.dumps(value)])
    if isinstance(value, tuple):
        items = [_plain(x) for x in value]
        if len(items) > _LONGEST_LIST:
            items = [*items[:2], "…", items[-1]]
        return f"`[{', '.join(items)}]`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
