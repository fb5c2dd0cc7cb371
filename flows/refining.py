"""The model's part of a rebuild: what a vLLM server makes of the captions of every train shard, kept in .work/answers.

    model = chosen_model(config, work, only_stored=False)
    jobs, unanswered = with_answers(jobs, model, work, hashes, code)
    jobs, tally = answered(jobs, model, config, work, code, report, only_stored=False)

Every reply lies in the reply store, `.work/replies.sqlite`; the answers of a shard are what the gates and the retries
made of them. Both are kept, so that a rebuild that changes nothing neither asks nor judges again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from data.hashes import Hashes
from data.shards import atomic_write
from flows.jobs import ShardJob
from flows.wording import caption_wordings
from schemas.config import Config, config_dict
from schemas.errors import AccountingError
from schemas.records import GateResult, Refined, Stripped

if TYPE_CHECKING:
    from refine.server import Model
    from refine.vllm import Ask

Report = Callable[[str, int, int, str], None]
Answers = dict[tuple[str, str], Refined]  # (image id, wording) -> what became of it
STORE = "replies.sqlite"
ASKED = "model.json"  # the model of the last run, as its servers knew it


def chosen_model(config: Config, work: Path, *, only_stored: bool) -> "Model":
    """The model to ask, noted for later; with `only_stored`, the one that earlier runs asked, and no server is needed.

    Raises:
        ConfigError, RefinerError: none can be told, see refine.server.model_of.
    """
    from refine.server import model_of

    model = _noted_model(config, work) if only_stored else None
    if model is None:
        model = model_of(config.refine, config.server.urls)
        atomic_write(work / ASKED, json.dumps(asdict(model)).encode())
    return model


def _noted_model(config: Config, work: Path) -> "Model | None":
    """The model of the last run, unless the configuration names another."""
    from refine.server import Model, model_of

    named = model_of(config.refine, ()) if config.refine.model else None
    try:
        noted = Model(**json.loads((work / ASKED).read_bytes()))
    except (OSError, ValueError, TypeError):  # no run yet, or a damaged note
        return named
    if named:
        return noted if (named.path, named.revision) == (noted.path, noted.revision) else named
    return noted if config.refine.revision in ("", noted.revision) else None


def read_answers(path: Path) -> Answers:
    """The answers of one shard, without their edits."""
    answers: Answers = {}
    for row in json.loads(path.read_text(encoding="utf-8", errors="surrogatepass")):
        image_id = row.pop("image_id")
        row["gates"] = tuple(GateResult(**gate) for gate in row["gates"])
        row["queries"] = tuple(row["queries"])
        text = row.pop("text")
        answers[image_id, text] = Refined(stripped=Stripped(text), **row)
    return answers


def _write_answers(folder: Path, key: str, answers: Answers) -> Path:
    """Write the answers of one shard under the name KEY-CONTENT.json, where CONTENT is the hash of what is in it."""
    rows = []
    for (image_id, text), refined in sorted(answers.items()):
        row = asdict(replace(refined, stripped=Stripped("")))
        del row["stripped"]
        rows.append({"image_id": image_id, "text": text, **row})
    data = json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")
    path = folder / f"{key}-{hashlib.sha256(data).hexdigest()}.json"
    atomic_write(path, data)
    return path


def _stored(folder: Path, key: str, hashes: Hashes) -> Path | None:
    """The answers of an earlier run under the same key, if they are undamaged."""
    for path in sorted(folder.glob(f"{key}-*.json")):
        with suppress(OSError):  # as good as damaged
            if hashes.of(path) == path.stem.partition("-")[2]:
                return path
    return None


def _wordings(job: ShardJob) -> list[tuple[str, str]]:
    """(image id, wording) of everything that the model is asked about, each once."""
    captions = job.rows().captions
    image_of = {caption.caption_id: caption.image_id for caption in captions}
    said = caption_wordings(captions, job.platform, job.config)
    return list(dict.fromkeys((image_of[caption_id], stripped.text) for (caption_id, _), stripped in said.items()))


def _key(job: ShardJob, model: "Model", code: str) -> str:
    from refine.prompts import prompt_version

    config = config_dict(job.config)
    del config["refine"]["model"]  # a path; name and revision stand below
    content = {
        "code": code,
        "model": [model.name, model.revision],
        "prompt": prompt_version(job.platform),
        "config": [config[key] for key in ("seed", "orientation", "augment", "refine")],
        "captions": job.contents.captions,
        "images": job.contents.images if job.config.refine.images else "",
        "platform": job.platform,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _image(job: ShardJob, image_id: str, text: str) -> bytes | None:
    """The picture to show with a wording: the tile itself, so never with words that were turned for a copy of it."""
    if not job.config.refine.images or job.config.orientation.mode(job.platform) == "remap":
        return None
    try:
        return (Path(job.source) / image_id).read_bytes()
    except OSError:
        return None  # refused later, with its captions


def _asks(
    jobs: Iterable[tuple[int, ShardJob]], missing: dict[int, int], answers: dict[int, Answers]
) -> Iterator["Ask"]:
    """Everything to ask about the jobs, read as it is wanted; blank wordings are answered at once."""
    from refine.refinement import refine_stripped
    from refine.vllm import Ask

    for number, job in jobs:
        wordings = _wordings(job)
        answers[number] = {w: refine_stripped(Stripped(w[1]), job.platform) for w in wordings if not w[1].strip()}
        wordings = [w for w in wordings if w[1].strip()]
        missing[number] = len(wordings)
        for image_id, text in wordings:
            yield Ask(Stripped(text), job.platform, _image(job, image_id, text), (number, image_id, text))


def with_answers(
    jobs: Sequence[ShardJob], model: "Model", work: Path, hashes: Hashes, code: str
) -> tuple[list[ShardJob], list[str]]:
    """The jobs with the answers of earlier runs, and a line for every shard that the model must be asked about.

    Args:
        code: version of everything between a caption and its answer (flows.plan.step_version).
    """
    found: list[ShardJob] = []
    unanswered: list[str] = []
    for job in jobs:
        path = _stored(work / "answers", _key(job, model, code), hashes) if _asks_model(job) else None
        found.append(replace(job, answers=str(path)) if path else job)
        if _asks_model(job) and not path:
            unanswered.append(
                f"  refine {job.name}: {job.contents.number} caption{'s' * (job.contents.number != 1)} by {model.name}"
            )
    return found, unanswered


def _asks_model(job: ShardJob) -> bool:
    return job.split == "train" and job.contents.number > 0


def answered(
    jobs: Sequence[ShardJob],
    model: "Model",
    config: Config,
    work: Path,
    code: str,
    report: Report,
    *,
    only_stored: bool,
) -> tuple[list[ShardJob], dict[str, Any]]:
    """The jobs that `with_answers` gave, now all of the train split with answers; asks the model about what is missing.

    Args:
        only_stored: send nothing; captions without an accepted reply in the store fall back to the rules.

    Returns:
        The jobs, and what was sent, accepted and refused (refine.vllm.Tally as a dict; empty when nothing was missing),
        with the number of damaged files of answers where there were some.

    Raises:
        RefinerError: no server can be used; every reply that came is kept.
    """
    from refine.batch import answer_in_batches
    from refine.server import serving

    pending = [(number, job) for number, job in enumerate(jobs) if _asks_model(job) and not job.answers]
    if not pending:
        return list(jobs), {}
    pending.sort(key=lambda pair: pair[1].name)  # one platform after the other, for the server's prefix cache
    keys = {number: _key(job, model, code) for number, job in pending}
    damaged = sum(any((work / "answers").glob(f"{key}-*.json")) for key in keys.values())
    if config.server.batch and not only_stored:
        answer_in_batches(
            lambda: _asks(pending, {}, {}),
            model=model,
            config=config.refine,
            server=config.server,
            store=work / STORE,
            folder=work / "batch",
            report=report,
        )
        only_stored = True
    if only_stored:
        done, tally = _ask(pending, model, config, [], work, keys, report)
    else:
        with serving(model, config.server, work / "vllm.log", report) as urls:
            done, tally = _ask(pending, model, config, urls, work, keys, report)
    tally |= {"damaged_answers": damaged} if damaged else {}
    return [done.get(number, job) for number, job in enumerate(jobs)], tally


def _wordings_each(config: Config) -> int:
    """How many wordings a caption has at most; those that agree are asked about once, so that a bar may jump."""
    return 1 + config.augment.variants if config.orientation.satellite != "strip" else 1


def _ask(
    pending: Sequence[tuple[int, ShardJob]],
    model: "Model",
    config: Config,
    urls: Sequence[str],
    work: Path,
    keys: dict[int, str],
    report: Report,
) -> tuple[dict[int, ShardJob], dict[str, Any]]:
    from refine.vllm import Tally, refine_all

    by_number = dict(pending)
    missing: dict[int, int] = {}
    answers: dict[int, Answers] = {}
    done: dict[int, ShardJob] = {}
    tally = Tally()
    total = sum(job.contents.number for _, job in pending) * _wordings_each(config)

    def settle() -> None:
        """Write the answers of the jobs that are complete, and forget them."""
        for number in [n for n, count in list(missing.items()) if not count]:  # a list: another thread reads asks
            rows = answers.pop(number)
            # The next run does not find the answers to a caption that it shall ask about again.
            key = keys[number] if all(row.is_settled for row in rows.values()) else f"partial{keys[number]}"
            done[number] = replace(by_number[number], answers=str(_write_answers(work / "answers", key, rows)))
            del missing[number]

    for ask, refined in refine_all(
        _asks(pending, missing, answers),
        model=model,
        config=config.refine,
        server=config.server,
        urls=urls,
        store=work / STORE,
        report=report,
        only_stored=not urls,
        tally=tally,
        total=total,
    ):
        number, image_id, text = cast(tuple[int, str, str], ask.tag)
        answers[number][image_id, text] = refined
        missing[number] -= 1
        settle()
    settle()
    if missing or len(done) != len(pending):
        raise AccountingError(
            f"{sum(missing.values())} captions got no answer: nothing was published; please report this."
        )
    return done, asdict(tally)
