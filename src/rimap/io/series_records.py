"""Records in OUT of each series: whether it is finished and with which settings, or why it failed.

One small file for a series and an estimator, ``OUT/.rimap/<series>_<estimator>.json``. It says "begun" before the first
output of a series is written and "finished" after the last, so that a run that was killed at any moment leaves no doubt
about which outputs are whole. Validators pass over names that begin with a dot.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rimap.errors import InputError
from rimap.io.atomic import write_whole
from rimap.io.bids import absolute, read_json
from rimap.io.path_redaction import without_folders
from rimap.io.provenance import to_json
from rimap.io.series_files import SeriesFiles
from rimap.io.unreadable_formats import refuse_broken_link
from rimap.io.write_claims import check_claims

#: Hidden, because it is no result.
FOLDER = ".rimap"


@dataclass(frozen=True)
class Record:
    """What is known of one series in OUT.

    Parameters
    ----------
    path
        The file of the record.
    out
        The folder of the outputs.
    label
        The series, for messages.
    wanted
        All that bears on the outputs: settings, sources with size and time, version. See `record_of`.
    files
        The sources, where they last.
    """

    path: Path
    out: Path
    label: str
    wanted: Mapping[str, Any]
    files: tuple[Path, ...] = ()

    def read(self) -> dict[str, Any]:
        """Return what was written last, {} where nothing readable is there."""
        try:
            return read_json(self.path) if self.path.is_file() else {}
        except InputError:
            return {}

    def state(self) -> str:
        """Return ``finished``, ``begun``, ``failed``, ``different`` or ``none``.

        ``finished``: all outputs are there, in the size they were written, made with what is wanted now.
        ``different``: they are whole, but made with other settings or from other files (see `differences`).
        ``begun``: what is there may be half written, and is ours to replace.
        """
        found = self.read()
        state = found.get("state")
        if state not in ("begun", "failed", "finished"):
            return "none"
        if state != "finished":
            return str(state)
        if _broken(self.out, found.get("outputs")):
            return "begun"
        return "different" if self.differences() else "finished"

    def differences(self) -> list[str]:
        """Return in words how what is wanted differs from what was made."""
        found = self.read()
        before, now = _mapping(found.get("wanted")), _plain(self.wanted)
        keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        if "sources" in keys and self._same_content(before.get("sources"), found.get("checksums")):
            keys.remove("sources")
        texts = [
            _change(key, before.get(key), now.get(key)) if key != "sources" else "the source files have changed"
            for key in keys
        ]
        sizes = _mapping(found.get("outputs"))
        return texts + [
            f"{name} has been changed since" for name, size in sizes.items() if _other(self.out / name, size)
        ]

    def _same_content(self, before: Any, checksums: Any) -> bool:
        """Return whether the source files differ in their times alone, as those of a copy do."""
        now = list(self.wanted["sources"])
        if not (self.files and isinstance(before, list) and before[-1:] == now[-1:]):
            return False
        names = [[str(source).rsplit(" ", 1)[0] for source in sources] for sources in (before, now)]
        return names[0] == names[1] and checksums == [checksum(file) for file in self.files]

    def begin(self) -> None:
        """Write that outputs may be half written from here on."""
        self._write("begun")

    def finish(self, outputs: Iterable[Path], **more: Any) -> None:
        """Write that all outputs are there."""
        sizes = {
            _name(output, self.out): None if output.suffix == ".html" else output.stat().st_size for output in outputs
        }
        checksums = [checksum(file) for file in self.files]
        self._write("finished", outputs=sizes, checksums=checksums, **more)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Mark the outputs as half written until `finish`; where writing fails and is taken back, so is the mark."""
        before = self.path.read_bytes() if self.path.is_file() else None
        made = not self.path.parent.exists()
        self.begin()
        try:
            yield
        except BaseException:
            if before is not None:
                write_whole(self.path, before)
            else:
                self.path.unlink(missing_ok=True)
                if made:
                    with suppress(OSError):
                        self.path.parent.rmdir()
            raise

    def fail(self, message: str) -> None:
        """Add why the last attempt gave no output; what is said of outputs of earlier ones stays."""
        check_claims(self.out)
        before = self.read() or {"label": self.label, "state": "failed", "wanted": dict(self.wanted)}
        write_whole(self.path, to_json(before | {"message": without_folders(message, [self.out])}))

    def forgive(self) -> None:
        """Take back what `fail` added: the outputs are those that are wanted."""
        content = self.read()
        if content.pop("message", None) is not None:
            write_whole(self.path, to_json(content))

    def _write(self, state: str, **more: Any) -> None:
        check_claims(self.out)
        content = {"label": self.label, "state": state, "wanted": dict(self.wanted), **more}
        write_whole(self.path, to_json(content))


