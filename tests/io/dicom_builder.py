"""Synthetic DICOM as scanners of several vendors write it, with a patient planted in every header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

#: None of these may reach an output or a log.
PLANTED = {
    "PatientName": "Zweistein^Albertina",
    "PatientID": "HOSP4711007",
    "OtherPatientIDs": "INS-88120934",
    "PatientBirthDate": "19530417",
    "StudyDate": "20230228",
    "SeriesDate": "20230228",
    "AcquisitionDate": "20230228",
    "AcquisitionTime": "093147.12",
    "AccessionNumber": "ACC5550123",
    "StudyID": "STU99102",
    "InstitutionName": "Klinik Rotenfels",
    "ReferringPhysicianName": "Quacksalber^Doc",
    "OperatorsName": "Mustertech",
    "PatientComments": "claustrophobia Zweistein",
    "ImageComments": "called Albertina at 10",
    "StationName": "MRC25511",
    "DeviceSerialNumber": "SN167043",
    "ProtocolName": "T1 Zweistein",
}
SECRETS = (
    *("zweistein", "albertina", "4711007", "88120934", "19530417", "1953-04-17", "20230228", "2023-02-28", "093147"),
    *("09:31:47", "acc5550123", "stu99102", "rotenfels", "quacksalber", "mustertech", "claustrophobia", "mrc25511"),
    *("sn167043",),
)
CLASSIC, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
ORIENTATION = (1.0, 0.0, 0.0, 0.0, 0.8, 0.6)
NORMAL = np.array([0.0, -0.6, 0.8])
SPACING, GAP, ORIGIN = (2.0, 1.5), 4.0, np.array([-20.0, -30.0, 5.0])
STUDY = "1.2.826.0.1.3680043.10.4711.1"


def position(k: int) -> list[float]:
    """Return the place of slice k."""
    return [float(f"{x:.9g}") for x in ORIGIN + GAP * k * NORMAL]


def header(
    sop_class: str, series: int, instance: int, *, syntax: str = ExplicitVRLittleEndian, **fields: Any
) -> Dataset:
    """Return the header that all images have."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Modality, ds.StudyInstanceUID, ds.SeriesInstanceUID = "MR", STUDY, f"{STUDY}.{series}"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = series, instance, 1
    for name, value in PLANTED.items():
        setattr(ds, name, value)
    for name, value in fields.items():
        setattr(ds, name, value)
    return ds


def pixels(ds: Dataset, stored: Any) -> None:
    """Put stored values (rows, columns) or (frames, rows, columns) into a header."""
    stored = np.asarray(stored)
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.SamplesPerPixel = 16, 16, 15, 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", int(stored.dtype.kind == "i")
    order = ">" if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    ds.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OW"


def classic(
    folder: Path,
    stored: Any,
    *,
    series: int,
    first: int = 1,
    name: str = "IM_{:04}",
    private: Mapping[tuple[int, str, int, str], Any] | None = None,
    syntax: str = ExplicitVRLittleEndian,
    **fields: Any,
) -> list[Path]:
    """Write one file for each slice of `stored` (slices, rows, columns)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, one in enumerate(np.asarray(stored)):
        ds = header(CLASSIC, series, first + k, syntax=syntax, **fields)
        ds.ImagePositionPatient, ds.ImageOrientationPatient = position(k), list(ORIENTATION)
        ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = list(SPACING), 3, GAP
        pixels(ds, one)
        for (group, creator, element, vr), value in (private or {}).items():
            ds.private_block(group, creator, create=True).add_new(element, vr, value)
        path = folder / name.format(series * 100 + first + k)
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def item(**fields: Any) -> Items:
    """Return a sequence of one item."""
    ds = Dataset()
    for name, value in fields.items():
        setattr(ds, name, value)
    return Items([ds])


def enhanced(
    path: Path,
    stored: Any,
    *,
    series: int,
    frames: Sequence[Mapping[str, Any]],
    philips: bool = True,
    **fields: Any,
) -> Path:
    """Write one multi-frame file.

    Parameters
    ----------
    stored
        (frames, rows, columns).
    frames
        For each: slice `k`, and some of `ti`, `te`, `tr`, `part`, `slope`, `inter`, `scale`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = header(ENHANCED, series, 1, **fields)
    ds.NumberOfFrames = len(frames)
    shared, per_frame = Dataset(), []
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=list(ORIENTATION))
    shared.PixelMeasuresSequence = item(PixelSpacing=list(SPACING), SliceThickness=3, SpacingBetweenSlices=GAP)
    for n, f in enumerate(frames):
        ds_frame = Dataset()
        ds_frame.PlanePositionSequence = item(ImagePositionPatient=position(f["k"]))
        ds_frame.FrameContentSequence = item(
            InStackPositionNumber=f["k"] + 1, DimensionIndexValues=[1, f["k"] + 1, n + 1]
        )
        ds_frame.MREchoSequence = item(EffectiveEchoTime=float(f.get("te", 12.0)))
        ds_frame.MRTimingAndRelatedParametersSequence = item(RepetitionTime=f.get("tr", 9000), FlipAngle=90)
        part = f.get("part", "MAGNITUDE")
        ds_frame.MRImageFrameTypeSequence = item(
            FrameType=["ORIGINAL", "PRIMARY", "M_IR" if part[0] == "M" else part, "NONE"],
            ComplexImageComponent=part,
        )
        if "ti" in f:  # Philips fills the second value with the largest number there is
            ds_frame.MRModifierSequence = item(
                InversionRecovery="YES", InversionTimes=[float(f["ti"]), 1.7976931348623157e308]
            )
        ds_frame.PixelValueTransformationSequence = item(
            RescaleSlope=f.get("slope", 1), RescaleIntercept=f.get("inter", 0), RescaleType="US"
        )
        if philips:
            inner = Dataset()
            inner.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(
                0x0E, "FL", f.get("scale", 1.0)
            )
            ds_frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
            ds_frame.add_new((0x2005, 0x140F), "SQ", Items([inner]))
        per_frame.append(ds_frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = Items([shared]), Items(per_frame)
    pixels(ds, stored)
    ds.save_as(path, enforce_file_format=True)
    return path
