"""A command whose options are text, paths and flags needs no pydantic, which takes a tenth of a second to import."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from rimap.cli._guard import stop


class _WithoutPydantic:
    """Converts what needs no check, and leaves everything else to typer."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of an option, as `typer` does."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        if type(value) is self.annotation and value == param.default:
            return value
        if several and isinstance(value, (list, tuple)) and self.annotation in (list[str], list[Path]):
            kind = str if self.annotation == list[str] else Path
            return [kind(item) for item in value]
        if not several and isinstance(value, str) and self.annotation in (str, Path):
            return self.annotation(value)
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _without_pydantic(parameters: list[Any]) -> list[Any]:
    """Return the parameters of a command, which need pydantic only if their values do."""
    for parameter in parameters:
        if getattr(parameter, "_runtime_param", parameter) is None:  # versions of typer without pydantic have none
            parameter._runtime_param = _WithoutPydantic(parameter.type_descriptor.annotation)
    return parameters


#: An option whose value is empty, in one word.
_EMPTY = re.compile(r"--[a-z0-9-]+=")


class Command(TyperCommand):
    """A verb."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Refuse empty values: "" as a path would be the current folder. Usually a variable of the shell is not set."""
        for before, argument in zip(["", *args], args):
            if not argument or _EMPTY.fullmatch(argument):
                where = argument.removesuffix("=") or (before if before.startswith("-") else "an argument")
                stop(2, f"error: {where}: expected a value, got nothing. Is a variable of the shell not set?")
        return list(super().parse_args(ctx, args))

    def get_params(self, ctx: typer.Context) -> list[object]:  # type: ignore[override]
        """Return the arguments and options, with `--help`."""
        return _without_pydantic(super().get_params(ctx))


class Group(TyperGroup):
    """The verbs together, and the options before a verb."""

    def get_params(self, ctx: typer.Context) -> list[object]:  # type: ignore[override]
        """Return the options, with `--help`."""
        return _without_pydantic(super().get_params(ctx))
