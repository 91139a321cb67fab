"""Every code block of the documentation runs, page by page, in a folder with small data.

A block that cannot run here has `<!-- not run: why -->` on the line before it. ```text is what is printed or drawn.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import json
import re
import shlex
import shutil
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from typer.testing import CliRunner

from rimap.cli import build
from rimap.simulation.anatomies import Anatomy, digital_brain
from rimap.training import loop
from rimap.training.recipe import training_recipe

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("docs_blocks", Path(__file__).with_name("blocks.py"))
assert _spec is not None and _spec.loader is not None
sys.modules["docs_blocks"] = blocks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(blocks)

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
]


def _name(page: Path) -> str:
    return page.stem if page.parent.name != "tutorials" else f"tutorials-{page.stem}"


WITH_BLOCKS = [p for p in PAGES if any(b.language != "text" and not b.reason for b in blocks.blocks_of(p))]
#: What is trained here instead of what a recipe says.
TINY = {
    "simulation": {"patch_size": 12},
    "training": {"iterations": 2, "batch_size": 2, "validate_every": 2, "validation_batches": 1, "checkpoint_every": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    blocks.write_data(folder)
    return folder


@pytest.fixture(scope="module")
def app() -> Any:
    return build()


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=_name)
def test_every_block_runs(page: Path, data: Path, tmp_path: Path, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "here"
    shutil.copytree(data, where)
    monkeypatch.chdir(where)
    monkeypatch.syspath_prepend(str(where))
    small = Anatomy.of(digital_brain((48, 54, 36)), "small")  # the built-in head at 1 mm takes seconds to draw
    monkeypatch.setattr(loop, "load_anatomies", lambda sources: tuple(small for _ in sources))
    module = types.ModuleType("page")  # a dataclass looks its module up
    monkeypatch.setitem(sys.modules, "page", module)
    names: dict[str, Any] = module.__dict__
    for block in blocks.blocks_of(page):
        if block.reason:
            continue
        place = f"{page.name}:{block.line}"
        if block.language == "python":
            if block.title:
                Path(block.title).write_text(block.code, encoding="utf-8")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * block.line + block.code, place, "exec"), names)
        elif block.language in ("bash", "console"):
            for command in commands(block.code):
                run(app, command, place, monkeypatch)
        elif block.language == "toml":
            document = tomllib.loads(block.code)
            if {"anatomies", "times_ms", "network"} & set(document):
                training_recipe(document)
                document |= {t: document.get(t, {}) | TINY[t] for t in TINY}
            if block.title:
                Path(block.title).write_text(toml(document), encoding="utf-8")
        elif block.language == "json":
            json.loads(block.code)
        else:
            assert block.language == "text", (
                f"{place}: a block of {block.language or 'no language'}; say which, or text"
            )
    plt.close("all")


def commands(code: str) -> list[str]:
    """Return the commands of a block: its lines, without prompts; ``console`` may have output between them."""
    lines = code.replace("\\\n", " ").splitlines()
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    return [c for c in prompted or lines if c.strip() and not c.strip().startswith("#")]


def run(app: Any, command: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command of rimap in this process."""
    program, *args = shlex.split(command, comments=True)
    assert program == "rimap", f"{place}: only rimap is run here; mark the block `<!-- not run: why -->`"
    args = [x for a in args for x in (sorted(glob.glob(a)) if "*" in a else [a])]  # noqa: PTH207 - as a shell does
    if args[0] == "map" and "-o" in args and "--overwrite" not in args:
        shutil.rmtree(args[args.index("-o") + 1], ignore_errors=True)  # each line is an example by itself
    monkeypatch.setattr(sys, "argv", ["rimap", *args])
    result = CliRunner().invoke(app, args, prog_name="rimap")
    assert result.exit_code == 0, f"{place}: {command}\n{result.output}"


def toml(table: dict[str, Any]) -> str:
    """Return a document of values and of tables of values as TOML."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, dict)]
    for name, inner in table.items():
        if isinstance(inner, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in inner.items())]
    return "\n".join(lines) + "\n"


def test_what_is_not_run_says_why_and_is_little() -> None:
    unrun = [(p.name, b) for p in PAGES for b in blocks.blocks_of(p) if b.reason]
    assert all(len(b.reason.split()) >= 2 for _, b in unrun)
    run = sum(b.language in ("python", "bash", "console", "toml") for p in PAGES for b in blocks.blocks_of(p)) - len(
        unrun
    )
    assert len(unrun) < run, f"{len(unrun)} blocks are not run, {run} are"


#: Pages whose commands take hours or other people's packages.
OF_MEASUREMENTS = ("results", "peers", "lambda", "cluster")


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem not in OF_MEASUREMENTS], ids=_name)
def test_no_block_hides_from_this(page: Path) -> None:
    assert not blocks.indented_blocks(page), "indented lines: use ```python, ```bash, ```toml or ```text"
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(list(blocks.blocks_of(page)))
