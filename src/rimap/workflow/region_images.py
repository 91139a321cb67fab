"""Regions of existing maps: find the label or probability images of each map, and the names of their regions."""

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
        (*X), labels or probabilities. All regions of one image share this array.
    least
        The lowest probability of a voxel in the region; `None` for labels.
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
    """Return the images with the regions of a map: those that `where` specifies, or else the one next to the map.

    Parameters
    ----------
    where
        Files, patterns as ``seg/sub-{sub}_dseg.nii.gz``, or folders with BIDS names.

    Raises
    ------
    InputError
        If there is no image, or if several fit equally well.
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
        beside = [path for s in SUFFIXES for path in of.path.parent.glob(f"*_{s}.nii*")]
        own = [p for p in beside if p.name.startswith(f"{of.stem}_")]
        if len(own or beside) == 1:
            return own or beside
        if beside:
            raise NoImage(
                f"{of.label}: expected one _dseg or _probseg image next to the map, got {len(own or beside)} "
                f"({', '.join(sorted(p.name for p in own or beside)[:4])}). Choose one with --labels."
            )
    raise NoImage(
        f"{of.label}: expected a _dseg or _probseg image next to the map, got none. "
        "Give a label image, a folder or a pattern with --labels."
    )


def _named(where: Path, entities: Mapping[str, str], label: str) -> Path:
    """Return the image that an option specifies for a map: labels or probabilities, or else a mask."""
    try:
        return image_for(where, entities, SUFFIXES, option="--labels", label=label)
    except NoImage:
        if not where.is_dir():
            raise
        return image_for(where, entities, (*SUFFIXES, "mask"), option="--labels", label=label)


def read_regions(image: Path, of: MapImage, threshold: float | None = None) -> tuple[list[Region], list[str]]:
    """Return the regions in an image on the grid of a map, and notes on how it was read.

    Whole numbers are labels, and 0 is no region. A probability image (values between 0 and 1) is one region, or one
    region per volume if it has several volumes.

    Parameters
    ----------
    threshold
        The lowest probability of a voxel in a region; 0.5 by default.

    Raises
    ------
    InputError
        If the image is on another grid, contains other numbers, or has no region.
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
        unused = f"{image.name} contains whole-number labels and no probabilities: --threshold was not used."
        said: list[str] = [] if threshold is None else [note(unused)]
        return [Region(int(v), names.get(int(v), ""), labels) for v in found], said
    least = HALF if threshold is None else threshold
    _refuse_other_numbers(image, volumes)
    numbers = sorted(names) if len(names) == len(volumes) else list(range(1, len(volumes) + 1))
    regions = [
        Region(number, names.get(number) or (_name_of(image) if len(volumes) == 1 else ""), volume, least)
        for number, volume in zip(numbers, volumes)
    ]
    if not any(region.inside.any() for region in regions):
        raise InputError(f"{image}: no voxel has a probability of {least:g} or more. Choose a lower --threshold.")
    return regions, [note(f"{image.name} contains probabilities: a region has the voxels with {least:g} or more.")]


def _refuse_other_numbers(image: Path, volumes: Sequence[NDArray[Any]]) -> None:
    low = min(float(np.nan_to_num(volume).min()) for volume in volumes)
    high = max(float(np.nan_to_num(volume).max()) for volume in volumes)
    if low < 0 or high > 1:
        raise InputError(
            f"{image}: expected whole numbers in one volume, or probabilities between 0 and 1, got {low:g} to {high:g}."
        )


def _name_of(image: Path) -> str:
    """Return the name of a mask: its ``label-`` or ``desc-``, or else its file name."""
    parsed = BidsName.parse(image.name)
    entities = parsed.entities if parsed else {}
    return entities.get("label") or entities.get("desc") or strip_nii(image)
