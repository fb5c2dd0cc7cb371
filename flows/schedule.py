"""Scheduled rebuilds: `georefine serve SOURCE --out DATASET --cron "0 3 * * *" [--train]`.

Prefect fires the flow; runs of one data set never overlap. A missed or failed run stays visible in Prefect's own page.
"""

import sys
from pathlib import Path
from typing import Any

from prefect.types.entrypoint import EntrypointType

from flows.rebuild import rebuild
from flows.server import prefect_api


def serve(source: Path, out: Path, cron: str | None, config: dict[str, Any], train_run: Path | None) -> None:
    """Serve the rebuild of one data set until interrupted; without cron it runs when asked through Prefect.

    Args:
        config: nested mapping of schemas.config.Config.
        train_run: folder of runs; each rebuild that made a new version is followed by a training into it.
    """
    with prefect_api(scheduler=True) as url:
        print(f"Prefect's own page: {url.removesuffix('/api')}", file=sys.stderr, flush=True)
        rebuild.serve(
            name=out.resolve().name or "dataset",
            cron=cron,
            limit=1,
            entrypoint_type=EntrypointType.MODULE_PATH,  # the installed module, wherever we were started
            print_starting_message=False,
            parameters={
                "source": str(source.resolve()),
                "out": str(out.resolve()),
                "config": config,
                "train_run": str(train_run.resolve()) if train_run else None,
            },
        )
