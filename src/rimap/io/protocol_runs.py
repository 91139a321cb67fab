"""Which images of a series are one run of its protocol, if the protocol was run again or one image was scanned
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

Image = TypeVar("Image")


def runs(
    images: Sequence[Image],
    *,
    number: Callable[[Image], int | None],
    value: Callable[[Image], float | None],
    enough: Callable[[Sequence[Image]], bool],
) -> tuple[list[list[Image]], list[Image], list[Image]]:
    """Return the runs of a protocol, the images of a run that was stopped, and images that share a value and are used
    as repeats.

    Parameters
    ----------
    images
        Images that agree in all but what the images of one series differ in.
    number
        The number of the scanner series of an image, `None` if it is not known.
    value
        Its value of the axis: an inversion time, an echo time, a flip angle.
    enough
        Whether some images can be a series by themselves.
    """
    by_number: dict[int | None, list[Image]] = {}
    for image in images:
        by_number.setdefault(number(image), []).append(image)
    if None in by_number or len(by_number) < 2:
        return [list(images)], [], []
    whole = [some for some in by_number.values() if enough(some)]
    if whole:
        return _with_the_rest(whole, [some for some in by_number.values() if not enough(some)], value)
    counts = Counter(value(image) for image in images)
    if min(counts.values()) == max(counts.values()) > 1 and all(len(some) == 1 for some in by_number.values()):
        return (
            _in_order(images, number, value),
            [],
            [],
        )  # each image has a series of its own, and all were scanned as often
    numbers: dict[float | None, set[int | None]] = {}
    for image in images:
        numbers.setdefault(value(image), set()).add(number(image))
    return [list(images)], [], [image for image in images if len(numbers[value(image)]) > 1]


def _with_the_rest(
    whole: list[list[Image]], parts: list[list[Image]], value: Callable[[Image], float | None]
) -> tuple[list[list[Image]], list[Image], list[Image]]:
    """Return whole runs; a part of one is left out if it was stopped, and belongs to the only run if it has other
    values.
    """
    unused: list[Image] = []
    for part in parts:
        known = {value(image) for image in whole[0]}
        if len(whole) == 1 and not known & {value(image) for image in part}:
            whole[0] = [*whole[0], *part]
        else:
            unused += part
    return whole, unused, []


def _in_order(
    images: Sequence[Image], number: Callable[[Image], int | None], value: Callable[[Image], float | None]
) -> list[list[Image]]:
    """Return the first, second … scan of all values as a run each."""
    seen: Counter[float | None] = Counter()
    found: dict[int, list[Image]] = {}
    for image in sorted(images, key=lambda i: number(i) or 0):
        found.setdefault(seen[value(image)], []).append(image)
        seen[value(image)] += 1
    return list(found.values())
