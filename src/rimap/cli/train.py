"""`rimap train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

NO_ARGS_IS_HELP = True


def command(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A .toml recipe. The folder recipes/ has those of the shipped networks."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="OUT", help="Folder for the checkpoint, the log and the trained network."),
    ],
    anatomies: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Train on these label volumes or folders instead of the recipe's. Repeatable.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.KEY=VALUE",
            help="Override a value of the recipe, such as training.rate=1e-3. Repeatable.",
        ),
    ] = None,
    accelerator: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Train on a CPU or on GPUs.")] = "auto",
    devices: Annotated[int, typer.Option(metavar="N", help="Number of GPUs.", min=1)] = 1,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=-1,
            help="Number of processes that simulate training data. 0: a thread; -1: as many as the device needs.",
        ),
    ] = -1,
    threads: Annotated[int, typer.Option(metavar="N", help="Cores for the network on a CPU. 0: all.", min=0)] = 0,
    iterations: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Stop after this many iterations in total; the same command resumes later. 0: as in the recipe.",
        ),
    ] = 0,
    every: Annotated[int, typer.Option(metavar="N", help="Number of iterations between printed lines.", min=1)] = 10,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write the log for TensorBoard, into OUT/tensorboard.")
    ] = False,
) -> None:
    """Train a RIM or a ResNet for any protocol.

    The same command resumes an interrupted training.
    """
    try:
        import torch

        from rimap.training.loop import Machine, Step, train
    except ImportError as error:
        from rimap.errors import InputError

        raise InputError(
            f"training needs additional packages, and {error.name} is missing. Install the extra: pip install "
            "'rimap[train]'."
        ) from None
    from rimap.training.recipe import read_training_recipe

    what = read_training_recipe(recipe, anatomies=tuple(anatomies or ()), changes=tuple(changes or ()))
    if threads:
        torch.set_num_threads(threads)
    print(
        f"{what.name}: {what.network}, {what.training.iterations} iterations of {what.training.batch_size} patches",
        flush=True,
    )

    first = True

    new_writer = _writer_of() if tensorboard else None
    writer: Any = None

    def show(step: Step) -> None:
        nonlocal first, writer
        if new_writer is not None:
            writer = writer or new_writer(str(out / "tensorboard"))  # now that the training writes as well
            values = {"loss": step.loss, "rate": step.rate, **(step.validation or {})}
            for name, value in values.items():
                writer.add_scalar(name, value, step.done)
        if step.validation is None and step.done % every and not first:
            return
        first = False
        line = (
            f"{step.done:>6}/{step.total}  loss {step.loss:<9.4g} rate {step.rate:.2e}  "
            f"{step.seconds:.2f} s/iteration, {_duration(step.left)} left"
        )
        if step.validation:
            v = step.validation
            line += (
                f"\n        validation: loss {v['validation_loss']:.4g}, T median error {v['error_pct']:.2f} % "
                f"(low, mid, high noise {v['error_low_noise_pct']:.2f}, {v['error_mid_noise_pct']:.2f}, "
                f"{v['error_high_noise_pct']:.2f} %), median bias {v['bias_pct']:+.2f} %, "
                f"error of the first step {v['start_error_pct']:.2f} %"
            )
        print(line, flush=True)

    machine = Machine(accelerator=accelerator, devices=devices, workers=workers)
    network = train(what, out, machine=machine, progress=show, stop_at=iterations or None)
    print(f"trained: {network}\nmap with it: rimap map INPUT -o OUT --estimator {what.network} --network {network}")


def _writer_of() -> Any:
    """Return what writes the log for TensorBoard into a folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        from rimap.errors import InputError

        raise InputError(
            f"--tensorboard: the package {error.name} is missing. Install it: pip install tensorboard. "
            "Without it, the log is in OUT/log.csv."
        ) from None
    return SummaryWriter


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds > 5400
        else f"{seconds / 60:.0f} min"
        if seconds > 90
        else f"{seconds:.0f} s"
    )
