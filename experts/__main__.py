"""`python -m experts train|evaluate|search`: training and retrieval where only torch, numpy, pyarrow and pillow are."""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from schemas.config import TrainConfig, load_config
from schemas.errors import GeorefineError, UsageError
from schemas.records import PLATFORMS, SPLITS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experts", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train the experts on a data set")
    train.add_argument("dataset", type=Path)
    train.add_argument("--out", type=Path, required=True, metavar="RUN")
    train.add_argument("--config", type=Path, help="YAML or JSON; its key `train` is read")
    train.add_argument("--seed", type=int, help="instead of the configuration's train.seed")
    train.add_argument("--trunks", type=Path, metavar="RUN", help="start from this run's trunks, in place of stage 0")
    train.add_argument("--resume", action="store_true", help="continue where a killed run stopped")
    evaluate = commands.add_parser("evaluate", help="recall@1/5/10 both ways, per platform")
    evaluate.add_argument("run", type=Path)
    evaluate.add_argument("dataset", type=Path)
    evaluate.add_argument("--split", choices=SPLITS, default="test")
    evaluate.add_argument(
        "--robustness", action="store_true", help="also with blurred, noisy, occluded, foggy and crushed images"
    )
    evaluate.add_argument(
        "--cues", action="store_true", help="also with drone flights pooled, and images seen in crops"
    )
    search = commands.add_parser("search", help="images for a sentence")
    search.add_argument("run", type=Path)
    search.add_argument("dataset", type=Path)
    search.add_argument("text")
    search.add_argument("--top", type=int, default=10)
    for command in (train, evaluate, search):
        command.add_argument("--device", default="cpu", help="cpu or cuda")
    for command in (evaluate, search):
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def train_config(path: Path | None, seed: int | None, trunks: Path | None) -> TrainConfig:
    """The `train` part of a configuration file, with another seed and other trunks if they are given.

    Raises:
        ConfigError: the file or a key in it is wrong. UsageError: the seed is negative.
    """
    config = load_config(path).train
    if trunks is not None:
        config = dataclasses.replace(config, trunks=str(trunks))
    if seed is None:
        return config
    if seed < 0:
        raise UsageError(f"--seed is {seed}; it must be 0 or more.")
    return dataclasses.replace(config, seed=seed)


def score_table(scores: dict[str, Any]) -> list[str]:
    """The result of evaluate as lines for a person, in percent."""
    rows = [("text to image", scores["t2i"])]
    rows += [(f"  {p} queries", scores["per_platform"][p]["t2i"]) for p in PLATFORMS if p in scores["per_platform"]]
    rows += [("image to text", scores["i2t"])]
    lines = [f"{'':<20}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'Score':>8}"]
    lines += [f"{name:<20}{r['r1']:>8.2f}{r['r5']:>8.2f}{r['r10']:>8.2f}{r['score']:>8.2f}" for name, r in rows]
    chance = scores["chance"]
    lines += [f"{'chance':<20}{chance['r1']:>8.2f}{'':>8}{chance['r10']:>8.2f}"]
    return [*lines, f"{scores['queries']} queries, {scores['gallery']} gallery images"]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 the work failed, 2 wrong usage."""
    try:
        _run(_parser().parse_args(arguments))
        sys.stdout.flush()
    except GeorefineError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted: nothing unfinished is visible; train goes on with --resume.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains on its way out
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.command == "train":
        from experts.trainer import train

        config = train_config(args.config, args.seed, args.trunks)
        result = train(args.dataset, args.out, config, args.device, resume=args.resume)
        recall = result["best"][result["best"]["scored_on"]]["t2i"]
        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes, one speaks
            scored = f"recall@1 {recall['r1']:.1f} %, recall@10 {recall['r10']:.1f} %"
            print(f"{args.out}: {result['best']['scored_on']} {scored}", file=sys.stderr)
    elif args.command == "evaluate":
        from experts.evaluate import evaluate

        scores = evaluate(args.run, args.dataset, args.split, device=args.device)
        lines = score_table(scores)
        if args.robustness:
            from experts.robustness import as_lines as worsened
            from experts.robustness import robustness
            from experts.trainer import print_progress

            scores["robustness"] = robustness(
                args.run, args.dataset, args.split, device=args.device, progress=print_progress
            )
            lines += worsened(scores["robustness"])
        if args.cues:
            from experts.cues import as_lines as steadied
            from experts.cues import cues
            from experts.trainer import print_progress

            scores["cues"] = cues(args.run, args.dataset, args.split, device=args.device, progress=print_progress)
            lines += steadied(scores["cues"])
        print(json.dumps(scores) if args.json else "\n".join(lines))
    else:
        from experts.search import as_json, as_lines, search

        found = search(args.run, args.dataset, args.text, args.top, device=args.device)
        print(json.dumps(as_json(found)) if args.json else "\n".join(as_lines(found)))


if __name__ == "__main__":
    sys.exit(main())
