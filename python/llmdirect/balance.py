"""How far the collaborative term is to be believed, told by the data: its own settings by leaving train pairs
out of it, exactly, and its weight beside the text by validation.

Both are searched in steps, since NDCG has no gradient. The text is trained without the term: a loss over the
catalogue gives the term too little weight for the first ten places (docs/quality.md).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llmdirect.collaboration import Collaboration, Evidence
from llmdirect.evaluation import left_out_values, sampled_pairs
from llmdirect.ranking import Scorer
from llmdirect.scores import Documents, Pairs, with_collaboration

_START = (256.0, 4.0)
"""Ridge and likeness."""
_STEP = 4.0
_LIMITS = ((1.0, 65536.0), (1 / 64, 1024.0))
_METRIC = "ndcg@10"
_PART = 256
"""Pairs left out at a time."""


def choose(
    evidence: Evidence, documents: Documents, ridge: float | None = None, likeness: float | None = None
) -> Collaboration:
    """The term whose left-out NDCG@10 on train pairs no step of one setting improves; given ones stay.

    Pairs whose text the same user wrote elsewhere too are left aside: they are easier than what is to be
    ranked.
    """
    if evidence.texts is None:
        likeness = 0.0
    if ridge is not None and likeness is not None:
        return evidence.collaboration(ridge, likeness)
    view = documents.view
    pairs = sampled_pairs(view, ~documents.is_copied())
    parts = [
        (pairs.at(rows), None if evidence.texts is None else evidence.texts.lost(*_places(pairs.at(rows))))
        for rows in torch.split(torch.arange(len(pairs.user)), _PART)
    ]
    start = (_START[0] if ridge is None else ridge, _START[1] if likeness is None else likeness)
    free = [axis for axis, given in enumerate((ridge, likeness)) if given is None]

    def measured(settings: tuple[float, float]) -> tuple[float, Collaboration]:
        found = evidence.collaboration(*settings)
        values = [
            left_out_values(view, part, found.left_out(part.user.cpu(), *_places(part), lost), _METRIC)
            for part, lost in parts
        ]
        return float(torch.cat(values).mean()), found

    known: dict[tuple[float, float], float] = {}
    at = start
    known[at], best = measured(at)
    while True:
        tried = [move for move in _moves(at, free) if move not in known]
        before = at
        for move in tried:
            known[move], found = measured(move)
            if known[move] > known[at]:
                at, best = move, found
        if at == before:
            return best


def _places(pairs: Pairs) -> tuple[Tensor, Tensor]:
    return pairs.item.cpu(), pairs.passage.cpu()


def _moves(at: tuple[float, float], free: Sequence[int]) -> list[tuple[float, float]]:
    moves = []
    for axis in free:
        for factor in (_STEP, 1 / _STEP):
            value = at[axis] * factor
            if _LIMITS[axis][0] <= value <= _LIMITS[axis][1]:
                moves.append((value, at[1]) if axis == 0 else (at[0], value))
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
