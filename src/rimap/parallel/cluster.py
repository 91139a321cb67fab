"""Workers on other machines: a Dask cluster that is there, or jobs of SLURM that make one."""

from __future__ import annotations

import contextlib
import difflib
import logging
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import rimap
from rimap.errors import InputError
from rimap.io.unreadable_formats import refuse_device

#: What `--cluster` takes.
KINDS = ("local", "slurm")
#: Where the web pages of Dask are served, at any free port.
_PAGES = "127.0.0.1:0"
#: Hosts that other machines do not reach.
_THIS_MACHINE = ("127.", "localhost", "[::1]")
#: Seconds to wait for the scheduler that the user names.
_CONNECT = 15.0


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """What a job is to be, from a TOML file; the names are those of dask-jobqueue.

    Parameters
    ----------
    jobs
        How many jobs are to run at once; one that ends before the work does is replaced.
    cores, memory
        Of a job: ``8``, ``"32GB"``.
    processes
        Workers in a job, each doing one series at a time; one for each core if left out.
    walltime
        ``"04:00:00"``. A job that it ends costs the time of what it was doing.
    queue, account
        Where the jobs go, and on whose budget.
    interface
        Network interface over which scheduler and workers talk, ``"ib0"``.
    job_extra_directives
        More lines for SLURM: ``["--exclusive"]``.
    job_script_prologue
        Lines of shell before the worker starts: ``["module load apptainer"]``.
    python
        What starts a worker; the Python of this process if left out.
    local_directory, log_directory
        For what Dask spills, and for the logs of the jobs.
    """

    jobs: int = 1
    cores: int = 1
    memory: str = "4GB"
    processes: int | None = None
    walltime: str = "01:00:00"
    queue: str | None = None
    account: str | None = None
    interface: str | None = None
    job_extra_directives: tuple[str, ...] = ()
    job_script_prologue: tuple[str, ...] = ()
    python: str | None = None
    local_directory: str | None = None
    log_directory: str | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "cores", "processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} of the cluster: expected a number of 1 or more, got {value}.")


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Parameters
    ----------
    executor
        Takes it.
    slots
        How many pieces at once: now, or when all jobs that were asked for run.
    """

    executor: Executor
    slots: int


def read_options(path: Path | str) -> ClusterOptions:
    """Return the options of a TOML file.

    Raises
    ------
    InputError
        For a file that cannot be read, an unknown key (naming the nearest valid one), or a value of the wrong kind.
    """
    refuse_device(Path(path))
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None
    kinds = get_type_hints(ClusterOptions)
    valid = [field.name for field in fields(ClusterOptions)]
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in valid:
            near = difflib.get_close_matches(key, valid, 1, 0.0)[0]
            raise InputError(f"{path}: unknown key {key!r}. The nearest valid one is {near!r}.")
        wanted = kinds[key]
        if wanted == tuple[str, ...]:
            fits, title = isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of texts"
        elif wanted in (int, int | None):
            fits, title = isinstance(value, int) and not isinstance(value, bool), "a whole number"
        else:
            fits, title = isinstance(value, str), "a text"
        if not fits:
            raise InputError(f"{path}: {key}: expected {title}, got {value!r}.")
        values[key] = tuple(value) if isinstance(value, list) else value
    return ClusterOptions(**values)


def slurm_options(options: ClusterOptions) -> dict[str, Any]:
    """Return what `dask_jobqueue.SLURMCluster` is given; what is left out it takes from Dask's own configuration."""
    given = {key: value for key, value in asdict(options).items() if value not in (None, ()) and key != "jobs"}
    for name in ("job_extra_directives", "job_script_prologue"):
        if name in given:
            given[name] = list(given[name])
    given.setdefault("processes", options.cores)
    # The pages of Dask ask nobody who they are: they are served to this machine, and on a node to that node, alone.
    return given | {
        "job_name": "rimap",
        "scheduler_options": {"dashboard": False, "dashboard_address": _PAGES},
        "worker_extra_args": ["--dashboard-address", _PAGES, "--no-dashboard"],
    }


