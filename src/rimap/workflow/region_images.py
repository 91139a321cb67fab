"""Regions on maps that exist: label images and maps of probability, found for each map, with their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.advice import note
from rimap.array_inputs import HALF, threshold_of
from rimap.errors import InputError
from rimap.io.bids import BidsName, strip_nii
from rimap.io.companion_images import NoImage, image_for
from rimap.io.map_images import MapImage
from rimap.io.masks import LabelFile, open_on_grid
from rimap.io.voxel_grid import affine_of
from rimap.workflow.region_names import label_names

#: BIDS suffixes of images of regions.
SUFFIXES = ("dseg", "probseg")


@dataclass(frozen=True, eq=False)
class Region:
    """A region of a map.

    Parameters
    ----------
    label
        Its number.
    name
        Its name, "" if no table has one.
    values
        (*X), labels or probabilities: an image of a hundred labels is kept once.
    least
        The probability from which a voxel is inside; `None` for labels.
    """

    label: int
    name: str
    values: NDArray[Any]
    least: float | None = None

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Its voxels (*X)."""
        return np.asarray(self.values == self.label if self.least is None else np.nan_to_num(self.values) >= self.least)


def images_of_regions(of: MapImage, where: Sequence[Path]) -> list[Path]:
    """Return the images with the regions of a map: those that `where` names, else the one beside the map.

    Parameters
    ----------
    where
        Files, patterns as ``seg/sub-{sub}_dseg.nii.gz``, or folders with BIDS names.

    Raises
    ------
    InputError
        If there is none, or several fit and none is the best.
    """
    entities = {**of.entities, "map": of.of_main}
    if where:
        return [_named(w, entities, of.label) for w in where]
    if "sub" in of.entities:
        try:
            return [image_for(of.path.parent, entities, SUFFIXES, option="--labels", label=of.label)]
        except NoImage:
            pass
    else:
        beside = [p for s in SUFFIXES for p in of.path.parent.glob(f"*_{s}.nii*")]
        own = [p for p in beside if p.name.startswith(of.stem)]
        if len(own or beside) == 1:
            return own or beside
    raise NoImage(
        f"{of.label}: no regions were found: there is no _dseg or _probseg image beside the map. "
        "Give a label image, a folder or a pattern with --labels."
    )


def _named(where: Path, entities: Mapping[str, str], label: str) -> Path:
    """Return the image for a map that an option names: labels or probabilities, else a mask."""
    try:
        return image_for(where, entities, SUFFIXES, option="--labels", label=label)
    except NoImage:
        if not where.is_dir():
            raise
        return image_for(where, entities, (*SUFFIXES, "mask"), option="--labels", label=label)


def read_regions(image: Path, of: MapImage, threshold: float | None = None) -> tuple[list[Region], list[str]]:
    """Return the regions in an image on the grid of a map, and notes on how it was read.

    Whole numbers are labels, 0 is no region. An image of probabilities (values between 0 and 1) is one region, and one with
    several volumes has one in each.

    Parameters
    ----------
    threshold
        The probability from which a voxel is in a region; 0.5 by default.

    Raises
    ------
    InputError
        If the image is on another grid, holds other numbers, or has no region.
    """
    on = of.file()
    file = open_on_grid(image, on.shape, affine_of(on), "label image", several=True)
    names = label_names(image)
    volumes: list[NDArray[Any]] = list(file.volumes())
    probable = len(volumes) > 1 or (file.dtype.kind == "f" and threshold_of(volumes[0]) > 0)
    if not probable:
        labels = LabelFile(file).read()
        found = np.unique(labels[labels != 0])
        if len(found) == 1 and int(found[0]) not in names:
            names = {int(found[0]): _name_of(image)}  # a mask
        return [Region(int(v), names.get(int(v), ""), labels) for v in found], []
    least = HALF if threshold is None else threshold
    _refuse_other_numbers(image, volumes)
    numbers = sorted(names) if len(names) == len(volumes) else list(range(1, len(volumes) + 1))
    regions = [
        Region(n, names.get(n) or (_name_of(image) if len(volumes) == 1 else ""), v, least)
        for n, v in zip(numbers, volumes)
    ]
    if not any(r.inside.any() for r in regions):
        raise InputError(f"{image}: no voxel has a probability of {least:g} or more. Choose a lower --threshold.")
    return regions, [note(f"{image.name} holds probabilities: a region is where they are {least:g} or more.")]


def _refuse_other_numbers(image: Path, volumes: Sequence[NDArray[Any]]) -> None:
    low = min(float(np.nan_to_num(v).min()) for v in volumes)
    high = max(float(np.nan_to_num(v).max()) for v in volumes)
    if low < 0 or high > 1:
        raise InputError(
            f"{image}: expected whole numbers in one volume, or probabilities between 0 and 1, got {low:g} to {high:g}."
        )


def _name_of(image: Path) -> str:
    """Return what a mask is called: its ``label-`` or ``desc-``, else its file."""
    parsed = BidsName.parse(image.name)
    entities = parsed.entities if parsed else {}
    return entities.get("label") or entities.get("desc") or strip_nii(image)
