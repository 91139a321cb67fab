"""Motion is looked for beside the estimation, and nothing of it is lost."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from rimap import InversionRecovery, WeightedSeries
from rimap.workflow import alignment

SERIES = WeightedSeries(np.ones((4, 8, 8)), InversionRecovery(tau=[50.0, 400.0, 1100.0, 2500.0]))


@pytest.mark.parametrize(("threads", "align", "beside"), [(1, False, False), (2, False, True), (2, True, False)])
def test_motion_is_looked_for_in_another_thread_only_if_the_maps_do_not_need_it(
    threads: int, align: bool, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[threading.Thread] = []

    def look(series: WeightedSeries, **options: Any) -> tuple[WeightedSeries, dict[str, Any]]:
        where.append(threading.current_thread())
        return series, {"options": options}

    monkeypatch.setattr(alignment, "in_register", look)
    found = alignment.looked_at(SERIES, align=align, threads=threads)
    assert found()[0] is SERIES and found()[1] == {"options": {"align": align, "threads": 1 if beside else threads}}
    assert len(where) == 1 and (where[0] is not threading.main_thread()) is beside


def test_an_error_in_the_other_thread_is_raised_where_its_result_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(series: WeightedSeries, **options: Any) -> Any:
        raise ZeroDivisionError("of the other thread")

    monkeypatch.setattr(alignment, "in_register", fails)
    found = alignment.looked_at(SERIES, align=False, threads=2)
    with pytest.raises(ZeroDivisionError, match="of the other thread"):
        found()
