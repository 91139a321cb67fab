"""Table 1 as printed."""

import pytest

from rimap.simulation.tissues import BRAIN_LABELS, DURA, FAT, LABELS, TISSUES, table

TABLE_1 = {
    "CSF": (3500, 300, 2000, 300, 1.0),
    "GM": (1400, 300, 110, 30, 0.85),
    "WM": (780, 250, 80, 20, 0.65),
    "fat": (420, 100, 70, 20, 0.9),
    "muscle": (1200, 300, 50, 20, 0.7),
    "muscle/skin": (1230, 300, 50, 20, 0.7),
    "skull": (400, 100, 30, 10, 0.9),
    "vessels": (1980, 300, 275, 70, 1.0),
    "marrow": (580, 100, 50, 20, 0.8),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_each_row_is_that_of_the_paper(name):
    row = TISSUES[LABELS.index(name)]
    assert (row.T1.mean, row.T1.sd, row.T2.mean, row.T2.sd, row.A.mean) == TABLE_1[name]
    assert row.A.sd == 0.3


def test_every_label_has_a_row_and_every_value_a_doi():
    assert set(TISSUES) == set(range(1, len(LABELS)))
    for label, row in TISSUES.items():
        assert row.label == label and row.name == LABELS[label]
        assert all(row.of(p).doi.startswith("10.") for p in ("A", "T1", "T2"))
    assert [LABELS[i] for i in BRAIN_LABELS] == ["CSF", "GM", "WM", "vessels"]


def test_table_by_label():
    mean, sd = table("T1")
    assert mean[0] == sd[0] == 0
    assert mean[FAT] == 420 and sd[DURA] == 300
