"""Table 1: the distribution of A, T1 and T2 in each tissue, and the label of each tissue in BrainWeb; T2* at 3 T beside
it.

Deviations
----------
- σ of A is printed once, in the row of CSF: it is taken for every tissue.
- BrainWeb's labels 9 ("around fat") and 10 (dura mater) have no row in Table 1. Tissue around fat is given the
  row of fat; dura mater, a dense fibrous tissue without a published 3 T value, that of muscle/skin. Both lie outside
  the brain.
- Table 1 prints one mark for both the T1 of the skull (Chen et al. 2016, cortical bone) and that of the marrow
  (de Bazelaire et al. 2004); they are distinguished here by what each of the two studies measured.
- T2* is not in Table 1. Peters et al. 2007 measured 66.0 ms in grey and 53.2 ms in white matter at 3 T. With the T2 of
  Table 1 this is R2′ = 1/T2* − 1/T2 of 6.1 and 6.3 1/s. Every tissue gets its T2 and 6.2 1/s, which gives 65.4 and 53.5
  ms.
- Table 1 names no source for A ("a fraction of the concentration of protons in the CSF"): its DOI is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rimap.signals.base import AMPLITUDE, Parameter

#: DOIs of the sources of the tissue values.
SABIDUSSI = "10.1016/j.media.2021.102220"
BOJORQUEZ = "10.1016/j.mri.2016.08.021"
CHEN = "10.1002/mrm.26292"
STANISZ = "10.1002/mrm.20605"
DE_BAZELAIRE = "10.1148/radiol.2303021331"
PETERS = "10.1016/j.mri.2007.02.014"

#: R2′, by which 1/T2* exceeds 1/T2 at 3 T, in 1/ms.
R2_PRIME_PER_MS = 6.2e-3

#: Labels of BrainWeb: index = label.
LABELS = (
    "background",
    "CSF",
    "GM",
    "WM",
    "fat",
    "muscle",
    "muscle/skin",
    "skull",
    "vessels",
    "around fat",
    "dura",
    "marrow",
)  # fmt: skip
BACKGROUND, CSF, GM, WM, FAT, MUSCLE, SKIN, SKULL, VESSELS, AROUND_FAT, DURA, MARROW = range(12)
#: The labels that make up the brain.
BRAIN_LABELS = (CSF, GM, WM, VESSELS)


@dataclass(frozen=True)
class Normal:
    """A normal distribution between subjects, and where its mean was published.

    Parameters
    ----------
    mean, sd
        In ms, or for A in units of the CSF's.
    doi
        Source of the mean.
    """

    mean: float
    sd: float
    doi: str


@dataclass(frozen=True)
class Tissue:
    """One row of Table 1.

    Parameters
    ----------
    name
        As in `LABELS`.
    label
        Its BrainWeb label.
    T1, T2
        Relaxation times at 3 T, ms.
    A
        Proton density, CSF = 1.

    Notes
    -----
    `T2star` follows from T2.
    """

    name: str
    label: int
    T1: Normal
    T2: Normal
    A: Normal

    @property
    def T2star(self) -> Normal:
        """T2* at 3 T, ms: that of T2 with R2′ (see Deviations)."""
        mean = 1 / (1 / self.T2.mean + R2_PRIME_PER_MS)
        return Normal(mean, self.T2.sd * (mean / self.T2.mean) ** 2, PETERS)

    def of(self, name: str) -> Normal:
        """Return the distribution of ``A``, ``T1``, ``T2`` or ``T2star``."""
        found: Normal = getattr(self, name)
        return found


def _row(
    label: int, T1: tuple[float, float, str], T2: tuple[float, float, str], A: float, sd_A: float = 0.3
) -> tuple[int, Tissue]:
    return label, Tissue(LABELS[label], label, Normal(*T1), Normal(*T2), Normal(A, sd_A, SABIDUSSI))


#: Table 1 by BrainWeb label (1–11).
TISSUES: MappingProxyType[int, Tissue] = MappingProxyType(
    dict(
        (
            _row(CSF, (3500, 300, BOJORQUEZ), (2000, 300, BOJORQUEZ), 1.0),
            _row(GM, (1400, 300, BOJORQUEZ), (110, 30, BOJORQUEZ), 0.85),
            _row(WM, (780, 250, BOJORQUEZ), (80, 20, BOJORQUEZ), 0.65),
            _row(FAT, (420, 100, BOJORQUEZ), (70, 20, BOJORQUEZ), 0.9),
            _row(MUSCLE, (1200, 300, BOJORQUEZ), (50, 20, BOJORQUEZ), 0.7),
            _row(SKIN, (1230, 300, BOJORQUEZ), (50, 20, BOJORQUEZ), 0.7),
            _row(SKULL, (400, 100, CHEN), (30, 10, STANISZ), 0.9),
            _row(VESSELS, (1980, 300, STANISZ), (275, 70, STANISZ), 1.0),
            _row(AROUND_FAT, (420, 100, BOJORQUEZ), (70, 20, BOJORQUEZ), 0.9),
            _row(DURA, (1230, 300, BOJORQUEZ), (50, 20, BOJORQUEZ), 0.7),
            _row(MARROW, (580, 100, DE_BAZELAIRE), (50, 20, BOJORQUEZ), 0.8),
        )
    )
)

#: A draw is never below this fraction of its tissue's mean: the normal tail reaches below zero.
FLOOR = 0.1
#: T of the background (ms), where A = 0: any finite value.
BACKGROUND_T = 1000.0


#: The properties that have a table.
PROPERTIES = ("A", "T1", "T2", "T2star")


def table(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of one of `PROPERTIES` by label, (12,) each; 0 for the background."""
    rows = [TISSUES[label].of(name) if label else Normal(0.0, 0.0, "") for label in range(len(LABELS))]
    return np.array([row.mean for row in rows]), np.array([row.sd for row in rows])


def property_of(p: Parameter) -> str:
    """Return the property whose table a parameter is drawn from, or "" if it belongs to no tissue (a field)."""
    if p.role == AMPLITUDE:
        return "A"
    name = p.tissue or p.name
    return name if name in PROPERTIES[1:] else ""


def table_of(p: Parameter) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of a parameter by label, (12,) each.

    A time without a table has the contrast of T1 in Table 1 around the start that the model declares.
    """
    if found := property_of(p):
        return table(found)
    mean, deviation = table("T1")
    factor = (p.start or 1.0) / mean[GM]
    return mean * factor, deviation * factor
