"""The rebuild as a Prefect flow: read the source, make every shard, publish a version.

`georefine rebuild SOURCE --out DATASET`. Where the shards are made is flows/engines.py's.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.urls import url_for

from data.hashes import Hashes, remembered
from data.partition import PARTS
from data.readers import Source, is_utf8, printable, read_source
from data.remote import Remote
from data.shards import open_version
from data.spill import SPILL, Spill, spilled
from data.stores import is_url, local_source
from data.versions import WORK, Published, check_space, clean, lock, prune, publish, tables
from flows.engines import WORKERS, Runner, check, engine, opaque
from flows.jobs import ShardJob, deal, decided
from flows.plan import Plan, Planned, lines, plan, remember, step_version
from flows.progress import report
from flows.results import ShardResult
from flows.totals import (
    decision_notes,
    total_accounts,
    total_counts,
    total_decisions,
    total_gates,
    write_rejects,
)
from refine.server import Model, model_of
from review.decisions import REVIEWS, standing_decisions
from schemas import __version__
from schemas.config import Config, build, config_dict
from schemas.errors import SourceError, UsageError
from schemas.manifest import FORMAT_VERSION, Manifest, Shard

UNTRAINED = "untrained"  # lies in .work while a version that was asked to be trained on may be published and is not
HELD_BACK = "Until every annotation file can be read, no older version is removed and no training is begun."
TASKS = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=WORKERS))


@task(name="read source", cache_policy=NO_CACHE)
def _read(source: str, config: Config, spill: Spill) -> Source:
    return read_source(Path(source), config.partition, spill)


@task(name="refine", cache_policy=NO_CACHE)
def _refine(
    jobs: list[ShardJob], model: Model, config: Config, work: Path, only_stored: bool
) -> tuple[list[ShardJob], dict[str, Any]]:
    from flows.refining import answered

    return answered(jobs, model, config, work, step_version("train"), report, only_stored=only_stored)


@task(name="publish", cache_policy=NO_CACHE)
def _publish(
    out: str, source: Source, results: list[ShardResult], config: Config, unknown: tuple[str, ...], hashes: Hashes
) -> dict[str, Any]:
    dataset = Path(out)
    decisions = total_decisions(results, unknown)
    files = {shard.path: Path(r.folder) / f"{table}.parquet" for r in results for table, shard in r.files.items()}
    shards = [shard for r in results for shard in r.files.values()]
    path = "rejects/part-00000.parquet"
    files[path] = dataset / ".work" / "rejects.parquet"
    written = write_rejects(files[path], source, results)
    shards.append(Shard(path, "rejects", None, None, written.rows, written.bytes, written.sha256))
    accounts = total_accounts(source, results)
    if not accounts["images"].written:
        first = next(r for r in source.spill.every_reject() if r.table == "images")
        raise SourceError(
            f"Not one of the {accounts['images'].read:,} images of the source can be used ({first.source}: "
            f"{first.reason}, …): nothing was published. Mend the source and rebuild."
        )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        version="",
        code_version=__version__,
        source=source.fingerprint,
        config=config_dict(config),
        shards=tuple(sorted(shards, key=lambda s: s.path)),
        accounts=accounts,
        counts=total_counts(results),
        gates=total_gates(results),
        notes=(
            *source.notes,
            *([HELD_BACK] if source.unread else []),
            *(note for r in results for note in r.notes),
            *decision_notes(decisions),
        ),
    )
    published = publish(dataset, files, manifest, hashes.of)
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
        "decisions": decisions,
        "ignored": dict(source.ignored),
        "notes": list(manifest.notes),
    }


def summary(published: Published) -> str:
    """What a version holds, as the Markdown of an artifact."""
    manifest = published.version.manifest
    what = "published" if published.new else "nothing changed, still"
    gates = [f"| {gate} | {n['passed']} | {n['failed']} |" for gate, n in manifest.gates.items()]
    if gates:
        gates = ["", "| gate | passed | failed |", "|---|--:|--:|", *gates]
    notes = [f"- {note}" for note in manifest.notes]
    return "\n".join([f"# {what} {manifest.version}", "", *tables(manifest), *gates, "", *notes])


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
    train_deployment: str | None = None,
    finish_with_what_we_have: bool = False,
    keep: int | None = None,
    rehash: bool = False,
    cluster: str | None = None,
) -> dict[str, Any]:
    """Turn a University-1652 / GeoText-1652 folder into a new version of a data set.

    Args:
        source: the folder with train/ and test/, or its URL (s3://, gs://).
        out: the data set, or its URL; a version vNNNN is added when something changed.
        config: nested mapping of schemas.config.Config.
        runner: where shards are made: in threads of this process, in a pool of processes, on a Dask or Ray cluster.
        train_run: if given and a new version was made, train into a folder of its name in there afterwards. A training
            that was not begun, because the rebuild was killed or failed after it had published, is made up for.
        train_deployment: deployment that shall train, such as "train/campus"; None: this process does.
        finish_with_what_we_have: ask no model; captions without an accepted reply fall back to the rules.
        keep: remove all but so many of the newest versions afterwards; none that a run beside the data set names, and
            none at all while an annotation file of the source cannot be read: neither is anything trained then.
        rehash: read every file again instead of trusting its size, time and inode.
        cluster: address of the Dask scheduler or the Ray head; None starts a small cluster on this machine.

    Returns:
        version, new, shards, reused, plan, damaged (shards made again because their stored result was), accounts,
        counts, gates, decisions (of reviewers: applied, stale, unknown), ignored, notes, refining (what the model was
        asked; empty without one), removed (versions), and train: the scores.
    """
    check(runner, cluster)
    settings, dataset = settings_of(source, out, config)
    remote = Remote.at(out) if is_url(out) else None
    with (
        lock(dataset),
        remembered(dataset / WORK / "hashes.sqlite", rehash=rehash) as hashes,
        spilled(dataset / WORK / SPILL) as spill,
    ):
        source = str(local_source(source, dataset / WORK, report))
        if remote:
            remote.pull(report)
        found, planned, refining, unknown = _planned(source, dataset, settings, hashes, spill, finish_with_what_we_have)
        results = {shard.job.name: shard.stored for shard in planned.shards if shard.stored}
        missing = sorted((shard for shard in planned.shards if not shard.stored), key=_lightness)
        planned_lines = "\n".join(["```", *lines(planned), "```"])
        create_markdown_artifact(planned_lines, key="rebuild-plan", description=str(dataset))
        check_space(dataset, planned.space())
        report("shards", len(results), len(planned.shards), f"{len(results)} reused")
        if missing:
            with engine(runner, cluster, len(missing)) as submit:
                for future in as_completed([submit(shard) for shard in missing]):
                    made = future.result()
                    results[made.name] = made
                    for table, shard in made.files.items():
                        hashes.learn(Path(made.folder) / f"{table}.parquet", shard.sha256)
                    report("shards", len(results), len(planned.shards), made.name)
        untrained = dataset / WORK / UNTRAINED
        due = bool(train_run) and untrained.exists()
        if train_run:
            untrained.touch()
        result: dict[str, Any] = _publish(
            str(dataset),
            opaque(found),
            opaque([results[name] for name in sorted(results)]),
            settings,
            unknown,
            opaque(hashes),
        )
        if remote:
            result["new"] = remote.push(open_version(dataset / result["version"]), report)
            result["dataset"] = remote.store.url
        remember(planned, dataset / WORK)
        keep = None if found.unread else keep
        removed = prune(dataset, keep) if keep else []
        if remote and keep:
            removed = sorted({*removed, *remote.prune(keep)})
        answers = {Path(shard.job.answers).name for shard in planned.shards if shard.job.answers}
        clean(dataset / WORK, {shard.key for shard in planned.shards}, answers)
        result |= {"refining": refining, "plan": planned.counts(), "damaged": planned.damaged(), "removed": removed}
    if train_run and not found.unread:
        if result["new"] or due:
            version = f"{result['dataset']}/{result['version']}"
            result["train"] = _train(version, Path(train_run) / result["version"], config, train_deployment)
        untrained.unlink(missing_ok=True)
    return result


def _lightness(shard: Planned) -> tuple[bool, int]:
    """Sorts what takes long to the front, so that no worker is left alone with it in the end: words of train."""
    return shard.job.split != "train", -shard.job.contents.characters


def _train(version: str, run: Path, config: dict[str, Any] | None, deployment: str | None) -> dict[str, Any]:
    """Train on a version, here and now, or by a deployment, whose worker may be on another machine.

    Returns:
        The scores, or the flow run of the deployment: {"flow_run": id, "deployment": its name}.
    """
    if deployment is None:
        from flows.train import train

        return train(version, str(run), config, resume=True)
    from prefect.deployments import run_deployment

    launched = cast(
        FlowRun,
        run_deployment(
            deployment,
            parameters={"dataset": version, "run": str(run), "config": config, "resume": True},
            timeout=0,
            idempotency_key=f"{flow_run.id} {run.name}",  # a rebuild that is tried again launches no second one
        ),
    )
    if link := url_for("flow-run", obj_id=launched.id):
        create_link_artifact(link, key="training", link_text=f"training on {run.name}", description=str(run))
    return {"flow_run": str(launched.id), "deployment": deployment}


def settings_of(source: str, out: str, config: dict[str, Any] | None) -> tuple[Config, Path]:
    """The configuration, and the data set's folder on this machine.

    Raises:
        UsageError: source or destination is empty, no UTF-8, or one lies in the other; ConfigError.
    """
    for what, place in (("source", source), ("destination", out)):
        if not place:
            raise UsageError(f"The {what} is empty, perhaps a variable that is not set: name a folder or a URL.")
        if not is_utf8(place):
            raise UsageError(f"The {what} {printable(place)} is no UTF-8: rename the folder, or link to it.")
    dataset = Remote.at(out).folder if is_url(out) else Path(out).resolve()
    inside = any(f"{out}/".startswith(f"{source.rstrip('/')}/{part}/") for part in PARTS)
    if inside or any(dataset.is_relative_to(Path(source).resolve() / part) for part in PARTS):
        raise UsageError(f"{out} lies among the images of {source}: choose a folder outside its train/ and test/.")
    return build(Config, config or {}), dataset


def _planned(
    source: str, dataset: Path, settings: Config, hashes: Hashes, spill: Spill, only_stored: bool
) -> tuple[Source, Plan, dict[str, Any], tuple[str, ...]]:
    """Read the source, let the model refine what it has not refined yet, and find out which shards have to be made."""
    report("read source", 0, 1, source)
    found = _read(str(Path(source).resolve()), settings, opaque(spill))
    report("read source", 1, 1, ", ".join(f"{n} {table}" for table, n in found.read.items()))
    jobs = deal(found, Path(source).resolve(), dataset / WORK, settings, hashes)
    jobs, unknown = decided(jobs, standing_decisions(dataset / REVIEWS), spill)
    refining: dict[str, Any] = {}
    if settings.refine.refiner == "vllm":
        from flows.refining import chosen_model, with_answers

        model = chosen_model(settings, dataset / WORK, only_stored=only_stored)
        jobs, _ = with_answers(jobs, model, dataset / WORK, hashes, step_version("train"))
        check_space(dataset, plan(jobs, hashes, dataset / WORK).space())  # not after hours of asking
        jobs, refining = _refine(opaque(jobs), model, settings, dataset / WORK, only_stored)
    return found, plan(jobs, hashes, dataset / WORK), refining, unknown


def plan_rebuild(source: str, out: str, config: dict[str, Any] | None = None, *, rehash: bool = False) -> list[str]:
    """What `rebuild` would reuse, make and drop, and why, as lines of text. Nothing is made and nobody is asked."""
    settings, dataset = settings_of(source, out, config)
    memory = dataset / WORK / "hashes.sqlite"
    # A data set that is not there yet is not begun by a plan.
    remembering = remembered(memory, rehash=rehash) if dataset.exists() else nullcontext(Hashes())
    with lock(dataset), remembering as hashes, spilled(None) as spill:
        source = str(local_source(source, dataset / WORK, report))
        found = read_source(Path(source), settings.partition, spill)
        jobs = deal(found, Path(source).resolve(), dataset / WORK, settings, hashes)
        jobs, _ = decided(jobs, standing_decisions(dataset / REVIEWS), spill)
        unanswered: list[str] = []
        if settings.refine.refiner == "vllm":
            from flows.refining import with_answers

            model = model_of(settings.refine, settings.server.urls)
            jobs, unanswered = with_answers(jobs, model, dataset / WORK, hashes, step_version("train"))
        return [*lines(plan(jobs, hashes, dataset / WORK)), *unanswered]
