"""The data term and the start of a RIM for models other than inversion recovery: by role, in any parameter order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import rimap
from rimap import SignalModel
from rimap.arrays import column, namespace
from rimap.errors import InputError
from rimap.estimators.rim.data_term import data_sums
from rimap.estimators.rim.initial_estimate import likelihood_start
from rimap.estimators.rim.known_field import DataTerm
from rimap.estimators.rim.layout import Layout
from rimap.estimators.rim.loop import GENERAL, PAPER, box, from_state, to_state
from rimap.estimators.rim.steps import Loop
from rimap.estimators.table import TOLERANCE
from rimap.signals.base import FieldPrior, Parameter, setting

AMPLITUDE = Parameter("M", "a.u.", (0.0, np.inf), "amplitude")
TIME = Parameter("Tx", "ms", (1.0, 4000.0), "time", start=60.0)
B1 = Parameter("b1", "1", (0.5, 1.5), "field", treatment="smooth", start=1.0, prior=FieldPrior(mean=(0.8, 1.1)))


@dataclass(frozen=True)
class Offset(SignalModel):
    """M e^(−t/T) + C, with T first."""

    te: Any = setting("echo time", "TE")
    name: ClassVar[str] = "offset"
    title: ClassVar[str] = "Offset"
    parameters: ClassVar[Any] = (TIME, AMPLITUDE, replace(AMPLITUDE, name="C"))

    def shape(self, Tx: Any) -> Any:  # type: ignore[override]
        decay = namespace(Tx).exp(-column(self.te, Tx) / Tx)
        return namespace(Tx).stack([decay, 1 + 0 * decay], axis=1)


@dataclass(frozen=True)
class Refocused(SignalModel):
    """M e^(−t/T) with echoes that alternate with the field, which enters nonlinearly and is smooth."""

    te: Any = setting("echo time", "TE")
    name: ClassVar[str] = "refocused"
    title: ClassVar[str] = "Refocused"
    parameters: ClassVar[Any] = (B1, TIME, AMPLITUDE)

    def shape(self, b1: Any, Tx: Any) -> Any:  # type: ignore[override]
        xp, te = namespace(Tx), column(self.te, Tx)
        second = column(np.arange(self.n_images) % 2, Tx)
        return xp.exp(-te / Tx) * (xp.sin(b1 * np.pi / 2) ** 2 + 0.4 * second * xp.cos(b1 * np.pi / 2) ** 2 * b1)


@dataclass(frozen=True)
class Given(Refocused):
    """The same with a field that is known."""

    name: ClassVar[str] = "given"
    parameters: ClassVar[Any] = (AMPLITUDE, replace(B1, treatment="given"), TIME)


@dataclass(frozen=True)
class Free(Refocused):
    """The same with a field that each voxel has for itself."""

    name: ClassVar[str] = "free"
    parameters: ClassVar[Any] = (AMPLITUDE, TIME, replace(B1, treatment="free", transform="log", start=1.0))


TE = (8.0, 16.0, 24.0, 32.0, 45.0, 60.0, 90.0, 140.0)
MODELS = {kind.name: kind(te=TE) for kind in (Offset, Refocused, Given, Free)}  # type: ignore[call-arg]
each = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def scene(model: SignalModel, sigma: float, size: int = 24) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    """Return what a network carries (P, 1, h, w), what is known, and images (N, 1, h, w)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size][:, None] / size
    values = {"M": 0.6 + 0.3 * x, "Tx": np.where((4 * x).astype(int) % 2, 45.0, 80.0), "C": 0.1 + 0.05 * y}
    values["b1"] = 0.88 + 0.1 * x * y
    layout = Layout.of(model)
    carried = np.stack([values[p.name] for p in layout.carried])
    known = {p.name: values[p.name].astype(np.float32) for p in layout.known}
    images = model.signal(layout.kappa_of(carried, known))
    return carried, known, (images + sigma * rng.standard_normal(images.shape)).astype(np.float32)


@each
@pytest.mark.parametrize("rician", [False, True], ids=["gaussian", "rician"])
def test_the_sums_from_the_table_are_those_of_the_definition(model: SignalModel, rician: bool) -> None:
    carried, known, S = scene(model, 0.02)
    S, sigma = abs(S), np.full((1, 1, 1), 0.02, np.float32)
    here = (carried * np.random.default_rng(1).uniform(0.95, 1.05, carried.shape)).astype(np.float32)
    fast = DataTerm(model, S, sigma, rician, known=known)(here)
    slow = data_sums(model, S.astype(float), here.astype(float), 0.02 if rician else None, known)
    for a, b in zip(fast, slow):
        # the table is exact to TOLERANCE of the signal, which adds up over the images
        np.testing.assert_allclose(a, b, atol=len(TE) * TOLERANCE * abs(b).max(), rtol=5e-3)


@each
def test_torch_gives_the_same_sums(model: SignalModel) -> None:
    torch = pytest.importorskip("torch")
    carried, known, S = scene(model, 0.02)
    known_there = {name: torch.from_numpy(v).double() for name, v in known.items()}
    there = data_sums(model, torch.from_numpy(S).double(), torch.from_numpy(carried), None, known_there)
    for a, b in zip(there, data_sums(model, S.astype(float), carried, None, known)):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-9, atol=1e-9 * abs(b).max())


