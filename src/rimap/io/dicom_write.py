"""DICOM out: a map as a series of single-frame MR images in the study of the images that it was made from.

Values are whole numbers with a rescale slope; their unit is in RescaleType and, as a UCUM code, in the real-world value
mapping. A voxel without a value is 0, which is PixelPaddingValue.

References
----------
DICOM PS3.3, C.7.6.1 (general image), C.7.6.16.2.11 (real-world value mapping); PS3.16, CID 7203 (image derivation).
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap import __version__
from rimap.errors import InputError
from rimap.io.dicom_convert import decimal
from rimap.io.dicom_headers import Frame, quietly
from rimap.io.map_images import MapImage

#: Copied from the source: whose images these are, in which study, of which scanner, and where the patient was.
_COPIED = (
    *(
        "SpecificCharacterSet",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "PatientAge",
    ),
    *("PatientSize", "PatientWeight", "OtherPatientIDs", "PatientIdentityRemoved", "DeidentificationMethod"),
    *(
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyDescription",
    ),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality"),
    *("Manufacturer", "ManufacturerModelName", "InstitutionName", "MagneticFieldStrength", "MRAcquisitionType"),
)
#: SOP class of a single-frame MR image, which every archive accepts.
_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
#: Transfer syntax: explicit little endian, uncompressed.
_EXPLICIT = "1.2.840.10008.1.2.1"
#: The largest stored value. 0 is kept for voxels without a value.
_HIGHEST = 65_535
#: UCUM codes of the units of maps, with their meaning.
_UCUM = {"ms": ("ms", "millisecond"), "1/s": ("/s", "per second"), "deg": ("deg", "degree"), "": ("1", "no units")}
#: Corners of a slice are at whole voxels of the map to within this part of a voxel.
_NEAR = 0.1


@dataclass(frozen=True, eq=False)
class Placed:
    """Slices of a map at the places of source frames.

    Parameters
    ----------
    frames
        One source frame for each slice, in their order.
    slices
        (rows, columns) of the map at each.
    """

    frames: tuple[Frame, ...]
    slices: tuple[NDArray[np.float64], ...]


def placed(values: NDArray[Any], affine: NDArray[Any], frames: Sequence[Frame]) -> Placed | None:
    """Return a map (X, Y, Z) at the places of frames that cover it, `None` if they are on another grid.

    Parameters
    ----------
    affine
        (4, 4), voxel to world as NIfTI has it: x to the right, y to the front; DICOM has x to the left, y to the back.
    """
    values = values.reshape((*values.shape, 1)[:3]) if values.ndim == 2 else values
    to_voxel = np.linalg.inv(np.asarray(affine, float))
    found: list[NDArray[np.float64]] = []
    seen: set[tuple[int, ...]] = set()
    for frame in frames:
        if not frame.position:
            return None
        origin, right, down = _corner(frame)
        rows, columns = frame.shape
        ijk = [to_voxel[:3, :3] @ v + to_voxel[:3, 3] * w for v, w in ((origin, 1), (right, 0), (down, 0))]
        whole = [np.rint(v) for v in ijk]
        if any(np.abs(v - w).max() > _NEAR / max(n, 1) for v, w, n in zip(ijk, whole, (1, columns, rows))):
            return None
        start, by_column, by_row = (w.astype(int) for w in whole)
        r, c = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        at = start[:, None, None] + by_row[:, None, None] * r + by_column[:, None, None] * c
        low, high = at.min((1, 2)), at.max((1, 2))
        if (low < 0).any() or (high >= values.shape).any():
            return None
        found.append(values[tuple(at)])
        seen.add((*low.tolist(), *high.tolist()))
    covered = len(seen) == len(frames) and sum(s.size for s in found) == values.size
    return Placed(tuple(frames), tuple(found)) if covered else None


def _corner(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the position of the first pixel and the steps to the next column and row, in mm and in NIfTI axes."""
    flip = np.array([-1.0, -1.0, 1.0])
    orientation = np.array(frame.orientation)
    return (
        flip * np.array(frame.position),
        flip * orientation[:3] * frame.spacing[1],
        flip * orientation[3:] * frame.spacing[0],
    )


