"""Exact top-k ranking of the full catalogue."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.arrays import ArrayOrTensor, index_array
from llmdirect.common.csr import Csr
from llmdirect.ranking.scorer import ScoreTables


def place_among(others: NDArray[np.float64], score: float) -> int:
    """Rank, from 1, of an item with this score beside the scores of others, ascending; ahead of equals."""
    return 1 + len(others) - int(np.searchsorted(others, score, side="right"))


@dataclass(frozen=True, eq=False)
class RankedLists:
    """The best k candidates of B users."""

    items: NDArray[np.int32]
    """[B, k] best first, equal scores by smaller item; -1 where there are fewer candidates than k."""
    scores: NDArray[np.float32]
    """[B, k]; -inf beside item -1."""
    auc: NDArray[np.float64] | None
    """[B], if relevant items were given; NaN for a user without a relevant or without another candidate."""
    user_rows: NDArray[np.int32]
    """[B] the users of the lists."""


def rank(
    tables: ScoreTables, user_rows: ArrayOrTensor, *, k: int, seen: Csr | None, relevant: Csr | None = None
) -> RankedLists:
    """Ranks all items but the seen ones for each of `user_rows` [B].

    seen, relevant: U rows, one for each user of the tables. `relevant` asks for the AUC over the full list
    of candidates; relevant items that are seen are no candidates and do not count. Memory: B * k, and a
    copy of the item vectors.

    Raises ValueError for a score that is NaN or +inf (of any item, seen or not), naming user and item, and
    for indices or sizes that do not fit. A score of -inf is ranked last.
    """
    if k < 0:
        raise ValueError(f"k is {k}, below 0")
    user_rows = index_array("user_rows", user_rows)
    items, scores, auc = _core.rank(
        user_rows,
        k,
        tables.query,
        tables.item,
        tables.item_bias,
        item_mass=tables.item_mentions,
        eps=tables.eps,
        user_bias=tables.user_bias,
        history=_checked(tables.history),
        item_item=_checked(tables.item_item_rows),
        item_item_values=None if tables.item_item is None else tables.item_item[2],
        seen=_checked(seen),
        relevant=_checked(relevant),
    )
    return RankedLists(items, scores, auc, user_rows)


def _checked(table: Csr | None) -> _core.CheckedCsr | None:
    return None if table is None else table.checked
