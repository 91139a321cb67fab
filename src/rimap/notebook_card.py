"""What a notebook shows of a value: a card of pictures and tables, as plain HTML. Neither matplotlib nor a template."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import colours
from rimap.slices import View, png

_CELL = "padding:1px 12px 1px 0;text-align:left;border:0;background:none"


@dataclass(frozen=True)
class Picture:
    """One slice with its caption, and a colour bar if there is a unit."""

    src: str
    width: int
    height: int
    caption: str
    bar: str = ""
    low: str = ""
    high: str = ""


@dataclass(frozen=True)
class Scale:
    """How values become colours: the least and the greatest value that differ in colour, the palette, and linear or
    logarithmic.
    """

    window: tuple[float, float]
    palette: str = "grey"
    logarithmic: bool = False

    def png(self, values: NDArray[Any]) -> str:
        """Return values (rows, columns) as the source of an image."""
        shown = colours.indices(values, *self.window, logarithmic=self.logarithmic)
        return png(shown, colours.palette(self.palette))


def picture(
    values: NDArray[Any], view: View, k: int, scale: Scale, caption: str, *, bar: bool = False, edge: int = 180
) -> Picture:
    """Return slice `k` of values (*X), at most `edge` pixels wide and high, with a colour bar or without."""
    low, high = scale.window
    wide = view.aspect >= 1
    return Picture(
        src=scale.png(view.picture(values, k)),
        width=edge if wide else max(1, round(edge * view.aspect)),
        height=max(1, round(edge / view.aspect)) if wide else edge,
        caption=caption,
        bar=scale.png(np.linspace(low, high, 128)[None]) if bar else "",
        low=f"{low:,.6g}",
        high=f"{high:,.6g}",
    )


def card(
    title: str, about: str, pictures: Sequence[Picture], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """Return the HTML of a card; the first of `rows` is the head of the table. All text is escaped."""
    e = html.escape
    parts = [f'<div style="font-family:sans-serif;font-size:13px;line-height:1.4"><b>{e(title)}</b> {e(about)}']
    if pictures:
        parts.append('<div style="display:flex;gap:10px;flex-wrap:wrap;margin:6px 0;align-items:flex-end">')
        parts += [_figure(picture) for picture in pictures]
        parts.append("</div>")
    if rows:
        head, *body = rows
        parts.append('<table style="border-collapse:collapse;margin:2px 0;font-size:13px;border:0;display:table">')
        parts.append(
            "<tr>" + "".join(f'<th style="{_CELL};opacity:.7;font-weight:normal">{e(c)}</th>' for c in head) + "</tr>"
        )
        parts += ["<tr>" + "".join(f'<td style="{_CELL}">{e(c)}</td>' for c in row) + "</tr>" for row in body]
        parts.append("</table>")
    parts += [f'<div style="margin-top:2px">{e(note)}</div>' for note in notes]
    return "".join([*parts, "</div>"])


def _figure(p: Picture) -> str:
    pixels = "image-rendering:pixelated;display:block;margin:0;max-width:none"
    bar = (
        f'<span style="display:flex;gap:4px;align-items:center">{p.low}'
        f'<img alt="colour bar" src="{p.bar}" style="{pixels};flex:1;height:8px;min-width:20px">{p.high}</span>'
        if p.bar
        else ""
    )
    caption = html.escape(p.caption)
    return (
        f'<span style="width:{max(p.width, 110 if p.bar else 0)}px;font-size:11px"><img alt="{caption}" src="{p.src}" '
        f'width="{p.width}" height="{p.height}" '
        f'style="{pixels};width:{p.width}px;height:{p.height}px">{bar}{caption}</span>'
    )


def significant(x: float) -> str:
    """Return a number with three significant digits, all digits of its whole part.

    >>> [significant(x) for x in (1234.5, 64.23, 0.01234, 0.0, float("nan"))]
    ['1,234', '64.2', '0.0123', '0', '–']
    """
    if not np.isfinite(x):
        return "–"
    if abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.3g}"
