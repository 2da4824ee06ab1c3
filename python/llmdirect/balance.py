"""How far the collaborative term is to be believed, told by the data: EASE's own settings by leaving train
pairs out of it, exactly; what else of a history is heard, and the weight beside the text, by validation.

All are searched in steps, since NDCG has no gradient. The text is trained without the term: a loss over the
catalogue gives the term too little weight for the first ten places (docs/quality.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from llmdirect.config import HISTORY_TERMS, HistoryTermName, ModelConfig
from llmdirect.ease import Ease, Evidence
from llmdirect.evaluation import left_out_values, sampled_pairs
from llmdirect.history_term import HistoryTerm, Sum
from llmdirect.likeness import EmbeddingLikeness, WordLikeness
from llmdirect.neighbours import Neighbours
from llmdirect.ranking import Scorer, with_item_item
from llmdirect.scores import Documents, Scores, scorer
from llmdirect.walk import Walk

_START = (256.0, 4.0, 0.25)
"""Ridge, likeness of words, likeness of embeddings."""
_STEP = 4.0
_LIMITS = ((1.0, 65536.0), (1 / 64, 1024.0), (1 / 64, 1024.0))
_METRIC = "ndcg@10"
_SEARCHED = 4096
"""Items on which settings are compared: an inverse of 12,000 takes twenty-five times as long."""
_PART = 256
"""Pairs left out at a time."""


Settings = tuple[float, float, float]
Given = tuple[float | None, float | None, float | None]


class LeftOut:
    """Train pairs on which terms are compared, each pair left out.

    Pairs whose text the same user wrote elsewhere too are left aside: they are easier than what is to be
    ranked.
    """

    def __init__(self, evidence: Evidence, documents: Documents) -> None:
        self._view, self._items = documents.view, evidence.items
        local = torch.full((self._view.num_items,), -1)
        local[self._items] = torch.arange(len(self._items))
        device = self._view.pair_item.device
        pairs = sampled_pairs(self._view, ~self._view.copied, (local >= 0).to(device))
        self._parts = []
        for rows in torch.split(torch.arange(len(pairs.user)), _PART):
            part = pairs.at(rows.to(device))
            places = part.user.cpu(), local[part.item.cpu()], part.passage.cpu()
            self._parts.append((part, places, [texts.lost(*places[1:]) for texts in evidence.texts]))

    def value(self, term: Ease) -> float:
        """Mean NDCG@10 among the items."""
        values = []
        for part, places, lost in self._parts:
            table = torch.full((len(places[0]), self._view.num_items), -torch.inf, dtype=torch.float64)
            table[:, self._items] = term.left_out(*places, lost)
            values.append(left_out_values(self._view, part, table.to(part.user.device), _METRIC))
        return float(torch.cat(values).mean())


def candidates(
    documents: Documents, alike: tuple[WordLikeness, EmbeddingLikeness], config: ModelConfig
) -> list[Ease]:
    """EASE, once or twice, at its best settings; alike: how items are, by texts.

    The text term reads the embeddings already: whether to hear them twice is for validation, where the
    configuration does not say. Settings are compared on the most popular items alone where there are many.
    """
    view = documents.view
    searched = evidence = Evidence(view.positives, view.num_items, *alike)
    if view.num_items > _SEARCHED:
        searched = evidence.among(
            torch.argsort(-view.popularity.cpu(), stable=True)[:_SEARCHED].sort().values
        )
    left_out = LeftOut(searched, documents)
    likenesses = [config.embedding_likeness] if config.embedding_likeness is not None else [None, 0.0]
    found = [choose(searched, left_out, (config.ridge, config.word_likeness, one)) for one in likenesses]
    if searched is evidence:
        return found
    return [evidence.ease(one.ridge, *one.likeness) for one in found]


def choose(evidence: Evidence, left_out: LeftOut, given: Given) -> Ease:
    """The term whose left-out NDCG@10 no step of one setting improves.

    evidence: with words and embeddings. given: ridge and the two likenesses; None: to be found.
    """
    free = [axis for axis, value in enumerate(given) if value is None]
    ridge, words, embeddings = (
        start if value is None else value for start, value in zip(_START, given, strict=True)
    )
    at: Settings = (ridge, words, embeddings)
    best = evidence.ease(*at)
    if not free:
        return best
    known = {at: left_out.value(best)}
    moved = True
    while moved:
        moved = False
        for move in _moves(at, free):
            if move not in known:
                found = evidence.ease(*move)
                known[move] = left_out.value(found)
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


@dataclass(frozen=True, eq=False)
class Weighed:
    """A term, its weight beside the text, the scorer that has both, and what validation says of it."""

    term: HistoryTerm
    weight: float
    scorer: Scorer
    value: float


def balance(
    text: Scores, eases: Sequence[Ease], wanted: HistoryTermName, value_of: Callable[[Scorer], float]
) -> tuple[str, Ease, Weighed]:
    """The collaborative term that ranks best beside the text, or the `wanted` one: its name, the EASE in it.

    eases: as `candidates` gives them; the one that ranks best alone is what others are added to, each as much
    as it is. value_of: validation, the more the better; of equal ones the simplest.
    """
    plain, view = scorer(text), text.view
    alone = ((ease, weigh(plain, ease, value_of)) for ease in eases)
    ease, best = max(alone, key=lambda tried: tried[1].value)
    name, unit = "ease", 1 / ease.spread()
    cosine = text.model.config.form == "cosine"
    for title in HISTORY_TERMS[1:]:
        if wanted not in ("found", title) or (title == "ease+neighbours" and not cosine):
            continue
        other = Neighbours(text) if title == "ease+neighbours" else Walk(view.positives, view.num_items)
        tried = weigh(plain, Sum([ease, other], [unit, 1 / other.spread()]), value_of)
        if wanted == title or tried.value > best.value:
            name, best = title, tried
    return name, ease, best


def weigh(text: Scorer, term: HistoryTerm, value_of: Callable[[Scorer], float]) -> Weighed:
    """The weight beside the text that has the highest value.

    Tried: no weight, and those at which the term spreads from 1/16 to 16, in steps of √2; of equal ones the
    first.
    """
    best = Weighed(term, 0.0, text, value_of(text))
    unit, table = 1 / term.spread(), term.item_item()
    for power in range(-8, 9):
        weight = unit * 2 ** (power / 2)
        both = with_item_item(text, term.positives, table, weight)
        value = value_of(both)
        if value > best.value:
            best = Weighed(term, weight, both, value)
    return best
