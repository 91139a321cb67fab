"""DICOM images to NIfTI through dcm2niix, in a private folder that is removed.

What dcm2niix is given are slices written anew: pixels, geometry and scaling, one scanner series for each image of the
series. So nothing that identifies a patient is ever written, each file that comes out is the image of one time, and
enhanced multi-frame files need no guess at the order of their frames. The scale slope of Philips (private tag
2005,100E), which may differ from slice to slice, is made part of the rescale slope: dcm2niix takes one of it for a
whole image.

References
----------
Li et al. 2016, doi:10.1016/j.jneumeth.2016.03.001 (dcm2niix); Chenevert et al. 2014, doi:10.1593/tlo.13811 (scaling of
Philips).
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rimap.errors import InputError
from rimap.io.dicom_headers import Frame, Source, quietly
from rimap.io.dicom_volumes import Volume
from rimap.io.run_lock import runs

if TYPE_CHECKING:
    from pydicom import Dataset

#: What the user is asked to type if the extra is missing.
_EXTRA = "pip install 'rimap[dicom]'"
#: The creator of the private block that holds the scale slope.
_PHILIPS = "Philips MR Imaging DD 001"
#: UIDs of the slices that are written for dcm2niix begin with this; they never leave the temporary folder.
_ROOT = "1.2.826.0.1.3680043.10.1"
#: Transfer syntaxes: explicit little endian, explicit big endian, implicit little endian.
_EXPLICIT, _BIG, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"
#: Seconds after which dcm2niix is stopped: it takes a few for a series.
_SECONDS = 600
_living: set[str] = set()


class PrivateFolder:
    """A folder that only this user can read, removed with the object, at exit, and on SIGTERM and SIGHUP."""

    def __init__(self) -> None:
        _remove_orphans()
        self.path = Path(tempfile.mkdtemp(prefix=f"{_prefix()}{os.getpid()}-"))
        _living.add(str(self.path))
        _watch_signals()
        self._finalizer = weakref.finalize(self, _remove, str(self.path), os.getpid())

    def remove(self) -> None:
        """Remove it now."""
        self._finalizer()


def _prefix() -> str:
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:20] or "host"
    return f"rimap-dicom-{host}-"


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child has a copy of the object, not the folder
        shutil.rmtree(path, ignore_errors=True)
        _living.discard(path)


def _remove_all() -> None:
    for path in list(_living):
        _remove(path, int(Path(path).name.removeprefix(_prefix()).split("-")[0]))


def _remove_orphans() -> None:
    """Remove what runs of this user on this machine left that were killed (SIGKILL lets no program clean up)."""
    for path in Path(tempfile.gettempdir()).glob(f"{_prefix()}*"):
        pid = path.name.removeprefix(_prefix()).split("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and path.lstat().st_uid == os.getuid() and not path.is_symlink() and not runs(int(pid)):
                shutil.rmtree(path, ignore_errors=True)


def _watch_signals() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stopped)


def _stopped(number: int, _: FrameType | None) -> None:
    _remove_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def require() -> str:
    """Return where dcm2niix is.

    Raises
    ------
    InputError
        Where it or pydicom is not installed.
    """
    try:
        importlib.import_module("pydicom")
    except ImportError:
        raise InputError(f"DICOM needs pydicom and dcm2niix, which are not installed: {_EXTRA}") from None
    return converter("DICOM")


def converter(what: str) -> str:
    """Return where dcm2niix is.

    Parameters
    ----------
    what
        What is to be converted, for the message.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        program: str | None = str(importlib.import_module("dcm2niix").bin)
    except (ImportError, AttributeError):
        program = shutil.which("dcm2niix")
    if program is None or not Path(program).exists():
        raise InputError(f"{what} needs dcm2niix, which is not installed: {_EXTRA}")
    return program


