"""The order of images and typed values, images that are left out, and volumes that share a value."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rimap import InversionRecovery, T2Decay, VariableFlipAngle
from rimap.advice import Weight, weight_of
from rimap.errors import InputError
from rimap.io.image_order import check_order, without_first
from rimap.io.repeated_volumes import note_on_repeats
from rimap.signals.base import axis_of

TIME, ANGLE = axis_of(InversionRecovery), axis_of(VariableFlipAngle)


def order(
    names: list[str], values: list[float], *, converted: bool = False, setting: Any = TIME, option: str = "--times-ms"
) -> None:
    check_order([Path(name) for name in names], values, option, setting, converted=converted)


@pytest.mark.parametrize("converted", [True, False])
def test_names_that_say_other_values_are_refused(converted: bool) -> None:
    order(["TI_50.nii", "TI_400.nii"], [50.0, 400.0], converted=converted)
    with pytest.raises(
        InputError,
        match=r"--times-ms gives 400 ms to TI_50.nii: times go .*, which is TI_50.nii, TI_400.nii\. ",
    ):
        order(["TI_50.nii", "TI_400.nii"], [400.0, 50.0], converted=converted)
    names = ["a50.nii", "b1100.5.nii", "c2500.nii", "d4000.nii", "e1100.nii"]
    with pytest.raises(
        InputError, match=r"gives 1100 ms to c2500\.nii.* which is a50\.nii, b1100.5\.nii, c2500\.nii, d4000\.nii …\. "
    ):
        order(names, [50, 1100.5, 1100, 4000, 2500], converted=converted)
    with pytest.raises(InputError, match="values go in the order of the files"):
        order(["fa3.nii", "fa20.nii"], [20.0, 3.0], converted=converted, setting=ANGLE, option="--set flip_angle")


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["TI_50.nii", "TI_400.nii"], [400.0, 400.0]),  # one value
        (["50_400.nii", "400_50.nii"], [400.0, 50.0]),  # two of the values in a name
        (["TI_50_a.nii", "TI_50_b.nii", "TI_400.nii"], [400.0, 50.0, 50.0]),  # two names with one value
        (["TI_50.nii", "TI_7.nii"], [400.0, 50.0]),  # a name with none
        (["TI_50.nii", "TI_400.nii", "TI_9.nii"], [400.0, 50.0]),  # another number of values
    ],
)
def test_names_that_do_not_determine_the_values_say_nothing(names: list[str], values: list[float]) -> None:
    order(names, values, converted=True)


def test_files_in_the_order_of_a_shell_are_refused() -> None:
    shell = ["ti1.nii", "ti10.nii", "ti2.nii"]
    with pytest.raises(
        InputError, match=r"in the order ti1.nii, ti10.nii, ti2.nii, as a shell sorts names, and --times-ms goes"
    ):
        order(shell, [100.0, 300.0, 400.0])
    with pytest.raises(InputError, match=r"ti1.nii, ti10.nii, ti2.nii …, as a shell"):
        order([*shell, "ti3.nii"], [100.0, 300.0, 400.0, 700.0])
    order(shell, [100.0, 300.0, 400.0], converted=True)
    order(shell, [100.0, 400.0, 300.0])  # they increase with the numbers: meant
    order(["ti1.nii", "ti2.nii", "ti10.nii"], [300.0, 400.0, 100.0])
    order(["ti2.nii", "ti1.nii", "ti10.nii"], [300.0, 400.0, 100.0])  # no shell sorts so
    order(["a1.nii", "b10.nii", "c2.nii"], [300.0, 400.0, 100.0])  # names of their own
    with pytest.raises(InputError, match="as a shell sorts names"):
        order(shell, [100.0, 300.0])  # another number of values
    with pytest.raises(InputError, match="as a shell sorts names"):
        order(shell, [700.0, 700.0, 700.0])  # one value for all says nothing


def test_digits_count_where_a_language_sorts_others_before_them() -> None:
    with pytest.raises(InputError, match="as a shell sorts names"):
        order(["ti_1_a.nii", "ti_10_a.nii", "ti_2_a.nii"], [100.0, 300.0, 400.0])


@pytest.mark.parametrize(("skip", "kept"), [(0, [1, 1, 1, 1]), (1, [0, 1, 0, 1]), (2, [0, 0, 0, 1])])
def test_the_first_values_and_their_repeats_are_left_out(skip: int, kept: list[int]) -> None:
    assert without_first([10.0, 20.0, 10.0, 30.0], skip, "sub-01", TIME) == [bool(k) for k in kept]


@pytest.mark.parametrize("skip", [-1, 3, 4])
def test_not_all_are_left_out(skip: int) -> None:
    with pytest.raises(
        InputError, match=rf"--skip-first {skip}: sub-01 has images at 3 times; expected a number from 0 to 2"
    ):
        without_first([10.0, 20.0, 10.0, 30.0], skip, "sub-01", TIME)
    with pytest.raises(InputError, match="has images at 1 flip angle; expected a number from 0 to 0"):
        without_first([3.0], 1, "sub-01", ANGLE)


# Volumes that share a value.


def file(name: str, *levels: float) -> Any:
    """Return what is read of a file: its volumes have these mean magnitudes."""
    volumes = [np.array([-level, level, level]) for level in levels]
    return SimpleNamespace(path=Path(name), n_volumes=len(volumes), volumes=lambda: iter(volumes))


def said(*files: Any, times: list[Any], model: Any = T2Decay) -> list[str]:
    field = axis_of(model).sidecar_field
    return note_on_repeats(list(files), [{} if t is None else {field: t} for t in times], model)


@pytest.mark.parametrize(("ratio", "refused"), [(1.5, False), (1.51, True)])
def test_repeats_are_alike(ratio: float, refused: bool) -> None:
    files = file("a.nii", 10.0, 10.0 * ratio, 12.0), file("b.nii", 5.0)
    if refused:
        with pytest.raises(
            InputError,
            match=r"a.nii: expected repeats, .* one EchoTime for 3 volumes, got mean magnitudes from 10 to 15.1",
        ):
            said(*files, times=[0.01, 0.02])
    else:
        (text,) = said(*files, times=[0.01, 0.02])
        assert text == "3 volumes for each time count as repeats" and weight_of(text) == Weight.NOTE


def test_the_volumes_of_the_shortest_time_are_looked_at() -> None:
    files = file("a.nii", 1.0, 9.0), file("b.nii", 5.0, 5.0, 5.0, 5.0)
    (text,) = said(*files, times=[0.02, 0.01])
    assert text.startswith("4 volumes")
    with pytest.raises(InputError, match=r"a\.nii"):
        said(*files, times=[0.01, 0.02])
    odd = SimpleNamespace(
        path=Path("n"), n_volumes=2, volumes=lambda: iter([np.array([np.inf, 4.0, np.nan]), np.array([4.0, 0, 0])])
    )
    assert len(said(odd, file("b.nii", 5.0), times=[0.01, 0.02])) == 1


def test_volumes_with_values_of_their_own_are_no_repeats() -> None:
    assert said(file("a.nii", 1.0, 9.0), file("b.nii", 1.0), times=[[0.01, 0.02], 0.03]) == []
    assert said(file("a.nii", 1.0, 9.0), times=[0.01]) == []  # one file
    assert said(file("a.nii", 1.0, 9.0), file("b.nii", 1.0), times=[0.01, None]) == []


def test_files_of_one_value_are_repeats() -> None:
    one = file("a.nii", 1.0)
    (text,) = said(one, one, one, one, times=[0.01, 0.02, 0.01, 0.01 + 1e-12])
    assert text == "images of one time count as repeats: 3 at 10 ms" and weight_of(text) == Weight.NOTE
    assert said(one, one, times=[0.01, 0.01001]) == [] and said(one, one, times=[0.01, [0.01, 0.01]]) == []
    many = [t for t in (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0) for _ in range(2)]
    (text,) = said(*[one] * 14, times=many, model=VariableFlipAngle)
    assert text == "images of one flip angle count as repeats: 2 at 3°, 2 at 4°, 2 at 5°, 2 at 6°, 2 at 7°, 2 at 8° …"
    (text,) = said(*[one] * 12, times=many[:12], model=VariableFlipAngle)
    assert text.endswith("2 at 8°")
    (text,) = said(file("a", 1.0, 1.0), file("b", 1.0, 1.0), times=[3.0, 4.0], model=VariableFlipAngle)
    assert text == "2 volumes for each flip angle count as repeats"
