"""What lies around the code: citation, licence, workflows, templates, contributing."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import rimap

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]


def load(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_is_whole() -> None:
    cff = load("CITATION.cff")
    assert cff["cff-version"] == "1.2.0" and cff["type"] == "software" and cff["message"]
    assert cff["version"] == rimap.__version__ and cff["license"] == "Apache-2.0" and cff["title"] == "rimap"
    assert all(a.get("name") or (a["family-names"] and a["given-names"]) for a in cff["authors"])
    paper = cff["preferred-citation"]
    assert paper["type"] == "article" and paper["title"] and paper["authors"] and paper["journal"]
    assert re.fullmatch(r"10\.\d{4,}/\S+", paper["doi"]) and paper["doi"] in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
    assert len(paper["authors"]) == 8 and isinstance(paper["year"], int)


def test_licence_and_changelog() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert f"## {rimap.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bug", "signal-model", "question"])
def test_issue_templates(name: str) -> None:
    template = load(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert template["name"] and template["description"] and template["body"]
    assert len({e["id"] for e in template["body"] if "id" in e}) == sum("id" in e for e in template["body"])
    assert all(e["type"] in ("markdown", "textarea", "checkboxes", "input", "dropdown") for e in template["body"])
    text = str(template)
    assert ("rimap --version" in text and "patient" in text) or name == "signal-model"


def test_ci_runs_what_a_contributor_types() -> None:
    steps = [s.get("run", "") for job in load(".github/workflows/test.yml")["jobs"].values() for s in job["steps"]]
    assert "make test" in steps and "make docs" in steps
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^test:", makefile, re.MULTILINE) and re.search(r"^docs:", makefile, re.MULTILINE)


def test_a_release_is_tested_built_and_published_without_a_token() -> None:
    path = ".github/workflows/release.yml"
    jobs = load(path)["jobs"]
    assert jobs["build"]["needs"] == "test" and jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["environment"]
    text = (ROOT / path).read_text(encoding="utf-8")
    assert "secrets." not in text and "password" not in text and "://" not in text
    versions = re.search(r"sed -n '(.*)' (\S+)\)", text)
    assert versions is not None
    pattern = re.search(r"s/\^(.*)/\\1/p", versions[1])
    assert pattern is not None
    found = re.search(
        "^" + pattern[1].replace(r"\(", "(").replace(r"\)", ")"), (ROOT / versions[2]).read_text(), re.MULTILINE
    )
    assert found is not None and found[1] == rimap.__version__


def test_types_are_shipped() -> None:
    """That py.typed is in the wheel is told by test_package.py, which builds it."""
    assert (ROOT / "src" / "rimap" / "py.typed").is_file()
    assert '"rimap/py.typed"' in (ROOT / "tests" / "test_package.py").read_text(encoding="utf-8")


def test_contributing_is_one_page() -> None:
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 70 and "make test" in "\n".join(lines)


def test_the_text_uses_no_word_that_it_avoids(capsys: pytest.CaptureFixture[str]) -> None:
    failed = runpy.run_path(str(ROOT / "tools" / "check_words.py"))["main"]([])
    assert not failed, capsys.readouterr().out
