"""Fitted models of the scoreboard: scores of all items for queries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdirect.evaluation.queries import Queries
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank, rank_scores

_BLOCK = 1 << 24
"""Scores in memory at once."""


class FittedModel(ABC):
    """Model fitted on the train split. B queries, I items."""

    @abstractmethod
    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Scores of all items for each query: float32 [B, I]; those of seen items do not matter."""

    def top(self, queries: Queries, k: int, candidates: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
        """Exact top-k lists: int32 [B, k], padded with -1.

        Parameters
        ----------
        candidates
            bool [I], items that may be listed; all by default.
        """
        size = max(1, _BLOCK // max(1, queries.num_items))
        parts = []
        for start in range(0, len(queries), size):
            block = queries.select(np.arange(start, min(start + size, len(queries))))
            scores = np.array(self.scores(block), np.float32)
            parts.append(rank_scores(scores, k=k, seen=block.seen, candidates=candidates))
        return np.concatenate(parts) if parts else np.empty((0, k), np.int32)


class ItemItemModel(FittedModel):
    """Sum of item-item weights over the history.

    Parameters
    ----------
    weights
        [I, I] array or SciPy sparse array: entry (j, i) is what history item j adds to item i.
    half_life
        Events after which the weight of a history item is half; 0: all items count alike.
    """

    def __init__(self, weights: Any, half_life: float = 0.0) -> None:
        self.weights, self.half_life = weights.astype(np.float32), half_life

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]"""
        product = queries.history(self.half_life) @ self.weights
        return np.asarray(product.toarray() if hasattr(product, "toarray") else product, np.float32)


class ItemBiasModel(FittedModel):
    """The same score of an item for everybody: float [I]."""

    def __init__(self, bias: NDArray[np.floating]) -> None:
        self.bias = bias.astype(np.float32)

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]"""
        return np.tile(self.bias, (len(queries), 1))


class FunctionModel(FittedModel):
    """Scores by a function of queries, float [B, I]."""

    def __init__(self, function: Callable[[Queries], NDArray[np.floating]]) -> None:
        self._function = function

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]"""
        return self._function(queries).astype(np.float32)


class FactorModel(FittedModel):
    """Product of a query and an item vector, plus an item bias.

    Parameters
    ----------
    query
        Function of queries: vectors [B, K].
    item
        [I, K] vectors of the items.
    bias
        [I]; 0 by default.
    """

    def __init__(
        self,
        query: Callable[[Queries], NDArray[np.floating]],
        item: NDArray[np.floating],
        bias: NDArray[np.floating] | None = None,
    ) -> None:
        self.query, self.item = query, item.astype(np.float32)
        self.bias = None if bias is None else bias.astype(np.float32)

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]"""
        scores: NDArray[np.float32] = self.query(queries).astype(np.float32) @ self.item.T
        return scores if self.bias is None else scores + self.bias


class TablesModel(FittedModel):
    """Score tables that are exported for each set of queries.

    Parameters
    ----------
    tables
        Function of queries: score tables of B users.
    """

    def __init__(self, tables: Callable[[Queries], ScoreTables]) -> None:
        self.tables = tables

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]"""
        tables = self.tables(queries)
        return np.stack([tables.score_user(user) for user in range(len(queries))])

    def top(self, queries: Queries, k: int, candidates: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
        """Exact top-k lists; ranked by the extension."""
        if candidates is not None:
            return super().top(queries, k, candidates)
        return rank(self.tables(queries), np.arange(len(queries)), k=k, seen=queries.seen).items


class SumModel(FittedModel):
    """Weighted sum of two models, the second one scaled to unit standard deviation over items.

    Parameters
    ----------
    weight
        Of the second model.
    """

    def __init__(self, first: FittedModel, second: FittedModel, weight: float) -> None:
        self.first, self.second, self.weight = first, second, weight

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]"""
        return self.first.scores(queries) + self.weight * self.second.scores(queries)
