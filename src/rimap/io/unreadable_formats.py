"""Formats that rimap does not read, and how to convert them; and files that are no files."""

from __future__ import annotations

import stat
from pathlib import Path

from rimap.errors import InputError

#: How to convert images of other formats.
_ITK = "SimpleITK.WriteImage(SimpleITK.ReadImage(FILE), 'image.nii.gz') in Python, or with 3D Slicer"
_ARRAYS = "give its arrays to rimap.WeightedSeries in Python, or save them as NIfTI with nibabel"
#: What a format is called and how its images become NIfTI, by the end of the file name in lower case.
_FORMATS = {
    ".mgz": ("a FreeSurfer image", "mri_convert FILE image.nii.gz"),
    ".mgh": ("a FreeSurfer image", "mri_convert FILE image.nii.gz"),
    ".nrrd": ("an NRRD image", _ITK),
    ".nhdr": ("the header of an NRRD image", _ITK),
    ".mha": ("a MetaImage", _ITK),
    ".mhd": ("the header of a MetaImage", _ITK),
    ".mnc": ("a MINC image", "mnc2nii FILE image.nii"),
    ".head": ("an AFNI image", "3dAFNItoNIFTI FILE"),
    ".brik": ("an AFNI image", "3dAFNItoNIFTI FILE"),
    ".brik.gz": ("an AFNI image", "3dAFNItoNIFTI FILE"),
    ".mat": ("a Matlab file", f"scipy.io.loadmat(FILE) in Python: {_ARRAYS}"),
    ".npy": ("a NumPy array", _ARRAYS),
    ".npz": ("NumPy arrays", _ARRAYS),
    ".h5": ("an HDF5 file", f"h5py in Python: {_ARRAYS}. Raw k-space data need to be reconstructed first"),
    ".hdf5": ("an HDF5 file", f"h5py in Python: {_ARRAYS}. Raw k-space data need to be reconstructed first"),
    ".tif": ("a picture without the geometry of the scan", _ARRAYS),
    ".tiff": ("a picture without the geometry of the scan", _ARRAYS),
    ".png": ("a picture without the geometry of the scan", "export the original images as DICOM"),
    ".jpg": ("a picture without the geometry of the scan", "export the original images as DICOM"),
    ".jpeg": ("a picture without the geometry of the scan", "export the original images as DICOM"),
    ".dat": ("raw data of a scanner", "reconstruct the images first, or export them as DICOM"),
    ".zip": ("an archive", "unpack it and give the folder"),
    ".tar": ("an archive", "unpack it and give the folder"),
    ".tar.gz": ("an archive", "unpack it and give the folder"),
    ".tgz": ("an archive", "unpack it and give the folder"),
    ".7z": ("an archive", "unpack it and give the folder"),
    ".dcm.gz": ("a compressed DICOM file", "gunzip FILE"),
    ".nii.bz2": ("NIfTI in a compression that is not read", "bunzip2 FILE"),
    ".nii.xz": ("NIfTI in a compression that is not read", "unxz FILE"),
    ".nii.zst": ("NIfTI in a compression that is not read", "unzstd FILE"),
    ".nii.zip": ("NIfTI in an archive", "unzip FILE"),
    ".v": ("an ECAT image", "nibabel in Python: nibabel.save(nibabel.Nifti1Image(image.dataobj, image.affine), …)"),
}
#: Files that have one name whatever they hold: those of Bruker scanners.
_BY_NAME = {
    "2dseq": ("an image of a Bruker scanner", "brkraw tonii FOLDER, with the folder of the study"),
    "fid": ("raw data of a scanner", "reconstruct the images first, and convert the 2dseq file with brkraw"),
    "rawdata.job0": ("raw data of a scanner", "reconstruct the images first, and convert the 2dseq file with brkraw"),
}


def how_to_convert(path: Path) -> str:
    """Return what a file is and how to convert it to NIfTI, in a sentence; "" if its name does not show it.

    >>> how_to_convert(Path("T1.mgz"))
    'T1.mgz is a FreeSurfer image. Convert it to NIfTI: mri_convert FILE image.nii.gz.'
    """
    name = path.name.lower()
    found = _BY_NAME.get(name)
    if found is None:
        ends = sorted((end for end in _FORMATS if name.endswith(end)), key=len)
        found = _FORMATS[ends[-1]] if ends else None
    return "" if found is None else f"{path.name} is {found[0]}. Convert it to NIfTI: {found[1]}."


def is_par(path: Path) -> bool:
    """Return whether a file is one of the pair PAR and REC of Philips, by its name."""
    return path.name.lower().endswith((".par", ".rec"))


def refuse_broken_link(path: Path) -> None:
    """Refuse a link to a file that does not exist.

    Raises
    ------
    InputError
        With what to do.
    """
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path} is a link to a file that does not exist. Fetch its content, in a data set of git-annex with "
            f"`datalad get`."
        )


def refuse_device(path: Path) -> None:
    """Refuse what is no regular file without opening it: reading a pipe or a device may never end.

    Raises
    ------
    InputError
        Naming the file and what it is. A file that is not there is left to whoever opens it.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode):
        return
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    what = next((words for is_kind, words in kinds if is_kind(mode)), "a device")
    raise InputError(f"{path}: expected a file, got {what}. Copy the data into a file first.")
