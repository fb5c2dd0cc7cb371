"""Trains the tiny rewriting model from nothing: sample worlds, paraphrase grammar, tokenizer, model, scores, files.

    .venv/bin/pip uninstall --yes torchvision    # beside the CPU build of torch only: docs/encoders.md
    .venv/bin/python -m refine.tiny_rewriter.train [--out refine/tiny_rewriter/model]
    .venv/bin/python -m refine.tiny_rewriter.train --evaluate [--out …]     # scores of a trained model only

The same machine, thread count and versions give the same bytes. See docs/tiny_rewriter.md.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import (  # type: ignore[import-not-found,unused-ignore]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import (  # type: ignore[import-not-found,unused-ignore]
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from refine.gates import check
from refine.orientation import strip
from refine.rules import rewrite as rules_rewrite
from refine.tiny_rewriter import MODEL, prompt
from refine.tiny_rewriter.paraphrase import taught
from refine.tiny_rewriter.scores import as_json, score
from schemas.records import PLATFORMS, Platform, Reply

TRAIN_SEEDS = (101, 102, 103, 104, 105)  # of sample worlds; the demo's is 7, the tests' are 3 and 11
UNSEEN_SEED = 11
PER_WORLD = 2_400  # captions per platform taken from one world
UNSEEN = 200  # captions per platform that the scores are taken over
RETRIES = 0.08  # share of the examples that answer a retry
SEED = 20_261_123
THREADS = 1  # two are no faster where others work, and one adds up in the same order everywhere
VOCABULARY, POSITIONS = 1_024, 1_024
BATCH, STEPS = 16, 2_400
MUON_RATE, ADAM_RATE, WARM_UP = 0.02, 3e-3, 40
GO_ON = 0.5  # share of the rates where training goes on from a model
END, USER, ASSISTANT = "<|endoftext|>", "<|user|>", "<|assistant|>"
FOLDERS: dict[str, Platform] = {"satellite": "satellite", "drone": "drone", "street": "ground"}
DRAW = "import sys; from pathlib import Path; from data.campus import write_world; "
DRAW += "write_world(Path(sys.argv[1]), seed=int(sys.argv[2]))"
# Only the last user message reaches the model: two million weights cannot use instructions or examples.
CHAT_TEMPLATE = (
    "{%- set parts = messages[-1]['content'].split('\\nRefused: ') -%}"
    f"{{{{- '{USER}' + parts[0] -}}}}"
    "{%- if parts | length > 1 -%}{{- '\\nRefused.' -}}{%- endif -%}"
    f"{{{{- '{ASSISTANT}' -}}}}"
)


@dataclass(frozen=True)
class Example:
    """A caption as refinement sees it (satellite: stripped), and the answer that is taught, as JSON text."""

    platform: Platform
    source: str
    answer: str
    again: bool

    @property
    def question(self) -> str:
        """What stands between the markers of the chat template."""
        return prompt(self.platform, self.source) + ("\nRefused." if self.again else "")


def world(seed: int, folder: Path) -> dict[Platform, list[str]]:
    """Training captions of a sample world per platform, in file order, as refinement sees them."""
    subprocess.run([sys.executable, "-c", DRAW, str(folder), str(seed)], check=True)
    captions: dict[Platform, list[str]] = {platform: [] for platform in PLATFORMS}
    for record in json.loads((folder / "train.json").read_text(encoding="utf-8")):
        platform = FOLDERS[record["image"].split("/")[1]]
        raw = record["caption"]
        captions[platform].append(strip(raw).text if platform == "satellite" else raw)
    return captions


def examples(captions: dict[Platform, list[str]], rng: random.Random) -> list[Example]:
    """What is taught of one world: as many captions of every platform, some as retries."""
    found = []
    for platform, sources in captions.items():
        for source in rng.sample(sources, min(PER_WORLD, len(sources))):
            again = rng.random() < RETRIES
            reply = taught(source, platform, again=again)
            if reply is not None and reply != rules_rewrite(source, platform):
                found.append(Example(platform, source, as_json(reply), again))
    return found


# ---- the model -------------------------------------------------------------------------------------------------------


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE vocabulary: of the words of the sample world nearly every one is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def new_model() -> Qwen2ForCausalLM:
    """A Qwen2 of four layers with random weights."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=160,
            intermediate_size=448,
            num_hidden_layers=4,
            num_attention_heads=5,
            num_key_value_heads=5,
            max_position_embeddings=POSITIONS,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
            initializer_range=0.04,
            use_cache=True,
        )
    )


