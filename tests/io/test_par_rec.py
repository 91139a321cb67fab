"""PAR and REC files of Philips are converted with dcm2niix; what they do not say is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.io import find_series
from rimap.io.reading_options import Reading

pytest.importorskip("dcm2niix", reason="dcm2niix is not installed")

MODEL = rimap.InversionRecovery(tau=(100.0, 400.0, 1000.0, 2500.0), tr=9000.0)
SHAPE = (16, 12, 2)
HEADER = """# === DATA DESCRIPTION FILE ====
#
# CLINICAL TRYOUT             Research image export tool     V4.2
#
# === GENERAL INFORMATION ====
#
.    Patient name                       :   phantom
.    Examination name                   :   phantom
.    Protocol name                      :   IR
.    Examination date/time              :   2020.01.01 / 12:00:00
.    Series Type                        :   Image   MRSERIES
.    Acquisition nr                     :   3
.    Reconstruction nr                  :   1
.    Scan Duration [sec]                :   100
.    Max. number of cardiac phases      :   4
.    Max. number of echoes              :   1
.    Max. number of slices/locations    :   2
.    Max. number of dynamics            :   4
.    Max. number of mixes               :   1
.    Patient position                   :   Head First Supine
.    Preparation direction              :   Anterior-Posterior
.    Technique                          :   IR
.    Scan resolution  (x, y)            :   16  12
.    Scan mode                          :   MS
.    Repetition time [ms]               :   9000.000
.    FOV (ap,fh,rl) [mm]                :   24.000  6.000  32.000
.    Water Fat shift [pixels]           :   1.000
.    Angulation midslice(ap,fh,rl)[degr]:   0.000  0.000  0.000
.    Off Centre midslice(ap,fh,rl) [mm] :   0.000  0.000  0.000
.    Flow compensation <0=no 1=yes> ?   :   0
.    Presaturation     <0=no 1=yes> ?   :   0
.    Phase encoding velocity [cm/sec]   :   0.000000  0.000000  0.000000
.    MTC               <0=no 1=yes> ?   :   0
.    SPIR              <0=no 1=yes> ?   :   0
.    EPI factor        <0,1=no EPI>     :   1
.    Dynamic scan      <0=no 1=yes> ?   :   0
.    Diffusion         <0=no 1=yes> ?   :   0
.    Diffusion echo time [ms]           :   0.0000
.    Max. number of diffusion values    :   1
.    Max. number of gradient orients    :   1
.    Number of label types   <0=no ASL> :   0
#
# === PIXEL VALUES ====
# === IMAGE INFORMATION DEFINITION ====
# === IMAGE INFORMATION ====
#  sl ec  dyn ph ty    idx pix scan% rec size                (re)scale              window        angulation

"""


@pytest.fixture
def par(tmp_path: Path) -> Path:
    """Return a pair of PAR (version 4.2) and REC, the smallest that says what a scanner's says."""
    kappa = np.ones((3, *SHAPE)) * np.reshape([1000.0, 1.9, 900.0], (3, 1, 1, 1))
    kappa[0, 0] = 500.0
    images = np.rint(MODEL.signal(kappa)).astype(np.uint16)
    rows, pixels = [], []
    for n, tau in enumerate(MODEL.tau):
        for z in range(SHAPE[2]):
            place = f"{z + 1} 1 {n + 1} 1 0 0 {len(rows)} 16 100 {SHAPE[0]} {SHAPE[1]} 0.0 1.0 1.0e+00 500 1000"
            where = f"0.00 0.00 0.00 0.000 {3 * (z - 0.5):.3f} 0.000 3.000 0.000 0 1 0 2 2.000 2.000"
            rows.append(
                f"{place} {where} 10.00 {10.0 * n:.2f} 0.00 0.00 1 90.00 0 0 0 1 {tau:.1f} 1 1 0 0 0.000 0.000 0.000 1"
            )
            pixels.append(images[n, :, :, z].T.tobytes())
    (tmp_path / "scan.REC").write_bytes(b"".join(pixels))
    file = tmp_path / "scan.PAR"
    file.write_text(HEADER + "\n".join(rows) + "\n\n# === END OF DATA DESCRIPTION FILE ===\n")
    return file


@pytest.mark.parametrize("end", [".PAR", ".REC"])
def test_either_of_the_pair_gives_the_series(par: Path, end: str) -> None:
    (found,) = find_series(par.with_suffix(end), sequence="ir")
    series = found.load(Reading(times_ms=MODEL.tau))
    assert series.shape == SHAPE and series.model.times.tolist() == list(MODEL.tau)
    maps = rimap.NLLS(threads=1).estimate(series)
    assert np.nanmedian(maps["T1"]) == pytest.approx(900, rel=0.02)
    assert any(f"converted from scan{end} with dcm2niix" in text for text in found.notes)


def test_without_a_sequence_it_is_asked_for(par: Path) -> None:
    with pytest.raises(InputError, match=r"scan.*: expected a known sequence.*--sequence ir"):
        find_series(par)[0].load()


def test_a_missing_half_is_named(par: Path) -> None:
    par.with_suffix(".REC").unlink()
    with pytest.raises(InputError, match=r"pair of files \.PAR and \.REC, got none that ends with \.REC"):
        find_series(par, sequence="ir")
