"""Dataset with edge cases of leave-one-out scoring, and its remainder without each pair."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmdirect.collaborative.combine import SubsetTerm, WeightedSum
from llmdirect.collaborative.ease import Ease, EaseInputs
from llmdirect.collaborative.random_walk import RandomWalkTerm
from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.collaborative.text_neighbours import TextNeighbourTerm
from llmdirect.config import ModelConfig
from llmdirect.data.dataset import Dataset
from llmdirect.model.direct import Direct
from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.item_documents import ItemDocuments, Pairs
from llmdirect.model.scores import export_tables
from llmdirect.model.train_view import TrainView
from llmdirect.ranking.top_k import rank
from llmdirect.store.store import EmbeddingStore
from model_helpers import (
    Row,
    dataset_of,
    delete,
    row_of,
    scores_of,
    write_embeddings,
)

TOLERANCE = 1e-5
RIDGE = 3.0
WORDS = [f"w{number}" for number in range(200)]
USERS, ITEMS = 12, 44
LONG, SINGLE, DESCRIBED, COPIED_ONLY, COLD = 36, 42, 43, 41, 38
PAIRS = [
    (0, 0),  # the newest of 36: the 31st of history and passages moves up
    (0, 34),  # beyond the newest 30
    (0, 3),  # copies at items 20 and 33, one of them beyond the newest 30
    (0, 33),
    (1, 40),  # the user's only interaction
    (2, 10),  # copies at four items: one non-positive, one whose document is only the copy
    (2, COPIED_ONLY),
    (3, 12),  # without text
    (4, SINGLE),  # the only passage about the item
    (5, DESCRIBED),  # a description stays
    (6, LONG),  # a thousand times the words of the rest of the document
    (7, LONG),
    (8, 15),
    (9, 16),
]


def sentence(rng: np.random.Generator, length: int = 0) -> str:
    """Random words."""
    return " ".join(rng.choice(WORDS, length or int(rng.integers(1, 12))))


def world_rows() -> list[Row]:
    """Interactions with all edge cases of leave-one-out scoring."""
    rng = np.random.default_rng(5)
    same, again = "the same words everywhere", "posted once, posted twice"
    rows = [Row(0, item, sentence(rng), time=1000 - item) for item in range(36)]
    for item, text in ((3, same), (20, same.upper()), (33, f"  {same.replace(' ', '  ')} ")):
        rows[item] = replace(rows[item], text=text)
    rows.append(Row(1, 40, sentence(rng), time=7))
    rows += [Row(2, item, again, time=item) for item in (10, 11, COPIED_ONLY)]
    rows += [Row(2, 14, f" {again}", time=14, positive=False, rating=1.0), Row(2, 39, sentence(rng), time=39)]
    rows += [Row(3, item, "", time=None) for item in (12, 13)]
    rows += [Row(4, SINGLE, sentence(rng), time=3), Row(4, 12, sentence(rng), time=4)]
    rows += [Row(5, DESCRIBED, sentence(rng), time=5), Row(5, 40, sentence(rng), time=6)]
    rows += [Row(6, LONG, sentence(rng, 4000), time=1), Row(7, LONG, "short", time=2)]
    for user in range(6, USERS):
        for item in rng.choice(38, 8, replace=False).tolist():
            if item != LONG:
                split = int(rng.choice(3, p=[0.7, 0.1, 0.2])) if item not in (15, 16) else 0
                rows.append(
                    Row(user, item, sentence(rng), time=int(rng.integers(20)), split=split, rating=3.0)
                )
    taken = {(row.user, row.item) for row in rows}
    rows += [Row(user, item, sentence(rng)) for user, item in ((8, 15), (9, 16)) if (user, item) not in taken]
    rows.append(Row(11, COLD, sentence(rng), time=50, split=2))
    return rows


def ease_of(
    dataset: Dataset,
    view: TrainView,
    centre: Tensor,
    items: Tensor,
    fixed: WordSimilarity | None = None,
) -> Ease:
    """EASE of these items, in which texts weigh as much as a few users; `fixed` supplies word weights."""
    texts, documents = (
        dataset.passages.text.gather(view.passage_idx),
        ItemDocuments(view, equal_reviews=False),
    )
    similarities = WordSimilarity(view, texts, fixed), EmbeddingSimilarity(documents, centre)
    return EaseInputs(view.positives, items, *similarities).ease(RIDGE, 3.0, 2.0)


def history_term(ease: Ease, model: Direct, view: TrainView, tokens: bool) -> HistoryTerm | None:
    """Weighted sum of all item-item terms if the model is collaborative."""
    if not model.config.collaborative:
        return None
    terms: list[HistoryTerm] = [ease, RandomWalkTerm(ease.positives, len(ease.items))]
    if model.form.unit_vectors:
        terms.append(TextNeighbourTerm(scores_of(model, view, tokens), ease.items))
    term = WeightedSum(terms, [1.0, 0.01, 3.0][: len(terms)])
    if len(ease.items) < view.num_items:
        return SubsetTerm(term, ease.items, view.positives, view.num_items)
    return term


@dataclass
class World:
    """Dataset, and its remainder without each of some train pairs."""

    dataset: Dataset
    store: EmbeddingStore
    view: TrainView
    pairs: Pairs
    ease: Ease
    without: list[tuple[TrainView, Ease]]

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset,
        store: EmbeddingStore,
        pairs: list[tuple[int, int]],
        items: Tensor | None = None,
    ) -> "World":
        """Delete each pair separately, and empty the texts of its copies or drop their passages.

        items: items of the collaborative term; all by default.
        """
        plain = TrainView.from_dataset(dataset, store)
        centre = plain.pooled.mean(0)  # a fixed map, like that of the model
        items = torch.arange(plain.num_items) if items is None else items
        ease = ease_of(dataset, plain, centre, items)
        words = ease.text_changes[0].texts
        assert isinstance(words, WordSimilarity)
        lexicon = words.lexicon(plain, 3)
        assert lexicon.dim == 3
        view = plain.with_lexicon(lexicon, dataset.passages.text.gather(plain.passage_idx))
        places = [
            int(((view.pair_user == user) & (view.pair_item == item)).nonzero()[0, 0]) for user, item in pairs
        ]
        without = []
        for number, (user, item) in enumerate(pairs):
            smaller = delete(dataset, row_of(dataset, user, item), drop_copies=number % 2 == 1)
            rebuilt = TrainView.from_dataset(smaller, store)
            again = ease_of(smaller, rebuilt, centre, items, words)
            texts = smaller.passages.text.gather(rebuilt.passage_idx)
            without.append((rebuilt.with_lexicon(lexicon, texts), again))
        return cls(
            dataset,
            store,
            view,
            Pairs.from_view(view, torch.tensor(places)),
            ease,
            without,
        )

    def left_out(self, model: Direct, tokens: bool) -> Tensor:
        """CatalogueScores [pairs, I] of `left_out`, with the user's bias and the global one."""
        with torch.no_grad():
            term = history_term(self.ease, model, self.view, tokens)
            scores, _ = scores_of(model, self.view, tokens, term).left_out(self.pairs)
            return scores + (model.bias + model.user_bias[self.pairs.user])[:, None]

    def rebuilt(self, model: Direct, tokens: bool) -> list[tuple[Tensor, Tensor]]:
        """Candidates and their scores for each pair, ranked after deletion."""
        ranked = []
        for user, (view, ease) in zip(self.pairs.user.tolist(), self.without, strict=True):
            with torch.no_grad():
                term = history_term(ease, model, view, tokens)
            ranking = export_tables(scores_of(model, view, tokens, term))
            lists = rank(ranking, [user], k=view.num_items, seen=view.positives)
            listed = lists.items[0] >= 0
            ranked.append(
                (torch.from_numpy(lists.items[0][listed]).long(), torch.from_numpy(lists.scores[0][listed]))
            )
        return ranked

    def differences(self, model: Direct, tokens: bool) -> Tensor:
        """Largest difference of a candidate's two scores, for each pair."""
        left_out, largest = self.left_out(model, tokens), []
        for number, (items, expected) in enumerate(self.rebuilt(model, tokens)):
            assert self.pairs.item[number] in items, "the pair's item must be a candidate again"
            largest.append((left_out[number, items] - expected).abs().max())
        return torch.stack(largest)


def build(folder: Path, items: Tensor | None = None) -> World:
    """World with its embeddings in `folder`; items: as `World.from_dataset` takes them."""
    dataset = dataset_of(world_rows(), USERS, ITEMS, {DESCRIBED: "a description of it", 5: "another"})
    return World.from_dataset(
        dataset, write_embeddings(folder, dataset.passages.text.to_list()), PAIRS, items
    )


def config(**settings: Any) -> ModelConfig:
    """Few aspects; one channel where the form or the sentiment allows no more."""
    one = settings.get("score_form") == "ratio" or settings.get("sentiment") == "mlp"
    return ModelConfig(aspects=3, channels=1 if one else 2, ridge=RIDGE, **settings)