def batches(rows: Sequence[tuple[list[int], int]], rng: random.Random) -> list[list[tuple[list[int], int]]]:
    """Batches of rows of about the same length, in random order."""
    order = list(rows)
    rng.shuffle(order)
    found = []
    for at in range(0, len(order), BATCH * 16):
        chunk = sorted(order[at : at + BATCH * 16], key=lambda row: len(row[0]))
        found += [chunk[i : i + BATCH] for i in range(0, len(chunk), BATCH)]
    rng.shuffle(found)
    return found


def tensors(batch: Sequence[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, int64[B, T]; labels are -100 in the question and after the end."""
    longest = max(len(ids) for ids, _ in batch)
    inputs = torch.zeros(len(batch), longest, dtype=torch.int64)
    labels = torch.full((len(batch), longest), -100, dtype=torch.int64)
    for row, (ids, start) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, start : len(ids)] = inputs[row, start : len(ids)]
    return inputs, labels


def fit(model: Qwen2ForCausalLM, rows: Sequence[tuple[list[int], int]], steps: int, rates: float) -> None:
    """Train in place: Muon for the matrices, AdamW for the rest, loss on the answers only.

    Args:
        rates: the share of the learning rates.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=MUON_RATE, momentum=0.95, weight_decay=0.01)
    adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    rng = random.Random(SEED)
    queue: list[list[tuple[list[int], int]]] = []
    started, total = time.monotonic(), 0.0
    model.train()
    for step in range(1, steps + 1):
        queue = queue or batches(rows, rng)
        inputs, labels = tensors(queue.pop())
        share = rates * min(1.0, step / WARM_UP, (steps - step + 1) / (0.5 * steps))
        for optimiser, rate in ((muon, MUON_RATE), (adam, ADAM_RATE)):
            optimiser.param_groups[0]["lr"] = rate * share
        hidden = model.model(input_ids=inputs).last_hidden_state[:, :-1]
        wanted = labels[:, 1:]
        told = wanted != -100
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[told]), wanted[told])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for optimiser in (muon, adam):
            optimiser.step()  # type: ignore[no-untyped-call]
            optimiser.zero_grad(set_to_none=True)
        total += float(loss.detach())
        if step % 50 == 0:
            print(f"step {step}/{steps}  loss {total / 50:.4f}  {time.monotonic() - started:.0f} s", flush=True)
            total = 0.0


@torch.inference_mode()
def answers(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]) -> list[str]:
    """The model's greedy answers, in order."""
    model.eval()
    tokenizer.padding_side = "left"
    order = sorted(range(len(questions)), key=lambda i: len(questions[i]))
    found = [""] * len(questions)
    for at in range(0, len(order), 50):
        part = order[at : at + 50]
        texts = [f"{USER}{questions[i]}{ASSISTANT}" for i in part]
        encoded = tokenizer(texts, return_tensors="pt", padding=True)
        made = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            do_sample=False,
            max_new_tokens=260,
        )
        for i, row in zip(part, made[:, encoded["input_ids"].shape[1] :], strict=True):
            found[i] = tokenizer.decode(row, skip_special_tokens=True)
    return found


# ---- the scores ------------------------------------------------------------------------------------------------------


def unseen_cases(folder: Path) -> list[tuple[Platform, str]]:
    """As many captions of every platform from the world that nothing was trained on."""
    rng = random.Random(SEED)
    captions = world(UNSEEN_SEED, folder)
    return [(platform, source) for platform in PLATFORMS for source in rng.sample(captions[platform], UNSEEN)]


