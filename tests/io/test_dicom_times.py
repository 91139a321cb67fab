"""Times in DICOM headers: which are times, and where vendors write the inversion time."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from rimap.io.dicom_times import inversion_time, inversion_time_elsewhere, plausible


def header(**values: Any) -> Dataset:
    found = Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(
    ("what", "candidates", "time"),
    [
        ("ti", (400.0,), 400.0),
        ("ti", (None, 0.0, -3.0, 25.12349, 7.0), 25.123),
        ("ti", (30_000.0,), 30_000.0),
        ("ti", (30_000.1,), None),
        ("te", (5_000.0,), 5_000.0),
        ("te", (5_000.1, 1.8e308), None),
        ("tr", (100_000.0,), 100_000.0),
        ("tr", (100_000.1,), None),
        ("te", (0.001,), 0.001),
        ("te", (), None),
    ],
)
def test_the_first_that_is_a_time(what: str, candidates: tuple[float | None, ...], time: float | None) -> None:
    assert plausible(what, *candidates) == time


def test_the_inversion_time_of_the_image_comes_first() -> None:
    empty = header()
    assert inversion_time(header(InversionTimes=[400.0]), header(InversionTime=700.0), empty) == 400.0
    assert inversion_time(empty, header(InversionTimes=[500.0, 0.0, 500.0]), empty) == 500.0
    assert inversion_time(header(InversionTimes=[400.0, 500.0]), header(InversionTime=700.0), empty) == 700.0
    assert inversion_time(header(InversionTime=800.0), empty, header(InversionTime=900.0)) == 800.0
    assert inversion_time(empty, empty, header(InversionTime=900.0)) == 900.0
    assert inversion_time(empty, empty, empty) is None


@pytest.mark.parametrize(("pulse", "time"), [("INV", 350.0), ("inv ", 350.0), ("SAT", None)])
def test_a_prepulse_of_philips_that_inverts_has_a_delay(pulse: str, time: float | None) -> None:
    found = header()
    found.add_new(0x2001101B, "FL", 350.0)
    found.add_new(0x2001101C, "LO", pulse)
    assert inversion_time(header(), found, header()) == time


def test_a_private_inversion_time_of_philips_comes_last() -> None:
    found = header()
    found.add_new(0x20011084, "FL", 450.0)
    assert inversion_time(header(), found, header()) == 450.0
    assert inversion_time(header(), found, header(InversionTime=900.0)) == 900.0


PROTOCOL = "### ASCCONV BEGIN ###\n{}\n### ASCCONV END ###"


@pytest.mark.parametrize("tag", [0x00291020, 0x00211019])
@pytest.mark.parametrize(
    ("protocol", "time"),
    [
        (PROTOCOL.format("alTI[0] = 2500000"), 2500.0),
        (PROTOCOL.format("alTI[0] = 2500000\nsPrepPulses.ucInversion = 0x1"), 2500.0),
        (PROTOCOL.format("alTI[0] = 2500000\nsPrepPulses.ucInversion = 0x4"), None),
        (PROTOCOL.format("alTI[0] = 2500000\nsPrepPulses.ucInversion = 4"), None),
        (PROTOCOL.format("alTI[1] = 2500000"), None),
        ("alTI[0] = 2500000", None),
        ("alTI[0] = 9000000\n" + PROTOCOL.format("alTI[0] = 2500000"), 2500.0),
        (PROTOCOL.format("alTI[0] = 0"), None),
    ],
)
def test_the_protocol_of_siemens_is_in_microseconds(tag: int, protocol: str, time: float | None) -> None:
    found = header()
    found.add_new(tag, "OB", protocol.encode("latin-1"))
    where = "the Siemens protocol" if time else ""
    assert inversion_time_elsewhere(found, "t1") == (time, where)
    found.add_new(tag, "LT", protocol)
    assert inversion_time_elsewhere(found, "t1") == (time, where)


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("IR_TI400", 400.0), ("se ir TI = 1100 ms", 1100.0), ("TI_2.5s", 2500.0), ("TI_2,5s", 2500.0), ("TI20", 20.0),
        ("TI19", None),
        ("TI3ms", 3.0), ("TI 0.5 s", 500.0), ("MULTI400", None), ("TI400x", None), ("TI 40 s", None),
        ("t1 mapping", None),
    ],
)  # fmt: skip
def test_a_time_in_the_name_of_a_series(name: str, time: float | None) -> None:
    expected = (time, "the names of the series" if time else "")
    assert inversion_time_elsewhere(header(), name) == expected
    assert inversion_time_elsewhere(header(ProtocolName=name), "scan") == expected
