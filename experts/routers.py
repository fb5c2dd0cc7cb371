"""How the gate's scores become the experts' weights: non-negative, summing to one, in five ways.

softmax is the paper's; uniform is the ablation without a gate ("static experts").
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sparsemax(scores: Tensor) -> Tensor:
    """Euclidean projection of each row onto the probability simplex; small scores get exactly 0.

    Martins and Astudillo, "From Softmax to Sparsemax" (ICML 2016), algorithm 1: with z sorted downwards and
    k = max {j : 1 + j z_(j) > z_(1) + ... + z_(j)}, tau = (z_(1) + ... + z_(k) - 1) / k, p = max(z - tau, 0).

    Args:
        scores: float [B, K].

    Returns:
        float [B, K], rows sum to one.
    """
    scores = scores - scores.amax(-1, keepdim=True)  # the same projection, and 1 + z is more than z however large z was
    ranked = scores.sort(dim=-1, descending=True).values
    sums = ranked.cumsum(-1)
    place = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
    support = (1 + place * ranked > sums).sum(-1, keepdim=True)
    tau = (sums.gather(-1, support - 1) - 1) / support
    return (scores - tau).clamp_min(0)


def top(scores: Tensor, count: int) -> Tensor:
    """Softmax over the `count` largest of each row, 0 elsewhere (Shazeer et al. 2017, arXiv 1701.06538).

    One expert alone has weight 1 whatever its score, which teaches the gate nothing: its gradient is then that of the
    whole softmax (straight through: Bengio et al. 2013, arXiv 1308.3432). Ties go to the first.

    Args:
        scores: float [B, K]; count: 1..K.

    Returns:
        float [B, K], rows sum to one.
    """
    kept = scores.argsort(dim=-1, descending=True, stable=True)[..., :count]
    weights = torch.full_like(scores, float("-inf")).scatter(-1, kept, scores.gather(-1, kept)).softmax(-1)
    if count > 1:
        return weights
    soft = scores.softmax(-1)
    return weights.detach() + (soft - soft.detach())


def route(router: str, scores: Tensor) -> Tensor:
    """Weights float [B, K] of gate scores float [B, K] by the router of that name (TrainConfig.router)."""
    match router:
        case "softmax":
            return F.softmax(scores, dim=-1)
        case "top1":
            return top(scores, 1)
        case "top2":
            return top(scores, 2)
        case "sparsemax":
            return sparsemax(scores)
        case "uniform":
            return torch.full_like(scores, 1 / scores.shape[-1])
    raise ValueError(f"there is no router {router!r}")
