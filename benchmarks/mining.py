"""Hard negatives of 35,000 texts among 12,000 images: our mining, the bare chunked product, sentence-transformers.

Run: python benchmarks/mining.py --peer PYTHON        of an environment with sentence-transformers 6.2.0 and datasets
     python benchmarks/mining.py --scale 10           a tenth of the texts and images

Sizes are those of GeoText-1652's ground images: 701 buildings of 17 images with three texts each, 1024 dimensions.
All images of a building are positives of its texts; the margin is measured from the one that scores lowest, as
sentence-transformers does. Embeddings are drawn: campus, building and noise, so that some images of other buildings
score above the margin. Everyone is a process of its own, whose peak memory counts the interpreter and the embeddings
too; ours and the bare product take turns. On a busy machine believe the processor seconds, with OMP_NUM_THREADS=1.
Prints a table, then one JSON line.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from experts.mining import building_pairs, mine

TEXTS, IMAGES, BUILDINGS, CAMPUSES, DIM = 35_000, 12_000, 701, 33, 1024
CHUNK, ROUNDS, SEED, ROUNDING = 1024, 3, 1652, 1e-6
CAMPUS, BUILDING, NOISE = 1.0, 0.44, 1.2
PEER = Path(__file__).parent / "peers" / "sentence_transformers_mining.py"
Rows = npt.NDArray[np.int64]


def draw(scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit vectors of texts [Q, D] and images [G, D] and their buildings, int64 [Q] and [G]."""
    generator = torch.Generator().manual_seed(SEED)
    buildings, campuses = max(1, BUILDINGS // scale), max(1, CAMPUSES // scale)

    def gaussian(rows: int) -> Tensor:
        return normalize(torch.randn(rows, DIM, generator=generator), dim=1)

    campus = gaussian(campuses)[torch.arange(buildings) % campuses]
    centres = CAMPUS * campus + BUILDING * gaussian(buildings)
    shown = torch.arange(IMAGES // scale) % buildings
    asked = shown[torch.arange(TEXTS // scale) % len(shown)]
    texts = normalize(centres[asked] + NOISE * gaussian(len(asked)), dim=1)
    return texts, normalize(centres[shown] + NOISE * gaussian(len(shown)), dim=1), asked, shown


def table_of(pairs: Tensor, texts: int) -> Tensor:
    """Positives int64 [Q, P] of pairs int64 [M, 2], filled up with -1."""
    counts = torch.bincount(pairs[:, 0], minlength=texts)
    table = torch.full((texts, int(counts.max())), -1)
    table[pairs[:, 0], torch.arange(len(pairs)) - (counts.cumsum(0) - counts)[pairs[:, 0]]] = pairs[:, 1]
    return table


def bare(texts: Tensor, images: Tensor) -> None:
    """The product that mining cannot do without."""
    for start in range(0, len(texts), CHUNK):
        torch.mm(texts[start : start + CHUNK], images.T)


def contestant(name: str, folder: Path) -> None:
    """Run in a process of its own: prints seconds and peak bytes."""
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    texts, images = (torch.from_numpy(np.load(folder / f"{kind}.npy")) for kind in ("texts", "images"))
    asked, shown = (torch.from_numpy(np.load(folder / f"{kind}.npy")) for kind in ("asked", "shown"))
    positives = table_of(torch.from_numpy(np.load(folder / "pairs.npy")), len(texts))

    def ours() -> Tensor:
        margin, count = job["relative_margin"], job["count"]
        return mine(texts, images, asked, shown, positives, count=count, relative_margin=margin, chunk=CHUNK)

    bare(texts[:CHUNK], images)  # the first product of a process starts its threads
    start, cpu = time.perf_counter(), time.process_time()
    if name == "bare":
        bare(texts, images)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    else:
        found = ours()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        np.save(folder / "ours.npy", found.numpy())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}))


def measure(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(ours: Rows, theirs: Rows, folder: Path, margin: float) -> dict[str, float]:
    """What share of texts each leaves without negatives, and whether what they found is the same where both did.

    Theirs, being cut, is a beginning of ours. Images within rounding of the ceiling are left out of the comparison:
    they are let in or not as the last bit of the product falls. So are the places of equal scores.
    """
    texts, images = np.load(folder / "texts.npy"), np.load(folder / "images.npy")
    positives = table_of(torch.from_numpy(np.load(folder / "pairs.npy")), len(texts)).numpy()
    other = edge = 0
    for q in range(len(ours)):
        found = theirs[q][theirs[q] >= 0]
        if np.array_equal(ours[q][: len(found)], found):
            continue
        scores = images.astype(np.float64) @ texts[q].astype(np.float64)
        right = scores[positives[q][positives[q] >= 0]].min()
        clear = np.abs(scores - (right - margin * abs(right))) > ROUNDING
        mine_, theirs_ = (scores[rows[clear[rows]]] for rows in (ours[q][ours[q] >= 0], found))
        shared = min(len(mine_), len(theirs_))
        same = np.allclose(mine_[:shared], theirs_[:shared], rtol=0, atol=ROUNDING)
        other, edge = other + (not same), edge + same
    had, has = (theirs >= 0).any(axis=1), (ours >= 0).any(axis=1)
    return {
        "ours_without_negatives_percent": round(100 * float(1 - has.mean()), 2),
        "theirs_without_negatives_percent": round(100 * float(1 - had.mean()), 2),
        "theirs_not_in_ours": other,
        "equal_but_for_rounding": edge,
        "lost_by_ours": int((had & ~has).sum()),
    }


def prepare(folder: Path, scale: int, count: int, margin: float) -> None:
    texts, images, asked, shown = draw(scale)
    pairs = torch.stack(building_pairs(asked, shown), dim=1)
    for name, values in {"texts": texts, "images": images, "asked": asked, "shown": shown, "pairs": pairs}.items():
        np.save(folder / f"{name}.npy", values.numpy())
    # Of the forms that keep a query with fewer negatives than asked for, this is the one it makes fastest.
    job = {"threads": torch.get_num_threads(), "count": count, "relative_margin": margin, "form": "labeled-list"}
    (folder / "job.json").write_text(json.dumps(job))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has sentence-transformers and datasets")
    parser.add_argument("--scale", type=int, default=1, help="divide texts, images and buildings by this")
    parser.add_argument("--count", type=int, default=4, help="negatives per text")
    parser.add_argument("--margin", type=float, default=0.05, help="relative margin")
    parser.add_argument("--contestant", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        contestant(args.contestant[0], Path(args.contestant[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, args.scale, args.count, args.margin)
        runs: dict[str, list[dict[str, float]]] = {"bare chunked product": [], "georefine": []}
        for _ in range(ROUNDS):
            for one, rows in zip(("bare", "ours"), runs.values(), strict=True):
                rows.append(measure([sys.executable, __file__, "--contestant", one, name]))
        if args.peer:
            runs["sentence-transformers"] = [measure([args.peer, str(PEER), name])]
        else:
            print("sentence-transformers is left out: name the interpreter that has it with --peer")
        print(f"{TEXTS // args.scale} texts, {IMAGES // args.scale} images, {DIM} dimensions")
        print(f"{'':<24}{'seconds':>10}{'spread':>16}{'x bare':>8}{'CPU s':>9}{'x bare':>8}{'peak MB':>10}")
        result: dict[str, object] = {"benchmark": "mining", "scale": args.scale}
        base, cpu_base = (
            statistics.median(row[key] for row in runs["bare chunked product"]) for key in ("seconds", "cpu")
        )
        for who, rows in runs.items():
            spent = [row["seconds"] for row in rows]
            middle, peak = statistics.median(spent), max(row["peak"] for row in rows) / 1e6
            cpu = statistics.median(row["cpu"] for row in rows)
            print(f"{who:<24}{middle:>10.2f}{min(spent):>9.2f}-{max(spent):<6.2f}{middle / base:>8.2f}", end="")
            print(f"{cpu:>9.2f}{cpu / cpu_base:>8.2f}{peak:>10.0f}")
            times = {"seconds": round(middle, 3), "x_bare": round(middle / base, 2)}
            result[who] = {
                **times,
                "cpu": round(cpu, 3),
                "cpu_x_bare": round(cpu / cpu_base, 2),
                "peak_mb": round(peak),
            }
        ours = np.load(folder / "ours.npy")
        print(f"texts without negatives, ours: {100 * float((ours < 0).all(axis=1).mean()):.1f} %")
        if args.peer:
            seen = compare(ours, np.load(folder / "peer.npy"), folder, args.margin)
            print(f"texts without negatives, theirs: {seen['theirs_without_negatives_percent']:.1f} %")
            print(f"texts whose negatives are others: {seen['theirs_not_in_ours']}", end=" ")
            print(f"({seen['equal_but_for_rounding']} differ by a candidate on the edge or by equal scores)")
            result |= seen
        print(json.dumps(result))


if __name__ == "__main__":
    main()
