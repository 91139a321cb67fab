"""The reference of the command line and the keys of recipes: every verb, every option and every key is on its page."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import rimap
from rimap import cli
from rimap.estimators.rim.loop import RIMConfig
from rimap.simulation.recipe import EXTRA_KEYS, PatchRecipe
from rimap.training import recipe
from rimap.training.recipe import Loss, Training, TrainingRecipe, training_recipe

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
DOCS = Path(__file__).resolve().parents[2] / "docs"
SOURCE = DOCS.parent / "src" / "rimap"
COMMANDS = get_command(cli.build()).commands
TABLES = {"simulation": PatchRecipe, "rim": RIMConfig, "loss": Loss, "training": Training}


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sections(page: str) -> dict[str, str]:
    head, *parts = re.split(r"^## ", page, flags=re.MULTILINE)
    return {"": head} | {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in parts}


def rows(section: str) -> dict[str, list[str]]:
    """Return the cells of each row of the tables of a section, by the first word of the row."""
    found = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            bars_of_code = re.sub(r"`[^`]*`", lambda m: m[0].replace("|", "¦"), line)
            cells = [c.strip().replace("¦", "|") for c in re.split(r"(?<!\\)\|", bars_of_code)[1:-1]]
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells)
    return found


@pytest.fixture(scope="module")
def command_line() -> dict[str, str]:
    return sections(hook("command_line").page())


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return sections(hook("recipe_keys").page())


def test_every_verb_has_a_section(command_line: dict[str, str]) -> None:
    assert set(command_line) == {"", *(f"rimap {verb}" for verb in cli.verbs())}
    assert "--version" in rows(command_line[""])
    for verb in cli.verbs():
        assert f"[`rimap {verb}`](#rimap-{verb})" in command_line[""]


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_is_in_the_table_of_its_verb(command_line: dict[str, str], verb: str) -> None:
    found = rows(command_line[f"rimap {verb}"])
    for p in COMMANDS[verb].params:
        names = [p.metavar or p.name.upper()] if p.param_type_name == "argument" else [*p.opts, *p.secondary_opts]
        for name in names:
            _, value, default, meaning = found[name]
            assert re.search(r"text|path|number|switch", value), name
            assert ("required" in default) == p.required
            words = re.findall(r"\w{4,}", p.help or "")[:3]
            assert all(word in meaning.replace("\\", "") for word in words), name


def test_the_kind_of_a_value_and_its_limits_are_given(command_line: dict[str, str]) -> None:
    found = rows(command_line["rimap simulate"])
    assert found["--n"][1:3] == ["`N`, whole number from 1", "`1`"]
    assert found["--volume"][1:3] == ["switch", "off"]
    assert found["--anatomy"][1] == "`FILE|builtin`, text, one or more"
    assert "rimap simulate IV_T1 -o simulated --snr 30" in command_line["rimap simulate"]


@pytest.mark.parametrize("table", TABLES)
def test_every_key_of_a_table_has_kind_default_and_meaning(keys: dict[str, str], table: str) -> None:
    found = rows(keys[f"[{table}]"])
    for f in fields(TABLES[table]):
        kind, default, meaning = found[f.name][1:]
        assert kind and default.startswith("`") and len(meaning) > 10, f.name


def test_the_keys_that_are_no_field_are_there(keys: dict[str, str]) -> None:
    top = rows(keys["Top of the file"])
    assert {f.name for f in fields(TrainingRecipe)} - {*TABLES, "others"} <= set(top)
    for table, extra in recipe.EXTRA_KEYS.items():
        assert set(extra) <= set(rows(keys[f"[{table}]" if table else "Top of the file"]))
    assert set(EXTRA_KEYS) <= set(rows(keys["[simulation]"]))


@pytest.mark.parametrize("variant", ["general", "paper"])
def test_the_defaults_are_those_of_a_recipe_that_leaves_the_key_out(keys: dict[str, str], variant: str) -> None:
    what = training_recipe({"sequence": "ir", "variant": variant})
    for table in TABLES:
        found = rows(keys[f"[{table}]"])
        for f in fields(TABLES[table]):
            written = re.findall(r"`([^`]+)`", found[f.name][2])
            text = written[-1 if variant == "paper" else 0]
            value = getattr(getattr(what, table), f.name)
            if "…" not in text:
                expected = list(value) if isinstance(value, tuple) else dict(value) if hasattr(value, "keys") else value
                assert tomllib.loads(f"x = {text}")["x"] == expected, f.name


@pytest.fixture(scope="module")
def interface() -> str:
    """The pages of the API as mkdocstrings takes them."""
    return (DOCS / "api.md").read_text(encoding="utf-8") + hook("api_modules").page()


def described(interface: str) -> set[str]:
    return {place.rpartition(".")[2] for place in re.findall(r"^::: (\S+)", interface, re.MULTILINE)}


def test_every_public_name_is_described_once(interface: str) -> None:
    places = re.findall(r"^::: (\S+)", interface, re.MULTILINE)
    assert len(places) == len(set(places))
    assert set(rimap.__all__) - {"__version__"} <= described(interface)
    for name in sorted(hook("api_modules").MODULES):
        module = importlib.import_module(name)
        assert set(getattr(module, "__all__", ())) <= described(interface), name
    for place in places:
        module_name, _, name = place.rpartition(".")
        assert hasattr(importlib.import_module(module_name), name), place


def test_packages_that_declare_public_names_are_on_the_page() -> None:
    declaring = {
        ".".join(("rimap", *path.parent.relative_to(SOURCE).parts))
        for path in SOURCE.rglob("__init__.py")
        if re.search(r"^__all__", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert declaring - {"rimap"} <= set(hook("api_modules").MODULES)


def test_what_the_documentation_imports_is_described(interface: str) -> None:
    found = set()
    for page in [*DOCS.glob("*.md"), *(DOCS.parent / "notebooks").glob("*.py"), DOCS.parent / "README.md"]:
        text = page.read_text(encoding="utf-8")
        for module, names in re.findall(r"^from (rimap[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
            values = {name.strip(): getattr(importlib.import_module(module), name.strip()) for name in names.split(",")}
            found |= {name for name, x in values.items() if inspect.isfunction(x) or inspect.isclass(x)}
    assert len(found) > 3
    assert found - described(interface) == set()


def test_a_recipe_may_have_the_keys_that_are_no_field() -> None:
    assert (
        training_recipe({"protocol": "IV_T2", "variant": "paper", "anatomies": ["builtin"]}).simulation.sequence == "t2"
    )
    assert training_recipe({"times_ms": [50, 400, 900], "tr_ms": 3000}).simulation.settings == {"tr": (3000.0,)}
    several = {"simulation": {"sequences": ["ir", "t2"]}, "rim": {"any_sequence": True}}
    assert [s.sequence for s in training_recipe(several).simulations] == ["ir", "t2"]
