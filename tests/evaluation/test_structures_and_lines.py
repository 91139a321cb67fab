"""Structures lie where they should; a sigmoid's slope is found; lines cross the border."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rimap.errors import InputError
from rimap.evaluation.accuracy import crop
from rimap.evaluation.border import find_lines, fit_sigmoid, read_lines
from rimap.evaluation.structures import STRUCTURES, place, with_structures
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.simulation.anatomies import digital_brain
from rimap.simulation.tissues import GM, WM


def _labels() -> np.ndarray:
    labels = digital_brain((128, 144, 96))[:, :, 48]
    return crop(np.where(np.isin(labels, (1, 2, 3, 8)), labels, 0))


def test_structures_lie_inside_their_tissue_and_apart() -> None:
    labels = _labels()
    placed = place(labels, np.random.default_rng(0), count=3, distance=3)
    pixels = np.zeros(labels.shape, int)
    for s in STRUCTURES:
        inside, around = placed.inside[s.name], placed.around[s.name]
        assert placed.count(s.name) >= 1
        assert set(labels[(inside > 0) | (around > 0)]) == {s.tissue}
        assert (inside > 0).sum() == placed.count(s.name) * s.shape[0] * s.shape[1]
        assert not ((inside > 0) & (around > 0)).any()
        pixels += (inside > 0) | (around > 0)
    assert pixels.max() == 1
    kappa = np.ones((3, *labels.shape))
    changed = with_structures(kappa, PROTOCOLS["IV_T1"], placed)
    assert (changed[:2] == 1).all() and set(np.unique(changed[2])) == {1.0, 400.0, 1200.0}
    assert {s.name: (s.T1, s.tissue) for s in STRUCTURES}["hypo_point"] == (400.0, GM)


@pytest.mark.parametrize("nu", [0.6, 1.5, 4.0])
def test_the_slope_of_a_sigmoid_is_found(nu: float) -> None:
    x = np.linspace(-5, 5, 41)
    y = 700 / (1 + np.exp(-nu * (x - 0.4))) + 850 + 5 * np.random.default_rng(0).standard_normal(41)
    fit = fit_sigmoid(x, y)
    assert fit.nu == pytest.approx(nu, rel=0.1) and fit.r2 > 0.98


def test_no_sigmoid_where_the_profile_falls_or_is_missing() -> None:
    x = np.linspace(-5, 5, 41)
    assert np.isnan(fit_sigmoid(x, -x).nu)
    assert np.isnan(fit_sigmoid(x, np.full(41, np.nan)).nu)


def test_lines_run_from_white_to_grey_matter() -> None:
    x, y = np.mgrid[:80, :80]
    radius = np.hypot(x - 39.5, y - 39.5)
    T = np.where(radius < 20, 900.0, 1500.0)
    T[radius > 34] = np.nan
    lines = find_lines(T, (700, 1050), (1150, 1900), count=12)
    assert len(lines) == 12
    for line in lines:
        a, b = np.hypot(line.x0 - 39.5, line.y0 - 39.5), np.hypot(line.x1 - 39.5, line.y1 - 39.5)
        assert a < 20 < b
        assert abs((a + b) / 2 - 20) < 1.5


def test_blurring_lowers_the_slope() -> None:
    from scipy.ndimage import gaussian_filter

    x, y = np.mgrid[:80, :80]
    T = np.where(np.hypot(x - 39.5, y - 39.5) < 20, 900.0, 1500.0)
    lines = find_lines(T, (700, 1050), (1150, 1900), count=8)
    medians = [
        np.nanmedian([fit_sigmoid(*line.profile(gaussian_filter(T, s))).nu for line in lines]) for s in (0.5, 1, 2)
    ]
    assert medians[0] > 1.5 * medians[1] > 1.5 * 1.5 * medians[2]


def test_lines_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text("x0,y0,x1,y1\n1,2,3,4\n")
    assert read_lines(tmp_path / "lines.csv")[0].x1 == 3
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="x0,y0,x1,y1"):
        read_lines(tmp_path / "bad.csv")


def test_crop_keeps_all_of_the_brain() -> None:
    labels = np.zeros((30, 40), np.uint8)
    labels[10:20, 5:30] = WM
    assert crop(labels, 2).shape == (14, 29)
    assert (crop(labels, 2) == WM).sum() == (labels == WM).sum()
