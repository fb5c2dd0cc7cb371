"""The judge gate, off by default: the same model compares a source with a rewrite that passed every other gate.

`refine.judge: true` in the configuration. It costs one more request for every such reply; its verdicts are stored like
all replies.
"""

import json

from refine.prompts import chat
from refine.replies import Answer
from schemas.config import RefineConfig
from schemas.records import GateResult

SYSTEM = """\
You compare a rewritten caption of an image with its source. The rewrite may use other words and leave details out. It \
is unfaithful when it states anything that the source does not: another or a new object, colour, material, number, \
name, size, shape, or place of one thing relative to another; or when it gives a property to the wrong thing.
Check every statement of the rewrite and of its queries against the source. Answer with one JSON object: "faithful", \
true or false; and "reason", one short sentence that names the fault, or "none"."""
VERDICT_SCHEMA = {
    "type": "object",
    "properties": {"faithful": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["faithful", "reason"],
    "additionalProperties": False,
}


def body(model_name: str, source: str, reply: str, config: RefineConfig) -> bytes:
    """The request for a verdict on a reply, as it is sent."""
    said = json.loads(reply)
    queries = "\n".join(f"- {query}" for query in said["queries"])
    question = f"Source: {source}\n\nRewrite: {said['caption']}\n\nQueries:\n{queries}"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return chat(model_name, messages, config, schema=VERDICT_SCHEMA, temperature=0.0, seed=0)


def gate(answer: Answer) -> GateResult:
    """The verdict as a gate; one that cannot be read fails, because a judge was asked for."""
    if not answer.is_reply or answer.finish != "stop":
        why = f"it was stopped by '{answer.finish}'" if answer.is_reply else answer.text
        return GateResult("judge", False, f"no verdict: {why}"[:300])
    try:
        verdict = json.loads(answer.text)
        faithful, reason = verdict["faithful"], verdict["reason"]
    except (ValueError, KeyError, TypeError, RecursionError):
        faithful, reason = None, ""
    if not isinstance(faithful, bool) or not isinstance(reason, str):
        return GateResult("judge", False, "no verdict: not the JSON that was asked for")
    return GateResult("judge", faithful, "" if faithful else (" ".join(reason.split())[:300] or "unfaithful"))
