"""Text k-NN term: softmax over text similarities of items, summed over the history."""

import torch
from torch import Tensor

from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.vectors import normalize

_PART = 1 << 14
"""Passages that are read at a time."""


class TextNeighbourTerm(HistoryTerm):
    """Item-item weights softmax_c(cos(P_j, P_c) / tau) with a zero diagonal.

    P are the preference vectors of items and tau the temperature of the trained cosine form. The text term
    averages the history first and finds what its items have in common; this term finds the neighbours of each
    single item. A text that its user posted about several items is left out of all of them: without a pair
    none of its copies exist, and items other than the pair's own would change.

    Parameters
    ----------
    scores
        Scores of the trained text term.
    items
        int64 [I], ascending: catalogue indices of the term's items; they are 0 to I - 1 here.
    """

    def __init__(self, scores: CatalogueScores, items: Tensor) -> None:
        view = scores.view
        self.positives = view.positives.columns(items.numpy())
        self._inverse_temperature = float(scores.model.temperature().detach())
        self._read_passages = scores.table.rows
        self._is_counted = ~view.copied & (view.lengths > 0)
        passages = (self._is_counted & (view.passage_item >= 0)).nonzero()[:, 0]
        sums = torch.zeros(view.num_items, scores.preference.shape[1], dtype=torch.float64)
        counts = torch.zeros(view.num_items, dtype=torch.int64)
        for part in torch.split(passages, _PART):
            owner = view.passage_item[part].cpu()
            sums.index_add_(0, owner, self._preference(part))
            counts.index_add_(0, owner, torch.ones_like(owner))
        self._sums, self._counts = sums[items], counts[items]
        self._items = normalize(self._sums)
        vectors = self._items.float()
        cosines = (vectors @ vectors.T).fill_diagonal_(-2.0)
        # Relative to the nearest item: exp(1 / tau) may overflow float32.
        self._max_cosine = cosines.amax(1)
        self._affinity = (
            cosines.sub_(self._max_cosine[:, None]).mul_(self._inverse_temperature).exp_().fill_diagonal_(0.0)
        )
        self._totals = self._affinity.sum(1, dtype=torch.float64)

    def table(self) -> Tensor:
        """float32 [I, I]"""
        return self._affinity / _nonzero(self._totals)[:, None].float()

    def left_out(self, users: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """float64 [B, I] term without one pair each: its item keeps its other passages."""
        removed = (passages >= 0) & self._is_counted.cpu()[passages.clamp(min=0)]
        own = self._preference(passages.clamp(min=0)) * removed[:, None]
        left = self._counts[items] > removed.long()
        vectors = normalize(torch.where(left[:, None], self._sums[items] - own, 0.0))
        affinity = torch.exp(self._inverse_temperature * (vectors @ self._items.T - self._max_cosine))
        totals = _nonzero(self._totals - self._affinity[:, items].T.double() + affinity)
        shares = self.histories(users, len(self._affinity)).scatter(1, items[:, None], 0.0) / totals
        term = (shares.float() @ self._affinity).double()
        return term.scatter(1, items[:, None], (shares * affinity).sum(1, keepdim=True))

    def _preference(self, passages: Tensor) -> Tensor:
        """float64 [n, K] preference vectors of single passages, on the CPU."""
        return self._read_passages(passages.to(self._is_counted.device))[0].detach().double().cpu()


def _nonzero(totals: Tensor) -> Tensor:
    """`totals`, but 1 where there are no other items: their shares are zero then."""
    return torch.where(totals > 1e-12, totals, 1.0)
