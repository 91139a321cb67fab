"""`rimap evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rimap.evaluation.experiment import Experiment

NO_ARGS_IS_HELP = True


def command(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name of an experiment, `all`, or `list`.")],
    scan: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Your own scans, for test-retest: a BIDS folder, or a file.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")] = None,
    estimators: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Comma-separated: nlls, mle, global_b (one B), mle:1e4 (a λ_B), rim:NAME, rim:FILE.onnx, resnet:..., "
            "mppca+nlls.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Run a small version that takes seconds.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder with anatomies/test, brain_in_vivo and nist_phantom, as the experiment needs."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes.")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed.")] = 0,
    repeats: Annotated[
        int | None, typer.Option(metavar="C", min=2, help="Number of noise draws. By default the experiment's own.")
    ] = None,
    scans: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A repeated scan (repeatability, test-retest). Repeatable."),
    ] = None,
    noise_level: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="SD of the noise that simulates a repeat, relative to the median signal (repeatability)."
        ),
    ] = None,
    lines: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV file of lines, x0,y0,x1,y1 in voxels (sharpness, in vivo).")
    ] = None,
    sequence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Signal model of the scans (test-retest).")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Mask of the voxels that count (test-retest). By default the foreground."),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Cores for each estimator.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Recompute finished parts.")] = False,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Only redraw figures and summary from the existing table.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Run an experiment of the paper.

    rimap writes a table and figures, with the published results. Finished parts are kept: after an interruption, the
    same command resumes the run.

    \b
    rimap evaluate list
    rimap evaluate monte-carlo -o results --data DIR --workers 2
    rimap evaluate test-retest bids/ -o results
    rimap evaluate blurriness -o results --estimators mle,rim:universal,rim:runs/mine.onnx
    """
    from rimap.errors import InputError, one_of
    from rimap.evaluation.experiment import experiments

    found = experiments()
    if experiment.strip().lower() == "list":
        for name, value in found.items():
            print(f"{name:<20} {value.title} ({value.paper})")
        return
    if out is None:
        raise InputError("-o OUT: expected a folder for the results, got none.")
    typed = experiment.strip().lower().replace("_", "-")
    chosen = list(found) if typed == "all" else [one_of(typed, [*found, "all", "list"], "EXPERIMENT")]
    if data is not None and not data.is_dir():
        raise InputError(f"--data: expected an existing folder, got {data}.")
    if out.exists() and not out.is_dir():
        raise InputError(f"-o {out}: expected a folder, got a file.")
    if noise_level is not None and not noise_level > 0:
        raise InputError(f"--noise-level: expected a number above 0, got {noise_level:g}.")
    given = (*([scan] if scan else ()), *(scans or ()))
    for path in (*given, *(p for p in (lines, mask) if p)):
        if not path.exists():
            raise InputError(f"{path}: expected an existing file or folder, got none.")
    options = {
        "estimators": tuple(part.strip() for part in (estimators or "").split(",") if part.strip()),
        "quick": quick, "seed": seed, "data": data, "repeats": repeats, "scans": given, "lines": lines,
        "noise_level": noise_level, "threads": threads if threads or workers == 1 else 1,
        "sequence": sequence, "mask": mask,
    }  # fmt: skip
    refused = []
    for name in chosen:
        try:
            _run(found[name], out, options, workers, fresh=fresh, redraw=redraw, quiet=quiet)
        except InputError as error:
            if len(chosen) == 1:
                raise
            refused.append(f"{name}: {error}")
            print(f"{name}: skipped, {error}\n")
    if refused and len(refused) == len(chosen):
        raise InputError("no experiment could be run. The reasons are above.")


def _run(
    experiment: Experiment,
    out: Path,
    options: dict[str, object],
    workers: int,
    *,
    fresh: bool,
    redraw: bool,
    quiet: bool,
) -> None:
    from contextlib import nullcontext

    from rimap.cli._console import progress_bar
    from rimap.evaluation.experiment import Settings, draw, run
    from rimap.parallel import Processes

    print(f"{experiment.title} ({experiment.paper})")
    if redraw:
        print(draw(experiment, out / experiment.name), f"\nRedrawn: {out / experiment.name}\n", sep="\n")
        return
    pool = Processes(workers) if workers > 1 else nullcontext()
    with pool as executor, progress_bar(experiment.name, quiet=quiet) as progress:
        result = run(
            experiment,
            Settings(**options),  # type: ignore[arg-type]
            out,
            executor=executor,
            progress=progress,
            fresh=fresh,
        )
    for reason in result.skipped:
        print(f"skipped {reason}")
    print(result.summary, f"\nTable and figures: {result.folder}\n", sep="\n")
