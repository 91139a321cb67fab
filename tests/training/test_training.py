"""The training loop: exact resumption, recipes, what stops it, losses with known values."""

# ruff: noqa: E402 - torch is asked for first
from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file

from rimap.allowed_numbers import numeric_fields
from rimap.errors import InputError
from rimap.estimators.network_files import metadata_of, shipped
from rimap.estimators.networks.rim import Passed
from rimap.estimators.rim.loop import ALLOWED as ALLOWED_IN_RIM
from rimap.estimators.rim.loop import GENERAL, RIMConfig
from rimap.io.run_lock import locked
from rimap.simulation.anatomies import Anatomy, digital_brain
from rimap.simulation.patches import simulate_batch
from rimap.simulation.recipe import ALLOWED as ALLOWED_IN_SIMULATION
from rimap.simulation.recipe import PatchRecipe
from rimap.training import loop
from rimap.training.checkpoint import CHECKPOINT, PREVIOUS, claim
from rimap.training.loop import Machine, build_network, train
from rimap.training.loss import batch_loss
from rimap.training.recipe import (
    ALLOWED_IN_LOSS,
    ALLOWED_IN_TRAINING,
    Loss,
    Training,
    read_training_recipe,
    training_recipe,
)

CPU = Machine(accelerator="cpu", workers=0)
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture(scope="module", autouse=True)
def small_anatomy():
    """A small head instead of the built-in one at 1 mm."""
    small = Anatomy.of(digital_brain((48, 54, 36)), "small")
    original = loop.load_anatomies
    loop.load_anatomies = lambda sources: tuple(small for _ in sources)
    yield small
    loop.load_anatomies = original


def tiny(variant="general", **tables):
    document = {
        "name": "tiny",
        "variant": variant,
        "anatomies": ["a", "b"],
        "simulation": {"patch_size": 12, **tables.pop("simulation", {})},
        "training": {
            "iterations": 6,
            "batch_size": 4,
            "validate_every": 3,
            "validation_batches": 1,
            "checkpoint_every": 2,
            "ema": 0.9,
            **tables.pop("training", {}),
        },
    } | tables
    return training_recipe(document)


