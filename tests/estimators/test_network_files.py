"""The networks that ship, and those of others: one file each, as it was released."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import onnx
import pytest

from rimap.errors import InputError
from rimap.estimators import network_files
from rimap.estimators.network_files import CHECKSUMS, WEIGHTS, metadata_of, session
from rimap.estimators.network_files import shipped as networks


def test_every_network_that_ships_is_as_it_was_released() -> None:
    lines = (WEIGHTS / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    found = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in networks().values()}
    assert {name: digest for digest, name in map(str.split, lines)} == found


def test_a_network_with_values_in_other_files_is_refused(tmp_path: Path) -> None:
    """External data could name any file of the machine."""
    model = onnx.load(WEIGHTS / "t1.onnx")
    onnx.save_model(model, tmp_path / "t1.onnx", save_as_external_data=True, location="elsewhere.bin", size_threshold=0)
    with pytest.raises(InputError, match="takes values from other files"):
        metadata_of(tmp_path / "t1.onnx")


@pytest.mark.parametrize("entry", [b"\x12\x04/dev\x0a\x08location", b"\x0a\x88\x00location\x12\x04/dev"])
def test_a_network_may_not_hide_that_its_values_are_elsewhere(tmp_path: Path, entry: bytes) -> None:
    """Protobuf reads the fields of an entry in any order, and lengths with padding."""
    tensor = onnx.TensorProto()
    tensor.MergeFromString(b"\x6a" + bytes([len(entry)]) + entry)
    assert [(e.key, e.value) for e in tensor.external_data] == [("location", "/dev")]  # it is what readers understand
    path = tmp_path / "t1.onnx"
    path.write_bytes((WEIGHTS / "t1.onnx").read_bytes() + entry)
    with pytest.raises(InputError, match="takes values from other files"):
        metadata_of(path)


def test_a_network_that_was_exchanged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("t1.onnx", "t2.onnx", CHECKSUMS):
        shutil.copy(WEIGHTS / name, tmp_path / name)
    monkeypatch.setattr(network_files, "WEIGHTS", tmp_path)
    session(tmp_path / "t1.onnx", 1)
    shutil.copy(WEIGHTS / "t2.onnx", tmp_path / "t1.onnx")
    with pytest.raises(InputError, match=r"not the network of this release.*Install rimap again"):
        session(tmp_path / "t1.onnx", 1)
    shutil.copy(tmp_path / "t2.onnx", tmp_path / "added.onnx")
    with pytest.raises(InputError, match="not the network of this release"):  # what ships is listed
        session(tmp_path / "added.onnx", 1)


@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_bit_of_a_network_that_ships_is_enough_to_refuse_it(
    place: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray((WEIGHTS / "t1.onnx").read_bytes())
    shutil.copy(WEIGHTS / CHECKSUMS, tmp_path)
    content[round(place * (len(content) - 1))] ^= 1
    (tmp_path / "t1.onnx").write_bytes(content)
    monkeypatch.setattr(network_files, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match=r"t1\.onnx is not the network of this release"):
        metadata_of(tmp_path / "t1.onnx")


@pytest.mark.parametrize(
    "recipe", ["{", "[]", "{}", '{"name": "x", "kind": "rim", "sequence": "ir", "trained_on": []}']
)
def test_a_damaged_recipe_is_named(tmp_path: Path, recipe: str) -> None:
    model = onnx.load(WEIGHTS / "t1.onnx")
    del model.metadata_props[:]
    model.metadata_props.add(key="rimap", value=recipe)
    onnx.save_model(model, tmp_path / "mine.onnx")
    with pytest.raises(InputError, match=r"mine\.onnx: the recipe inside is damaged"):
        metadata_of(tmp_path / "mine.onnx")


def test_a_damaged_network_is_named(tmp_path: Path) -> None:
    content = (WEIGHTS / "t1.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"half\.onnx cannot be read as a network"):
        metadata_of(tmp_path / "half.onnx")
