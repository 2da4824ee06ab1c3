"""Exact top-k ranking of the full catalogue."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.arrays import ArrayOrTensor, integer_array
from llmdirect.common.csr import Csr
from llmdirect.ranking.scorer import ScoreTables


def rank_of_score(sorted_scores: NDArray[np.float64], score: float) -> int:
    """Rank, from 1, of an item with this score among other items; ahead of equal scores.

    Parameters
    ----------
    sorted_scores
        [n] scores of the other items, ascending.
    """
    return 1 + len(sorted_scores) - int(np.searchsorted(sorted_scores, score, side="right"))


@dataclass(frozen=True, eq=False)
class RankedLists:
    """Top-k lists of B users."""

    items: NDArray[np.int32]
    """[B, k] item indices, best first, ties by smaller index; padded with -1."""
    scores: NDArray[np.float32]
    """[B, k] scores of `items`; -inf where padded."""
    auc: NDArray[np.float64] | None
    """[B] AUC over all candidates, if `relevant` was given; NaN for a user whose candidates are all or none
    relevant."""
    user_rows: NDArray[np.int32]
    """[B] user indices of the lists."""


def rank(
    tables: ScoreTables, user_rows: ArrayOrTensor, *, k: int, seen: Csr | None, relevant: Csr | None = None
) -> RankedLists:
    """Exact top-k lists over all unseen items.

    Every item is scored; memory is B * k, and a copy of the item vectors.

    Parameters
    ----------
    tables
        Score tables of U users and I items.
    user_rows
        Integers [B], the users to rank for.
    k
        Length of the lists; shorter ones are padded.
    seen
        U rows of items that are no candidates; None: every item is one.
    relevant
        U rows of relevant items: adds the AUC over the candidates. Relevant items that are seen do not
        count.

    Raises
    ------
    ValueError
        If a score is NaN or +inf, of any item, seen or not (the message names user and item), or indices
        or sizes do not fit. A score of -inf is ranked last.

    Examples
    --------
    >>> tables = ScoreTables(query=[[1.0, 0.0]], item=[[3, 0], [2, 2], [4, 1]])
    >>> rank(tables, [0], k=2, seen=Csr.from_pairs([0], [2], 1)).items
    array([[0, 1]], dtype=int32)
    """
    if k < 0:
        raise ValueError(f"k is {k}, below 0")
    user_rows = integer_array("user_rows", user_rows, np.int32)
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


def rank_scores(
    scores: NDArray[np.float32], *, k: int, seen: Csr | None, candidates: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    """Exact top-k lists of scores that are computed already.

    Parameters
    ----------
    scores
        float32 [B, I], overwritten.
    k
        Length of the lists; shorter ones are padded.
    seen
        B rows of items that are no candidates; None: every item is one.
    candidates
        bool [I], items that are candidates of any user; all by default.

    Returns
    -------
    int32 [B, k] item indices, best first, ties by smaller index; padded with -1.

    Raises
    ------
    ValueError
        If the score of a candidate is NaN or +inf.

    Examples
    --------
    >>> rank_scores(np.float32([[1, 3, 2, 3]]), k=3, seen=None)
    array([[1, 3, 2]], dtype=int32)
    """
    num_rows, num_items = scores.shape
    if seen is not None:
        scores[np.repeat(np.arange(num_rows), np.diff(seen.indptr)), seen.indices] = -np.inf
    if candidates is not None:
        scores[:, ~candidates] = -np.inf
    if (undefined := np.isnan(scores) | np.isposinf(scores)).any():
        row, item = (int(position[0]) for position in np.nonzero(undefined))
        raise ValueError(f"the score of row {row} and item {item} is {scores[row, item]}")
    length = min(k, num_items)
    top = np.full((num_rows, k), -1, np.int32)
    if length == 0:
        return top
    threshold = np.partition(scores, num_items - length, axis=1)[:, num_items - length]
    rows, items = np.nonzero(scores >= threshold[:, None])  # at least `length` a row, more with ties
    order = np.lexsort((items, -scores[rows, items], rows))
    rows, items = rows[order], items[order]
    rank_in_row = np.arange(len(rows)) - np.searchsorted(rows, rows)
    listed = (rank_in_row < length) & np.isfinite(scores[rows, items])
    top[rows[listed], rank_in_row[listed]] = items[listed]
    return top


def _checked(table: Csr | None) -> _core.CheckedCsr | None:
    return None if table is None else table.checked
