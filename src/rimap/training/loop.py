"""Train a RIM or a ResNet: one recipe, one loop, on a CPU, one GPU or several.

The state of a training is its weights, Adam's moments and the number of iterations: batch i of a recipe is always
the same, so a training that was killed resumes as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from torch import Tensor, nn

from rimap import __version__
from rimap.allowed_numbers import COUNT, Allowed, refuse_other_numbers
from rimap.errors import InputError, count_of
from rimap.estimators.network_files import ANY_SEQUENCE
from rimap.estimators.networks.export import cell_to_onnx, resnet_to_onnx, save_onnx
from rimap.estimators.networks.resnet import ResNet
from rimap.estimators.networks.rim import RIM
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import Quadratic, from_state, to_state
from rimap.estimators.rim.restoring import Restored, restored
from rimap.io.run_lock import locked
from rimap.io.write_claims import check_claims
from rimap.likelihood import HALF_OF_95
from rimap.parallel.processes import Processes
from rimap.signals import signal_models
from rimap.signals.base import AMPLITUDE, FIELD, TIME
from rimap.simulation.anatomies import Anatomy, load_anatomies
from rimap.simulation.patches import Batch, simulate_batch
from rimap.simulation.recipe import PatchRecipe
from rimap.training.checkpoint import CHECKPOINT, claim, load_weights, resume, save_checkpoint
from rimap.training.loss import batch_loss, estimates_of, tensors_of
from rimap.training.recipe import TrainingRecipe

LOG = "log.csv"
#: The end of the name of the network whose validation loss is the least so far.
BEST = "-best"
#: The standard deviation of the texture, relative to the value, in half of the batches of the calibration; bounds of
#: its factors.
TEXTURE, LARGEST_FACTOR = 0.03, (0.3, 5.0)
#: Columns of the log.
_COLUMNS = (
    "iteration", "loss", "rate", "seconds", "validation_loss", "bias_pct", "error_pct", "error_low_noise_pct",
    "error_mid_noise_pct", "error_high_noise_pct", "start_error_pct",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What the progress callback gets: iterations done, of how many, loss, learning rate, seconds each, validation."""

    done: int
    total: int
    loss: float
    rate: float
    seconds: float
    validation: dict[str, float] | None = None

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds * (self.total - self.done)


@dataclass(frozen=True)
class Machine:
    """Where to train. It changes results only in the last digits.

    Parameters
    ----------
    accelerator, devices
        As lightning-fabric takes them: ``auto``, ``cpu``, ``cuda``; a number of devices.
    workers
        Processes that simulate ahead; 0: a thread. −1: a thread on a CPU, up to 6 processes on a GPU.
    """

    accelerator: str = "auto"
    devices: int = 1
    workers: int = -1

    def __post_init__(self) -> None:
        refuse_other_numbers(self, {"devices": COUNT, "workers": Allowed(-1.0)})

    def fabric(self, precision: str) -> Fabric:
        """Return lightning-fabric on this machine.

        Raises
        ------
        InputError
            If the machine has no such accelerator, or not so many of it.
        """
        try:
            return Fabric(accelerator=self.accelerator, devices=self.devices, precision=cast(Any, precision))
        except (RuntimeError, ValueError, MisconfigurationException) as error:
            raise InputError(
                f"expected an accelerator of this machine, got {self.accelerator!r} with "
                f"{count_of(self.devices, 'device')}: {' '.join(str(error).split())}"
            ) from None


def build_network(recipe: TrainingRecipe) -> nn.Module:
    """Return the untrained network of a recipe; its seed draws the weights."""
    layout = Layout.of(signal_models()[recipe.simulation.sequence])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        if recipe.network == "rim":
            return RIM(recipe.rim, layout, mixed=recipe.training.precision == "bf16-mixed")
        return ResNet(len(recipe.simulation.times_ms), len(layout.carried))


