"""What DICOM headers say of their images: times, geometry, part. Nothing that identifies a patient is kept."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rimap.errors import InputError, count_of
from rimap.io.dicom_times import inversion_time, inversion_time_elsewhere, plausible
from rimap.io.dicom_values import as_list, first_item, number_of, numbers_of, text_of, value_of, whole
from rimap.io.image_type import image_type

#: SOP classes of MR images: classic, enhanced, and legacy converted.
_MR_CLASSES = ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
#: SOP classes without images that scanners write beside them: DICOMDIR, spectroscopy, raw data.
_NO_IMAGES = ("1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.1.1.4.2", "1.2.840.10008.5.1.4.1.1.66")
#: Read besides the private ones: no other tag of a header is looked at.
_READ = (
    *("ImageType", "FrameType", "SOPClassUID", "SOPInstanceUID", "Modality", "Manufacturer", "ManufacturerModelName"),
    *(
        "SeriesDescription",
        "ProtocolName",
        "ComplexImageComponent",
        "MagneticFieldStrength",
        "ScanningSequence",
        "MRAcquisitionType",
    ),
    *("EchoPulseSequence", "RepetitionTime", "EchoTime", "EffectiveEchoTime", "InversionTime", "InversionTimes"),
    *("FlipAngle", "SliceThickness", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber"),
    *(
        "InstanceNumber",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "SliceLocation",
        "TemporalPositionIdentifier",
    ),
    *("NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "SamplesPerPixel"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
#: Read to take their words out of descriptions.
_IDENTIFYING = (
    *("PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames", "AccessionNumber"),
    *("StudyDate", "StudyID", "ReferringPhysicianName"),
)
#: Fields that identify a patient.
_OF_PATIENT = ("PatientID", "PatientName", "PatientBirthDate")
#: Private elements that hold times or flags of Philips, GE and Siemens; all others are dropped.
_PRIVATE = (0x20010010, 0x2001101B, 0x2001101C, 0x20011084, 0x00430010, 0x0043102F, 0x00291020, 0x00211019)


@dataclass(frozen=True)
class Source:
    """A DICOM file: what all of its frames share.

    Parameters
    ----------
    number
        Series number, -1 if there is none.
    secrets
        Words of the header that identify somebody, in lower case, to be kept out of descriptions.
    patient
        A hash of what identifies the patient, "" if the header does not: it distinguishes patients without naming them.
    """

    path: Path
    where: str
    study: str
    series: str
    number: int
    description: str
    scanner: tuple[tuple[str, Any], ...]
    secrets: frozenset[str]
    patient: str = ""


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice of one image.

    Parameters
    ----------
    index
        Position in its file.
    part
        ``mag``, ``phase``, ``real``, ``imag``, or "" where the header does not say.
    variant
        What else the image type says: unlike variants (filtered, distortion corrected) make no series together.
    ti, te, tr, flip
        ms and degrees; `None` where the header has none.
    order
        Acquisition order among frames with the same times and position.
    position, orientation, spacing, thickness
        As in DICOM, mm. The position is () where the header has none.
    sequence
        What else must agree: scanning sequence, acquisition type.
    gradient
        Whether the echoes are gradient echoes.
    ti_from
        Where TI comes from if not from a field for it: ``the names of the series``, ``the Siemens protocol``.
    """

    source: Source
    index: int
    part: str
    variant: tuple[str, ...]
    ti: float | None
    te: float | None
    tr: float | None
    flip: float | None
    order: tuple[int, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float
    shape: tuple[int, int]
    sequence: tuple[str, ...]
    gradient: bool
    ti_from: str = ""

    @property
    def height(self) -> float:
        """Position along the normal of the slice, mm."""
        r, c, p = self.orientation[:3], self.orientation[3:], self.position
        normal = (r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0])
        return sum(n * x for n, x in zip(normal, p))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress the warnings of pydicom, which quote values of the header."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_headers(paths: Sequence[Path]) -> tuple[list[Frame], list[str]]:
    """Return the MR images of DICOM files, but for maps, mosaics and screen captures, and notes on what was left out.

    Raises
    ------
    InputError
        If a file is damaged or cut short, different images have one UID, or none of the files holds MR images.
    """
    frames: list[Frame] = []
    seen: dict[object, Path] = {}
    first: dict[str, tuple[Path, list[object]]] = {}
    left_out: Counter[str] = Counter()
    with quietly():
        for n, path in enumerate(paths, 1):
            where = _place(path, n, len(paths))
            try:
                header = _read(path, where)
                if header is None:
                    left_out["without an image"] += 1
                    continue
                modality = str(header.get("Modality", "") or "")
                if modality != "MR" and not (modality == "" and header.get("SOPClassUID") in _MR_CLASSES):
                    left_out[modality if re.fullmatch("[A-Z]{2,6}", modality) else "of another kind"] += 1
                    continue
                unique = str(header.get("SOPInstanceUID", "") or "")
                here = list(_frames(header, path, where))
                facts = [_again(header, frame) for frame in here]
                if unique and unique in first:  # the same image copied twice, or an anonymiser that knows one UID
                    if facts != first[unique][1] or not _same_pixels(path, first[unique][0]):
                        raise _one_uid(where)
                    left_out["copies of others"] += 1
                    continue
                first[unique] = (path, facts)
                if not here:
                    left_out["maps or other derived images"] += 1
                for frame, same in zip(here, facts):
                    if "MOSAIC" in frame.variant:
                        left_out["Siemens mosaics, which rimap cannot map: send the images of each slice"] += 1
                    elif same is not None and same in seen and _same_pixels(path, seen[same]):
                        left_out["copies of others"] += 1
                    else:
                        seen.setdefault(same, path)
                        frames.append(frame)
            except InputError:
                raise
            except Exception:  # whatever a parser meets in a broken file; its message may quote the file
                raise InputError(f"{where} is damaged: its header cannot be read. Export it again.") from None
    if not frames:
        kinds = f" (there: {', '.join(sorted(left_out))})" if left_out else ""
        raise InputError(
            f"expected weighted MR images of a series, got none in the DICOM files{kinds}. Give the weighted images."
        )
    return frames, [f"{count_of(value, 'DICOM file or frame')} left out: {what}" for what, value in left_out.items()]


