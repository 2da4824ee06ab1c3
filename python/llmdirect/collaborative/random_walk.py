"""Where a walk over the interaction graph ends: what reaches items that nobody has together yet."""

from functools import cached_property

import torch
from torch import Tensor

from llmdirect.collaborative.ease import cooccurrences
from llmdirect.common.csr import Csr
from llmdirect.model.history_term import HistoryTerm

STEPS = 3
"""From item to item."""
_USER_POWER = 1.0
"""Each user has one vote, so that those with long histories do not join everything to everything."""


class RandomWalkTerm(HistoryTerm):
    """Table C³ without its diagonal, C_jc = g_jc / √(g_jj g_cc) and G = Xᵀ W X: cosines of items, each user
    of n positives counting 1/n.

    A low-pass filter of the graph, what LightGCN (He et al. 2020) comes down to without its training (Shen et
    al. 2021): where histories are short, items are alike through others that both were chosen with.
    """

    def __init__(self, positives: Csr, num_items: int) -> None:
        self.positives = positives
        self._together = cooccurrences(positives, num_items, _USER_POWER)

    @cached_property
    def _walked(self) -> Tensor:
        lengths = _inverse_root(self._together.diagonal()).float()
        cosines = self._together.float().mul_(lengths[:, None]).mul_(lengths)
        walked = cosines
        for _ in range(STEPS - 1):
            walked = walked @ cosines
        return walked.fill_diagonal_(0.0)

    def table(self) -> Tensor:
        """float32 [I, I]"""
        return self._walked.clone()

    def left_out(self, users: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """float64 [B, I]; texts have no part in it.

        Without the pair the user's x xᵀ / n in G becomes x' x'ᵀ / (n - 1), so each step is one product with G
        and two with the user's rows.
        """
        before = self.histories(users, len(self._together)).double()
        after = before.scatter(1, items[:, None], 0.0)
        counts = before.sum(1, keepdim=True)
        votes, fewer = counts.pow(-_USER_POWER), (counts - 1).clamp(min=1).pow(-_USER_POWER)
        lengths = _inverse_root(self._together.diagonal() - votes * before + fewer * after)
        walked = after
        for _ in range(STEPS):
            walked = walked * lengths
            old, new = (walked * before).sum(1, keepdim=True), (walked * after).sum(1, keepdim=True)
            walked = (walked @ self._together - votes * old * before + fewer * new * after) * lengths
        return walked


def _inverse_root(counts: Tensor) -> Tensor:
    # By count: what rounding leaves of nothing is no evidence.
    known = counts > 1e-9
    return torch.where(known, counts, 1.0).rsqrt() * known
