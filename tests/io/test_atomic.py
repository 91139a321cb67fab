"""All files appear, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from rimap.errors import InputError
from rimap.io import write_whole
from rimap.io.atomic import write_together


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_are_written_and_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "x.txt", "one")
    write_together({tmp_path / "a/b/x.txt": b"two", tmp_path / "a/y.txt": lambda: b"three"})
    assert everything(tmp_path) == {"a/b/x.txt": b"two", "a/y.txt": b"three"}
    write_together({tmp_path / "a/z.txt": b"four"}, remove=[tmp_path / "a/y.txt", tmp_path / "a/none"])
    assert everything(tmp_path) == {"a/b/x.txt": b"two", "a/z.txt": b"four"}


@pytest.mark.parametrize("threads", [1, 3])
def test_files_written_at_the_same_time_are_the_same(tmp_path: Path, threads: int) -> None:
    files = {tmp_path / f"{n % 3}/{n}.bin": lambda n=n: (bytes([n, i]) for i in range(n)) for n in range(12)}
    write_together(files, threads=threads)
    assert everything(tmp_path) == {f"{n % 3}/{n}.bin": bytes(b for i in range(n) for b in (n, i)) for n in range(12)}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_an_error_while_content_is_made_leaves_nothing(
    tmp_path: Path, error: type[BaseException], threads: int
) -> None:
    write_whole(tmp_path / "old", "old")

    def fail() -> bytes:
        raise error

    with pytest.raises(error):
        write_together(
            {tmp_path / "old": b"new", tmp_path / "new/deep/x": b"x", tmp_path / "new/y": fail}, threads=threads
        )
    assert everything(tmp_path) == {"old": b"old"}
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("at", range(3))
def test_an_error_while_files_get_their_names_restores_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    names = ["a", "b", "new/c"]
    write_whole(tmp_path / "a", "old a")
    write_whole(tmp_path / "stale", "old stale")
    rename, calls = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            calls.append(target)
            if len(calls) == at + 1:
                raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(InputError, match=r"No space left.*Nothing was written"):
        write_together({tmp_path / n: b"new" for n in names}, remove=[tmp_path / "stale"])
    assert everything(tmp_path) == {"a": b"old a", "stale": b"old stale"}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        write_whole(tmp_path / "file" / "x", "x")
