"""The state of a training on disk: safetensors, written whole, the recipe inside."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rimap import legacy_names
from rimap.errors import InputError
from rimap.estimators.rim.loop import RIMConfig
from rimap.training.recipe import EARLIER, TrainingRecipe

#: Files of a training.
CHECKPOINT, SETTINGS = "last.safetensors", "recipe.json"
#: The checkpoint before the last one: a disk may lose the newest of all.
PREVIOUS = "previous.safetensors"


def save_checkpoint(
    path: Path,
    recipe: TrainingRecipe,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    done: int,
) -> None:
    """Write weights, Adam's moments and the running average, whole or not at all, with the recipe inside.

    It is on the disk before it gets its name, and the checkpoint before it is kept as `PREVIOUS`.

    Raises
    ------
    InputError
        Where it cannot be written.
    """
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.items()}
    for i, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    part = path.with_name(path.name + ".part")
    try:
        save_file(tensors, part, metadata={"iteration": str(done), "recipe": json.dumps(recipe.as_dict())})
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        if path.exists():
            path.replace(path.with_name(PREVIOUS))
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise InputError(
            f"cannot write the checkpoint {path}: {error}. Iteration {done} is lost; the same command resumes from the "
            f"one before."
        ) from None


def resume(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: dict[str, Tensor]) -> int:
    """Load the checkpoint of a training, or the one before it where that is damaged; return how many iterations it has.

    Raises
    ------
    InputError
        If there are checkpoints and none can be read.
    """
    problems: list[str] = []
    for place in (path, path.with_name(PREVIOUS)):
        if not place.exists():
            continue
        try:
            done = _load(place, network, optimiser, average)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            problems.append(f"{place.name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        if problems:
            warnings.warn(
                f"The checkpoint {path} is damaged ({problems[0]}). The training resumes from {place.name}, iteration "
                f"{done}.",
                stacklevel=2,
            )
        return done
    if problems:
        raise InputError(
            f"{path.parent}: expected a checkpoint that can be read, got {'; '.join(problems)}. "
            f"To start again, remove {path.name} and {PREVIOUS} there."
        )
    return 0


def _load(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: dict[str, Tensor]) -> int:
    """Read all that a checkpoint has before anything is changed."""
    with safe_open(path, "pt") as f:
        done = int((f.metadata() or {})["iteration"])
        tensors = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 - not a mapping
    averages = {k: tensors[f"average.{k}"] for k in average}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = value
    network.load_state_dict(
        {key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")}
    )
    for key, value in averages.items():
        average[key].copy_(value)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return done


def load_weights(network: nn.Module, recipe: TrainingRecipe) -> None:
    """Start from a network that ships, an exported file or a checkpoint (`init`).

    Raises
    ------
    InputError
        Where its architecture is another.
    """
    from rimap.estimators.networks.restore import weights_of

    wanted = network.state_dict()
    found = grown(weights_of(recipe.init, network), wanted)
    if {key: value.shape for key, value in found.items()} != {key: value.shape for key, value in wanted.items()}:
        raise InputError(
            f"init = {recipe.init!r} is a network of another architecture than this recipe's. Leave out the [rim] "
            "table (it is then taken over from that network), or leave out init."
        )
    network.load_state_dict(found)


def grown(found: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a cell with zeros for the inputs and outputs that it does not have yet, behind its own.

    A network that reads more, or gives standard deviations as well, then begins as the one that it is trained on from.
    """
    out = dict(found)
    for name in ("cell.conv1.weight", "cell.output.weight", "cell.output.bias"):
        old, new = found.get(name), wanted.get(name)
        if old is None or new is None or old.shape == new.shape or any(a > b for a, b in zip(old.shape, new.shape)):
            continue
        padded = torch.zeros_like(new)
        padded[tuple(slice(0, length) for length in old.shape)] = old
        out[name] = padded
    return out


#: What may differ between the beginning and the end of a training; more iterations make it longer.
_MAY_CHANGE = {f"training.{key}" for key in ("validate_every", "checkpoint_every", "validation_batches", "iterations")}


def claim(recipe: TrainingRecipe, out: Path) -> None:
    """Write the recipe into the folder, or refuse a folder that belongs to another one.

    Keys that a recipe of an earlier release lacks must have their defaults in this one.

    Raises
    ------
    InputError
        If the folder belongs to another recipe, or its recipe cannot be read.
    """
    path = out / SETTINGS
    if path.exists() and any((out / name).exists() for name in (CHECKPOINT, PREVIOUS)):
        try:
            recorded = _in_current_names(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, InputError) as error:
            raise InputError(
                f"{path}: expected the recipe of the training in this folder, got {error}. Write the recipe anew "
                f"there, or remove {CHECKPOINT} and {PREVIOUS} to start again."
            ) from None
        there, here = _flat(recorded), _flat(recipe.as_dict())
        default = _flat(TrainingRecipe().as_dict())
        other = [key for key in here if here[key] != there.get(key, default.get(key)) and key not in _MAY_CHANGE]
        other += [key for key in there if key not in here]
        if other:
            raise InputError(
                f"{out} holds a training of another recipe: {other[0]} is {there.get(other[0])!r} there and "
                f"{here.get(other[0])!r} in yours{f', and {len(other) - 1} more differ' if other[1:] else ''}. "
                f"Give another folder with -o, or remove {CHECKPOINT} and {PREVIOUS} there."
            )
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(recipe.as_dict(), indent=1), encoding="utf-8")
    part.replace(path)


def _in_current_names(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe as rimap 0.1.0 wrote it with the names that its keys have now."""
    found = dict(recipe)
    found["init"] = Path(str(recipe.get("init", ""))).name  # earlier versions wrote where it was
    found["simulation"] = legacy_names.recipe(recipe.get("simulation", {}))
    found["rim"] = RIMConfig.of(recipe["rim"]).as_dict() if recipe.get("rim") else recipe.get("rim")
    for table in ("loss", "training"):
        found[table] = {EARLIER.get(key, key): value for key, value in recipe.get(table, {}).items()}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
