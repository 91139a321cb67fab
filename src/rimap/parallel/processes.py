"""A pool of processes that outlives the death of one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: What the libraries read, when they are imported, of how many threads to use.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class ProcessLost(RuntimeError):
    """The process that did a piece of work was killed, and again when it had the machine to itself."""


@dataclass(eq=False)
class _Job:
    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    alone: bool = False


class Processes(Executor):
    """A pool of `n` processes, started afresh (spawn).

    What was being done when a process was killed (by a person, or by the system for want of memory) is done again when
    all else is done, one piece at a time, with the machine to itself; a piece whose process is killed once more ends as
    `ProcessLost`. The processes end with this one, however it ends.

    Parameters
    ----------
    n
        How many.
    threads
        For the numerical libraries inside each, so that the cores are not shared out twice.
    prepare
        What each process does first: a function that can be pickled.
    """

    def __init__(self, n: int, *, threads: int = 1, prepare: Callable[[], object] | None = None) -> None:
        self._n, self._threads, self._prepare = n, threads, prepare
        self._lock = threading.RLock()
        self._waiting: deque[_Job] = deque()
        self._suspects: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._idle = threading.Condition(self._lock)
        self._closed = self._killed = False
        self._pool = self._new()

    @property
    def size(self) -> int:
        """How many processes."""
        return self._n

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return the future of ``fn(*args, **kwargs)``."""
        job = _Job(partial(fn, *args, **kwargs))
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot submit after shutdown")
            self._waiting.append(job)
            self._start()
        return job.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes once their work is done; with `cancel_futures`, what has not begun is left out."""
        with self._lock:
            self._closed = True
            for queue in (self._waiting, self._suspects):
                while cancel_futures and queue:
                    queue.pop().future.cancel()
            while wait and self._busy():
                self._idle.wait()
            if not self._busy():
                self._pool.shutdown(wait=False)

    def kill(self) -> None:
        """End the processes at once, whatever they do."""
        with self._lock:
            self._killed = True
            processes = list((self._pool._processes or {}).values())
        for process in processes:
            process.kill()
        self.shutdown(wait=False, cancel_futures=True)

    def _busy(self) -> bool:
        return bool(self._waiting or self._suspects or self._running)

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._n, multiprocessing.get_context("spawn"), _begin, (self._prepare,))

    def _start(self) -> None:
        """Give work to the processes that have none. Hold the lock."""
        while len(self._running) < self._n and not any(job.alone for job in self._running):
            if self._waiting:
                job = self._waiting.popleft()
            elif self._suspects and not self._running:
                job = self._suspects.popleft()
                job.alone = True
            else:
                break
            if not job.future.running() and not job.future.set_running_or_notify_cancel():
                continue
            self._running.add(job)
            with _environment(self._threads):  # a process is started when there is work for it
                try:
                    inner = self._pool.submit(job.work)
                except BrokenProcessPool:
                    self._pool = self._new()
                    inner = self._pool.submit(job.work)
            inner.add_done_callback(partial(self._done, job, self._pool))

    def _done(self, job: _Job, pool: ProcessPoolExecutor, inner: Future[Any]) -> None:
        error = inner.exception()
        broken = isinstance(error, BrokenProcessPool)
        with self._lock:
            self._running.discard(job)
            again = broken and not job.alone and not self._killed
            if again:
                self._suspects.append(job)
            if broken and pool is self._pool and not self._killed:
                self._pool = self._new()
            self._start()
            if self._closed and not self._busy():
                self._pool.shutdown(wait=False)
            self._idle.notify_all()
        if again:
            return
        if broken:
            job.future.set_exception(ProcessLost("its process was killed, and again when it ran alone: out of memory?"))
        elif error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(inner.result())


def _begin(prepare: Callable[[], object] | None) -> None:
    """Leave Ctrl-C to the process that started this one, and end when that one ends; then prepare for work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if prepare is not None:
        prepare()


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
