"""Preference P and mentions Q of passages and items."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.model.direct import Direct
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.token_reader import TOKEN_BUDGET, length_batches
from llmdirect.model.train_view import TrainView


class PassageSums(Protocol):
    """Sums over the passages of items: `Table` of terms, `ItemDocuments` of embeddings."""

    def items(self) -> tuple[Tensor, Tensor]:
        """Sums [I, ...] of items, and their mentions or weights."""

    def without(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """The same [N, ...] of items without one passage each."""

    def rows(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """The same of single passages, in the shape of `passages`."""


class PooledTable:
    """P and Q from pooled text, a linear map while `Direct.mentions_uniform`: I rows, not R."""

    def __init__(self, model: Direct, documents: ItemDocuments) -> None:
        self.model, self.documents = model, documents

    def items(self) -> tuple[Tensor, Tensor]:
        """P [I, K] and Q [I, A]."""
        return self.model.pooled_terms(*self.documents.items())

    def without(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """P [N, K] and Q [N, A] of items without one passage each."""
        return self.model.pooled_terms(*self.documents.without(items, passages))

    def rows(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """P [..., K] and Q [..., A] of single passages."""
        return self.model.pooled_terms(*self.documents.rows(passages))


class TokenTable:
    """P and Q of each passage from its tokens.

    Parameters
    ----------
    preference
        P [R, K].
    mentions
        Q [R, A].
    """

    def __init__(self, documents: ItemDocuments, preference: Tensor, mentions: Tensor) -> None:
        self.documents, self.preference, self.mentions = documents, preference, mentions
        self.sums = documents.sum_over_items(preference), documents.sum_over_items(mentions)

    def items(self) -> tuple[Tensor, Tensor]:
        """P [I, K] and Q [I, A]."""
        return self.sums[0].float(), self.sums[1].float()

    def without(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """P [N, K] and Q [N, A] of items without one passage each."""
        documents = self.documents
        left = documents.subtract(documents.item_weight, documents.weight, items, passages) > 0
        preference = documents.subtract(self.sums[0], self.preference, items, passages)
        mentions = documents.subtract(self.sums[1], self.mentions, items, passages)
        return (
            torch.where(left[:, None], preference, 0.0).float(),
            torch.where(left[:, None], mentions, 0.0).float(),
        )

    def rows(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """P [..., K] and Q [..., A] of single passages."""
        return self.preference[passages].float(), self.mentions[passages].float()


Table = PooledTable | TokenTable


def read_passages(model: Direct, view: TrainView, rows: Tensor) -> tuple[Tensor, Tensor]:
    """P [N, K] and Q [N, A] of passages of the view; rows: int64 [N]."""
    lengths = view.lengths[rows].cpu().numpy()
    preference: list[Tensor] = []
    mentions: list[Tensor] = []
    order: list[NDArray[np.int64]] = []
    for batch in length_batches(np.maximum(lengths, 1), TOKEN_BUDGET):
        tokens, mask = view.tokens(rows[torch.from_numpy(batch).to(rows.device)])
        device = view.pooled.device
        p, q = model.passages(tokens.to(device), mask.to(device))
        preference.append(p)
        mentions.append(q)
        order.append(batch)
    if not order:
        width = model.aspects * model.channels
        return view.pooled.new_zeros(0, width), view.pooled.new_zeros(0, model.aspects)
    back = torch.from_numpy(np.argsort(np.concatenate(order))).to(view.pooled.device)
    return torch.cat(preference)[back], torch.cat(mentions)[back]


def read_all(model: Direct, documents: ItemDocuments) -> TokenTable:
    """Token table of all passages, without gradients."""
    with torch.no_grad():
        rows = torch.arange(len(documents.view.lengths), device=documents.view.lengths.device)
        return TokenTable(documents, *read_passages(model, documents.view, rows))


def refreshed(table: TokenTable, rows: Tensor, preference: Tensor, mentions: Tensor) -> TokenTable:
    """Token table with some passages replaced, the only ones with gradients.

    The other passages keep their values, so that documents are complete at every update while only `rows`
    cost memory.

    Parameters
    ----------
    rows
        int64 [N] passages.
    preference
        P [N, K] of these.
    mentions
        Q [N, A] of these.
    """
    return TokenTable(
        table.documents,
        table.preference.detach().index_copy(0, rows, preference.to(table.preference.dtype)),
        table.mentions.detach().index_copy(0, rows, mentions.to(table.mentions.dtype)),
    )
