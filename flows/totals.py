"""What the manifest says of all shards together: the balance of rows, counts per platform, gates, refused rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.readers import Source
from data.shards import WrittenFile, write_rows
from flows.results import ShardResult, check_accounts, rejects_of
from schemas.manifest import Account
from schemas.records import TABLES, Table


def write_rejects(path: Path, source: Source, results: Sequence[ShardResult]) -> WrittenFile:
    """Write every refused row, those of the shards too, in the order of table, source, row, field and detail.

    Raises:
        DatasetError: a result cannot be read any more, or the file cannot be written.
    """
    for result in results:
        if any(account.rejected for account in result.accounts.values()):
            for reject in rejects_of(result, source.spill):
                source.spill.add_reject(reject)
    return write_rows(path, "rejects", map(asdict, source.spill.every_reject()))


def total_accounts(source: Source, results: Sequence[ShardResult]) -> dict[Table, Account]:
    """The balance of the whole rebuild: rows the reader refused count as read and rejected.

    Raises:
        AccountingError: the parts do not add up to what was read.
    """
    accounts = {
        table: Account(
            read=source.read[table],
            written=sum(r.accounts[table].written for r in results),
            rejected=source.refused[table] + sum(r.accounts[table].rejected for r in results),
            derived=sum(r.accounts[table].derived for r in results),
        )
        for table in TABLES
    }
    check_accounts(accounts, "the rebuild")
    return accounts


def total_counts(results: Sequence[ShardResult]) -> dict[str, Any]:
    """{split: {platform: counts}} summed over shards; buildings as a number."""
    totals: dict[str, Any] = {}
    for result in results:
        cell = totals.setdefault(result.split, {}).setdefault(
            result.platform, {"buildings": 0, "images": 0, "augmented": 0, "captions": 0, "regions": 0, "statuses": {}}
        )
        cell["buildings"] += len(result.counts["buildings"])
        for key in ("images", "augmented", "captions", "regions"):
            cell[key] += result.counts[key]
        for status, n in result.counts["statuses"].items():
            cell["statuses"][status] = cell["statuses"].get(status, 0) + n
    return totals


def total_gates(results: Sequence[ShardResult]) -> dict[str, dict[str, int]]:
    """Per gate how many replies passed and failed it, originals and augmented copies alike."""
    totals: dict[str, dict[str, int]] = {}
    for result in results:
        for gate, tally in result.gates.items():
            cell = totals.setdefault(gate, {"passed": 0, "failed": 0})
            cell["passed"] += tally["passed"]
            cell["failed"] += tally["failed"]
    return dict(sorted(totals.items()))


def total_decisions(results: Sequence[ShardResult], unknown: Sequence[str]) -> dict[str, Any]:
    """What became of reviewers' decisions: rows settled by one, and ids of captions whose decision was not applied."""
    told = [result.counts["decisions"] for result in results]
    stale = sorted(caption_id for one in told for caption_id in one["stale"])
    return {"applied": sum(one["applied"] for one in told), "stale": stale, "unknown": sorted(unknown)}


def decision_notes(decisions: Mapping[str, Any]) -> list[str]:
    """One sentence for each kind of decision that was not applied, with the captions it is about."""
    why = {"stale": "the source text changed since", "unknown": "the caption is not in the train split any more"}
    notes = []
    for kind, reason in why.items():
        if ids := decisions[kind]:
            named = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
            what = "1 decision of a reviewer was" if len(ids) == 1 else f"{len(ids)} decisions of reviewers were"
            notes.append(f"{what} not applied, because {reason}: {named}.")
    return notes
