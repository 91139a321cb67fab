"""Whatever is in a sidecar: an error of ours, or the times that it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from .conftest import Ground, cases, data_set

NUMBERS = st.one_of(
    st.floats(0.001, 5),
    st.integers(-3, 5),
    st.sampled_from(
        [0.05, 0.4, 1.1, 2.5, 50, 1e-12, 1e300, -1.0, float("nan"), float("inf"), 10**30, 10**400, True, None]
    ),
)
JSON = st.recursive(
    st.one_of(NUMBERS, st.text(max_size=8), st.sampled_from(["0.05", "1e3", "", "\ud800", "50 ms"])),
    lambda x: st.one_of(st.lists(x, max_size=4), st.dictionaries(st.text(max_size=4), x, max_size=3)),
    max_leaves=6,
)
KEYS = ["InversionTime", "EchoTime", "RepetitionTime", "RepetitionTimePreparation", "Manufacturer",
        "MagneticFieldStrength", "IntendedFor", "Sources", "BodyPart", "FlipAngle"]  # fmt: skip


def series(ground: Ground) -> list[Path]:
    """Write a good IRT1 data set and return its sidecars."""
    root = data_set(ground.clear() / "raw", RepetitionTime=9)
    return sorted((root / "sub-01" / "anat").glob("*.json"))


def check(ground: Ground, sidecars: list[Path], status: int) -> None:
    """Where there is a map, its times are those of the sidecars."""
    if status:
        return
    said = ground.metadata()["InversionTimes"]
    for path, time in zip(sidecars, said):
        value = json.loads(path.read_text(encoding="utf-8-sig"))["InversionTime"]
        value = value[0] if isinstance(value, list) else value
        assert not isinstance(value, (bool, str)) and abs(value - time) <= 1e-9 * abs(value)


@cases(0.15)
@given(data=st.data())
def test_odd_sidecars(ground: Ground, data: Any) -> None:
    sidecars = series(ground)
    for path in data.draw(st.lists(st.sampled_from(sidecars), min_size=1, max_size=4, unique=True)):
        about = json.loads(path.read_text())
        for key in data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3)):
            what = data.draw(st.sampled_from(["number", "any", "none"]))
            if what == "none":
                about.pop(key, None)
            else:
                about[key] = data.draw(NUMBERS if what == "number" else JSON)
        path.write_text(json.dumps(about))
    status, _ = ground.map(ground.root / "raw")
    check(ground, sidecars, status)


@cases(0.1)
@given(data=st.data())
def test_broken_json(ground: Ground, data: Any) -> None:
    sidecars = series(ground)
    path = data.draw(st.sampled_from([*sidecars, ground.root / "raw" / "dataset_description.json"]))
    raw = bytearray(path.read_bytes())
    match data.draw(st.sampled_from(["flip", "cut", "insert", "encode", "twice", "bytes", "deep", "digits"])):
        case "flip":
            bit = data.draw(st.integers(0, 8 * len(raw) - 1))
            raw[bit // 8] ^= 1 << bit % 8
        case "cut":
            del raw[data.draw(st.integers(0, len(raw) - 1)) :]
        case "insert":
            at = data.draw(st.integers(0, len(raw)))
            raw[at:at] = data.draw(st.binary(max_size=6))
        case "encode":
            coding = data.draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-16-le"]))
            raw = bytearray((raw.decode()[:-1] + ', "Note": "µs"}').encode(coding))
        case "twice":
            raw[1:1] = b'"InversionTime": %d, ' % data.draw(st.integers(0, 3))
        case "bytes":
            raw = bytearray(data.draw(st.binary(max_size=60)))
        case "deep":
            raw = bytearray(b'{"a":' * 5000 + b"1" + b"}" * 5000)
        case "digits":
            raw[1:1] = b'"Long": ' + b"7" * data.draw(st.integers(300, 6000)) + b", "
    path.write_bytes(bytes(raw))
    status, _ = ground.map(ground.root / "raw")
    check(ground, sidecars, status)
    if status == 0 and path in sidecars:
        pairs: list[tuple[str, Any]] = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=list)
        values = [v for k, v in pairs if k == "InversionTime"]
        assert len({json.dumps(v) for v in values}) == 1
