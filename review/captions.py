"""The captions of one version, held for reviewing: filters with counts, search, sorted pages, one caption in full.

An in-memory DuckDB over the shards. Texts, ids and failed gates are loaded at once; what takes seconds at 200,000
captions (text to search in, sizes of the edits) is made ready in a thread while the first pages are read already.
What only one caption's page shows (gates, replies, image bytes) is read from its shard when asked for.
"""

import glob
import hashlib
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlencode

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.shards import Version, complete_versions, open_version
from review.decisions import Decision, DecisionLog, Draft, Event, Kind, fold
from review.words import WordIndex, index_words, lower
from schemas.errors import DatasetError, GeorefineError
from schemas.records import PLATFORMS, SPLITS, STATUSES

Sort = Literal["id", "gates", "edit", "disagreement"]
SORTS: dict[Sort, str] = {"id": "c.rank", "gates": "c.failures", "edit": "s.edit", "disagreement": "{opinions}"}
STATES = ("open", "accept", "edit", "reject", "stale", "evidence")
TILES = ("original", "augmented")
CHANGES = ("added", "changed")
PAGE = 25
SEARCHES_KEPT = 8
SHORTLIST = 1000  # candidates of a phrase that are looked at one by one
LONGEST_SEARCH = 200
ROWS_PER_STEP = 10_000
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Filters:
    """Which captions are meant, all of these at once; an empty value means any. What the address says.

    Attributes:
        gate: a gate that failed. decision: one of STATES. tile: one of TILES. change: since the version before.
        building: exactly this building. q: words, or "a phrase", all of which stand in the final text;
            a word with a slash may stand in the id. within: "raw" to look into the raw caption instead.
        asof: the decisions are those up to this event, so that a queue keeps its order while one works on it.
    """

    platform: str = ""
    split: str = ""
    status: str = ""
    gate: str = ""
    decision: str = ""
    tile: str = ""
    change: str = ""
    building: str = ""
    q: str = ""
    within: str = ""
    sort: Sort = "id"
    asof: int | None = None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> "Filters":
        """From the parameters of an address; what is unknown there is left out."""
        known = {f.name for f in fields(cls)} - {"asof", "sort"}
        texts: dict[str, Any] = {name: value[:LONGEST_SEARCH] for name, value in values.items() if name in known}
        sort = values.get("sort", "id")
        asof = values.get("asof", "")
        return cls(
            **texts,
            sort=sort if sort in SORTS else "id",
            asof=int(asof) if re.fullmatch(r"\d{1,15}", asof) else None,
        )

    def query(self, **changes: object) -> str:
        """The query string of these filters with some of them changed; empty ones are left out."""
        values = {**asdict(self), **changes}
        return urlencode({k: v for k, v in values.items() if v not in ("", None) and (k, v) != ("sort", "id")})

    def with_(self, **changes: Any) -> "Filters":
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Row:
    """A caption as the queue shows it. `proposed` is the text at stake: what the next rebuild will write unless
    a person rejects it. `revision` counts the events on it."""

    caption_id: str
    image_id: str
    building_id: str
    platform: str
    split: str
    status: str
    tile: str
    raw: str
    stripped: str
    refined: str
    final: str
    failed: tuple[str, ...]
    state: str
    revision: int
    source_sha256: str
    key: str
    decision: Decision | None

    @property
    def proposed(self) -> str:
        if self.decision and self.decision.kind != "reject" and self.state != "stale":
            return self.decision.text
        return self.refined if self.status in ("edited", "rejected") else self.final

    @property
    def seen(self) -> str:
        """A name for the two texts that a person sees; a form that carries another one is about other texts."""
        shown = f"{self.raw}\0{self.proposed}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(shown).hexdigest()[:16]

    @property
    def number(self) -> str:
        """A name for this caption within the version that is short and safe in a document."""
        return self.key.rpartition(".")[2]

    @property
    def decidable(self) -> bool:
        """Val and test are evidence: nobody edits them."""
        return self.split == "train"


@dataclass(frozen=True)
class Page:
    """Some rows of a queue, and the keys of the pages beside it (None where there is none)."""

    rows: tuple[Row, ...]
    total: int
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Facet:
    """One filter and what may be chosen in it: (value, captions), counted under all other filters."""

    name: str
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Progress:
    """Of the captions that people may decide on: how many there are, and how many are decided and not stale."""

    total: int
    decided: int


@dataclass(frozen=True, slots=True)
class _Mark:
    """What is kept in memory of an event."""

    seq: int
    kind: str
    reviewer: str
    outcome: int
    source_sha256: str


