"""How a scan takes time: a cycle of pulses that is repeated until k-space is filled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cycle:
    """What a scan repeats, and how often: with this, `rimap design` knows how long a protocol takes.

    One image takes (shots × length of a cycle). The length is the repetition time if the model has a setting for it,
    otherwise `length_ms`, otherwise the time of the last image of the cycle and a rest.

    Parameters
    ----------
    all_images
        Whether one cycle reads all images (an echo train, Look-Locker). The images are then evenly spaced. If not,
        every image has cycles of its own.
    shots
        How many cycles fill the k-space of an image in a usual scan: lines over echoes for each excitation.
    length_ms
        Length of a usual cycle, for a model that has no setting for it and whose times do not determine it.
    recovery
        Rest after the last image that the model takes for granted, in units of the longest relaxation time.
    also_chosen
        Settings of each image, beside the one along which they differ, that a design chooses.
    """

    all_images: bool = False
    shots: int = 16
    length_ms: float | None = None
    recovery: float = 0.0
    also_chosen: tuple[str, ...] = ()
