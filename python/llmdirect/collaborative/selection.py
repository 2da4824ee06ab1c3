"""How far the collaborative term is to be believed, told by the data: EASE's own settings by leaving train
pairs out of it, exactly; what else of a history is heard, and the weight beside the text, by validation.

All are searched in steps, since NDCG has no gradient. The text is trained without the term: a loss over the
catalogue gives the term too little weight for the first ten places (docs/quality.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.collaborative.combine import SubsetTerm, WeightedSum, subset_positions
from llmdirect.collaborative.ease import MAX_ITEMS, Ease, EaseInputs
from llmdirect.collaborative.random_walk import RandomWalkTerm
from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.collaborative.text_neighbours import TextNeighbourTerm
from llmdirect.config import HISTORY_TERMS, HistoryTermKind, ModelConfig
from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.left_out import left_out_values, sampled_pairs
from llmdirect.model.scores import CatalogueScores, export_tables
from llmdirect.ranking.scorer import ScoreTables, add_item_item

_START = (256.0, 4.0, 0.25)
"""Ridge, likeness of words, likeness of embeddings."""
_STEP = 4.0
_LIMITS = ((1.0, 65536.0), (1 / 64, 1024.0), (1 / 64, 1024.0))
_METRIC = "ndcg@10"
_SEARCHED = 4096
"""Items on which settings are compared: an inverse of 12,000 takes twenty-five times as long."""
_PART = 256
"""Pairs left out at a time."""
_POWERS, _NEAR = range(-8, 9), frozenset(range(-2, 2))
"""Weights that are tried, in steps of √2 of how far the term spreads, and those that come first."""
_SHOWN = 2.0
"""Standard errors by which another weight has to be better."""


Settings = tuple[float, float, float]
Given = tuple[float | None, float | None, float | None]


class LeftOutEvaluator:
    """Train pairs on which terms are compared, each pair left out."""

    def __init__(self, evidence: EaseInputs, documents: ItemDocuments) -> None:
        self._view, self._items = documents.view, evidence.items
        local = subset_positions(self._items, self._view.num_items)
        device = self._view.pair_item.device
        pairs = sampled_pairs(self._view, (local >= 0).to(device))
        self._parts = []
        for rows in torch.split(torch.arange(len(pairs.user)), _PART):
            part = pairs.at(rows.to(device))
            places = part.user.cpu(), local[part.item.cpu()], part.passage.cpu()
            self._parts.append((part, places, [of_texts(*places[1:]) for of_texts in evidence.lost]))

    def value(self, term: Ease) -> float:
        """Mean NDCG@10 among the items."""
        values = []
        for part, places, lost in self._parts:
            table = torch.full((len(places[0]), self._view.num_items), -torch.inf, dtype=torch.float64)
            table[:, self._items] = term.left_out(*places, lost)
            values.append(left_out_values(self._view, part, table.to(part.user.device), _METRIC))
        return float(torch.cat(values).mean())


def fit_ease_candidates(
    documents: ItemDocuments, alike: tuple[WordSimilarity, EmbeddingSimilarity], config: ModelConfig
) -> list[Ease]:
    """EASE, once or twice, at its best settings, of the most popular items, at most `MAX_ITEMS`.

    alike: how items are, by texts. The text term reads the embeddings already: whether to hear them twice is
    for validation, where the configuration does not say. Settings are compared on fewer items still where
    there are many.
    """
    view = documents.view
    popular = torch.argsort(-view.popularity.cpu(), stable=True)

    def evidence(most: int) -> EaseInputs:
        return EaseInputs(view.positives, popular[:most].sort().values, *alike)

    searched = evidence(_SEARCHED)
    left_out = LeftOutEvaluator(searched, documents)
    likenesses = [config.embedding_similarity] if config.embedding_similarity is not None else [None, 0.0]
    found = [tune_ease(searched, left_out, (config.ridge, config.word_similarity, one)) for one in likenesses]
    if view.num_items <= _SEARCHED:
        return found
    whole = evidence(MAX_ITEMS)
    return [whole.ease(one.ridge, *one.likeness) for one in found]


def tune_ease(evidence: EaseInputs, left_out: LeftOutEvaluator, given: Given) -> Ease:
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
class SelectedTerm:
    """A term, its weight beside the text, and the scorer that has both."""

    name: str
    """Of what the term is made."""
    ease: Ease
    """The EASE in it."""
    term: HistoryTerm | None
    """None where no weight is best."""
    weight: float
    spread: float
    """How far the term spreads at this weight."""
    tables: ScoreTables


@dataclass(frozen=True, eq=False)
class _Candidate:
    name: str
    ease: Ease
    term: HistoryTerm
    power: int | None
    """The term spreads √2^power; None: it has no weight."""
    weight: float
    values: NDArray[np.float64]


def select_term(
    text: CatalogueScores,
    eases: Sequence[Ease],
    wanted: HistoryTermKind,
    values_of: Callable[[ScoreTables], NDArray[np.float64]],
    logits: bool = True,
) -> SelectedTerm:
    """The collaborative term and the weight that rank best beside the text; of the `wanted` kind, or any.

    eases: as `candidates` gives them; the one that ranks best alone is what others are added to, each as much
    as it is. values_of: validation, a value for each user (or rating), the more the better; the best has the
    highest mean, of equal ones it is the simplest. Where scores are `logits` of a loss over items, weights at
    which the term spreads about one unit (½ to √2) come first: no weight, and others from 1/16 to 16, are
    taken only where validation shows that they are better, by two standard errors.
    """
    plain, view, items = export_tables(text), text.view, eases[0].items
    near = _NEAR if logits else frozenset([None, *_POWERS])

    def tried(name: str, ease: Ease, term: HistoryTerm) -> list[_Candidate]:
        spread, all_tried = term.spread(), []
        if len(items) < view.num_items:
            term = SubsetTerm(term, items, view.positives, view.num_items)
        beside = add_item_item(plain, term.positives, term.item_item())
        for power in _POWERS:
            weight = float(2 ** (power / 2)) / spread
            values = values_of(beside.weighted(weight))
            all_tried.append(_Candidate(name, ease, term, power, weight, values))
        return all_tried

    alone = [one for ease in eases for one in tried("ease", ease, ease)]
    ease = _best(alone, near).ease
    found = [_Candidate("ease", ease, ease, None, 0.0, values_of(plain)), *alone]
    for name in HISTORY_TERMS[1:]:
        if wanted in ("auto", name) and (text.model.form.unit_vectors or name != "ease+neighbours"):
            other = (
                TextNeighbourTerm(text, items)
                if name == "ease+neighbours"
                else RandomWalkTerm(ease.positives, len(items))
            )
            found += tried(name, ease, WeightedSum([ease, other], [1 / ease.spread(), 1 / other.spread()]))
    best = _significantly_better(
        [one for one in found if one.power is None or wanted in ("auto", one.name)], near
    )
    if best.power is None:
        return SelectedTerm(best.name, best.ease, None, 0.0, 0.0, plain)
    beside = add_item_item(plain, best.term.positives, best.term.item_item()).weighted(best.weight)
    return SelectedTerm(best.name, best.ease, best.term, best.weight, float(2 ** (best.power / 2)), beside)


def _best(tried: Sequence[_Candidate], near: frozenset[int | None]) -> _Candidate:
    """Of the weights that come first."""
    return max((one for one in tried if one.power in near), key=lambda one: one.values.mean())


def _significantly_better(tried: Sequence[_Candidate], near: frozenset[int | None]) -> _Candidate:
    """The best, or another that is better by the most standard errors beyond those that are asked for."""
    best = _best(tried, near)
    shown, lead = best, 0.0
    for one in tried:
        more = one.values - best.values
        least = float(more.mean() - _SHOWN * more.std() / len(more) ** 0.5)
        if one.power not in near and least > lead:
            shown, lead = one, least
    return shown
