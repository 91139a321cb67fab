"""Plugins: they are found by their entry points, and a broken one stops nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.cli import build
from rimap.errors import PluginWarning
from rimap.estimators import estimators
from rimap.signals import signal_models

MODEL = """
from dataclasses import dataclass
import numpy as np
from rimap import Parameter, SignalModel, setting
from rimap.arrays import column, namespace

@dataclass(frozen=True)
class Model(SignalModel):
    te: tuple = setting("echo time", "TE", bids="EchoTime", entity="echo", plausible=(1, 5000))
    name = "mine"
    title = "Decay"
    bids_suffix = "MINE"
    parameters = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude"),
        Parameter("T2", "ms", (1.0, 4000.0), "time", suffix="T2map"),
    )

    def shape(self, T2):
        return namespace(T2).exp(-column(self.te, T2) / T2)
"""
ESTIMATOR = """
from rimap.estimators.base import Estimator

class Mine(Estimator):
    name = "mine"
    title = "My estimator"

    def estimate(self, series, *, progress=None):
        raise NotImplementedError
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lay out a package as an installer does: a module, and an entry point for a name in it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(module: str, code: str, value: str = "Model", group: str = "rimap.signals") -> None:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}:{value}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return installed


def test_a_plugin_is_found(install: Install) -> None:
    install("lab_model", MODEL)
    install("lab_estimator", ESTIMATOR, "Mine", "rimap.estimators")
    assert signal_models()["mine"].title == "Decay" and {"ir", "t2"} < set(signal_models())
    assert estimators()["mine"].title == "My estimator" and "nlls" in estimators()


@pytest.mark.parametrize(
    ("code", "value", "why"),
    [
        (
            "import a_package_that_is_missing",
            "Model",
            "ModuleNotFoundError: No module named 'a_package_that_is_missing'",
        ),
        ("1 / 0", "Model", "ZeroDivisionError"),
        ("import sys; sys.exit('bye')", "Model", "SystemExit: bye"),
        ("def x(:", "Model", "SyntaxError"),
        (MODEL, "Other", "AttributeError"),
        ("Model = 3", "Model", "expected a subclass of SignalModel, got 3"),
        ("class Model: name = title = 'x'", "Model", "expected a subclass of SignalModel"),
        ("from rimap import SignalModel as Model", "Model", "expected a subclass of SignalModel"),
        (MODEL.replace("def shape", "def other"), "Model", "it does not define shape"),
        (MODEL.replace('name = "mine"', ""), "Model", "expected a text as its name, got None"),
        (MODEL.replace('"Decay"', "3"), "Model", "expected a text as its title, got 3"),
        (MODEL.replace("parameters =", "params ="), "Model", "expected a tuple of Parameter as its parameters"),
        (MODEL.replace('"T2", "ms"', '"A", "ms"'), "Model", "expected a name of its own for each parameter, got A, A"),
        (
            MODEL.replace('"time"', '"field"'),
            "Model",
            "expected one parameter with the role time, got amplitude, field",
        ),
        (MODEL.replace('"amplitude"', '"field"'), "Model", "expected finite bounds of A"),
        (MODEL.replace('"time"', '"tissue"'), "Model", "expected role amplitude, time, field, got 'tissue'"),
        (MODEL.replace("@dataclass(frozen=True)", ""), "Model", "@dataclass"),
        (MODEL.replace('"mine"', '"t2"'), "Model", "its name 't2' is that of a class of rimap"),
    ],
)
def test_a_broken_plugin_is_named_and_skipped(install: Install, code: str, value: str, why: str) -> None:
    before = signal_models()
    install("lab_model", code, value)
    with pytest.warns(PluginWarning, match="lab_model") as told:
        assert signal_models() == before
    (text,) = [str(w.message) for w in told]
    assert why in text and f"lab_model = lab_model:{value} of the package lab_model 1.5" in text


def test_a_broken_estimator_is_named_and_skipped(install: Install) -> None:
    before = estimators()
    install("lab_estimator", ESTIMATOR.replace("def estimate", "def other"), "Mine", "rimap.estimators")
    install("lab_nlls", ESTIMATOR.replace('"mine"', '"nlls"'), "Mine", "rimap.estimators")
    with pytest.warns(PluginWarning, match="lab_estimator|lab_nlls") as told:
        assert estimators() == before
    texts = sorted(str(w.message) for w in told)
    assert len(texts) == 2 and any("estimate" in text for text in texts) and any("'nlls'" in text for text in texts)


