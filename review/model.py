"""What a trained run makes of a caption: gate weights, the images it retrieves, its hard negatives, suspected matches.

Images are embedded once per split, in a thread, when first asked for, and kept in RUN as `georefine search` keeps them;
until then the answer is None.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from data.shards import Version
from experts.checkpoint import load_checkpoint
from experts.device import open_device
from experts.embed import fused_texts, text_bags, text_features
from experts.examples import building_codes
from experts.mining import mine
from experts.search import Gallery, open_gallery
from schemas.records import PLATFORMS, Split

TOP = 8
SUSPECTS = 100
CAPTIONS_LOOKED_AT = 5000


@dataclass(frozen=True)
class Hit:
    """An image and its score; `own` when it shows the caption's building."""

    image_id: str
    building_id: str
    platform: str
    score: float
    own: bool


@dataclass(frozen=True)
class Look:
    """Gate weight per platform, the best images, and hard negatives as stage 2 mines them."""

    gate: dict[str, float]
    positive: float | None
    rank: int | None
    hits: tuple[Hit, ...]
    negatives: tuple[Hit, ...]


@dataclass(frozen=True)
class Suspect:
    """A caption and an image of another building that scores above the mining ceiling: maybe a match nobody noted."""

    caption_id: str
    caption: str
    image_id: str
    positive: float
    hit: Hit


@dataclass(frozen=True)
class Suspects:
    """The strongest suspects, and of how many captions of the train split."""

    found: tuple[Suspect, ...]
    looked_at: int
    captions: int


class RunIndex:
    """A trained model beside a version of a data set."""

    def __init__(self, run: Path, version: Version) -> None:
        """Load the run's checkpoint.

        Raises:
            TrainingError: there is none, or this georefine cannot read it.
        """
        self._run = run
        self._device = open_device("cpu")
        self.checkpoint = load_checkpoint(run, self._device)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="run")
        self.follow(version)

    def follow(self, version: Version) -> None:
        """Look at another version from now on."""
        self._version = version
        self._galleries: dict[str, Future[Gallery]] = {}
        self._suspects: Future[Suspects] | None = None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _gallery(self, split: str) -> Future[Gallery]:
        galleries = self._galleries  # another version may be followed meanwhile
        if split not in galleries:
            galleries[split] = self._pool.submit(
                open_gallery, self._run, self.checkpoint, self._version, cast(Split, split), self._device
            )
        return galleries[split]

    def _texts(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Fused features float32 [N, 3 D] and gate weights float32 [N, 3]."""
        model = self.checkpoint.model
        with torch.no_grad():
            features = text_features(model, text_bags(self.checkpoint.vocabulary, texts), self._device)
            return fused_texts(model, features), model.gates(features)

    def look(self, text: str, image_id: str, split: str) -> Look | None:
        """What the model makes of a text of an image; None while the images are being embedded."""
        future = self._gallery(split)
        if not future.done():
            return None
        gallery = future.result()
        fused, gates = self._texts([text])
        scores = gallery.features @ fused[0]
        # An augmented tile is judged by the place of its original.
        own = _index(gallery.ids, image_id.partition("~aug")[0])
        building = gallery.buildings[own] if own is not None else ""

        def hit(row: int) -> Hit:
            name = gallery.buildings[row]
            return Hit(gallery.ids[row], name, gallery.platforms[row], float(scores[row]), name == building)

        order = scores.argsort(descending=True, stable=True).tolist()
        negatives: list[int] = []
        if own is not None:
            config = self.checkpoint.config
            codes, asked = building_codes(gallery.buildings, [building])
            negatives = [
                row
                for row in mine(
                    fused,
                    gallery.features,
                    asked,
                    codes,
                    torch.tensor([own]),
                    count=config.hard_negatives,
                    relative_margin=config.relative_margin,
                )[0].tolist()
                if row >= 0
            ]
        return Look(
            gate=dict(zip(PLATFORMS, gates[0].tolist(), strict=True)),
            positive=float(scores[own]) if own is not None else None,
            rank=order.index(own) + 1 if own is not None else None,
            hits=tuple(hit(row) for row in order[:TOP]),
            negatives=tuple(hit(row) for row in negatives),
        )

    def suspects(self) -> Suspects | None:
        """Pairs of the train split that mining leaves out as too good to be wrong; None while at it."""
        suspects = self._suspects
        if suspects is None:
            gallery = self._gallery("train")
            suspects = self._suspects = self._pool.submit(lambda: self._find(gallery.result()))
        return suspects.result() if suspects.done() else None

    def _find(self, gallery: Gallery) -> Suspects:
        columns = ["caption_id", "image_id", "final"]
        known = {image_id: row for row, image_id in enumerate(gallery.ids)}
        table = self._version.read("captions", split="train", columns=columns).sort_by("caption_id")
        captions = [c for c in table.to_pylist() if c["image_id"] in known and c["final"].strip()]
        step = max(1, -(-len(captions) // CAPTIONS_LOOKED_AT))
        looked_at = captions[::step]
        (codes,) = building_codes(gallery.buildings)
        margin = self.checkpoint.config.relative_margin
        found: list[tuple[float, Suspect]] = []
        for start in range(0, len(looked_at), 256):
            part = looked_at[start : start + 256]
            own = torch.tensor([known[c["image_id"]] for c in part])
            scores = self._texts([c["final"] for c in part])[0] @ gallery.features.T
            positive = scores.gather(1, own.unsqueeze(1)).squeeze(1)
            others = scores.masked_fill(codes[own].unsqueeze(1) == codes.unsqueeze(0), float("-inf"))
            best, rows = others.max(dim=1)
            for i in (best > positive - margin * positive.abs()).nonzero().flatten().tolist():
                row, score = int(rows[i]), float(best[i])
                hit = Hit(gallery.ids[row], gallery.buildings[row], gallery.platforms[row], score, False)
                suspect = Suspect(part[i]["caption_id"], part[i]["final"], part[i]["image_id"], float(positive[i]), hit)
                found.append((score - suspect.positive, suspect))
        found.sort(key=lambda pair: (-pair[0], pair[1].caption_id))
        return Suspects(tuple(s for _, s in found[:SUSPECTS]), len(looked_at), len(captions))


def _index(ids: tuple[str, ...], image_id: str) -> int | None:
    return ids.index(image_id) if image_id in ids else None