def train(
    recipe: TrainingRecipe,
    out: Path | str,
    *,
    machine: Machine = Machine(),
    progress: Callable[[Step], None] | None = None,
    stop_at: int | None = None,
) -> Path:
    """Train, or resume training, in the folder `out`; return the exported network.

    Parameters
    ----------
    recipe
        What to train.
    out
        Gets the checkpoint, the log, the recipe, ``NAME.onnx`` (at each checkpoint) and ``NAME-best.onnx`` (of the
        least validation loss), each written whole.
    progress
        Called after every iteration.
    stop_at
        Stop after this iteration as if killed just behind its checkpoint.

    Raises
    ------
    InputError
        Where `out` holds the training of another recipe or another process trains there, where a checkpoint cannot be
        read or written, the machine or the anatomies cannot train it, or the training diverged (with what to do).
    """
    o, out = recipe.training, Path(out)
    inside = recipe.network == "rim" and o.precision == "bf16-mixed"  # the cell alone, not the data term
    precision = cast(Any, "32-true" if inside else o.precision)
    if stop_at is not None and stop_at < 1:
        raise InputError(f"iterations to stop at: expected 1 or more, got {stop_at}.")
    fabric = machine.fabric(precision)
    fabric.launch()
    ready = _prepared(recipe, fabric)  # refuses what cannot be trained before anything is written
    with locked(out) if fabric.is_global_zero else contextlib.nullcontext():
        if fabric.is_global_zero:
            claim(recipe, out)
        fabric.barrier()
        return _train(recipe, out, fabric, machine, ready, progress, stop_at)


@dataclass
class _Ready:
    """What a training needs, before its folder is read or written."""

    network: nn.Module
    wrapped: Any
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]
    train_on: tuple[Anatomy, ...]
    judge_on: tuple[Anatomy, ...]
    held: list[Batch]


def _prepared(recipe: TrainingRecipe, fabric: Fabric) -> _Ready:
    o = recipe.training
    for simulation in recipe.simulations:
        if o.batch_size % (fabric.world_size * simulation.noise_draws):
            raise InputError(
                f"batch_size {o.batch_size} must be a multiple of devices × noise_draws = "
                f"{fabric.world_size} × {simulation.noise_draws}."
            )
    network = build_network(recipe)
    if recipe.init:
        load_weights(network, recipe)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), lr=o.rate, weight_decay=o.weight_decay, foreach=True)
    average = {key: value.detach().clone() for key, value in network.state_dict().items()} if o.ema else {}
    wrapped, optimiser = fabric.setup(network, optimiser)
    average = {key: value.to(fabric.device) for key, value in average.items()}
    train_on, judge_on = _anatomies(recipe)
    judged_on = range(max(o.validation_batches, len(recipe.simulations)))
    held = [simulate_batch(_judging(recipe, i), judge_on, i, _judging_size(recipe)) for i in judged_on]
    return _Ready(network, wrapped, optimiser, average, train_on, judge_on, held)


def _train(
    recipe: TrainingRecipe,
    out: Path,
    fabric: Fabric,
    machine: Machine,
    ready: _Ready,
    progress: Callable[[Step], None] | None,
    stop_at: int | None,
) -> Path:
    o, network, wrapped, optimiser, average = (
        recipe.training, ready.network, ready.wrapped, ready.optimiser, ready.average,
    )  # fmt: skip
    train_on, judge_on, held = ready.train_on, ready.judge_on, ready.held
    end = min(o.iterations, stop_at or o.iterations)
    done = first = resume(out / CHECKPOINT, network, optimiser, average)  # where the weights are: so are the moments
    log = _Log(out / LOG, done) if fabric.is_global_zero else None
    recent: deque[float] = deque(maxlen=100)
    least = _least_so_far(out / LOG)
    began = time.perf_counter()
    executor = _executor(recipe, machine, str(fabric.device.type))
    with executor:
        for batch in _ahead(recipe, executor, train_on, done, end, fabric.global_rank, fabric.world_size):
            for group in optimiser.param_groups:
                group["lr"] = o.rate_at(done)
            loss = batch_loss(recipe, wrapped, batch, fabric.device)
            value = float(loss.detach())
            _check(value, recent, done, o.rate)
            recent.append(value)
            optimiser.zero_grad()
            fabric.backward(loss)
            if o.clip_gradient:
                fabric.clip_gradients(wrapped, optimiser, max_norm=o.clip_gradient, error_if_nonfinite=False)
            optimiser.step()
            done += 1
            if o.ema:
                _average(average, network, min(o.ema, (1 + done) / (10 + done)))
            judged = None
            last = done == end
            if fabric.is_global_zero and (last or done % o.validate_every == 0):
                with _averaged(network, average):
                    judged = validate(recipe, network, held, fabric.device)
                if judged["validation_loss"] < least:
                    least = judged["validation_loss"]
                    check_claims(out)
                    with _averaged(network, average):
                        export(recipe, network, out / f"{recipe.name}{BEST}.onnx", done, judged, len(train_on))
            seconds = (time.perf_counter() - began) / (done - first)
            step = Step(done, o.iterations, value, o.rate_at(done - 1), seconds, judged)
            if log:
                log.add(step)
            if progress and fabric.is_global_zero:
                progress(step)
            if fabric.is_global_zero and (last or done % o.checkpoint_every == 0):
                check_claims(out)
                save_checkpoint(out / CHECKPOINT, recipe, network, optimiser, average, done)
                with _averaged(network, average):
                    factors = (
                        calibrated(recipe, network, _calibration(recipe, judge_on, held), fabric.device)
                        if last
                        else None
                    )
                    export(recipe, network, out / f"{recipe.name}.onnx", done, judged, len(train_on), factors)
    if first >= end and fabric.is_global_zero:
        with _averaged(network, average):
            figures = validate(recipe, network, held, fabric.device)
            factors = calibrated(recipe, network, _calibration(recipe, judge_on, held), fabric.device)
            export(recipe, network, out / f"{recipe.name}.onnx", done, figures, len(train_on), factors)
    return out / f"{recipe.name}.onnx"


