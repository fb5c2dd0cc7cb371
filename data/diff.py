"""Captions that changed between two versions of a data set.

    for change in changes(dataset, "v0001", "v0002"): ...

Only shards that the versions do not share are read, so that the cost follows what changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.shards import ALL_SCHEMAS, ROW_GROUP, Version, complete_versions, open_version, selected
from schemas.errors import DatasetError, UsageError

COLUMNS = ("raw", "stripped", "refined", "final", "status")


@dataclass(frozen=True, slots=True)
class CaptionState:
    """What a version says of a caption."""

    raw: str
    stripped: str
    refined: str
    final: str
    status: str


@dataclass(frozen=True, slots=True)
class Change:
    """One caption that two versions do not agree on; `before` or `after` is None where a version has it not."""

    caption_id: str
    before: CaptionState | None
    after: CaptionState | None

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        return "added" if self.before is None else "removed" if self.after is None else "changed"

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the columns that differ; empty for a caption that was added or removed."""
        if self.before is None or self.after is None:
            return ()
        return tuple(name for name in COLUMNS if getattr(self.before, name) != getattr(self.after, name))


def changes(dataset: Path, before: str, after: str) -> Iterator[Change]:
    """Captions of which text or status differ, those that are new and those that are gone, sorted by id.

    Args:
        before: name of a version, such as v0001.
        after: name of another.

    Raises:
        UsageError: what is given is no name of a version.
        DatasetError: there is no such version, or it cannot be read.
    """
    old, new = _version(dataset, before), _version(dataset, after)
    shared = {shard.sha256 for shard in old.shards("captions")} & {shard.sha256 for shard in new.shards("captions")}
    was, now = _states(old, shared), _states(new, shared)
    for caption_id in sorted(was.keys() | now.keys()):
        change = Change(caption_id, was.get(caption_id), now.get(caption_id))
        if change.before != change.after:
            yield change


def _version(dataset: Path, name: str) -> Version:
    if Path(name).name != name:
        raise UsageError(f"{name!r} is not the name of a version: give one such as v0001.")
    there = complete_versions(dataset)
    if there and name not in there:
        raise DatasetError(f"{dataset} has no complete version {name[:40]}; there are: {', '.join(there)}.")
    return open_version(dataset / name)


def _states(version: Version, shared: set[str]) -> dict[str, CaptionState]:
    schema = selected(ALL_SCHEMAS["captions"], ["caption_id", *COLUMNS])
    states: dict[str, CaptionState] = {}
    for shard in version.shards("captions"):
        if shard.sha256 not in shared:
            for batch in version.shard_batches(shard, schema, ROW_GROUP["captions"]):
                for row in batch.to_pylist():
                    caption_id = row.pop("caption_id")
                    states[caption_id] = CaptionState(**row)
    return states
