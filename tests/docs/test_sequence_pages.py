"""Every signal model has a page, which says what its declarations say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rimap.map_display import shown_name
from rimap.signals import SignalModel, signal_models
from rimap.signals.settings import settings_of

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
SOURCE = Path(__file__).resolve().parents[2] / "docs" / "sequence_pages.py"


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SOURCE.stem, SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("cls", signal_models().values(), ids=signal_models())
def test_the_page_has_what_the_model_declares(pages: ModuleType, cls: type[SignalModel]) -> None:
    text = pages.page(cls)
    assert text.startswith(f"# {cls.title}\n") and cls.formula and cls.formula in text
    for s in settings_of(cls).values():
        row = next(line for line in text.splitlines() if line.startswith(f"| {s.title[:1].upper()}{s.title[1:]} ("))
        assert all(f"`{field}`" in row for field in s.bids)
        assert s.name in row or "--times-ms" in row or "--tr-ms" in row
    for q in (*cls.parameters, *cls.derived):
        name = shown_name(q.name).replace("*", r"\*")
        assert any(
            line.startswith(f"| {name} |") and q.meaning[:20].replace("*", r"\*") in line for line in text.splitlines()
        ), q.name
    assert "https://doi.org/10." in text and "rimap map" in text
    assert f"]({cls.name}.md)" in pages.index()


def test_what_the_paper_measured_is_on_the_page_of_look_locker(pages: ModuleType) -> None:
    text = " ".join(pages.page(signal_models()["look-locker"]).split())
    assert "The CINE inversion recovery of Sabidussi et al. 2021" in text and r"is T1\*" in text
