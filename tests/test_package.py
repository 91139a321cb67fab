"""What is shipped: wheel and source archive, complete and without what does not belong there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import rimap

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "rimap"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build wheel and source archive."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_the_package_and_nothing_else(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    package = {n for n in names if n.startswith("rimap/")}
    tracked = subprocess.run(
        ["git", "ls-files", "--", "src/rimap"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    expected = {n.removeprefix("src/") for n in tracked if (ROOT / n).is_file()}
    assert expected <= package, expected - package
    assert {"rimap/py.typed", "rimap/report/templates/report.html", "rimap/cli/map.py"} <= package
    assert not [n for n in names if "tests" in n.split("/") or n.endswith((".pyc", ".nbi", ".nbc"))]
    others = {n.split("/")[0] for n in names - package}
    assert others == {f"rimap-{rimap.__version__}.dist-info"}
    assert built[0].stat().st_size < 25e6


def test_the_wheel_says_what_it_is(built):
    with zipfile.ZipFile(built[0]) as wheel:
        info = f"rimap-{rimap.__version__}.dist-info"
        metadata = wheel.read(f"{info}/METADATA").decode()
        assert "rimap = rimap.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    base = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert base and not [line for line in base if "torch" in line or "lightning" in line]
    assert "Requires-Python: >=3.11" in metadata and "License-Expression: Apache-2.0" in metadata
    assert metadata.split("\n\n", 1)[1].strip().startswith("# rimap")


def test_the_source_archive_can_be_tested(built):
    with tarfile.open(built[1]) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    assert {"src/rimap/__init__.py", "tests/test_package.py", "Makefile", "README.md", "LICENSE"} <= names
    assert {p.name for p in ROOT.glob("requirements*.lock")} | {"CITATION.cff", "CHANGELOG.md", "SECURITY.md"} <= names
    assert not [n for n in names if n.endswith((".nii.gz", ".pyc")) or "rimap-demo" in n]


def test_the_wheel_runs_by_itself(built, tmp_path):
    """From the unpacked wheel, not from the source tree: help, and a report from its template."""
    zipfile.ZipFile(built[0]).extractall(tmp_path / "site")
    code = """
import sys, rimap
assert rimap.__file__.startswith(sys.argv[1]), rimap.__file__
import numpy as np
from rimap.report import Run, page
from rimap.series import ParameterMaps
model = rimap.T2Decay(tau=[10, 40, 80])
kappa = np.array([100.0, 60.0])[:, None, None] * np.ones((2, 5, 5))
maps = ParameterMaps(kappa, model, np.zeros((5, 5), np.uint8))
assert "T2 map of x" in page(rimap.WeightedSeries(model.signal(kappa), model), maps, Run("x"))
"""
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "rimap", "--help"], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.returncode == 0 and re.search(r"\bmap {2,}\w", done.stdout), done.stdout


def test_the_wheel_is_the_same_bytes_whenever_it_is_built(built, tmp_path):
    """From another copy of the sources, with other times of files, and in another time zone."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
        os.utime(copy / name, (1e9, 1e9))
    shutil.copytree(SOURCE, copy / "src" / "rimap", ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))
    for path in copy.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TZ": "Asia/Tokyo"})
    assert done.returncode == 0, done.stdout + done.stderr
    again = tmp_path / built[0].name
    with zipfile.ZipFile(built[0]) as first, zipfile.ZipFile(again) as second:
        assert [(i.filename, i.date_time, i.CRC) for i in first.infolist()] == [
            (i.filename, i.date_time, i.CRC) for i in second.infolist()
        ]
    assert again.read_bytes() == built[0].read_bytes()


def test_torch_is_in_no_base_requirement_and_pinned_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [d for d in project["dependencies"] if "torch" in d]
    pins = {p.name: re.findall(r"^torch==.*", p.read_text(), re.MULTILINE) for p in ROOT.glob("requirements*.lock")}
    assert {name: found for name, found in pins.items() if found} == {"requirements-torch.lock": ["torch==2.13.0"]}
    for lock in pins:
        text = (ROOT / lock).read_text().replace("--hash=sha256:", "")
        assert "://" not in text and "--" not in text, lock


def test_public_names_load():
    for name in rimap.__all__:
        if name in ("RIM", "ResNet") and not (SOURCE / "estimators" / f"{name.lower()}.py").exists():
            continue
        assert getattr(rimap, name) is not None
    assert {"read", "write", "NLLS", "MLE", "WeightedSeries"} <= set(rimap.__all__)
