"""EASE on train (Steck 2019), told by text which items are alike, and its exact value without one pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmdirect.common.csr import Csr
from llmdirect.common.ragged import entries_of
from llmdirect.model.history_term import HistoryTerm

MAX_ITEMS = 16_000
"""The most popular ones that the term is about: of more, what is kept while it is found (some seven
float64 matrices of I * I) no longer fits a workstation."""
USER_POWER = 0.5
"""A user of n positives counts n^-USER_POWER in the item-item matrix: between one vote an interaction (0) and
one vote a user (1)."""

_PART = 1024
"""Rows of the item-item matrix that are worked on at a time."""
_PAIRS = 1 << 20
"""Pairs of items counted at a time."""


class ItemTexts(Protocol):
    """Which items are alike by their texts: E, a row of length 1 for each item, or zeros for one without."""

    def gram(self, items: Tensor) -> Tensor:
        """float64 [n, n] E Eᵀ of these items [n], on the CPU."""

    def lost(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """What rows of E lose with one passage each (-1: nothing): E·lost float64 [B, I], and |lost|² [B]."""


@dataclass(frozen=True, eq=False)
class TextChange:
    """`ItemTexts.lost` among some items of the catalogue, numbered anew."""

    texts: ItemTexts
    items: Tensor

    def __call__(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """E·lost float64 [B, n], and |lost|² [B], of the items with these new numbers [B]."""
        along, squares = self.texts.lost(self.items[items], passages)
        return along[:, self.items], squares


class EaseInputs:
    """What train says of which items go together. Memory n * n of n items, whatever the number of users."""

    def __init__(self, positives: Csr, items: Tensor, *texts: ItemTexts) -> None:
        """items: int64 [n], ascending, the items of the catalogue that it is about; here they are 0 to n - 1.

        positives: of the catalogue. texts: ways in which items are alike.
        """
        self.items = items
        self.positives = positives.columns(items.numpy())
        self.lost = tuple(TextChange(one, items) for one in texts)
        """What each of the texts loses with a passage."""
        self._together = cooccurrences(self.positives, len(items), USER_POWER)
        self._alike = [one.gram(items) for one in texts]

    def ease(self, ridge: float, *likeness: float) -> "Ease":
        """Inverts the item-item matrix; likeness: the weight of each of the texts.

        Raises ValueError for a ridge that is not above 0, or so small that rounding swallows it.
        """
        if not ridge > 0:
            raise ValueError(f"ridge: {ridge}, expected above 0")
        gram = self._together.clone()
        for alike, weight in zip(self._alike, likeness, strict=True):
            gram.add_(alike, alpha=weight)
        refuse_swallowed(ridge, float(gram.trace()))
        gram.diagonal().add_(ridge)
        root, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise _too_small("ridge", ridge)
        del gram  # as large as the inverse
        return Ease(torch.cholesky_inverse(root), self.positives, self.items, ridge, likeness, self.lost)


@dataclass(eq=False)
class Ease(HistoryTerm):
    """inverse P = (Xᵀ W X + Σ_k likeness_k·E_k E_kᵀ + ridge·1)⁻¹, float64 [I, I]; X users' positives, W their
    weights, E_k the directions of texts (collective EASE).

    The term of user u for item c is -Σ_{j in H(u)} P_jc / P_cc.
    """

    inverse: Tensor
    positives: Csr
    items: Tensor
    """int64 [I] their numbers in the catalogue."""
    ridge: float
    likeness: tuple[float, ...]
    """How many users' worth of evidence it is that two texts are the same."""
    lost: tuple[TextChange, ...]
    """What each kind of texts loses with a passage."""

    def table(self) -> Tensor:
        """float32 [I, I]: entry (j, c) is what item j of the history adds to item c; zero diagonal."""
        table = torch.empty(self.inverse.shape, dtype=torch.float32)
        diagonal = self.inverse.diagonal()
        for part, rows in zip(torch.split(table, _PART), torch.split(self.inverse, _PART), strict=True):
            part.copy_(-rows / diagonal)
        return table.fill_diagonal_(0.0)

    def left_out(
        self,
        users: Tensor,
        items: Tensor,
        passages: Tensor,
        lost: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """float64 [B, I]: the term as if the positive (users[b], items[b]) and its passage did not exist.

        lost: what texts lose with the passages, where it is known.

        Let lost_k be what the item's row of E_k loses with the passage, x be the user's row, e the item's
        unit vector and y = Σ likeness_k E_k lost_k. Without the pair the matrix changes by V M Vᵀ,
        V = [x, e, y] and a symmetric M [3, 3]: the user's x xᵀ becomes (x - e)(x - e)ᵀ, each with the weight
        of so many positives, and E Eᵀ becomes (E - e lostᵀ)(E - e lostᵀ)ᵀ. By Woodbury P' = P - A C Aᵀ,
        A = P V, C = (1 + M Vᵀ P V)⁻¹ M.
        """
        along = torch.zeros(len(users), len(self.inverse), dtype=torch.float64)  # y
        squares = torch.zeros(len(users), dtype=torch.float64)  # Σ likeness_k |lost_k|²
        if lost is None:
            lost = [of_texts(items, passages) for of_texts in self.lost]
        for weight, (one, square) in zip(self.likeness, lost, strict=True):
            along, squares = along + weight * one, squares + weight * square
        counts = (self.indptr[users + 1] - self.indptr[users]).double()
        before, after = counts.pow(-USER_POWER), (counts - 1).clamp(min=1).pow(-USER_POWER)
        change = torch.zeros(len(users), 3, 3, dtype=torch.float64)  # M
        change[:, 0, 0] = after - before
        change[:, 0, 1] = change[:, 1, 0] = -after
        change[:, 1, 1] = after + squares
        change[:, 1, 2] = change[:, 2, 1] = -1.0

        moved = torch.stack([self._history_rows(users), self.inverse[items], along @ self.inverse], 1)  # Aᵀ
        inner = torch.empty_like(change)  # Vᵀ P V
        for column in range(3):
            inner[:, 0, column] = self._history_sums(moved[:, column], users)
            inner[:, 1, column] = moved[:, column].gather(1, items[:, None])[:, 0]
        inner[:, 2, :2] = inner[:, :2, 2]
        inner[:, 2, 2] = (moved[:, 2] * along).sum(1)
        core = torch.linalg.solve(torch.eye(3, dtype=torch.float64) + change @ inner, change)  # C

        history = inner.new_tensor([1.0, -1.0, 0.0]) - (core @ (inner[:, :, :1] - inner[:, :, 1:2]))[..., 0]
        numerator = torch.einsum("bv,bvi->bi", history, moved)  # P' (x - e)
        shrink = ((core @ moved) * moved).sum(1)
        term: Tensor = -numerator / (self.inverse.diagonal() - shrink)
        return term

    def _history_rows(self, users: Tensor) -> Tensor:
        row, place = entries_of(self.indptr, users)
        sums = torch.zeros(len(users), len(self.inverse), dtype=torch.float64)
        return sums.index_add_(0, row, self.inverse[self.indices[place]])

    def _history_sums(self, values: Tensor, users: Tensor) -> Tensor:
        row, place = entries_of(self.indptr, users)
        sums = torch.zeros(len(users), dtype=torch.float64)
        return sums.index_add_(0, row, values[row, self.indices[place]])


def refuse_swallowed(ridge: float, trace: float, name: str = "ridge") -> None:
    """ValueError for a ridge below the float64 rounding of a matrix with this trace.

    Whether a factorisation fails or returns noise then depends on the processor, so none is tried.
    """
    if ridge < torch.finfo(torch.float64).eps * trace:
        raise _too_small(name, ridge)


def _too_small(name: str, ridge: float) -> ValueError:
    return ValueError(f"{name}: {ridge} is too small, the item-item matrix has no inverse")


def cooccurrences(positives: Csr, num_items: int, user_power: float) -> Tensor:
    """float64 [I, I] Xᵀ W X: how many users have both items, a user of n counting n^-user_power."""
    gram = torch.zeros(num_items * num_items, dtype=torch.float64)
    indices, counts = torch.tensor(positives.indices).long(), torch.tensor(positives.indptr).diff()
    partners = torch.repeat_interleave(counts, counts)  # of each entry: the entries of its user
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    step = torch.div(partners.cumsum(0) - 1, _PAIRS, rounding_mode="floor")
    for entries in torch.split(torch.arange(len(indices)), torch.bincount(step).tolist()):
        others = partners[entries]
        first = torch.repeat_interleave(start[entries] - (others.cumsum(0) - others), others)
        second = indices[first + torch.arange(len(first))]
        key = torch.repeat_interleave(indices[entries], others) * num_items + second
        weight = partners[entries].double().pow(-user_power)
        gram.index_add_(0, key, torch.repeat_interleave(weight, others))
    return gram.view(num_items, num_items)
