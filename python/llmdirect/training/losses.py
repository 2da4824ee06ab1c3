"""Ranking losses, the rating loss, and the auxiliary losses of DIRECT."""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmdirect.model.vectors import normalize


def softmax_loss(positive: Tensor, others: Tensor) -> Tensor:
    """Mean cross-entropy of the positive [B] against other candidates [B, C]; hidden ones hold -inf."""
    return (torch.logsumexp(torch.cat([positive[:, None], others], 1), 1) - positive).mean()


def sampled_softmax_loss(positive: Tensor, negatives: Tensor, candidates: Tensor) -> Tensor:
    """Softmax over N uniform negatives [B, N], corrected to that over all `candidates` [B] non-positives.

    logQ correction (Bengio and Senécal 2008): a negative drawn with probability 1/candidates, N times,
    stands for candidates/N items.
    """
    weight = torch.log(candidates.to(negatives.dtype) / negatives.shape[1])
    return softmax_loss(positive, negatives + weight[:, None])


def bpr_loss(positive: Tensor, negatives: Tensor) -> Tensor:
    """-mean log sigmoid(positive - negative), [B] against [B, N] (Rendle et al. 2009)."""
    return -F.logsigmoid(positive[:, None] - negatives).mean()


def contrastive_loss(document: Tensor, review: Tensor) -> Tensor:
    """Contrastive loss L_c: squared error of the document's score [B] against the true review's."""
    return (document - review.detach()).square().mean()


def orthogonality_loss(aspects: Tensor) -> Tensor:
    """Orthogonality loss Ω_o of aspects [K + 1, M]: mean squared cosine of distinct pairs."""
    count = len(aspects)
    if count < 2:
        return aspects.sum() * 0
    directions = normalize(aspects)
    gram = directions @ directions.T - torch.eye(count, device=aspects.device, dtype=aspects.dtype)
    return gram.square().sum() / (count * count - count)


def rate_reduction_loss(words: Tensor, linked: Tensor, beta: float = 0.1, epsilon: float = 0.05) -> Tensor:
    """Rate reduction loss Ω_d = -(R(X) - mean_g R_g) of words [N, M] in groups [G, N].

    R(X) = 1/(2β) logdet(I + β d XᵀX / (N ε²)), R_g = tr_g/(2N) logdet(I + d/(tr_g ε²) Xᵀ diag(A_g) X), with
    the rows of X scaled to length 1 over the M axis and d = M (Wu et al. 2024; Yu et al. 2020). Computed in
    float32 at least; 0 where there are no words, R_g = 0 for a group without any.
    """
    count, width = words.shape
    if not count:
        return words.sum()
    # Determinants have no half precision, and the products that they are of would lose too much in it.
    with torch.autocast(words.device.type, enabled=False):
        rows = normalize(words if words.dtype == torch.float64 else words.float())
        linked = linked.to(rows.dtype)
        identity = torch.eye(width, device=rows.device, dtype=rows.dtype)
        whole = torch.logdet(identity + beta * width / (count * epsilon**2) * (rows.T @ rows)) / (2 * beta)
        if not len(linked):
            return -whole
        size = linked.sum(1).clamp(min=1e-12)
        grams = (linked[:, None] * rows.T) @ rows
        parts = torch.logdet(identity + (width / (size * epsilon**2))[:, None, None] * grams)
        return -(whole - (size / (2 * count) * parts).mean())


def rating_anchor_loss(term: Tensor, rating: Tensor) -> Tensor:
    """Squared error of standardised review terms [B] against standardised ratings [B].

    Pairs without a rating are ignored; 0 where fewer than two remain or all ratings are equal.
    """
    is_rated = ~torch.isnan(rating)
    term, rating = term[is_rated], rating[is_rated]
    if len(rating) < 2 or float(rating.std()) == 0:
        return term.sum() * 0
    target = (rating - rating.mean()) / rating.std()
    return ((term - term.mean()) / term.std().clamp(min=1e-6) - target).square().mean()
