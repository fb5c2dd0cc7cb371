"""Hard negatives: images of other buildings that the model itself ranks high, but not above the right one.

python benchmarks/mining.py --peer PYTHON       beside sentence-transformers' mine_hard_negatives
"""

import torch
from torch import Tensor

from schemas.errors import TrainingError


def building_pairs(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Every pair of one building, without a table of rows x columns.

    Args:
        rows: int64 [R]; columns: int64 [C]; building codes.

    Returns:
        int64 [M] and int64 [M]: all (r, c) with rows[r] == columns[c], in ascending order.
    """
    order = columns.argsort(stable=True)
    in_order = columns[order]
    first = torch.searchsorted(in_order, rows)
    counts = torch.searchsorted(in_order, rows, right=True) - first
    r = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    within = torch.arange(len(r), device=rows.device) - (counts.cumsum(0) - counts)[r]
    return r, order[first[r] + within]


@torch.no_grad()
def mine(
    texts: Tensor,
    images: Tensor,
    text_buildings: Tensor,
    image_buildings: Tensor,
    positives: Tensor,
    *,
    count: int,
    relative_margin: float,
    chunk: int = 1024,
) -> Tensor:
    """The `count` best-scoring wrong images of every text.

    Wrong is an image of another building whose score is at most positive - relative_margin * |positive|: what scores
    higher is more likely a match nobody annotated than a mistake (the rule of NV-Retriever, arXiv 2407.15831, in the
    form sentence-transformers gives it, which also holds for negative scores). The filter comes before the cut, so a
    text goes without negatives only if it has none.

    Args:
        texts: float [Q, D]; images: float [G, D]; a score is their inner product.
        text_buildings: int64 [Q]; image_buildings: int64 [G].
        positives: int64 [Q], the row of each text's own image; or int64 [Q, P], several, filled up with -1: then the
            margin is measured from the one that scores lowest, as sentence-transformers does.
        chunk: texts scored at a time; memory is twice chunk * G scores.

    Returns:
        int64 [Q, count] rows of `images`, best first, -1 where fewer were found.

    Raises:
        TrainingError: a score is NaN, or a text has no positive.
    """
    own = positives.unsqueeze(1) if positives.ndim == 1 else positives
    if bool((own < 0).all(dim=1).any()):
        raise TrainingError("A text to mine negatives for has no image of its own: leave it out.")
    found = torch.full((len(texts), count), -1, dtype=torch.int64, device=texts.device)
    top = min(count, len(images))
    if top == 0:
        return found
    out = torch.finfo(texts.dtype).max / 4  # no score is near it, and it can be subtracted once
    room, above = (texts.new_empty(min(chunk, len(texts)), len(images)) for _ in range(2))
    for start in range(0, len(texts), chunk):
        part = slice(start, start + chunk)
        rows = len(text_buildings[part])
        scores = torch.mm(texts[part], images.T, out=room[:rows])
        right = scores.gather(1, own[part].clamp_min(0)).masked_fill(own[part] < 0, float("inf"))
        right = right.amin(dim=1, keepdim=True)
        scores[building_pairs(text_buildings[part], image_buildings)] = -out
        # Arithmetic on 0 and 1 is several times as fast as masked_fill.
        too_good = torch.gt(scores, right - relative_margin * right.abs(), out=above[:rows])
        scores.sub_(too_good, alpha=out)
        best, at = scores.topk(top, dim=1)  # NaN would come first
        if bool((best.isnan().any(dim=1, keepdim=True) | right.isnan()).any()):
            raise TrainingError("Some scores are NaN: the model is damaged; train it again with a lower learning rate.")
        found[part, :top] = at.masked_fill(best < -out / 2, -1)
    return found
