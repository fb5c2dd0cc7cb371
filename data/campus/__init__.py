"""campus: the sample world, a seeded University-1652-like data set whose every fact is known (docs/campus.md)."""

from data.campus.world import VERSION
from data.campus.write import SplitCounts, WorldSummary, write_world

__all__ = ["VERSION", "SplitCounts", "WorldSummary", "write_world"]
