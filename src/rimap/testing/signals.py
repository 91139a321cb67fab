"""What every signal model must hold, whatever its settings, its parameters and their order."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rimap.errors import InputError
from rimap.signals.base import FIELD, GIVEN, TIME, Derived, Parameter, Setting, SignalModel
from rimap.signals.model_checks import refuse_contradictions
from rimap.testing.example_models import draw
from rimap.testing.property_checks import (
    Check,
    ContractError,
    DoesNotApply,
    Outcome,
    hold,
    outcomes_of,
    raise_failures,
    same,
)

#: Step of a finite difference, relative to the parameter (or to its box, if it is zero).
_STEP = 1e-5
#: Images nearer to zero than this share of the largest are left out of differences: a modulus has no derivative there.
_NEAR_ZERO = 1e-3
#: Numbers that no setting can have.
_IMPOSSIBLE: tuple[Any, ...] = (-1.0, np.nan, np.inf, "a")


def check_signal_model(model: SignalModel, *, seeds: Iterable[int] = range(3)) -> None:
    """Hold a signal model to its contracts.

    Parameters
    ----------
    model
        With settings that a scan may have; `rimap.testing.example_models` makes such models from the declarations.
    seeds
        Of the parameters that are drawn; every check runs with each.

    Raises
    ------
    ContractError
        With each property that does not hold, and by how much.
    """
    raise_failures(f"{model.title} ({model!r})", signal_model_outcomes(model, seeds=seeds))


def signal_model_outcomes(model: SignalModel, *, seeds: Iterable[int] = range(3)) -> list[Outcome]:
    """Return the outcome of each check of `check_signal_model`."""
    return outcomes_of(SIGNAL_CHECKS, model, seeds)


def it_describes_itself(model: SignalModel, seed: int) -> None:
    """It has a name, a title and settings, and a name of its own, a unit and a box for each parameter."""
    maps: list[Parameter | Derived] = [*model.parameters, *model.derived]
    names = [map_.name for map_ in maps]
    hold(model.name and model.title, "expected a name and a title")
    hold(len(set(names)) == len(names), f"expected distinct names of maps, got {', '.join(names)}")
    hold(
        [model.index(parameter.name) for parameter in model.parameters] == list(range(len(model.parameters))),
        "index() is wrong",
    )
    hold(all(map_.unit for map_ in maps), "expected a unit for each map, 1 if it has none")
    hold(
        all(setting.title and setting.symbol and setting.unit for setting in model.settings.values()),
        "a setting lacks title, symbol or unit",
    )
    hold(sum(parameter.role == TIME for parameter in model.parameters) == 1, "expected one time")
    hold(len(model.times) == model.n_images, f"expected {model.n_images} values of {model.axis.name}")
    suffixes = [s for s in (model.bids_suffix, *(map_.suffix for map_ in maps)) if s]
    hold(
        [suffix for suffix in suffixes if not suffix.isalnum()] == [],
        f"a BIDS suffix has letters and digits only, got {suffixes}",
    )


def mapping_accepts_it(model: SignalModel, seed: int) -> None:
    """Estimators map its images: its declarations are complete, and shape, derivatives and signal agree."""
    try:
        refuse_contradictions(model)
    except InputError as error:
        raise ContractError(str(error)) from None


def it_is_a_value(model: SignalModel, seed: int) -> None:
    """Equal models are equal, have one hash, and can be copied and pickled."""
    twins = {
        "dataclasses.replace": dataclasses.replace(model),
        "copy.deepcopy": copy.deepcopy(model),
        "subset of all images": model.subset(np.arange(model.n_images)),
    }
    cls = type(model)
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls:  # a class within a function cannot
        twins["copy"] = copy.copy(model)
    for what, twin in twins.items():
        hold(twin == model and hash(twin) == hash(model), f"{what} gives a model that differs: {twin!r}")
    other = model.with_bounds({model.time.name: (model.time.bounds[0], model.time.bounds[1] / 2)})
    hold(other != model, "a model with other bounds is equal to it")
    hold(other.time.bounds[1] == model.time.bounds[1] / 2, "with_bounds does not change the bounds")


def settings_survive_their_sidecar(model: SignalModel, seed: int) -> None:
    """Written in the unit of BIDS and read again, the settings give the same model."""
    read: dict[str, Any] = {}
    fields = [(setting.bids[0], setting.read_from) for setting in model.settings.values() if setting.bids]
    hold(len(set(fields)) == len(fields), f"expected a sidecar field of its own for each setting, got {fields}")
    for setting in model.settings.values():
        value = getattr(model, setting.name)
        if value is not None:
            written = json.loads(json.dumps([float(f"{v / setting.factor:.12g}") for v in np.atleast_1d(value)]))
            values = tuple(float(f"{v * setting.factor:.12g}") for v in written)
            read[setting.name] = values if setting.per_image is not False or setting.lengths != (1,) else values[0]
    hold(dataclasses.replace(model, **read) == model, f"expected the same model, got one with {read}")


def impossible_settings_are_refused(model: SignalModel, seed: int) -> None:
    """Negative, infinite and missing values, too few or too many, and seconds for milliseconds raise an InputError."""
    settings = [setting for setting in model.settings.values() if getattr(model, setting.name) is not None]
    for setting in settings:
        value = getattr(model, setting.name)
        values = tuple(float(v) for v in np.atleast_1d(value))
        refused = [(bad, *values[1:]) for bad in _IMPOSSIBLE]
        if setting.per_image is not False:
            refused.append(())
            if any(
                o is not setting and o.per_image and len(np.atleast_1d(getattr(model, o.name))) > 1 for o in settings
            ):
                # One value may stand for all images, where a setting is not of each image.
                refused += [v for v in (values[:-1], (*values, values[-1])) if setting.per_image or len(v) > 1]
        if setting.factor != 1 and max(values) / setting.factor < setting.plausible[0]:
            refused.append(tuple(value / setting.factor for value in values))
        for bad in refused:
            _expect_refusal(
                model, setting, bad if setting.per_image is not False or setting.lengths != (1,) else bad[0]
            )
    Q = sum(not parameter.given for parameter in model.parameters)
    if len(set(model.conditions)) == model.n_images >= Q > 1:
        try:
            model.subset([0] * model.n_images)
        except InputError:
            pass
        else:
            raise ContractError(f"{model.n_images} images with the same settings were accepted for {Q} parameters")
        if model.n_images > Q:
            model.subset([*range(Q), *range(Q)])  # repeats are welcome


def _expect_refusal(model: SignalModel, s: Setting, bad: Any) -> None:
    try:
        dataclasses.replace(model, **{s.name: bad})
    except InputError as error:
        hold(len(str(error)) > 10, f"{s.name} = {bad} is refused without a reason")
        return
    except Exception as error:
        raise ContractError(f"{s.name} = {bad} raises {type(error).__name__}: {error}, not an InputError") from error
    raise ContractError(f"{s.name} = {bad} was accepted")


def partials_are_those_of_finite_differences(model: SignalModel, seed: int) -> None:
    """The partial derivatives are those of finite differences."""
    kappa = draw(model, (5,), seed)
    f, partials = model.signal(kappa), model.partials(kappa)
    expected = (model.n_images, len(kappa), 5)
    hold(partials.shape == expected, f"expected partials (N, Q, *X) of shape {expected}, got {partials.shape}")
    steady = abs(f) > _NEAR_ZERO * abs(f).max() if model.magnitude else np.ones_like(f, bool)
    for row, parameter in enumerate(model.parameters):
        size = np.where(kappa[row] != 0, abs(kappa[row]), 1.0)
        up, down = kappa.copy(), kappa.copy()
        up[row] += _STEP * size
        down[row] -= _STEP * size
        numeric = (model.signal(up) - model.signal(down)) / (up[row] - down[row])
        off = (abs(numeric - partials[:, row]) * size / abs(f).max())[steady]
        hold(
            np.isfinite(off).all() and off.max(initial=0) < 1e-6,
            f"the derivative in {parameter.name} deviates from finite differences by {np.max(off, initial=0):.2g} of "
            f"the largest signal per unit of log {parameter.name}; 1e-6 is allowed",
        )


def torch_gives_what_numpy_gives(model: SignalModel, seed: int) -> None:
    """With torch tensors signal, partial derivatives and start are those of NumPy, and those of autograd."""
    if importlib.util.find_spec("torch") is None:
        raise DoesNotApply("torch is not installed")
    torch: Any = importlib.import_module("torch")
    kappa = draw(model, (2, 3), seed)
    tensor = torch.tensor(kappa, requires_grad=True)
    f, partials = model.signal(tensor), model.partials(tensor)
    hold(torch.is_tensor(f) and torch.is_tensor(partials), "expected tensors for tensors")
    rows = [model.index(amplitude.name) for amplitude in model.amplitudes]
    unit = abs(kappa[rows]).max() if rows else 1.0  # near zero the rounding is that of A
    own, own_partials = model.signal(kappa), model.partials(kappa)
    same(f.detach().numpy(), own, "the signal", relative=1e-12, absolute=1e-14 * unit)
    same(partials.detach().numpy(), own_partials, "the partials", relative=1e-10, absolute=1e-14)
    same(model.initial_guess(f).detach().numpy(), model.initial_guess(own), "the start", relative=1e-7)
    for n in range(model.n_images):
        (gradient,) = torch.autograd.grad(f[n].sum(), tensor, retain_graph=True)
        same(gradient.numpy(), own_partials[n], f"autograd in image {n}", relative=1e-9, absolute=1e-12)


def voxels_are_independent(model: SignalModel, seed: int) -> None:
    """A voxel gives the same alone as in a volume of any shape, and keeps its precision."""
    kappa = draw(model, (2, 3, 4), seed)
    f, d = model.signal(kappa), model.partials(kappa)
    hold(f.shape == (model.n_images, 2, 3, 4), f"expected images (N, *X), got the shape {f.shape}")
    one = kappa[:, 1, 2, 3]
    scale = np.abs(d).max((0, 2, 3, 4))
    same(model.signal(one), f[:, 1, 2, 3], "the signal of one voxel", relative=1e-13, absolute=1e-15 * abs(f).max())
    for row, parameter in enumerate(model.parameters):
        what = f"the derivative in {parameter.name} of one voxel"
        same(model.partials(one)[:, row], d[:, row, 1, 2, 3], what, relative=1e-12, absolute=1e-15 * scale[row])
    single = model.signal(kappa.astype(np.float32)).dtype
    hold(single == np.float32, f"expected float32 images for float32 maps, got {single}")


def images_keep_the_order_of_the_settings(model: SignalModel, seed: int) -> None:
    """The images of a subset are those of the whole, in its order."""
    kappa = draw(model, (4,), seed)
    order = np.random.default_rng(seed).permutation(model.n_images)
    part = model.subset(order)
    same(part.signal(kappa), model.signal(kappa)[order], "the signal", relative=1e-14)
    same(part.partials(kappa), model.partials(kappa)[order], "the partials", relative=1e-14)
    hold(part.conditions == [model.conditions[i] for i in order], "the settings are not in the order of the images")


def parameters_may_have_any_order(model: SignalModel, seed: int) -> None:
    """With its parameters declared in another order it gives the same signal, derivatives and start."""
    others = tuple(reversed(model.nonlinear))  # amplitudes keep their order: it is that of the columns of the shape
    orders = [(*others, *model.amplitudes), (*model.amplitudes, *others)]
    kappa = draw(model, (4,), seed)
    f, d, start = model.signal(kappa), model.partials(kappa), model.initial_guess(model.signal(kappa))
    for order in orders:
        turned, rows = copy.copy(model), [model.index(p.name) for p in order]
        object.__setattr__(turned, "parameters", order)
        same(turned.signal(kappa[rows]), f, "the signal", relative=1e-14)
        same(turned.partials(kappa[rows]), d[:, rows], "the partials", relative=1e-14)
        same(turned.initial_guess(f), start[rows], "the start", relative=1e-14)


def amplitudes_scale_the_signal(model: SignalModel, seed: int) -> None:
    """The signal scales with all amplitudes together, and is linear in each before a modulus."""
    if not model.amplitudes:
        raise DoesNotApply("it has no amplitude")
    kappa = draw(model, (4,), seed)
    rows = [model.index(amplitude.name) for amplitude in model.amplitudes]
    scaled = kappa.copy()
    scaled[rows] *= 1e6
    f = model.signal(kappa)
    same(model.signal(scaled), 1e6 * f, "the signal", relative=1e-12, absolute=1e-8 * abs(f).max())
    guess, scaled_guess = model.initial_guess(f), model.initial_guess(7 * f)
    hold(guess.shape == kappa.shape, f"expected a start (Q, *X) of shape {kappa.shape}, got {guess.shape}")
    same(scaled_guess[rows], 7 * guess[rows], "the start of the amplitudes", relative=1e-7)
    for q, parameter in enumerate(model.parameters):
        hold(
            (guess[q] >= parameter.bounds[0]) & (guess[q] <= parameter.bounds[1]),
            f"the start of {parameter.name} is outside its box",
        )
    if not model.magnitude:
        columns = np.asarray(model.columns(model.by_name(kappa)))
        linear = sum(kappa[row] * columns[:, k] for k, row in enumerate(rows))
        same(f, linear, "the sum of amplitude times column", relative=1e-12, absolute=1e-13 * abs(f).max())


def it_is_finite_in_its_whole_box(model: SignalModel, seed: int) -> None:
    """Signal and derivatives are finite everywhere in the box, and a magnitude is not negative."""
    kappa = draw(model, (50,), seed, inner=0.0)
    for row, parameter in enumerate(model.parameters):
        if not parameter.amplitude:
            kappa[row, 0], kappa[row, 1] = parameter.bounds
    f, d = model.signal(kappa), model.partials(kappa)
    for what, bad in (("the signal", ~np.isfinite(f).all(0)), ("a derivative", ~np.isfinite(d).all((0, 1)))):
        if bad.any():
            raise ContractError(f"{what} is not finite at {_where(model, kappa[:, np.argmax(bad)])}")
    if model.magnitude:
        hold(f >= 0, f"a magnitude is negative: {f.min():.3g}")


def a_claim_of_linearity_is_true(model: SignalModel, seed: int) -> None:
    """If it claims to be linear in the field, it is; and its basis then gives the signal."""
    if model.field is not None and not model.linear_in_field:
        raise DoesNotApply("it does not claim to be linear in a field")
    if len(model.amplitudes) != 1 or len(model.nonlinear) != 1 + (model.field is not None):
        raise DoesNotApply("a basis needs one amplitude and at most one field")
    kappa = model.by_name(draw(model, (4,), seed))
    phi = model.basis(kappa[model.time.name])
    columns = 1 + (model.field is not None)
    expected = (model.n_images, columns, 4)
    hold(phi.shape == expected, f"expected a basis (N, K, *X) of shape {expected}, got {phi.shape}")
    g = phi[:, 0] if model.field is None else phi[:, 0] + kappa[model.field.name] * phi[:, 1]
    f = kappa[model.amplitudes[0].name] * g
    signal = np.asarray(model.signal(draw(model, (4,), seed)))
    same(
        abs(f) if model.magnitude else f,
        signal,
        "the signal of the basis",
        relative=1e-10,
        absolute=1e-13 * abs(f).max(),
    )
    if model.field is not None and model.field.treatment != GIVEN:
        hold(model.separable, "its claim to be linear in the field is refused: it has further parameters")


def derived_maps_are_smooth(model: SignalModel, seed: int) -> None:
    """Formulas of derived maps are finite and smooth within the box, voxel by voxel, with NumPy and torch."""
    if not model.derived:
        raise DoesNotApply("it has no derived maps")
    kappa = draw(model, (6,), seed, inner=0.42)
    for d in model.derived:
        value = np.asarray(d.formula(model, model.by_name(kappa)))
        hold(value.shape == (6,), f"{d.name}: expected a map (*X) of shape (6,), got {value.shape}")
        hold(np.isfinite(value), f"{d.name} is not finite within the box")
        one = np.asarray(d.formula(model, model.by_name(kappa[:, 2])))
        same(one, value[2], f"{d.name} of one voxel", relative=1e-13)
        for row, parameter in enumerate(model.parameters):
            coarse, fine = (_slope(model, d.formula, kappa, row, step) for step in (2e-4, 1e-4))
            size = abs(value).max() / abs(kappa[row]).max()
            same(coarse, fine, f"the slope of {d.name} in {parameter.name}", relative=1e-3, absolute=1e-5 * size)
        if importlib.util.find_spec("torch") is not None:
            torch: Any = importlib.import_module("torch")
            tensor = d.formula(model, model.by_name(torch.tensor(kappa)))
            hold(torch.is_tensor(tensor), f"{d.name}: expected a tensor for tensors")
            same(tensor.numpy(), value, f"{d.name} with torch", relative=1e-12)


def _slope(model: SignalModel, formula: Any, kappa: NDArray[Any], q: int, step: float) -> NDArray[Any]:
    up, down = kappa.copy(), kappa.copy()
    up[q], down[q] = kappa[q] * (1 + step), kappa[q] * (1 - step)
    rise = formula(model, model.by_name(up)) - formula(model, model.by_name(down))
    return np.asarray(rise / (up[q] - down[q]))


def fields_say_what_they_are_like(model: SignalModel, seed: int) -> None:
    """A smooth field has a prior within its box, so that training and simulation can draw it."""
    fields = [parameter for parameter in model.parameters if parameter.role == FIELD]
    if not fields:
        raise DoesNotApply("it has no field")
    for field in fields:
        if field.smooth:
            hold(field.prior is not None, f"{field.name} is smooth: expected a FieldPrior as its prior, got None")
        if field.prior is not None:
            low, high = field.prior.mean
            inside = field.bounds[0] <= low <= high <= field.bounds[1]
            hold(inside, f"{field.name}: expected a mean within {field.bounds}, got {field.prior.mean}")


def _where(model: SignalModel, kappa: NDArray[Any]) -> str:
    return ", ".join(f"{parameter.name} = {float(v):.4g}" for parameter, v in zip(model.parameters, kappa))


#: Every check, in the order in which they are best read.
SIGNAL_CHECKS: tuple[Check[SignalModel], ...] = (
    it_describes_itself,
    mapping_accepts_it,
    it_is_a_value,
    settings_survive_their_sidecar,
    impossible_settings_are_refused,
    partials_are_those_of_finite_differences,
    torch_gives_what_numpy_gives,
    voxels_are_independent,
    images_keep_the_order_of_the_settings,
    parameters_may_have_any_order,
    amplitudes_scale_the_signal,
    it_is_finite_in_its_whole_box,
    a_claim_of_linearity_is_true,
    fields_say_what_they_are_like,
    derived_maps_are_smooth,
)
