"""Scheduled rebuilds, each followed by a training when it made a new version.

`georefine serve SOURCE --out DATASET --cron "0 3 * * *" [--train]` runs everything in one place; `prefect.yaml` deploys
the same flows to work pools, so that a worker on a GPU machine trains. Prefect fires them. A missed or failed run stays
visible in Prefect's own page; runs of one deployment never overlap. See docs/schedules.md.
"""

import asyncio
import contextlib
import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect import Flow, State, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, FlowRun, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.states import Crashed

from data.stores import is_url
from flows.rebuild import rebuild, settings_of
from flows.server import prefect_api
from flows.train import train
from schemas.errors import UsageError

ON_FAILURE = "GEOREFINE_ON_FAILURE"
HOOK_SECONDS = 60
CANCEL_NEW = ConcurrencyLimitStrategy.CANCEL_NEW
UNDER_WAY = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def tell(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hand one sentence about a failed run to the command in GEOREFINE_ON_FAILURE (mail, curl, logger, …).

    It comes on the command's standard input; no shell reads it. Without such a command it goes to the worker's log.
    """
    sentence = f"georefine: {flow.name} run '{flow_run.name}' ended as {state.name}: {state.message or 'no message'}\n"
    data = sentence.encode("utf-8", "replace")  # a file name may hold bytes that are no text
    sys.stderr.write(data.decode())
    if command := os.environ.get(ON_FAILURE):
        subprocess.run(shlex.split(command), input=data, timeout=HOOK_SECONDS, check=True)


# What a schedule runs: the same flows, tried again by themselves. A rebuild that is tried again makes only what the
# attempt before it has not made; a training goes on after the last epoch that was finished.
scheduled_rebuild = rebuild.with_options(retries=2, retry_delay_seconds=300, on_failure=[tell], on_crashed=[tell])
scheduled_train = train.with_options(retries=1, retry_delay_seconds=60, on_failure=[tell], on_crashed=[tell])


def _absolute(place: str) -> str:
    return place if is_url(place) else str(Path(place).resolve())


def deployment_name(out: str) -> str:
    """What the deployments of a data set are called: its folder's name, and a hash, for others have that name too."""
    return f"{Path(out).name or 'dataset'}-{hashlib.sha256(out.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def end_what_was_left(name: str) -> list[str]:
    """Tell Prefect that runs under way in deployments of this name have crashed; their names.

    Only one process serves a data set, so they are those of a process that was killed. Each would hold its deployment's
    place for ever, and every rebuild after it would be cancelled.
    """
    with get_client(sync_client=True) as client:
        left = client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNDER_WAY))),
        )
        for run in left:
            client.set_flow_run_state(run.id, Crashed(message="The process that served it is gone."), force=True)
    return [run.name for run in left]


class _Runner(Runner):
    """Prefect's runner, which SIGTERM ends as Ctrl-C does: what Prefect does itself is to leave in mid-loop."""

    async def start(self, run_once: bool = False, webserver: bool | None = None) -> None:
        self._serving, self._stopped = asyncio.current_task(), False
        try:
            await super().start(run_once, webserver)
        except asyncio.CancelledError:
            if not self._stopped:  # whatever else cancels it is a failure to be seen
                raise

    def handle_sigterm(self, *signal: object) -> None:
        assert self._serving
        self._stopped = True
        self._serving.get_loop().call_soon_threadsafe(self._serving.cancel)


def _check_cron(cron: str) -> None:
    """Refuse what is no schedule.

    Raises:
        UsageError: with an example of one.
    """
    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise UsageError(
            f'{cron!r} is no schedule: give minute, hour, day, month and weekday; "0 3 * * *" is three at night.'
        ) from error


def serve(source: str, out: str, cron: str | None, config: dict[str, Any], train_run: Path | None) -> None:
    """Serve the rebuild of one data set until interrupted; without cron it runs when asked through Prefect.

    Args:
        source: folder or URL.
        out: folder or URL of the data set.
        config: nested mapping of schemas.config.Config.
        train_run: folder of runs; each rebuild that made a new version is followed by a training into it.

    Raises:
        UsageError: what the first run would refuse is refused now.
    """
    settings_of(source, out, config)
    if cron:
        _check_cron(cron)
    print(f"Rebuilding {source} into {out} at '{cron}'. Ctrl-C ends it.", file=sys.stderr, flush=True)
    name = deployment_name(_absolute(out))
    parameters = {
        "source": _absolute(source),
        "out": _absolute(out),
        "config": config,
        "train_run": str(train_run.resolve()) if train_run else None,
        "train_deployment": f"{train.name}/{name}" if train_run else None,
    }
    with prefect_api(scheduler=True) as url:
        print(f"Prefect's own page: {url.removesuffix('/api')}", file=sys.stderr, flush=True)
        for run in end_what_was_left(name):
            print(f"Run {run!r} was under way when its process ended: marked as crashed.", file=sys.stderr, flush=True)
        deployments = [
            RunnerDeployment.from_entrypoint(
                "flows.schedule.scheduled_rebuild",
                name,
                cron=cron,
                parameters=parameters,
                # One at a time; who comes while one runs is told so, and comes again with the next date.
                concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=CANCEL_NEW),
            )
        ]
        if train_run:
            deployments.append(
                RunnerDeployment.from_entrypoint(
                    "flows.schedule.scheduled_train",
                    name,
                    parameters={"config": config},
                    concurrency_limit=1,  # a training waits for the one before it
                )
            )
        runner = _Runner()
        for deployment in deployments:
            runner.add_deployment(deployment)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(runner.start())
