"""Weighted sums of item-item terms, and terms on a subset of the catalogue."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.csr import Csr
from llmdirect.model.history_term import HistoryTerm


class WeightedSum(HistoryTerm):
    """Weighted sum of item-item terms of the same users."""

    def __init__(self, terms: Sequence[HistoryTerm], weights: Sequence[float]) -> None:
        self.positives, self.terms, self._weights = terms[0].positives, tuple(terms), tuple(weights)

    def table(self) -> Tensor:
        """float32 [I, I]"""
        table = self.terms[0].table().mul_(self._weights[0])
        for term, weight in zip(self.terms[1:], self._weights[1:], strict=True):
            table.add_(term.table(), alpha=weight)
        return table

    def left_out(self, users: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """float64 [B, I]"""
        values = self.terms[0].left_out(users, items, passages).mul_(self._weights[0])
        for term, weight in zip(self.terms[1:], self._weights[1:], strict=True):
            values.add_(term.left_out(users, items, passages), alpha=weight)
        return values


def subset_positions(items: Tensor, num_items: int) -> Tensor:
    """int64 [num_items] position of each catalogue item in `items`; -1 where it is missing."""
    return torch.full((num_items,), -1).index_copy_(0, items, torch.arange(len(items)))


class SubsetTerm(HistoryTerm):
    """Term of a subset of the items, extended to the catalogue by zeros.

    Parameters
    ----------
    items
        int64 [n], ascending: catalogue indices of the term's items.
    positives
        U rows of catalogue items.
    num_items
        Size of the catalogue.
    """

    def __init__(self, term: HistoryTerm, items: Tensor, positives: Csr, num_items: int) -> None:
        self.positives, self._term, self._items = positives, term, items
        self._position = subset_positions(items, num_items)

    def table(self) -> Tensor:
        """float32 [I, I]"""
        table = torch.zeros(len(self._position), len(self._position))
        table[self._items[:, None], self._items] = self._term.table()
        return table

    def item_item(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """indptr, indices and values of the table, with entries for the subset alone."""
        counts = torch.where(self._position >= 0, len(self._items), 0)
        return (
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]).numpy(),
            np.tile(self._items.int().numpy(), len(self._items)),
            self._term.table().flatten().numpy(),
        )

    def left_out(self, users: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """float64 [B, I] term without one pair each; a pair of an item outside the subset changes nothing."""
        position = self._position[items]
        inside = position >= 0
        values = torch.empty(len(users), len(self._items), dtype=torch.float64)
        values[inside] = self._term.left_out(users[inside], position[inside], passages[inside])
        if not inside.all():
            values[~inside] = self._term.score_users(users[~inside])
        return torch.zeros(len(users), len(self._position), dtype=torch.float64).index_copy_(
            1, self._items, values
        )