def convert(volumes: Sequence[Volume], names: Sequence[str], to: Path) -> list[Path]:
    """Write each image as ``<to>/<name>.nii``.

    Raises
    ------
    InputError
        Where a file cannot be read or dcm2niix does not give one image for each.
    """
    program = require()
    slices, images = to / "slices", to / "converted"
    slices.mkdir()
    images.mkdir()
    try:
        _write_slices(volumes, slices)
        command = [program, "-g", "i", "-b", "n", "-z", "n", "-m", "n", "-f", "%s", "-o", str(images), str(slices)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise InputError(f"dcm2niix did not finish within {_SECONDS} s. Map fewer series at a time.") from None
        paths = []
        for n, (volume, name) in enumerate(zip(volumes, names), 1):
            made = images / f"{n}.nii"
            if not made.is_file() or len(list(images.glob(f"{n}[!0-9.]*.nii"))):
                packed = _compression(slices, n)
                raise InputError(
                    f"dcm2niix could not read the pixels of series {volume.number}, compressed as {packed}. Export it "
                    "uncompressed, or convert it by hand and give the NIfTI files."
                    if packed
                    else f"dcm2niix could not convert series {volume.number} to one image for each time (its exit "
                    f"status was {done.returncode}). Convert the series by hand and give the NIfTI files."
                )
            paths.append(made.replace(to / f"{name}.nii"))
        return paths
    finally:
        shutil.rmtree(slices, ignore_errors=True)
        shutil.rmtree(images, ignore_errors=True)


def _compression(slices: Path, n: int) -> str:
    """Return the name of the compression of image n, "" where it has none."""
    import pydicom

    with quietly():
        first = pydicom.dcmread(slices / f"{n}_1.dcm", stop_before_pixels=True)
    syntax = first.file_meta.TransferSyntaxUID
    return str(syntax.name) if syntax.is_encapsulated else ""


def _write_slices(volumes: Sequence[Volume], folder: Path) -> None:
    """Write every slice to a file of its own, reading each source once."""
    of_file: dict[Path, list[tuple[int, int, Frame, float]]] = {}
    for n, volume in enumerate(volumes, 1):
        heights = [frame.height for frame in volume.frames]
        gap = heights[1] - heights[0] if len(heights) > 1 else volume.first.thickness
        for k, frame in enumerate(volume.frames, 1):
            of_file.setdefault(frame.source.path, []).append((n, k, frame, gap))
    with quietly():
        for wanted in of_file.values():
            source = wanted[0][2].source
            try:
                whole, syntax, pixels = _open(source, [frame.index for _, _, frame, _ in wanted])
                for (n, k, frame, gap), data in zip(wanted, pixels):
                    target = folder / f"{n}_{k}.dcm"
                    _slice(whole, syntax, frame, data, n, k, gap).save_as(target, enforce_file_format=True)
            except (InputError, OSError):
                raise
            except Exception:  # whatever a parser meets in a broken file; its message may quote the file
                raise InputError(f"{source.where} is damaged: its pixels cannot be read. Export it again.") from None


def _open(source: Source, frames: Sequence[int]) -> tuple[Any, str, Iterator[bytes]]:
    """Return the header, the transfer syntax of slices, and the bytes of the frames."""
    import pydicom
    from pydicom.encaps import generate_frames
    from pydicom.uid import UID

    try:
        whole = pydicom.dcmread(source.path, force=True)
    except OSError as error:  # without its path, which may be named after the patient
        raise InputError(f"{source.where} cannot be read: {error.strerror}.") from None
    if "PixelData" not in whole:
        raise InputError(f"{source.where}: expected integer pixel values, got others. Export it again.")
    syntax = UID(getattr(whole.file_meta, "TransferSyntaxUID", "") or _IMPLICIT)
    count = int(whole.get("NumberOfFrames") or 1)
    if syntax.is_encapsulated:
        packed = list(generate_frames(whole.PixelData, number_of_frames=count))
        return whole, str(syntax), iter([packed[frame] for frame in frames])
    size = int(whole.Rows) * int(whole.Columns) * int(whole.BitsAllocated) // 8
    data: bytes = whole.PixelData
    if size == 0 or len(data) < size * count:
        raise InputError(f"{source.where} is cut short or damaged. Export or copy it again.")
    if syntax == _BIG and whole.BitsAllocated > 8:
        wide = int(whole.BitsAllocated) // 8
        data = b"".join(data[index : index + wide][::-1] for index in range(0, len(data), wide))
    return whole, _EXPLICIT, (data[frame * size : (frame + 1) * size] for frame in frames)


def _slice(whole: Any, syntax: str, frame: Frame, data: bytes, n: int, k: int, gap: float) -> Any:
    """Return a file of one slice: image n, slice k, and nothing of the patient."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    slope, inter = scaling(whole, frame.index)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID(f"{_ROOT}.{n}.{k}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(_ROOT), UID(f"{_ROOT}.{n}")
    ds.Modality, ds.ImageType, ds.MRAcquisitionType = "MR", ["ORIGINAL", "PRIMARY", "M"], "2D"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber, ds.PatientPosition = n, k, 1, "HFS"
    ds.ImagePositionPatient = [decimal(x) for x in frame.position or (0.0, 0.0, 0.0)]
    ds.ImageOrientationPatient = [decimal(x) for x in frame.orientation]
    ds.PixelSpacing = [decimal(x) for x in frame.spacing]
    ds.SliceThickness, ds.SpacingBetweenSlices = decimal(frame.thickness or gap or 1.0), decimal(gap or 1.0)
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(ds, name, int(getattr(whole, name)))
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    if (slope, inter) != (1.0, 0.0):
        ds.RescaleSlope, ds.RescaleIntercept = decimal(slope), decimal(inter)
    if UID(syntax).is_encapsulated:
        ds.PixelData = encapsulate([data])
        ds["PixelData"].VR = "OB"
    else:
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    return ds


def phase_turn(frame: Frame) -> float | None:
    """Return the value range of a full turn (2π) of a phase image, if its scaling defines it: the least value is −π."""
    import pydicom

    with quietly(), contextlib.suppress(Exception):  # what is wrong with it, its conversion has said
        whole: Any = pydicom.dcmread(frame.source.path, stop_before_pixels=True, force=True)
        slope, inter = scaling(whole, frame.index)
        highest = slope * (2 ** int(whole.BitsStored) - 1) + inter
        if inter < 0 and highest >= -inter - 2 * slope:
            return -2 * inter
    return None


def scaling(whole: Dataset, index: int) -> tuple[float, float]:
    """Return slope and intercept of a frame; for Philips those to the values that images have in common.

    Value = (RS · pixel + RI) / (RS · SS), with RS, RI of the rescaling and SS of private tag (2005,100E).
    """
    groups = [whole]
    if "SharedFunctionalGroupsSequence" in whole and len(whole.SharedFunctionalGroupsSequence):
        groups.insert(0, whole.SharedFunctionalGroupsSequence[0])
    if "PerFrameFunctionalGroupsSequence" in whole and len(whole.PerFrameFunctionalGroupsSequence) > index:
        groups.insert(0, whole.PerFrameFunctionalGroupsSequence[index])
    inside: list[Any] = []
    for group in groups:
        for name in ("PixelValueTransformationSequence", (0x2005, 0x140F)):
            if name in group:
                element = group[name]
                inside += list(element.value or []) if element.VR == "SQ" else []
        inside.append(group)
    found = next((g for g in inside if g.get("RescaleSlope") is not None), None)
    slope, inter = (
        (1.0, 0.0) if found is None else (float(found.RescaleSlope), float(found.get("RescaleIntercept") or 0))
    )
    if slope == 0.0:
        slope = 1.0
    if "philips" in str(whole.get("Manufacturer", "")).lower():
        scale = next((s for g in inside if (s := _scale_slope(g)) is not None), None)
        if scale is not None:
            return 1.0 / scale, inter / (slope * scale)
    return slope, inter


def _scale_slope(group: Any) -> float | None:
    element = None
    try:
        element = group.private_block(0x2005, _PHILIPS)[0x0E]
    except KeyError:
        element = group.get((0x2005, 0x100E))
    value = getattr(element, "value", None)
    if isinstance(value, bytes) and len(value) >= 4:
        value = struct.unpack("<f", value[:4])[0]
    try:
        scale = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return scale if math.isfinite(scale) and scale > 0 else None


def decimal(x: float) -> str:
    """Return a number as DICOM writes it: at most 16 characters."""
    return next(text for digits in range(15, 0, -1) if len(text := f"{x:.{digits}g}") <= 16)
