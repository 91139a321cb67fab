"""The recipe of a training, a frozen dataclass that is read from TOML."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from rimap.allowed_numbers import COUNT, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Allowed, refuse_other_numbers
from rimap.errors import InputError
from rimap.estimators.rim.loop import PAPER, VARIANTS, RIMConfig
from rimap.signals.base import TIME, Parameter, SignalModel, axis_of
from rimap.signals.settings import settings_of
from rimap.simulation.recipe import PatchRecipe, around_typical, model_class, recipe_from, refuse_unknown, toml_of
from rimap.simulation.tissues import FLOOR, property_of

T = TypeVar("T")


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{what}: expected one of {', '.join(allowed)}, got {value!r}.")


#: What numbers each field of `Loss` and of `Training` may have.
ALLOWED_IN_LOSS = {
    "weights": NOT_NEGATIVE,
    "floor": POSITIVE,
    "ceiling": POSITIVE,
    "field_sd": POSITIVE,
    "huber": NOT_NEGATIVE,
    "bias_penalty": NOT_NEGATIVE,
    "structure_bias_penalty": NOT_NEGATIVE,
    "structure_weight": NOT_NEGATIVE,
    "sd_weight": NOT_NEGATIVE,
}
ALLOWED_IN_TRAINING = {
    "iterations": COUNT,
    "batch_size": COUNT,
    "rate": POSITIVE,
    "warmup": SHARE,
    "clip_gradient": NOT_NEGATIVE,
    "ema": Allowed(0.0, 1.0, without_most=True),
    "weight_decay": NOT_NEGATIVE,
    "field_error_left": Allowed(0.0, 1.0, without_least=True, ordered=True),
    "seed": SEED,
    "validate_every": COUNT,
    "validation_batches": COUNT,
    "checkpoint_every": COUNT,
}
#: A patch must hold the neighbourhoods that a network looks at.
SMALLEST_PATCH = 8


@dataclass(frozen=True)
class Loss:
    """How an error of the estimate enters the loss.

    Parameters
    ----------
    kind
        ``mse``: the squared error in the network's coordinates (Eq. 6 of the paper, T in seconds). ``crb``: the squared
        error in units of the Cramér-Rao bound of each voxel with the field known, so that all noise levels have the
        same weight and an efficient estimator has a loss of 1.
    weights
        Weights of the amplitudes, the field and the relaxation time.
    floor
        Smallest unit of ``crb``; for log T it is a relative error.
    ceiling
        Largest unit of ``crb``; for log T it is a relative error.
    field_sd
        Unit of errors of the field in ``crb``, in the network's coordinates, in which every field has a standard
        deviation of 0.2.
    steps
        ``uniform``: the estimates after all J steps have the same weight (Eq. 6). ``late``: step j has the weight (j +
        1)².
    huber
        Errors above this value enter linearly and not squared; 0: all are squared.
    bias_penalty
        Weight of the squared bias of the mean over the noise draws of a patch. It needs `noise_draws` > 1.
    structure_bias_penalty
        Additional weight of that bias inside small structures (faint ones, lesions, lines, single voxels). A network
        that minimises the squared error alone gives up a part of an uncertain contrast; this term keeps the contrast on
        average.
    structure_weight
        Weight of a single different voxel or a voxel of a line relative to any other voxel. Such voxels are rare, and a
        network that takes them for noise or ringing loses little.
    sd_weight
        Weight of the loss of the standard deviations that the network estimates (`rim.sd_outputs`).
    """

    kind: str = "mse"
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    floor: float = 0.01
    ceiling: float = 0.5
    field_sd: float = 0.03
    steps: str = "uniform"
    huber: float = 0.0
    bias_penalty: float = 0.0
    structure_bias_penalty: float = 0.0
    structure_weight: float = 1.0
    sd_weight: float = 0.3

    def __post_init__(self) -> None:
        _one_of("loss.kind", self.kind, ("mse", "crb"))
        _one_of("loss.steps", self.steps, ("uniform", "late"))
        refuse_other_numbers(self, ALLOWED_IN_LOSS, "loss")
        if not any(self.weights):
            raise InputError(
                f"loss.weights: expected one above 0, of amplitudes, field or time, got {list(self.weights)}."
            )
        if self.ceiling < self.floor:
            raise InputError(f"loss.ceiling: expected at least loss.floor = {self.floor:g}, got {self.ceiling:g}.")


@dataclass(frozen=True)
class Training:
    """How the network is optimised.

    Parameters
    ----------
    iterations
        Number of updates of the weights.
    batch_size
        Patches in each batch.
    rate
        Learning rate of Adam; the largest one if a schedule changes it.
    schedule
        ``constant``; ``cosine``: to zero along a cosine; ``one_cycle``: up to `rate` during the first part of the
        iterations (`warmup`), then to zero along a cosine.
    warmup
        Share of the iterations during which ``one_cycle`` raises the rate from a tenth of it.
    clip_gradient
        Largest norm of the gradient; 0: no limit.
    ema
        Decay of the exponential moving average of the weights, which is what is exported; 0: no average.
    weight_decay
        Weight decay of Adam.
    precision
        As in lightning-fabric: ``32-true``, ``bf16-mixed``, ``16-mixed`` or ``64-true``. Only the cell of a RIM uses
        ``bf16-mixed``; it is 1.2 times as fast on a CPU with bfloat16.
    field_error_left
        Share of the error of the start's smooth field that is left, drawn log-uniformly for each patch: a whole slice
        determines the field better than a patch does. [1, 1]: all of the error is left.
    hold_field
        Whether the smooth field then keeps this value, as it does when a whole series is mapped.
    seed
        Seed of the initial weights.
    validate_every
        Iterations between validations.
    validation_batches
        Batches of each validation.
    checkpoint_every
        Iterations between checkpoints.
    validation
        Anatomies for validation. By default the last one of several is kept for it; if there is only one, the built-in
        anatomy.
    """

    iterations: int = 3000
    batch_size: int = 24
    rate: float = 1e-3
    schedule: str = "constant"
    warmup: float = 0.1
    clip_gradient: float = 0.0
    ema: float = 0.0
    weight_decay: float = 0.0
    precision: str = "32-true"
    field_error_left: tuple[float, float] = (1.0, 1.0)
    hold_field: bool = False
    seed: int = 0
    validate_every: int = 100
    validation_batches: int = 4
    checkpoint_every: int = 50
    validation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in self.validation):
            raise InputError(f"training.validation: expected a list of texts, got {list(self.validation)!r}.")
        _one_of("training.schedule", self.schedule, ("constant", "cosine", "one_cycle"))
        _one_of("training.precision", self.precision, ("32-true", "bf16-mixed", "16-mixed", "64-true"))
        refuse_other_numbers(self, ALLOWED_IN_TRAINING, "training")

    def rate_at(self, done: int) -> float:
        """Return the learning rate of an iteration."""
        if self.schedule == "constant":
            return self.rate
        rise = self.warmup * self.iterations if self.schedule == "one_cycle" else 0.0
        if done < rise:
            return self.rate * (0.1 + 0.9 * done / rise)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (done - rise) / max(self.iterations - rise, 1)))


@dataclass(frozen=True)
class TrainingRecipe:
    """A network to train: what it is, what it is trained on, and how.

    Parameters
    ----------
    name
        Name of the network and of its file. The default is the name of the recipe file.
    description
        One line that `rimap models` shows.
    network
        ``rim`` or ``resnet``.
    init
        Network that the training starts from: the name of one that ships with rimap, or a file. By default the weights
        are random.
    simulation, rim, loss, training
        The tables of the TOML file.
    others
        How the other sequences of a network for several are simulated: batches take turns over `simulation` and these.
    """

    name: str = "network"
    description: str = ""
    network: str = "rim"
    init: str = ""
    simulation: PatchRecipe = field(default_factory=PatchRecipe)
    rim: RIMConfig = PAPER
    loss: Loss = Loss()
    training: Training = Training()
    others: tuple[PatchRecipe, ...] = ()

    def __post_init__(self) -> None:
        _one_of("network", self.network, ("rim", "resnet"))
        if not self.name or self.name.startswith(".") or any(c in self.name for c in "/\\ \t"):
            raise InputError(f'name: expected a word that can name a file, as in name = "t1", got {self.name!r}.')
        if self.network == "resnet" and not self.simulation.times_ms:
            raise InputError('a ResNet is trained for one protocol: give its times_ms, or network = "rim".')
        if self.network == "resnet" and self.rim.state != "linear":
            raise InputError("a ResNet has no [rim] table: leave it out.")
        given = [parameter.name for parameter in model_class(self.simulation.sequence).parameters if parameter.given]
        if self.network == "resnet" and given:
            raise InputError(f'a ResNet reads images alone and cannot be given {", ".join(given)}: network = "rim".')

        if (smallest := min(simulation.patch_size for simulation in self.simulations)) < SMALLEST_PATCH:
            raise InputError(f"patch_size: expected {SMALLEST_PATCH} or more for a training, got {smallest}.")
        penalised = self.loss.bias_penalty or self.loss.structure_bias_penalty
        if penalised and min(simulation.noise_draws for simulation in self.simulations) < 2:
            raise InputError("a penalty of the bias in [loss] needs noise_draws = 2 or more in [simulation], got 1.")
        if self.others and not self.rim.any_sequence:
            raise InputError("a network for several sequences needs any_sequence = true in [rim].")

    @property
    def simulations(self) -> tuple[PatchRecipe, ...]:
        """How each sequence is simulated, one entry for each turn."""
        return (self.simulation, *self.others)

    def simulation_of(self, index: int) -> PatchRecipe:
        """Return how batch `index` is simulated."""
        return self.simulations[index % len(self.simulations)]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it; anatomies and the network to start from by the names of their files."""
        d: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for simulation in (d["simulation"], *d["others"]):
            simulation["anatomies"] = [_bare(anatomy) for anatomy in self.simulation.anatomies]
        if not self.others:
            del d["others"]
        d["training"]["validation"] = [_bare(a) for a in self.training.validation]
        d["init"] = Path(self.init).name  # where it is depends on the folder from which the training is started
        return d

    def ranges(self, anatomies: int = 0, simulation: PatchRecipe | None = None) -> dict[str, Any]:
        """Return what the network has seen of a sequence, by default the first one.

        ``times_ms``, ``time_range_ms`` and ``n_images`` are of the model's axis. ``settings``: the range of each other
        setting that was known, by name; `None` if any that is longer than the axis. ``parameters``: the range of each
        parameter that is not an amplitude, by name. ``sigma`` is in units of A of CSF.
        """
        s = simulation or self.simulation
        kind = model_class(s.sequence)
        fixed = list(s.times_ms)
        return {
            "times_ms": fixed,
            "time_range_ms": [min(fixed), max(fixed)] if fixed else list(s.time_range_ms),
            "n_images": [len(fixed)] * 2 if fixed else list(s.n_images),
            "sigma": list(s.sigma),
            "settings": {
                name: found for name in settings_of(kind) if (found := _setting_range(s, kind, name)) is not _NONE
            },
            "parameters": {
                parameter.name: _parameter_range(s, parameter)
                for parameter in kind.parameters
                if not parameter.amplitude
            },
            "noise": ["gaussian", "rician"] if s.rician_share else ["gaussian"],
            "signed": bool(s.signed_share),
            "anatomies": anatomies or len(s.anatomies),
        }


