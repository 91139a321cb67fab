"""Make the pages from their templates."""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from rimap.kernels import cache_folder
from rimap.report.number_formats import number
from rimap.source_hashes import source_fingerprint


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
        bytecode_cache=_compiled_templates(),
    )
    environment.filters["g"] = number
    return environment


class _LenientCache(jinja2.FileSystemBytecodeCache):
    """Compiled templates on disk. A file that is damaged or cannot be written costs the time to compile."""

    def load_bytecode(self, bucket: Any) -> None:
        """Load a template, unless its file is not there or damaged."""
        try:
            super().load_bytecode(bucket)
        except Exception:  # whatever a damaged file may raise
            bucket.reset()

    def dump_bytecode(self, bucket: Any) -> None:
        """Keep a template."""
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


def _compiled_templates() -> jinja2.BytecodeCache | None:
    """Return where compiled templates are kept: compiling that of a report takes a tenth of the time to map a slice.

    The folder is beside those of compiled kernels, and is named after the templates, this file and the version of
    Jinja.
    """
    here = Path(__file__)
    try:
        sources = source_fingerprint([here, *(here.parent / "templates").iterdir()], here.parent)
    except OSError:  # a zipped package
        return None
    folder = cache_folder(hashlib.sha256(f"{sources} {jinja2.__version__}".encode()).hexdigest()[:16])
    return _LenientCache(str(folder)) if folder is not None else None