class Captions:
    """The captions of a version with the decisions on them. Any thread may ask."""

    def __init__(self, dataset: Path, log: DecisionLog) -> None:
        """Load the newest version of a data set (or the one named, DATASET/v0002).

        Raises:
            DatasetError: there is none, or a shard is missing or damaged.
        """
        self.version = open_version(dataset)
        self.dataset = self.version.path.parent
        self.previous = _previous(self.version)
        self.log = log
        self.seq = 0
        self.removed = 0
        self._stacks: dict[str, list[_Mark]] = {}
        self._lock = threading.Lock()
        self._searches: OrderedDict[tuple[str, ...], str] = OrderedDict()
        self._searched = 0
        self._counts: dict[tuple[int, Filters], list[tuple[dict[str, str], int]]] = {}
        self._plots: dict[str, dict[str, list[int]]] = {}
        self._db = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
        try:
            self._load()
        except duckdb.Error as error:
            raise DatasetError(
                f"{self.version.path} cannot be read ({str(error).splitlines()[0]}): run `georefine verify`, "
                "then rebuild the data set."
            ) from error
        self.sync()
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="word index")
        self._index = self._thread.submit(self._prepare)

    def close(self) -> None:
        """End the preparing thread and let go of the memory."""
        self._closing.set()
        self._thread.shutdown()
        self._db.close()

    # --- loading -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._db.execute(TABLES)
        for table, insert in INSERTS.items():
            if paths := _patterns(self.version, table):
                for number, path in enumerate(self._paths(table)):
                    self._db.execute("INSERT INTO shards VALUES (?, ?, ?)", [table, path, number])
                for statement in insert:
                    self._db.execute(statement, [paths])
        self._compare()
        self._db.execute(CAPTIONS)
        places = self._db.execute("SELECT pos FROM texts ORDER BY pos").fetchnumpy()["pos"]
        self._places: Places = np.asarray(places, np.int64)

    def _paths(self, table: str) -> list[str]:
        return [str(self.version.path / shard.path) for shard in self.version.shards(table)]

    def _compare(self) -> None:
        """Note what was added or changed since the version before, reading only the shards that differ."""
        if self.previous is None:
            return
        old, new = (
            {(shard.path, shard.sha256) for shard in version.shards("captions")}
            for version in (self.previous, self.version)
        )
        if old == new:
            return
        numbers = [n for n, s in enumerate(self.version.shards("captions")) if (s.path, s.sha256) not in old]
        if gone := [glob.escape(str(self.previous.path / path)) for path, _ in sorted(old - new)]:
            self._db.execute(BEFORE, [gone])
        self._db.execute(CHANGED, [numbers])
        counts = self._db.execute(REMOVED, [numbers]).fetchall()
        self.removed = counts[0][0]

    def _prepare(self) -> WordIndex:
        """Make ready what takes seconds: the index of words, and the sizes of edits that come with it."""
        index = index_words(self._chunks())
        db = self._db.cursor()
        db.register("measured", pa.table({"pos": self._places, "edit": index.edit, "words": index.length}))
        db.execute("CREATE TABLE sizes AS SELECT * FROM measured")
        db.unregister("measured")
        return index

    def _chunks(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Raw and final texts in the order of their places."""
        db = self._db.cursor()
        for start in range(0, len(self._places), ROWS_PER_STEP):
            if self._closing.is_set():
                return
            step = self._places[start : start + ROWS_PER_STEP]
            table = db.sql(
                "SELECT raw, final FROM texts WHERE pos BETWEEN ? AND ? ORDER BY pos",
                params=[int(step[0]), int(step[-1])],
            ).to_arrow_table()
            yield table["raw"].combine_chunks(), table["final"].combine_chunks()

    def wait(self) -> WordIndex:
        """The index of words; waits until it is ready, as do the first search and the first sort by size."""
        return self._index.result()

    @property
    def ready(self) -> bool:
        """Whether one can search by now, and sizes of the edits are known."""
        return self._index.done()

    # --- decisions ---------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Take in what was decided since, by this process or another."""
        with self._lock:
            if self.log.last() == self.seq:
                return
            touched: dict[str, None] = {}
            before: list[dict[str, Any]] = []  # each event: an address names any of them
            last = self.seq
            for event in self.log.events(self.seq):
                stack = self._stacks.setdefault(event.caption_id, [])
                before.append(_stand(event.caption_id, event.seq, stack))
                _push(stack, event)
                touched[event.caption_id] = None
                last = event.seq
            self._take_in(before, [_stand(caption_id, last, self._stacks[caption_id]) for caption_id in touched])
            self.seq = last

    def _take_in(self, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
        db = self._db.cursor()
        db.register("before", pa.Table.from_pylist(before, STANDS))
        db.register("moved", pa.Table.from_pylist(after, STANDS))
        db.execute("BEGIN")
        db.execute(EARLIER)
        db.execute(MOVED)
        db.execute("COMMIT")
        db.unregister("before")
        db.unregister("moved")

    @property
    def orphans(self) -> int:
        """How many captions with a standing decision this version does not hold."""
        decided = [caption_id for caption_id, stack in self._stacks.items() if _standing(stack)]
        if not decided:
            return 0
        found = self._rows("SELECT count(*) AS n FROM captions WHERE list_contains(?, caption_id)", [decided])
        return len(decided) - cast(int, found[0]["n"])

    # --- asking ------------------------------------------------------------------------------------------------------

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        found = self._db.cursor().execute(query, list(values))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _search(self, words: Sequence[str], column: Literal["raw", "final"]) -> str:
        """The table of the places where all the words are found; the last few searches are kept."""
        index = self.wait()
        with self._lock:
            key = (column, *words)
            if table := self._searches.get(key):
                self._searches.move_to_end(key)
                return table
            table = f"found_{self._searched}"
            self._searched += 1
            postings = index.left if column == "raw" else index.right
            held = np.ones(len(self._places), np.bool_)
            for word in words:
                held &= index.candidates(postings, word) | self._in_ids(word)
            places = self._holding(self._places[held], column, [word for word in words if " " in word])
            db = self._db.cursor()
            db.register("found", pa.table({"pos": places}))
            db.execute(f"CREATE TABLE {table} AS SELECT pos FROM found")
            db.unregister("found")
            self._searches[key] = table
            if len(self._searches) > SEARCHES_KEPT:
                self._db.cursor().execute(f"DROP TABLE {self._searches.popitem(last=False)[1]}")
            return table

    def _in_ids(self, word: str) -> NDArray[np.bool_]:
        """Which captions have a word with a slash in their id."""
        held = np.zeros(len(self._places), np.bool_)
        if "/" in word and " " not in word:
            rows = self._rows("SELECT pos FROM captions WHERE contains(lower(caption_id), ?)", [word])
            held[np.searchsorted(self._places, np.array([row["pos"] for row in rows], np.int64))] = True
        return held

    def _holding(self, places: Places, column: str, phrases: Sequence[str]) -> Places:
        """Of these places, those whose text holds all the phrases."""
        if not phrases or not len(places):
            return places
        if len(places) > SHORTLIST:  # reading everything is faster then
            # Never LIKE: in a search, % and _ are what they are.
            each = " AND ".join([f"contains(lower({column}), ?)"] * len(phrases))
            rows = self._rows(f"SELECT pos FROM texts WHERE {each}", phrases)
            return np.intersect1d(places, np.array([row["pos"] for row in rows], np.int64))
        marks = ", ".join("?" * len(places))
        rows = self._rows(f"SELECT pos, {column} AS text FROM texts WHERE pos IN ({marks})", places.tolist())
        found = [row["pos"] for row in rows if all(phrase in lower(row["text"]) for phrase in phrases)]
        return np.array(sorted(found), np.int64)

    def _where(self, filters: Filters, but: str = "") -> tuple[str, list[Any]]:
        """The FROM and WHERE of some filters, all but one; captions are `c`, their state in the queue is `state`."""
        joins = "captions c"
        values: list[Any] = []
        if filters.asof is not None and filters.asof < self.seq:
            # Where something was decided since, what held before the first of it.
            joins += (
                " LEFT JOIN (SELECT pos, arg_min(state, seq) AS state, arg_min(opinions, seq) AS opinions "
                "FROM earlier WHERE seq > ? GROUP BY pos) e ON e.pos = c.pos"
            )
            values.append(filters.asof)
            state = "coalesce(e.state, c.decision)"
        else:
            state = "c.decision"
        if filters.sort == "edit":
            self.wait()
            joins += " JOIN sizes s ON s.pos = c.pos"
        if words := _words(filters.q):
            found = self._search(words, "raw" if filters.within == "raw" else "final")
            joins += f" SEMI JOIN {found} f ON f.pos = c.pos"
        conditions = []
        for name in ("platform", "split", "status", "tile", "change"):
            if (value := getattr(filters, name)) and name != but:
                conditions.append(f"c.{name}::VARCHAR = ?")
                values.append(value)
        if filters.building:
            conditions.append("c.building_id = ?")
            values.append(filters.building)
        if filters.gate and but != "gate":
            conditions.append("list_contains(c.failed, ?)")
            values.append(filters.gate)
        if filters.decision and but != "decision":
            conditions.append(f"{state}::VARCHAR = ?")
            values.append(filters.decision)
        return f"FROM {joins} WHERE {' AND '.join(conditions) or 'true'}", values

    def _crossed(self, filters: Filters) -> list[tuple[dict[str, str], int]]:
        """How many captions there are of every combination of values now, under the filters that are not crossed."""
        others = Filters(gate=filters.gate, building=filters.building, q=filters.q, within=filters.within)
        key = (self.seq, others)
        if (kept := self._counts.get(key)) is not None:
            return kept
        where, values = self._where(others)
        names = ", ".join(f"c.{name}" for name in CROSSED)
        rows = self._rows(f"SELECT {names}, count(*) AS n {where} GROUP BY ALL", values)
        found = [({name: row[name] for name in CROSSED}, cast(int, row["n"])) for row in rows]
        if len(self._counts) >= SEARCHES_KEPT:
            self._counts.clear()
        self._counts[key] = found
        return found

    def _passing(self, filters: Filters, but: str = "") -> list[tuple[dict[str, str], int]]:
        """The combinations that the crossed filters let through, all but one of these."""
        chosen = {name: value for name in CROSSED if name != but and (value := getattr(filters, name))}
        return [(v, n) for v, n in self._crossed(filters) if all(v[name] == value for name, value in chosen.items())]

    def facets(self, filters: Filters) -> tuple[Facet, ...]:
        """Every filter with the counts of its values as they are now, under all the other filters."""
        found = []
        for name, order in FACETS.items():
            counts: Counter[str] = Counter()
            if name == "gate":
                counts.update(self._gates(filters))
            else:
                for values, n in self._passing(filters, but=name):
                    counts[values[name]] += n
            names = [v for v in order if counts[v]] if order else sorted(counts, key=lambda v: (-counts[v], v))
            if (chosen := getattr(filters, name)) and chosen not in names:
                names.append(chosen)
            found.append(Facet(name, tuple((v, counts[v]) for v in names)))
        return tuple(found)

    def _gates(self, filters: Filters) -> dict[str, int]:
        """How many captions fail each gate now, under all filters but the one by gate."""
        where, values = self._where(filters.with_(asof=None, sort="id"), but="gate")
        failed = f"SELECT unnest(c.failed) AS gate {where} AND c.failures > 0"
        rows = self._rows(f"SELECT gate, count(*) AS n FROM ({failed}) GROUP BY gate", values)
        return {row["gate"]: row["n"] for row in rows}

    def count(self, filters: Filters) -> int:
        """How many captions the filters let through."""
        if filters.asof is None or filters.asof >= self.seq or not filters.decision:
            return sum(n for _, n in self._passing(filters))
        where, values = self._where(filters.with_(sort="id"))
        return cast(int, self._rows(f"SELECT count(*) AS n {where}", values)[0]["n"])

    def progress(self, filters: Filters) -> Progress:
        """How far the captions under these filters are decided, now; the filter by decision is left out."""
        train = [(v["decision"], n) for v, n in self._passing(filters, but="decision") if v["split"] == "train"]
        return Progress(sum(n for _, n in train), sum(n for state, n in train if state in ("accept", "edit", "reject")))

    def page(self, filters: Filters, after: str = "", before: str = "", size: int = PAGE) -> Page:
        """The captions that follow a key, or that stand before one; keys are those of rows, or of pages beside.

        Raises:
            ValueError: the key is none.
        """
        where, values = self._where(filters)
        opinions = "coalesce(e.opinions, c.opinions)" if " e ON " in where else "c.opinions"
        key = SORTS[filters.sort].format(opinions=opinions)
        down = filters.sort != "id"  # the largest first, except by id
        total = self.count(filters)
        back = bool(before)
        condition = ""
        if mark := before or after:
            value, rank = _key(mark)
            further = "<" if down != back else ">"
            condition = f"AND ({key} {further} ? OR ({key} = ? AND c.rank {'<' if back else '>'} ?))"
            values = [*values, value, value, rank]
        order = f"{key} {'DESC' if down != back else 'ASC'}, c.rank {'DESC' if back else 'ASC'}"
        found = self._rows(
            f"SELECT c.pos, {key} AS value, c.rank {where} {condition} ORDER BY {order} LIMIT {size + 1}", values
        )
        more = len(found) > size
        found = found[:size][::-1] if back else found[:size]
        keys = {row["pos"]: f"{row['value']}.{row['rank']}" for row in found}
        first, last = (keys[found[0]["pos"]], keys[found[-1]["pos"]]) if found else (None, None)
        return Page(
            self._read(keys),
            total,
            before=first if (more if back else bool(after)) else None,
            after=last if (True if back else more) else None,
        )

    def _read(self, keys: Mapping[int, str]) -> tuple[Row, ...]:
        """Captions by place, in the order of the places given."""
        places = list(keys)
        marks = ", ".join("?" * len(places))
        rows = self._rows(ROWS.format(marks=marks), [*places, *places]) if places else []
        standing = fold(self.log.histories([row["caption_id"] for row in rows]))
        found = {row["pos"]: _row(row, keys[row["pos"]], standing.get(row["caption_id"])) for row in rows}
        return tuple(found[place] for place in places)

    def row(self, caption_id: str) -> Row | None:
        """One caption by its id; None where the version does not hold it."""
        rows = self._rows("SELECT pos, rank FROM captions WHERE caption_id = ?", [caption_id])
        return self._read({rows[0]["pos"]: f"{rows[0]['rank']}.{rows[0]['rank']}"})[0] if rows else None

    def _decidable(self, filters: Filters) -> tuple[str, list[Any]]:
        """The captions under the filters that people may decide on, and on which nobody has since `asof`."""
        where, values = self._where(filters.with_(sort="id"))
        where += " AND c.split = 'train'"
        if filters.asof is not None:
            where += " AND c.pos NOT IN (SELECT pos FROM earlier WHERE seq > ?)"
            values.append(filters.asof)
        return where, values

    def count_decidable(self, filters: Filters) -> int:
        """How many decisions `drafts` makes."""
        where, values = self._decidable(filters)
        return cast(int, self._rows(f"SELECT count(*) AS n {where}", values)[0]["n"])

    def drafts(self, filters: Filters, kind: Kind) -> list[Draft]:
        """One decision for every caption under the filters that people may decide on, and nobody has since `asof`."""
        where, values = self._decidable(filters)
        rows = self._rows(f"SELECT c.pos, c.rank {where} ORDER BY c.rank", values)
        drafts = []
        for start in range(0, len(rows), 1000):
            part = self._read({row["pos"]: f"0.{row['rank']}" for row in rows[start : start + 1000]})
            drafts += [draft(row, kind, row.proposed, self.version.name) for row in part]
        return drafts

    # --- one caption -------------------------------------------------------------------------------------------------

    def details(self, caption_id: str) -> dict[str, Any]:
        """The columns that only one caption's page shows, from its shard: edits, queries, gates, refiner, reply, ..."""
        return self._from_shard("captions", "caption_id", caption_id, DETAILS) or {}

    def image(self, image_id: str) -> dict[str, Any] | None:
        """What is known of an image, without its bytes; None where the version does not hold it."""
        rows = self._rows("SELECT * EXCLUDE (pos) FROM images WHERE image_id = ?", [image_id])
        return rows[0] if rows else None

    def image_bytes(self, image_id: str) -> bytes | None:
        """The bytes of an image; None where the version does not hold it."""
        row = self._from_shard("images", "image_id", image_id, "image.bytes AS bytes")
        return cast(bytes, row["bytes"]) if row else None

    def _from_shard(self, table: str, key: str, value: str, columns: str) -> dict[str, Any] | None:
        place = self._rows(f"SELECT pos FROM {table} WHERE {key} = ?", [value])
        if not place:
            return None
        path = self._paths(table)[place[0]["pos"] >> 32]
        try:
            rows = self._rows(
                f"SELECT {columns} FROM read_parquet(?, hive_partitioning=false) WHERE {key} = ?",
                [glob.escape(path), value],
            )
        except duckdb.Error as error:
            raise DatasetError(f"Shard {path} cannot be read: run `georefine verify`, then rebuild.") from error
        return rows[0] if rows else None

    def tiles(self, image_id: str) -> list[dict[str, Any]]:
        """The augmented tiles of an image, or, for a tile, its original and the others; the image itself first."""
        return self._rows(
            """
            SELECT i.* EXCLUDE (pos) FROM images i, (SELECT coalesce(parent_image_id, image_id) AS root
              FROM images WHERE image_id = $1) o
            WHERE i.image_id = o.root OR i.parent_image_id = o.root
            ORDER BY i.image_id <> $1, i.parent_image_id IS NOT NULL, i.image_id""",
            [image_id],
        )

    def regions(self, image_id: str) -> list[dict[str, Any]]:
        """Region sentences of an image with their boxes (cx, cy, w, h in 0..1)."""
        return self._rows("SELECT region_id, sentence, stripped, bbox FROM regions WHERE image_id = ?", [image_id])

    def on_image(self, image_id: str) -> list[str]:
        """Ids of the captions of an image, in order."""
        rows = self._rows("SELECT caption_id FROM captions WHERE image_id = ? ORDER BY rank", [image_id])
        return [row["caption_id"] for row in rows]

    def siblings(self, building_id: str, split: str, but: str, per_platform: int = 2) -> list[dict[str, Any]]:
        """A few original images of the same building on each platform, each with its first caption."""
        return self._rows(
            """
            SELECT platform, image_id, caption_id, final FROM (
              SELECT c.*, row_number() OVER (PARTITION BY platform ORDER BY image_id) AS nth FROM (
                SELECT c.platform, c.image_id, min_by(c.caption_id, c.rank) AS caption_id, min_by(c.pos, c.rank) AS pos
                FROM captions c WHERE c.building_id = ? AND c.split = ? AND c.tile = 'original' AND c.image_id <> ?
                GROUP BY c.platform, c.image_id) c) c
            JOIN texts t ON t.pos = c.pos WHERE nth <= ?
            ORDER BY CASE platform WHEN 'satellite' THEN 0 WHEN 'drone' THEN 1 ELSE 2 END, image_id""",
            [building_id, split, but, per_platform],
        )

    def same_words(self, row: Row) -> list[Row]:
        """The same caption on the other tiles of its image, word for word, raw and proposed.

        Without those on which a decision of its own stands: a decision on this one does not speak of them.
        """
        tiles = [tile["image_id"] for tile in self.tiles(row.image_id)][1:]
        if not tiles or row.split != "train":
            return []
        marks = ", ".join("?" * len(tiles))
        found = self._rows(f"SELECT pos, rank FROM captions WHERE image_id IN ({marks}) ORDER BY rank", tiles)
        rows = self._read({place["pos"]: f"0.{place['rank']}" for place in found})
        batch = row.decision.batch if row.decision else ""
        free = [r for r in rows if r.decision is None or r.state == "stale" or r.decision.batch == batch]
        return [r for r in free if r.raw == row.raw and r.proposed == row.proposed]

    # --- at a glance -------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, int]:
        """How many captions of the train split are in each state of decision."""
        return dict(next(facet.values for facet in self.facets(Filters(split="train")) if facet.name == "decision"))

    def changes(self) -> dict[str, int]:
        """How many captions are new or changed since the version before, and how many are gone."""
        found = next(facet.values for facet in self.facets(Filters()) if facet.name == "change")
        return {**dict(found), "removed": self.removed}

    def gates(self) -> list[tuple[str, int]]:
        """Gates by how many captions fail them, most first."""
        return sorted(self._gates(Filters()).items(), key=lambda pair: (-pair[1], pair[0]))

    def histogram(self, column: Literal["words", "edit"], width: int, bins: int) -> dict[str, list[int]]:
        """Per platform how many captions of the train split have a size in each bin; the last bin takes the rest."""
        if column in self._plots:
            return self._plots[column]
        rows = self._rows(
            f"SELECT c.platform, least(s.{column} // {width}, {bins - 1})::INT AS bin, count(*) AS n FROM captions c "
            "JOIN sizes s ON s.pos = c.pos WHERE c.split = 'train' GROUP BY ALL"
        )
        found: dict[str, list[int]] = {}
        for platform in PLATFORMS:
            counts = {row["bin"]: row["n"] for row in rows if row["platform"] == platform}
            if counts:
                found[platform] = [counts.get(i, 0) for i in range(bins)]
        self._plots[column] = found
        return found


# Places are (number of the shard << 32) + row in the shard: a name for a row that needs no sorting.
_SOURCE = (
    "read_parquet(?, hive_partitioning=false, filename=true, file_row_number=true) t "
    "JOIN shards n ON n.path = t.filename"
)
_PLACE = "(n.number << 32) + t.file_row_number"


def _enum(name: str, values: Sequence[str]) -> str:
    """Five times faster to count by than text."""
    return f"CREATE TYPE {name} AS ENUM ({', '.join(repr(value) for value in values)});"


TABLES = f"""
{_enum("PLATFORM", PLATFORMS)} {_enum("SPLIT", SPLITS)} {_enum("STATUS", STATUSES)}
{_enum("TILE", TILES)} {_enum("CHANGE", ("", *CHANGES))} {_enum("STATE", STATES)}
CREATE TABLE shards (of VARCHAR, path VARCHAR, number BIGINT);
CREATE TABLE loaded (pos BIGINT, caption_id VARCHAR, image_id VARCHAR, building_id VARCHAR, platform VARCHAR,
  split VARCHAR, status VARCHAR, failed VARCHAR[]);
CREATE TABLE texts (pos BIGINT, raw VARCHAR, stripped VARCHAR, refined VARCHAR, final VARCHAR);
CREATE TABLE images (pos BIGINT, image_id VARCHAR, building_id VARCHAR, platform VARCHAR, split VARCHAR, role VARCHAR,
  width INT, height INT, sha256 VARCHAR, parent_image_id VARCHAR, transform VARCHAR);
CREATE TABLE regions (region_id VARCHAR, image_id VARCHAR, sentence VARCHAR, stripped VARCHAR, bbox FLOAT[4]);
CREATE TABLE before (caption_id VARCHAR, final VARCHAR);
CREATE TABLE changes (caption_id VARCHAR, change VARCHAR);
CREATE TABLE earlier (pos BIGINT, seq BIGINT, state STATE, opinions INT);
"""
# Equal texts are kept once: most captions differ from the stage before in one stage only.
INSERTS = {
    "captions": (
        f"""
        INSERT INTO loaded SELECT {_PLACE}, caption_id, image_id, building_id, platform::VARCHAR, split::VARCHAR,
          status, list_transform(list_filter(gates, lambda g: NOT g.passed), lambda g: g.gate) FROM {_SOURCE}""",
        f"""
        INSERT INTO texts SELECT {_PLACE}, raw, nullif(stripped, raw), nullif(refined, final), final FROM {_SOURCE}""",
    ),
    "images": (
        f"""
        INSERT INTO images SELECT {_PLACE}, image_id, building_id, platform::VARCHAR, split::VARCHAR, role, width,
          height, sha256, parent_image_id, transform FROM {_SOURCE}""",
    ),
    "regions": (
        f"INSERT INTO regions SELECT region_id, image_id, sentence, stripped, bbox FROM {_SOURCE} "
        "ORDER BY t.filename, t.file_row_number",
    ),
}
BEFORE = "INSERT INTO before SELECT caption_id, final FROM read_parquet(?, hive_partitioning=false)"
_NEW = "(SELECT l.caption_id, t.final FROM loaded l JOIN texts t ON t.pos = l.pos WHERE list_contains(?, l.pos >> 32))"
CHANGED = f"""
INSERT INTO changes SELECT n.caption_id, CASE WHEN b.caption_id IS NULL THEN 'added' ELSE 'changed' END
FROM {_NEW} n LEFT JOIN before b ON b.caption_id = n.caption_id
WHERE b.caption_id IS NULL OR b.final IS DISTINCT FROM n.final"""
REMOVED = f"SELECT count(*) FROM before b ANTI JOIN {_NEW} n ON n.caption_id = b.caption_id"
CAPTIONS = """
CREATE TABLE captions AS
SELECT (row_number() OVER (ORDER BY l.caption_id))::INT AS rank, l.* REPLACE (
    l.platform::PLATFORM AS platform, l.split::SPLIT AS split, l.status::STATUS AS status),
  len(l.failed)::INT AS failures,
  CASE WHEN i.parent_image_id IS NULL THEN 'original' ELSE 'augmented' END::TILE AS tile,
  coalesce(h.change, '')::CHANGE AS change,
  CASE WHEN l.split = 'train' THEN 'open' ELSE 'evidence' END::STATE AS decision,
  0::INT AS opinions, 0::INT AS revision
FROM loaded l LEFT JOIN images i ON i.image_id = l.image_id LEFT JOIN changes h ON h.caption_id = l.caption_id;
DROP TABLE loaded; DROP TABLE changes; DROP TABLE before;
"""
_STANDING = """
(SELECT c.pos, m.* REPLACE (CASE WHEN c.split <> 'train' THEN 'evidence'
    WHEN m.source IS NOT NULL AND m.source <> sha256(t.raw) THEN 'stale' ELSE m.state END::STATE AS state)
  FROM {} m JOIN captions c ON c.caption_id = m.caption_id JOIN texts t ON t.pos = c.pos) m"""
EARLIER = f"INSERT INTO earlier SELECT m.pos, m.seq, m.state, m.opinions FROM {_STANDING.format('before')}"
MOVED = f"""
UPDATE captions SET decision = m.state, opinions = m.opinions, revision = m.revision
FROM {_STANDING.format("moved")} WHERE m.pos = captions.pos"""
STANDS = pa.schema(
    {
        "caption_id": pa.string(),
        "seq": pa.int64(),
        "state": pa.string(),
        "source": pa.string(),
        "opinions": pa.int32(),
        "revision": pa.int32(),
    }
)
ROWS = """
SELECT c.*, t.raw, coalesce(t.stripped, t.raw) AS stripped, coalesce(t.refined, t.final) AS refined, t.final,
  sha256(t.raw) AS source FROM captions c JOIN texts t ON t.pos = c.pos
WHERE c.pos IN ({marks}) AND t.pos IN ({marks})"""
DETAILS = "edits, queries, gates, refiner, prompt_version, reply_key, reply"
CROSSED = ("platform", "split", "status", "decision", "tile", "change")
FACETS: dict[str, Sequence[str]] = {
    "platform": PLATFORMS,
    "split": SPLITS,
    "status": STATUSES,
    "decision": STATES,
    "tile": TILES,
    "change": CHANGES,
    "gate": (),
}


def _patterns(version: Version, table: str) -> list[str]:
    """Paths of the shards as DuckDB takes them: it reads * ? [ in a path as a pattern."""
    return [glob.escape(str(version.path / shard.path)) for shard in version.shards(table)]


def _previous(version: Version) -> Version | None:
    names = complete_versions(version.path.parent)
    earlier = [name for name in names if int(name[1:]) < int(version.name[1:])]
    with suppress(GeorefineError):
        return open_version(version.path.parent / earlier[-1]) if earlier else None
    return None


def _push(stack: list[_Mark], event: Event) -> None:
    stack.append(_Mark(event.seq, event.kind, event.reviewer, hash((event.kind, event.new_text)), event.source_sha256))


def _alive(stack: Sequence[_Mark]) -> list[_Mark]:
    """The decisions that were not undone, oldest first; an undo takes back the newest of them."""
    alive: list[_Mark] = []
    for mark in stack:
        if mark.kind != "undo":
            alive.append(mark)
        elif alive:
            alive.pop()
    return alive


def _standing(stack: Sequence[_Mark]) -> _Mark | None:
    return alive[-1] if (alive := _alive(stack)) else None


def _stand(caption_id: str, seq: int, stack: Sequence[_Mark]) -> dict[str, Any]:
    """How a caption stands at an event: a row of STANDS."""
    mark = _standing(stack)
    return {
        "caption_id": caption_id,
        "seq": seq,
        "state": mark.kind if mark else "open",
        "source": mark.source_sha256 if mark else None,
        "opinions": _opinions(stack),
        "revision": len(stack),
    }


def _opinions(stack: Sequence[_Mark]) -> int:
    """How many outcomes people disagree about beyond the first: each reviewer's last word counts."""
    words = {mark.reviewer: mark.outcome for mark in _alive(stack)}
    return max(len(set(words.values())) - 1, 0)


def _row(values: Mapping[str, Any], key: str, decision: Decision | None) -> Row:
    return Row(
        caption_id=values["caption_id"],
        image_id=values["image_id"],
        building_id=values["building_id"],
        platform=values["platform"],
        split=values["split"],
        status=values["status"],
        tile=values["tile"],
        raw=values["raw"],
        stripped=values["stripped"],
        refined=values["refined"],
        final=values["final"],
        failed=tuple(values["failed"]),
        state=values["decision"],
        revision=values["revision"],
        source_sha256=values["source"],
        key=key,
        decision=decision,
    )


def draft(row: Row, kind: Kind, text: str, version: str, revision: int | None = None) -> Draft:
    """A decision on a caption as it is shown: accept keeps the text, edit replaces it, reject leaves none."""
    seen = row.revision if revision is None else revision
    return Draft(row.caption_id, kind, row.proposed, "" if kind == "reject" else text, version, row.source_sha256, seen)


def _key(mark: str) -> tuple[int, int]:
    value, _, rank = mark.partition(".")
    if not (re.fullmatch(r"\d{1,12}", value) and re.fullmatch(r"\d{1,12}", rank)):
        raise ValueError(f"{mark!r} is no place in a queue")
    return int(value), int(rank)


def _words(text: str) -> list[str]:
    """What a search looks for: words, and phrases in double quotes; lower case."""
    parts = re.findall(r'"([^"]*)"|(\S+)', lower(text[:LONGEST_SEARCH]))
    found = [(phrase or word.replace('"', "")).strip() for phrase, word in parts]
    return [word for word in dict.fromkeys(found) if word][:8]
