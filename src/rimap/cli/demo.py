"""`rimap demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write.")] = Path("rimap-demo"),
    estimator: Annotated[str | None, typer.Option(metavar="NAME", help="Estimator, as for `rimap map`.")] = None,
) -> None:
    """Simulate an inversion recovery of a brain, and map it."""
    from rimap.cli import _console as console
    from rimap.cli._demo_data import write_demo
    from rimap.workflow import Request, map_series

    data = write_demo(folder)
    options = ["--mask", str(data.mask), "--rois", str(data.labels), "--overwrite"]
    options += ["--estimator", estimator] if estimator else []
    command = ["map", str(data.dataset), "-o", str(data.out), *options]
    print(f"rimap simulated a data set of one subject: {data.dataset}/")
    print(f"$ {shlex.join(['rimap', *command])}")
    request = Request(
        inputs=(data.dataset,),
        out=data.out,
        mask=data.mask,
        rois=data.labels,
        estimator=estimator,
        overwrite=True,
        command=tuple(command),
    )
    console.show_run(map_series(request, console.listener()))
    print("Simulated median T1: " + ", ".join(f"{name} {T1:,.0f} ms" for _, name, T1 in data.truth))
    print("Open the report in a browser, and the maps in any NIfTI viewer.")
