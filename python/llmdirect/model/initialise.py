"""Initial parameters of DIRECT from training text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmdirect.common.canonical import ROUNDING
from llmdirect.common.decompositions import eigenvectors, first_largest
from llmdirect.common.errors import DataError
from llmdirect.config import PROJECTION
from llmdirect.model.direct import Direct
from llmdirect.model.vectors import normalize

_ROUNDS = 4
"""Rounds in which aspects take their channels: fewer is faster, more is fairer to the last aspect."""


def initialise(model: Direct, pooled: Tensor, items: Tensor, tokens: Tensor, seed: int) -> None:
    """Initialise a model in place from train text: centre, scale, linear sentiment, topics of the aspects.

    The linear sentiment starts as the principal directions of the items, half whitened (singular values to
    the power 1/2), which spreads cosines better than raw text. Without text the random parameters stay: the
    text term is then zero whatever they are.

    Parameters
    ----------
    model
        On the CPU.
    pooled
        float32 [R, D] pooled train passages with text, on the CPU.
    items
        [I, D] mean embeddings of the items that have text.
    tokens
        [T, D] sample of train tokens.

    Raises
    ------
    DataError
        If embeddings are not finite.
    """
    if not len(pooled):
        return
    with torch.no_grad():
        model.centre.copy_(pooled.mean(0, dtype=torch.float64))
        parts = torch.split(pooled, 4096)
        squares = torch.stack([(part - model.centre).square().sum(dtype=torch.float64) for part in parts])
        scale = (squares.sum() / len(pooled)).sqrt()
        if not torch.isfinite(scale):
            raise DataError("embeddings that are not finite; run `llmdirect precompute` again")
        # Texts that are all the same have no spread, and any scale will do.
        model.scale.copy_(torch.where(scale > 0, scale, 1.0))
        if isinstance(model.sentiment, nn.Parameter):
            # In float64 to the end: no choice may depend on rounding, which differs between processors.
            sentiment = half_whitened(model.standard(items.double()), model.sentiment.shape[1])
            # Sharpness 0 has no gradient for the topics: they start as clusters of tokens instead.
            standard = model.standard(tokens.double())
            mention = principal(standard, PROJECTION)[0]
            projected = normalize(standard @ mention)
            aspect = topics(projected, model.aspects, seed)
            if model.form.unit_vectors:
                # Cosines do not change when all channels are rotated alike, so each aspect may start from
                # the channels in which the tokens of its topic are largest.
                nearest = first_largest((projected - aspect[:1]) @ aspect[1:].T)
                sentiment = sentiment @ topic_rotation(standard @ sentiment, nearest, model.aspects)
            model.sentiment.copy_(sentiment)
            model.mention.weight.copy_(mention.T)
            model.aspect.copy_(aspect)


def topic_rotation(terms: Tensor, topic: Tensor, aspects: int) -> Tensor:
    """Rotation float64 [K, K] that gives each aspect the channels in which its topic stands out.

    In rounds, each aspect takes the leading directions of its tokens' second moment minus that of all tokens,
    among those that are still free.

    Parameters
    ----------
    terms
        [T, K] linear sentiment of each token.
    topic
        int64 [T] topic of each token, from 0 to A - 1.
    """
    width = terms.shape[1]
    channels = width // aspects
    terms = terms.double()
    overall = terms.T @ terms / max(1, len(terms))
    moments = []
    for aspect in range(aspects):
        own = terms[topic == aspect]
        moments.append(own.T @ own / max(1, len(own)) - overall)
    free = torch.eye(width, dtype=torch.float64)
    blocks: list[list[Tensor]] = [[] for _ in range(aspects)]
    taken = 0
    while taken < channels:
        step = min(max(1, channels // _ROUNDS), channels - taken)
        for block, moment in zip(blocks, moments, strict=True):
            directions = eigenvectors(free.T @ moment @ free, overall.trace())[1]
            block.append(free @ directions[:, :step])
            free = free @ directions[:, step:]
        taken += step
    return torch.cat([*(column for block in blocks for column in block), free], 1)


def principal(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Principal directions float64 [D, count] (zeros beyond D) and variances of rows float64 [n, D]."""
    size = rows.square().sum() / max(1, len(rows))
    rows = rows - rows.mean(0)
    variances, directions = eigenvectors(rows.T @ rows / max(1, len(rows) - 1), size)
    missing = max(0, count - rows.shape[1])
    return F.pad(directions[:, :count], (0, missing)), F.pad(variances[:count], (0, missing))


def half_whitened(rows: Tensor, count: int) -> Tensor:
    """Principal directions float64 [D, count] of rows [n, D], divided by the fourth root of their variance.

    Variances are relative to the first one, whose direction is unchanged.
    """
    directions, variances = principal(rows, count)
    relative = (variances / variances[0].clamp(min=1e-12)).clamp(min=1e-3)
    return directions * relative.pow(-0.25)


def topics(vectors: Tensor, count: int, seed: int, rounds: int = 15) -> Tensor:
    """Topic centres by spherical k-means, float64 [count + 1, M], the first the mean direction (background).

    Parameters
    ----------
    vectors
        float64 [T, M] of length 1, or 0.
    rounds
        Iterations of k-means.
    """
    generator = torch.Generator().manual_seed(seed)
    background = vectors.mean(0, keepdim=True)
    vectors = _normalize_beyond_rounding(vectors - background)
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:count]]
    if len(centres) < count:
        shape = count - len(centres), vectors.shape[1]
        centres = torch.cat(
            [centres, normalize(torch.randn(shape, generator=generator, dtype=torch.float64))]
        )
    for _ in range(rounds):
        nearest = first_largest(vectors @ centres.T)
        sums = _normalize_beyond_rounding(torch.zeros_like(centres).index_add_(0, nearest, vectors))
        centres = torch.where(sums.any(1, keepdim=True), sums, centres)
    return torch.cat([_normalize_beyond_rounding(background), centres])


def _normalize_beyond_rounding(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1; zeros where unit vectors cancelled up to rounding."""
    return normalize(torch.where(vectors.norm(dim=1, keepdim=True) > ROUNDING, vectors, 0.0))
