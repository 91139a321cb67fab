"""Tidy tables: a row a measurement, written as CSV; quantiles from which boxes are drawn; text for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rimap.errors import InputError
from rimap.io.atomic import write_whole

#: What a column has in a row: a text or a number.
Cell = Any
Row = dict[str, Any]
#: Quantiles of every distribution in a table, %.
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def spread(values: ArrayLike) -> dict[str, float]:
    """Return quantiles, mean, standard deviation, number of values and the fraction that is NaN.

    >>> spread([1.0, 2.0, 3.0, float("nan")])["q50"], spread([1.0, float("nan")])["nan"]
    (2.0, 0.5)
    """
    x = np.asarray(values, float).ravel()
    good = x[np.isfinite(x)]
    q = np.percentile(good, QUANTILES) if good.size else np.full(len(QUANTILES), np.nan)
    return {
        **{f"q{p}": float(v) for p, v in zip(QUANTILES, q)},
        "mean": float(good.mean()) if good.size else float("nan"),
        "sd": float(good.std(ddof=1)) if good.size > 1 else float("nan"),
        "n": float(x.size),
        "nan": float(1 - good.size / x.size) if x.size else float("nan"),
    }


def write_table(path: Path | str, rows: Sequence[Row]) -> None:
    """Write rows as CSV, whole or not at all; columns in the order in which they first occur."""
    columns = list(dict.fromkeys(c for row in rows for c in row))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column, "")) for column in columns])
    write_whole(path, buffer.getvalue())


def _cell(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float | np.floating) else str(value)


def read_table(path: Path | str) -> list[Row]:
    """Read a table: what is a number becomes one, what is empty is left out.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no table. Run the experiment first, without --redraw.")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from None
    if not rows or any(None in row or None in row.values() for row in rows):
        raise _damaged(path, "a row has more or fewer cells than the first one, or there is none")
    return [{key: _value(value) for key, value in row.items() if value != ""} for row in rows]


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: expected the table of an experiment, got a damaged file ({reason.strip()[:120]}). Run the experiment "
        f"again without --redraw: what "
        "was computed is kept."
    )


def _value(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def select(rows: Iterable[Row], **where: Any) -> list[Row]:
    """Return the rows whose columns have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in where.items())]


def distinct(rows: Iterable[Row], column: str) -> list[Cell]:
    """Return the values of a column in the order in which they occur."""
    return list(dict.fromkeys(row[column] for row in rows if column in row))


def text_table(header: Sequence[str], rows: Iterable[Sequence[float | str | None]]) -> str:
    """Return a table in Markdown, its columns aligned, numbers to three digits.

    >>> print(text_table(["estimator", "bias"], [["mle", 0.12345], ["nlls", float("nan")]]))
    | estimator |  bias |
    | :-------- | ----: |
    | mle       | 0.123 |
    | nlls      |     – |
    """
    rows = list(rows)
    body = [[number(c) for c in row] for row in rows]
    kinds = [all(not isinstance(row[index], str) for row in rows) for index in range(len(header))] if body else []
    widths = [max(5, len(h), *(len(r[i]) for r in body)) if body else len(h) for i, h in enumerate(header)]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, kinds)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (width - 1) + ":" if right else ":" + "-" * (width - 1) for width, right in zip(widths, kinds)]
    return "\n".join([line(list(header)), line(rule), *map(line, body)]) if body else ""


def number(value: float | str | None) -> str:
    """Return a number to three digits, a text as it is, NaN as a dash.

    >>> number(1234.5), number(0.01234), number(-0.0), number(float("inf"))
    ('1234', '0.0123', '0', '∞')
    """
    if isinstance(value, str) or value is None:
        return value or ""
    x = float(value)
    if np.isnan(x):
        return "–"
    if np.isinf(x):
        return "∞" if x > 0 else "−∞"
    if x == 0:
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(x)))))
    return f"{x:.{min(digits, 4)}f}"


def columns_of(rows: Sequence[Row], names: Sequence[str]) -> list[NDArray[np.float64]]:
    """Return columns as arrays."""
    return [np.array([row[name] for row in rows], float) for name in names]


def by(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], Row]:
    """Return rows by the values of columns; the last of several with the same."""
    return {tuple(row.get(name) for name in names): row for row in rows}


def merged(*maps: Mapping[str, Any]) -> Row:
    """Return one row of several."""
    out: Row = {}
    for map_ in maps:
        out |= map_
    return out
