"""`rimap simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rimap.simulation.anatomies import Anatomy
    from rimap.simulation.recipe import PatchRecipe

NO_ARGS_IS_HELP = True


def command(
    out: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the data.")],
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A .toml file, or a protocol of the paper: IV_T1, HP_T1, IV_T2, ..."),
    ] = None,
    sequence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Signal model instead of a recipe, such as vfa or megre. Its protocol is random."
        ),
    ] = None,
    anatomy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|builtin", help="Anatomy: a label volume, a folder, builtin or brainweb:04. Repeatable."
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="Number of subjects, or of patches.")] = 1,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Random seed. By default that of the recipe.")
    ] = None,
    snr: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="SNR of white matter in the brightest image. By default random, as the recipe defines."
        ),
    ] = None,
    slice_number: Annotated[
        int | None,
        typer.Option(
            "--slice",
            metavar="K",
            min=1,
            help="Axial slice, counted from 1. By default the slice with the largest brain area.",
        ),
    ] = None,
    volume: Annotated[bool, typer.Option("--volume", help="Simulate all slices instead of one.")] = False,
    patches: Annotated[
        bool, typer.Option("--patches", help="Write training patches (.npz) instead of a BIDS data set.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False,
) -> None:
    """Simulate a BIDS data set with known truth, or training patches.

    \b
    rimap simulate IV_T1 -o simulated --snr 30
    rimap simulate --sequence vfa -o simulated
    rimap simulate recipes/t1.toml -o patches --patches --n 240
    """
    from dataclasses import replace

    from rimap.errors import InputError
    from rimap.io.atomic import write_together
    from rimap.signals.paper_protocols import PROTOCOLS
    from rimap.simulation.anatomies import load_anatomies
    from rimap.simulation.recipe import general, model_class, read_recipe, recipe_from, signal_level

    if (recipe is None) == (sequence is None):
        raise InputError("expected either RECIPE or --sequence NAME, got " + ("both." if recipe else "neither."))
    if recipe is None:
        what = general(str(sequence))
    else:
        what = read_recipe(recipe) if recipe not in PROTOCOLS else recipe_from({"preset": "paper", "protocol": recipe})
    what = replace(what, seed=what.seed if seed is None else seed)
    if snr is not None:
        if not 0 < snr < float("inf"):
            raise InputError(f"--snr: expected a number above 0, got {snr:g}.")
        sigma = 0.65 * signal_level(what.sequence) / snr  # 0.65: A of white matter
        what = replace(what, sigma=(sigma, sigma))
    if volume and (patches or slice_number is not None):
        raise InputError(
            f"expected --volume alone, got {'--patches' if patches else '--slice'} as well. Leave one out."
        )
    if patches and slice_number is not None:
        raise InputError(
            "--slice: expected it for subjects, got --patches as well, which have no slice. Leave one out."
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"-o {out}: expected a folder, got a file.")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(
            f"-o {out}: expected an empty or new folder, got one with files. Give another, or --overwrite."
        )
    anatomies = load_anatomies(anatomy or what.anatomies)
    if patches:
        files = {"patches.npz": _patches(what, anatomies, n)}
    else:
        files = _subjects(what, anatomies, n, slice_number, volume)
    write_together({out / name: content for name, content in files.items()})
    things = ("patch" if n == 1 else "patches") if patches else ("subject" if n == 1 else "subjects")
    print(f"Simulated {n} {things}: {out}")
    if not patches:
        option = "" if model_class(what.sequence).bids_suffix else f" --sequence {what.sequence}"
        maps = out.parent / (out.name + "-maps")
        print(f"Truth: {out / 'derivatives' / 'truth'}\nNext: rimap map {out} -o {maps}{option}")


def _subjects(
    recipe: PatchRecipe, anatomies: tuple[Anatomy, ...], n: int, slice_number: int | None, volume: bool
) -> dict[str, bytes]:
    import numpy as np

    from rimap.errors import InputError
    from rimap.simulation import dataset
    from rimap.simulation.label_volumes import brain_mask
    from rimap.simulation.subjects import simulate_acquisition

    files = dataset.description_files("rimap simulated subjects")
    for i in range(n):
        anatomy = anatomies[i % len(anatomies)]
        depth = anatomy.labels.shape[2]
        k = int(brain_mask(anatomy.labels).sum((0, 1)).argmax()) if slice_number is None else slice_number - 1
        if not 0 <= k < depth:
            raise InputError(f"--slice: expected 1 to {depth} for {anatomy.name}, got {k + 1}.")
        labels, affine = anatomy.labels, np.array(anatomy.affine)
        if not volume:
            labels = labels[:, :, k : k + 1]
            affine[:3, 3] += affine[:3, 2] * k
        series, kappa = simulate_acquisition(recipe, labels, i, affine=affine)
        subject = f"{i + 1:02d}"
        settings = recipe.as_dict() | {"anatomy": anatomy.name, "subject": i, "slice": None if volume else k + 1}
        files |= dataset.series_files(series, subject)
        files |= dataset.truth_files(kappa, labels, series, subject, settings)
    return files


def _patches(recipe: PatchRecipe, anatomies: tuple[Anatomy, ...], n: int) -> bytes:
    import io
    import json

    import numpy as np

    from rimap.simulation.patches import simulate_batch

    batch = simulate_batch(recipe, anatomies, 0, n)
    settings = {name: getattr(batch.model, name) for name in batch.model.settings}
    more: dict[str, Any] = {
        f"setting_{name}": np.asarray([] if value is None else value, float) for name, value in settings.items()
    }
    more |= {f"given_{name}": value for name, value in batch.known.items()}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=batch.images,
        kappa=batch.kappa,
        sigma=batch.sigma,
        labels=batch.labels,
        structures=batch.structures,
        times_ms=batch.model.times,
        **more,
        parameters=np.array([parameter.name for parameter in batch.model.parameters]),
        recipe=np.array(json.dumps(recipe.as_dict())),
    )
    return buffer.getvalue()
