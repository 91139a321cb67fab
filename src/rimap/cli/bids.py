"""`rimap bids`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rimap.cli import _options as typed
from rimap.imports import nibabel_alone

if TYPE_CHECKING:
    from rimap.workflow.bids.outcome import Failure

NO_ARGS_IS_HELP = True


def command(
    bids_dir: Annotated[Path, typer.Argument(metavar="BIDS_DIR", help="The BIDS data set.")],
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUT_DIR", help="The derivative data set. If it exists, rimap resumes it.")
    ],
    level: Annotated[
        list[str],
        typer.Argument(
            metavar="participant|group",
            help="participant maps every series; group makes one page and one table over all subjects.",
        ),
    ],
    participant_label: Annotated[
        list[str] | None,
        typer.Option(
            "--participant-label",
            "--participant_label",
            metavar="LABEL",
            help="Only these subjects: 01 02 03, or 01,02,03.",
        ),
    ] = None,
    session_label: Annotated[
        list[str] | None,
        typer.Option("--session-label", "--session_label", metavar="LABEL", help="Only these sessions. Repeatable."),
    ] = None,
    run: typed.Run = None,
    nprocs: Annotated[
        int | None,
        typer.Option(
            "--nprocs",
            "--n-procs",
            metavar="N",
            min=1,
            help="Number of series to map in parallel, one core each. By default all cores.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Cores for each series. By default the cores are divided by --nprocs."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory limit for all series together (16GiB). By default a share of the free memory."
        ),
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            "--work-dir", "-w", metavar="DIR", help="Folder for temporary files. You may delete it afterwards."
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="Run on the Dask cluster of this scheduler.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="slurm|local", help="Start a Dask cluster and run on it.")
    ] = None,
    cluster_options: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML", help="Resources for each job of the cluster: jobs, cores, memory, walltime, queue …"
        ),
    ] = None,
    skip_bids_validation: Annotated[
        bool,
        typer.Option(
            "--skip-bids-validation", "--skip_bids_validation", help="Do not check whether BIDS_DIR is valid BIDS."
        ),
    ] = False,
    estimator: typed.EstimatorName = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Masks: a file, a pattern (m/sub-{sub}_mask.nii.gz; also {ses}, {run}, {map}) or a BIDS folder. "
            "auto: the foreground of the images.",
        ),
    ] = None,
    rois: Annotated[
        str | None,
        typer.Option(metavar="WHERE", help="Label images: a file, a pattern or a BIDS folder with _dseg files."),
    ] = None,
    tr_ms: typed.TrMs = None,
    sequence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Map only series of this sequence (see `rimap models`).")
    ] = None,
    settings: typed.Settings = None,
    given: typed.GivenMaps = None,
    signed: typed.Signed = None,
    skip_first: typed.SkipFirst = 0,
    noise: typed.NoiseName = None,
    sigma: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|FILE", help="Noise SD in the unit of the images. By default estimated from the images."
        ),
    ] = None,
    fixed: typed.Fixed = None,
    bounds: typed.Bounds = None,
    lambda_b: typed.LambdaB = None,
    network: typed.Network = None,
    sd_draws: typed.SdDraws = None,
    register: typed.Register = False,
    denoise: typed.Denoise = None,
    rates: typed.Rates = False,
    fill: typed.Fill = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Recompute finished series.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and failures.")] = False,
) -> None:
    """Map a whole BIDS data set (BIDS App).

    rimap maps the series in parallel on all cores or on a cluster. An interrupted run is resumed by the same command.

    \b
    rimap bids bids/ out/ participant --nprocs 8
    rimap bids bids/ out/ group --rois derivatives/segmentation
    rimap bids bids/ out/ participant --cluster slurm --cluster-options slurm.toml
    """
    nibabel_alone()
    from rimap.cli import _console as console
    from rimap.errors import one_of
    from rimap.foreground import AUTO
    from rimap.workflow import Request
    from rimap.workflow.bids import App, group, participant, summary
    from rimap.workflow.memory import size

    subjects, sessions = _lists(participant_label, session_label, level[1:])
    request = Request(
        inputs=(bids_dir,),
        out=output_dir,
        estimator=estimator,
        tr_ms=typed.numbers(tr_ms, "--tr-ms"),
        settings=typed.settings(settings),
        given=typed.given_maps(given),
        fixed=typed.fixed(fixed),
        bounds=typed.bounds(bounds),
        sequence=sequence,
        signed=signed,
        skip_first=skip_first,
        noise=noise,
        sigma=typed.sigma_or_file(sigma),
        estimator_options={**typed.smoothness(lambda_b), **typed.given(network=network, sd_draws=sd_draws)},
        participant_labels=typed.labels(subjects, "sub-"),
        sessions=typed.labels(sessions, "ses-"),
        runs=typed.labels(run, "run-"),
        rates=rates,
        fill=fill,
        overwrite=overwrite,
        threads=threads,
        memory=None if memory is None else size(memory, "--memory"),
        register=register,
        denoise=denoise,
        command=tuple(sys.argv[1:]),
    )
    app = App(
        request=request,
        masks=mask if mask in (None, AUTO) else Path(mask),
        rois=None if rois is None else Path(rois),
        nprocs=nprocs,
        work_dir=work_dir,
        scheduler=scheduler,
        cluster=None if cluster is None else cluster.strip().lower(),
        cluster_options=cluster_options,
        validate=not skip_bids_validation,
    )
    listener = console.listener(quiet=quiet)
    if one_of(level[0], ("participant", "group"), "the level of analysis") == "participant":
        mapped = participant(app, listener)
        console.show(summary.warnings(mapped.results), error=True)
        console.show(() if quiet else summary.of_participants(mapped))
        _conclude(mapped.failures, mapped.found, mapped.table)
    else:
        together = group(app, listener)
        console.show(summary.warnings_of_group(together), error=True)
        console.show(() if quiet else summary.of_group(together))
        _conclude(together.failures, together.found)


def _conclude(failures: Sequence[Failure], n: int, table: Path | None = None) -> None:
    """Print the failures, and exit with status 1 after a bug, or 2."""
    from rimap.cli import _console as console
    from rimap.errors import InputError
    from rimap.workflow.bids import summary

    if not failures:
        return
    console.show(summary.of_failures(failures), error=True)
    text = summary.conclusion(failures, n, table)
    if any(failure.bug for failure in failures):
        print(f"rimap: {text} Please report the bugs: they are in rimap, not in your data.", file=sys.stderr)
        raise typer.Exit(1)
    raise InputError(text)


def _lists(
    subjects: list[str] | None, sessions: list[str] | None, more: list[str]
) -> tuple[list[str] | None, list[str] | None]:
    """Return the labels, including those after the first value of an option, as in ``--participant-label 01 02 03``."""
    if not more:
        return subjects, sessions
    if (subjects is None) == (sessions is None):
        from rimap.errors import InputError

        raise InputError(
            f"expected participant or group alone, got also {' '.join(more)}. Separate labels by commas, as in "
            "--participant-label 01,02."
        )
    return (subjects and [*subjects, *more]), (sessions and [*sessions, *more])
