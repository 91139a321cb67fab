"""The memory that a batch job or a container may take."""

from __future__ import annotations

from pathlib import Path

from rimap.workflow.memory_limits import left_by_control_groups

MIB = 1 << 20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_limit_of_a_job_is_above_the_group_of_its_process(tmp_path: Path) -> None:
    """SLURM: the job has the limit, the step has none ("max")."""
    job = "sys/fs/cgroup/system.slice/job_7"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/job_7/step_0/task_0\n",
            f"{job}/memory.max": f"{1000 * MIB}\n",
            f"{job}/memory.current": f"{300 * MIB}\n",
            f"{job}/memory.stat": f"anon 5\ninactive_file {100 * MIB}\n",
            f"{job}/step_0/memory.max": "max\n",
            f"{job}/step_0/memory.current": f"{300 * MIB}\n",
        },
    )
    assert left_by_control_groups(root) == [800 * MIB]


def test_a_container_whose_path_is_that_of_the_host(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/docker/abc\n",
            "sys/fs/cgroup/memory.max": f"{512 * MIB}",
            "sys/fs/cgroup/memory.current": f"{600 * MIB}",
        },
    )
    assert left_by_control_groups(root) == [0]


def test_groups_of_version_1(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/slurm/uid_1/job_2"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "12:cpuset:/\n4:memory:/slurm/uid_1/job_2\n0::/init.scope\n",
            f"{group}/memory.limit_in_bytes": f"{64 * MIB}",
            f"{group}/memory.usage_in_bytes": f"{4 * MIB}",
        },
    )
    assert left_by_control_groups(root) == [60 * MIB]


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert left_by_control_groups(tmp_path) == []
