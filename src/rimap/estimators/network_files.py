"""The networks that ship with the package, and any other exported one: where it is, what its metadata say."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rimap.errors import InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from rimap.signals.base import SignalModel

#: How a tensor of an ONNX file says that its values are in another file: the key "location" of its external data, whose
#: length may be padded. Protobuf reads the fields of an entry in any order, so what is before and after it says
#: nothing.
_EXTERNAL = re.compile(rb"(?:\x08|\x88\x80*\x00)location")
#: The key of an exported file's metadata that holds its recipe, as JSON.
METADATA = "rimap"
#: What every recipe has, and of which kind it is.
_OF_EVERY_NETWORK: dict[str, type] = {"name": str, "kind": str, "sequence": str, "trained_on": dict}
#: Where networks that ship are stored, and the file of their SHA-256 sums.
WEIGHTS = Path(__file__).parent / "weights"
CHECKSUMS = "SHA256SUMS"
#: What the metadata of a network for every sequence with one amplitude have in place of a sequence.
ANY_SEQUENCE = "any"
#: In what `for_model` returns: the sequences of the training, if the one that is mapped is not among them.
UNSEEN = "trained_on_others"
#: The ranges of a sequence that a network for any sequence has not seen: all its inputs are in units of the information
#: in the data.
UNLIMITED: dict[str, Any] = {
    "times_ms": [],
    "time_range_ms": [0.0, math.inf],
    "n_images": [2, math.inf],
    "sigma": [0.0, math.inf],
    "settings": None,
    "parameters": {},
    "noise": ["gaussian", "rician"],
    "signed": True,
}


def shipped() -> dict[str, Path]:
    """Return the networks that ship, by name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.onnx"))}


def path_of(name: str | Path) -> Path:
    """Return the file of a network: the name of one that ships, or a path.

    Raises
    ------
    InputError
        If there is none, naming the nearest that ships.
    """
    found = shipped()
    if str(name) in found:
        return found[str(name)]
    path = Path(name)
    if path.suffix == ".onnx" and path.is_file():
        return path
    near = difflib.get_close_matches(str(name), list(found), 1, 0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"no network {str(name)!r}: expected the path of an .onnx file or one that ships "
        f"({', '.join(found) or 'none in this installation'}).{hint}"
    )


@dataclass(frozen=True)
class DefaultNetwork:
    """A row of ``weights/networks.toml``: the network of its kind for some sequences, and for which it has passed its
    tests.
    """

    name: str
    kind: str
    sequences: tuple[str, ...]
    passed: tuple[str, ...]


@lru_cache(maxsize=1)
def _default_networks() -> tuple[DefaultNetwork, ...]:
    table = tomllib.loads((WEIGHTS / "networks.toml").read_text(encoding="utf-8"))
    return tuple(
        DefaultNetwork(name, row["kind"], tuple(row["sequences"]), tuple(row["passed"])) for name, row in table.items()
    )


def passed_network(sequence: str) -> DefaultNetwork | None:
    """Return the network that maps a sequence if the user names no estimator, `None` if none has passed its tests for
    it.
    """
    found = shipped()
    return next(
        (network for network in _default_networks() if sequence in network.passed and network.name in found), None
    )


def default_network(sequence: str, kind: str) -> str:
    """Return the name of the network of a kind that maps a sequence if the user names none.

    Raises
    ------
    InputError
        If none ships for it.
    """
    found = shipped()
    for network in _default_networks():
        if network.kind == kind and sequence in network.sequences and network.name in found:
            return network.name
    for other, path in found.items():
        about = metadata_of(path)
        if about["kind"] == kind and about["sequence"] in (sequence, ANY_SEQUENCE):
            return other
    raise InputError(
        f"no {kind} for the sequence {sequence} ships with this installation. Train one with `rimap train` and give "
        "its .onnx file as the network, or use another estimator."
    )


