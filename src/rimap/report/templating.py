"""Make the pages from their templates."""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import secrets
import sys
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import jinja2
from jinja2.bccache import Bucket

from rimap.kernels import cache_folder
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


class _Compiled(jinja2.BytecodeCache):
    """Templates that were compiled before, beside the compiled kernels: compiling them takes as long as mapping a
    slice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, bucket: Bucket) -> Path:
        return self._folder / f"{bucket.key}-{bucket.checksum}"

    def load_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(Exception):  # none yet, or a damaged file: the template is compiled
            content = self._file(bucket).read_bytes()
            digest, code = content[:32], content[32:]
            if hashlib.sha256(code).digest() == digest:
                bucket.code = marshal.loads(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        code = marshal.dumps(bucket.code)
        with contextlib.suppress(OSError):  # no space: the next run compiles again
            new = self._folder / f"{secrets.token_hex(8)}.new"
            new.write_bytes(hashlib.sha256(code).digest() + code)
            new.replace(self._file(bucket))


def _compiled() -> _Compiled | None:
    version = f"{sys.implementation.cache_tag} {sys.version} jinja2 {version_of('jinja2')}"
    folder = cache_folder(hashlib.sha256(version.encode()).hexdigest()[:16])
    return None if folder is None else _Compiled(folder)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rimap.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_compiled(),
    )
    environment.filters["g"] = number
    return environment
