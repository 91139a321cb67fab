"""The site builds without a warning, its notebooks run, and it needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from rimap.signals import signal_models

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("mkdocs", reason="the extra docs is not installed")


def test_the_site(tmp_path: Path) -> None:
    """One test, so that it is built once however the tests are spread."""
    site = build(tmp_path / "site")
    needs_no_network(site)
    can_be_searched_from_disk(site)
    has_equations_as_mathml(site)
    shows_what_notebooks_draw(site)
    names_the_whole_package(site)
    shows_examples_as_code(site)
    has_links_that_lead_somewhere(site)
    describes_its_pictures(site)


def build(out: Path) -> Path:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1", "MPLBACKEND": "Agg"}
    env.pop("RIMAP_DOCS_UNRUN", None)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr
    return out


def needs_no_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe|source)[^>]*src=[\"'](?:https?:)?//[^\"']*", text), page.name
        links = re.findall(r"<link[^>]*>", text)
        assert not [k for k in links if re.search(r"href=[\"'](?:https?:)?//", k) and "canonical" not in k], page.name
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\"']*", sheet.read_text(encoding="utf-8")), (
            sheet
        )


def can_be_searched_from_disk(site: Path) -> None:
    """Search works from disk, where browsers neither fetch JSON nor start workers: index and worker are scripts."""
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = {") and "inversion recovery" in index.lower()
    for page in site.rglob("*.html"):
        (script,) = re.findall(r'<script src="([^"]*iframe-worker\.js)"></script>', page.read_text(encoding="utf-8"))
        assert page.name == "404.html" or (page.parent / script).is_file(), page


def has_equations_as_mathml(site: Path) -> None:
    text = (site / "physics.html").read_text(encoding="utf-8")
    assert text.count("<math") > 20
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "arithmatex" not in text, page.name
        inside = " ".join(re.findall(r"<math.*?</math>", text, re.DOTALL))
        assert "\\" not in inside, f"{page.name}: a command that latex2mathml does not know"


def shows_what_notebooks_draw(site: Path) -> None:
    notebooks = sorted((ROOT / "notebooks").glob("*.py"))
    assert len(notebooks) == 4 and all(p.stem[0].isdigit() for p in notebooks)
    for path in notebooks:
        text = (site / "tutorials" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert 'class="drawn"' in text, path.name
        assert text.count("data:image/png") >= 1 and len(text) < 3_000_000


def names_the_whole_package(site: Path) -> None:
    import rimap

    text = (site / "api.html").read_text(encoding="utf-8")
    for name in rimap.__all__:
        assert name == "__version__" or f">{name}<" in text or f".{name}" in text, name


def shows_examples_as_code(site: Path) -> None:
    for name in ("api.html", "reference/modules.html"):
        text = (site / name).read_text(encoding="utf-8")
        assert "<blockquote>" not in text, f"{name}: an example of a docstring is a quotation"
        assert text.count("&gt;&gt;&gt;") > 10


class Elements(HTMLParser):
    """Collect the anchors, the addresses and the pictures of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.addresses: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := found.get(name))}
        self.addresses += [value for name in ("href", "src") if (value := found.get(name))]
        if tag == "img":
            self.pictures.append(found)


def has_links_that_lead_somewhere(site: Path) -> None:
    pages = {page.resolve(): Elements(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 25
    start = pages[(site / "index.html").resolve()].addresses
    assert {"sequences/index.html", "reference/command-line.html", "reference/recipe-keys.html"} <= set(start)
    for name in signal_models():
        assert f"{name}.html" in pages[(site / "sequences" / "index.html").resolve()].addresses
    for page, elements in pages.items():
        for address in elements.addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page.name}: {address}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{page.name}: {address}"


def describes_its_pictures(site: Path) -> None:
    for page in site.rglob("*.html"):
        for picture in Elements(page).pictures:
            assert len(picture.get("alt") or "") > 5, (
                f"{page.name}: a picture without a description, {picture.get('src', '')[:60]}"
            )


def test_links_into_the_repository_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 10
    for page in pages:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (
                f"{page.name}: {target} (for pages of the site alone see docs/hooks.py)"
            )
