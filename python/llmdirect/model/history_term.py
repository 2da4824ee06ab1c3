"""A term of the score to which each item of a user's history adds something for every other item.

It is not trained together with the text: how much it counts beside it is found on validation (`balance`).
Each kind of it tells what it would be without one interaction.
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
    """U users, I items; memory I * I. Subclasses say what one item says of the others."""

    positives: Csr
    """U rows of items: what is summed over."""

    @abstractmethod
    def table(self) -> Tensor:
        """float32 [I, I]: entry (j, c) is what item j of the history adds to item c; zero diagonal."""

    @abstractmethod
    def left_out(self, users: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """float64 [B, I]: the term as if the positive (users[b], items[b]) and its passage did not exist.

        passages: int64 [B] rows of the view, -1 for none. Entries of the rest of the history are of no use.
        """

    @cached_property
    def indptr(self) -> Tensor:
        """int64 [U + 1] where the positives of each user start in `indices`."""
        return torch.tensor(self.positives.indptr)

    @cached_property
    def indices(self) -> Tensor:
        """int64 [N] the positives of all users."""
        return torch.tensor(self.positives.indices).long()

    def histories(self, users: Tensor, num_items: int) -> Tensor:
        """float32 [B, I]: 1 at each item that the user has."""
        row, place = entries_of(self.indptr, users)
        return torch.zeros(len(users), num_items).index_put((row, self.indices[place]), torch.ones(()))

    def score_users(self, users: Tensor) -> Tensor:
        """float64 [B, I] the term of users; entries of their own history are of no use (they are seen)."""
        table = self.table()
        return (self.histories(users, len(table)) @ table).double()

    def spread(self) -> float:
        """Standard deviation of the term of items that users do not have, over a sample of users."""
        users = torch.arange(0, len(self.indptr) - 1, max(1, (len(self.indptr) - 1) // 500))
        term = self.score_users(users)
        new = self.histories(users, term.shape[1]) == 0
        # At least two values: a spread of one is none.
        return max(float(term[new].std()) if new.sum() > 1 else 0.0, 1e-12)

    def item_item(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """The table as borders, items and values, as `ScoreTables` takes it."""
        table = self.table()
        num_items = len(table)
        return (
            np.arange(num_items + 1, dtype=np.int64) * num_items,
            np.tile(np.arange(num_items, dtype=np.int32), num_items),
            table.flatten().numpy(),
        )
