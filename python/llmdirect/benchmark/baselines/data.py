"""What baselines are made from: train positives and, for those that read, the texts of train."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.common.csr import Csr
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.train_view import TrainView
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.store.store import EmbeddingStore

Suggest = Any
"""An Optuna trial: `suggest_float(name, low, high, log=…)` and its kin."""


@dataclass(frozen=True, eq=False)
class TrainData:
    """One split's train positives and texts. U users, I items."""

    dataset: Dataset
    store: EmbeddingStore | None = None
    """For those that read."""
    seed: int = 0

    @cached_property
    def positives(self) -> Csr:
        """U rows of items."""
        return self.dataset.csr(TRAIN)

    @property
    def num_users(self) -> int:
        """U"""
        return self.dataset.num_users

    @property
    def num_items(self) -> int:
        """I"""
        return self.dataset.num_items

    @cached_property
    def users(self) -> NDArray[np.int64]:
        """The user of each positive."""
        return np.repeat(np.arange(self.num_users), np.diff(self.positives.indptr))

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """float64 [U] positives of each user, at least 1."""
        return np.diff(self.positives.indptr).clip(1).astype(np.float64)

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """float64 [I] as `Dataset.popularity` counts."""
        return self.dataset.popularity(TRAIN).astype(np.float64)

    def rows(self, weights: NDArray[np.float64] | None = None) -> Any:
        """The positives as a SciPy CSR matrix [U, I], float64; weights: one a user, 1 if not given."""
        from scipy.sparse import csr_array

        values = np.ones(len(self.users)) if weights is None else weights[self.users]
        shape = (self.num_users, self.num_items)
        borders, items = (
            self.positives.indptr.copy(),
            self.positives.indices.copy(),
        )  # for libraries that write
        return csr_array((values, items, borders), shape=shape)

    def gram(self, user_power: float) -> NDArray[np.float64]:
        """float64 [I, I] Xᵀ diag(n^-user_power) X; n the number of a user's positives."""
        rows = self.rows(self.counts ** (-user_power / 2))
        gram: NDArray[np.float64] = (rows.T @ rows).toarray()
        return gram

    @cached_property
    def view(self) -> TrainView:
        """Pooled texts of train."""
        if self.store is None:
            raise ValueError("this baseline reads texts: it needs a store")
        return TrainView.from_dataset(self.dataset, self.store)

    @cached_property
    def documents(self) -> ItemDocuments:
        """Sums of the texts of train about each item."""
        return ItemDocuments(self.view, equal_reviews=False)

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """float64 [I, D] direction of each item's mean train text from the mean of all; or zeros."""
        centre = self.view.pooled[self.view.lengths > 0].double().mean(0)
        found: NDArray[np.float64] = EmbeddingSimilarity(self.documents, centre).directions.numpy()
        return found

    @cached_property
    def common_words(self) -> NDArray[np.float64]:
        """float64 [I, I] cosines of the items' words (TF-IDF, centred)."""
        texts = self.dataset.passages.text.gather(self.view.passage_idx)
        return WordSimilarity(self.view, texts).gram(torch.arange(self.view.num_items)).numpy()


@dataclass(frozen=True)
class Baseline:
    """A model that a user could have instead."""

    fit: Callable[..., ScoreTables]
    """(data, **settings): fits on train alone."""
    space: Callable[[Suggest], Mapping[str, Any]] = lambda trial: {}
    """The settings of one trial."""


def item_item(data: TrainData, table: NDArray[np.floating]) -> ScoreTables:
    """Σ_{j in history} table[j, i], of a table [I, I] whose zeros are not kept."""
    sources, targets = np.nonzero(table)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=len(table)))])
    return ScoreTables(
        query=np.zeros((data.num_users, 0)),
        item=np.zeros((data.num_items, 0)),
        history=data.positives,
        item_item=(indptr, targets.astype(np.int32), table[sources, targets].astype(np.float32)),
    )


def strongest(table: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The table with the `count` largest entries of each column, and 0 elsewhere."""
    if count >= len(table):
        return table
    cut = np.partition(table, -count, axis=0)[-count]
    return np.where(table >= cut, table, 0.0)
