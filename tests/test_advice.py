"""What the user is told has a weight: the heaviest comes first, and notes are no warnings."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from rimap.advice import Weight, note, notes_of, ordered, unreliable, warnings_of, weight_of

TEXTS = ["check the times", note("B1 from x.nii.gz"), unreliable("do not rely on it"), "check the times"]


def test_the_heaviest_comes_first_and_each_once() -> None:
    assert ordered(TEXTS) == ("do not rely on it", "check the times", "B1 from x.nii.gz")
    assert warnings_of(TEXTS) == ("do not rely on it", "check the times") and notes_of(TEXTS) == ("B1 from x.nii.gz",)


def test_a_weight_survives_copies_and_is_text_elsewhere() -> None:
    heavy = unreliable("x")
    for again in (pickle.loads(pickle.dumps(heavy)), copy.deepcopy(heavy)):
        assert again == "x" and weight_of(again) is Weight.UNRELIABLE
    assert json.dumps([heavy]) == '["x"]' and weight_of("x") is Weight.CAUTION


def test_no_share_is_a_power_of_ten() -> None:
    from rimap.advice import percent

    for share in (0.0, 1e-5, 0.001, 0.0994, 0.0996, 0.5, 0.996, 1.0, 12.0, 345.678):
        text = percent(share)
        assert "e" not in text or share < 1e-4
        assert float(text.replace(",", "")) == pytest.approx(100 * share, rel=0.06, abs=1e-9)
