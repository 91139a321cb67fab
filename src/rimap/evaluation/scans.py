"""Real scans: the phantom with its reference values, a brain, and repeats where a site has one scan."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rimap.errors import InputError
from rimap.estimators.base import Estimator
from rimap.estimators.nlls.estimator import NLLS
from rimap.evaluation.experiment import Settings
from rimap.evaluation.repeated_estimates import Repeats
from rimap.io import read_labels
from rimap.io.reading_options import Reading
from rimap.io.series_search import one_series
from rimap.io.voxel_grid import same_grid
from rimap.likelihood import Gaussian, Rician
from rimap.series import WeightedSeries


@dataclass(frozen=True)
class PhantomScan:
    """One scan of the NIST phantom.

    Parameters
    ----------
    spheres
        Which array the values are of: ``T1`` or ``T2`` reference.
    skip_first
        Echoes left out (the first echo of a MESE is too low for this model).
    layout, tesla
        The array by its name in `rimap.evaluation.references`, and the field strength: what a simulation of the scan
        has.
    """

    name: str
    subject: str
    sequence: str
    spheres: str
    skip_first: int = 0
    layout: str = "nist-t1"
    tesla: float = 3.0


PHANTOM = (
    PhantomScan("T1, 3 T", "sub-philips3TplateT1", "ir", "T1"),
    PhantomScan("T1, 1.5 T", "sub-siemens1p5TplateT1", "ir", "T1", tesla=1.5),
    PhantomScan("T2, 3 T, T1 array", "sub-philips3TplateT1", "t2", "T2", 1),
    PhantomScan("T2, 3 T, T2 array", "sub-philips3TplateT2", "t2", "T2", 1, layout="nist-t2"),
)


@dataclass(frozen=True, eq=False)
class Regions:
    """A series with regions of known T.

    Parameters
    ----------
    labels
        (*X), 0 outside.
    reference
        T in ms by label.
    """

    series: WeightedSeries
    labels: NDArray[np.int64]
    reference: dict[int, float]


@lru_cache(maxsize=4)
def phantom(folder: Path | str, scan: PhantomScan) -> Regions:
    """Return a scan of the phantom, cut to its spheres, with its own σ as noise."""
    folder = Path(folder)
    rois = folder / "derivatives" / "rois" / scan.subject / "anat"
    stem = f"{scan.subject}_desc-spheres{scan.spheres}"
    with (rois / f"{stem}_reference.tsv").open() as file:
        reference = {int(r["sphere"]): float(r["reference_ms"]) for r in csv.DictReader(file, delimiter="\t")}
    series = _read(folder / scan.subject, scan.sequence, scan.skip_first)
    labels = read_labels(rois / f"{stem}_dseg.nii.gz", series.shape, series.affine)
    values = np.asarray(labels, np.int64)
    values = np.where(np.isin(values, list(reference)), values, 0)
    return Regions(*_cut(series, values), reference)


def _cut(series: WeightedSeries, labels: NDArray[np.int64]) -> tuple[WeightedSeries, NDArray[np.int64]]:
    """Return series and labels cut to the labels and 20 voxels around, the labels as the mask, σ estimated."""
    box = []
    for axis, length in enumerate(labels.shape):
        at = np.flatnonzero((labels > 0).any(axis=tuple(set(range(labels.ndim)) - {axis})))
        box.append(slice(max(0, int(at[0]) - 20), min(length, int(at[-1]) + 21)))
    labels = labels[tuple(box)]
    images = np.ascontiguousarray(series.images[(slice(None), *box)])
    return with_sigma(replace(series, images=images, mask=labels > 0, affine=None)), labels


def with_sigma(series: WeightedSeries) -> WeightedSeries:
    """Return the series with Gaussian noise, whose σ is estimated from the least-squares residuals.

    Raises
    ------
    InputError
        If there are too few images to estimate σ.
    """
    if series.noise is not None and series.noise.sigma is not None:
        return series
    noise = NLLS().estimate(series).noise
    if noise is None or noise.sigma is None:
        raise InputError(f"{series.source}: σ cannot be estimated from {series.model.n_images} images.")
    return series.with_noise(Gaussian(sigma=noise.sigma))


def read_scan(path: Path | str, sequence: str) -> WeightedSeries:
    """Return a series of a brain or phantom with a mask of what gives signal, and σ."""
    series = _read(path, sequence)
    return with_sigma(replace(series, mask=head(series)))


@lru_cache(maxsize=4)
def brain(folder: Path | str, sequence: str) -> WeightedSeries:
    """Return the series of `brain_in_vivo`."""
    return read_scan(folder, sequence)


def head(series: WeightedSeries) -> NDArray[np.bool_]:
    """Return the foreground mask: the largest connected area, with its holes filled."""
    power = np.sqrt((np.asarray(series.images, float) ** 2).mean(0))
    found, n = ndimage.label(power > 0.15 * np.percentile(power, 99))
    if n == 0:
        return np.ones(series.shape, bool)
    largest = found == 1 + np.argmax(np.bincount(found.ravel())[1:])
    if 1 in series.shape:
        flat = np.squeeze(largest)
        return np.asarray(ndimage.binary_fill_holes(flat)).reshape(series.shape)
    return np.asarray(ndimage.binary_fill_holes(largest))


def noisier(series: WeightedSeries, sigma: float, rng: np.random.Generator) -> WeightedSeries:
    """Return the series with noise of `sigma` added, and the σ of both together.

    To magnitude images complex noise is added, and the modulus taken.
    """
    model = series.model
    kind = Rician if model.magnitude or not model.changes_sign else Gaussian
    images = kind(sigma=sigma).sample(series.images, rng).astype(np.float32)
    own = 0.0 if series.noise is None or series.noise.sigma is None else np.asarray(series.noise.sigma)
    total = np.sqrt(np.asarray(own) ** 2 + sigma**2)
    return replace(series, images=images, noise=Gaussian(sigma=float(total) if total.ndim == 0 else total))


def repeat_scan(
    estimator: Estimator, series: WeightedSeries, sigma: float, draws: Iterable[int], key: tuple[int, ...]
) -> Repeats:
    """Return the estimates inside the mask of a scan with noise added, once a draw; the same draws for all."""
    maps = []
    for draw in draws:
        maps.append(
            estimator.estimate(noisier(series, sigma, np.random.default_rng([*key, draw]))).kappa[:, series.selected]
        )
    return Repeats.of(np.stack(maps))


def given_scans(settings: Settings, sequence: str) -> list[WeightedSeries]:
    """Return the repeated scans that were given, the mask of the first for all.

    Raises
    ------
    InputError
        If they are not on the same grid.
    """
    scans = [read_scan(path, sequence) for path in settings.scans]
    for path, scan in zip(settings.scans, scans):
        if scan.shape != scans[0].shape:
            raise InputError(f"{path} has shape {scan.shape}, {settings.scans[0]} has {scans[0].shape}. Register them.")
        affines = (scan.affine, scans[0].affine)
        if affines[0] is not None and affines[1] is not None and not same_grid(*affines, scan.shape):
            raise InputError(
                f"{path} is misaligned with {settings.scans[0]} (their affines differ by more than a tenth of "
                "a voxel), so a voxel of one is not that of the other. Register them."
            )
    return [replace(scan, mask=scans[0].selected) for scan in scans]


def repeat_given(estimator: Estimator, scans: list[WeightedSeries]) -> Repeats:
    """Return the estimates of repeated scans, inside the mask."""
    return Repeats.of(np.stack([estimator.estimate(scan).kappa[:, scan.selected] for scan in scans]))


def _read(path: Path | str, sequence: str, skip_first: int = 0) -> WeightedSeries:
    return one_series(path, sequence, None).load(Reading(sequence=sequence, skip_first=skip_first))
