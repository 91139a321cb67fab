"""The colours of the ISMRM recommendation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rimap import colours


@pytest.mark.parametrize("name", ["lipari", "navia", "batlow", "lajolla"])
def test_tables_are_those_of_cmcrameri_with_black_first(name):
    from cmcrameri import cm

    table = colours.palette(name)
    expected = np.round(getattr(cm, name)(np.arange(256))[:, :3] * 255)
    assert table[0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(table[1:], expected[1:], atol=1)


@pytest.mark.parametrize("name", ["lipari", "navia"])
def test_a_rate_has_the_colours_of_its_time_in_reverse(name):
    forward, back = colours.palette(name), colours.palette(f"{name}_r")
    assert back[0].tolist() == [0, 0, 0] and (back[1:255] == forward[254:0:-1]).all()


def test_the_curve_is_that_of_the_recommendation():
    """Against the published procedure, entry by entry, for windows with and without a linear part."""
    for low, high in ((0.0, 2000.0), (400.0, 2000.0), (1000.0, 2000.0), (10.0, 120.0)):
        n, knee = 256, high / np.e
        m = max(knee, low)
        b = 1 / n + (knee >= low) * (knee - low) / (2 * knee - low) + 1e-7
        for x in np.linspace(low, high, 57):
            if x > m:
                f = n * ((np.log(m) - np.log(x)) / (np.log(m) - np.log(high)) * (1 - b) + b)
            elif low < knee and x > low:
                f = n * ((x - low) / (knee - low) * (b - 1 / n)) + 1
            else:
                f = 1.0
            assert abs(int(colours.indices(x, low, high, logarithmic=True)) - min(255, int(f))) <= 1


@given(st.lists(st.floats(-1e3, 1e4), min_size=2), st.floats(0, 500), st.floats(600, 5000), st.booleans())
def test_entries_grow_with_the_value_and_never_take_the_black_one(values, low, high, logarithmic):
    entries = colours.indices(np.sort(values), low, high, logarithmic=logarithmic).astype(int)
    assert entries.min() >= 1 and (np.diff(entries) >= 0).all()


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_in_the_window_and_are_few(low, span):
    marks = colours.ticks(low, low + span)
    assert 2 <= len(marks) <= 7
    assert all(low - 1e-6 * span - 1e-6 * abs(low) <= t <= low + span * (1 + 1e-6) + 1e-6 * abs(low) for t in marks)


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=50))
def test_window_has_ends_in_order(values):
    low, high = colours.window(np.array(values))
    assert low < high