#: A setting that the network was not trained for.
_NONE: list[float] = []
#: The paper's draws: of the normal distributions of its table of tissues, almost all are in these ranges.
_PAPER_MS = {"T1": (200.0, 4500.0), "T2": (20.0, 3000.0)}
#: A half-normal distribution has almost nothing beyond so many of its standard deviations.
_HALF_NORMAL_END = 3.3


def _setting_range(s: PatchRecipe, kind: type[SignalModel], name: str) -> list[float] | None:
    """Return the range of a setting in training; `None` for any, `_NONE` if no model of the training has it."""
    declared = settings_of(kind)[name]
    axis = axis_of(kind).name
    if name == axis:
        return _NONE
    if name in s.settings:
        return [min(s.settings[name]), max(s.settings[name])]
    if name in kind.typical_protocol and not s.times_ms and not s.settings:
        return list(around_typical(kind, name))
    if declared.required:
        return list(s.setting_ranges.get(name, declared.drawn_from))
    return None if s.optional_share and declared.longer_than == axis else _NONE


def _parameter_range(s: PatchRecipe, p: Parameter) -> list[float]:
    """Return the range of a time or a field in training: of a field, that of its mean over an image."""
    if p.role == TIME:
        wide = s.wide_share > 0 or s.lesion_share > 0
        return list(s.wide_T_ms if wide else _PAPER_MS.get(p.name, s.wide_T_ms))
    if property_of(p):
        mean, deviation = s.table_of(p)
        return [
            float(max((mean - 2 * deviation)[1:].min(), FLOOR * mean[1:].min())),
            float((mean + 2 * deviation).max()),
        ]
    if s.field_mean[1] > 0:
        return list(s.field_mean)
    start = p.start or 0.0
    return [max(0.0, start - _HALF_NORMAL_END * s.field_gamma), start]