# ---- validation ------------------------------------------------------------------------------------------------


def validate(
    recipe: TrainingRecipe, network: nn.Module, batches: list[Batch], device: torch.device
) -> dict[str, float]:
    """Return the loss and the relative errors of T in the brain (%): median bias, median absolute error.

    The error is also given for three noise levels, and for the start.
    """
    losses, errors, starts, noise = [], [], [], []
    was = network.training
    network.eval()
    with torch.no_grad():
        for batch in batches:
            losses.append(float(batch_loss(recipe, network, batch, device)))
            tensors = tensors_of(batch, device)
            estimates = estimates_of(recipe, network, batch, tensors).steps
            layout = Layout.of(batch.model)
            T, first = (from_state(recipe.rim, layout, u)[-1].cpu().numpy() for u in (estimates[-1], estimates[0]))
            truth = tensors[1][-1].cpu().numpy()
            inside = batch.brain & batch.weight
            errors.append((T / truth - 1)[inside])
            starts.append((first / truth - 1)[inside])
            noise.append(np.broadcast_to(batch.sigma[:, None, None], T.shape)[inside])
    network.train(was)
    e, f, s = (np.concatenate(x) for x in (errors, starts, noise))
    low, high = np.log(recipe.simulation.sigma)
    third = np.clip(((np.log(s) - low) / max(high - low, 1e-9) * 3).astype(int), 0, 2)

    def median(x: Any) -> float:
        return float(100 * np.median(x)) if len(x) else math.nan

    return {
        "validation_loss": float(np.mean(losses)),
        "bias_pct": median(e),
        "error_pct": median(abs(e)),
        "error_low_noise_pct": median(abs(e[third == 0])),
        "error_mid_noise_pct": median(abs(e[third == 1])),
        "error_high_noise_pct": median(abs(e[third == 2])),
        "start_error_pct": median(abs(f)),
    }


def calibrated(
    recipe: TrainingRecipe, network: nn.Module, batches: Sequence[Batch], device: torch.device
) -> tuple[float, float, float]:
    """Return by what the standard deviations of amplitudes, field and time are multiplied, so that 1.96 of them hold 95
    % of the errors.

    This is split conformal prediction (Vovk et al. 2005, doi:10.1007/b106715): the batches are of anatomies and of a
    texture that were not trained on, and the factor is a quantile of the errors there: of each batch, which has a
    protocol of its own, and then the median of the batches. A protocol that barely determines the field has intervals
    that are several times too narrow in a patch; it must not widen those of all others.
    """
    found: dict[str, list[float]] = {AMPLITUDE: [], FIELD: [], TIME: []}
    was = network.training
    network.eval()
    with torch.no_grad():
        for batch in batches:
            tensors, layout = tensors_of(batch, device), Layout.of(batch.model)
            passed = estimates_of(recipe, network, batch, tensors)
            if passed.sd is None or not batch.weight.any():
                continue
            truth = to_state(recipe.rim, layout, tensors[1]).cpu().numpy()
            u, deviation = passed.steps[-1].cpu().numpy(), passed.sd.cpu().numpy()
            if recipe.rim.restore:
                u, deviation = _restored(recipe, batch, u, deviation)
            ratio = np.nan_to_num(abs(u - truth) / deviation, nan=np.inf)  # no estimate: its interval holds nothing
            for p, of_parameter in zip(layout.carried, ratio):
                found[p.role].append(float(np.quantile(of_parameter[batch.weight], 0.95, method="higher")))
    network.train(was)

    def factor(role: str) -> float:
        if not found[role]:
            return 1.0
        low, high = LARGEST_FACTOR
        return float(np.clip(np.median(found[role]) / HALF_OF_95, low, high))

    return factor(AMPLITUDE), factor(FIELD), factor(TIME)


