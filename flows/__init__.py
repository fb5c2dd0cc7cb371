"""Prefect flows: the rebuild, the training, their schedule. The only room that imports Prefect.

Run by `georefine rebuild`, `georefine train`, `georefine serve` and `georefine demo`.
"""

import os

# Before Prefect is imported: no telemetry, and its log goes to its API, where its own page shows it, not to our
# terminal, where an error is one sentence. What the user has set stands.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
