"""Compiled kernels find a place to be kept."""

import os
import tempfile
from pathlib import Path

import pytest

from rimap.estimators import cache


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Neither the package nor the home can be written."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    writable = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: str(p).startswith(str(tmp_path)) and writable(p, mode))
    monkeypatch.setattr("sys.modules", {k: v for k, v in __import__("sys").modules.items() if k != "numba"})
    monkeypatch.setenv("XDG_CACHE_HOME", "/nonexistent")
    yield tmp_path
    os.environ.pop("NUMBA_CACHE_DIR", None)


def test_a_private_folder_where_there_is_no_other(nowhere):
    cache.ensure_cache()
    first = Path(os.environ.pop("NUMBA_CACHE_DIR"))
    assert first.parent == nowhere and first.stat().st_mode & 0o077 == 0
    cache.ensure_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]) == first  # kept from run to run


def test_a_folder_that_others_can_write_is_not_trusted(nowhere):
    planted = nowhere / f"rimap-numba-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    cache.ensure_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]) != planted


def test_nothing_is_changed_where_there_is_a_place(monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    cache.ensure_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