def _bare(anatomy: str) -> str:
    return Path(anatomy).name if Path(anatomy).exists() else anatomy


#: Keys of the table ``[simulation]`` that a file may also have at its top: a protocol in three lines.
SHORT_KEYS = ("sequence", "times_ms", "tr_ms", "settings", "anatomies", "protocol", "preset")
#: Keys of a recipe file that are no field of a dataclass, by the table that has them ("": the top), and what they mean.
EXTRA_KEYS = {
    "": {
        "variant": "``general`` (the default of a RIM) or ``paper`` (that of a ResNet): the values of all keys that "
        "the file leaves out.",
    },
    "simulation": {
        "sequences": "Names of several sequences for one network, instead of `sequence`: batches take turns over them, "
        "and a name may be repeated. The network needs ``any_sequence = true`` in ``[rim]``.",
    },
}
#: What rimap 0.1.0 called some keys of `[loss]` and `[training]`.
EARLIER = {"b_sd": "field_sd", "b_error_left": "field_error_left"}
#: Tables of a recipe, and the keys above them.
_TABLES = ("simulation", "rim", "loss", "training")
_TOP = ("name", "description", "network", "variant", "init")

#: What `[loss]` and `[training]` are where a file does not say, by variant.
_LOSS = {"paper": Loss(), "general": Loss(kind="crb", weights=(0.5, 0.5, 1.0), huber=4.0)}
_TRAINING = {
    "paper": Training(),
    "general": Training(iterations=6000, rate=2e-3, schedule="one_cycle", clip_gradient=1.0, ema=0.998),
}


