"""Memory that is left for this process within its control groups, which hold the limits of a batch job or container."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class _Version(NamedTuple):
    """Where a version of control groups stores its files below the mount point, and their names."""

    folder: str
    limit: str
    usage: str
    reclaimable: str


#: Version 2 mounts one tree, version 1 one for each controller. The file cache counts as usage although it can be
#: reclaimed.
_UNIFIED = _Version("", "memory.max", "memory.current", "inactive_file")
#: File names of version 1 of control groups.
_OF_MEMORY = _Version("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def left_by_control_groups(root: Path = Path("/")) -> list[int]:
    """Return the bytes that each control group with a limit leaves: that of this process, and all above it.

    Parameters
    ----------
    root
        The folder that contains ``proc`` and ``sys``.

    References
    ----------
    cgroups(7) of the Linux manual. A job of SLURM has its limit in ``…/job_N`` and its process in
    ``…/job_N/step_M/task_K``.
    """
    left = []
    for version, path in _memberships(root):
        mount = root / "sys/fs/cgroup" / version.folder
        # In a container the path may be that of the host, which is not visible inside; the mount point is then the
        # group itself.
        inside = mount / path.lstrip("/")
        for folder in (inside, *inside.parents):
            if folder != mount and mount not in folder.parents:
                break
            with suppress(OSError, ValueError):
                most = int((folder / version.limit).read_text())
                used = int((folder / version.usage).read_text()) - _reclaimable(folder, version)
                left.append(max(0, most - used))
    return left


def _memberships(root: Path) -> list[tuple[_Version, str]]:
    """Return version and path of the groups that limit memory, or the root of each version if there is no list of
    groups.
    """
    found = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if number == "0" and not controllers:
                found.append((_UNIFIED, path))
            elif "memory" in controllers.split(","):
                found.append((_OF_MEMORY, path))
    return found or [(_UNIFIED, "/"), (_OF_MEMORY, "/")]


def _reclaimable(folder: Path, version: _Version) -> int:
    with suppress(OSError, IndexError):
        text = (folder / "memory.stat").read_text()
        return int(re.findall(rf"^{version.reclaimable} (\d+)$", text, re.M)[0])
    return 0
