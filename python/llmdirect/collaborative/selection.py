"""Selection of the collaborative term: settings of EASE, kind of term, and its weight in the score.

The settings of EASE maximise the NDCG of exactly left-out train pairs, kind and weight that of
validation; all are searched on grids, since NDCG has no gradient. The text is trained without the term: a
loss over the catalogue gives the term too little weight for the top ten (docs/quality.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.choices import HistoryTermKind
from llmdirect.collaborative.combine import SubsetTerm, WeightedSum, subset_positions
from llmdirect.collaborative.ease import MAX_ITEMS, Ease, EaseInputs
from llmdirect.collaborative.random_walk import RandomWalkTerm
from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.collaborative.text_neighbours import TextNeighbourTerm
from llmdirect.config import HISTORY_TERMS, ModelConfig
from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.left_out import left_out_values, sampled_pairs
from llmdirect.model.scores import CatalogueScores, export_tables
from llmdirect.ranking.scorer import ScoreTables, add_item_item

_START = (256.0, 4.0, 0.25)
"""Initial ridge, weight of the similarity of words, and of embeddings."""
_STEP = 4.0
_LIMITS = ((1.0, 65536.0), (1 / 64, 1024.0), (1 / 64, 1024.0))
_METRIC = "ndcg@10"
_SEARCHED = 4096
"""Maximum number of items on which settings are compared: inverting 12,000 takes 25 times as long."""
_PART = 256
"""Pairs that are left out at a time."""
_POWERS, _PREFERRED = range(-8, 9), frozenset(range(-2, 2))
"""Candidate standard deviations √2**power of the weighted term, and the powers that are preferred."""
_MIN_STANDARD_ERRORS = 2.0
"""Standard errors by which another weight has to be better."""


Settings = tuple[float, float, float]
FixedSettings = tuple[float | None, float | None, float | None]


class LeftOutEvaluator:
    """NDCG@10 of train pairs, each scored by a term from which it is left out.

    Parameters
    ----------
    inputs
        Inputs of the terms that are compared.
    """

    def __init__(self, inputs: EaseInputs, documents: ItemDocuments) -> None:
        self._view, self._items = documents.view, inputs.items
        local = subset_positions(self._items, self._view.num_items)
        device = self._view.pair_item.device
        pairs = sampled_pairs(self._view, (local >= 0).to(device))
        self._parts = []
        for rows in torch.split(torch.arange(len(pairs.user)), _PART):
            part = pairs.at(rows.to(device))
            positions = part.user.cpu(), local[part.item.cpu()], part.passage.cpu()
            text_changes = [change(*positions[1:]) for change in inputs.text_changes]
            self._parts.append((part, positions, text_changes))

    def value(self, term: Ease) -> float:
        """Mean NDCG@10 over the pairs, with the term's items as candidates."""
        values = []
        for part, positions, text_changes in self._parts:
            table = torch.full((len(positions[0]), self._view.num_items), -torch.inf, dtype=torch.float64)
            table[:, self._items] = term.left_out(*positions, text_changes)
            values.append(left_out_values(self._view, part, table.to(part.user.device), _METRIC))
        return float(torch.cat(values).mean())


def fit_ease_candidates(
    documents: ItemDocuments,
    similarities: tuple[WordSimilarity, EmbeddingSimilarity],
    config: ModelConfig,
    num_reviewed: int | None = None,
) -> list[Ease]:
    """EASE at its best settings, with and without the similarity of embeddings.

    The text term reads the embeddings already, so validation decides whether EASE has them too; where
    `config.embedding_similarity` is set there is one candidate. Terms are of the `MAX_ITEMS` most popular
    items; settings are compared on fewer. Beyond `_SEARCHED` items the terms are of no more than the
    `num_reviewed` items with interactions (all, if not given), so that a large catalogue costs no memory.
    """
    view = documents.view
    popular = torch.argsort(-view.popularity.cpu(), stable=True)

    def inputs_of(most: int) -> EaseInputs:
        return EaseInputs(view.positives, popular[:most].sort().values, *similarities)

    reviewed = view.num_items
    if num_reviewed is not None and reviewed > _SEARCHED:
        reviewed = num_reviewed
    searched = inputs_of(min(_SEARCHED, reviewed))
    left_out = LeftOutEvaluator(searched, documents)
    weights = [config.embedding_similarity] if config.embedding_similarity is not None else [None, 0.0]
    tuned = [
        tune_ease(searched, left_out, (config.ridge, config.word_similarity, weight)) for weight in weights
    ]
    if reviewed <= _SEARCHED:
        return tuned
    inputs = inputs_of(min(MAX_ITEMS, reviewed))
    return [inputs.ease(ease.ridge, *ease.text_weights) for ease in tuned]


