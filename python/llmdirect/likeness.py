"""Which items are alike by their texts, with and without one passage."""

import torch
from torch import Tensor

from llmdirect.scores import Documents


class ItemDirections:
    """The direction of each item's mean text from the mean of all texts. I items, D numbers.

    A text that its user wrote about several items enters none of them: without a pair none of its copies
    exist, so that not only the pair's own item would change.
    """

    def __init__(self, documents: Documents, centre: Tensor) -> None:
        self._centre = centre.double()
        self._pooled = documents.view.pooled
        single = ~documents.is_copied()
        self._weight = torch.where(single, documents.weight, 0.0)
        self._mass = documents.sum_over_items(self._weight)
        self._sums = documents.weighted_sums(self._weight)
        self.directions = self._direction(self._sums, self._mass).cpu()

    def lost(self, items: Tensor, passages: Tensor) -> Tensor:
        """float64 [B, D]: directions of items less what they are without one passage each (-1: the same)."""
        weight = torch.where(passages >= 0, self._weight[passages.clamp(min=0)], 0.0)
        own = self._pooled[passages.clamp(min=0)].double() * weight[:, None]
        without = self._direction(self._sums[items] - own, self._mass[items] - weight)
        return self.directions[items.cpu()] - without.cpu()

    def _direction(self, sums: Tensor, mass: Tensor) -> Tensor:
        # By count: what rounding leaves of nothing is no direction.
        away = torch.where(mass[:, None] > 0, sums - mass[:, None] * self._centre, 0.0)
        length = away.norm(dim=1, keepdim=True)
        return away / torch.where(length > 0, length, 1.0)
