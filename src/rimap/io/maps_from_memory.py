"""Maps in memory to files, as `rimap map` writes them: `rimap.write`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from rimap.advice import ordered
from rimap.errors import InputError
from rimap.io.atomic import write_together
from rimap.io.derivatives import Writing, files_like
from rimap.io.path_redaction import without_folders
from rimap.io.provenance import ARRAY, foreign_problem
from rimap.io.series_files import SeriesFiles
from rimap.series import ParameterMaps, WeightedSeries

#: The layouts of the output, by name: loose NIfTI files, or a BIDS derivative data set.
FORMATS = ("nifti", "bids")
#: The header of NIfTI-1 has 16 bits for the number of voxels along an axis.
_LONGEST_AXIS = 32_767
_ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9]+)")


def write(
    maps: ParameterMaps,
    folder: Path | str,
    *,
    format: str = "nifti",
    name: str = "",
    overwrite: bool = False,
    rates: bool = False,
    series: WeightedSeries | None = None,
) -> list[Path]:
    """Write maps with their standard deviations, residual, status, mask of the signal and sidecars, all or none.

    Parameters
    ----------
    folder
        Is made if it is missing.
    format
        ``nifti``: ``<name>_T1map.nii.gz`` and the others in `folder`. ``bids``: a derivative data set, with the maps in
        ``sub-…/anat``.
    name
        What the names start with; for BIDS the entities: ``sub-01_ses-1``.
    overwrite
        Replace an earlier result of the same estimator.
    rates
        Write the rate of each relaxation time (R1 = 1/T1) too, 1/s.
    series
        The series that the maps are of. The mask of the signal then is that of its images and the sidecars have its
        notes, as `rimap map` has them. Without it, the mask follows from the images that the maps predict.

    Returns
    -------
    list of Path
        The images, the main map first: T1 in seconds, as BIDS has it.

    Raises
    ------
    InputError
        For another format, a name that is none, a series of another shape, files that exist, or a folder that cannot be
        written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import rimap
    >>> model = rimap.T2Decay(tau=[10, 20, 40, 80])
    >>> images = model.signal(np.array([100.0, 50.0])[:, None, None, None] * np.ones((2, 4, 4, 1)))
    >>> maps = rimap.NLLS().estimate(rimap.WeightedSeries(images, model))
    >>> [path.name for path in rimap.write(maps, tempfile.mkdtemp(), name="phantom")][:2]
    ['phantom_T2map.nii.gz', 'phantom_desc-sd_T2map.nii.gz']
    """
    out = Path(folder)
    if not isinstance(maps, ParameterMaps):
        raise InputError(f"write: expected the maps that an estimator returns, got {type(maps).__name__}.")
    if format not in FORMATS:
        raise InputError(f"format: expected {' or '.join(FORMATS)}, got {format!r}.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder, got a file. Give another output folder.")
    files = _files(maps, out, format, name)
    if format == "bids" and (problem := foreign_problem(out)):
        raise InputError(problem)
    if series is not None and series.shape != maps.status.shape:
        raise InputError(f"series: expected the shape of the maps, {maps.status.shape}, got {series.shape}.")
    described = (maps if series is None else series).described
    if series is not None:
        told = ordered((*series.notes, *maps.warnings))
        maps = replace(maps, warnings=tuple(without_folders(text, [out]) for text in told))
    how = Writing(rates=rates, given=_given(maps), described=described)
    new = files_like(maps, files, out, _header(maps), how)
    existing = [path for path in new.images if path.exists()]
    if existing and not overwrite:
        raise InputError(f"{existing[0]} already exists. Give overwrite=True, another name or another folder.")
    write_together(new.contents, remove=new.stale if overwrite else ())
    return list(new.images)


def _files(maps: ParameterMaps, out: Path, format: str, name: str) -> SeriesFiles:
    """Return the series that the names follow from; its images are in memory, so it has no files."""
    suffix = maps.model.bids_suffix
    if format == "nifti":
        stem = name or suffix or maps.model.name
        if not re.fullmatch(r"[\w.+-]+", stem):
            raise InputError(f"name: expected letters, digits and any of _ . + -, got {name!r}.")
        return SeriesFiles((), {}, suffix, stem, None, stem)
    parts = [_ENTITY.fullmatch(part) for part in name.split("_")]
    if not all(parts) or not name.startswith("sub-"):
        raise InputError(f"name: expected BIDS entities such as sub-01 or sub-01_ses-1, got {name!r}.")
    return SeriesFiles((), {part[1]: part[2] for part in parts if part}, suffix, name, out, name)


def _header(maps: ParameterMaps) -> nib.Nifti1Header:
    """Return a header with the shape and the affine of the maps; without an affine it says that the position is
    unknown.
    """
    shape = (*maps.status.shape, 1, 1)[:3]
    affine = np.eye(4) if maps.affine is None else np.asarray(maps.affine, dtype=float)
    kind = nib.Nifti1Image if max(shape) <= _LONGEST_AXIS else nib.Nifti2Image  # a list of voxels may be long
    image = kind(np.zeros((1, 1, 1), np.uint8), affine)
    header = image.header
    code = 0 if maps.affine is None else 1
    header.set_qform(affine, code, strip_shears=True)
    header.set_sform(affine, code)
    header.set_data_shape(shape)
    header.set_zooms([float(z) for z in np.sqrt((affine[:3, :3] ** 2).sum(0))])
    header.set_xyzt_units("mm")
    return header


def _given(maps: ParameterMaps) -> dict[str, float | str]:
    """Return what the parameters that the model takes as given were: a number, or an array."""
    found: dict[str, float | str] = {}
    for parameter in maps.model.parameters:
        if parameter.given:
            values = maps[parameter.name][np.isfinite(maps[parameter.name])]
            constant = values.size and np.ptp(values) == 0
            found[parameter.name] = float(values.flat[0]) if constant else ARRAY
    return found