@pytest.mark.parametrize("variant", ["paper", "general"])
def test_killed_and_resumed_is_uninterrupted(tmp_path, variant):
    recipe = tiny(variant)
    train(recipe, tmp_path / "whole", machine=CPU)
    train(recipe, tmp_path / "killed", machine=CPU, stop_at=4)
    with (tmp_path / "killed" / "log.csv").open("a") as log:  # a line after the checkpoint, as a kill leaves it
        log.write("5,99\n")
    seen = []
    train(recipe, tmp_path / "killed", machine=CPU, progress=seen.append)
    assert [s.done for s in seen] == [5, 6]
    a, b = (load_file(tmp_path / d / CHECKPOINT) for d in ("whole", "killed"))
    assert a.keys() == b.keys() and any(k.startswith("adam.") for k in a)
    assert all(torch.equal(a[k], b[k]) for k in a)
    rows = [
        [r.split(",")[:2] for r in (tmp_path / d / "log.csv").read_text().splitlines()] for d in ("whole", "killed")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 7
    assert (tmp_path / "whole" / "tiny.onnx").read_bytes() == (tmp_path / "killed" / "tiny.onnx").read_bytes()
    about = metadata_of(tmp_path / "whole" / "tiny.onnx")
    assert about["iterations"] == 6 and about["trained_on"]["anatomies"] == 1 and about["figures"]["error_pct"] > 0


@pytest.mark.parametrize("name", ["rim_t1_31", "rim_t1_25", "rim_t1_23", "rim_t2", "t1_newton"])
def test_recipes_of_the_papers_rims_describe_the_networks_that_ship(tmp_path, name):
    """After three iterations, the export has the metadata of the shipped network, apart from sizes and figures."""
    ships = metadata_of(shipped()[name])
    recipe = read_training_recipe(RECIPES / f"{name}.toml")
    assert (
        recipe.training.iterations == ships["iterations"]
        or f"{recipe.training.iterations:,} iterations" in ships["description"]
    )
    quick = replace(recipe.training, iterations=3, batch_size=2, validation_batches=1)
    init = "" if recipe.init.endswith(".safetensors") else recipe.init  # a first stage, which is not kept
    small = replace(recipe, init=init, simulation=replace(recipe.simulation, patch_size=10), training=quick)
    made = metadata_of(train(small, tmp_path, machine=CPU))
    for key in ("kind", "name", "description", "sequence", "parameters"):
        assert made[key] == ships[key]
    assert RIMConfig.of(made["rim"]) == RIMConfig.of(ships["rim"])
    sized = {
        "iterations",
        "batch_size",
        "validation_batches",
        "validate_every",
        "checkpoint_every",
        "patch_size",
        "anatomies",
    }
    for table in ("simulation", "loss", "training"):
        ours, theirs = made["recipe"][table], ships["recipe"][table]
        shared = (ours.keys() & theirs.keys()) - sized
        assert {k: ours[k] for k in shared} == {k: theirs[k] for k in shared}
    for key in ("times_ms", "time_range_ms", "n_images", "sigma", "noise", "signed"):
        assert made["trained_on"][key] == ships["trained_on"][key]


def test_the_recipe_of_universal_describes_the_network_that_ships() -> None:
    ships, recipe = metadata_of(shipped()["universal"]), read_training_recipe(RECIPES / "universal.toml")
    assert recipe.rim == RIMConfig.of(ships["rim"]) and recipe.training.iterations == ships["iterations"]
    assert recipe.name == ships["name"] and set(ships["trained_on"]) == {
        one.sequence for one in (recipe.simulation, *recipe.others)
    }
    assert Path(recipe.init).name == Path(ships["recipe"]["init"]).name
    loop.load_weights(build_network(recipe), recipe)  # the network to start from is kept, and fits
    for table in ("simulation", "loss", "training"):
        ours, theirs = asdict(getattr(recipe, table)), ships["recipe"][table]
        for key in (ours.keys() & theirs.keys()) - {"anatomies"}:
            assert json.loads(json.dumps(ours[key])) == theirs[key], key


def test_the_network_to_start_from_lies_beside_the_recipe(tmp_path, monkeypatch):
    """Its path is taken from the folder of the recipe, also where it says what the recipe leaves out."""
    shutil.copy(shipped()["universal"], tmp_path / "start.onnx")
    (tmp_path / "recipe.toml").write_text('init = "start.onnx"\nsequence = "t2"\n', encoding="utf-8")
    monkeypatch.chdir("/")
    recipe = read_training_recipe(tmp_path / "recipe.toml")
    assert recipe.init == str(tmp_path / "start.onnx")
    assert recipe.rim == RIMConfig.of(metadata_of(shipped()["universal"])["rim"])


def test_a_training_that_started_from_a_network_is_resumed_from_another_folder(tmp_path, monkeypatch):
    shutil.copy(shipped()["universal"], tmp_path / "start.onnx")
    (tmp_path / "recipe.toml").write_text('init = "start.onnx"\nsequence = "t2"\n', encoding="utf-8")
    monkeypatch.chdir("/")
    claim(read_training_recipe(tmp_path / "recipe.toml"), tmp_path)
    (tmp_path / CHECKPOINT).touch()
    monkeypatch.chdir(tmp_path)
    claim(read_training_recipe("recipe.toml"), tmp_path)
    written = json.loads((tmp_path / "recipe.json").read_text())
    assert written["init"] == "start.onnx"
    (tmp_path / "recipe.json").write_text(json.dumps(written | {"init": "/home/me/start.onnx"}))  # as rimap 0.1.0 did
    claim(read_training_recipe("recipe.toml"), tmp_path)
    with pytest.raises(InputError, match=r"another recipe: init is 'start.onnx' there and '' in yours"):
        claim(replace(read_training_recipe("recipe.toml"), init=""), tmp_path)


def test_an_empty_name_is_no_file_beside_the_recipe(tmp_path):
    (tmp_path / "recipe.toml").write_text('init = "start.onnx"\nsequence = "t2"\n', encoding="utf-8")
    assert read_training_recipe(tmp_path / "recipe.toml", changes=['init=""']).init == ""
    with pytest.raises(InputError, match=r"--set training.rate: expected it once, got it 2 times"):
        read_training_recipe(tmp_path / "recipe.toml", changes=["training.rate=1", "training.rate=2"])


def test_a_folder_may_be_text(tmp_path):
    recipe = tiny("general", training={"iterations": 1, "checkpoint_every": 1})
    assert train(recipe, str(tmp_path / "text"), machine=CPU) == tmp_path / "text" / "tiny.onnx"


def test_resnet_trains_and_exports(tmp_path):
    recipe = tiny("paper", network="resnet", simulation={"times_ms": [100, 300, 900, 2000]}, training={"iterations": 1})
    about = metadata_of(train(recipe, tmp_path, machine=CPU))
    assert about["kind"] == "resnet" and about["trained_on"]["n_images"] == [4, 4]


def test_a_folder_belongs_to_one_recipe(tmp_path):
    recipe = tiny(training={"iterations": 2})
    train(recipe, tmp_path, machine=CPU)
    with pytest.raises(InputError, match=r"another recipe: training.rate is 0.002 there and 0.01 in yours"):
        train(replace(recipe, training=replace(recipe.training, rate=1e-2)), tmp_path, machine=CPU)


def test_a_training_of_an_earlier_release_goes_on(tmp_path):
    """What it could not name yet has its default; any other value of it is another recipe."""
    recipe = tiny(training={"iterations": 2})
    train(recipe, tmp_path, machine=CPU, stop_at=1)
    settings = tmp_path / "recipe.json"
    earlier = json.loads(settings.read_text())
    del earlier["loss"]["structure_weight"], earlier["simulation"]["ringing_share"]
    settings.write_text(json.dumps(earlier))
    with pytest.raises(InputError, match=r"loss\.structure_weight is None there and 2\.0 in yours"):
        train(replace(recipe, loss=replace(recipe.loss, structure_weight=2.0)), tmp_path, machine=CPU)
    train(recipe, tmp_path, machine=CPU)
    assert metadata_of(tmp_path / "tiny.onnx")["iterations"] == 2


def test_it_stops_at_nan_and_says_why(tmp_path):
    with pytest.raises(InputError, match=r"not a number at iteration 1.*Lower the rate"):
        train(tiny("paper", training={"rate": 1e30, "ema": 0.0}), tmp_path, machine=CPU)


def test_it_learns(tmp_path):
    """A few iterations on one batch: the loss falls."""
    recipe = tiny("paper", training={"rate": 3e-3})
    batch = simulate_batch(recipe.simulation, loop.load_anatomies(["a"]), 0, 4)
    net = build_network(recipe)
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = batch_loss(recipe, net, batch, torch.device("cpu"))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_fine_tuning_starts_from_the_network(tmp_path):
    first = train(tiny(training={"iterations": 2, "ema": 0.0}), tmp_path / "first", machine=CPU)
    checkpoint = load_file(tmp_path / "first" / CHECKPOINT)
    for init in (str(first), str(tmp_path / "first" / CHECKPOINT)):
        recipe = tiny(init=init, simulation={"times_ms": [50, 400, 1100, 2500]})
        assert recipe.rim == GENERAL
        net = build_network(recipe)
        loop.load_weights(net, recipe)
        torch.testing.assert_close(net.cell.conv2.weight, checkpoint["network.cell.conv2.weight"])
    other = tiny("paper", init=str(tmp_path / "first" / CHECKPOINT))
    with pytest.raises(InputError, match="another architecture"):
        loop.load_weights(build_network(other), other)


def test_three_lines_are_a_recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('sequence = "ir"\ntimes_ms = [50, 400, 1100, 2500]\nanatomies = ["builtin"]\n')
    recipe = read_training_recipe(path)
    assert recipe.name == "mine" and recipe.network == "rim" and recipe.rim == GENERAL
    assert recipe.simulation.times_ms == (50, 400, 1100, 2500) and recipe.loss.kind == "crb"
    assert recipe.ranges()["n_images"] == [4, 4]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"iteration": 3}, "unknown key 'iteration'"),
        ({"training": {"itertions": 3}}, "nearest valid one is 'iterations'"),
        ({"rim": {"n_step": 3}}, "nearest valid one is 'n_steps'"),
        ({"loss": {"kind": "mae"}}, "expected one of mse, crb"),
        ({"training": {"iterations": "many"}}, "of the same kind as"),
        ({"training": {"iterations": 0}}, "1 or more"),
        ({"network": "resnet", "sequence": "ir", "preset": "general"}, "one protocol"),
        ({"variant": "papers"}, "expected one of paper, general"),
        ({"simulation": {"field_gama": 1.0}}, "nearest valid one is 'field_gamma'"),
        ({"simulation": 5}, r"\[simulation\]: expected a table, got 5"),
        ({"training": {"validation": [5]}}, r"training.validation: expected a list of texts, got \[5\]"),
        ({"name": ".."}, "a word that can name a file"),
        ({"protocol": "IV_T1", "times_ms": [50, 400, 1100]}, "either protocol or times_ms"),
        ({"protocol": "IV_T1", "sequence": "t2"}, "either protocol or sequence"),
    ],
)
def test_a_wrong_recipe_is_refused(document, message):
    with pytest.raises(InputError, match=message):
        training_recipe(document)


