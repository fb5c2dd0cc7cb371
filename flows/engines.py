"""Where the shards of a rebuild are made: in threads, in a pool of processes, or on a Dask or Ray cluster.

`georefine rebuild … --runner threads|processes|dask|ray [--cluster ADDRESS]`. One task per shard, never per caption.
Python is slow at pixels and words, so a task hands its shard to a pool of processes of our own (Prefect's process
runner needs a minute and a half to start). Dask and Ray are for those who outgrow one machine: their workers need the
same georefine, the same folders under the same paths, and a Prefect server that they can reach.
"""

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args
from urllib.parse import urlsplit

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner
from prefect.utilities.annotations import quote

from flows.jobs import ShardJob
from flows.plan import Planned, step_version
from flows.progress import report
from flows.results import ShardResult
from flows.workers import make, workers
from schemas.errors import GeorefineError, UsageError
from schemas.records import Split

Runner = Literal["threads", "processes", "dask", "ray"]
CLUSTERS = ("dask", "ray")
WORKERS = os.cpu_count() or 1
KNOCK_SECONDS = 10.0
CONNECTIONS = 3  # tries: what a Ray head forks for each client now and then dies at once (ray-project/ray issue 63202)
PAUSE_SECONDS = 2.0
HINTS = {
    "dask": "is it a Dask scheduler, of the same version as here?",
    "ray": "is it a Ray head, of the same version as here, and are RAY_AUTH_MODE and RAY_AUTH_TOKEN set as it wants? "
    "From a machine that is no node of it, use ray://HEAD:10001.",
}
Submit = Callable[[Planned], PrefectFuture[ShardResult]]
T = TypeVar("T")


@contextmanager
def engine(runner: Runner, cluster: str | None, shards: int) -> Iterator[Submit]:
    """Yield the function that has a shard made; it returns a future at once. Call it inside of a flow.

    Args:
        runner: where the work is done.
        shards: how many there are to be made; no more processes are started on this machine.
        cluster: address of a Dask scheduler or of a Ray head; None starts a small cluster on this machine.

    Raises:
        UsageError: the runner is unknown, its package is missing, or it takes no cluster.
        GeorefineError: the cluster cannot be reached.
    """
    check(runner, cluster)
    number = min(WORKERS, shards)
    if runner in CLUSTERS:
        with _cluster(runner, cluster, number) as tasks:
            yield lambda shard: _submit(tasks, shard)
    else:
        with workers(number) if runner == "processes" else nullcontext() as pool:
            yield lambda shard: _shard.submit(shard.job.name, opaque(shard.job), shard.key, opaque(pool))


def check(runner: str, cluster: str | None) -> None:
    """Refuse a runner that cannot be used, before any work is done.

    Raises:
        UsageError: the runner is unknown, its package is missing, or it takes no cluster.
        GeorefineError: nobody answers at the cluster's address.
    """
    if runner not in get_args(Runner):
        raise UsageError(f"--runner {runner} is unknown: use one of {', '.join(get_args(Runner))}.")
    if cluster and runner not in CLUSTERS:
        raise UsageError(f"--cluster is for --runner dask or ray, not for {runner}.")
    if runner in CLUSTERS and not find_spec(f"prefect_{runner}"):
        raise UsageError(f"--runner {runner} needs the package prefect-{runner}: pip install 'georefine[{runner}]'.")
    if cluster:
        _knock(runner, cluster)