def slope_for(values: NDArray[Any]) -> tuple[float, float]:
    """Return a slope of one digit (1, 2 or 5) and the intercept with which the values fit into 1 to 65,535.

    Values beyond 20 times the 99.5 % quantile are cut: a few of them would cost all others their precision.

    >>> slope_for(np.array([0.0, 1234.0]))
    (0.02, 0.0)
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 1.0, 0.0
    size = 20 * float(np.quantile(np.abs(finite), 0.995))
    low, high = max(min(0.0, float(finite.min())), -size), min(float(finite.max()), size)
    least = (high - low) / (_HIGHEST - 2) or 1e-6
    power = 10.0 ** math.floor(math.log10(least))
    slope = float(f"{next(s * power for s in (1, 2, 5, 10) if s * power >= least * (1 - 1e-12)):.6g}")
    return slope, 0.0 if low == 0 else float(f"{math.floor(low / slope) * slope - slope:.12g}")


def series_files(m: MapImage, where: Placed, sources: Mapping[int, Sequence[Frame]], number: int) -> Iterator[bytes]:
    """Yield the files of a map, one for each slice.

    Parameters
    ----------
    sources
        The frames that slice k was computed from, by k.
    number
        The series number.

    Raises
    ------
    InputError
        If a source cannot be read.
    """
    import pydicom
    from pydicom.uid import generate_uid

    everything = np.stack(where.slices)
    slope, intercept = slope_for(everything)
    headers: dict[Path, Any] = {}

    def header(frame: Frame) -> Any:
        path = frame.source.path
        if path not in headers:
            with quietly():
                headers[path] = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        return headers[path]

    first = header(where.frames[0])
    study = str(first.get("StudyInstanceUID", ""))
    fingerprint = hashlib.sha256(np.ascontiguousarray(everything).tobytes()).hexdigest()
    entropy = [study, m.label, fingerprint, __version__]
    made = datetime.now()
    for k, (frame, values) in enumerate(zip(where.frames, where.slices), 1):
        ds = _header(first, frame, m, made)
        ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = generate_uid(entropy_srcs=entropy), number, k
        ds.SOPInstanceUID = generate_uid(entropy_srcs=[*entropy, str(k)])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.SourceImageSequence = [_reference(header(f), f) for f in sources.get(k - 1, ())]
        _put(ds, values, slope, intercept, m)
        buffer = io.BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()


def _header(source: Any, frame: Frame, m: MapImage, made: datetime) -> Any:
    """Return the header of a slice without its pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(_EXPLICIT)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID(_MR_IMAGE)
    for name in _COPIED:
        if name in source:
            ds[name] = source[name]
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        if name not in ds:
            setattr(ds, name, "")
    for name in (
        "AccessionNumber",
        "ReferringPhysicianName",
        "Manufacturer",
        "PositionReferenceIndicator",
        "MRAcquisitionType",
    ):
        if name not in ds:
            setattr(ds, name, "")
    unit = f", {m.unit}" if m.unit else ""
    estimator = str(m.about.get("Estimator") or "")
    ds.Modality, ds.ImageType = "MR", ["DERIVED", "PRIMARY", "OTHER", f"{m.name.upper()} MAP"]
    ds.SeriesDescription = f"{m.name} map{unit} (rimap{' ' + estimator if estimator else ''})"[:64]
    ds.DerivationDescription = (
        f"{m.name} map{unit}: {m.about.get('EstimationAlgorithm') or m.label}. rimap {__version__}."[:1024]
    )
    ds.DerivationCodeSequence = [_code("113041", "DCM", "Pixel by pixel calculation")]
    ds.ImageComments = "For research, not for diagnosis."
    ds.SoftwareVersions = f"rimap {__version__}"
    ds.SeriesDate = ds.ContentDate = ds.InstanceCreationDate = made.strftime("%Y%m%d")
    ds.SeriesTime = ds.ContentTime = ds.InstanceCreationTime = made.strftime("%H%M%S")
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "RM", "NONE", ""
    ds.EchoTime, ds.EchoTrainLength = None, None
    ds.ImagePositionPatient = [decimal(x) for x in frame.position]
    ds.ImageOrientationPatient = [decimal(x) for x in frame.orientation]
    ds.PixelSpacing = [decimal(x) for x in frame.spacing]
    ds.SliceThickness = decimal(frame.thickness) if frame.thickness else None
    return ds


def _put(ds: Any, values: NDArray[np.float64], slope: float, intercept: float, m: MapImage) -> None:
    """Put the values of a slice into its header."""
    from pydicom.dataset import Dataset

    finite = np.isfinite(values)
    stored = np.where(finite, np.rint((np.where(finite, values, 0.0) - intercept) / slope), 0)
    stored = np.where(finite, np.clip(stored, 1, _HIGHEST), 0).astype("<u2")
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelPaddingValue = 1, "MONOCHROME2", 0
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = decimal(slope), decimal(intercept), m.unit or "US"
    shown = values[finite]
    low, high = (float(x) for x in np.quantile(shown, [0.02, 0.98])) if shown.size else (0.0, 1.0)
    ds.WindowCenter, ds.WindowWidth = decimal((low + high) / 2), decimal(max(high - low, slope))
    mapping = Dataset()
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 1, _HIGHEST
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope, intercept
    mapping.LUTLabel, mapping.LUTExplanation = m.name[:16], f"{m.name} map"[:64]
    code, meaning = _UCUM.get(m.unit, ("1", "no units"))
    mapping.MeasurementUnitsCodeSequence = [_code(code, "UCUM", meaning)]
    ds.RealWorldValueMappingSequence = [mapping]
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"


def _code(value: str, scheme: str, meaning: str) -> Any:
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def _reference(header: Any, frame: Frame) -> Any:
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if int(header.get("NumberOfFrames") or 1) > 1:
        ds.ReferencedFrameNumber = frame.index + 1
    ds.PurposeOfReferenceCodeSequence = [_code("121322", "DCM", "Source image for image processing operation")]
    return ds


def check_affine(m: MapImage) -> NDArray[np.float64]:
    """Return the affine of a map.

    Raises
    ------
    InputError
        If its header does not say where it is.
    """
    affine, _ = m.geometry()
    if affine is None:
        raise InputError(f"{m.path}: expected a map with an affine in its header, got none. Map the DICOM files again.")
    return affine