def session(path: Path, threads: int = 0, plane: tuple[int, int] | None = None) -> InferenceSession:
    """Return the ONNX Runtime session of a file; `threads` 0 takes all cores.

    With the shape of the one `plane` that will come in each call, ONNX Runtime fuses more: a fifth faster.

    Raises
    ------
    InputError
        Where the file is no ONNX network, or takes values from other files; where one that ships is not as it was
        released.
    """
    import onnxruntime

    content_of(path)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for name, size in zip("bhw", (1, *plane) if plane else ()):
        options.add_free_dimension_override_by_name(name, size)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"{path} cannot be read as a network: {' '.join(str(error).split())[:120]}.") from None


def content_of(path: Path) -> bytes:
    """Return the bytes of a network.

    Raises
    ------
    InputError
        For one whose values are in other files, and one that ships and is damaged or was exchanged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    if _EXTERNAL.search(content):
        raise InputError(
            f"{path} takes values from other files (external data of ONNX), which could be any file of this machine. "
            "Expected a network that `rimap train` wrote, in one file."
        )
    if path.parent == WEIGHTS and hashlib.sha256(content).hexdigest() != _checksums().get(path.name):
        raise InputError(
            f"{path} is not the network of this release: it is damaged or was exchanged. Install rimap again, or give "
            "a network of your own by its path."
        )
    return content


@lru_cache(maxsize=1)
def _checksums() -> dict[str, str]:
    """Return the SHA-256 of each network that ships, by file name, as `sha256sum` writes and checks them."""
    lines = (WEIGHTS / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines if line)}


def cached_session(path: Path, threads: int = 0, plane: tuple[int, int] | None = None) -> InferenceSession:
    """Return `session`, made once for a file and shape."""
    return _sessions(path, threads, plane, path.stat().st_mtime)


@lru_cache(maxsize=8)
def _sessions(path: Path, threads: int, plane: tuple[int, int] | None, modified: float) -> Any:
    return session(path, threads, plane)


@lru_cache(maxsize=64)
def _metadata(path: Path, modified: float) -> str | None:
    text: str | None = session(path, 1).get_modelmeta().custom_metadata_map.get(METADATA)
    return text


def metadata_of(path: Path) -> dict[str, Any]:
    """Return what an exported network says about itself.

    Raises
    ------
    InputError
        Where it was not made by rimap, or its recipe is damaged.
    """
    text = _metadata(path, path.stat().st_mtime)
    if text is None:
        raise InputError(f"{path} was not made by `rimap train`: it has no recipe inside.")
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or any(
        not isinstance(about.get(key), kind) for key, kind in _OF_EVERY_NETWORK.items()
    ):
        raise InputError(
            f"{path}: the recipe inside is damaged, or of another program. Export the network again with `rimap train`."
        )
    return cast(dict[str, Any], about)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file of a network: sidecars name by it which one made the maps."""
    return _sha256(path, path.stat().st_mtime)


@lru_cache(maxsize=64)
def _sha256(path: Path, modified: float) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def for_model(about: dict[str, Any], model: SignalModel) -> dict[str, Any]:
    """Return the metadata of a network as they are for one signal model: of a network for any sequence, what it has
    seen of this.

    Raises
    ------
    InputError
        Where the network was trained for another sequence, or is for models with one amplitude and this has several.
    """
    if about["sequence"] == ANY_SEQUENCE:
        if (n := len(model.amplitudes)) != 1:
            raise InputError(
                f"network {about['name']!r} is for signal models with one amplitude; {model.name} has {n}. "
                "Use another estimator, or train a network for this sequence."
            )
        seen = about["trained_on"].get(model.name)
        of_others = {UNSEEN: sorted(about["trained_on"])} if seen is None else {}
        return {**about, "sequence": model.name, "trained_on": seen or UNLIMITED, **of_others}
    if about["sequence"] != model.name:
        raise InputError(
            f"network {about['name']!r} was trained for the sequence {about['sequence']}; this series is {model.name}. "
            "`rimap models` lists the networks for it."
        )
    return about


def describe(name: str) -> dict[str, Any] | None:
    """Return the metadata of an exported network by name or path; `None` for a checkpoint."""
    return None if name.endswith(".safetensors") else metadata_of(path_of(name))
