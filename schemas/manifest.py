"""The manifest of a data set version: what is in it, from what it was made, and the checksum of every shard.

It is written last, so that its presence means the version is complete. It holds no time and no host name.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from schemas.errors import DatasetError
from schemas.records import Platform, Split, Table

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One Parquet file. `path` is relative to the version, POSIX; rejects have no split and platform."""

    path: str
    table: str
    split: Split | None
    platform: Platform | None
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Card:
    """The data set card of a version, README.md."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Account:
    """Rows of one table: read == written + rejected; derived rows (augmented tiles and their captions) come on top."""

    read: int
    written: int
    rejected: int
    derived: int

    @property
    def balanced(self) -> bool:
        return self.read == self.written + self.rejected


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json.

    Attributes:
        source: fingerprint of the source: {"sha256": hexadecimal, "files": n, "bytes": n, "ignored": {path: why}}.
        config: the full effective configuration.
        accounts: per table (images, captions, regions) the balance of its rows.
        counts: {split: {platform: {"buildings": n, "images": n, "augmented": n, "captions": n, "regions": n,
            "statuses": {status: n}}}}.
        gates: per gate {"passed": n, "failed": n}.
        notes: differences from the official counts and other remarks, one sentence each.
        card: what README.md is; None in versions of before it was noted.
    """

    format_version: int
    version: str
    code_version: str
    source: dict[str, Any]
    config: dict[str, Any]
    shards: tuple[Shard, ...]
    accounts: dict[Table, Account]
    counts: dict[str, Any]
    gates: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()
    card: Card | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Read manifest.json; `where` names the file in errors. Keys that a later georefine added are passed over.

        Raises:
            DatasetError: not a manifest, or written by a newer georefine.
        """
        try:
            values = json.loads(text)
            if values["format_version"] != FORMAT_VERSION:
                raise DatasetError(
                    f"{where} has format version {values['format_version']}, this georefine reads {FORMAT_VERSION}: "
                    "rebuild the data set, or use the georefine that wrote it."
                )
            return cls(
                **{
                    **{field.name: values[field.name] for field in fields(cls) if field.name != "card"},
                    "shards": tuple(Shard(**s) for s in values["shards"]),
                    "accounts": {k: Account(**v) for k, v in values["accounts"].items()},
                    "notes": tuple(values["notes"]),
                    "card": Card(**values["card"]) if values.get("card") else None,
                }
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetError(f"{where} is not a manifest of georefine ({error!r}): rebuild the data set.") from error