def _knock(runner: str, address: str) -> None:
    """Find out at once whether anybody listens at an address: the engines' own clients try for half a minute."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number
        host, port = None, None
    if not host or not port or (runner == "dask") != bool(parts.scheme and parts.scheme != "ray"):
        example = "tcp://head:8786" if runner == "dask" else "head:6379, or ray://head:10001 from outside the cluster"
        raise UsageError(f"--cluster {address} is no address for --runner {runner}: give one such as {example}.")
    try:
        socket.create_connection((host, port), KNOCK_SECONDS).close()
    except OSError as error:
        raise GeorefineError(
            f"Nobody answers at {address} ({error.strerror or error}): start the {runner} cluster, or mend --cluster."
        ) from error


def opaque(value: T) -> T:
    """Keep Prefect from walking through an argument in search of futures."""
    return cast(T, quote(value))


def _submit(tasks: TaskRunner[Any], shard: Planned) -> PrefectFuture[ShardResult]:
    parameters = {
        "name": shard.job.name,
        "split": shard.job.split,
        "job": pickle.dumps(shard.job),  # what `opaque` wraps, a cluster's runner would take apart
        "key": shard.key,
        "code": step_version(shard.job.split),
    }
    return cast("PrefectFuture[ShardResult]", tasks.submit(_shard_elsewhere, parameters=parameters))


@task(name="shard", task_run_name="{name}", cache_policy=NO_CACHE)
def _shard(name: str, job: ShardJob, key: str, pool: ProcessPoolExecutor | None) -> ShardResult:
    return pool.submit(make, job, key).result() if pool else make(job, key)


@task(name="shard", task_run_name="{name}", cache_policy=NO_CACHE)
def _shard_elsewhere(name: str, split: Split, job: bytes, key: str, code: str) -> ShardResult:
    """Make a pickled shard on a machine that may be another one: only with the same code and the same folders.

    Raises:
        GeorefineError: they are not the same.
    """
    if step_version(split) != code:
        raise GeorefineError(
            f"The worker on {socket.gethostname()} has another version of georefine or of a library than the machine "
            "that planned the rebuild: install the same on both, from requirements.lock."
        )
    unpacked: ShardJob = pickle.loads(job)
    for folder in (unpacked.source, unpacked.work):
        if not Path(folder).is_dir():
            raise GeorefineError(
                f"The worker on {socket.gethostname()} does not see {folder}: all machines of the cluster need the "
                "source and the data set under the same paths."
            )
    return make(unpacked, key)


@contextmanager
def _cluster(runner: Runner, address: str | None, number: int) -> Iterator[TaskRunner[Any]]:
    """The cluster's task runner, connected."""
    with ExitStack() as stack:
        yield _connect(runner, address, number, stack)


def _connect(runner: Runner, address: str | None, number: int, stack: ExitStack) -> TaskRunner[Any]:
    tried = 0
    while True:
        tasks = _dask(address, number) if runner == "dask" else _ray(address, number)
        try:
            stack.enter_context(tasks)
            if runner == "dask":
                tasks.client  # noqa: B018  (Dask connects when it is first asked for)
        except Exception as error:  # each engine has errors of its own
            tried += 1
            said = f"The {runner} cluster {address or 'on this machine'} cannot be used ({_gist(error)})"
            # Nobody answers: both clients tried for long. Aborted is what Ray calls it when that process died.
            unanswered = isinstance(error, OSError) and not isinstance(error, ConnectionAbortedError)
            if tried == CONNECTIONS or unanswered:
                raise GeorefineError(f"{said}: {HINTS[runner]}") from error
            report("connections", tried, CONNECTIONS, f"{said}: trying again")
            time.sleep(PAUSE_SECONDS)
        else:
            return cast(TaskRunner[Any], tasks)


def _gist(error: Exception) -> str:
    """What went wrong, in one line; Ray's errors hold tracebacks of the other side, whose last line says it."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    return (said[-1] if said[0].endswith(":") else said[0]).rstrip(".")


def _dask(address: str | None, number: int) -> Any:
    runner = import_module("prefect_dask.task_runners").DaskTaskRunner
    if address:
        return runner(address=address)
    # Processes of one thread, because a shard keeps Python busy; no dashboard, whose port may be taken.
    local = {"n_workers": number, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    return runner(cluster_kwargs=local)


def _ray(address: str | None, number: int) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # else it warns every second on our terminal
    runner = import_module("prefect_ray.task_runners").RayTaskRunner
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        return runner(address=address, init_kwargs=quiet)
    return runner(init_kwargs=quiet | {"num_cpus": number, "include_dashboard": False})
