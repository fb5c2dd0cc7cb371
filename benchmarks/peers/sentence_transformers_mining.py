"""sentence-transformers 6.2.0's mine_hard_negatives on stored embeddings; benchmarks/mining.py runs it.

The model only hands out the stored embeddings and compares them by their inner product: what is timed is the mining.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.util import dot_score, mine_hard_negatives, pairwise_dot_score


class Stored:
    """The part of SentenceTransformer that mine_hard_negatives calls."""

    device = torch.device("cpu")
    similarity = staticmethod(dot_score)
    similarity_pairwise = staticmethod(pairwise_dot_score)

    def __init__(self, texts: np.ndarray, images: np.ndarray) -> None:
        self.texts, self.images = texts, images

    def encode_query(self, names: list[str], **_: object) -> np.ndarray:
        return self.texts[[int(name[1:]) for name in names]]

    def encode_document(self, names: list[str], **_: object) -> np.ndarray:
        return self.images[[int(name[1:]) for name in names]]


folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
torch.set_num_threads(job["threads"])
texts, images = np.load(folder / "texts.npy"), np.load(folder / "images.npy")
pairs = np.load(folder / "pairs.npy")  # int64 [M, 2]: a query and one of its positives
dataset = Dataset.from_dict({"query": [f"q{q}" for q in pairs[:, 0]], "image": [f"i{i}" for i in pairs[:, 1]]})
start, cpu = time.perf_counter(), time.process_time()
found = mine_hard_negatives(
    dataset,
    Stored(texts, images),
    anchor_column_name="query",
    positive_column_name="image",
    corpus=[f"i{i}" for i in range(len(images))],
    relative_margin=job["relative_margin"],
    num_negatives=job["count"],
    output_format=job["form"],
    verbose=False,
)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
negatives = np.full((len(texts), job["count"]), -1)
if job["form"] == "triplet":
    kept: dict[int, dict[int, None]] = {}
    for query, image in zip(found["query"], found["negative"], strict=True):
        kept.setdefault(int(query[1:]), {})[int(image[1:])] = None
    for q, rows in kept.items():
        negatives[q, : len(rows)] = list(rows)
else:
    for query, images_of_query in zip(found["query"], found["image"], strict=True):
        rows = [int(image[1:]) for image in images_of_query[1:]]
        negatives[int(query[1:]), : len(rows)] = rows
np.save(folder / "peer.npy", negatives)
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak * 1024}))
