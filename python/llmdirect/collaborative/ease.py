"""EASE item-item model (Steck 2019) with text similarity as side information."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmdirect.collaborative.gram import (
    cooccurrences,
    inverse_to_weights,
    regularised_inverse,
    user_weights_without,
)
from llmdirect.common.csr import Csr
from llmdirect.common.ragged import entries_of
from llmdirect.model.history_term import HistoryTerm

MAX_ITEMS = 16_000
"""Maximum number of items, the most popular ones: fitting holds some seven float64 matrices of I * I."""
USER_POWER = 0.5
"""Exponent p of the user weight n**-p in the Gram matrix, n the number of a user's positives."""


class TextSimilarity(Protocol):
    """Similarity E Eᵀ of items by their texts; E has a row of length 1, or of zeros, for each item."""

    def gram(self, items: Tensor) -> Tensor:
        """float64 [n, n] similarity of these items [n], on the CPU."""

    def text_change(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """Change d of the items' rows of E when one passage each (-1: none) is removed.

        Returns
        -------
        tuple
            E·d float64 [B, I], and |d|² float64 [B].
        """


@dataclass(frozen=True, eq=False)
class TextChange:
    """`text_change` of a text similarity, with positions and products of a subset of the catalogue."""

    texts: TextSimilarity
    items: Tensor
    """int64 [n] catalogue indices of the subset."""

    def __call__(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """E·d float64 [B, n], and |d|² [B]; items: int64 [B] positions in the subset."""
        products, squares = self.texts.text_change(self.items[items], passages)
        return products[:, self.items], squares


class EaseInputs:
    """Weighted item-item Gram matrix of the training interactions, and text similarities.

    Memory is n * n for n items, whatever the number of users.

    Parameters
    ----------
    positives
        Rows of items of the catalogue.
    items
        int64 [n], ascending: catalogue indices of the items to fit; they are 0 to n - 1 here.
    texts
        Text similarities of the catalogue.
    """

    def __init__(self, positives: Csr, items: Tensor, *texts: TextSimilarity) -> None:
        self.items = items
        self.positives = positives.columns(items.numpy())
        self.text_changes = tuple(TextChange(similarity, items) for similarity in texts)
        self._gram = cooccurrences(self.positives, len(items), USER_POWER)
        self._similarities = [similarity.gram(items) for similarity in texts]

    def ease(self, ridge: float, *text_weights: float) -> "Ease":
        """Fit EASE by Cholesky inversion of the regularised Gram matrix.

        Parameters
        ----------
        ridge
            L2 regularisation, above 0.
        text_weights
            Weight of each text similarity in the Gram matrix.

        Raises
        ------
        ValueError
            If the matrix is not positive definite in float64.

        References
        ----------
        Steck, H. (2019). Embarrassingly Shallow Autoencoders for Sparse Data.
        """
        inverse = regularised_inverse(self._gram_with_texts(text_weights), ridge)
        return Ease(inverse, self.positives, self.items, ridge, text_weights, self.text_changes)

    def _gram_with_texts(self, text_weights: Sequence[float]) -> Tensor:
        gram = self._gram.clone()
        for similarity, weight in zip(self._similarities, text_weights, strict=True):
            gram.add_(similarity, alpha=weight)
        return gram


@dataclass(eq=False)
class Ease(HistoryTerm):
    """Fitted EASE: the term of user u for item c is -Σ_{j in H(u)} P_jc / P_cc.

    P = (Xᵀ W X + Σ_k w_k E_k E_kᵀ + ridge·1)⁻¹ with positives X, user weights W and text similarities
    E_k E_kᵀ of weight w_k (collective EASE).
    """

    inverse: Tensor
    """float64 [I, I] P."""
    positives: Csr
    items: Tensor
    """int64 [I] their indices in the catalogue."""
    ridge: float
    text_weights: tuple[float, ...]
    """w_k of each text similarity: the users whose votes equal two items with the same text."""
    text_changes: tuple[TextChange, ...]

    def table(self) -> Tensor:
        """float32 [I, I] weight of history item j for item c; zero diagonal."""
        return inverse_to_weights(self.inverse)

    def left_out(
        self,
        users: Tensor,
        items: Tensor,
        passages: Tensor,
        text_changes: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """float64 [B, I]: the term as if the positive (users[b], items[b]) and its passage did not exist.

        Let d_k be the change of the item's row of E_k, x be the user's row, e the item's unit vector and
        y = Σ w_k E_k d_k. Without the pair the matrix changes by V M Vᵀ, V = [x, e, y] and a symmetric
        M [3, 3]: the user's x xᵀ becomes (x - e)(x - e)ᵀ, each with the weight of so many positives, and
        E Eᵀ becomes (E - e dᵀ)(E - e dᵀ)ᵀ. By Woodbury P' = P - A C Aᵀ, A = P V, C = (1 + M Vᵀ P V)⁻¹ M.

        Parameters
        ----------
        text_changes
            E_k·d_k and |d_k|² of each text similarity, where they are computed already.
        """
        products = torch.zeros(len(users), len(self.inverse), dtype=torch.float64)  # y
        squares = torch.zeros(len(users), dtype=torch.float64)  # Σ w_k |d_k|²
        if text_changes is None:
            text_changes = [change(items, passages) for change in self.text_changes]
        for weight, (product, square) in zip(self.text_weights, text_changes, strict=True):
            products, squares = products + weight * product, squares + weight * square
        counts = (self.indptr[users + 1] - self.indptr[users]).double()
        before, after = user_weights_without(counts, USER_POWER)
        change = torch.zeros(len(users), 3, 3, dtype=torch.float64)  # M
        change[:, 0, 0] = after - before
        change[:, 0, 1] = change[:, 1, 0] = -after
        change[:, 1, 1] = after + squares
        change[:, 1, 2] = change[:, 2, 1] = -1.0

        projected = torch.stack(  # Aᵀ
            [self._history_rows(users), self.inverse[items], products @ self.inverse], 1
        )
        inner = torch.empty_like(change)  # Vᵀ P V
        for column in range(3):
            inner[:, 0, column] = self._history_sums(projected[:, column], users)
            inner[:, 1, column] = projected[:, column].gather(1, items[:, None])[:, 0]
        inner[:, 2, :2] = inner[:, :2, 2]
        inner[:, 2, 2] = (projected[:, 2] * products).sum(1)
        core = torch.linalg.solve(torch.eye(3, dtype=torch.float64) + change @ inner, change)  # C

        history = inner.new_tensor([1.0, -1.0, 0.0]) - (core @ (inner[:, :, :1] - inner[:, :, 1:2]))[..., 0]
        numerator = torch.einsum("bv,bvi->bi", history, projected)  # P' (x - e)
        shrink = ((core @ projected) * projected).sum(1)
        term: Tensor = -numerator / (self.inverse.diagonal() - shrink)
        return term

    def _history_rows(self, users: Tensor) -> Tensor:
        row, position = entries_of(self.indptr, users)
        sums = torch.zeros(len(users), len(self.inverse), dtype=torch.float64)
        return sums.index_add_(0, row, self.inverse[self.indices[position]])

    def _history_sums(self, values: Tensor, users: Tensor) -> Tensor:
        row, position = entries_of(self.indptr, users)
        sums = torch.zeros(len(users), dtype=torch.float64)
        return sums.index_add_(0, row, values[row, self.indices[position]])
