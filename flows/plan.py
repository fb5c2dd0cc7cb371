"""What a rebuild would do, before it does it: the key of every shard, and why a key changed.

`georefine rebuild SOURCE --out DATASET --plan`. A shard's key is a hash of everything that its bytes depend on, kept
apart by kind: the code, the part of the configuration that it reads, its images, captions and regions, the replies of
the model, people's decisions.
"""

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from data.hashes import Hashes
from data.shards import atomic_write
from flows.jobs import ShardJob, variants
from flows.results import ShardResult, stored_result, was_finished
from schemas.config import config_dict
from schemas.records import Split

ROOT = Path(__file__).resolve().parent.parent
# Whatever may change a shard's bytes while its input stays the same: our own code and word lists, and these libraries.
CODE = (
    "flows/jobs.py",
    "flows/results.py",
    "flows/steps.py",
    "data/images.py",
    "data/shards.py",
    "schemas/records.py",
    "schemas/tables.py",
)
CODE_OF_TRAIN = (  # val and test pass through unchanged, so nothing here concerns them
    "flows/refining.py",
    "flows/wording.py",
    "refine",
    "review/decisions.py",
    "augment",
    "schemas/symmetry.py",
)
DATA = (".py", ".yaml", ".tsv", ".gz", ".txt")
OWN = "georefine"
LIBRARIES = ("albumentations", "numpy", "opencv-python-headless", "pillow", "pyarrow", "spacy")
PLAN = "plan.json"
TEXT_GROWTH = 4  # bytes in a shard for a character of the source: raw, stripped, refined, final, replies, compressed
MARGIN = 64 * 2**20  # for manifest, card, hashes and what is on its way


@dataclass(frozen=True)
class Planned:
    """A shard, its key, and whether .work holds its result.

    Attributes:
        parts: kind of input -> hash of it; the key is the hash of them all.
        stored: the result of an earlier run under this key, or None.
        reason: why it has to be made, in words; empty when it is stored.
        damaged: an earlier run finished it, but its files are not what they were.
    """

    job: ShardJob
    key: str
    parts: dict[str, str]
    stored: ShardResult | None
    reason: str
    damaged: bool = False


