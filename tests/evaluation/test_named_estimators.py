"""Estimators by name."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import cast

import numpy as np
import pytest

from rimap import MLE, NLLS, PROTOCOLS
from rimap.errors import InputError
from rimap.evaluation.figures import COLOURS, colour
from rimap.evaluation.named_estimators import NotAvailable, available, fitting, named


def test_names() -> None:
    assert isinstance(named("nlls"), NLLS)
    assert named("global_b", threads=1) == MLE(lambda_B=math.inf, threads=1)
    assert named("mle:1e4") == MLE(lambda_B=1e4)


@pytest.mark.parametrize("spec", ["rim:nobody", "resnet:nobody", "rim:no/such/file.onnx"])
def test_a_network_that_does_not_ship_is_skipped_by_name(spec: str) -> None:
    with pytest.raises(NotAvailable, match=r"no network|no such file"):
        named(spec)
    found, skipped = available(["nlls", spec])
    assert list(found) == ["nlls"]
    assert len(skipped) == 1 and spec in skipped[0]


@pytest.mark.parametrize("spec", ["mel", "mle:much", "nlls:3", "rim:"])
def test_a_name_that_nothing_has_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=spec.partition(":")[0]) as error:
        named(spec)
    assert not isinstance(error.value, NotAvailable)


def test_denoising_without_dipy_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match="dipy"):
        named("mppca+nlls")


def test_what_is_the_same_on_a_decay_is_kept_once() -> None:
    assert fitting(["nlls", "mle", "global_b"], PROTOCOLS["IV_T1"]) == ("nlls", "mle", "global_b")
    assert fitting(["nlls", "mle", "global_b"], PROTOCOLS["IV_T2"]) == ("mle",)
    assert fitting(["nlls", "global_b"], PROTOCOLS["IV_T2"]) == ("nlls",)


def test_colours_differ_between_estimators_and_are_always_the_same() -> None:
    main = ["nlls", "mle", "global_b", "mppca+nlls", "rim:universal", "rim:rim_t1_31", "resnet:resnet_t1_31"]
    assert len({COLOURS[s] for s in main}) == len(main)
    assert colour("rim:runs/x.onnx") == colour("rim:runs/x.onnx")


@dataclass(frozen=True)
class _Fake:
    """Stands for dipy's module: it leaves the images as they are."""

    seen: list[tuple[int, ...]]

    def mppca(self, data: np.ndarray, **_: object) -> np.ndarray:
        self.seen.append(data.shape)
        return data


def test_a_slice_is_denoised_as_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    from rimap import Gaussian
    from rimap.evaluation import named_estimators
    from rimap.simulation.subjects import simulate_series

    fake = _Fake([])
    monkeypatch.setitem(sys.modules, "dipy.denoise.localpca", cast(ModuleType, fake))
    for parent in ("dipy", "dipy.denoise"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    model = PROTOCOLS["IV_T2"]
    kappa = np.stack([np.full((12, 9), 1.0), np.full((12, 9), 80.0)])
    series = simulate_series(kappa, model, Gaussian(sigma=0.01), np.random.default_rng(0))
    same = named_estimators.Denoised(inner=NLLS(), name="mppca+nlls").estimate(series)
    np.testing.assert_allclose(same["T2"], NLLS().estimate(series)["T2"], rtol=1e-4)
    assert fake.seen == [(12, 9, 1, 6)]


@pytest.mark.skipif(importlib.util.find_spec("dipy") is None, reason="dipy is not installed")
@pytest.mark.parametrize("signed", [False, True])
def test_mppca_halves_the_scatter_where_tissue_is_uniform(signed: bool) -> None:
    from rimap import Gaussian
    from rimap.simulation.subjects import simulate_series

    model = replace(PROTOCOLS["IV_T1"], signed=signed)  # type: ignore[call-arg]
    kappa = np.stack([np.full((20, 16), v) for v in (1.0, 1.9, 900.0)])
    series = simulate_series(kappa, model, Gaussian(sigma=0.1), np.random.default_rng(0))
    plain, denoised = (named(n, threads=1).estimate(series)["T1"] for n in ("nlls", "mppca+nlls"))
    assert np.nanstd(denoised) < 0.5 * np.nanstd(plain) and abs(np.nanmedian(denoised) / 900 - 1) < 0.03
