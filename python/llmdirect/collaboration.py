"""The collaborative term: EASE on train (Steck 2019), and its exact value without one interaction."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmdirect.csr import Csr

MAX_ITEMS = 20_000
"""Above this the inverse (two float64 matrices of I * I) no longer fits a workstation."""

_PART = 1024
"""Rows of the item-item matrix that are worked on at a time."""
_PAIRS = 1 << 20
"""Pairs of items counted at a time."""


@dataclass(frozen=True, eq=False)
class Collaboration:
    """inverse P = (XᵀX + ridge·1)⁻¹, float64 [I, I].

    The term of user u for item c is -Σ_{j in H(u)} P_jc / P_cc.
    """

    inverse: Tensor
    indptr: Tensor
    indices: Tensor

    @classmethod
    def fit(cls, positives: Csr, num_items: int, ridge: float) -> "Collaboration":
        """Inverts the item-item matrix of the positives; memory I * I, whatever the number of users.

        Raises ValueError for more than MAX_ITEMS items, and for a ridge that is not above 0.
        """
        if num_items > MAX_ITEMS:
            raise ValueError(
                f"the collaborative term inverts an item-item matrix; {num_items} items are more than the "
                f"{MAX_ITEMS} it is made for: train with --no-collaborative"
            )
        if not ridge > 0:
            raise ValueError(f"ridge: {ridge}, expected above 0")
        indptr, indices = torch.tensor(positives.indptr), torch.tensor(positives.indices).long()
        gram = _cooccurrences(indptr, indices, num_items)
        gram.diagonal().add_(ridge)
        return cls(torch.linalg.inv(gram), indptr, indices)

    def spread(self) -> float:
        """Standard deviation of the term over a sample of users: the scale at which its weight starts.

        A user's own items are in it, and large: so the term of other items starts small beside the text.
        """
        users = torch.arange(0, len(self.indptr) - 1, max(1, (len(self.indptr) - 1) // 500))
        return max(float(self.of_users(users).std()), 1e-12)

    def table(self) -> Tensor:
        """float32 [I, I]: entry (j, c) is what item j of the history adds to item c; zero diagonal."""
        table = torch.empty(self.inverse.shape, dtype=torch.float32)
        diagonal = self.inverse.diagonal()
        for part, rows in zip(torch.split(table, _PART), torch.split(self.inverse, _PART), strict=True):
            part.copy_(-rows / diagonal)
        return table.fill_diagonal_(0.0)

    def of_users(self, users: Tensor) -> Tensor:
        """float64 [B, I] the term of users; entries of their own history are of no use (they are seen)."""
        return -self._history_rows(users) / self.inverse.diagonal()

    def left_out(self, users: Tensor, items: Tensor) -> Tensor:
        """float64 [B, I]: the term as if the positive (users[b], items[b]) did not exist.

        Without it the matrix is G - x eᵀ - e xᵀ + e eᵀ, x the user's row and e the item's unit vector: a
        rank-2 change, so by Woodbury P' = P - V S⁻¹ Vᵀ with V = P [x, e] and a 2 x 2 matrix S.
        """
        inverse, diagonal = self.inverse, self.inverse.diagonal()
        px, pe = self._history_rows(users), inverse[items]
        x_px, x_pe = self._history_sums(px, users), px.gather(1, items[:, None])[:, 0]
        s11, s12, s22 = x_px - 1, x_pe - 1, diagonal[items]
        determinant = s11 * s22 - s12 * s12
        i11, i12, i22 = (v / determinant for v in (s22, -s12, s11))
        # P'(x - e) and the diagonal of P'.
        x_r, e_r = x_px - x_pe, x_pe - diagonal[items]
        first, second = i11 * x_r + i12 * e_r, i12 * x_r + i22 * e_r
        numerator = px - pe - px * first[:, None] - pe * second[:, None]
        shrink = px * px * i11[:, None] + 2 * px * pe * i12[:, None] + pe * pe * i22[:, None]
        return -numerator / (diagonal - shrink)

    def _entries(self, users: Tensor) -> tuple[Tensor, Tensor]:
        start, counts = self.indptr[users], self.indptr[users + 1] - self.indptr[users]
        row = torch.repeat_interleave(torch.arange(len(users)), counts)
        first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        return row, self.indices[torch.repeat_interleave(start, counts) + torch.arange(len(row)) - first]

    def _history_rows(self, users: Tensor) -> Tensor:
        row, items = self._entries(users)
        sums = torch.zeros(len(users), len(self.inverse), dtype=torch.float64)
        return sums.index_add_(0, row, self.inverse[items])

    def _history_sums(self, values: Tensor, users: Tensor) -> Tensor:
        row, items = self._entries(users)
        return torch.zeros(len(users), dtype=torch.float64).index_add_(0, row, values[row, items])


def _cooccurrences(indptr: Tensor, indices: Tensor, num_items: int) -> Tensor:
    """float64 [I, I] XᵀX: how many users have both items."""
    gram = torch.zeros(num_items * num_items, dtype=torch.float64)
    counts = indptr.diff()
    partners = torch.repeat_interleave(counts, counts)  # of each entry: the entries of its user
    start = torch.repeat_interleave(indptr[:-1], counts)
    step = torch.div(partners.cumsum(0) - 1, _PAIRS, rounding_mode="floor")
    for entries in torch.split(torch.arange(len(indices)), torch.bincount(step).tolist()):
        others = partners[entries]
        first = torch.repeat_interleave(start[entries] - (others.cumsum(0) - others), others)
        second = indices[first + torch.arange(len(first))]
        key = torch.repeat_interleave(indices[entries], others) * num_items + second
        gram.index_add_(0, key, torch.ones(len(key), dtype=torch.float64))
    return gram.view(num_items, num_items)
