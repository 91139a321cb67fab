"""What the user is told has a weight: the heaviest comes first, and notes are no warnings."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from rimap.advice import Weight, note, notes_of, ordered, percent, unreliable, warnings_of, weight_of

TEXTS = ["check the times", note("B1 from x.nii.gz"), unreliable("do not rely on it"), "check the times"]


def test_the_heaviest_comes_first_and_each_once() -> None:
    assert ordered(TEXTS) == ("do not rely on it", "check the times", "B1 from x.nii.gz")
    assert warnings_of(TEXTS) == ("do not rely on it", "check the times") and notes_of(TEXTS) == ("B1 from x.nii.gz",)


def test_a_weight_survives_copies_and_is_text_elsewhere() -> None:
    heavy = unreliable("x")
    for again in (pickle.loads(pickle.dumps(heavy)), copy.deepcopy(heavy)):
        assert again == "x" and weight_of(again) is Weight.UNRELIABLE
    assert json.dumps([heavy]) == '["x"]' and weight_of("x") is Weight.CAUTION


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0"), (1e-5, "0.001"), (0.001, "0.1"), (0.0994, "9.9"), (0.0996, "10"), (0.5, "50"), (0.996, "100"),
        (1.0, "100"),
        (12.0, "1,200"), (345.678, "34,568"),
    ],
)  # fmt: skip
def test_a_share_has_two_digits_and_is_no_power_of_ten(share: float, text: str) -> None:
    assert percent(share) == text
