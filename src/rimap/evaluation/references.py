"""Values that regions should have: those of the ISMRM/NIST system phantom, or of a table.

References
----------
Stupic et al. 2021, A standard system phantom for magnetic resonance imaging, doi:10.1002/mrm.28779 (values at 20 °C,
from its supporting information). Boudreau et al. 2024, doi:10.1002/mrm.30111 (the T1 array from serial number 42 on,
and T1 from 16 to 26 °C).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rimap.errors import InputError, did_you_mean
from rimap.io.unreadable_formats import refuse_device

#: The temperature of the reference values, °C.
REFERENCE_C = 20.0
#: The bias that a sphere may have to pass, %.
TOLERANCE_PERCENT = 10.0

#: Sources of the reference values.
_STUPIC = "Stupic et al. 2021, doi:10.1002/mrm.28779"
_BOUDREAU = "Boudreau et al. 2024, doi:10.1002/mrm.30111"

#: T1 in ms of spheres 14 to 1 of the T1 array from serial number 42 on, at 3 T and at these temperatures in °C
#: (Boudreau et al. 2024).
_TEMPERATURES_C = (16.0, 18.0, 20.0, 22.0, 24.0, 26.0)
#: T1 in ms at 3 T: a row for each sphere, a column for each of `_TEMPERATURES_C`.
_T1_BY_TEMPERATURE = (
    (21.94, 21.62, 21.44, 21.28, 21.26, 21.31),
    (31.05, 30.65, 30.40, 30.27, 30.25, 30.31),
    (43.79, 43.24, 42.89, 42.72, 42.70, 42.80),
    (61.49, 60.70, 60.21, 59.97, 60.00, 60.17),
    (87.47, 86.41, 85.75, 85.03, 85.01, 85.28),
    (122.99, 121.79, 121.08, 120.80, 120.90, 121.34),
    (177.68, 175.94, 174.95, 174.59, 174.78, 175.48),
    (243.77, 241.84, 240.86, 240.75, 241.31, 242.45),
    (343.00, 341.53, 341.58, 342.58, 344.23, 346.67),
    (483.91, 482.91, 484.97, 486.92, 490.24, 494.55),
    (675.07, 686.88, 690.08, 695.01, 701.06, 709.48),
    (950.71, 963.56, 987.27, 1000.81, 1015.70, 1030.78),
    (1274.07, 1317.71, 1330.16, 1355.29, 1367.79, 1395.94),
    (1766.68, 1830.34, 1883.97, 1937.34, 1987.50, 2066.95),
)


@dataclass(frozen=True)
class Layout:
    """An array of spheres with known relaxation times.

    Parameters
    ----------
    name, title
        What options and people call it.
    values
        Times in ms of spheres 1 to 14 at 20 °C, by map and field strength in T; NaN for a value that publications
        disagree on.
    source
        The publication.
    """

    name: str
    title: str
    values: Mapping[tuple[str, float], tuple[float, ...]]
    source: str = _STUPIC

    @property
    def maps(self) -> tuple[str, ...]:
        """The maps for which it has values."""
        return tuple(dict.fromkeys(name for name, _ in self.values))


#: Arrays of the system phantom, by name.
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "nist-t1",
            "T1 array (NiCl2) of the ISMRM/NIST system phantom, serial numbers up to 41",
            {
                ("T1", 3.0): (1989, 1454, 984.1, 706, 496.7, 351.5, 247.13,
                              175.3, 125.9, 89, 62.7, 44.53, 30.84, 21.719),
                ("T1", 1.5): (2033, 1489, 1012, 730.8, 514.1, 367.9, 260.1,
                              184.6, 132.7, 92.7, 65.4, 46.32, 32.45, 22.859),
                ("T2", 3.0): (1465, 1076, 717.9, 510.1, 359.6, 255.5, 180.8,
                              127.3, 90.3, 64.3, 45.7, 31.86, 22.38, 15.83),
                ("T2", 1.5): (1669, 1244, 859.3, 628.5, 446.3, 321.2, 227.7, 161.9, 117.1, 81.9, 57.7, 41, 28.7, 20.2),
            },
        ),
        Layout(
            "nist-t1-v2",
            "T1 array (NiCl2) of the ISMRM/NIST system phantom, serial numbers from 42 on",
            {("T1", 3.0): tuple(row[_TEMPERATURES_C.index(REFERENCE_C)] for row in reversed(_T1_BY_TEMPERATURE))},
            _BOUDREAU,
        ),
        Layout(
            "nist-t2",
            "T2 array (MnCl2) of the ISMRM/NIST system phantom",
            {
                ("T2", 3.0): (581.3, 403.5, 278.1, 190.94, 133.27, 96.89, 64.07,
                              46.42, 31.97, 22.56, 15.813, 11.237, 7.911, 5.592),
                ("T2", 1.5): (939.4, 594.3, 416.5, 267, 184.9, 140.6, 91.76,
                              64.84, 45.28, 30.62, 19.76, 15.99, 10.47, 8.15),
                ("T1", 3.0): (2480, 2173, 1907, 1604, 1332, 1044, 801.7,
                              608.6, 458.4, 336.5, 244.2, 176.6, 126.9, 90.9),
                ("T1", 1.5): (math.nan, 2183, 1870, 1539, 1237, 1030, 752.2,
                              550.2, 413.4, 292.9, 194.9, 160.2, 106.4, 83.3),
            },
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class References:
    """What the regions of a map should have.

    Parameters
    ----------
    values
        By label, in the unit of the map.
    source
        Where they are from, for people.
    notes
        What the user should know of them.
    """

    values: Mapping[int, float]
    source: str
    notes: tuple[str, ...] = ()

    def inverted(self) -> References:
        """Return the references of rates in 1/s, if these are of times in ms."""
        return References({key: 1000 / value for key, value in self.values.items()}, self.source, self.notes)


def layout_of(name: str) -> Layout:
    """Return an array of spheres by its name.

    Raises
    ------
    InputError
        If there is no such array.
    """
    found = LAYOUTS.get(name.strip().lower())
    if found is None:
        raise InputError(
            f"expected an array of spheres ({', '.join(LAYOUTS)}), got {name!r}.{did_you_mean(name, LAYOUTS)}"
        )
    return found


def references_of(
    layout: Layout, map_name: str, field_T: float | None, temperature_C: float = REFERENCE_C
) -> References:
    """Return the values of the spheres of an array.

    T1 of the T1 array at 3 T is corrected for the temperature by the ratio of the published values at that temperature
    and at 20 °C, which were measured on phantoms with serial numbers from 42 on; no other correction is published that
    rimap knows of.

    Parameters
    ----------
    map_name
        T1 or T2.
    field_T
        The field strength in T; `None` if it is not known.
    temperature_C
        The temperature of the phantom in °C.

    Raises
    ------
    InputError
        If there are no values for the map, or the field strength or the temperature is outside what is published.
    """
    if map_name not in layout.maps:
        raise InputError(f"{layout.name} has values of {' and '.join(layout.maps)}, got a map of {map_name}.")
    fields = sorted(f for name, f in layout.values if name == map_name)
    words = " or ".join(f"{field:g}" for field in fields)
    if field_T is None:
        raise InputError(
            f"{layout.name} has values at {words} T, and the sidecar of the map has no MagneticFieldStrength. "
            f"Give it: --field-strength {fields[-1]:g}."
        )
    # Scanners write 2.89 or 3.0 for 3 T, and 1.494 or 1.5 for 1.5 T.
    near = [field for field in fields if abs(field - field_T) <= 0.1 * field]
    if not near:
        raise InputError(f"{layout.name} has values of {map_name} at {words} T, got {field_T:g} T.")
    values = np.array(layout.values[map_name, near[0]], dtype=float)
    source, notes = f"{layout.title}, {map_name} at {near[0]:g} T and 20 °C ({layout.source})", []
    if temperature_C != REFERENCE_C:
        low, high = _TEMPERATURES_C[0], _TEMPERATURES_C[-1]
        if not low <= temperature_C <= high:
            raise InputError(f"--temperature: expected {low:g} to {high:g} °C, got {temperature_C:g}.")
        if layout.name.startswith("nist-t1") and map_name == "T1" and near[0] == 3.0:
            table = np.array(_T1_BY_TEMPERATURE[::-1])
            at = np.array([np.interp(temperature_C, _TEMPERATURES_C, row) for row in table])
            values = values * at / table[:, _TEMPERATURES_C.index(REFERENCE_C)]
            source = (
                f"{layout.title}, {map_name} at {near[0]:g} T ({layout.source}), corrected to {temperature_C:g} °C "
                f"({_BOUDREAU})"
            )
        else:
            notes.append(
                f"The reference values of {map_name} of {layout.name} at {near[0]:g} T are for 20 °C and were not "
                f"corrected to {temperature_C:g} °C: rimap knows of no published correction."
            )
    known = {n: float(value) for n, value in enumerate(values, start=1) if np.isfinite(value)}
    return References(known, source, tuple(notes))


def read_references(path: Path | str, map_name: str = "") -> References | None:
    """Return the values in a table: a column ``label`` (or ``index``, ``sphere``) and a column ``reference`` (or
    ``reference_ms``).

    Values are in the unit of the map in tables of rimap: ms for times, 1/s for rates. If there is a column ``map``, the
    rows are for the maps that it names; `None` if none is for the map.

    Raises
    ------
    InputError
        If the table cannot be read, or does not have these columns.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path}: there is no such table of reference values. Named arrays are "
            f"{', '.join(LAYOUTS)}.{did_you_mean(str(path), LAYOUTS)}"
        )
    refuse_device(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        columns = rows[0].keys() if rows else ()
        label = next(c for c in ("label", "index", "sphere") if c in columns)
        value = next(c for c in ("reference", "reference_ms") if c in columns)
        if "map" in columns and not (rows := [row for row in rows if row["map"] == map_name]):
            return None
        known = [(int(row[label]), float(row[value])) for row in rows if row[value] not in ("", "n/a", None)]
    except (OSError, UnicodeDecodeError, csv.Error, StopIteration, ValueError, TypeError):
        raise InputError(
            f"{path}: expected a table, separated by tabs, with the columns label and reference (or sphere and "
            "reference_ms) and a number in each row, got another table."
        ) from None
    values = dict(known)
    if twice := next((number for number, reference in known if values[number] != reference), None):
        raise InputError(f"{path}: expected one reference value for each label, got two different ones for {twice}.")
    if not values or not all(value > 0 and math.isfinite(value) for value in values.values()):
        raise InputError(f"{path}: expected reference values above zero, got {'others' if values else 'none'}.")
    return References(values, path.name)