def tune_ease(inputs: EaseInputs, left_out: LeftOutEvaluator, fixed: FixedSettings) -> Ease:
    """Coordinate search for the settings of EASE with the best left-out NDCG@10.

    Parameters
    ----------
    inputs
        With the similarities of words and of embeddings.
    fixed
        Ridge and the two text weights; None for those to search.
    """
    free = [axis for axis, value in enumerate(fixed) if value is None]
    ridge, words, embeddings = (
        start if value is None else value for start, value in zip(_START, fixed, strict=True)
    )
    current: Settings = (ridge, words, embeddings)
    best = inputs.ease(*current)
    if not free:
        return best
    values = {current: left_out.value(best)}
    improved = True
    while improved:
        improved = False
        for settings in _neighbours(current, free):
            if settings not in values:
                ease = inputs.ease(*settings)
                values[settings] = left_out.value(ease)
                if values[settings] > values[current]:
                    current, best, improved = settings, ease, True
    return best


def _neighbours(current: Settings, free: Sequence[int]) -> list[Settings]:
    """Settings one step away along each free axis, within the limits."""
    neighbours = []
    for axis in free:
        low, high = _LIMITS[axis]
        for factor in (_STEP, 1 / _STEP):
            ridge, words, embeddings = (
                value * factor if number == axis else value for number, value in enumerate(current)
            )
            if low <= current[axis] * factor <= high:
                neighbours.append((ridge, words, embeddings))
    return neighbours


@dataclass(frozen=True, eq=False)
class SelectedTerm:
    """Collaborative term with its weight, and the score tables with both."""

    name: str
    """One of `config.HISTORY_TERMS`."""
    ease: Ease
    """The EASE in it."""
    term: HistoryTerm | None
    """None where the score is best without a term."""
    weight: float
    spread: float
    """Standard deviation of the weighted term over items that users do not have."""
    tables: ScoreTables


@dataclass(frozen=True, eq=False)
class _Candidate:
    name: str
    ease: Ease
    term: HistoryTerm
    power: int | None
    """The weighted term has the standard deviation √2**power; None: it has no weight."""
    weight: float
    values: NDArray[np.float64]


def select_term(
    text: CatalogueScores,
    eases: Sequence[Ease],
    wanted: HistoryTermKind,
    values_of: Callable[[ScoreTables], NDArray[np.float64]],
    logits: bool = True,
) -> SelectedTerm:
    """Collaborative term and weight with the highest mean validation value; of equal ones the simplest.

    Parameters
    ----------
    text
        Scores of the text term.
    eases
        Candidates of `fit_ease_candidates`; other terms are added to the best one, with equal standard
        deviation.
    wanted
        Kind of the term; "auto" for any.
    values_of
        Validation value of each user, or rating, for score tables: higher is better.
    logits
        Whether scores are logits of a loss over items. Then weights at which the term has a standard
        deviation of ½ to √2 are preferred; no weight, and others from 1/16 to 16, have to be better by
        two standard errors.
    """
    plain, view, items = export_tables(text), text.view, eases[0].items
    preferred = _PREFERRED if logits else frozenset([None, *_POWERS])

    def candidates(name: str, ease: Ease, term: HistoryTerm) -> list[_Candidate]:
        spread, tried = term.spread(), []
        if len(items) < view.num_items:
            term = SubsetTerm(term, items, view.positives, view.num_items)
        unweighted = add_item_item(plain, term.positives, term.item_item())
        for power in _POWERS:
            weight = float(2 ** (power / 2)) / spread
            values = values_of(unweighted.weighted(weight))
            tried.append(_Candidate(name, ease, term, power, weight, values))
        return tried

    alone = [candidate for ease in eases for candidate in candidates("ease", ease, ease)]
    ease = _best(alone, preferred).ease
    tried = [_Candidate("ease", ease, ease, None, 0.0, values_of(plain)), *alone]
    for name in HISTORY_TERMS[1:]:
        if wanted in ("auto", name) and (text.model.form.unit_vectors or name != "ease+neighbours"):
            other = (
                TextNeighbourTerm(text, items)
                if name == "ease+neighbours"
                else RandomWalkTerm(ease.positives, len(items))
            )
            tried += candidates(
                name, ease, WeightedSum([ease, other], [1 / ease.spread(), 1 / other.spread()])
            )
    best = _significantly_better(
        [each for each in tried if each.power is None or wanted in ("auto", each.name)], preferred
    )
    if best.power is None:
        return SelectedTerm(best.name, best.ease, None, 0.0, 0.0, plain)
    tables = add_item_item(plain, best.term.positives, best.term.item_item()).weighted(best.weight)
    return SelectedTerm(best.name, best.ease, best.term, best.weight, float(2 ** (best.power / 2)), tables)


def _best(tried: Sequence[_Candidate], preferred: frozenset[int | None]) -> _Candidate:
    """The best of the preferred weights."""
    return max((each for each in tried if each.power in preferred), key=lambda each: each.values.mean())


def _significantly_better(tried: Sequence[_Candidate], preferred: frozenset[int | None]) -> _Candidate:
    """The best of the preferred weights, or another whose lower confidence bound exceeds it the most."""
    best = _best(tried, preferred)
    selected, lead = best, 0.0
    for candidate in tried:
        more = candidate.values - best.values
        least = float(more.mean() - _MIN_STANDARD_ERRORS * more.std() / len(more) ** 0.5)
        if candidate.power not in preferred and least > lead:
            selected, lead = candidate, least
    return selected