def _one_uid(where: str) -> InputError:
    return InputError(
        f"{where}: expected a unique UID (SOPInstanceUID), got that of another image. Probably the anonymisation gave "
        "one UID to different images. Export or anonymise them again, with a UID for each image."
    )


def _same_pixels(one: Path, other: Path) -> bool:
    import pydicom

    return bool(pydicom.dcmread(one, force=True).PixelData == pydicom.dcmread(other, force=True).PixelData)


def _again(header: Any, frame: Frame) -> object:
    """Return what two exports of an image share whatever their UIDs, or `None` if the header has no number."""
    number = whole(header.get("InstanceNumber"))
    times = (frame.ti, frame.te, frame.tr, frame.flip)
    source = frame.source
    return None if number is None else (
        source.study, source.series, source.number, frame.order, number, frame.index, frame.part, frame.variant,
        frame.position, times,
    )  # fmt: skip


def _place(path: Path, n: int, total: int) -> str:
    """Return what messages call a file: its name may be that of the patient, or a number that identifies."""
    plain = re.fullmatch(
        r"(im|img|image|mr|dicom|slice|file|frame|i|e|s)?([-_. ]?\d{1,5}){1,3}(\.dcm|\.ima|\.dicom)?", path.name, re.I
    )
    at = f"file {n} of {total} in order of name"
    return f"{path.name} ({at})" if plain and total > 1 else at if total > 1 else "the DICOM file"


def _read(path: Path, where: str) -> Any | None:
    """Return the header of an image, `None` for what is no image."""
    import pydicom

    size = path.stat().st_size
    with path.open("rb") as file:
        wanted: list[Any] = [*_READ, *_IDENTIFYING, *_PRIVATE]
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=wanted)
        kind = str(header.get("SOPClassUID", "") or getattr(header.file_meta, "MediaStorageSOPClassUID", ""))
        syntax = str(getattr(header.file_meta, "TransferSyntaxUID", ""))
        deflated = syntax == "1.2.840.10008.1.2.1.99"
        at = file.tell()
        tag = b"" if deflated else file.read(12)
    if kind.startswith(_NO_IMAGES) and kind not in _MR_CLASSES:
        return None
    big = syntax == "1.2.840.10008.1.2.2"
    order = ">" if big else "<"
    if not deflated and len(tag) < 12:
        if kind and kind not in _MR_CLASSES and "Rows" not in header:
            return None
        raise _cut_short(where)
    if not deflated:
        group, element = struct.unpack(f"{order}HH", tag[:4])
        if group != 0x7FE0:
            raise _cut_short(where)
        if element == 0x0010:
            explicit = tag[4:6] in (b"OW", b"OB", b"UN")
            length, start = (
                struct.unpack(f"{order}I", tag[8:12] if explicit else tag[4:8])[0],
                at + (12 if explicit else 8),
            )
            if length != 0xFFFFFFFF and start + length > size:
                raise _cut_short(where)
    if whole(header.get("SamplesPerPixel")) not in (None, 1) or not whole(header.get("Rows")):
        return None
    return header


def _cut_short(where: str) -> InputError:
    return InputError(f"{where} is cut short or damaged. Export or copy it again.")


