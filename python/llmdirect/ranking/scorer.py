"""Score tables of a recommender, from which every item is ranked exactly."""

import copy
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.arrays import ArrayOrTensor, float_array, integer_array
from llmdirect.common.csr import Csr

EPS = 5e-7
"""Epsilon in the denominator of the ratio kernel, as published."""

ItemItem: TypeAlias = tuple[ArrayOrTensor, ArrayOrTensor, ArrayOrTensor]
"""Sparse item-item weights in CSR: indptr [I + 1], indices [nnz], values [nnz]."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoreTables:
    """Score tables of a recommender for exact ranking.

    The score of item i for user u is

        user_bias[u] + item_bias[i] + text(u, i) + sum of item_item[j, i] over j in history[u]

    where the text term is ``query[u] @ item[i]`` (kernel "dot") or
    ``(query[u] @ item[i]) / (query[u] @ item_mentions[i] + eps)`` (kernel "ratio").
    All arrays are kept as float32. NumPy arrays and CPU tensors of any number type are accepted.
    U users, I items, vectors of K numbers; K may be 0.

    Raises
    ------
    ValueError
        If shapes do not fit each other, `kernel` is unknown, or only one of `history` and `item_item`
        is there.

    Examples
    --------
    >>> tables = ScoreTables(query=[[1.0, 0.0]], item=[[3, 0], [2, 2]], item_bias=[0, 1])
    >>> tables.score_pairs([0, 0], [0, 1])
    array([3., 3.])
    """

    kernel: Literal["dot", "ratio"] = "dot"
    """How the text term combines the vectors of a user and an item."""
    query: ArrayOrTensor
    """[U, K] vectors of the users."""
    item: ArrayOrTensor
    """[I, K] vectors of the items."""
    item_mentions: ArrayOrTensor = None
    """[I, K] denominators, for the ratio kernel only."""
    eps: float = EPS
    """Added to the denominator of the ratio kernel."""
    item_bias: ArrayOrTensor = None
    """[I]; 0 if not given."""
    user_bias: ArrayOrTensor = None
    """[U]; 0 if not given."""
    history: Csr | None = None
    """U rows of items."""
    item_item: ItemItem | None = None
    """indptr [I + 1], indices [nnz], values [nnz]: row j holds what history item j adds to other items."""
    item_item_rows: Csr | None = field(init=False, repr=False, default=None)
    """I rows: the sparsity pattern of `item_item`."""

    def __post_init__(self) -> None:
        if self.kernel not in ("dot", "ratio"):
            raise ValueError(f"kernel is {self.kernel!r}; there are 'dot' and 'ratio'")
        if (self.kernel == "ratio") != (self.item_mentions is not None):
            raise ValueError("item_mentions belongs to the ratio kernel: give it there and only there")
        if (self.history is None) != (self.item_item is None):
            raise ValueError("history and item_item belong together: give both or none")
        self._set("query", float_array("query", self.query, 2))
        self._set("item", float_array("item", self.item, 2))
        num_users, num_items = self.num_users, self.num_items
        if self.item_bias is None:
            self._set("item_bias", np.zeros(num_items, np.float32))
        shapes: dict[str, tuple[int, ...]] = {
            "item": (num_items, self.query.shape[1]),
            "item_mentions": (num_items, self.query.shape[1]),
            "item_bias": (num_items,),
            "user_bias": (num_users,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = float_array(name, value, len(shape))
            if array.shape != shape:
                sizes = f"{num_users} users, {num_items} items and queries of {self.query.shape[1]}"
                raise ValueError(f"{name} has the shape {array.shape}, expected {shape} for {sizes}")
            self._set(name, array)
        if self.item_item is not None:
            indptr, indices, values = self.item_item
            pattern = Csr(indptr, indices)
            values = float_array("item_item values", values, 1)
            self._set("item_item_rows", pattern)
            self._set("item_item", (pattern.indptr, pattern.indices, values))

    def for_users(
        self, query: ArrayOrTensor, history: Csr | None = None, user_bias: ArrayOrTensor = None
    ) -> "ScoreTables":
        """Score tables of the same items for other users, sharing the item tables.

        Parameters
        ----------
        query
            [V, K] vectors of the other users.
        history
            V rows of items; None where there are no item-item weights.
        user_bias
            [V]; 0 if not given.

        Raises
        ------
        ValueError
            If shapes do not fit, or `history` is given without item-item weights or missing with them.
        """
        other = self._copy(
            query=float_array("query", query, 2),
            history=history,
            user_bias=None if user_bias is None else float_array("user_bias", user_bias, 1),
        )
        if (history is None) != (self.item_item is None):
            raise ValueError("history belongs to a table of items: give it where the tables have item_item")
        bias = other.query[:, 0] if other.user_bias is None else other.user_bias
        rows = len(bias) if history is None else history.num_rows
        if other.query.shape[1] != self.query.shape[1] or not len(other.query) == len(bias) == rows:
            raise ValueError(
                f"query {other.query.shape}, user_bias {bias.shape} and {rows} rows of history do not fit "
                f"vectors of {self.query.shape[1]} numbers"
            )
        return other

    def without(self, *, popularity: bool = False, collaboration: bool = False) -> "ScoreTables":
        """Score tables without the item bias (`popularity`) or the item-item term (`collaboration`)."""
        changes: dict[str, object] = {}
        if popularity:
            changes["item_bias"] = np.zeros(self.num_items, np.float32)
        if collaboration:
            changes |= dict.fromkeys(("history", "item_item", "item_item_rows"))
        return self._copy(**changes)

    def weighted(self, weight: float) -> "ScoreTables":
        """Score tables with the item-item weights multiplied by `weight`.

        Raises
        ------
        ValueError
            If there are no item-item weights.
        """
        if self.item_item is None:
            raise ValueError("there is no table of items to weigh")
        indptr, indices, values = self.item_item
        return self._copy(item_item=(indptr, indices, values * np.float32(weight)))

    def _copy(self, **changes: object) -> "ScoreTables":
        """A copy with other values of some fields, which are not checked again."""
        other = copy.copy(self)
        for name, value in changes.items():
            other._set(name, value)
        return other

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def num_users(self) -> int:
        """Number of users U."""
        return len(self.query)

    @property
    def num_items(self) -> int:
        """Number of items I."""
        return len(self.item)

    def score_pairs(self, users: ArrayOrTensor, items: ArrayOrTensor) -> NDArray[np.float64]:
        """Scores of pairs of a user and an item, seen or not.

        Parameters
        ----------
        users, items
            Integers [n].

        Returns
        -------
        float64 [n], summed in float64.
        """
        users, items = integer_array("users", users, np.int32), integer_array("items", items, np.int32)
        query = np.asarray(self.query[users], np.float64)
        score: NDArray[np.float64] = (query * np.asarray(self.item[items], np.float64)).sum(1)
        if self.kernel == "ratio":
            score /= (query * np.asarray(self.item_mentions[items], np.float64)).sum(1) + self.eps
        score += np.asarray(self.item_bias[items], np.float64)
        if self.user_bias is not None:
            score += np.asarray(self.user_bias[users], np.float64)
        return score + self.score_collaborative_pairs(users, items)

    def score_user(self, user: int) -> NDArray[np.float32]:
        """Scores of all items for one user: float32 [I]. Faster than `rank` for a single user."""
        query = self.query[user]
        scores: NDArray[np.float32] = self.item @ query
        if self.kernel == "ratio":
            scores /= self.item_mentions @ query + np.float32(self.eps)
        scores += self.item_bias
        if self.user_bias is not None:
            scores += self.user_bias[user]
        if self.item_item is not None and self.item_item_rows is not None and self.history is not None:
            indptr, values = self.item_item_rows.indptr, self.item_item[2]
            for source in self.history.row(user).tolist():
                scores[self.item_item_rows.row(source)] += values[indptr[source] : indptr[source + 1]]
        return scores

    def score_collaborative_pairs(
        self, users: NDArray[np.int32], items: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """Item-item term of pairs of a user and an item: float64 [n]; 0 without item-item weights."""
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return np.array([self.item_item_contributions(*pair)[1].sum() for pair in pairs], np.float64)

    def item_item_contributions(self, user: int, item: int) -> tuple[list[int], NDArray[np.float64]]:
        """History items that contribute to the item-item term of an item, and their weights.

        Returns
        -------
        Indices of n history items, and their weights float64 [n]; n is 0 without item-item weights.
        """
        sources: list[int] = []
        weights: list[float] = []
        if self.item_item is not None and self.item_item_rows is not None and self.history is not None:
            for source in self.history.row(user).tolist():
                row = self.item_item_rows.row(source)
                column = int(np.searchsorted(row, item))
                if column < len(row) and row[column] == item:
                    sources.append(source)
                    weights.append(float(self.item_item[2][self.item_item_rows.indptr[source] + column]))
        return sources, np.array(weights, np.float64)


def add_item_item(text: ScoreTables, history: Csr, item_item: ItemItem) -> ScoreTables:
    """Score tables of a text term and biases, with an item-item term added.

    Parameters
    ----------
    text
        Tables without item-item weights.
    history
        U rows of items.
    item_item
        Item-item weights in CSR, I rows.
    """
    return replace(text, history=history, item_item=item_item)