TABLES = {
    "rim": (RIMConfig, ALLOWED_IN_RIM),
    "loss": (Loss, ALLOWED_IN_LOSS),
    "training": (Training, ALLOWED_IN_TRAINING),
    "simulation": (PatchRecipe, ALLOWED_IN_SIMULATION),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_number_of_a_recipe_has_a_range_and_nothing_outside_it_is_accepted(name):
    kind, allowed = TABLES[name]
    assert set(allowed) == {key for key, _ in numeric_fields(kind)}
    for key, annotation in numeric_fields(kind):
        if annotation.startswith("Mapping") or "..." in annotation:
            continue
        length = annotation.count(",") + 1 if annotation.startswith("tuple") else 0
        wrong = [math.nan, math.inf, allowed[key].least - 1]
        if math.isfinite(allowed[key].most):
            wrong.append(allowed[key].most * 2 + 1)
        for value in wrong:
            with pytest.raises(InputError, match=rf"{key}: expected .*, got "):
                kind(**{key: (value,) * length if length else value})
        with pytest.raises(InputError, match=f"{key}: expected"):
            kind(**{key: (1.0,) * (length + 1)})


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"loss": {"weights": [0, 0, 0]}}, r"loss.weights: expected one above 0"),
        ({"loss": {"floor": 1.0}}, r"loss.ceiling: expected at least loss.floor"),
        ({"loss": {"bias_penalty": 1.0}}, "needs noise_draws = 2 or more"),
        ({"training": {"ema": 1.0}}, r"training.ema: expected a number, 0 or more and less than 1, got 1\."),
        ({"training": {"field_error_left": [0.5, 0.1]}}, r"expected \[smallest, largest\]"),
        ({"simulation": {"patch_size": 7}}, "patch_size: expected 8 or more for a training, got 7"),
        ({"rim": {"inputs": []}}, "rim.inputs: expected one or more of"),
    ],
)
def test_numbers_that_train_nothing_are_refused(tables, message):
    with pytest.raises(InputError, match=message):
        tiny(**tables)