def training_recipe(document: Mapping[str, Any], *, default_name: str = "network") -> TrainingRecipe:
    """Return the recipe of a TOML document.

    Parameters
    ----------
    document
        ``name``, ``description``, ``network``, ``variant`` (``general``, the default, or ``paper``), ``init``; the
        tables ``[simulation]``, ``[rim]``, ``[loss]``, ``[training]``; and at the top, for short, ``sequence``,
        ``times_ms``, ``tr_ms``, ``protocol``, ``anatomies``.

    Raises
    ------
    InputError
        For an unknown key, naming the nearest valid one, or a value of the wrong kind.

    Examples
    --------
    >>> r = training_recipe({"sequence": "ir", "times_ms": [50, 400, 1100, 2500], "anatomies": ["builtin"]})
    >>> r.rim.start, r.loss.kind, r.simulation.field_mean
    ('likelihood', 'crb', (1.5, 2.1))
    """
    document = dict(document)
    refuse_unknown(document, (*_TOP, *_TABLES, *SHORT_KEYS), "the recipe")
    network = str(document.get("network", "rim"))
    variant = str(document.get("variant", "paper" if network == "resnet" else "general"))
    _one_of("variant", variant, tuple(VARIANTS))
    table = document.get("simulation", {})
    if not isinstance(table, Mapping):
        raise InputError(f"[simulation]: expected a table, got {table!r}.")
    simulation = {k: document[k] for k in SHORT_KEYS if k in document} | dict(table)
    simulation.setdefault("preset", variant)
    sequences = simulation.pop("sequences", None)
    first, *others = (
        [simulation] if sequences is None else [simulation | {"sequence": name} for name in _names(sequences)]
    )
    return TrainingRecipe(
        name=str(document.get("name", default_name)),
        description=str(document.get("description", "")),
        network=network,
        init=str(document.get("init", "")),
        simulation=recipe_from(first),
        others=tuple(recipe_from(table) for table in others),
        rim=_filled(_rim_of(document, variant), document.get("rim", {}), "[rim]"),
        loss=_filled(_LOSS[variant], _renamed(document.get("loss", {})), "[loss]"),
        training=_filled(_TRAINING[variant], _renamed(document.get("training", {})), "[training]"),
    )