@contextlib.contextmanager
def dask_workers(
    *,
    scheduler: str | None = None,
    kind: str | None = None,
    options: ClusterOptions | None = None,
    n: int = 1,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Workers]:
    """Open the workers of a Dask cluster, and close what was opened.

    Parameters
    ----------
    scheduler
        Address of one that runs already, ``tcp://host:8786``.
    kind
        Else ``local`` (`n` processes of this machine) or ``slurm`` (jobs with `options`).
    folder
        For what Dask spills, and for the keys of jobs, if the options name none. The jobs must be able to read it.
    say
        Called with a text on what is being waited for.

    Raises
    ------
    InputError
        If Dask is not installed, no scheduler answers, or the workers have another rimap than this process.

    Notes
    -----
    Whoever can talk to a Dask scheduler can run code as its owner. The clusters that are started here therefore talk
    over TLS with keys made for this run alone. A scheduler that you name is protected as you set it up.
    """
    try:
        import dask
        import distributed
    except ImportError:
        raise InputError('a cluster needs the extra of that name: pip install "rimap[cluster]".') from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is lost is said once, by us
    quiet = {"distributed.admin.low-level-log-length": 100, "distributed.logging.distributed": "critical"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(quiet))
        address: Any = scheduler
        if scheduler is not None and _is_open(scheduler):
            say(
                f"the scheduler at {scheduler} does not encrypt: whoever reaches its port can run code as its owner. "
                f"Use tls:// on a network that others share"
            )
        keys = None if scheduler is not None else _keys_of_this_run()
        if scheduler is None:
            address = stack.enter_context(_cluster(kind or "local", options or ClusterOptions(), n, folder, keys))
        try:
            client = stack.enter_context(
                distributed.Client(address, timeout=_CONNECT, set_as_default=False, security=keys)
            )
        except (OSError, TimeoutError, ValueError) as error:
            why = " ".join(str(error).split())[:160]
            raise InputError(f"--scheduler {scheduler}: no Dask scheduler answers there ({why}).") from None
        if not client.ncores():
            say("waiting for the first worker")
            client.wait_for_workers(1)
        _check_versions(client)
        planned = options.jobs * (options.processes or options.cores) if kind == "slurm" and options else 1
        yield Workers(client.get_executor(pure=False), max(planned, sum(client.ncores().values())))


def _is_open(address: str) -> bool:
    """Return whether a scheduler talks to other machines without TLS."""
    protocol, separator, host = address.rpartition("://")
    return (protocol if separator else "tcp") not in ("tls", "wss") and not host.startswith(_THIS_MACHINE)


def _keys_of_this_run() -> Any:
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError:
        raise InputError(
            'a cluster needs the package cryptography for its keys: pip install "rimap[cluster]".'
        ) from None


@contextlib.contextmanager
def _cluster(kind: str, options: ClusterOptions, n: int, folder: Path | None, keys: Any) -> Iterator[Any]:
    if kind == "slurm":
        from dask_jobqueue import SLURMCluster

        if folder is not None and options.local_directory is None:
            options = ClusterOptions(**asdict(options) | {"local_directory": str(folder)})
        shared = options.local_directory or str(Path.cwd())
        with SLURMCluster(**slurm_options(options), security=keys, shared_temp_directory=shared) as cluster:
            cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)
            yield cluster
        return
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=n,
        threads_per_worker=1,
        memory_limit=1.0 / n,
        processes=True,
        host="127.0.0.1",
        dashboard_address=_PAGES,
        local_directory=None if folder is None else str(folder),
        silence_logs=logging.CRITICAL,
        protocol="tls",
        security=keys,
    ) as cluster:
        yield cluster


def _check_versions(client: Any) -> None:
    try:
        found = client.run(_version)
    except Exception as error:
        raise InputError(
            f"the workers cannot run rimap ({' '.join(str(error).split())[:160]}). Install rimap there."
        ) from None
    others = sorted({v for v in found.values() if v != rimap.__version__})
    if others:
        raise InputError(
            f"expected rimap {rimap.__version__} on every worker, got {', '.join(others)}. Install the same version."
        )


def _version() -> str:
    return rimap.__version__
