"""Delays of slices after a preparation that they share: which are used, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rimap import InputError, InversionRecovery, T2Decay
from rimap.advice import notes_of, warnings_of
from rimap.io.slice_times import SliceDelays, slice_delays

DELAYS = [0.0, 0.25, 0.5]


def found(*sidecars: dict[str, Any], shape: tuple[int, ...] = (4, 5, 3), model: Any = InversionRecovery) -> Any:
    """Return the delays and notes of a series of two images, whose sidecars are those given or the one given."""
    files: Any = [SimpleNamespace(path=Path("x.nii"), shape=shape)] * 2
    return slice_delays(files, sidecars if len(sidecars) > 1 else sidecars * 2, model)


def test_slices_of_one_time_are_a_group() -> None:
    groups = SliceDelays(2, (30.0, 0.0, 30.4, 0.5, 31.1)).groups()
    assert groups == [(0.0, [1, 3]), (30.0, [0, 2]), (31.1, [4])]


def test_only_a_signal_that_recovers_depends_on_its_slice() -> None:
    assert found({"SliceTiming": DELAYS, "PulseSequenceType": "EPI"}, model=T2Decay) == (None, [])
    assert found({}) == (None, [])


@pytest.mark.parametrize(
    ("sidecar", "delays", "axis"),
    [
        ({"SliceTiming": DELAYS}, (0.0, 250.0, 500.0), 2),
        ({"SliceTiming": [0.1, 0.35, 0.6]}, (0.0, 250.0, 500.0), 2),
        ({"SliceTiming": DELAYS, "SliceEncodingDirection": "k-"}, (500.0, 250.0, 0.0), 2),
        ({"SliceDelays": [0.1, 0.35, 0.6]}, (100.0, 350.0, 600.0), 2),
        ({"SliceDelays": DELAYS, "SliceTiming": [0, 0, 0]}, (0.0, 250.0, 500.0), 2),
        ({"SliceDelays": [0.1, 0.1, 0.1]}, (100.0, 100.0, 100.0), 2),
        ({"SliceTiming": [0, 0.1, 0.2, 0.3], "SliceEncodingDirection": "i"}, (0.0, 100.0, 200.0, 300.0), 0),
        (
            {"SliceTiming": [0, 0.1, 0.2, 0.3, 0.4], "SliceEncodingDirection": "j-"},
            (400.0, 300.0, 200.0, 100.0, 0.0),
            1,
        ),
        ({"SliceTiming": DELAYS, "SliceEncodingDirection": "x"}, (0.0, 250.0, 500.0), 2),
    ],
)
def test_delays_in_ms_along_their_axis(sidecar: dict[str, Any], delays: tuple[float, ...], axis: int) -> None:
    result, notes = found(sidecar | {"PulseSequenceType": "IR EPI"})
    assert result.axis == axis and result.delays_ms == pytest.approx(delays)
    assert len(notes_of(notes)) == 1 and not warnings_of(notes)
    assert f"up to {max(delays):.4g} ms" in notes[0]


@pytest.mark.parametrize(
    ("words", "planar"),
    [
        ({"ScanningSequence": "EP\\IR"}, True),
        ({"ScanningSequence": ["IR", "EP"]}, True),
        ({"SequenceName": "*epfid2d1_64"}, True),
        ({"PulseSequenceDetails": "single-shot echo-planar"}, True),
        ({"PulseSequenceName": "ir_epi"}, True),
        ({"ScanningSequence": "SE"}, False),
        ({"SequenceName": "separate"}, False),  # "ep" inside a word
        ({"ScanningSequence": ""}, None),
        ({}, None),
    ],
)
def test_only_echo_planar_slices_share_a_preparation(words: dict[str, Any], planar: bool | None) -> None:
    result, notes = found({"SliceTiming": DELAYS} | words)
    assert (result is None) == (planar is False)
    (text,) = notes
    assert ("was not used, because this is no echo-planar imaging" in text) == (planar is False)
    assert ("Nothing says that this is echo-planar imaging" in text) == (planar is None)
    assert bool(notes_of(notes)) == (planar is True)
    own, _ = found({"SliceDelays": DELAYS} | words)
    assert own.delays_ms == pytest.approx((0, 250, 500))  # rimap's own field holds for any sequence


def test_slices_within_half_a_millisecond_are_of_one_time() -> None:
    planar = {"PulseSequenceType": "EPI"}
    assert found({"SliceTiming": [0.0, 0.0003, 0.0005]} | planar) == (None, [])
    assert found({"SliceTiming": [0.0, 0.0003, 0.0006]} | planar)[0] is not None
    assert found({"SliceDelays": [0.0004, 0.0, -0.0001]}) == (None, [])
    assert found({"SliceDelays": [-0.002, -0.002, -0.002]})[0].delays_ms == pytest.approx((-2, -2, -2))


@pytest.mark.parametrize(
    ("sidecars", "words"),
    [
        (({"SliceTiming": DELAYS}, {}), "expected SliceTiming in all sidecars"),
        (({}, {"SliceTiming": DELAYS}), "expected SliceTiming in all sidecars"),
        (({"SliceTiming": []},), "numbers in s, got others"),
        (({"SliceTiming": [0, True, 1]},), "numbers in s, got others"),
        (({"SliceTiming": [0, 1e5, 1]},), "numbers in s, got others"),
        (({"SliceTiming": DELAYS}, {"SliceTiming": [0.0, 0.25, 0.502]}), "expected one SliceTiming for all images"),
        (({"SliceTiming": DELAYS}, {"SliceTiming": DELAYS[:2]}), "expected one SliceTiming for all images"),
        (
            (
                {"SliceTiming": DELAYS, "SliceEncodingDirection": "k"},
                {"SliceTiming": DELAYS, "SliceEncodingDirection": "k-"},
            ),
            "expected one SliceEncodingDirection",
        ),
        (({"SliceTiming": [0.0, 0.25]},), "expected 3 values of SliceTiming, one for each slice, got 2"),
        (({"SliceTiming": [0, 250, 500]},), "at most 15 s, got up to 500"),
        (({"SliceTiming": DELAYS, "RepetitionTime": 0.49},), "within the repetition time of 0.49 s, got up to 0.5"),
        (({"SliceDelays": [0, 0, -61.0]},), "at most 15 s, got up to 61"),
    ],
)
def test_what_contradicts_itself_is_refused(sidecars: tuple[dict[str, Any], ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        found(*sidecars)


def test_rounded_times_and_other_repetition_times_are_accepted() -> None:
    planar = {"PulseSequenceType": "EPI", "SliceTiming": DELAYS}
    assert found(planar | {"RepetitionTime": 0.496})[0] is not None  # 1 % for rounding
    assert found(planar | {"RepetitionTime": 0.4, "RepetitionTimePreparation": 2.0})[0] is not None
    near = {"SliceTiming": [0.0, 0.2503, 0.5]}
    assert found(planar, planar | near)[0].delays_ms == pytest.approx((0, 250, 500))
    first, nearly = {"SliceTiming": [0.0, 0.0, 0.5]}, {"SliceTiming": [0.0, 0.0004998, 0.5]}
    assert found(planar | first, planar | nearly)[0] is not None
    with pytest.raises(InputError, match="expected one SliceTiming"):
        found(planar | first, planar | {"SliceTiming": [0.0, 0.00051, 0.5]})


def test_an_image_of_one_slice_has_one_delay() -> None:
    for shape in ((4, 5), (4, 5, 1)):
        assert found({"SliceDelays": [0.1]}, shape=shape)[0].delays_ms == pytest.approx((100,))
    assert found({"SliceDelays": [0.1], "SliceEncodingDirection": "j"}, shape=(4,))[0].axis == 1
    assert found({"SliceDelays": [0.1]}, shape=(4,))[0].axis == 2
