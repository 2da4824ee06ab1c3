"""Score tables of a model, as ranking takes them."""

import copy
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.arrays import ArrayOrTensor, float_array, index_array
from llmdirect.common.csr import Csr

EPS = 5e-7
"""Of the ratio form, as published."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoreTables:
    """All that a score is made of, in float32. U users, I items, vectors of K numbers (K may be 0).

    score = user_bias[u] + item_bias[i] + text term + Σ_{j in history[u]} item_item[j, i]; the text term is
    query·item (kernel "dot") or (query·item) / (query·item_mentions + eps) (kernel "ratio").

    Arrays may be NumPy or CPU tensors of any number type. Raises ValueError for shapes that do not fit.
    """

    kernel: Literal["dot", "ratio"] = "dot"
    query: ArrayOrTensor
    """[U, K]"""
    item: ArrayOrTensor
    """[I, K]"""
    item_mentions: ArrayOrTensor = None
    """[I, K], for the ratio kernel alone."""
    eps: float = EPS
    item_bias: ArrayOrTensor = None
    """[I]; 0 if not given."""
    user_bias: ArrayOrTensor = None
    """[U]; 0 if not given."""
    history: Csr | None = None
    """U rows of items."""
    item_item: tuple[ArrayOrTensor, ArrayOrTensor, ArrayOrTensor] | None = None
    """indptr [I + 1], indices [nnz] and values [nnz]: row j holds what an item j of the history adds."""
    item_item_rows: Csr | None = field(init=False, repr=False, default=None)
    """Where `item_item` has values."""

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
            table = Csr(indptr, indices)
            self._set("item_item_rows", table)
            self._set("item_item", (table.indptr, table.indices, float_array("item_item values", values, 1)))

    def for_users(
        self, query: ArrayOrTensor, history: Csr | None = None, user_bias: ArrayOrTensor = None
    ) -> "ScoreTables":
        """The same catalogue for other users: query [V, K], V rows of history, user_bias [V].

        The tables of the catalogue are shared, and not checked again. history: left out where this scorer
        has no table of items. Raises ValueError for shapes that do not fit.
        """
        other = copy.copy(self)
        other._set("query", float_array("query", query, 2))
        other._set("history", history)
        other._set("user_bias", None if user_bias is None else float_array("user_bias", user_bias, 1))
        if (history is None) != (self.item_item is None):
            raise ValueError("history belongs to a table of items: give it where the scorer has one")
        bias = other.query[:, 0] if other.user_bias is None else other.user_bias
        rows = len(bias) if history is None else history.num_rows
        if other.query.shape[1] != self.query.shape[1] or not len(other.query) == len(bias) == rows:
            raise ValueError(
                f"query {other.query.shape}, user_bias {bias.shape} and {rows} rows of history do not fit "
                f"vectors of {self.query.shape[1]} numbers"
            )
        return other

    def without(self, *, popularity: bool = False, collaboration: bool = False) -> "ScoreTables":
        """The same scorer as if items had no bias, or the history added nothing."""
        other = copy.copy(self)
        if popularity:
            other._set("item_bias", np.zeros(self.num_items, np.float32))
        if collaboration:
            for name in ("history", "item_item", "item_item_rows"):
                other._set(name, None)
        return other

    def weighted(self, weight: float) -> "ScoreTables":
        """The same scorer with what the history adds times a weight. ValueError where it adds nothing."""
        if self.item_item is None:
            raise ValueError("there is no table of items to weigh")
        other = copy.copy(self)
        indptr, indices, values = self.item_item
        other._set("item_item", (indptr, indices, values * np.float32(weight)))
        return other

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def num_users(self) -> int:
        """U"""
        return len(self.query)

    @property
    def num_items(self) -> int:
        """I"""
        return len(self.item)

    def score_pairs(self, users: ArrayOrTensor, items: ArrayOrTensor) -> NDArray[np.float64]:
        """float64 [n]: the score of item n for user n, seen or not."""
        users, items = index_array("users", users), index_array("items", items)
        query = np.asarray(self.query[users], np.float64)
        score: NDArray[np.float64] = (query * np.asarray(self.item[items], np.float64)).sum(1)
        if self.kernel == "ratio":
            score /= (query * np.asarray(self.item_mentions[items], np.float64)).sum(1) + self.eps
        score += np.asarray(self.item_bias[items], np.float64)
        if self.user_bias is not None:
            score += np.asarray(self.user_bias[users], np.float64)
        return score + self.score_collaborative_pairs(users, items)

    def score_user(self, user: int) -> NDArray[np.float32]:
        """float32 [I]: the score of every item for one user, which takes no preparation as `rank` does."""
        query = self.query[user]
        scores: NDArray[np.float32] = self.item @ query
        if self.kernel == "ratio":
            scores /= self.item_mentions @ query + np.float32(self.eps)
        scores += self.item_bias
        if self.user_bias is not None:
            scores += self.user_bias[user]
        if self.item_item is not None and self.item_item_rows is not None and self.history is not None:
            borders, values = self.item_item_rows.indptr, self.item_item[2]
            for source in self.history.row(user).tolist():
                scores[self.item_item_rows.row(source)] += values[borders[source] : borders[source + 1]]
        return scores

    def score_collaborative_pairs(
        self, users: NDArray[np.int32], items: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """float64 [n]: the collaborative term of item n for user n; 0 without one."""
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return np.array([self.collaborative_parts(*pair)[1].sum() for pair in pairs], np.float64)

    def collaborative_parts(self, user: int, item: int) -> tuple[list[int], NDArray[np.float64]]:
        """The items of a user's history that add to the collaborative term of an item, and what each adds."""
        sources: list[int] = []
        values: list[float] = []
        if self.item_item is not None and self.item_item_rows is not None and self.history is not None:
            for source in self.history.row(user).tolist():
                row = self.item_item_rows.row(source)
                place = int(np.searchsorted(row, item))
                if place < len(row) and row[place] == item:
                    sources.append(source)
                    values.append(float(self.item_item[2][self.item_item_rows.indptr[source] + place]))
        return sources, np.array(values, np.float64)


ItemItem = tuple[ArrayOrTensor, ArrayOrTensor, ArrayOrTensor]


def add_item_item(text: ScoreTables, history: Csr, item_item: ItemItem) -> ScoreTables:
    """The scorer of a text term and biases, with what items of a history add beside them."""
    return replace(text, history=history, item_item=item_item)
