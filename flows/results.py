"""What is known of a shard that was made: its files, its balance of rows, what it refused; kept beside the files.

    result = stored_result(job, key, hashes)      of an earlier run, or None

flows/steps.py makes shards. This file imports nothing that takes long, so that a rebuild which finds little changed
need not wait for what it does not use.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data.hashes import Hashes
from data.shards import atomic_write, read_bytes
from data.spill import Spill
from flows.jobs import ShardJob
from schemas.errors import AccountingError
from schemas.manifest import Account, Shard
from schemas.records import Platform, Reject, Split, Table

RESULT = "result.json"  # written last: its presence means that the shard is complete


@dataclass(frozen=True)
class ShardResult:
    """What a shard holds. `files`: table -> Shard whose path is relative to `folder`; tables without rows have none."""

    name: str
    split: Split
    platform: Platform
    folder: str
    reused: bool
    files: dict[Table, Shard]
    accounts: dict[Table, Account]
    counts: dict[str, Any]
    gates: dict[str, dict[str, int]]
    notes: tuple[str, ...]


def check_accounts(accounts: Mapping[Table, Account], where: str) -> None:
    """Raise AccountingError unless rows read equal rows written plus rows rejected in every table."""
    for table, account in accounts.items():
        if not account.balanced:
            raise AccountingError(
                f"{where}: {account.read} {table} were read, but {account.written} written and {account.rejected} "
                "rejected: nothing was published; please report this."
            )


def result_folder(job: ShardJob, key: str) -> Path:
    """Where the files of a shard lie."""
    return Path(job.work) / "shards" / key


def stored_result(job: ShardJob, key: str, hashes: Hashes) -> ShardResult | None:
    """The result of an earlier run under the same key, if every file of it is undamaged."""
    folder = result_folder(job, key)
    try:
        text = (folder / RESULT).read_text(encoding="utf-8")
        values = json.loads(text)
        files = {table: Shard(**shard) for table, shard in values["files"].items()}
        if values.pop("sha256") != _checksum(values):
            return None
        if any(hashes.of(folder / f"{table}.parquet") != shard.sha256 for table, shard in files.items()):
            return None
        return ShardResult(
            name=job.name,
            split=job.split,
            platform=job.platform,
            folder=str(folder),
            reused=True,
            files={table: replace(shard, path=f"{table}/{job.name}") for table, shard in files.items()},
            accounts={table: Account(**account) for table, account in values["accounts"].items()},
            counts=values["counts"],
            gates=values["gates"],
            notes=tuple(values["notes"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def rejects_of(result: ShardResult, spill: Spill) -> Iterator[Reject]:
    """The rows that a shard refused, with where they stand in the source.

    Raises:
        DatasetError: the result cannot be read any more.
    """
    for row in json.loads(read_bytes(Path(result.folder) / RESULT))["rejects"]:
        reject = Reject(**row)
        if reject.table == "images":
            yield reject
        else:
            source, number = spill.record(reject.table, reject.source, reject.row)
            yield replace(reject, source=source, row=number)


def was_finished(job: ShardJob, key: str) -> bool:
    """Whether an earlier run finished the shard; if `stored_result` gives None then, its files were damaged since."""
    return (result_folder(job, key) / RESULT).exists()


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def keep_result(result: ShardResult, rejects: Sequence[Reject]) -> None:
    """Say that a shard is complete, and what it is; its files are there.

    Args:
        rejects: rows that were refused; a caption's or region's names its image and ordinal.
    """
    of_job = ("name", "split", "platform", "folder", "reused")
    kept = {key: value for key, value in asdict(result).items() if key not in of_job}
    kept["rejects"] = [asdict(reject) for reject in rejects]
    text = json.dumps({**kept, "sha256": _checksum(kept)}, sort_keys=True)
    atomic_write(Path(result.folder) / RESULT, text.encode())