@each
@pytest.mark.parametrize("torch_too", [False, True], ids=["numpy", "torch"])
def test_the_start_is_near_the_truth(model: SignalModel, torch_too: bool) -> None:
    sigma = 0.004
    carried, known, S = scene(model, sigma)
    data = DataTerm(model, S, np.full((1, 1, 1), sigma, np.float32), False, known=known, reference_time=60.0)
    problem = data.problem
    if torch_too:
        torch = pytest.importorskip("torch")
        images = torch.from_numpy(S)
        known_there = {name: torch.from_numpy(v) for name, v in known.items()}
        problem = replace(
            problem,
            S=images,
            sigma=torch.full((1, 1, 1), sigma),
            known=known_there,
            sums_at=lambda x: data_sums(model, images, x, None, known_there),
        )
    found = np.asarray(likelihood_start(problem))
    layout = Layout.of(model)
    off = dict(zip((p.name for p in layout.carried), abs(found / carried - 1).reshape(len(carried), -1)))
    assert np.median(off["Tx"]) < 0.06 and np.median(off["M"]) < 0.06
    if layout.field is not None and layout.field.smooth:
        assert np.median(off["b1"]) < 0.02
    chi2 = data(found.astype(np.float32)).sse / sigma**2
    assert np.median(chi2) < 1.3 * len(TE)


@each
@pytest.mark.parametrize("config", [PAPER, GENERAL], ids=["paper", "general"])
def test_coordinates_there_and_back(model: SignalModel, config: Any) -> None:
    carried, _, _ = scene(model, 0.0)
    layout = Layout.of(model)
    u = to_state(config, layout, carried)
    np.testing.assert_allclose(from_state(config, layout, u), carried, rtol=1e-12)
    for x, (low, high) in zip(u, box(config, layout)):
        assert low < x.min() and x.max() < high


def test_the_order_is_amplitudes_field_time() -> None:
    names: Callable[[SignalModel], list[str]] = lambda m: [p.name for p in Layout.of(m).carried]  # noqa: E731
    assert names(MODELS["offset"]) == ["M", "C", "Tx"]
    assert names(MODELS["refocused"]) == ["M", "b1", "Tx"]
    assert names(MODELS["given"]) == ["M", "Tx"] and [p.name for p in Layout.of(MODELS["given"]).known] == ["b1"]


def test_two_estimated_fields_are_refused() -> None:
    with pytest.raises(InputError, match="one field at most, got b1, other"):
        Layout((AMPLITUDE, B1, replace(B1, name="other"), TIME))


@each
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_standard_deviations_are_in_the_unit_of_each_parameter(model: SignalModel, factor: float) -> None:
    """Also of a field that is estimated in its logarithm: they are those of u through the slope of what is carried."""
    layout, config = Layout.of(model), replace(GENERAL, sd_outputs=True)
    carried = (factor * scene(model, 0.0)[0]).astype(np.float32)
    got = Loop(model, config, None, {})._sd(carried, np.full(carried.shape, 0.01, np.float32))  # type: ignore[arg-type]
    u = to_state(config, layout, carried.astype(float))
    ends = [np.asarray(from_state(config, layout, u + side * 0.005)) for side in (-1, 1)]
    np.testing.assert_allclose(got, ends[1] - ends[0], rtol=1e-3)


def _decay_in(unit: str, factor: float) -> Any:
    """Return a decay whose time is in another unit: `factor` of them are a millisecond."""
    time = replace(TIME, unit=unit, bounds=(1.0 * factor, 4000.0 * factor), start=60.0 * factor)

    def shape(self: Any, Tx: Any) -> Any:
        return namespace(Tx).exp(-column(self.te, Tx) * factor / Tx)

    changed = {"name": "decay", "title": "Decay", "parameters": (AMPLITUDE, time), "shape": shape}
    return type("Decay", (Refocused,), changed)(te=TE)


@pytest.mark.parametrize(
    ("first", "second"),
    [(("ms", 1.0), ("s", 1e-3)), (("ms", 1.0), ("µs", 1e3)), (("steps", 1.0), ("furlongs", 1e-3))],
)
def test_the_unit_of_the_time_does_not_change_the_map_of_a_network(first: Any, second: Any) -> None:
    rng = np.random.default_rng(0)
    T = np.where(np.arange(24)[:, None] < 12, 50.0, 90.0) * rng.normal(1, 0.02, (24, 24))
    images = 500 * np.exp(-np.reshape(TE, (-1, 1, 1)) / T) + rng.normal(0, 20, (len(TE), 24, 24))
    found = []
    for unit, factor in (first, second):
        maps = rimap.RIM.load("universal").estimate(
            rimap.WeightedSeries(images, _decay_in(unit, factor), noise=rimap.Gaussian(20.0))
        )
        found.append((maps["Tx"] / factor, maps.sd["Tx"] / factor))
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=5e-3)
    assert np.isfinite(found[0][1]).all()
    assert abs(np.median(found[0][0] / T) - 1) < 0.05
