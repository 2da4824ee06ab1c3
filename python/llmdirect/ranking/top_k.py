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


def _checked(table: Csr | None) -> _core.CheckedCsr | None:
    return None if table is None else table.checked
