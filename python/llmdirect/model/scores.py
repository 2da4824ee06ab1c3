"""Scores of the catalogue from parameters and documents, with and without one training pair.

Every statistic of a score is computed in this file or a `HistoryTerm`, with and without one interaction next
to each other, so that the two cannot diverge. Axes as in `direct`.
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
    """Scores of one training step, of all items for some users.

    Parameters
    ----------
    table
        Preference and mentions of the passages under the present parameters.
    collaboration
        Collaborative term; None while the text is trained.
    """

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

        Parameters
        ----------
        users
            int64 [B].
        out
            Pair that each row leaves out: it, and every copy of its text by the same user, is removed from
            history and passages first, so that the next entries take its slots.
        keep
            Random slots of training.
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
            if copied.any():  # the document of that item loses the copy, too
                without = self.model.profiles(*self._profile_sums.without(entries[copied], own[copied]))
                vectors = vectors.index_put(copied.nonzero(as_tuple=True), without.to(vectors.dtype))
        mask = newest(mask)
        return vectors, keep(mask) if keep else mask

    def _copies(self, passages: Tensor, out: Pairs) -> Tensor:
        """bool [B, L]: passages with the text and the user of the pair's own passage."""
        groups = self.documents.groups(passages)
        return (groups == self.documents.groups(out.passage)[:, None]) & (groups >= 0)

    def catalogue(self, query: Tensor) -> Tensor:
        """Text term plus item bias [B, I] of every item for queries [B, K or A]."""
        model = self.model
        text = model.form.score_catalogue(query, self.item, self.mentions, model.temperature())
        return text + model.item_bias_of(self.view.popularity)

    def left_out(self, out: Pairs, keep: "SlotDropout | None" = None) -> tuple[Tensor, Tensor]:
        """Left-out scores [B, I], each as if its pair did not exist, and queries [B, K or A].

        The pair's own item is scored without the pair's passage, its popularity without the pair; an item
        with a copy of that passage by the same user (a candidate where its rating made it no positive) is
        scored without the copy. User bias and global bias, equal for all items, are left to the caller.
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
        """Text term [B] of query b with the document of its item without the pair's own passage."""
        return self._paired_term(query, *self.table.without(out.item, out.passage))

    def passage_term(self, query: Tensor, passages: Tensor) -> Tensor:
        """Text term [B] of query b with a single passage as an item's whole document."""
        return self._paired_term(query, *self.table.rows(passages))

    def _paired_term(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        model = self.model
        return model.form.score_documents(query, preference, mentions, model.temperature())


class SlotDropout:
    """Dropout of slots: every call hides another random share of them."""

    def __init__(self, dropout: float, generator: torch.Generator) -> None:
        self.dropout, self.generator = dropout, generator

    def __call__(self, mask: Tensor) -> Tensor:
        """The mask without the hidden slots."""
        kept = torch.rand(mask.shape, generator=self.generator) >= self.dropout
        return mask & kept.to(mask.device)


def newest(mask: Tensor) -> Tensor:
    """Mask of the first HISTORY entries of each row of a mask."""
    return mask & (mask.cumsum(1) <= HISTORY)


def export_tables(scores: CatalogueScores) -> ScoreTables:
    """Score tables of all users and items in float32, with no pair left out.

    Raises
    ------
    ValueError
        For a model with batch norm in training mode.
    """
    model, view = scores.model, scores.view
    if model.training and model.config.batch_norm:
        raise ValueError("batch norm in training mode depends on the batch: call model.eval() first")
    with torch.no_grad():
        device = scores.item.device
        batches = torch.split(torch.arange(view.num_users, device=device), 1024)
        query = torch.cat([scores.interests(users) for users in batches])
        mentions = model.form.export_mentions(scores.mentions)
        tables = ScoreTables(
            kernel=model.form.kernel,
            query=model.form.export_query(query, model.temperature()).cpu(),
            item=scores.item.cpu(),
            item_mentions=None if mentions is None else mentions.cpu(),
            eps=EPS,
            item_bias=model.item_bias_of(view.popularity).cpu(),
            user_bias=(model.bias + model.user_bias).cpu(),
        )
        if scores.collaboration is None:
            return tables
        collaboration = scores.collaboration
        combined = add_item_item(tables, collaboration.positives, collaboration.item_item())
        return combined.weighted(float(model.collaboration))
