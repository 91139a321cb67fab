"""Imports that cost more than they are used for."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import cast


def nibabel_alone() -> ModuleType:
    """Import nibabel without pydicom, which it imports if it is installed, for DICOM data within the extensions of
    NIfTI headers.

    rimap copies extensions as they are, so that for the command line, whose process is its own, half of the time to
    import nibabel is saved. In a process of others (a notebook) nibabel is imported as usual.
    """
    if "nibabel" in sys.modules or "pydicom" in sys.modules:
        return importlib.import_module("nibabel")
    sys.modules["pydicom"] = cast(ModuleType, None)  # `import pydicom` raises ImportError meanwhile
    try:
        return importlib.import_module("nibabel")
    finally:
        del sys.modules["pydicom"]