def record_of(files: SeriesFiles, out: Path, estimator: str, settings: Mapping[str, Any]) -> Record:
    """Return the record of a series in OUT.

    Parameters
    ----------
    estimator
        Its name.
    settings
        What was asked for, by name: all that bears on the values. A path stands for its file, with size and time.
    """
    out = Path(out)
    start = files.dataset or out
    metadata = hashlib.sha256(to_json({"sidecars": files.metadata()})).hexdigest()[:16]
    wanted = {
        **{key: _stamp(value, start) if isinstance(value, Path) else value for key, value in settings.items()},
        "estimator": estimator,
        "sources": [
            *(files.origin or (_stamp(source, start) for source in files.sources)),
            *(checksum(source) for source in files.sources if files.origin),  # temporary files, whose time says nothing
            f"sidecars {metadata}",
        ],
    }
    return replace(blank_record(files, out, estimator), wanted=wanted)


def blank_record(files: SeriesFiles, out: Path, estimator: str) -> Record:
    """Return the record of a series whose settings cannot be known, since its sidecars cannot be read."""
    name = "_".join(p for p in (files.stem, files.suffix, estimator) if p)
    lasting = () if files.origin else files.sources
    return Record(Path(out) / FOLDER / f"{name}.json", Path(out), files.label, {}, lasting)


def records(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, content) of every record in OUT, in order of name; those that cannot be read are left out."""
    for path in sorted((Path(out) / FOLDER).glob("*.json")):
        try:
            yield path.stem, read_json(path)
        except InputError:
            continue


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _broken(out: Path, outputs: Any) -> bool:
    """Return whether an output is missing or damaged."""
    sizes = _mapping(outputs)
    if any(Path(size).is_absolute() or ".." in Path(size).parts for size in sizes):
        return True  # no record of ours
    return not sizes or any(not (out / n).is_file() or _damaged(out / n, size) for n, size in sizes.items())


def _damaged(path: Path, size: int | None) -> bool:
    """Return whether a file is cut off or unreadable: not where somebody has put another, whole one in its place."""
    now = path.stat().st_size
    if not now or now == size or size is None:
        return not now
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        elif path.suffix == ".json":
            read_json(path)
    except (OSError, EOFError, zlib.error, InputError):
        return True
    return False


def _other(path: Path, size: int | None) -> bool:
    return size is not None and path.is_file() and path.stat().st_size != size


def checksum(path: Path) -> str:
    """Return the first digits of the SHA-256 of a file.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


def _stamp(path: Path, start: Path) -> str:
    try:
        about = Path(path).stat()
    except OSError as error:
        refuse_broken_link(Path(path))
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    return f"{_name(path, start)} {about.st_size} {about.st_mtime_ns}"


def _change(what: str, before: Any, now: Any) -> str:
    """Return in words how a setting was and is; of a file without its size and time."""

    def told(value: Any) -> str:
        return "not given" if value is None else re.sub(r" \d+ \d+$", "", str(value))

    if told(before) == told(now):
        return f"{what}: {told(now)} has changed"
    return f"{what}: {told(before)}, now {told(now)}"


def _name(path: Path, start: Path) -> str:
    try:
        return absolute(Path(path)).relative_to(absolute(start)).as_posix()
    except ValueError:
        return Path(path).name  # size and time distinguish files of the same name; the folder is private


def _plain(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is wanted as it comes back from a file."""
    plain: dict[str, Any] = json.loads(to_json(wanted))
    return plain
