"""Random-walk item-item term: a low-pass filter of the interaction graph."""

from functools import cached_property

import torch
from torch import Tensor

from llmdirect.collaborative.gram import cooccurrences, user_weights_without
from llmdirect.common.csr import Csr
from llmdirect.model.history_term import HistoryTerm

STEPS = 3
"""Steps of the walk, from item to item."""
_USER_POWER = 1.0
"""One vote a user: long histories would otherwise connect all items with each other."""


class RandomWalkTerm(HistoryTerm):
    """Item-item weights C³ with a zero diagonal, C_jc = g_jc / √(g_jj g_cc) with G = Xᵀ W X.

    C holds cosines of items, with weight 1/n for a user of n positives. Where histories are short, items that
    no user has together are related through third items.

    References
    ----------
    He, X. et al. (2020). LightGCN.
    Shen, Y. et al. (2021). How Powerful is Graph Convolution for Recommendation?
    """

    def __init__(self, positives: Csr, num_items: int) -> None:
        self.positives = positives
        self._gram = cooccurrences(positives, num_items, _USER_POWER)

    @cached_property
    def _walked(self) -> Tensor:
        inverse_norms = _inverse_root(self._gram.diagonal()).float()
        cosines = self._gram.float().mul_(inverse_norms[:, None]).mul_(inverse_norms)
        walked = cosines
        for _ in range(STEPS - 1):
            walked = walked @ cosines
        return walked.fill_diagonal_(0.0)

    def table(self) -> Tensor:
        """float32 [I, I]"""
        return self._walked.clone()

    def left_out(self, users: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """float64 [B, I] term without one pair each; passages have no influence.

        Without the pair the user's x xᵀ / n in G becomes x' x'ᵀ / (n - 1), so each step is one product with G
        and two with the user's rows.
        """
        before = self.histories(users, len(self._gram)).double()
        after = before.scatter(1, items[:, None], 0.0)
        counts = before.sum(1, keepdim=True)
        weight, reduced = user_weights_without(counts, _USER_POWER)
        inverse_norms = _inverse_root(self._gram.diagonal() - weight * before + reduced * after)
        walked = after
        for _ in range(STEPS):
            walked = walked * inverse_norms
            old, new = (walked * before).sum(1, keepdim=True), (walked * after).sum(1, keepdim=True)
            walked = (walked @ self._gram - weight * old * before + reduced * new * after) * inverse_norms
        return walked


def _inverse_root(counts: Tensor) -> Tensor:
    # Rounding may leave a residue where a count is zero.
    positive = counts > 1e-9
    return torch.where(positive, counts, 1.0).rsqrt() * positive
