"""A Dask cluster that rimap starts runs work for its owner alone."""

from __future__ import annotations

import pytest

from rimap.parallel.cluster import dask_workers

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