@dataclass(frozen=True)
class Plan:
    """Every shard of a rebuild, and the names of those that the last one had and this one has not."""

    shards: tuple[Planned, ...]
    dropped: tuple[str, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """{platform: {"reused": n, "recomputed": n, "dropped": n}}"""
        tally: Counter[tuple[str, str]] = Counter(
            (shard.job.platform, "reused" if shard.stored else "recomputed") for shard in self.shards
        )
        tally.update((name.split("platform=")[1].split("/")[0], "dropped") for name in self.dropped)
        what = ("reused", "recomputed", "dropped")
        return {p: {w: tally[p, w] for w in what} for p in sorted({platform for platform, _ in tally})}

    def damaged(self) -> list[str]:
        """Names of the shards of which .work holds a damaged result."""
        return [shard.job.name for shard in self.shards if shard.damaged]

    def space(self) -> int:
        """Bytes on disk, roughly and not less, that the shards to be made will take."""
        total = 0
        for job in (shard.job for shard in self.shards if not shard.stored):
            copies = 1 + len(variants(job.config, job.split, job.platform))
            total += copies * (job.contents.bytes + TEXT_GROWTH * job.contents.characters)
        return total + MARGIN * (total > 0)


@cache
def code_read(split: Split) -> dict[str, str]:
    """What makes a shard: the hash of our own code and word lists, hexadecimal, and the versions of libraries."""
    digest = hashlib.sha256()
    for name in (*CODE, *(CODE_OF_TRAIN if split == "train" else ())):
        paths = [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.*"))
        for path in (p for p in paths if p.suffix in DATA):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return {OWN: digest.hexdigest()} | {library: importlib.metadata.version(library) for library in LIBRARIES}


def step_version(split: Split) -> str:
    """Hash of the code, the word lists and the library versions that a shard's bytes depend on, hexadecimal."""
    return _hash(code_read(split))


def config_read(job: ShardJob) -> dict[str, Any]:
    """The part of the configuration that a shard of this split reads."""
    config = config_dict(job.config)
    read = {"max_pixels": config["partition"]["max_pixels"]}
    if job.split == "train":
        asks_model = job.config.refine.refiner == "vllm"
        # Where the model lies does not matter: its revision is part of every answer.
        config["refine"]["model"] = Path(job.config.refine.model).name
        read["orientation"] = {job.platform: config["orientation"][job.platform]}
        read["refine"] = config["refine"] if asks_model else {"refiner": config["refine"]["refiner"]}
        if job.platform == "satellite":
            read |= {"seed": config["seed"], "augment": config["augment"]}
    return read


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def key_parts(job: ShardJob) -> dict[str, str]:
    """Kind of input -> hash, for everything that the bytes of a shard depend on."""
    return {
        "code": step_version(job.split),
        "config": _hash(config_read(job)),
        "images": job.contents.images,
        "captions": job.contents.captions,
        "regions": job.contents.regions,
        "replies": job.answers and Path(job.answers).stem,
        "decisions": _hash([(d.caption_id, d.kind, d.text, d.source_sha256) for d in job.decisions]),
    }


def plan_shard(job: ShardJob, hashes: Hashes, before: Mapping[str, Any]) -> Planned:
    """The key of one shard, whether its result is stored undamaged, and if not, why it has to be made.

    Args:
        before: what `remember` wrote of this shard's last run: {"parts": {...}, "config": {...}, "code": {...}}, or
            nothing.
    """
    parts = key_parts(job)
    key = _key(job, parts)
    stored = stored_result(job, key, hashes)
    damaged = stored is None and was_finished(job, key)
    reason = "its stored result is damaged" if damaged else "" if stored else _reason(job, parts, before)
    made_before = "" if stored else _made_before(job, parts, hashes, before)
    return Planned(replace(job, before=made_before), key, parts, stored, reason, damaged)


def _made_before(job: ShardJob, parts: Mapping[str, str], hashes: Hashes, before: Mapping[str, Any]) -> str:
    """Folder of the shard's last result, if it is undamaged and was made by the same rules."""
    if not before or job.split != "train" or before["parts"].get("code") != parts["code"]:
        return ""
    last = stored_result(job, _key(job, before["parts"]), hashes)
    return last.folder if last else ""


def _key(job: ShardJob, parts: Mapping[str, Any]) -> str:
    return _hash([job.split, job.platform, parts])


def _reason(job: ShardJob, parts: Mapping[str, str], before: Mapping[str, Any]) -> str:
    if not before:
        return "new"
    changed = [kind for kind, digest in parts.items() if before["parts"].get(kind) != digest]
    said = {
        "code": _other_code(before.get("code"), code_read(job.split)),
        "config": f"configuration: {_difference(before['config'], config_read(job))}",
        "replies": "the model's replies",
        "decisions": "decisions of reviewers",
    }
    return "; ".join(said.get(kind, kind) for kind in changed) or "its stored result is missing"


def _other_code(old: object, new: Mapping[str, str]) -> str:
    if not isinstance(old, dict):
        return "georefine or a library is another version"
    changed = [name for name in new if old.get(name) != new[name]]
    return "another version of " + ", ".join(
        name if name == OWN else f"{name} ({old.get(name)} -> {new[name]})" for name in changed
    )


def _difference(old: object, new: object, key: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return ", ".join(_difference(old.get(name), new.get(name), f"{key}.{name}".lstrip(".")) for name in names)
    return f"{key} {json.dumps(old)} -> {json.dumps(new)}"


def plan(jobs: Sequence[ShardJob], hashes: Hashes, work: Path) -> Plan:
    """What has to be made of the jobs, and what of the last rebuild is no longer there."""
    before = _last(work)
    shards = tuple(plan_shard(job, hashes, before.get(job.name, {})) for job in jobs)
    return Plan(shards, tuple(sorted(before.keys() - {job.name for job in jobs})))


def remember(planned: Plan, work: Path) -> None:
    """Keep the keys of a finished rebuild, so that the next plan can say what changed."""
    kept = {
        shard.job.name: {
            "parts": shard.parts,
            "config": config_read(shard.job),
            "code": code_read(shard.job.split),
        }
        for shard in planned.shards
    }
    atomic_write(work / PLAN, json.dumps(kept, sort_keys=True).encode("utf-8", "surrogatepass"))


def _last(work: Path) -> dict[str, Any]:
    try:
        kept = json.loads((work / PLAN).read_text(encoding="utf-8"))
        whole = {n: v for n, v in kept.items() if isinstance(v["parts"], dict) and isinstance(v["config"], dict)}
        return {name: value for name, value in whole.items() if "/platform=" in name}
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return {}


def lines(planned: Plan) -> list[str]:
    """The plan as text: counts per platform, then every shard that is made or dropped, with the reason."""
    table = [
        f"{platform}: {n['reused']} shard{'s' * (n['reused'] != 1)} reused, {n['recomputed']} recomputed, "
        f"{n['dropped']} dropped"
        for platform, n in planned.counts().items()
    ]
    made = [f"  make {shard.job.name}: {shard.reason}" for shard in planned.shards if not shard.stored]
    space = [f"  needs about {planned.space() / 1e6:,.0f} MB of free disk"] if made else []
    return [*table, *made, *space, *(f"  drop {name}" for name in planned.dropped)]
