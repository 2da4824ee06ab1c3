"""Initial parameters of DIRECT from training text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmdirect.common.errors import DataError
from llmdirect.config import PROJECTION
from llmdirect.model.direct import Direct, normalize

_TURNS = 4
"""In how many turns an aspect takes its channels: fewer is faster, more is fairer to the last aspect."""


def initialise(model: Direct, pooled: Tensor, items: Tensor, tokens: Tensor, seed: int) -> None:
    """Starts the model from train text: centre and scale, the linear map, and topics for the aspects.

    pooled: float32 [R, D] pooled train passages with text; items: [I, D] means of items that have some;
    tokens: [T, D] a sample of train tokens; all of them and the model on the CPU. The linear map starts as
    the principal directions of the items, halfway to whitened (singular values to the power 1/2), which
    spreads cosines better than raw text. Raises DataError where there is no text, or a value in it that is
    not finite.
    """
    if not len(pooled):
        raise DataError("no passage in train has text, so there is nothing to learn words from")
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
            model.sentiment.copy_(half_whitened(model.standard(items), model.sentiment.shape[1]))
            # Sharpness 0 has no gradient for the topics: they start as clusters of tokens instead.
            standard = model.standard(tokens)
            model.mention.weight.copy_(principal(standard, PROJECTION)[0].T)
            mentioned = normalize(model.mention(standard))
            model.aspect.copy_(topics(mentioned, model.aspects, seed))
            if model.config.score_form == "cosine":
                # Cosines do not change when all channels are rotated alike, so each aspect may start from
                # the channels in which the tokens of its topic say the most.
                nearest = ((mentioned - normalize(model.aspect[:1])) @ model.aspect[1:].T).argmax(1)
                model.sentiment.copy_(
                    model.sentiment @ topic_rotation(standard @ model.sentiment, nearest, model.aspects)
                )


def topic_rotation(said: Tensor, topic: Tensor, aspects: int) -> Tensor:
    """An orthogonal [K, K] whose block of columns a holds what tokens of topic a say more than others do.

    said: [T, K] what each token says; topic: int64 [T]. In turns, each aspect takes the leading directions
    of its tokens' second moment, less that of all tokens, among those that are still free.
    """
    width = said.shape[1]
    channels = width // aspects
    said = said.double()
    overall = said.T @ said / max(1, len(said))
    moments = []
    for aspect in range(aspects):
        own = said[topic == aspect]
        moments.append(own.T @ own / max(1, len(own)) - overall)
    free = torch.eye(width, dtype=torch.float64)
    blocks: list[list[Tensor]] = [[] for _ in range(aspects)]
    taken = 0
    while taken < channels:
        step = min(max(1, channels // _TURNS), channels - taken)
        for block, moment in zip(blocks, moments, strict=True):
            directions = torch.linalg.eigh(free.T @ moment @ free)[1]
            block.append(free @ directions[:, -step:])
            free = free @ directions[:, :-step]
        taken += step
    return torch.cat([*(column for block in blocks for column in block), free], 1).float()


def principal(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` principal directions [D, count] (zeros beyond D), and their variances."""
    rows = rows.double() - rows.double().mean(0)
    variances, directions = torch.linalg.eigh(rows.T @ rows / max(1, len(rows) - 1))
    kept = min(count, rows.shape[1])
    directions = F.pad(directions.flip(1)[:, :kept], (0, count - kept))
    return directions.float(), F.pad(variances.flip(0)[:kept], (0, count - kept)).float()


def half_whitened(rows: Tensor, count: int) -> Tensor:
    """Principal directions over the fourth root of their variance, the first one unchanged: [D, count]."""
    directions, variances = principal(rows, count)
    relative = (variances / variances[0].clamp(min=1e-12)).clamp(min=1e-3)
    return directions * relative.pow(-0.25)


def topics(vectors: Tensor, count: int, seed: int, rounds: int = 15) -> Tensor:
    """[count + 1, M]: the mean direction (background), then `count` centres by spherical k-means."""
    generator = torch.Generator().manual_seed(seed)
    background = vectors.mean(0, keepdim=True)
    vectors = normalize(vectors - background)
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:count]]
    if len(centres) < count:
        extra = torch.randn(count - len(centres), vectors.shape[1], generator=generator)
        centres = torch.cat([centres, normalize(extra)])
    for _ in range(rounds):
        nearest = (vectors @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, normalize(sums), centres)
    return torch.cat([normalize(background), centres])
