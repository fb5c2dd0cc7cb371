"""Where the shards of a rebuild are made: in threads, in a pool of processes, or on a Dask or Ray cluster.

`georefine rebuild … --runner threads|processes|dask|ray [--cluster ADDRESS]`. One task per shard, never per caption.
Python is slow at pixels and words, so a task hands its shard to a pool of processes of our own (Prefect's process
runner needs a minute and a half to start). Dask and Ray are for those who outgrow one machine: their workers need the
same georefine, the same folders under the same paths, and a Prefect server that they can reach.
"""

import os
import pickle
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner
from prefect.utilities.annotations import quote

from flows.jobs import ShardJob
from flows.plan import Planned, step_version
from flows.steps import ShardResult, build_shard
from flows.workers import workers
from schemas.errors import GeorefineError, UsageError
from schemas.records import Split

Runner = Literal["threads", "processes", "dask", "ray"]
CLUSTERS = ("dask", "ray")
WORKERS = os.cpu_count() or 1
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
    """
    if runner not in get_args(Runner):
        raise UsageError(f"--runner {runner} is unknown: use one of {', '.join(get_args(Runner))}.")
    if cluster and runner not in CLUSTERS:
        raise UsageError(f"--cluster is for --runner dask or ray, not for {runner}.")
    if runner in CLUSTERS and not find_spec(f"prefect_{runner}"):
        raise UsageError(f"--runner {runner} needs the package prefect-{runner}: pip install 'georefine[{runner}]'.")


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
    return pool.submit(build_shard, job, key).result() if pool else build_shard(job, key)


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
    return build_shard(unpacked, key)


@contextmanager
def _cluster(runner: Runner, address: str | None, number: int) -> Iterator[TaskRunner[Any]]:
    """The cluster's task runner, connected."""
    tasks = _dask(address, number) if runner == "dask" else _ray(address, number)
    try:
        tasks.__enter__()
        if runner == "dask":
            tasks.client  # noqa: B018  (Dask connects when it is first asked for)
    except (OSError, RuntimeError) as error:
        tasks.__exit__(None, None, None)
        raise GeorefineError(
            f"The {runner} cluster {address or 'on this machine'} cannot be used "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}): is it running?"
        ) from error
    try:
        yield tasks
    finally:
        tasks.__exit__(None, None, None)


def _dask(address: str | None, number: int) -> Any:
    runner = import_module("prefect_dask.task_runners").DaskTaskRunner
    if address:
        return runner(address=address)
    # Processes of one thread, because a shard keeps Python busy; no dashboard, whose port may be taken.
    local = {"n_workers": number, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    return runner(cluster_kwargs=local)


def _ray(address: str | None, number: int) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    runner = import_module("prefect_ray.task_runners").RayTaskRunner
    if address:
        return runner(address=address, init_kwargs={"log_to_driver": False})
    return runner(init_kwargs={"num_cpus": number, "include_dashboard": False, "log_to_driver": False})
