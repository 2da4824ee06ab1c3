"""Scores from parameters and documents: of the whole catalogue, and of a pair as if it did not exist.

Every statistic that enters a score goes through this file or a `HistoryTerm`, with and without one
interaction side by side, so that the two cannot drift apart. Axes as in `model`; N pairs of a batch.
"""

import torch
from torch import Tensor

from llmdirect.config import HISTORY
from llmdirect.model.direct import Direct
from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.item_documents import ItemDocuments, Pairs
from llmdirect.model.token_tables import PassageSums, Table
from llmdirect.ranking.scorer import EPS, ScoreTables, add_item_item


class CatalogueScores:
    """Everything of one step: parameters, documents and the vectors made from them."""

    def __init__(
        self, model: Direct, documents: ItemDocuments, table: Table, collaboration: HistoryTerm | None
    ) -> None:
        self.model, self.documents, self.table = model, documents, table
        self.view, self.collaboration = documents.view, collaboration
        self.preference, self.mentions = table.items()
        form = model.form
        self.item = form.item_vectors(self.preference)
        self.profiles = form.item_profiles(self.item, documents.items, model.project)
        self._profile_sums: PassageSums = form.profile_source(table, documents)

    def interests(self, users: Tensor, out: Pairs | None = None, keep: "SlotDropout | None" = None) -> Tensor:
        """Query of each user, [B, K] (cosine) or [B, A] (ratio).

        out: the pair that each row is scored for; it, and every copy of its text by the same user, is taken
        out of history and passages first, so that the next entry moves up. keep: random slots of training.
        """
        model = self.model
        history = texts = None
        if model.config.user != "text":
            history = self._history(users, out, keep)
        if model.config.user != "history":
            entries, _, mask = self.view.texts.gather(users)
            if out is not None:
                mask = mask & (entries != out.passage[:, None]) & ~self._copies(entries, out)
            mask = newest(mask)
            texts = model.profiles(*self._profile_sums.rows(entries)), keep(mask) if keep else mask
        return model.interests(model.user(history, texts))

    def _history(self, users: Tensor, out: Pairs | None, keep: "SlotDropout | None") -> tuple[Tensor, Tensor]:
        entries, own, mask = self.view.history.gather(users)
        vectors = self.profiles[entries]
        if out is not None:
            mask = mask & (entries != out.item[:, None])
            copied = mask & self._copies(own, out)
            if copied.any():  # that item's document loses the copy too
                without = self.model.profiles(*self._profile_sums.without(entries[copied], own[copied]))
                vectors = vectors.index_put(copied.nonzero(as_tuple=True), without.to(vectors.dtype))
        mask = newest(mask)
        return vectors, keep(mask) if keep else mask

    def _copies(self, passages: Tensor, out: Pairs) -> Tensor:
        """bool [B, L]: passages that hold the same text by the same user as the pair's own."""
        theirs = self.documents.groups(passages)
        return (theirs == self.documents.groups(out.passage)[:, None]) & (theirs >= 0)

    def catalogue(self, query: Tensor) -> Tensor:
        """Text term and item bias of every item: [B, I]."""
        model = self.model
        text = model.form.score_catalogue(query, self.item, self.mentions, model.temperature())
        return text + model.item_bias_of(self.view.popularity)

    def left_out(self, out: Pairs, keep: "SlotDropout | None" = None) -> tuple[Tensor, Tensor]:
        """Scores [B, I] of the catalogue for each pair as if the pair did not exist, and queries [B, K].

        The pair's own item is scored without the pair's passage, its popularity without the pair; an item
        with a copy of that passage by the same user (a candidate where its rating made it no positive) is
        scored without the copy. The user's bias and the global one, equal for all items, are left to the
        caller.
        """
        query = self.interests(out.user, out, keep)
        scores = self.catalogue(query)
        popularity, model = self.view.popularity, self.model
        own = self.document_term(query, out) + model.item_bias_of(popularity[out.item] - 1, out.item)
        scores = scores.scatter(1, out.item[:, None], own[:, None].to(scores.dtype))
        rows, copies = self.documents.copies(out.passage)
        if len(rows):
            items = self.view.passage_item[copies]
            other = self._paired_term(query[rows], *self.table.without(items, copies))
            other = other + model.item_bias_of(popularity[items], items)
            scores = scores.index_put((rows, items), other.to(scores.dtype))
        if self.collaboration is not None:
            term = self.collaboration.left_out(out.user.cpu(), out.item.cpu(), out.passage.cpu())
            scores = scores + self.model.collaboration * term.float().to(scores.device)
        return scores, query

    def document_term(self, query: Tensor, out: Pairs) -> Tensor:
        """Text term [B] of query b with the document of its item, less the pair's own passage."""
        return self._paired_term(query, *self.table.without(out.item, out.passage))

    def passage_term(self, query: Tensor, passages: Tensor) -> Tensor:
        """Text term [B] of query b with a single passage, as if it were an item's whole document."""
        return self._paired_term(query, *self.table.rows(passages))

    def _paired_term(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        model = self.model
        return model.form.score_documents(query, preference, mentions, model.temperature())


class SlotDropout:
    """Hides a share of the slots at random, anew at every call."""

    def __init__(self, dropout: float, generator: torch.Generator) -> None:
        self.dropout, self.generator = dropout, generator

    def __call__(self, mask: Tensor) -> Tensor:
        """`mask` less the hidden slots."""
        drawn = torch.rand(mask.shape, generator=self.generator) >= self.dropout
        return mask & drawn.to(mask.device)


def newest(mask: Tensor) -> Tensor:
    """The first HISTORY entries of each row of `mask`."""
    return mask & (mask.cumsum(1) <= HISTORY)


def export_tables(scores: CatalogueScores) -> ScoreTables:
    """All that ranking needs, of all users, for `ranking.rank`: float32 tables, nothing left out.

    Raises ValueError for a model with batch norm that is in training mode.
    """
    model, view = scores.model, scores.view
    if model.training and model.config.batch_norm:
        raise ValueError("batch norm would rank by who else is in the batch: call model.eval() first")
    with torch.no_grad():
        device = scores.item.device
        everyone = torch.split(torch.arange(view.num_users, device=device), 1024)
        query = torch.cat([scores.interests(users) for users in everyone])
        mentions = model.form.export_mentions(scores.mentions)
        found = ScoreTables(
            kernel=model.form.kernel,
            query=model.form.export_query(query, model.temperature()).cpu(),
            item=scores.item.cpu(),
            item_mentions=None if mentions is None else mentions.cpu(),
            eps=EPS,
            item_bias=model.item_bias_of(view.popularity).cpu(),
            user_bias=(model.bias + model.user_bias).cpu(),
        )
        if scores.collaboration is None:
            return found
        collaboration = scores.collaboration
        beside = add_item_item(found, collaboration.positives, collaboration.item_item())
        return beside.weighted(float(model.collaboration))
