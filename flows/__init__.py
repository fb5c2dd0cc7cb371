"""Prefect flows: the rebuild, the training, their schedule. The only room that imports Prefect.

Run by `georefine rebuild`, `georefine train`, `georefine serve` and `georefine demo`.
"""

import os

# Before Prefect is imported: no telemetry, and its log only where it warns. What the user has set stands.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
