"""Rows of users: queries, histories and ids, of a run's users or of a new one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.arrays import ArrayOrTensor
from llmdirect.common.csr import Csr
from llmdirect.config import HISTORY


@dataclass(frozen=True, eq=False)
class UserTexts:
    """Texts of a new user, which are in no store."""

    texts: tuple[str, ...]
    profiles: Tensor
    """float32 [N, K or M] one row a text, as `Trained.profile` has one an item."""


@dataclass(frozen=True, eq=False, kw_only=True)
class UserRows:
    """Queries, seen items, histories and biases of U users, as ranking and explanations read them."""

    ids: list[str]
    query: Tensor
    """float32 [U, K or A] exported queries of the model, before factors."""
    seen: Csr
    """Train interactions of each user."""
    recent: Csr
    """The newest of each user's train positives, at most 30: the history that is read."""
    history: Csr | None = None
    """Items over which the collaborative term is summed; None for runs without that term."""
    bias: ArrayOrTensor = None
    """float32 [U]; 0 if not given."""
    factors: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    """Users whose interests were changed: float64 [A] factor of each aspect."""
    texts: UserTexts | None = None
    """Texts of the one user, who is new."""

    @classmethod
    def new_user(
        cls,
        user_id: str,
        query: Tensor,
        items: NDArray[np.int64],
        bias: Tensor | None = None,
        texts: UserTexts | None = None,
    ) -> "UserRows":
        """Rows of one user who is not in the run.

        Parameters
        ----------
        query
            float32 [1, K or A] exported query.
        items
            [n] the user's items, newest first.
        bias
            float32 [1].
        """

        def row(indices: NDArray[np.int64]) -> Csr:
            return Csr.from_pairs(np.zeros(len(indices), np.int64), indices, 1)

        own = row(items)
        return cls(
            ids=[user_id],
            query=query,
            seen=own,
            recent=row(items[:HISTORY]),
            history=own,
            bias=bias,
            texts=texts,
        )

    def for_user(self, user: int) -> "UserRows":
        """Rows of a single user, who becomes user 0."""
        rows = np.array([user])
        return UserRows(
            ids=[self.ids[user]],
            query=self.query[torch.from_numpy(rows)],
            seen=self.seen.rows(rows),
            recent=self.recent.rows(rows),
            history=None if self.history is None else self.history.rows(rows),
            bias=None if self.bias is None else self.bias[rows],
            factors={0: self.factors[user]} if user in self.factors else {},
            texts=self.texts,
        )

    def with_factors(self, user: int, factors: NDArray[np.float64]) -> "UserRows":
        """The same rows with a user's interests multiplied by factors float64 [A]."""
        return replace(self, factors={**self.factors, user: factors})

    def scaled_query(self, factors: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32 [U, K or A] queries times factors [A], or the user's own factors."""
        query = scale_aspects(self.query, factors)
        for user, own in self.factors.items():
            query[user] = scale_aspects(self.query[user], own)
        return query


def scale_aspects(query: Tensor, factors: NDArray[np.float64]) -> NDArray[np.float32]:
    """float32 [..., K]: queries [..., K] with each aspect's channels times its factor [A]."""
    channels = query.shape[-1] // len(factors)
    return np.asarray(query, np.float32) * np.repeat(factors, channels).astype(np.float32)