def _restored(recipe: TrainingRecipe, batch: Batch, u: NDArray[Any], sd: NDArray[Any]) -> Restored:
    """Return estimates of a batch and their standard deviations with what is put back, as in mapping."""
    layout = Layout.of(batch.model)
    sigma = batch.sigma[:, None, None].astype(np.float32)
    images = np.ascontiguousarray(batch.images.swapaxes(0, 1), np.float32)
    data = DataTerm(batch.model, images, sigma, batch.rician, known=batch.known)

    def quadratic_at(u: NDArray[Any]) -> Quadratic:
        carried = np.asarray(from_state(recipe.rim, layout, u), np.float32)
        return Quadratic.of(recipe.rim, layout, carried, data(carried), sigma)

    return restored(u, sd, quadratic_at)


def _calibration(recipe: TrainingRecipe, anatomies: Sequence[Anatomy], held: Sequence[Batch]) -> list[Batch]:
    """Return the batches of the validation, and as many that have a texture from voxel to voxel; none without
    intervals.
    """
    if not recipe.rim.sd_outputs:
        return []
    size, found = _judging_size(recipe), list(held)
    for index in range(len(held)):
        textured = replace(
            _judging(recipe, index), white_share=1.0, white_relative=(TEXTURE, TEXTURE), ringing_share=0.0
        )
        found.append(simulate_batch(textured, anatomies, index, size))
    return found


def _judging(recipe: TrainingRecipe, index: int) -> PatchRecipe:
    return replace(recipe.simulation_of(index), seed=recipe.simulation.seed + 1_000_003)