def evaluate(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Print accepted share and change per platform beside those of copying and of the rules, and twenty answers."""
    cases = unseen_cases(folder)
    ways = {
        "tiny model": answers(model, tokenizer, [prompt(p, s) for p, s in cases]),
        "verbatim copy": [as_json(Reply(s, (s.partition(". ")[0] + ".",))) for _, s in cases],
        "rules": [as_json(rules_rewrite(s, p)) for p, s in cases],
        "grammar (taught)": [as_json(taught(s, p) or Reply("-", ("-",))) for p, s in cases],
    }
    for name, replies in ways.items():
        parts = [score(cases, replies)] + [
            score(*zip(*[(c, r) for c, r in zip(cases, replies, strict=True) if c[0] == p], strict=True))
            for p in PLATFORMS
        ]
        line = "  ".join(f"{100 * s.accepted:5.1f} % / {s.changed:.2f}" for s in parts)
        print(f"{name:18} accepted / changed: all, {', '.join(PLATFORMS)}:  {line}")
    same = sum(a == b for a, b in zip(ways["tiny model"], ways["grammar (taught)"], strict=True))
    print(f"word for word what the grammar says: {same} of {len(cases)}")
    refused: dict[str, int] = {}
    for (platform, source), reply in zip(cases, ways["tiny model"], strict=True):
        for gate in check(platform, source, reply):
            refused[gate.gate] = refused.get(gate.gate, 0) + (not gate.passed)
    print("refused by:", {gate: n for gate, n in refused.items() if n})
    for i in range(0, len(cases), len(cases) // 20):
        platform, source = cases[i]
        failed = [f"{g.gate}: {g.detail}" for g in check(platform, source, ways["tiny model"][i]) if not g.passed]
        print(f"\n[{platform}] {source}\n  -> {ways['tiny model'][i]}\n  {'; '.join(failed) or 'accepted'}")


# ---- the files -------------------------------------------------------------------------------------------------------


def export(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the Hugging Face folder; weights in half precision."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0, do_sample=False)
    model.half().save_pretrained(out)
    model.float()
    tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "model_max_length": POSITIONS,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (out / "model.safetensors").chmod(0o644)
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    weights = sum(p.numel() for p in model.parameters())
    print(f"{weights:,} weights, {(out / 'model.safetensors').stat().st_size:,} bytes, sha256 {digest}")


def load(folder: Path) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """The model in single precision, and its tokenizer."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, PreTrainedTokenizerFast.from_pretrained(folder)


def train(out: Path, start: Path | None, steps: int, seeds: Sequence[int], folder: Path) -> None:
    """Everything from the sample worlds to the files; `start` is a model to go on from."""
    rng = random.Random(SEED)
    taught_pairs = [pair for seed in seeds for pair in examples(world(seed, folder / str(seed)), rng)]
    print(f"{len(taught_pairs)} examples", flush=True)
    torch.manual_seed(SEED)
    if start:
        model, tokenizer = load(start)
    else:
        tokenizer = train_tokenizer(text for pair in taught_pairs for text in (pair.question, pair.answer))
        model = new_model()
    rows: list[tuple[list[int], int]] = []
    for pair in taught_pairs:
        question: Any = tokenizer(f"{USER}{pair.question}{ASSISTANT}")["input_ids"]
        answer: Any = tokenizer(pair.answer + END)["input_ids"]
        rows.append((question + answer, len(question)))
    mean = sum(len(ids) for ids, _ in rows) / len(rows)
    print(f"{len(tokenizer)} tokens; {mean:.0f} per example, {sum(s for _, s in rows) / len(rows):.0f} of them asked")
    fit(model, rows, steps, GO_ON if start else 1.0)
    export(model, tokenizer, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=MODEL, help="folder of the model")
    parser.add_argument("--start", type=Path, help="folder of a model to go on from; without it, random weights")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(TRAIN_SEEDS), help="sample worlds to learn from")
    parser.add_argument("--evaluate", action="store_true", help="only print the scores of the model in the folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if not options.evaluate:
            train(options.out, options.start, options.steps, options.seeds, Path(folder))
            print(f"trained in {time.monotonic() - started:.0f} s", flush=True)
        evaluate(*load(options.out), Path(folder) / "unseen")


if __name__ == "__main__":
    main()