@pytest.mark.parametrize(
    ("recipe", "machine", "stop_at", "message"),
    [
        (
            tiny,
            Machine(accelerator="other"),
            None,
            "expected an accelerator of this machine, got 'other' with 1 device",
        ),
        (lambda: tiny(training={"batch_size": 3}, simulation={"noise_draws": 2}), CPU, None, "must be a multiple"),
        (tiny, CPU, -3, "expected 1 or more, got -3"),
        (lambda: tiny(init="missing.onnx"), CPU, None, "missing.onnx"),
    ],
)
def test_a_training_that_cannot_begin_leaves_no_folder(tmp_path, recipe, machine, stop_at, message):
    with pytest.raises(InputError, match=message):
        train(recipe(), tmp_path / "out", machine=machine, stop_at=stop_at)
    assert not (tmp_path / "out").exists()


def test_a_training_that_is_past_its_stop_stays_there(tmp_path):
    recipe = tiny()
    train(recipe, tmp_path, machine=CPU, stop_at=2)
    train(recipe, tmp_path, machine=CPU, stop_at=1)
    assert metadata_of(tmp_path / "tiny.onnx")["iterations"] == 2


def test_rates():
    assert Training(rate=1.0).rate_at(2999) == 1.0
    one = Training(rate=1.0, schedule="one_cycle", iterations=100, warmup=0.1)
    assert one.rate_at(0) == pytest.approx(0.1) and one.rate_at(10) == 1.0 and one.rate_at(99) < 0.01
    assert Training(rate=1.0, schedule="cosine", iterations=100).rate_at(50) == pytest.approx(0.5)


class Fixed(torch.nn.Module):
    """A network that returns given estimates."""

    def __init__(self, u):
        super().__init__()
        self.u = u

    def forward(self, *_, **__):
        return Passed(self.u, None)


