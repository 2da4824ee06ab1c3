"""Item-item terms of the score: sums over the items of a user's history.

They are not trained together with the text; their weight is selected on validation (`select_term`).
"""

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.csr import Csr
from llmdirect.common.ragged import entries_of


class HistoryTerm(ABC):
    """Base class of item-item score terms, with their exact values without one interaction.

    U users, I items; memory I * I.
    """

    positives: Csr
    """U rows of items that the term is summed over."""

    @abstractmethod
    def table(self) -> Tensor:
        """float32 [I, I] entry (j, c) is the contribution of history item j to item c; zero diagonal."""

    @abstractmethod
    def left_out(self, users: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """Term float64 [B, I] as if the positive (users[b], items[b]) and its passage did not exist.

        Entries of the rest of the user's history are undefined.

        Parameters
        ----------
        users, items
            int64 [B] train positives.
        passages
            int64 [B] rows of the view, -1 for none.
        """

    @cached_property
    def indptr(self) -> Tensor:
        """int64 [U + 1] row offsets of `positives`."""
        return torch.tensor(self.positives.indptr)

    @cached_property
    def indices(self) -> Tensor:
        """int64 [N] items of `positives`."""
        return torch.tensor(self.positives.indices).long()

    def histories(self, users: Tensor, num_items: int) -> Tensor:
        """float32 [B, I] indicators of the users' positives."""
        row, position = entries_of(self.indptr, users)
        return torch.zeros(len(users), num_items).index_put((row, self.indices[position]), torch.ones(()))

    def score_users(self, users: Tensor) -> Tensor:
        """Term float64 [B, I] of users; entries of their own history are undefined (they are seen)."""
        table = self.table()
        return (self.histories(users, len(table)) @ table).double()

    def spread(self) -> float:
        """Standard deviation of the term over unseen items of a sample of users, above 0."""
        users = torch.arange(0, len(self.indptr) - 1, max(1, (len(self.indptr) - 1) // 500))
        term = self.score_users(users)
        unseen = self.histories(users, term.shape[1]) == 0
        # A single value has no standard deviation.
        return max(float(term[unseen].std()) if unseen.sum() > 1 else 0.0, 1e-12)

    def item_item(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Table as indptr [I + 1], items [nnz] and values [nnz], for `ScoreTables`."""
        table = self.table()
        num_items = len(table)
        return (
            np.arange(num_items + 1, dtype=np.int64) * num_items,
            np.tile(np.arange(num_items, dtype=np.int32), num_items),
            table.flatten().numpy(),
        )
