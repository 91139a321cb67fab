"""`rimap map`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rimap.cli import _options as typed
from rimap.imports import nibabel_alone

NO_ARGS_IS_HELP = True


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="A BIDS folder, a folder of DICOM or NIfTI files, a 4-D NIfTI file, or several 3-D NIfTI files.",
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for maps and reports.")],
    estimator: typed.EstimatorName = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|auto",
            help="Mask (NIfTI, non-zero inside). auto: the foreground of the images. By default all voxels are mapped.",
        ),
    ] = None,
    times_ms: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help='Inversion or echo times in ms: "50,400,1100". By default read from the sidecars.'
        ),
    ] = None,
    tr_ms: typed.TrMs = None,
    sequence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Sequence of the series (see `rimap models`). By default from the file suffix and the sidecars.",
        ),
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
    series: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER", help="Only this DICOM series. 5,6,7 combines several series into one. Repeatable."
        ),
    ] = None,
    participant_label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Only this subject, or several as 01,02. Repeatable."),
    ] = None,
    session: Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Only this session. Repeatable.")] = None,
    run: typed.Run = None,
    register: typed.Register = False,
    denoise: typed.Denoise = None,
    rois: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Label image: print and write a table of the values in each region."),
    ] = None,
    rates: typed.Rates = False,
    fill: typed.Fill = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier maps.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Cores to use. By default all.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory limit (2GiB). A larger volume is mapped slab by slab (nlls, or mle without a smooth field). "
            "By default a share of the free memory.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings.")] = False,
) -> None:
    """Estimate maps of T1, T2 or T2* from series of images.

    rimap writes the maps with BIDS sidecars, and a report for each series.

    \b
    rimap map bids/ -o out
    rimap map ir.nii.gz --sequence ir --times-ms "50,400,1100,2500" --tr-ms 2550 -o out
    """
    from rimap.cli import _console as console

    console.limit_threads(threads)
    nibabel_alone()
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
        raise InputError(f"{len(mapped.refused)} of {n} series could not be mapped. The reasons are above.")
