"""Sums of passage embeddings by item, with single passages left out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmdirect.common.ragged import entries_of
from llmdirect.model.train_view import TrainView
from llmdirect.model.vectors import tokens_per_vote


@dataclass(frozen=True, eq=False)
class Pairs:
    """Batch of train positives."""

    user: Tensor
    """int64 [B]"""
    item: Tensor
    """int64 [B]"""
    passage: Tensor
    """int64 [B] row of the pair's own passage in the view; -1 for none."""
    rating: Tensor
    """float32 [B]; NaN for none."""

    @classmethod
    def from_view(cls, view: TrainView, rows: Tensor) -> "Pairs":
        """Pairs at these positions of the view."""
        return cls(
            view.pair_user[rows], view.pair_item[rows], view.pair_passage[rows], view.pair_rating[rows]
        )

    def at(self, rows: Tensor) -> "Pairs":
        """Pairs at these positions of the batch."""
        return Pairs(self.user[rows], self.item[rows], self.passage[rows], self.rating[rows])


_PART = 1 << 14
"""Passages summed at a time."""


class ItemDocuments:
    """Weighted sums of passage embeddings by item, in float64.

    A document without one passage is its sum minus that passage. In float32 that would leave a rounding
    residue where nothing is left; in float64 it is exact to far below float32, and the weight, a sum of whole
    numbers, is exactly zero where no other passage has text.

    Parameters
    ----------
    equal_reviews
        Whether each review has weight 1; otherwise its number of tokens.
    """

    def __init__(self, view: TrainView, equal_reviews: bool) -> None:
        self.view = view
        self.weight = view.lengths.double() / tokens_per_vote(view.lengths, equal_reviews)
        self.item_weight = self.sum_over_items(self.weight)
        self.pooled = self.weighted_sums(self.weight)
        grouped = (view.group >= 0).nonzero()[:, 0]
        self._members = grouped[torch.argsort(view.group[grouped], stable=True)]
        sizes = torch.bincount(view.group[grouped])
        self._group_indptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])

    def weighted_sums(self, weight: Tensor) -> Tensor:
        """float64 [I, D] sums of pooled passages, each times its weight [R]."""
        view = self.view
        sums = torch.zeros(view.num_items, view.dim, dtype=torch.float64, device=view.pooled.device)
        # In parts: all weighted passages at once would take twice the memory of the passages themselves.
        for part in torch.split((view.passage_item >= 0).nonzero()[:, 0], _PART):
            sums.index_add_(0, view.passage_item[part], view.pooled[part].double() * weight[part, None])
        return sums

    def sum_over_items(self, rows: Tensor) -> Tensor:
        """float64 [I, …] sums of per-passage rows [R, …]."""
        owned = self.view.passage_item >= 0
        sums = torch.zeros(self.view.num_items, *rows.shape[1:], dtype=torch.float64, device=rows.device)
        return sums.index_add(0, self.view.passage_item[owned], rows[owned].double())

    def subtract(self, sums: Tensor, rows: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """sums[items] minus the rows of single passages; -1: nothing to subtract."""
        return sums[items] - _own(rows, passages)

    def items(self) -> tuple[Tensor, Tensor]:
        """float64 weighted sums [I, D] and weights [I] of items."""
        return self.pooled, self.item_weight

    def rows(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """float64 weighted sums [..., D] and weights [...] of single passages."""
        weight = self.weight[passages]
        return self.view.pooled[passages].double() * weight[..., None], weight

    def without(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """float64 weighted sums [N, D] and weights [N] of items without one passage each (-1: all)."""
        weight = _own(self.weight, passages)
        own = _own(self.view.pooled, passages) * weight[:, None]
        return self.pooled[items] - own, self.item_weight[items] - weight

    def groups(self, passages: Tensor) -> Tensor:
        """int64, shaped as `passages`: group number that same-user copies of a text share; -1 for none."""
        if not len(self.view.group):
            return torch.full_like(passages, -1)
        return torch.where(passages >= 0, self.view.group[passages.clamp(min=0)], -1)

    def copies(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """Other passages about an item with the same text and user.

        Parameters
        ----------
        passages
            int64 [B]; -1 for none.

        Returns
        -------
        positions, copies
            int64 [n] positions in `passages`, and int64 [n] their copies.
        """
        group = self.groups(passages)
        position = (group >= 0).nonzero()[:, 0]
        row, entry = entries_of(self._group_indptr, group[position])
        copies, position = self._members[entry], position[row]
        others = (copies != passages[position]) & (self.view.passage_item[copies] >= 0)
        return position[others], copies[others]


def _own(rows: Tensor, passages: Tensor) -> Tensor:
    """float64 [N, …] rows of these passages; zeros for passage -1, and where there are no rows."""
    if not len(rows):
        return torch.zeros(len(passages), *rows.shape[1:], dtype=torch.float64, device=passages.device)
    own = rows[passages.clamp(min=0)].double()
    return torch.where((passages >= 0).view(-1, *[1] * (rows.ndim - 1)), own, 0.0)
