"""Train data of the baselines, and steps that several of them share."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.collaborative.gram import cooccurrences
from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.common.csr import Csr
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.train_view import TrainView
from llmdirect.store.store import EmbeddingStore


@dataclass(frozen=True, eq=False)
class TrainData:
    """Train positives and texts of one split. U users, I items, embeddings of D numbers."""

    dataset: Dataset
    store: EmbeddingStore | None = None
    """Token embeddings, for baselines that read texts."""
    seed: int = 0
    """Seed of baselines that draw random numbers."""

    @cached_property
    def positives(self) -> Csr:
        """Train positives: U rows of items."""
        return self.dataset.csr(TRAIN)

    @property
    def num_users(self) -> int:
        """Number of users U."""
        return self.dataset.num_users

    @property
    def num_items(self) -> int:
        """Number of items I."""
        return self.dataset.num_items

    @cached_property
    def users(self) -> NDArray[np.int64]:
        """User of each train positive: int64 [nnz]."""
        return np.repeat(np.arange(self.num_users), np.diff(self.positives.indptr))

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """Number of positives of each user, at least 1: float64 [U]."""
        return np.diff(self.positives.indptr).clip(1).astype(np.float64)

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """Number of users of each item as `Dataset.popularity` counts them: float64 [I]."""
        return self.dataset.popularity(TRAIN).astype(np.float64)

    def matrix(self, user_weights: NDArray[np.float64] | None = None) -> Any:
        """User-item matrix of the positives as a SciPy CSR array.

        Parameters
        ----------
        user_weights
            float64 [U], the value of a user's entries; 1 if not given.

        Returns
        -------
        float64 [U, I], a copy: libraries may write to it.
        """
        from scipy.sparse import csr_array

        values = np.ones(len(self.users)) if user_weights is None else user_weights[self.users]
        indices, indptr = self.positives.indices.copy(), self.positives.indptr.copy()
        return csr_array((values, indices, indptr), shape=(self.num_users, self.num_items))

    def gram(self, user_power: float) -> NDArray[np.float64]:
        """Weighted item-item Gram matrix of the train positives: float64 [I, I].

        Xᵀ diag(n^-user_power) X, where n is the number of a user's positives.
        """
        gram: NDArray[np.float64] = cooccurrences(self.positives, self.num_items, user_power).numpy()
        return gram

    @cached_property
    def sequence(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Users and items of the train positives, by user, then time: int32 [nnz] each."""
        rows = self.dataset.interactions
        chosen = (rows.split == TRAIN) & rows.positive
        return rows.user_idx[chosen], rows.item_idx[chosen]

    def before(self, reach: int, half_life: float) -> Any:
        """What each user did before each train positive, as a SciPy CSR array float32 [nnz, I].

        Parameters
        ----------
        reach
            Number of events that count, from the newest.
        half_life
            Events after which the weight is half; the newest event before has the weight 1.
        """
        from scipy.sparse import csr_array

        user, item = self.sequence
        rows, columns, values = [], [], []
        for gap in range(1, min(reach, len(user) - 1) + 1):
            row = np.flatnonzero(user[gap:] == user[:-gap]) + gap
            if not len(row):
                break
            rows.append(row)
            columns.append(item[row - gap])
            values.append(np.full(len(row), 0.5 ** ((gap - 1) / half_life), np.float32))
        if not rows:
            return csr_array((len(user), self.num_items), dtype=np.float32)
        table = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        return csr_array(table, shape=(len(user), self.num_items))

    @cached_property
    def targets(self) -> Any:
        """Item of each train positive, as a SciPy CSR array float32 [nnz, I]."""
        from scipy.sparse import csr_array

        _, item = self.sequence
        table = np.ones(len(item), np.float32), item, np.arange(len(item) + 1)
        return csr_array(table, shape=(len(item), self.num_items))

    @cached_property
    def view(self) -> TrainView:
        """Train passages with their pooled embeddings.

        Raises
        ------
        ValueError
            If there is no store.
        """
        if self.store is None:
            raise ValueError("this baseline reads texts: it needs a store")
        return TrainView.from_dataset(self.dataset, self.store)

    @cached_property
    def documents(self) -> ItemDocuments:
        """Sums of the train passages of each item."""
        return ItemDocuments(self.view, equal_reviews=False)

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """Centred unit vectors of the items' mean train texts: float64 [I, D]; zeros without text."""
        centre = self.view.pooled[self.view.lengths > 0].double().mean(0)
        directions: NDArray[np.float64] = EmbeddingSimilarity(self.documents, centre).directions.numpy()
        return directions

    @cached_property
    def common_words(self) -> NDArray[np.float64]:
        """Cosine similarity of the items' centred TF-IDF vectors: float64 [I, I]."""
        texts = self.dataset.passages.text.gather(self.view.passage_idx)
        return WordSimilarity(self.view, texts).gram(torch.arange(self.view.num_items)).numpy()


def largest_neighbours(similarity: NDArray[np.float64], neighbours: int, axis: int) -> NDArray[np.float64]:
    """Similarities with only the largest `neighbours` entries along an axis, and 0 elsewhere."""
    if neighbours >= len(similarity):
        return similarity
    threshold = np.partition(similarity, -neighbours, axis=axis).take([-neighbours], axis=axis)
    return np.where(similarity >= threshold, similarity, 0.0)


def shrunk_cosine(gram: NDArray[np.float64], shrink: float) -> NDArray[np.float64]:
    """Shrunk cosine similarity of a Gram matrix, with a zero diagonal: g_ij / (√(g_ii g_jj) + shrink)."""
    lengths = np.sqrt(np.diag(gram))
    similarity: NDArray[np.float64] = gram / (np.outer(lengths, lengths) + shrink)
    np.fill_diagonal(similarity, 0.0)
    return similarity