def _frames(header: Any, path: Path, where: str) -> Iterator[Frame]:
    scanner = {
        "MagneticFieldStrength": number_of(header, "MagneticFieldStrength"),
        "Manufacturer": text_of(header, "Manufacturer"),
        "ManufacturersModelName": text_of(header, "ManufacturerModelName"),
    }
    number = whole(header.get("SeriesNumber"))
    source = Source(
        path=path,
        where=where,
        study=text_of(header, "StudyInstanceUID"),
        series=text_of(header, "SeriesInstanceUID"),
        number=-1 if number is None else number,
        description=text_of(header, "SeriesDescription"),
        scanner=tuple((key, value) for key, value in scanner.items() if value),
        secrets=_secrets(header),
        patient=_patient(header),
    )
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    per_frame = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    count = whole(header.get("NumberOfFrames")) or 1
    if per_frame and len(per_frame) != count:
        raise InputError(f"{where} is damaged: {count} frames, and headers of {len(per_frame)}. Export it again.")
    if count > 1 and not per_frame:
        return  # several frames and nothing that distinguishes them
    for index in range(count):
        frame = _frame(header, source, shared, per_frame[index] if per_frame else None, index)
        if frame is not None:
            yield frame


def _frame(header: Any, source: Source, shared: Any, own: Any, index: int) -> Frame | None:
    def group(name: str) -> Any:
        return first_item(own, name) or first_item(shared, name) or header

    private = first_item(own, (0x2005, 0x140F)) or first_item(shared, (0x2005, 0x140F))
    kind = group("MRImageFrameTypeSequence")
    tokens = [str(t).upper() for t in as_list(kind.get("FrameType") or header.get("ImageType"))]
    component = str(kind.get("ComplexImageComponent") or header.get("ComplexImageComponent") or "")
    about = image_type(tokens, component)
    if about.derived:
        return None
    part = about.part or _part_ge(header, source)
    echo, modifier, timing = (
        group("MREchoSequence"),
        group("MRModifierSequence"),
        group("MRTimingAndRelatedParametersSequence"),
    )
    plane, measures = group("PlaneOrientationSequence"), group("PixelMeasuresSequence")
    content = group("FrameContentSequence")
    position = numbers_of(group("PlanePositionSequence").get("ImagePositionPatient"), 3)
    location = number_of(header, "SliceLocation")
    if position is None:
        position = () if location is None else (0.0, 0.0, location)
    sequence = [str(t).upper() for t in as_list(header.get("ScanningSequence"))]
    pulse = str(header.get("EchoPulseSequence") or "").upper()
    flip = number_of(timing, "FlipAngle")  # it is 0 or less in files that do not know it
    flip = flip if flip is not None and flip > 0 else None
    ti, ti_from = inversion_time(modifier, header, private), ""
    if ti is None:
        ti, ti_from = inversion_time_elsewhere(header, source.description)
    return Frame(
        source=source,
        index=index,
        part=part,
        variant=about.variant,
        ti=ti,
        ti_from=ti_from,
        te=plausible("te", number_of(echo, "EffectiveEchoTime"), number_of(header, "EchoTime"),
                     number_of(private, "EchoTime"),
                 number_of(header, "EffectiveEchoTime")),
        tr=plausible("tr", number_of(timing, "RepetitionTime"), number_of(header, "RepetitionTime"),
                     number_of(private, "RepetitionTime")),
        flip=flip if flip is None else round(flip, 3),
        order=(
            whole(content.get("TemporalPositionIndex")) or whole(header.get("TemporalPositionIdentifier")) or 0,
            whole(content.get("FrameAcquisitionNumber")) or whole(header.get("AcquisitionNumber")) or 0,
            whole(header.get("InstanceNumber")) or 0,
            index,
        ),
        position=position,
        orientation=numbers_of(plane.get("ImageOrientationPatient"), 6) or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        spacing=numbers_of(measures.get("PixelSpacing"), 2) or (1.0, 1.0),
        thickness=number_of(measures, "SliceThickness") or 0.0,
        shape=(whole(header.get("Rows")) or 0, whole(header.get("Columns")) or 0),
        sequence=(*sorted(sequence), pulse, text_of(header, "MRAcquisitionType")),
        gradient=pulse == "GRADIENT" or ("GR" in sequence and "SE" not in sequence),
    )  # fmt: skip


def _part_ge(header: Any, source: Source) -> str:
    if not str(dict(source.scanner).get("Manufacturer", "")).upper().startswith("GE"):
        return ""
    values = as_list(value_of(header, (0x0043, 0x102F)))
    code = (
        int.from_bytes(values[0][:2], "little")
        if values and isinstance(values[0], bytes)
        else whole(next(iter(values), None))
    )
    return {0: "mag", 1: "phase", 2: "real", 3: "imag"}.get(-1 if code is None else code, "")


def _patient(header: Any) -> str:
    words = [" ".join(str(header.get(name) or "").lower().split()) for name in _OF_PATIENT]
    return hashlib.sha256("\0".join(words).encode("utf-8", "replace")).hexdigest() if any(words) else ""


def _secrets(header: Any) -> frozenset[str]:
    words: set[str] = set()
    for name in _IDENTIFYING:
        text = str(header.get(name) or "").lower()
        words |= {w for w in (text, *re.split(r"[^\w]+|_+", text), *re.findall(r"\d{4,}", text)) if len(w) > 2}
    return frozenset(words)
