"""What the trained text would say to somebody who has one item alone, summed over a history."""

import torch
from torch import Tensor

from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.vectors import normalize

_PART = 1 << 14
"""Passages at a time."""


class TextNeighbourTerm(HistoryTerm):
    """Table softmax_c(cos(P_j, P_c) / tau), zero diagonal: each item of a history has one vote, for the items
    that are said to be most like it. P and tau are the trained ones of the cosine form.

    The text term sums a history's vectors first, which tells what its items share; this term tells what is
    near to any one of them. A note that a user wrote about several items enters none of them here: without a
    pair none of its copies exist, so that not only the pair's own item would change.
    """

    def __init__(self, scores: CatalogueScores, items: Tensor) -> None:
        """items: int64 [I], ascending, those of the catalogue that it is about; here they are 0 to I - 1."""
        view = scores.view
        self.positives = view.positives.columns(items.numpy())
        self._sharpness = float(scores.model.temperature().detach())
        self._rows_of = scores.table.rows
        self._counted = ~view.copied & (view.lengths > 0)
        passages = (self._counted & (view.passage_item >= 0)).nonzero()[:, 0]
        sums = torch.zeros(view.num_items, scores.preference.shape[1], dtype=torch.float64)
        counts = torch.zeros(view.num_items, dtype=torch.int64)
        for part in torch.split(passages, _PART):
            about = view.passage_item[part].cpu()
            sums.index_add_(0, about, self._said(part))
            counts.index_add_(0, about, torch.ones_like(about))
        self._sums, self._counts = sums[items], counts[items]
        self._items = normalize(self._sums)
        vectors = self._items.float()
        cosines = (vectors @ vectors.T).fill_diagonal_(-2.0)
        # Over that of the nearest: exp(1 / tau) alone may be more than float32 holds.
        self._nearest = cosines.amax(1)
        self._near = cosines.sub_(self._nearest[:, None]).mul_(self._sharpness).exp_().fill_diagonal_(0.0)
        self._totals = self._near.sum(1, dtype=torch.float64)

    def table(self) -> Tensor:
        """float32 [I, I]"""
        return self._near / _above_zero(self._totals)[:, None].float()

    def left_out(self, users: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """float64 [B, I]: the item is said to be what its other passages say, for every other item."""
        taken = (passages >= 0) & self._counted.cpu()[passages.clamp(min=0)]
        own = self._said(passages.clamp(min=0)) * taken[:, None]
        left = self._counts[items] > taken.long()
        vectors = normalize(torch.where(left[:, None], self._sums[items] - own, 0.0))
        near = torch.exp(self._sharpness * (vectors @ self._items.T - self._nearest))
        totals = _above_zero(self._totals - self._near[:, items].T.double() + near)
        shares = self.histories(users, len(self._near)).scatter(1, items[:, None], 0.0) / totals
        term = (shares.float() @ self._near).double()
        return term.scatter(1, items[:, None], (shares * near).sum(1, keepdim=True))

    def _said(self, passages: Tensor) -> Tensor:
        """float64 [n, K] what single passages say, on the CPU."""
        return self._rows_of(passages.to(self._counted.device))[0].detach().double().cpu()


def _above_zero(totals: Tensor) -> Tensor:
    # Where there are no others, or none that count beside one that is left out, nothing is said of them.
    return torch.where(totals > 1e-12, totals, 1.0)
