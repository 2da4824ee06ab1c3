"""How far the collaborative term is to be believed, told by the data: its own settings by leaving train pairs
out of it, exactly, and its weight beside the text by validation.

Both are searched in steps, since NDCG has no gradient. The text is trained without the term: a loss over the
catalogue gives the term too little weight for the first ten places (docs/quality.md).
"""

from collections.abc import Callable, Sequence

import torch

from llmdirect.collaboration import Collaboration, Evidence
from llmdirect.evaluation import left_out_values, sampled_pairs
from llmdirect.ranking import Scorer
from llmdirect.scores import Documents, with_collaboration

_START = (256.0, 4.0, 0.25)
"""Ridge, likeness of words, likeness of embeddings."""
_STEP = 4.0
_LIMITS = ((1.0, 65536.0), (1 / 64, 1024.0), (1 / 64, 1024.0))
_METRIC = "ndcg@10"
_PART = 256
"""Pairs left out at a time."""


Settings = tuple[float, float, float]
Given = tuple[float | None, float | None, float | None]


def choose(evidence: Evidence, documents: Documents, given: Given) -> Collaboration:
    """The term whose left-out NDCG@10 on train pairs no step of one setting improves.

    evidence: with words and embeddings. given: ridge and the two likenesses; None: to be found.
    Pairs whose text the same user wrote elsewhere too are left aside: they are easier than what is to be
    ranked.
    """
    free = [axis for axis, value in enumerate(given) if value is None]
    ridge, words, embeddings = (
        start if value is None else value for start, value in zip(_START, given, strict=True)
    )
    at: Settings = (ridge, words, embeddings)
    best = evidence.collaboration(*at)
    if not free:
        return best
    view = documents.view
    pairs = sampled_pairs(view, ~documents.is_copied())
    parts = []
    for rows in torch.split(torch.arange(len(pairs.user)), _PART):
        part = pairs.at(rows)
        places = part.item.cpu(), part.passage.cpu()
        parts.append((part, places, [texts.lost(*places) for texts in evidence.texts]))

    def left_out(found: Collaboration) -> float:
        values = [
            left_out_values(
                view, part, found.left_out(part.user.cpu(), *places, lost).to(part.user.device), _METRIC
            )
            for part, places, lost in parts
        ]
        return float(torch.cat(values).mean())

    known = {at: left_out(best)}
    moved = True
    while moved:
        moved = False
        for move in _moves(at, free):
            if move not in known:
                found = evidence.collaboration(*move)
                known[move] = left_out(found)
                if known[move] > known[at]:
                    at, best, moved = move, found, True
    return best


def _moves(at: Settings, free: Sequence[int]) -> list[Settings]:
    moves = []
    for axis in free:
        low, high = _LIMITS[axis]
        for factor in (_STEP, 1 / _STEP):
            ridge, words, embeddings = (
                value * factor if number == axis else value for number, value in enumerate(at)
            )
            if low <= at[axis] * factor <= high:
                moves.append((ridge, words, embeddings))
    return moves


def weigh(
    text: Scorer, collaboration: Collaboration, value_of: Callable[[Scorer], float], weight: float | None
) -> tuple[float, Scorer]:
    """The weight of the term with the highest value, and the scorer that has it.

    weight: where the search begins, and how far it goes: from half of it to twice; None: from nothing to 64
    times the weight at which the term has a spread of 1. Of equal ones the first in the search.
    """
    if weight:
        tried = [weight * factor for factor in (1.0, 0.5**0.5, 2**0.5, 0.5, 2.0)]
    else:
        tried = [0.0, *(2 ** (power / 2) / collaboration.spread() for power in range(-8, 13))]
    ranked = ((with_collaboration(text, collaboration, one), one) for one in tried)
    best, found, best_value = text, 0.0, -torch.inf
    for scorer, one in ranked:
        value = value_of(scorer)
        if value > best_value:
            best, found, best_value = scorer, one, value
    return found, best
