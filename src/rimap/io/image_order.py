"""The order of images and of the values that a user types for them, and which images are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rimap.errors import InputError, count_of
from rimap.io.bids import natural, strip_nii
from rimap.io.voxel_grid import names_of
from rimap.signals.settings import Setting


def check_order(
    images: Sequence[Path], values: Sequence[float], option: str, setting: Setting, *, converted: bool
) -> None:
    """Refuse values that are typed in another order than that of the files.

    Parameters
    ----------
    images
        The files, in the given order.
    values
        One for each image, in the unit of `setting`.
    option
        What the values were given with: ``--times-ms``.
    converted
        Whether rimap named the files: their names then say nothing.

    Raises
    ------
    InputError
        Where a name has the value of another file and not its own, or the files are sorted as a shell sorts them.
    """
    if not _named_by_value(images, values, option, setting) and not converted:
        _check_sorting(images, values, option)


def without_first(values: Sequence[float], skip_first: int, label: str, setting: Setting) -> list[bool]:
    """Return which images to keep if those of the `skip_first` smallest values are left out, repeats of them as well.

    Raises
    ------
    InputError
        If none would be left.
    """
    distinct = sorted(set(values))
    if skip_first < 0 or skip_first >= len(distinct):
        what = "time" if setting.unit == "ms" else setting.title
        raise InputError(
            f"--skip-first {skip_first}: {label} has images at {count_of(len(distinct), what)}; expected a number from "
            f"0 to {len(distinct) - 1}."
        )
    return [value >= distinct[skip_first] for value in values]


def _named_by_value(images: Sequence[Path], values: Sequence[float], option: str, setting: Setting) -> bool:
    """Return whether file names contain the values. Refuse others, as a shell lists TI_1000 before TI_50."""
    if len(images) != len(values) or len(set(values)) < 2:
        return False
    named = [{float(x) for x in re.findall(r"\d+(?:\.\d+)?", strip_nii(image))} & set(values) for image in images]
    if len({frozenset(n) for n in named}) < len(images) or not all(len(n) == 1 for n in named):
        return False
    wrong = next((k for k, (n, value) in enumerate(zip(named, values)) if value not in n), None)
    if wrong is not None:
        what = "times" if setting.unit == "ms" else "values"
        raise InputError(
            f"{option} gives {values[wrong]:g} {setting.unit} to {names_of(images)[wrong]}: {what} go in the order of "
            f"the files, which is {', '.join(names_of(images)[:4])}{' …' if len(images) > 4 else ''}. Give the {what}, "
            "or the files, in the other's order."
        )
    return True


def _check_sorting(images: Sequence[Path], values: Sequence[float], option: str) -> None:
    """Refuse files in the order of a shell, ti1, ti10, ti2: values that are typed go by the numbers.

    Values that increase with the numbers of the files, but not in the given order, are assigned by number.
    """
    names = [str(image) for image in images]
    by_number = sorted(range(len(names)), key=lambda k: natural(names[k]))
    digits = [re.findall(r"\d+", name) for name in names]
    as_text = names == sorted(names) or digits == sorted(digits)  # some languages sort _ before digits
    if by_number == sorted(by_number) or not as_text or len({re.sub(r"\d+", "", name) for name in names}) > 1:
        return
    if len(values) == len(names) and [values[k] for k in by_number] == sorted(values) != list(values):
        return
    raise InputError(
        f"the files were given in the order {', '.join(names_of(images)[:3])}{' …' if len(images) > 3 else ''}, as a "
        f"shell sorts names, and {option} goes in the order of the files. Give the folder, names with leading zeros "
        "(01, 02), or the files in the order of their numbers and times."
    )
