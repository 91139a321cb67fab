"""Pieces of work on processes and on a Dask cluster: what is killed costs time, not results."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rimap
from rimap.errors import InputError
from rimap.parallel import Cuttable, Processes, ProcessLost, cut, estimate
from rimap.parallel.slabs import boundaries


def series(shape=(10, 8, 6), noise=None, mask=None):
    """An inversion-recovery series with noise."""
    rng = np.random.default_rng(0)
    model = rimap.InversionRecovery(tau=(50, 400, 900, 1500, 2500), tr=6000.0)
    T1 = np.linspace(600, 2000, int(np.prod(shape))).reshape(shape)
    signal_ = model.signal(np.stack([np.full(shape, 100.0), np.full(shape, 1.9), T1]))
    images = abs(signal_ + 2 * rng.standard_normal(signal_.shape)).astype(np.float32)
    return rimap.WeightedSeries(images, model, noise=noise, mask=mask)


def assert_same(a, b):
    for name in ("kappa", "sd_kappa", "residual", "status"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.warnings == b.warnings and a.settings == b.settings and a.sigma_source == b.sigma_source
    assert a.noise.sigma == pytest.approx(b.noise.sigma, rel=0, abs=0)


def odd_series():
    """A series with empty planes, a mask that leaves planes out, and voxels that are not finite."""
    s = series()
    images, mask = s.images.copy(), np.ones(s.shape, bool)
    images[..., 0], images[:, 2, 2, 4], mask[..., 5] = 0, np.nan, False
    return replace(s, images=images, mask=mask)


@pytest.mark.parametrize("pieces", [1, 2, 4, 100])
@pytest.mark.parametrize("make", [series, odd_series])
def test_slabs_give_the_maps_of_the_whole_to_the_bit(make, pieces):
    whole = rimap.NLLS(threads=1).estimate(make())
    with ThreadPoolExecutor(2) as executor:
        assert_same(estimate(rimap.NLLS(threads=1), make(), executor, pieces), whole)


def test_a_map_of_sigma_is_cut_with_the_images():
    sigma = np.linspace(1, 3, 480).reshape(10, 8, 6)
    s = series(noise=rimap.Rician(sigma=sigma))
    np.testing.assert_array_equal(cut(s, 2, 5).noise.sigma, sigma[..., 2:5])
    whole = rimap.NLLS(threads=1).estimate(s)
    with ThreadPoolExecutor(2) as executor:
        cut_maps = estimate(rimap.NLLS(threads=1), s, executor, 3)
    np.testing.assert_array_equal(cut_maps.sd_kappa, whole.sd_kappa)


def test_every_slab_has_something_in_it():
    assert list(boundaries(odd_series(), 6)) == [0, 2, 3, 4, 6]
    assert list(boundaries(series(), 3)) == [0, 2, 4, 6]


def test_what_is_solved_whole_is_not_cut():
    assert isinstance(rimap.NLLS(), Cuttable)
    assert not isinstance(rimap.MLE(), Cuttable)


def test_an_error_in_a_slab_is_the_error_of_the_whole():
    class Refuses(rimap.NLLS):
        def piece(self, series, *, progress=None):
            raise InputError("no")

    with ThreadPoolExecutor(2) as executor, pytest.raises(InputError, match="no"):
        estimate(Refuses(), series(), executor, 3)


def square(x):
    return x * x


def environment():
    return os.environ["OMP_NUM_THREADS"], os.getpid()


def dies_once(mark, x):
    """Kill this process the first time."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def dies(x):
    os.kill(os.getpid(), signal.SIGKILL)


def slow(folder, x):
    (folder / f"{os.getpid()}").touch()
    time.sleep(0.3)
    return x


def fails():
    raise InputError("this series")


def test_processes_that_are_killed_cost_time_and_no_results(tmp_path):
    before = os.environ.get("OMP_NUM_THREADS")
    with Processes(2, threads=3) as pool:
        good = [pool.submit(square, x) for x in range(20)]
        once = pool.submit(dies_once, tmp_path / "mark", "here")
        lost = pool.submit(dies, 1)
        refused = pool.submit(fails)
        after = [pool.submit(square, x) for x in range(20)]
        threads, pid = pool.submit(environment).result()
    assert [f.result() for f in (*good, *after)] == [x * x for x in range(20)] * 2
    assert once.result() == "here"
    assert isinstance(lost.exception(), ProcessLost)
    with pytest.raises(InputError, match="this series"):
        refused.result()
    assert threads == "3" and pid != os.getpid() and os.environ.get("OMP_NUM_THREADS") == before


def test_processes_end_at_once_when_told_to(tmp_path):
    pool = Processes(2)
    futures = [pool.submit(slow, tmp_path, x) for x in range(50)]
    deadline = time.monotonic() + 20
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pool.kill()
    assert sum(not f.cancelled() for f in futures) < 10  # it does not wait for those that are left
    wait_until_gone([int(p.name) for p in tmp_path.iterdir()])


def test_processes_end_with_the_one_that_started_them(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from rimap.parallel import Processes\n"
        "import until_killed\n"
        "if __name__ == '__main__':\n"
        "    pool = Processes(1); pool.submit(until_killed.work, sys.argv[1]).result()\n"
    )
    (tmp_path / "until_killed.py").write_text(
        "import os, time\ndef work(folder):\n    open(f'{folder}/pid', 'w').write(str(os.getpid()))\n    "
        "time.sleep(60)\n"
    )
    (tmp_path / "main.py").write_text(code)
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py", tmp_path, tmp_path])
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    wait_until_gone([int((tmp_path / "pid").read_text())])


def wait_until_gone(pids):
    deadline = time.monotonic() + 10
    while left := [p for p in pids if alive(p)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
