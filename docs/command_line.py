"""Generate the reference of the command line from the commands themselves."""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from typer.main import get_command

from rimap import cli
from rimap.report.markdown import cell, code, escaped, table

PAGE = "reference/command-line.md"
#: The section of options that name no help panel.
OPTIONS = "Options"
SWITCH = "switch"
_KINDS: dict[type, str] = {str: "text", Path: "path", int: "whole number", float: "number", bool: SWITCH}


def on_files(files: Files, config) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """Return the page in Markdown: a section for each verb, and in it a table for each panel of its help."""
    app = get_command(cli.build())
    rows = [(f"[`rimap {verb}`](#rimap-{verb})", _first_sentence(c.help)) for verb, c in app.commands.items()]
    lines = [
        "# Command line",
        "",
        "This page is made from the commands: `rimap --help` lists them, and `rimap VERB --help` prints the same text.",
        "",
        *table(("command", "what it does"), rows),
        *_table(app.params, typing.get_type_hints(app.callback.__wrapped__, include_extras=True)),
    ]
    for verb, command in app.commands.items():
        lines += [f"## rimap {verb}", "", *_help(command.help or ""), f"```text\n{_usage(verb, command)}\n```", ""]
        function = importlib.import_module(f"{cli.__name__}.{verb}").command
        hints = typing.get_type_hints(function, include_extras=True)
        for panel, parameters in _panels(command.params).items():
            lines += [f"**{panel}**", "", *_table(parameters, hints)]
    return "\n".join(lines)


def _first_sentence(text: str | None) -> str:
    return cell(re.split(r"(?<=\.)\s", " ".join((text or "").split("\n\n")[0].split()))[0])


def _help(text: str) -> Iterator[str]:
    """Yield the help of a verb; what it keeps as it is typed (after a backspace mark) are its examples."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield f"```bash\n{paragraph[1:].strip()}\n```"
        else:
            yield escaped(" ".join(paragraph.split()))
        yield ""


def _usage(verb: str, command: Any) -> str:
    words = [_name(p) if p.required else f"[{_name(p).strip('[]')}]" for p in command.params if _is_argument(p)]
    required = [f"{p.opts[-1]} {_name(p)}" for p in command.params if p.required and not _is_argument(p)]
    return " ".join(["rimap", verb, *words, *required, "[OPTIONS]"])


def _panels(parameters: list[Any]) -> dict[str, list[Any]]:
    """Return the arguments and options of a verb by the panel of its help."""
    found: dict[str, list[Any]] = {}
    for p in sorted(parameters, key=lambda p: not _is_argument(p)):
        if not p.hidden:
            own = getattr(p, "rich_help_panel", None)
            found.setdefault(own or ("Arguments" if _is_argument(p) else OPTIONS), []).append(p)
    return found


def _is_argument(p: Any) -> bool:
    return bool(p.param_type_name == "argument")


def _name(p: Any) -> str:
    """Return what stands for the value: the metavar, or the name in capitals."""
    return str(p.metavar or p.name.upper())


def _table(parameters: list[Any], hints: dict[str, Any]) -> Iterator[str]:
    rows = []
    for p in parameters:
        argument, value = _is_argument(p), _kind(hints[p.name])
        if not argument and value != SWITCH:
            value = f"{code([_name(p)])}, {value}"
        names = [_name(p)] if argument else [*p.opts, *p.secondary_opts]
        rows.append((code(names), value, _default(p), cell(p.help)))
    yield from table(("", "value", "default", "meaning"), rows)


def _kind(hint: Any) -> str:
    """Return the kind of value of an option in words, with its limits."""
    annotated, *metadata = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
    several = False
    options = [annotated]
    if isinstance(annotated, types.UnionType) or typing.get_origin(annotated) is typing.Union:
        options = [a for a in typing.get_args(annotated) if a is not type(None)]
    kinds = []
    for option in options:
        if typing.get_origin(option) is list:
            several, option = True, typing.get_args(option)[0]
        kinds.append(_KINDS.get(option, getattr(option, "__name__", str(option))))
    info = metadata[0] if metadata else None
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    limits = ("" if low is None else f" from {low:g}") + ("" if high is None else f" to {high:g}")
    return " or ".join(kinds) + limits + ", one or more" * several


def _default(p: Any) -> str:
    if p.required:
        return "required"
    value = p.default() if callable(p.default) else p.default
    if getattr(p, "is_flag", False):
        return "on" if value else "–" if value is None else "off"
    return "–" if value is None or value in ((), []) else f"`{value}`"
