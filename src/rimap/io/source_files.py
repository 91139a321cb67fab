"""Where the sources that a sidecar names are."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from rimap.errors import InputError
from rimap.io.bids import absolute, read_json


def source_path(name: str, folder: Path, dataset: Path | None) -> Path:
    """Return the file that an entry of ``Sources`` names.

    Parameters
    ----------
    name
        A BIDS URI, or a path from the data set or from the folder of loose maps.
    folder
        Of the map.
    dataset
        The derivative data set, `None` for loose maps.

    Raises
    ------
    InputError
        For a name that leads out of its data set, and for a data set that is not known here.
    """
    out = dataset or folder
    if not name.startswith("bids:"):
        path = absolute(out / os.fsdecode(unquote_to_bytes(name)))
        # Loose maps name their sources from OUT. A sidecar that was received does not decide what else is read here.
        within = path.is_relative_to(out) and path.resolve().is_relative_to(out.resolve())
        if urlsplit(name).scheme or name.startswith("/") or (dataset is not None and not within):
            raise InputError(f"the source {name!r} is outside the data set")
        return path
    _, link, inside = (*name.split(":", 2), "", "")[:3]
    description = read_json(out / "dataset_description.json") if (out / "dataset_description.json").is_file() else {}
    links = description.get("DatasetLinks")
    target = links.get(link) if isinstance(links, dict) else None
    if not isinstance(target, str):
        raise InputError(f"dataset_description.json does not contain the location of the data set {link!r}")
    parts = urlsplit(target)
    if parts.scheme not in ("", "file"):
        raise InputError(f"the data set {link!r} is not on this machine")
    root = absolute(Path(unquote(parts.path)) if parts.scheme else out / unquote(target))
    path = absolute(root / inside)
    if not (path.is_relative_to(root) and path.resolve().is_relative_to(root.resolve())):
        raise InputError(f"the source {name!r} is outside its data set")
    return path