def _names(sequences: Any) -> list[str]:
    """Return the names of the sequences that a network is trained for, in turn; one may come more than once."""
    if not isinstance(sequences, list) or not sequences or not all(isinstance(name, str) for name in sequences):
        raise InputError(f'sequences: expected a list of names, as in ["ir", "t2"], got {sequences!r}.')
    return list(sequences)


def _rim_of(document: Mapping[str, Any], variant: str) -> RIMConfig:
    """Return the variant's configuration, or that of the exported network to start from."""
    if document.get("init") and document.get("network", "rim") == "rim":
        from rimap.estimators.network_files import describe

        if (found := describe(str(document["init"]))) is not None and found.get("rim"):
            return RIMConfig.of(found["rim"])
    return VARIANTS[variant]


def read_training_recipe(
    path: str | Path, *, anatomies: tuple[str, ...] = (), changes: Sequence[str] = ()
) -> TrainingRecipe:
    """Read a recipe file. Relative paths in it are taken from its folder.

    Parameters
    ----------
    anatomies
        Train on these instead of the file's.
    changes
        Keys with other values than the file's, as TOML: ``training.rate=1e-3``, ``name="other"``.

    Raises
    ------
    InputError
        For a file that cannot be read, a key that there is not, or a value of the wrong kind.
    """
    path = Path(path)
    document = toml_of(path)
    keys = [change.partition("=")[0].strip() for change in changes]
    for key, change in zip(keys, changes):
        if keys.count(key) > 1:
            raise InputError(f"--set {key}: expected it once, got it {keys.count(key)} times. Leave the others out.")
        _change(document, change)
    if isinstance(document.get("init"), str):  # the network to start from says what the [rim] table is without
        document["init"] = _beside(path, (document["init"],))[0]
    recipe = training_recipe(document, default_name=path.stem)
    simulations = [
        replace(simulation, anatomies=anatomies or _beside(path, simulation.anatomies))
        for simulation in recipe.simulations
    ]
    validation = _beside(path, recipe.training.validation)
    simulation, *others = simulations
    return replace(
        recipe,
        simulation=simulation,
        others=tuple(others),
        training=replace(recipe.training, validation=validation),
    )


def _change(document: dict[str, Any], change: str) -> None:
    """Put ``TABLE.KEY=VALUE`` into a document; a value that is no TOML is a text."""
    key, separator, text = change.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise InputError(f"--set {change}: expected TABLE.KEY=VALUE, as in training.rate=1e-3.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = document
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {change}: {name} is not a table of the recipe.")
    table[names[-1]] = value


def _beside(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(path.parent / name) if name and (path.parent / name).exists() else name for name in names)


def _renamed(table: Any) -> Any:
    return {EARLIER.get(key, key): value for key, value in table.items()} if isinstance(table, Mapping) else table


def _filled(base: T, table: Any, where: str) -> T:
    """Return the dataclass with the values of a TOML table, checked against the kinds of its defaults."""
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: expected a table, got a single value.")
    names = tuple(field.name for field in fields(base))  # type: ignore[arg-type]
    refuse_unknown(table, names, where)
    values = {}
    for key, value in table.items():
        default = getattr(base, key)
        if isinstance(default, tuple):
            valid = isinstance(value, list)
            value = tuple(value) if valid else value
        elif isinstance(default, bool):
            valid = isinstance(value, bool)
        elif isinstance(default, float):
            valid = isinstance(value, (int, float)) and not isinstance(value, bool)
            value = float(value) if valid else value
        else:
            valid = isinstance(value, type(default)) and not isinstance(value, bool)
        if not valid:
            raise InputError(f"{where} {key}: expected a value of the same kind as {default!r}, got {value!r}.")
        values[key] = value
    return replace(base, **values)  # type: ignore[type-var]
