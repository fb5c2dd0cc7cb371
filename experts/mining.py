"""Hard negatives: images of other buildings that the model itself ranks high, but not above the right one."""

import torch
from torch import Tensor

from experts.losses import same_building


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
    form sentence-transformers gives it, which also holds for negative scores).

    Args:
        texts: float [Q, D]; images: float [G, D]; a score is their inner product.
        text_buildings: int64 [Q]; image_buildings: int64 [G].
        positives: int64 [Q], the row of each text's own image.
        chunk: texts scored at a time; memory is chunk * G scores.

    Returns:
        int64 [Q, count] rows of `images`, best first, -1 where fewer were found.
    """
    found = torch.full((len(texts), count), -1, dtype=torch.int64, device=texts.device)
    top = min(count, len(images))
    if top == 0:
        return found
    for start in range(0, len(texts), chunk):
        part = slice(start, start + chunk)
        scores = texts[part] @ images.T
        own = scores.gather(1, positives[part].unsqueeze(1))
        ceiling = own - relative_margin * own.abs()
        scores.masked_fill_(same_building(text_buildings[part], image_buildings) | (scores > ceiling), float("-inf"))
        best, rows = scores.topk(top, dim=1)
        found[part, :top] = rows.masked_fill(best == float("-inf"), -1)
    return found
