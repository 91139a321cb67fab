"""Make the pages from their templates."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2

from rimap.report.number_formats import number


def render(template: str, **values: Any) -> str:
    """Return a page. Values are escaped unless the template uses ``safe``, and a missing value is an error."""
    return _environment().get_template(template).render(**values)


def source(*names: str) -> str:
    """Return the text of style sheets or scripts, one after the other."""
    environment = _environment()
    assert environment.loader is not None
    texts = (environment.loader.get_source(environment, name)[0] for name in names)
    return "\n".join(text.replace("\r\n", "\n").strip() for text in texts)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rimap.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["g"] = number
    return environment
