"""The rebuild as a Prefect flow: read the source, make every shard, publish a version.

`georefine rebuild SOURCE --out DATASET`. One task per shard, never per caption. Python is slow at pixels and words, so
a task hands its shard to a pool of processes of our own (Prefect's process runner needs a minute and a half to start).
"""

import hashlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from data.partition import PARTS
from data.readers import Source, read_source
from data.shards import write_table
from data.versions import Published, lock, publish, tables
from flows.progress import report
from flows.steps import (
    ShardJob,
    ShardResult,
    build_shard,
    deal,
    rejects_table,
    total_accounts,
    total_counts,
    total_gates,
)
from schemas import __version__
from schemas.config import Config, build, config_dict
from schemas.errors import UsageError
from schemas.manifest import FORMAT_VERSION, Manifest, Shard

Runner = Literal["threads", "processes"]
WORKERS = os.cpu_count() or 1
TASKS = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=WORKERS))
T = TypeVar("T")


def _end_with_parent() -> None:
    """Let a pool's process end, without a word, when the rebuild is interrupted or killed.

    Left alone it would print a traceback, or wait for work for ever and hold our output open.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _opaque(value: T) -> T:
    """Keep Prefect from walking through an argument in search of futures."""
    return cast(T, quote(value))


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes started inside ignore Ctrl-C until they are up: they import for seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _pool(runner: Runner) -> Iterator[ProcessPoolExecutor | None]:
    if runner == "threads":
        yield None
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(WORKERS, mp_context=context, initializer=_end_with_parent)
    try:
        with _without_interrupts():
            for _ in range(WORKERS):
                pool.submit(os.getpid)  # a process is started for each while none is idle
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@task(name="read source", cache_policy=NO_CACHE)
def _read(source: str, config: Config) -> Source:
    return read_source(Path(source), config.partition)


@task(name="shard", task_run_name="{name}", cache_policy=NO_CACHE)
def _shard(name: str, job: ShardJob, pool: ProcessPoolExecutor | None) -> ShardResult:
    return pool.submit(build_shard, job).result() if pool else build_shard(job)


@task(name="publish", cache_policy=NO_CACHE)
def _publish(out: str, source: Source, results: list[ShardResult], config: Config) -> dict[str, Any]:
    dataset = Path(out)
    files = {shard.path: Path(r.folder) / f"{table}.parquet" for r in results for table, shard in r.files.items()}
    shards = [shard for r in results for shard in r.files.values()]
    rejects = rejects_table([*source.rejects, *(reject for r in results for reject in r.rejects)])
    path = "rejects/part-00000.parquet"
    files[path] = dataset / ".work" / "rejects.parquet"
    written = write_table(files[path], rejects)
    shards.append(Shard(path, "rejects", None, None, written.rows, written.bytes, written.sha256))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        version="",
        code_version=__version__,
        source=_fingerprint(source),
        config=config_dict(config),
        shards=tuple(sorted(shards, key=lambda s: s.path)),
        accounts=total_accounts(source, results),
        counts=total_counts(results),
        gates=total_gates(results),
        notes=(*source.notes, *(note for r in results for note in r.notes)),
    )
    published = publish(dataset, files, manifest)
    create_markdown_artifact(summary(published), key="rebuild-summary", description=str(dataset))
    return {
        "version": published.version.path.name,
        "new": published.new,
        "dataset": str(dataset),
        "shards": len(results),
        "reused": sum(r.reused for r in results),
        "accounts": {table: vars(account) for table, account in manifest.accounts.items()},
        "counts": manifest.counts,
        "gates": manifest.gates,
        "ignored": dict(source.ignored),
        "notes": list(manifest.notes),
    }


def _fingerprint(source: Source) -> dict[str, Any]:
    """Names and sizes of the files and the rows that were read; the shards' checksums speak for the contents."""
    digest = hashlib.sha256()
    for record in (*source.images, *source.captions, *source.regions, *source.rejects):
        digest.update(repr(record).encode("utf-8", "backslashreplace"))
    return {
        "sha256": digest.hexdigest(),
        "files": source.read["images"],
        "bytes": sum(image.bytes for image in source.images),
        "ignored": dict(source.ignored),
    }


def summary(published: Published) -> str:
    """What a version holds, as the Markdown of an artifact."""
    manifest = published.version.manifest
    what = "published" if published.new else "nothing changed, still"
    return "\n".join([f"# {what} {manifest.version}", "", *tables(manifest), "", *(f"- {n}" for n in manifest.notes)])


@flow(
    name="rebuild",
    flow_run_name="rebuild {out}",
    task_runner=TASKS,
    validate_parameters=False,
)
def rebuild(
    source: str,
    out: str,
    config: dict[str, Any] | None = None,
    runner: Runner = "processes",
    train_run: str | None = None,
) -> dict[str, Any]:
    """Turn a University-1652 / GeoText-1652 folder into a new version of a data set.

    Args:
        source: the folder with train/ and test/.
        out: the data set; a version vNNNN is added when something changed.
        config: nested mapping of schemas.config.Config.
        runner: where shards are made: in a pool of processes, or in threads of this one.
        train_run: if given and a new version was made, train into a folder of its name in there afterwards.

    Returns:
        version, new, shards, reused, accounts, counts, gates, ignored, notes (and train: the scores).
    """
    settings = build(Config, config or {})
    dataset = Path(out).resolve()
    if any(dataset.is_relative_to(Path(source).resolve() / part) for part in PARTS):
        raise UsageError(f"{out} lies among the images of {source}: choose a folder outside its train/ and test/.")
    with lock(dataset):
        report("read source", 0, 1, source)
        found = _read(str(Path(source).resolve()), settings)
        report("read source", 1, 1, ", ".join(f"{n} {table}" for table, n in found.read.items()))
        jobs = deal(found, Path(source).resolve(), dataset / ".work", settings)
        results: dict[str, ShardResult] = {}
        with _pool(runner) as pool:
            futures = [_shard.submit(job.name, _opaque(job), _opaque(pool)) for job in jobs]
            for done, future in enumerate(as_completed(futures), 1):
                made = future.result()
                results[made.name] = made
                report("shards", done, len(jobs), f"{made.name}{' (reused)' if made.reused else ''}")
        result: dict[str, Any] = _publish(
            str(dataset), _opaque(found), _opaque([results[name] for name in sorted(results)]), settings
        )
    if train_run and result["new"]:
        from flows.train import train

        result["train"] = train(str(dataset), str(Path(train_run) / result["version"]), config)
    return result
