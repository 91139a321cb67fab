"""`rimap map`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rimap.cli import _options as typed

NO_ARGS_IS_HELP = True


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="A BIDS folder, a folder of DICOM, a 4-D NIfTI file, or several 3-D ones."
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for maps and reports.")],
    estimator: typed.EstimatorName = None,
    mask: Annotated[
        str | None,
        typer.Option(metavar="FILE|auto", help="NIfTI, non-zero where maps are wanted; auto: the voxels with signal."),
    ] = None,
    times_ms: Annotated[
        str | None,
        typer.Option(metavar="LIST", help='Inversion or echo times in ms: "50,400,1100". Else from the sidecars.'),
    ] = None,
    tr_ms: typed.TrMs = None,
    sequence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The kind of series, as `rimap models` lists them; from suffix and sidecars if left out.",
        ),
    ] = None,
    settings: typed.Settings = None,
    given: typed.GivenMaps = None,
    signed: typed.Signed = None,
    skip_first: typed.SkipFirst = 0,
    noise: typed.NoiseName = None,
    sigma: Annotated[
        str | None,
        typer.Option(metavar="NUMBER|FILE", help="Noise SD in the unit of the images; estimated if left out."),
    ] = None,
    fixed: typed.Fixed = None,
    bounds: typed.Bounds = None,
    lambda_b: typed.LambdaB = None,
    network: typed.Network = None,
    sd_draws: typed.SdDraws = None,
    series: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER", help="DICOM series; 5,6,7 for one made of several. Repeatable."),
    ] = None,
    participant_label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Only this subject, with or without sub-; several as 01,02. Repeatable."),
    ] = None,
    session: Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Only this session. Repeatable.")] = None,
    run: typed.Run = None,
    register: typed.Register = False,
    denoise: typed.Denoise = None,
    rois: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Label image: print and write a table of the values per label.")
    ] = None,
    rates: typed.Rates = False,
    fill: typed.Fill = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Cores to use; all if left out.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory to take at most (2GiB): a larger volume is mapped slab by slab (nlls). Of what is free, if left out.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; warnings only.")] = False,
) -> None:
    """Map relaxation times: series of images in, maps, sidecars and reports out.

    \b
    rimap map bids/ -o out
    rimap map ir.nii.gz --sequence ir --times-ms "50,400,1100,2500" --tr-ms 2550 -o out
    """
    from rimap.cli import _console as console

    console.limit_threads(threads)
    from rimap.errors import InputError
    from rimap.workflow import Request, map_series
    from rimap.workflow.memory import size

    request = Request(
        inputs=tuple(inputs),
        out=out,
        estimator=estimator,
        mask=mask,
        times_ms=typed.numbers(times_ms, "--times-ms"),
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
        participant_labels=typed.labels(participant_label, "sub-"),
        sessions=typed.labels(session, "ses-"),
        runs=typed.labels(run, "run-"),
        series=tuple(series or ()),
        rois=rois,
        rates=rates,
        fill=fill,
        overwrite=overwrite,
        threads=threads,
        memory=None if memory is None else size(memory, "--memory"),
        register=register,
        denoise=denoise,
        command=tuple(sys.argv[1:]),
    )
    mapped = map_series(request, console.listener(quiet=quiet))
    console.show_run(mapped, quiet=quiet)
    if mapped.refused:
        n = len(mapped.refused) + len(mapped.results) + len(mapped.fields) + len(mapped.kept)
        raise InputError(f"{len(mapped.refused)} of {n} series could not be mapped, for the reasons above.")
