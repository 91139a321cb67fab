"""The command line starts at once, finds its verbs, and says plainly what went wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from rimap import __version__
from rimap.cli import verbs
from rimap.cli._guard import guarded

HEAVY = ("numpy", "scipy", "numba", "nibabel", "torch", "onnxruntime", "matplotlib", "rich", "jinja2")


def python(code, *args, **environment):
    env = os.environ | environment
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=env, timeout=120)


@pytest.mark.parametrize("args", [["--help"], ["--version"], [], *([v, "--help"] for v in verbs())])
def test_help_imports_nothing_heavy(args):
    code = f"""
import sys
from rimap.cli import main
sys.argv = ["rimap"] + sys.argv[1:]
try:
    main()
except SystemExit as stop:
    assert stop.code in (0, 2), stop.code
assert not [m for m in {HEAVY} if m in sys.modules]
"""
    done = python(code, *args)
    assert done.returncode == 0, done.stderr


def test_help_is_fast():
    """By the clock of the processor: what else the machine does must not decide."""
    resource = pytest.importorskip("resource")

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "rimap", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3


def test_python_m_and_version():
    for module in ("rimap", "rimap.cli"):
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
        first, python, base, extras = done.stdout.splitlines()
        assert first == f"rimap {__version__}" and python.startswith("Python 3.")
        assert re.fullmatch(r"numpy \d[\w.+]*, scipy \d.*, numba \d.*, nibabel \d.*, onnxruntime \d.*", base)
        assert re.search(r"(no )?torch( \d|,)", extras)


def test_every_verb_is_found_and_has_a_help(rimap):
    assert verbs()[0] == "map" and "demo" in verbs() and "models" in verbs()
    top = rimap("--help").stdout
    for verb in verbs():
        assert f"  {verb}" in top
        result = rimap(verb, "--help")
        assert result.exit_code == 0 and "Usage: rimap" in result.stdout


def test_models_describes_one_sequence(rimap):
    text = " ".join(rimap("models", "vfa").stdout.split())
    for words in (
        "Variable flip angle",
        "Flip angle (α): plausible values: 1 to 180°",
        "FlipAngle",
        "_T1map",
        "doi:10.1002/mrm.10407",
    ):
        assert words in text, words
    refused = rimap("models", "vfaa")
    assert refused.exit_code == 2
    assert "got 'vfaa'. Did you mean vfa?" in refused.stderr


def test_models_lists_estimators_and_sequences(rimap):
    text = rimap("models").stdout
    for word in ("nlls", "mle", "ir", "t2", "IRT1", "MESE", "Networks", "rim_t1_31"):
        assert word in text
    assert re.search(r"Regularised maximum likelihood \(default for .*\bmese\b", text)
    assert "Recurrent inference machine (default for ir, t2)" in text
    assert "_pct" not in text and "validation_loss" not in text and "T2 in validation: median error " in text
    assert "largest |bias| 1.51 % (SNR 3), 1.46 % (SNR 5), " in text


@pytest.mark.parametrize(
    "args", [["map"], ["map", "x"], ["map", "x", "-o"], ["no-such-verb"], ["map", "x", "-o", "y", "--what"]]
)
def test_usage_errors(args, rimap):
    assert rimap(*args).exit_code == 2


def _run(error):
    """Run a verb that raises, in a process of its own."""
    return f"""
import typer
from rimap.errors import InputError
from rimap.cli._guard import guarded
def command() -> None:
    import warnings
    warnings.warn("from a library")
    raise {error}
app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(guarded(command))
app()
"""


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        ("InputError('correct it')", 2, "rimap: error: correct it"),
        ("PermissionError(13, 'Permission denied', '/x')", 2, "rimap: error: Permission denied (/x)."),
        ("MemoryError()", 2, "rimap: error: not enough memory"),
        ("KeyboardInterrupt()", 130, "rimap: interrupted."),
        ("ZeroDivisionError('division by zero')", 1, "rimap: bug: ZeroDivisionError: division by zero"),
    ],
)
def test_what_goes_wrong_is_said_in_two_lines(error, status, text):
    done = python(_run(error), RIMAP_DEBUG="")
    assert done.returncode == status
    assert done.stderr.startswith(text) and len(done.stderr.splitlines()) <= 2 and done.stdout == ""


def test_debug_shows_the_traceback():
    done = python(_run("ZeroDivisionError('division by zero')"), RIMAP_DEBUG="1")
    assert done.returncode == 1 and "Traceback" in done.stderr and "rimap: bug" in done.stderr


def test_guard_keeps_name_and_signature():
    def command(x: int = 1) -> None:
        """Do it."""

    import inspect

    assert inspect.signature(guarded(command)) == inspect.signature(command) and guarded(command).__doc__ == "Do it."
