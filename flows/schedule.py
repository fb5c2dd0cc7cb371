"""Scheduled rebuilds, each followed by a training when it made a new version.

`georefine serve SOURCE --out DATASET --cron "0 3 * * *" [--train]` runs everything in one place; `prefect.yaml` deploys
the same flows to work pools, so that a worker on a GPU machine trains. Prefect fires them. A missed or failed run stays
visible in Prefect's own page; runs of one deployment never overlap. See docs/schedules.md.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect import Flow, State
from prefect import serve as serve_deployments
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, FlowRun
from prefect.deployments.runner import RunnerDeployment

from data.stores import is_url
from flows.rebuild import rebuild
from flows.server import prefect_api
from flows.train import train

ON_FAILURE = "GEOREFINE_ON_FAILURE"
HOOK_SECONDS = 60
CANCEL_NEW = ConcurrencyLimitStrategy.CANCEL_NEW


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


def serve(source: str, out: str, cron: str | None, config: dict[str, Any], train_run: Path | None) -> None:
    """Serve the rebuild of one data set until interrupted; without cron it runs when asked through Prefect.

    Args:
        source: folder or URL.
        out: folder or URL of the data set.
        config: nested mapping of schemas.config.Config.
        train_run: folder of runs; each rebuild that made a new version is followed by a training into it.
    """
    name = Path(_absolute(out)).name or "dataset"
    parameters = {
        "source": _absolute(source),
        "out": _absolute(out),
        "config": config,
        "train_run": str(train_run.resolve()) if train_run else None,
        "train_deployment": f"{train.name}/{name}" if train_run else None,
    }
    with prefect_api(scheduler=True) as url:
        print(f"Prefect's own page: {url.removesuffix('/api')}", file=sys.stderr, flush=True)
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
        serve_deployments(*deployments, print_starting_message=False)
