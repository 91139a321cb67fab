"""Recipes: presets, TOML, errors."""

import tomllib
from pathlib import Path

import pytest

from rimap.errors import InputError
from rimap.signals.paper_protocols import PROTOCOLS
from rimap.simulation.recipe import PatchRecipe, general, general_t1, general_t2, paper, read_recipe, recipe_from
from rimap.training.recipe import read_training_recipe


def test_the_paper_has_nothing_of_the_rest():
    for sequence, T in (("ir", 100.0), ("t2", 10.0)):
        recipe = paper(sequence)
        shares = [k for k, v in recipe.as_dict().items() if k.endswith("_share") and v and k != "white_share"]
        assert shares == []
        assert recipe.patch_size == 40 and recipe.orientations == (0, 1, 2)
        assert recipe.sigma == (0.0065, 0.255) and recipe.field_gamma == 0.2 and recipe.field_mean == (0, 0)
        assert (recipe.white_A, recipe.white_T_ms, recipe.blur) == (0.05, T, (0.4, 0.4))
        assert recipe.zoom == (1, 1) and not recipe.flips and recipe.field_spread == (0, 0) == recipe.shading
    assert paper().times_ms == tuple(PROTOCOLS["IV_T1"].times)


def test_general_recipes_cover_what_they_promise():
    t1, t2 = general_t1(), general_t2()
    assert t1.wide_T_ms == (20, 5000) and t2.wide_T_ms == (5, 2500)
    assert t1.field_mean == (1.5, 2.1) and not t1.times_ms and t1.n_images == (3, 40)
    assert general("ir") == t1 and general("t2") == t2


def test_three_lines_are_enough_for_a_protocol_of_ones_own():
    recipe = recipe_from({"sequence": "ir", "times_ms": [50, 400, 1100, 2500], "anatomies": "builtin"})
    assert recipe.times_ms == (50.0, 400.0, 1100.0, 2500.0) and recipe.anatomies == ("builtin",)
    assert recipe.signed_share == recipe.optional_share == 0 and recipe.lesion_share > 0


def test_toml_round_trip(tmp_path):
    (tmp_path / "labels").mkdir()
    file = tmp_path / "r.toml"
    file.write_text('[simulation]\npreset = "paper"\nprotocol = "HP_T1"\nseed = 7\nanatomies = ["labels", "builtin"]\n')
    recipe = read_recipe(file)
    assert recipe.times_ms == tuple(PROTOCOLS["HP_T1"].times) and recipe.seed == 7
    assert recipe.anatomies == (str(tmp_path / "labels"), "builtin")
    assert recipe_from(recipe.as_dict()) == recipe
    file.write_text('sequence = "t2"\n[training]\nsteps = 3\n')
    assert read_recipe(file) == general_t2()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"patch_sise": 40}, "nearest valid one is 'patch_size'"),
        ({"field_gama": 0.2}, "'field_gamma'"),
        ({"preset": "papers"}, "preset: expected one of paper, general, got 'papers'"),
        ({"protocol": "IV_T3"}, "protocol: expected one of"),
        ({"sequence": "flair"}, "sequence: expected one of"),
        ({"patch_size": "40"}, "whole number"),
        ({"patch_size": 0}, "1 or more"),
        ({"flips": 1}, "true or false"),
        ({"sigma": [0.3, 0.1]}, "smallest, largest"),
        ({"sigma": [0.0, 0.1]}, "above 0"),
        ({"sigma": 0.1}, "list of numbers"),
        ({"lesion_share": 1.5}, "0 to 1"),
        ({"orientations": [3]}, "each 0 to 2"),
        ({"n_images": [2, 10]}, "expected 3 or more"),
        ({"tr_share": 0.7, "tr_unknown_share": 0.7}, "add up"),
        ({"times_ms": [100, 200]}, "3 or more distinct"),
        ({"times_ms": [100, 200, 900], "tr_ms": 500}, "expected TR longer than TI"),
        ({"times_ms": [100, 200, 900], "tr_ms": [1000, 2000]}, "one for each of the 3"),
        ({"times_ms": [0.05, 0.4, 1.1]}, r"If these are seconds.* times_ms=\[50, 400, 1100\]"),
        ({"sequence": "t2", "times_ms": [0.01, 0.02]}, "which is too short"),
        ({"time_range_ms": [0.02, 5.0]}, r"time_range_ms=\[20, 5000\]"),
        ({"anatomies": []}, "anatomies is empty"),
        ({"white_A": -0.1}, "expected a number, 0 or more"),
    ],
)
def test_errors_say_what_was_expected(table, message):
    with pytest.raises(InputError, match=message):
        recipe_from(table)


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(InputError, match="no recipe at"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_text("a = = b")
    with pytest.raises(InputError, match="is not TOML"):
        read_recipe(tmp_path / "x.toml")


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_recipes_of_the_repository_are_valid(file):
    several = "sequences" in tomllib.loads(file.read_text())["simulation"]
    recipe = read_training_recipe(file).simulations[0] if several else read_recipe(file)
    assert isinstance(recipe, PatchRecipe)
    if file.stem.startswith(("rim_", "resnet_")):
        own = {"anatomies": recipe.anatomies, "seed": recipe.seed}
        assert recipe == PatchRecipe(**{**paper(recipe.sequence, recipe.times_ms).__dict__, **own})
