"""Ordered lists of entries by user: the history, and the user's passages."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Slots:
    """Ordered list of entries for each user, newest first, in compressed rows. U users."""

    indptr: Tensor
    """int64 [U + 1]"""
    entries: Tensor
    """int64 [nnz] items, or passages."""
    passages: Tensor
    """int64 [nnz] the user's own passage of the entry; -1 for none."""
    width: int
    """Entries gathered a user: enough for the first HISTORY of those that one left-out pair leaves."""

    @classmethod
    def from_entries(
        cls,
        users: NDArray[np.int32],
        entries: NDArray[np.integer],
        passages: NDArray[np.int64],
        recency: NDArray[np.float64],
        num_users: int,
        width: int,
    ) -> "Slots":
        """Lists of entries in any order.

        Parameters
        ----------
        users, entries, passages
            [nnz] user, item or passage, and own passage of each entry.
        recency
            [nnz] larger for newer entries.
        width
            Upper bound of `Slots.width`.
        """
        order = np.lexsort((-recency, users))
        counts = np.bincount(users, minlength=num_users)
        return cls(
            indptr=torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])),
            entries=torch.from_numpy(entries[order].astype(np.int64)),
            passages=torch.from_numpy(passages[order]),
            width=min(width, int(counts.max(initial=0))) or 1,
        )

    def gather(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entries, passages and mask of users, each [B, width]; the mask is False in empty slots."""
        start = self.indptr[users]
        position = start[:, None] + torch.arange(self.width, device=start.device)
        mask = position < self.indptr[users + 1][:, None]
        position = torch.where(mask, position, 0)
        if not len(self.entries):
            return position, position - 1, mask
        return self.entries[position], self.passages[position], mask

    def to(self, device: torch.device) -> "Slots":
        """The same lists on a device."""
        return Slots(self.indptr.to(device), self.entries.to(device), self.passages.to(device), self.width)


def recency_ranks(timestamp: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rank of each interaction by time, larger is newer; of equal times the later row is newer."""
    order = np.lexsort((np.arange(len(timestamp)), timestamp))
    rank = np.empty(len(timestamp))
    rank[order] = np.arange(len(timestamp))
    return rank
