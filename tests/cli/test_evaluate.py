"""`rimap evaluate` as typed."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from rimap.cli import build

RUN = CliRunner()


def test_the_list_names_every_experiment() -> None:
    result = RUN.invoke(build(), ["evaluate", "list"])
    assert result.exit_code == 0
    assert "monte-carlo" in result.output and "Fig. 3" in result.output


def test_a_run_a_second_run_and_a_redraw(tmp_path: Path) -> None:
    typed = ["evaluate", "t2_range", "-o", str(tmp_path), "--quick", "--estimators", "mle,rim:nobody", "--quiet"]
    first = RUN.invoke(build(), typed)
    assert first.exit_code == 0, first.output
    assert "skipped rim:nobody" in first.output and "MLE" in first.output
    table = (tmp_path / "t2-range" / "table.csv").read_bytes()
    assert RUN.invoke(build(), typed).exit_code == 0
    assert (tmp_path / "t2-range" / "table.csv").read_bytes() == table
    again = RUN.invoke(build(), ["evaluate", "t2-range", "-o", str(tmp_path), "--redraw"])
    assert again.exit_code == 0 and "MLE" in again.output


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    for typed, expected in (
        (["monte-carl", "-o", "x"], "Did you mean monte-carlo"),
        (["timing"], "-o OUT"),
        (["timing", "-o", str(tmp_path), "--estimators", "mel"], "got 'mel'"),
        (["phantom", "-o", str(tmp_path), "--quick", "--data", str(tmp_path)], "--data"),
        (["timing", "-o", str(tmp_path), "--data", str(tmp_path / "no")], "expected an existing folder"),
        (["timing", "-o", str(tmp_path), "--redraw"], "no table"),
        (["timing", "-o", str(tmp_path), "--lines", str(tmp_path / "no")], "expected an existing file"),
    ):
        result = RUN.invoke(build(), ["evaluate", *typed])
        assert result.exit_code == 2, result.output
        assert expected in result.output