def _judging_size(recipe: TrainingRecipe) -> int:
    D = recipe.simulation.noise_draws
    return max(recipe.training.batch_size // D, 1) * D


def _anatomies(recipe: TrainingRecipe) -> tuple[tuple[Anatomy, ...], tuple[Anatomy, ...]]:
    """Return what to train on and what to validate on; they never share an anatomy."""
    found = load_anatomies(recipe.simulation.anatomies)
    if recipe.training.validation:
        return found, load_anatomies(recipe.training.validation)
    if len(found) > 1:
        return found[:-1], found[-1:]
    return found, load_anatomies(["builtin"])


# ---- batches ahead of the step ---------------------------------------------------------------------------------

#: What a worker process keeps between batches: the recipe and its anatomies.
_WORKER: dict[str, Any] = {}


def _start_worker(sources: tuple[str, ...], keep: int) -> None:
    _WORKER["anatomies"] = load_anatomies(sources)[:keep]


def _work(recipe: PatchRecipe, index: int, size: int) -> Batch:
    return simulate_batch(recipe, _WORKER["anatomies"], index, size)


def _executor(recipe: TrainingRecipe, machine: Machine, device: str) -> Executor:
    workers = machine.workers
    if workers < 0:
        workers = 0 if device == "cpu" else min(6, max(1, (os.cpu_count() or 2) - 1))
    if workers == 0:
        return ThreadPoolExecutor(1)
    train_on, _ = _anatomies(recipe)
    return Processes(workers, prepare=partial(_start_worker, recipe.simulation.anatomies, len(train_on)))


def _ahead(
    recipe: TrainingRecipe,
    executor: Executor,
    anatomies: tuple[Anatomy, ...],
    start: int,
    stop: int,
    rank: int,
    world: int,
) -> Iterator[Batch]:
    """Yield batches start … stop − 1, each simulated ahead of its turn; a rank gets its share of each."""
    size = recipe.training.batch_size // world
    depth = 3 * (executor.size if isinstance(executor, Processes) else 1)
    local = isinstance(executor, ThreadPoolExecutor)

    def ask(i: int) -> Future[Batch]:
        if local:
            return executor.submit(simulate_batch, recipe.simulation_of(i), anatomies, i * world + rank, size)
        return executor.submit(_work, recipe.simulation_of(i), i * world + rank, size)

    waiting = deque(ask(index) for index in range(start, min(start + depth, stop)))
    try:
        for index in range(start, stop):
            batch = waiting.popleft().result()
            if index + depth < stop:
                waiting.append(ask(index + depth))
            yield batch
    finally:
        for f in waiting:
            f.cancel()


def _least_so_far(log: Path) -> float:
    """Return the smallest validation loss in a log; infinity if there is none."""
    if not log.exists():
        return math.inf
    with log.open(newline="", encoding="utf-8") as f:
        found = [row["validation_loss"] for row in csv.DictReader(f)]
    return min((float(value) for value in found if value), default=math.inf)


class _Log:
    """The CSV log: one row for each iteration. If a training resumes from a checkpoint, later rows are removed."""

    def __init__(self, path: Path, done: int) -> None:
        rows: list[list[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as f:
                rows = [r for r in csv.reader(f) if r and r[0].isdigit() and int(r[0]) <= done]
        part = path.with_name(path.name + ".part")
        with part.open("w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([_COLUMNS, *rows])
        part.replace(path)
        self._path = path

    def add(self, step: Step) -> None:
        judged = step.validation or {}
        values = [f"{judged[c]:.5g}" if c in judged else "" for c in _COLUMNS[4:]]
        with self._path.open("a", newline="", encoding="utf-8") as f:
            csv.writer(f).writerow([step.done, f"{step.loss:.6g}", f"{step.rate:.4g}", f"{step.seconds:.4g}", *values])


def _check(value: float, recent: deque[float], done: int, rate: float) -> None:
    if not math.isfinite(value):
        raise InputError(
            f"training stopped: the loss is not a number at iteration {done}. Lower the rate ({rate:g}) or set "
            "clip_gradient; the last checkpoint is intact."
        )
    if len(recent) == recent.maxlen and value > 1e4 * float(np.median(recent)):
        raise InputError(
            f"training stopped: it diverged at iteration {done} (loss {value:.3g}, {np.median(recent):.3g} before). "
            f"Lower the rate ({rate:g}) or set clip_gradient; the last checkpoint is intact."
        )


def _average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, 1 - decay)
            else:
                average[key].copy_(value)


class _averaged:
    """The network with its averaged weights, inside a `with`; as it is if there is no average."""

    def __init__(self, network: nn.Module, average: dict[str, Tensor]) -> None:
        self._network, self._average = network, average

    def __enter__(self) -> None:
        if self._average:
            self._own = {key: value.detach().clone() for key, value in self._network.state_dict().items()}
            self._network.load_state_dict(self._average)

    def __exit__(self, *_: object) -> None:
        if self._average:
            self._network.load_state_dict(self._own)


def _of_sequences(recipe: TrainingRecipe, anatomies: int) -> dict[str, Any]:
    """Return what a network was trained for: one sequence and what it has seen of it, or any, with each that it has
    seen.
    """
    if not recipe.rim.any_sequence:
        carried = Layout.of(signal_models()[recipe.simulation.sequence]).carried
        return {
            "sequence": recipe.simulation.sequence,
            "carries": [parameter.name for parameter in carried],
            "trained_on": recipe.ranges(anatomies),
        }
    return {
        "sequence": ANY_SEQUENCE,
        "carries": [AMPLITUDE, FIELD, TIME],
        "trained_on": {simulation.sequence: recipe.ranges(anatomies, simulation) for simulation in recipe.simulations},
    }


def export(
    recipe: TrainingRecipe,
    network: nn.Module,
    path: Path | str,
    iterations: int,
    figures: dict[str, float] | None,
    anatomies: int = 0,
    sd_factors: tuple[float, float, float] | None = None,
) -> None:
    """Write the network as ONNX with its recipe, its training ranges and its figures inside."""
    metadata = {
        "kind": recipe.network,
        "name": recipe.name,
        "description": recipe.description,
        **_of_sequences(recipe, anatomies),
        "rim": recipe.rim.as_dict() if recipe.network == "rim" else None,
        "iterations": iterations,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "figures": {key: round(value, 4) for key, value in (figures or {}).items() if math.isfinite(value)},
        **(
            {"sd_factors": [round(sd_factor, 4) for sd_factor in sd_factors]}
            if sd_factors and recipe.rim.sd_outputs
            else {}
        ),
        "recipe": recipe.as_dict(),
        "rimap": __version__,
    }
    model = (
        cell_to_onnx(network.cell, metadata)
        if isinstance(network, RIM)
        else resnet_to_onnx(cast(ResNet, network), metadata)
    )
    save_onnx(model, path)
