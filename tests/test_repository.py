"""What lies around the code: citation, licence, workflows, templates, contributing."""

from __future__ import annotations

import re
import runpy
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import rimap

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]
LICENCES = runpy.run_path(str(ROOT / "tools" / "write_licences.py"))
PAGE, locked, licence = LICENCES["PAGE"], LICENCES["locked"], LICENCES["licence"]


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


@pytest.mark.parametrize("name", ["test", "release"])
def test_actions_are_pinned_by_commit_and_name_their_version(name: str) -> None:
    """A tag of an action can be moved to other code, a commit cannot."""
    text = (ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    used = [line.split("uses:", 1)[1].strip() for line in text.splitlines() if "uses:" in line]
    of_others = [u for u in used if not u.startswith("./")]
    assert len(of_others) >= 6
    for action in of_others:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_a_release_has_attestations_of_its_build_and_of_its_contents() -> None:
    """Both are signed after the last step that can change dist/, and only that job may sign."""
    jobs = load(".github/workflows/release.yml")["jobs"]
    steps = [s.get("uses", s.get("run", "")) for s in jobs["build"]["steps"]]
    order = [
        "make dist",
        "cyclonedx_py",
        "actions/attest-build-provenance@",
        "actions/attest-sbom@",
        "upload-artifact@",
    ]
    places = [next(k for k, step in enumerate(steps) if part in step) for part in order]
    assert places == sorted(places)
    assert jobs["build"]["permissions"] == {"contents": "read", "id-token": "write", "attestations": "write"}
    signed = [s["with"] for s in jobs["build"]["steps"] if "attest" in s.get("uses", "")]
    assert [w["subject-path"] for w in signed] == ["dist/*", "dist/*"]


def test_the_tested_versions_of_python_are_the_declared_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    declared = ["3." + c.removeprefix(prefix) for c in project["classifiers"] if c.startswith(prefix)]
    assert load(".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == declared
    assert project["requires-python"] == f">={declared[0]}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-container.lock", "requirements-dev.lock"])
def test_a_lock_file_has_hashes_of_every_package(lock: str) -> None:
    """pip refuses a file whose SHA-256 is missing. Compiled packages have many, one for the file of each platform."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\w)", text.strip())
    assert len(entries) == len(locked(lock)) >= 35
    for entry in entries:
        first, *hashes = entry.split("\\\n")
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; .+)? ", first) and hashes, first
        assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}\s?", h) for h in hashes), first
    counts = {e.split("==")[0]: e.count("--hash") for e in entries}
    assert counts["numpy"] >= 20  # four versions of Python on five platforms


def test_locks_agree() -> None:
    """One environment takes several of them."""
    base, container, dev = (locked(f"requirements{n}.lock") for n in ("", "-container", "-dev"))
    assert base.items() <= container.items() and set(container) <= set(dev)
    assert all(dev[name] == version for name, version in container.items())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"torch=={locked('requirements-torch.lock')['torch']}" in project["optional-dependencies"]["train"]


def test_the_licence_of_every_locked_package_is_listed() -> None:
    """`python tools/write_licences.py` makes the page anew. A licence that binds users of maps would be news."""
    rows = re.findall(r"^\| ([a-z0-9.-]+) \| (\d\S*) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name: (version, licence) for name, version, licence in rows}
    assert len(listed) == len(rows)
    needed = locked("requirements-dev.lock") | locked("requirements-torch.lock")
    assert {name: version for name, (version, _) in listed.items()} == needed
    permissive = ("MIT", "BSD", "Apache-2.0", "PSF-2.0", "ISC", "Zlib", "0BSD")
    for name in locked("requirements.lock"):
        assert listed[name][1].startswith(permissive), (name, listed[name])


def test_licences_are_those_of_the_installed_packages() -> None:
    """The page was not edited by hand."""
    text, compared = PAGE.read_text(encoding="utf-8"), 0
    for name, version in locked("requirements.lock").items():
        try:
            found = licence(name)
        except metadata.PackageNotFoundError:
            continue  # needed on another platform or version of Python
        assert f"| {name} | {version} | {found} |" in text
        compared += 1
    assert compared > 5


def test_vulnerabilities_have_a_private_channel() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == [
        "Report a vulnerability",
        "Supported versions",
        "What counts",
        "How to check a release",
    ]
    assert "private vulnerability" in text and "Do not open a public issue" in text


def test_contributing_is_one_page() -> None:
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 70 and "make test" in "\n".join(lines)


def test_the_text_uses_no_word_that_it_avoids(capsys: pytest.CaptureFixture[str]) -> None:
    failed = runpy.run_path(str(ROOT / "tools" / "check_words.py"))["main"]([])
    assert not failed, capsys.readouterr().out
