"""A Dask cluster that rimap starts runs work for its owner alone."""

from __future__ import annotations

import pytest

from rimap.errors import InputError
from rimap.parallel.cluster import ClusterOptions, _is_open, dask_workers, slurm_options

distributed = pytest.importorskip("distributed")


def double(x: int) -> int:
    return 2 * x


@pytest.mark.filterwarnings("ignore")  # of Dask, about ports
def test_a_stranger_cannot_talk_to_a_local_cluster() -> None:
    with dask_workers(kind="local", n=1) as workers:
        assert workers.executor.submit(double, 21).result(timeout=60) == 42
        address = workers.executor._client.scheduler.address  # type: ignore[attr-defined]
        assert address.startswith("tls://127.0.0.1:")
        for other in (address.replace("tls://", "tcp://"), address):
            with pytest.raises((OSError, TypeError, ValueError)):
                distributed.Client(other, timeout=2, set_as_default=False)


def test_the_pages_of_jobs_are_served_to_their_own_node_alone() -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    options = slurm_options(ClusterOptions(cores=2))
    assert options["scheduler_options"]["dashboard_address"] == "127.0.0.1:0"
    with jobqueue.SLURMCluster(**options) as cluster:
        assert "--dashboard-address 127.0.0.1:0 --no-dashboard" in cluster.job_script()


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("tcp://10.0.0.3:8786", True),
        ("node7:8786", True),
        ("tcp://0.0.0.0:8786", True),
        ("tls://10.0.0.3:8786", False),
        ("tcp://127.0.0.1:8786", False),
        ("localhost:8786", False),
    ],
)
def test_a_scheduler_without_tls_on_a_network_is_open(address: str, is_open: bool) -> None:
    assert _is_open(address) == is_open


def test_an_open_scheduler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rimap.parallel.cluster._CONNECT", 0.5)
    said: list[str] = []
    with (
        pytest.raises(InputError, match="no Dask scheduler answers"),
        dask_workers(scheduler="tcp://192.0.2.1:1", say=said.append),
    ):
        pass
    assert said and "whoever reaches its port can run code as its owner" in said[0]