def test_eq_6_is_the_mean_over_steps_and_tissue(small_anatomy):
    recipe = tiny("paper")
    batch = simulate_batch(recipe.simulation, [small_anatomy], 0, 4)
    truth = torch.from_numpy(batch.kappa.swapaxes(0, 1).copy())
    truth[2] /= 1000
    net = Fixed([truth + 1.0, truth + 3.0])
    assert float(batch_loss(recipe, net, batch, torch.device("cpu"))) == pytest.approx((1 + 9) / 2, rel=1e-5)


def test_the_bias_penalty_sees_bias_and_not_noise(small_anatomy):
    """Errors of zero mean over the draws cost nothing on average; a common one does."""
    recipe = tiny(
        "paper", simulation={"noise_draws": 4, "patch_size": 24}, loss={"bias_penalty": 1.0}, training={"batch_size": 8}
    )
    plain = replace(recipe, loss=replace(recipe.loss, bias_penalty=0.0))
    batch = simulate_batch(recipe.simulation, [small_anatomy], 0, 8)
    truth = torch.from_numpy(batch.kappa.swapaxes(0, 1).copy())
    truth[2] /= 1000
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(truth.shape, generator=rng)

    def penalty(u):
        cpu = torch.device("cpu")
        return float(batch_loss(recipe, Fixed([u]), batch, cpu) - batch_loss(plain, Fixed([u]), batch, cpu))

    assert abs(penalty(truth + noise)) < 0.05
    assert penalty(truth + 0.5) == pytest.approx(0.25, rel=1e-4)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(tmp_path):
    """A disk that was full, or a machine that went down, costs some iterations and no more."""
    recipe = tiny("paper")
    train(recipe, tmp_path / "whole", machine=CPU)
    train(recipe, tmp_path / "hurt", machine=CPU, stop_at=4)
    whole = (tmp_path / "hurt" / CHECKPOINT).read_bytes()
    (tmp_path / "hurt" / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    seen = []
    with pytest.warns(UserWarning, match=f"damaged .*resumes from {PREVIOUS}, iteration 2"):
        train(recipe, tmp_path / "hurt", machine=CPU, progress=seen.append)
    assert [s.done for s in seen] == [3, 4, 5, 6]
    a, b = (load_file(tmp_path / d / CHECKPOINT) for d in ("whole", "hurt"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_checkpoints_that_cannot_be_read_are_named_with_the_remedy(tmp_path):
    recipe = tiny("paper")
    train(recipe, tmp_path, machine=CPU, stop_at=4)
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"no tensors")
    with pytest.raises(InputError, match=f"expected a checkpoint that can be read.*remove {CHECKPOINT} and {PREVIOUS}"):
        train(recipe, tmp_path, machine=CPU)
    (tmp_path / "recipe.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"recipe.json: expected the recipe of the training"):
        train(recipe, tmp_path, machine=CPU)


def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="another"):
        train(tiny("paper"), tmp_path, machine=CPU, stop_at=1)


def test_single_voxels_and_lines_may_count_more(small_anatomy):
    """Their errors count as often as `structure_weight` says, relative to the other voxels'."""
    recipe = tiny("paper", simulation={"odd_share": 1.0, "line_share": 1.0, "patch_size": 24})
    batch = simulate_batch(recipe.simulation, [small_anatomy], 0, 4)
    truth = torch.from_numpy(batch.kappa.swapaxes(0, 1).copy())
    truth[2] /= 1000
    alone = torch.from_numpy((batch.structures >= 2) & batch.weight)
    assert 0 < int(alone.sum()) < batch.weight.sum() / 4

    def cost(where, weight):
        heavier = replace(recipe, loss=replace(recipe.loss, structure_weight=weight))
        return float(batch_loss(heavier, Fixed([truth + where]), batch, torch.device("cpu")))

    n, m = batch.weight.sum(), int(alone.sum())
    assert cost(alone, 1.0) == pytest.approx(m / n, rel=1e-4)
    assert cost(alone, 4.0) == pytest.approx(4 * m / (n + 3 * m), rel=1e-4)
    assert cost(~alone, 4.0) == pytest.approx((n - m) / (n + 3 * m), rel=1e-4)


def test_units_of_the_bound_make_noise_levels_alike(small_anatomy):
    """An estimator that errs by its Cramér-Rao bound with B known costs about 1, whatever σ."""
    costs = []
    for sigma in (0.01, 0.1):
        recipe = tiny(simulation={"sigma": [sigma, sigma], "wide_share": 0.0, "rician_share": 0.0})
        recipe = replace(recipe, loss=replace(recipe.loss, huber=0.0, floor=1e-4, ceiling=1e3, weights=(0.0, 0.0, 3.0)))
        batch = simulate_batch(recipe.simulation, [small_anatomy], 0, 4)
        truth = torch.from_numpy(batch.kappa.swapaxes(0, 1).copy())
        from rimap.estimators.rim.layout import Layout
        from rimap.estimators.rim.loop import to_state
        from rimap.training.loss import _error_scale

        u, s = (
            to_state(recipe.rim, Layout.of(batch.model), truth),
            _error_scale(recipe.loss, recipe, batch, truth, torch.from_numpy(batch.sigma)),
        )
        noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(0))
        costs.append(float(batch_loss(recipe, Fixed([u + s * noise]), batch, torch.device("cpu"))))
        median = float(s[2][torch.from_numpy(batch.brain)].median())
        assert math.isfinite(median) and 0.1 * sigma < median < 10 * sigma
    assert np.allclose(costs, 1.0, atol=0.1)


def test_a_training_can_be_made_longer(tmp_path):
    recipe = tiny(training={"iterations": 2})
    train(recipe, tmp_path, machine=CPU)
    longer = replace(recipe, training=replace(recipe.training, iterations=4))
    seen = []
    train(longer, tmp_path, machine=CPU, progress=seen.append)
    assert [s.done for s in seen] == [3, 4]
    assert json.loads((tmp_path / "recipe.json").read_text())["training"]["iterations"] == 4
    assert metadata_of(tmp_path / "tiny.onnx")["iterations"] == 4


def test_the_network_of_the_least_validation_loss_is_kept(tmp_path):
    """A second half that diverges does not replace it."""
    recipe = tiny(training={"iterations": 4, "validate_every": 2, "rate": 0.05, "schedule": "constant", "ema": 0.0})
    seen = []
    train(recipe, tmp_path, machine=CPU, progress=seen.append)
    judged = {s.done: s.validation["validation_loss"] for s in seen if s.validation}
    assert set(judged) == {2, 4}
    assert metadata_of(tmp_path / "tiny-best.onnx")["iterations"] == min(judged, key=judged.get)


def test_keys_of_a_recipe_can_be_changed_by_the_way(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('sequence = "ir"\nanatomies = ["builtin"]\n[training]\niterations = 7\n')
    changes = ("training.rate=1e-3", "name=other", "simulation.sigma=[0.01, 0.1]", "rim.n_steps=4")
    recipe = read_training_recipe(path, changes=changes)
    assert (recipe.training.rate, recipe.training.iterations, recipe.name) == (1e-3, 7, "other")
    assert (recipe.simulation.sigma, recipe.rim.n_steps) == ((0.01, 0.1), 4)
    for wrong, message in (
        ("training.rat=1", "nearest valid one is 'rate'"),
        ("rate", "expected TABLE.KEY=VALUE"),
        ("training.rate=fast", "of the same kind"),
        ("name.x=1", "not a table"),
    ):
        with pytest.raises(InputError, match=message):
            read_training_recipe(path, changes=("name=a", wrong))


def test_tissues_of_a_recipe_replace_those_of_the_table(small_anatomy):
    own = {"T1": {"GM": [1700.0, 0.0], "WM": [1000.0, 0.0]}}
    quiet = {"tissues": own, "smooth_share": 0.0, "white_share": 0.0, "wide_share": 0.0, "lesion_share": 0.0}
    quiet |= {"odd_share": 0.0, "line_share": 0.0, "blur": [0.0, 0.0]}
    recipe = tiny(simulation=quiet)
    batch = simulate_batch(recipe.simulation, [small_anatomy], 0, 4)
    for label, value in ((2, 1700.0), (3, 1000.0)):
        assert batch.kappa[:, 2][batch.labels == label] == pytest.approx(value)
    assert recipe.as_dict()["simulation"]["tissues"] == own
    for wrong, message in (({"T3": {}}, "nearest"), ({"T1": {"Gm": [1, 1]}}, "nearest"), ({"T1": {"GM": [1]}}, "mean")):
        with pytest.raises(InputError, match=message):
            tiny(simulation={"tissues": wrong})
