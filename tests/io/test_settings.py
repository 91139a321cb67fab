"""Settings of a series from sidecars and from the user: units, numbers of values, what is refused or left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rimap import (
    MP2RAGE,
    GradientEcho,
    InversionRecovery,
    MultiEchoSpinEcho,
    T2Decay,
    UniformMP2RAGE,
    VariableFlipAngle,
)
from rimap.errors import InputError
from rimap.io.settings import (
    Files,
    numbers_in,
    option_of,
    settings_from_sidecars,
    settings_from_user,
    sidecar_field,
    split_settings,
)
from rimap.signals.look_locker import LookLocker
from rimap.signals.settings import settings_of

IR, VFA, TWO = (settings_of(model) for model in (InversionRecovery, VariableFlipAngle, MP2RAGE))


def read(
    model: Any, sidecars: list[dict[str, Any]], counts: Any = None, **more: Any
) -> tuple[dict[str, Any], list[str]]:
    images = [Path(f"file{k}.nii") for k in range(len(sidecars))]
    return settings_from_sidecars(images, counts or [1] * len(sidecars), sidecars, model, **more)


def times(*seconds: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"InversionTime": t, **more} for t in seconds]


# From sidecars.


def test_seconds_become_milliseconds_without_rounding() -> None:
    found, notes = read(InversionRecovery, times(0.05, 1.1, 0.139))
    assert found == {"tau": (50.0, 1100.0, 139.0)} and notes == []
    assert read(T2Decay, [{"EchoTime": 0.01}, {"EchoTime": 0.02}])[0] == {"tau": (10.0, 20.0)}


def test_what_the_user_gave_is_not_read() -> None:
    assert read(InversionRecovery, times("x", "y"), known={"tau": (50.0, 900.0)})[0] == {}


@pytest.mark.parametrize(("field", "value"), [("RepetitionTimePreparation", 5.0), ("RepetitionTime", 6.0)])
def test_an_optional_setting_is_read_from_the_preferred_field(field: str, value: float) -> None:
    sidecars = times(0.05, 1.1, 2.5, RepetitionTime=6.0)
    if field != "RepetitionTime":
        sidecars = [sidecar | {field: value} for sidecar in sidecars]
    assert read(InversionRecovery, sidecars)[0]["tr"] == (1000 * value,) * 3
    assert sidecar_field(IR["tr"], sidecars) == field and sidecar_field(IR["tr"], times(1, 2)) is None
    assert sidecar_field(IR["tr"], []) is None and sidecar_field(IR["tr"], [*sidecars, {}]) is None


@pytest.mark.parametrize(("tr", "used"), [(2.501, True), (2.5, False), (0.008, False)])
def test_a_repetition_time_must_exceed_the_inversion_time(tr: float, used: bool) -> None:
    found, notes = read(InversionRecovery, times(0.05, 1.1, 2.5, RepetitionTime=tr))
    assert ("tr" in found) == used and bool(notes) != used
    if not used:
        assert notes[0].startswith(
            f"RepetitionTime is {1000 * tr:g} ms, not longer than the inversion time: it is the time between readouts"
        )
        assert notes[0].endswith("used. T1 from such a readout (Look-Locker) is an apparent one, T1*.")
    both = times(0.05, 1.1, 2.5, RepetitionTime=6.0, RepetitionTimePreparation=tr)
    assert read(InversionRecovery, both)[0]["tr"] == ((1000 * tr if used else 6000.0),) * 3  # the next field


def test_each_image_may_have_a_repetition_time() -> None:
    sidecars = [{"InversionTime": t, "RepetitionTime": r} for t, r in ((0.05, 1.0), (1.1, 3.0), (2.5, 4.0))]
    assert read(InversionRecovery, sidecars)[0]["tr"] == (1000.0, 3000.0, 4000.0)
    sidecars[2]["RepetitionTime"] = 2.0  # below its own inversion time
    found, notes = read(InversionRecovery, sidecars)
    assert "tr" not in found and notes[0].startswith("RepetitionTime is 1000 ms")
    known = {"tau": (50.0, 100.0, 500.0)}
    assert read(InversionRecovery, sidecars, known=known)[0] == {"tr": (1000.0, 3000.0, 2000.0)}


def test_a_setting_that_some_sidecars_lack_is_named() -> None:
    found, notes = read(InversionRecovery, [*times(0.05, 1.1, RepetitionTime=6.0), {"InversionTime": 2.5}])
    assert "tr" not in found and notes == [
        "RepetitionTime is not in all sidecars (file2.nii lacks it) and was not used"
    ]
    assert read(InversionRecovery, times(0.05, 1.1))[1] == []


def test_a_required_setting_that_is_missing_is_asked_for() -> None:
    with pytest.raises(
        InputError,
        match=r"no InversionTime .* InversionTime \(seconds\), or give --times-ms \(--set tau=VALUES\)\.$",
    ):
        read(InversionRecovery, [*times(0.05), {}, {}])
    with pytest.raises(InputError, match=r"file0.nii: no FlipAngle .* \(degrees\), or give --set flip_angle=VALUES\.$"):
        read(VariableFlipAngle, [{}, {}])
    angles = [{"FlipAngle": 3, "RepetitionTime": 0.015}, {"FlipAngle": 20}]
    with pytest.raises(InputError, match=r"file1.nii: no RepetitionTime in its sidecar"):  # the field that most have
        read(VariableFlipAngle, angles)


@pytest.mark.parametrize("bad", [True, "0.05", None, np.inf, -np.inf, 1e300, [0.05, "x"], {"a": 1}])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    with pytest.raises(InputError, match=r"x.nii: expected InversionTime in seconds, a number, got "):
        numbers_in(bad, "InversionTime", Path("x.nii"), IR["tau"])


def test_numbers_of_a_sidecar() -> None:
    assert numbers_in([1, 2.5], "f", Path("x"), IR["tau"]) == [1.0, 2.5] and numbers_in(
        0, "f", Path("x"), IR["tau"]
    ) == [0.0]
    with pytest.raises(
        InputError, match=r"expected FlipAngle in degrees, got -3 in its sidecar; it cannot be negative"
    ):
        numbers_in(-3, "FlipAngle", Path("x"), VFA["flip_angle"])
    for value, shown in (
        ("b" * 58, "'" + "b" * 58 + "'"),
        ("b" * 59, "'" + "b" * 56 + "…"),
        (10**301, "a number of more than 20 digits"),
    ):
        with pytest.raises(InputError) as caught:
            numbers_in(value, "f", Path("x"), IR["tau"])
        assert f" got {shown} in its sidecar." in str(caught.value)
    with pytest.raises(InputError, match="in no unit, a number, got 'x'"):
        numbers_in("x", "NumberShots", Path("x"), TWO["number_shots"])


@pytest.mark.parametrize(("seconds", "refused"), [(30.0, False), (30.1, True)])
def test_values_in_milliseconds_are_refused(seconds: float, refused: bool) -> None:
    if not refused:
        assert read(InversionRecovery, times(0.05, seconds))[0]["tau"] == (50.0, 1000 * seconds)
        return
    with pytest.raises(
        InputError,
        match=r"file1.nii: .* in seconds, got 30.1 in .* are milliseconds, write 0.0301 there, or give --times-ms\.$",
    ):
        read(InversionRecovery, times(0.05, seconds))
    with pytest.raises(
        InputError, match=r"FlipAngle in degrees, got 181 in its sidecar. Correct it, or give --set flip_angle\.$"
    ):
        read(VariableFlipAngle, [{"FlipAngle": a, "RepetitionTime": 0.015} for a in (3, 181)])


@pytest.mark.parametrize(
    ("largest", "unit", "written"),
    [(31, "milliseconds", "0.031"), (30_000, "milliseconds", "30"), (30_001, "microseconds", "0.030001"),
     (29_999_999, "microseconds", "30")],
)  # fmt: skip
def test_the_unit_that_fits_is_suggested(largest: float, unit: str, written: str) -> None:
    with pytest.raises(InputError, match=rf" in its sidecar. If these are {unit}, write {written} there"):
        read(InversionRecovery, times(0.05, largest))
    with pytest.raises(InputError, match=r"in its sidecar. Correct it, or give --times-ms"):
        read(InversionRecovery, times(0.05, 1e9))  # no unit of time fits


def test_a_short_time_beside_long_ones_is_no_other_unit() -> None:
    """Angles below half a degree beside larger ones are in radians; echo times of that size are ultra-short."""
    assert read(GradientEcho, [{"EchoTime": t} for t in (0.0003, 0.005, 0.6)])[0] == {"te": (0.3, 5.0, 600.0)}
    sidecars = [{"FlipAngle": a, "RepetitionTime": 0.015} for a in (0.35, 20)]
    with pytest.raises(
        InputError, match=r"file0.nii: .* got 0.35 in its sidecar, where others have up to 20. If it is"
    ):
        read(VariableFlipAngle, sidecars)
    sidecars[0]["FlipAngle"] = 0.5
    assert read(VariableFlipAngle, sidecars)[0]["flip_angle"] == (0.5, 20.0)


@pytest.mark.parametrize(("largest", "refused"), [(1.0, False), (0.999, True)])
def test_values_in_radians_are_refused(largest: float, refused: bool) -> None:
    sidecars = [{"FlipAngle": a, "RepetitionTime": 0.015} for a in (0.6, largest)]
    if not refused:
        assert read(VariableFlipAngle, sidecars)[0]["flip_angle"] == (0.6, 1.0)
        return
    with pytest.raises(
        InputError,
        match=r"file0.nii: .* in degrees, got at most 0.999 in .* is too small. If these are radians, write 57.2 there",
    ):
        read(VariableFlipAngle, sidecars)
    with pytest.raises(
        InputError, match=r"got at most 0.009 in the sidecars, which is too small. Correct it, or give --times-ms\.$"
    ):
        read(InversionRecovery, times(0.008, 0.009))
    assert read(T2Decay, [{"EchoTime": 0}, {"EchoTime": 0}])[0] == {
        "tau": (0.0, 0.0)
    }  # refused later, with a better reason


def test_files_of_several_volumes() -> None:
    assert read(InversionRecovery, times([0.05, 0.4], 1.1), [2, 1])[0]["tau"] == (50.0, 400.0, 1100.0)
    assert read(InversionRecovery, times(0.05, 1.1), [2, 1])[0]["tau"] == (50.0, 50.0, 1100.0)  # repeats
    assert read(InversionRecovery, times([0.05, 0.4], RepetitionTime=5.0), [2])[0]["tr"] == (5000.0, 5000.0)
    with pytest.raises(
        InputError,
        match=r"1 time, 3 images: InversionTime in .* of file0.nii must have one value for each of its 3 volumes",
    ):
        read(InversionRecovery, times(0.05), [3])
    with pytest.raises(InputError, match="2 times, 3 images"):
        read(InversionRecovery, times([0.05, 0.4], 1.1), [3, 1])
    with pytest.raises(InputError, match="2 times, 1 image"):
        read(InversionRecovery, times([0.05, 0.4], 1.1), [1, 1])


def cycles(**more: Any) -> list[dict[str, Any]]:
    common = {"RepetitionTimePreparation": 5.0, "RepetitionTimeExcitation": 0.007, "NumberShots": 120}
    return [{"InversionTime": t, "FlipAngle": 4, **common, **more} for t in (0.7, 2.5)]


def test_a_setting_that_all_images_share() -> None:
    found, _ = read(MP2RAGE, cycles())
    assert found["number_shots"] == (120.0,) and found["tr"] == (5000.0,)
    assert read(MP2RAGE, cycles(NumberShots=[40, 80]))[0]["number_shots"] == (40.0, 80.0)
    assert read(MP2RAGE, cycles(NumberShots=[60, 60]))[0]["number_shots"] == (60.0, 60.0)
    assert read(MP2RAGE, cycles(NumberShots=[60, 60, 60]))[0]["number_shots"] == (60.0,)
    assert read(MP2RAGE, cycles(RepetitionTimePreparation=[5.0, 5.0]))[0]["tr"] == (5000.0,)
    with pytest.raises(
        InputError, match=r"file0.nii: expected 1 or 2 values of NumberShots for all images, got 3 in its sidecar"
    ):
        read(MP2RAGE, cycles(NumberShots=[40, 80, 90]))
    with pytest.raises(InputError, match=r"expected 1 value of RepetitionTimePreparation for all images, got 2 in"):
        read(MP2RAGE, cycles(RepetitionTimePreparation=[5.0, 6.0]))


@pytest.mark.parametrize(("second", "refused"), [(5.0049, False), (5.0051, True)])
def test_scanners_round_what_images_share(second: float, refused: bool) -> None:
    sidecars = cycles()
    sidecars[1]["RepetitionTimePreparation"], sidecars[0]["RepetitionTimePreparation"] = 5.0, second
    if not refused:
        assert read(MP2RAGE, sidecars)[0]["tr"] == pytest.approx((1000 * second,))
        return
    with pytest.raises(
        InputError, match=r"one repetition time .* for all images, got RepetitionTimePreparation 5.0051 and 5\. Map"
    ):
        read(MP2RAGE, sidecars)
    sidecars = cycles()
    sidecars[0]["NumberShots"] = [60, 60]
    with pytest.raises(InputError, match="NumberShots 60, 60 and 120"):
        read(MP2RAGE, sidecars)


def test_a_setting_may_be_in_another_sidecar() -> None:
    elsewhere = {"tr": [{"RepetitionTimePreparation": 6.0}] * 2}
    assert read(MP2RAGE, cycles(), elsewhere=elsewhere)[0]["tr"] == (6000.0,)
    files = Files([Path("a"), Path("b")], [2, 3], [{}, {}], elsewhere)
    assert files.n_images == 5 and files.of(TWO["ti"]) is files and files.of(TWO["tr"]).metadata == elsewhere["tr"]
    with pytest.raises(InputError, match=r"or that of inv-1_MP2RAGE"):
        read(UniformMP2RAGE, [{}])


def test_a_uniform_image_has_the_values_of_its_two_images() -> None:
    one = {"InversionTime": [0.7, 2.5], "FlipAngle": [4, 5], "RepetitionTimePreparation": 5.0, "NumberShots": [40, 80],
           "RepetitionTimeExcitation": 0.007}  # fmt: skip
    found = read(UniformMP2RAGE, [one])[0]
    assert (found["ti"], found["ti_second"]) == ((700.0,), (2500.0,))
    assert (found["flip_angle"], found["flip_angle_second"]) == ((4.0,), (5.0,))
    with pytest.raises(InputError, match=r"expected FlipAngle of .*inv-1.* and .*inv-2.*, got one value in its"):
        read(UniformMP2RAGE, [one | {"FlipAngle": 4}])
    of_each = {"flip_angle": [{"FlipAngle": 4}], "flip_angle_second": [{"FlipAngle": 6}]}
    found = read(UniformMP2RAGE, [one | {"FlipAngle": 4}], elsewhere=of_each)[0]
    assert (found["flip_angle"], found["flip_angle_second"]) == ((4.0,), (6.0,))


# From the user.


def given(model: Any = InversionRecovery, n: int = 3, **settings: Any) -> dict[str, Any]:
    return settings_from_user(settings, n, model, "sub-01")


def test_values_of_the_user() -> None:
    assert (
        given(tau=[50, 400, 1100]) == {"tau": (50.0, 400.0, 1100.0)}
        and given(tau=np.array([[5e1], [4e2], [1e3]]))["tau"][2] == 1000
    )
    assert given(tr=5000) == {"tr": (5000.0,)} and given(tr=(1000, 2000, 3000))["tr"] == (1000, 2000, 3000)
    assert given(MP2RAGE, 2, number_shots=(40, 80)) == {"number_shots": (40.0, 80.0)} and given(n=1, tau=7_000)[
        "tau"
    ] == (7000,)


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        (InversionRecovery, {"te": 5}, r"--set te: expected a setting of inversion recovery \(tau, tr\), got 'te'"),
        (InversionRecovery, {"tau": "x"}, "--times-ms: expected numbers in milliseconds, got 'x'"),
        (InversionRecovery, {"tau": []}, "--times-ms: expected numbers in milliseconds, got no times"),
        (VariableFlipAngle, {"flip_angle": []}, "--set flip_angle: expected numbers in degrees, got no flip angles"),
        (InversionRecovery, {"tau": [1, 2, np.nan]}, "finite and not negative, got nan"),
        (InversionRecovery, {"tau": [50, 400, -1]}, "finite and not negative, got -1"),
        (
            InversionRecovery,
            {"tau": [50, 400]},
            r"^2 times, 3 images: --times-ms must have one value for each image of sub-01",
        ),
        (InversionRecovery, {"tau": [50]}, "^1 time, 3 images"),
        (
            InversionRecovery,
            {"tr": [1000, 2000]},
            "sub-01: --tr-ms: expected one TR, or one for each of the 3 images, got 2 values",
        ),
        (MP2RAGE, {"tr": [1000, 2000, 3000]}, r"sub-01: --tr-ms: expected one TR, got 3 values"),
        (MP2RAGE, {"number_shots": [1, 2, 3]}, "--set number_shots: expected one n, got 3 values"),
        (
            InversionRecovery,
            {"tau": [0.05, 0.4, 1.1]},
            r"If these are seconds, give milliseconds: --times-ms 50 400 1100",
        ),
        (InversionRecovery, {"tau": [50, 400, 30_001]}, "at most 30000, got 30001. Correct the times"),
        (VariableFlipAngle, {"flip_angle": [3, 9, 181]}, "at most 180, got 181. Correct the flip angles"),
    ],
)
def test_values_that_cannot_be_are_refused(model: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        given(model, 3, **settings)


def test_limits_belong_to_what_is_possible() -> None:
    assert given(tau=[0.0, 10.0, 30_000.0])["tau"] == (0.0, 10.0, 30_000.0)


def test_options_are_not_settings() -> None:
    settings, options = split_settings({"profile": "hard", "echo_spacing": 9}, MultiEchoSpinEcho, times_ms=[9, 18])
    assert settings == {"echo_spacing": 9, "te": [9, 18]} and options == {"profile": "hard"}
    assert split_settings(None, InversionRecovery, tr_ms=5000) == ({"tr": 5000}, {})
    assert split_settings(None, T2Decay, tr_ms=5000) == ({}, {}) and split_settings(None, T2Decay) == ({}, {})
    assert split_settings(None, VariableFlipAngle, tr_ms=15.0) == ({"tr": 15.0}, {})


@pytest.mark.parametrize(
    ("model", "settings", "more", "says"),
    [
        (InversionRecovery, {"te": 5}, {}, "--set te: expected a setting"),
        (InversionRecovery, {"tau": 5}, {"times_ms": [5]}, "--times-ms and --set tau: expected one of them, got both"),
        (InversionRecovery, {"tr": 5}, {"tr_ms": 5}, "--tr-ms and --set tr: expected one of them"),
        (
            VariableFlipAngle,
            {},
            {"times_ms": [5]},
            r"--times-ms: .* differ in the flip angle, not in a time. Use --set flip_angle=VALUES, in degrees",
        ),
    ],
)
def test_what_is_set_twice_or_does_not_exist_is_refused(model: Any, settings: Any, more: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        split_settings(settings, model, **more)


def test_the_option_of_a_setting() -> None:
    assert [option_of(IR[name], InversionRecovery) for name in ("tau", "tr")] == ["--times-ms", "--tr-ms"]
    assert (
        option_of(VFA["flip_angle"], VariableFlipAngle) == "--set flip_angle"
        and option_of(VFA["tr"], VariableFlipAngle) == "--tr-ms"
    )
    look = settings_of(LookLocker)
    assert (
        option_of(look["readout_tr"], LookLocker) == "--set readout_tr"
        and option_of(TWO["number_shots"], MP2RAGE) == "--set number_shots"
    )