def test_of_two_plugins_with_one_name_neither_is_used(install: Install) -> None:
    install("lab_a", MODEL)
    install("lab_b", MODEL)
    with pytest.warns(PluginWarning, match="'mine'") as told:
        assert "mine" not in signal_models()
    texts = sorted(str(w.message) for w in told)
    assert len(texts) == 2 and all("lab_a 1.5" in t and "lab_b 1.5" in t and "'mine'" in t for t in texts)


def test_one_broken_plugin_does_not_hide_another(install: Install) -> None:
    install("lab_broken", "1 / 0")
    install("lab_model", MODEL)
    with pytest.warns(PluginWarning, match="lab_broken"):
        assert "mine" in signal_models()


def test_a_user_reads_it_once(install: Install) -> None:
    install("lab_broken", "1 / 0")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            signal_models()
    assert len(told) == 1


def test_models_of_a_laboratory_are_checked_by_their_names(install: Install) -> None:
    code = (Path(__file__).parent / "contracts" / "plugins" / "lab_models.py").read_text(encoding="utf-8")
    install("lab_offset", code, "OffsetDecay")
    install("lab_spoiled", code, "SpoiledEchoes")
    assert {"lab-offset", "lab-spoiled"} < set(signal_models())
    done = CliRunner().invoke(build(), ["models", "--check", "lab-spoiled"], prog_name="rimap")
    assert done.exit_code == 0, done.output
    first, *lines = done.stdout.splitlines()
    assert first == "Spoiled gradient echoes (lab-spoiled): FA 2 to 40°, TR 15.8 to 158 ms"
    assert len(lines) > 10 and all(line.startswith(("  holds", "  –")) for line in lines)
    assert "  holds  The partial derivatives are those of finite differences" in lines


def test_a_model_that_breaks_a_contract_is_shown(install: Install) -> None:
    install(
        "lab_model", MODEL.replace("namespace(T2).exp(", "namespace(T2).round(100 * ").replace("/ T2)", "/ T2) + T2")
    )
    done = CliRunner().invoke(build(), ["models", "--check", "mine"], prog_name="rimap")
    assert done.exit_code == 1 and "of its contracts" in done.stderr
    assert (
        "  FAILS  The partial derivatives are those of finite differences: the derivative in T2 deviates" in done.stdout
    )
    unknown = CliRunner().invoke(build(), ["models", "--check", "t3"], prog_name="rimap")
    assert unknown.exit_code == 2 and "expected one of ir, " in unknown.stderr and "mine, " in unknown.stderr


def test_the_command_line_shows_a_line(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("lab_broken", "1 / 0")
    install("lab_model", MODEL)
    monkeypatch.delenv("RIMAP_DEBUG", raising=False)
    done = CliRunner().invoke(build(), ["models"], prog_name="rimap")
    assert done.exit_code == 0, done.output
    assert re.search(r"^  mine +Decay: A, T2", done.stdout, re.M)
    assert done.stderr.splitlines() == [
        "rimap: warning: rimap skips the plugin lab_broken = lab_broken:Model of the package lab_broken 1.5: it raised "
        "ZeroDivisionError: division by zero. Update or uninstall that package."
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("return namespace(T2).exp(-column(self.te, T2) / T2)", ""),
        ("raise ZeroDivisionError('its own')", "its shape raised ZeroDivisionError: its own"),
        ("return abs(namespace(T2).exp(-column(self.te, T2) / T2))", "its derivative in T2 is wrong by up to 100 %"),
    ],
)
def test_a_plugin_that_contradicts_itself_is_refused_before_a_map_is_written(
    install: Install, tmp_path: Path, line: str, why: str
) -> None:
    install("lab_model", MODEL.replace("return namespace(T2).exp(-column(self.te, T2) / T2)", line))
    te = np.array([10.0, 20, 40, 80])
    images = 100 * np.exp(-te / 50) + np.random.default_rng(0).standard_normal((16, 16, 1, 4))
    nib.save(nib.Nifti1Image(images.astype(np.float32), np.eye(4)), tmp_path / "x.nii.gz")
    command = ["-m", "rimap", "map", "x.nii.gz", "-o", "out", "--sequence", "mine", "--times-ms", "10,20,40,80"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path, env=env)
    text = " ".join((done.stderr + done.stdout).split())
    assert (done.returncode, why in text) == (2 if why else 0, True), text
    assert bool(list(tmp_path.glob("out/*map.nii.gz"))) == (not why)
