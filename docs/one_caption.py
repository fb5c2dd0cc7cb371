"""Walks captions from raw to final through the tiny model behind a real vLLM, and prints the walk as a page.

.venv/bin/python docs/one_caption.py > docs/one_caption.md       # `make vllm` first; about two minutes on two cores
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data.campus import write_world
from refine.gates import check
from refine.orientation import strip
from refine.prompts import body, reply_key, template
from refine.replies import Answer, ReplyStore
from refine.server import model_of, serving
from refine.tiny_rewriter import MODEL
from refine.vllm import Ask, refine_all
from schemas.config import RefineConfig, ServerConfig
from schemas.records import Refined

CONFIG = RefineConfig(refiner="vllm", model=str(MODEL))
CAPTIONS = 200
SEED = 11  # of a sample world that the tiny model was not trained on


def raw_captions(folder: Path) -> list[str]:
    """Satellite captions of a sample world, each once, in file order."""
    write_world(folder, buildings=40, seed=SEED, workers=1)
    records = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    raws = [record["caption"] for record in records if "/satellite/" in f"/{record['image']}"]
    return list(dict.fromkeys(raws))[:CAPTIONS]


def attempts(ask: Ask, store: ReplyStore, name: str, revision: str) -> Iterator[tuple[dict[str, object], str, Answer]]:
    """Request, key and answer of every attempt at a caption, from the store alone."""
    refused: tuple[str, ...] = ()
    for attempt in range(CONFIG.attempts):
        request = body(name, ask.platform, ask.stripped.text, CONFIG, attempt=attempt, refused=refused)
        key = reply_key(request, revision)
        answer = store.get(key)
        if answer is None:
            return
        yield json.loads(request), key, answer
        refused = answer.refused


def block(kind: str, text: str) -> None:
    print(f"```{kind}\n{text}\n```\n")


def show(title: str, raw: str, ask: Ask, row: Refined, tries: list[tuple[dict[str, object], str, Answer]]) -> None:
    """Print one caption's way."""
    print(f"## {title}\n\n**Raw**, as it stands in the source:\n")
    block("text", raw)
    print("**Stripped** of orientation by these edits (code points of the raw caption):\n")
    print("| start | end | old | new |\n|---|---|---|---|")
    for edit in ask.stripped.edits:
        print(f"| {edit.start} | {edit.end} | `{edit.old}` | `{edit.new}` |")
    print()
    block("text", ask.stripped.text)
    for number, (request, key, answer) in enumerate(tries, start=1):
        messages = request.pop("messages")
        assert isinstance(messages, list)
        print(f"**Request {number}**: {len(messages)} messages, the last of them, and what stands beside them:\n")
        block("text", messages[-1]["content"])
        block("json", json.dumps(request, sort_keys=True))
        tokens = f"{answer.prompt_tokens} + {answer.completion_tokens} tokens, finish_reason `{answer.finish}`"
        print(f"**Reply {number}**, as it came ({tokens}), stored under `{key[:16]}…`:\n")
        block("json", answer.text)
        if answer.refused:
            print("**Refused** by the gates:\n")
            print("\n".join(f"- {reason}" for reason in answer.refused), end="\n\n")
        else:
            names = ", ".join(gate.gate for gate in check(ask.platform, ask.stripped.text, answer.text))
            print(f"**Passed** every gate: {names}.\n")
    print("**Row** of the captions table:\n")
    print("| column | value |\n|---|---|")
    for name in ("status", "final", "queries", "refiner", "prompt_version", "reply_key"):
        value = getattr(row, name)
        print(f"| {name} | {'<br>'.join(value) if isinstance(value, tuple) else value} |")
    print()


def main() -> None:
    """Refine a sample world's captions; print one accepted at once, one after a refusal, and one left to the rules."""
    model = model_of(CONFIG, [])
    with tempfile.TemporaryDirectory() as folder:
        raws = raw_captions(Path(folder) / "world")
        asks = [Ask(strip(raw), "satellite", None, raw) for raw in raws]
        store = Path(folder) / "replies.sqlite"

        def report(step: str, done: int, total: int, detail: str) -> None:
            print(f"{step} {done}/{total} {detail}", file=sys.stderr)

        with serving(model, ServerConfig(), Path(folder) / "vllm.log", report) as urls:
            rows = dict(
                refine_all(
                    asks, model=model, config=CONFIG, server=ServerConfig(), urls=urls, store=store, report=report
                )
            )
        with ReplyStore(store) as kept:
            walks = {ask: list(attempts(ask, kept, model.name, model.revision)) for ask in asks}
    wanted = {
        "Accepted at once": lambda ask: rows[ask].status == "refined" and len(walks[ask]) == 1,
        "Accepted after a refusal": lambda ask: rows[ask].status == "refined" and len(walks[ask]) > 1,
        "Left to the rules": lambda ask: rows[ask].status == "fallback",
    }
    print("# A caption from raw to final\n")
    print(
        "Printed by `.venv/bin/python docs/one_caption.py`: satellite captions of a sample world (seed 11), rewritten"
    )
    print("by the tiny model that comes along, served by a real vLLM. How it works: [refinement.md](refinement.md),")
    print("[vllm.md](vllm.md). The first message of every request says what the platform sees:\n")
    block("text", template("satellite").system)
    for title, chosen in wanted.items():
        ask = next(filter(chosen, asks), None)
        if ask is not None:
            show(title, str(ask.tag), ask, rows[ask], walks[ask])
    accepted = sum(row.status == "refined" for row in rows.values())
    print(f"Of {len(rows)} captions {accepted} were accepted, {len(rows) - accepted} left to the rules, none lost.")


if __name__ == "__main__":
    main()
