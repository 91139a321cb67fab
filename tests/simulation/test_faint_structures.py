"""Faint structures are as detectable as was drawn, whatever the noise and the protocol."""

from __future__ import annotations

import numpy as np
import pytest

from rimap.simulation.anatomies import Anatomy, digital_brain
from rimap.simulation.faint_structures import LARGEST_LOG_CONTRAST, Faint, put_faint
from rimap.simulation.patches import Structure, simulate_batch
from rimap.simulation.recipe import PatchRecipe


@pytest.mark.parametrize("relative_sd", [0.005, 0.05])
def test_the_contrast_of_a_structure_follows_from_the_noise(relative_sd: float) -> None:
    faint = Faint(blobs=1, radius=(2.0, 3.0), detectability=(9.0, 11.0), gratings=0.0)
    everywhere = np.ones((40, 40), bool)
    limited = 0
    for seed in range(20):
        amplitude, time = np.ones((40, 40), np.float32), np.full((40, 40), 800.0, np.float32)
        sd = np.full_like(time, relative_sd)
        inside = put_faint(amplitude, time, sd, everywhere, faint, np.random.default_rng(seed))
        contrast = abs(np.log(time[inside] / 800.0))
        assert np.ptp(contrast) < 1e-5 and (time[~inside] == 800.0).all()
        d_prime = contrast[0] / relative_sd * inside.sum() ** 0.5
        if contrast[0] == pytest.approx(LARGEST_LOG_CONTRAST, rel=1e-4):
            limited += 1
            assert d_prime < 11.0 * 1.01
        else:
            assert 9.0 * 0.99 < d_prime < 11.0 * 1.01
    assert limited < 10


def test_nothing_is_changed_outside_the_tissue() -> None:
    faint = Faint(blobs=30, gratings=1.0)
    tissue = np.zeros((40, 40), bool)
    tissue[10:30, 5:20] = True
    amplitude, time = np.ones((40, 40), np.float32), np.full((40, 40), 800.0, np.float32)
    inside = put_faint(amplitude, time, np.full_like(time, 0.02), tissue, faint, np.random.default_rng(1))
    assert inside.any() and not inside[~tissue].any()
    assert (time[~tissue] == 800.0).all() and (amplitude[~tissue] == 1.0).all()


@pytest.mark.parametrize("sequence", ["ir", "t2", "vfa"])
def test_a_batch_has_them_and_is_the_same_without_them_elsewhere(sequence: str) -> None:
    head = (Anatomy.of(digital_brain((48, 54, 36)), "small"),)
    plain = PatchRecipe(sequence=sequence, patch_size=24, seed=3)
    without, batch = (simulate_batch(r, head, 0, 4) for r in (plain, _with_faint(plain)))
    faint = batch.structures == Structure.FAINT
    assert faint.any() and np.isfinite(batch.images).all()
    T = batch.model.index(batch.model.time.name)
    np.testing.assert_array_equal(batch.kappa[:, T][~faint], without.kappa[:, T][~faint])
    assert (batch.kappa[:, T][faint] != without.kappa[:, T][faint]).mean() > 0.9


def _with_faint(recipe: PatchRecipe) -> PatchRecipe:
    from dataclasses import replace

    return replace(recipe, faint_share=1.0)
