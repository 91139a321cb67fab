"""Nothing that is read can run code, and no path in a sidecar leads out of its data set."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import rimap
from rimap.errors import InputError
from rimap.io.results import find_results
from rimap.io.series_records import Record

from .conftest import Ground, data_set

SOURCE = Path(rimap.__file__).parent
UNSAFE = (
    r"\b(c?pickle|cloudpickle|dill|joblib|shelve|marshal)\b",
    r"\ballow_pickle\s*=\s*True",
    r"\b(np|numpy)\.load\((?!.*allow_pickle\s*=\s*False)",
    r"\btorch\.load\b",
    r"(?<![\w.])(eval|exec|compile|__import__)\(",
    r"\byaml\b(?!.*safe_load)",
    r"\bshell\s*=\s*True",
    r"\bos\.(system|popen|exec\w*|spawn\w*)\(",
    r"\bregister_custom_ops_library\b",
)


@pytest.mark.parametrize("pattern", UNSAFE)
def test_the_source_has_nothing_that_runs_what_it_reads(pattern: str) -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{n}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        for n, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []


def test_paths_in_sidecars_are_not_followed(ground: Ground) -> None:
    root = ground.clear()
    secret = root.parent / "secret.nii"
    secret.write_bytes(ground.good)
    names = [
        "../../secret.nii",
        "../../../../secret.nii",
        str(secret),
        f"file://{secret}",
        "bids::../../secret.nii",
        "bids:raw:../../secret.nii",
    ]
    fields = (
        "IntendedFor",
        "Sources",
        "RawSources",
        "AssociatedEmptyRoom",
        "B0FieldSource",
        "Inherit",
        "File",
        "Path",
        "$ref",
    )
    raw = data_set(root / "raw", **dict.fromkeys(fields, names))
    opened: list[str] = []
    watching = True

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open":
            opened.append(str(args[0]))

    sys.addaudithook(watch)
    status, message = ground.map(raw)
    watching = False
    assert status == 0, message
    assert opened and not [name for name in opened if "secret" in name]
    for path in ground.out.rglob("*.json"):
        assert "secret" not in path.read_text()


@pytest.mark.parametrize("how", ["..", "absolute", "link", "folder"])
def test_sources_of_maps_stay_in_their_data_set(ground: Ground, how: str) -> None:
    root = ground.clear()
    raw = data_set(root / "raw")
    assert ground.map(raw)[0] == 0
    (result,) = find_results(ground.out)
    assert len(result.sources()) == 4
    secret = root / "secret.nii"
    secret.write_bytes(ground.good)
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "x.nii").write_bytes(ground.good)
    (raw / "link.nii").symlink_to(secret)
    (raw / "folder").symlink_to(root / "elsewhere")
    name = {"..": "../secret.nii", "absolute": str(secret), "link": "link.nii", "folder": "folder/x.nii"}[how]
    link = str(result.metadata["Sources"][0]).split(":")[1]
    sidecar = result.main.with_name(result.main.name.removesuffix(".nii.gz") + ".json")
    sidecar.write_text(json.dumps(dict(result.metadata) | {"Sources": [f"bids:{link}:{name}"]}))
    (changed,) = find_results(ground.out)
    with pytest.raises(InputError, match="outside its data set"):
        changed.sources()


def test_a_record_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    record = Record(tmp_path / "out" / ".rimap" / "x.json", tmp_path / "out", "x", {})
    record.path.parent.mkdir(parents=True)
    for name in ("../secret", str(tmp_path / "secret")):
        record.path.write_text(json.dumps({"state": "finished", "wanted": {}, "outputs": {name: 1}}))
        assert record.state() == "begun"
