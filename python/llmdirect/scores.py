"""Scores from parameters and documents: of the whole catalogue, and of a pair as if it did not exist.

Every statistic that enters a score goes through this file or a `HistoryTerm`, with and without one
interaction side by side, so that the two cannot drift apart. Axes as in `model`; N pairs of a batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmdirect.config import HISTORY
from llmdirect.history_term import HistoryTerm
from llmdirect.model import Direct, unit
from llmdirect.ragged import entries_of
from llmdirect.ranking import EPS, Scorer, with_item_item
from llmdirect.views import View


@dataclass(frozen=True, eq=False)
class Pairs:
    """A batch of train positives."""

    user: Tensor
    item: Tensor
    passage: Tensor
    """Row of the pair's own passage; -1 for none."""
    rating: Tensor

    @classmethod
    def of(cls, view: View, rows: Tensor) -> "Pairs":
        """The pairs at these positions of the view."""
        return cls(
            view.pair_user[rows], view.pair_item[rows], view.pair_passage[rows], view.pair_rating[rows]
        )

    def at(self, rows: Tensor) -> "Pairs":
        """The pairs at these positions of the batch."""
        return Pairs(self.user[rows], self.item[rows], self.passage[rows], self.rating[rows])


_PART = 1 << 14
"""Passages summed at a time."""


class Documents:
    """Sums over the passages of each item, in float64.

    A document without one passage is its sum less that passage. In float32 that would leave a rounding
    residue where nothing is left; in float64 it is exact to far below float32, and the mass, a sum of whole
    numbers, is exactly zero where no other passage has text.
    """

    def __init__(self, view: View, vote: bool) -> None:
        self.view = view
        self.weight = ((view.lengths > 0) if vote else view.lengths).double()
        self.mass = self.sum_over_items(self.weight)
        self.pooled = self.weighted_sums(self.weight)
        grouped = (view.group >= 0).nonzero()[:, 0]
        self._members = grouped[torch.argsort(view.group[grouped], stable=True)]
        sizes = torch.bincount(view.group[grouped])
        self._borders = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])

    def weighted_sums(self, weight: Tensor) -> Tensor:
        """float64 [I, D] sums of pooled passages, each times its weight [R]."""
        view = self.view
        sums = torch.zeros(view.num_items, view.dim, dtype=torch.float64, device=view.pooled.device)
        # In parts: all weighted passages at once would take twice the memory of the passages themselves.
        for part in torch.split((view.passage_item >= 0).nonzero()[:, 0], _PART):
            sums.index_add_(0, view.passage_item[part], view.pooled[part].double() * weight[part, None])
        return sums

    def sum_over_items(self, rows: Tensor) -> Tensor:
        """float64 [I, …] sums of per-passage rows [R, …]."""
        owned = self.view.passage_item >= 0
        sums = torch.zeros(self.view.num_items, *rows.shape[1:], dtype=torch.float64, device=rows.device)
        return sums.index_add(0, self.view.passage_item[owned], rows[owned].double())

    def without(self, sums: Tensor, rows: Tensor, items: Tensor, passages: Tensor) -> Tensor:
        """sums[items] less the passages' own rows; passage -1: nothing to take out."""
        return sums[items] - _own(rows, passages)

    def pooled_without(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """float64 [N, D] weighted sums and [N] masses of items without one passage each."""
        weight = _own(self.weight, passages)
        own = _own(self.view.pooled, passages) * weight[:, None]
        return self.pooled[items] - own, self.mass[items] - weight

    def groups(self, passages: Tensor) -> Tensor:
        """int64, shaped as `passages`: the number that same-user copies of a text share; -1 for none."""
        if not len(self.view.group):
            return torch.full_like(passages, -1)
        return torch.where(passages >= 0, self.view.group[passages.clamp(min=0)], -1)

    def copies(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """Other passages about an item with the text and the user of passages [B], -1 for none.

        Returns int64 [n] positions in `passages` and int64 [n] the copies.
        """
        group = self.groups(passages)
        position = (group >= 0).nonzero()[:, 0]
        row, place = entries_of(self._borders, group[position])
        copies, position = self._members[place], position[row]
        others = (copies != passages[position]) & (self.view.passage_item[copies] >= 0)
        return position[others], copies[others]


def _own(rows: Tensor, passages: Tensor) -> Tensor:
    """float64 [N, …] rows of these passages; zeros for passage -1, and where there are no rows."""
    if not len(rows):
        return torch.zeros(len(passages), *rows.shape[1:], dtype=torch.float64, device=passages.device)
    own = rows[passages.clamp(min=0)].double()
    return torch.where((passages >= 0).view(-1, *[1] * (rows.ndim - 1)), own, 0.0)


class PooledTable:
    """P and Q while all mentions are alike: a linear map of pooled text, which costs I rows, not R."""

    def __init__(self, model: Direct, documents: Documents) -> None:
        self.model, self.documents = model, documents

    def items(self) -> tuple[Tensor, Tensor]:
        """P [I, K] and Q [I, A]."""
        return self.model.pooled_terms(self.documents.pooled, self.documents.mass)

    def without(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """P [N, K] and Q [N, A] of items without one passage each."""
        return self.model.pooled_terms(*self.documents.pooled_without(items, passages))

    def rows(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """P [..., K] and Q [..., A] of single passages."""
        weight = self.documents.weight[passages]
        return self.model.pooled_terms(
            self.documents.view.pooled[passages].double() * weight[..., None], weight
        )


class TokenTable:
    """P and Q of each passage from its tokens."""

    def __init__(self, documents: Documents, said: Tensor, mass: Tensor) -> None:
        """said: P [R, K]; mass: Q [R, A]."""
        self.documents, self.said, self.mass = documents, said, mass
        self.sums = documents.sum_over_items(said), documents.sum_over_items(mass)

    def items(self) -> tuple[Tensor, Tensor]:
        """P [I, K] and Q [I, A]."""
        return self.sums[0].float(), self.sums[1].float()

    def without(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """P [N, K] and Q [N, A] of items without one passage each."""
        documents = self.documents
        left = documents.without(documents.mass, documents.weight, items, passages) > 0
        said = documents.without(self.sums[0], self.said, items, passages)
        mass = documents.without(self.sums[1], self.mass, items, passages)
        return (
            torch.where(left[:, None], said, 0.0).float(),
            torch.where(left[:, None], mass, 0.0).float(),
        )

    def rows(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """P [..., K] and Q [..., A] of single passages."""
        return self.said[passages].float(), self.mass[passages].float()


Table = PooledTable | TokenTable


class Scores:
    """Everything of one step: parameters, documents and the vectors made from them."""

    def __init__(
        self, model: Direct, documents: Documents, table: Table, collaboration: HistoryTerm | None
    ) -> None:
        self.model, self.documents, self.table = model, documents, table
        self.view, self.collaboration = documents.view, collaboration
        self.said, self.mass = table.items()
        self.item = unit(self.said) if model.config.form == "cosine" else self.said
        self.profiles = (
            self.item if model.config.form == "cosine" else self._profile(documents.pooled, documents.mass)
        )

    def _profile(self, sums: Tensor, mass: Tensor) -> Tensor:
        """Mean text in mention space [..., M]: what the interests of the ratio form are read from."""
        mean = (sums / mass.clamp(min=1)[..., None]).float()
        profile: Tensor = self.model.mention(self.model.standard(mean))
        return profile * (mass > 0)[..., None]

    def _item_profiles_without(self, items: Tensor, passages: Tensor) -> Tensor:
        if self.model.config.form == "cosine":
            return unit(self.table.without(items, passages)[0])
        return self._profile(*self.documents.pooled_without(items, passages))

    def _passage_profiles(self, passages: Tensor) -> Tensor:
        if self.model.config.form == "cosine":
            return unit(self.table.rows(passages)[0])
        weight = self.documents.weight[passages]
        return self._profile(self.view.pooled[passages] * weight[..., None], weight)

    def interests(self, users: Tensor, out: Pairs | None = None, keep: "Keep | None" = None) -> Tensor:
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
            mask = first(mask)
            texts = self._passage_profiles(entries), keep(mask) if keep else mask
        return model.interests(model.user(history, texts))

    def _history(self, users: Tensor, out: Pairs | None, keep: "Keep | None") -> tuple[Tensor, Tensor]:
        entries, own, mask = self.view.history.gather(users)
        vectors = self.profiles[entries]
        if out is not None:
            mask = mask & (entries != out.item[:, None])
            copied = mask & self._copies(own, out)
            if copied.any():  # that item's document loses the copy too
                without = self._item_profiles_without(entries[copied], own[copied])
                vectors = vectors.index_put(copied.nonzero(as_tuple=True), without.to(vectors.dtype))
        mask = first(mask)
        return vectors, keep(mask) if keep else mask

    def _copies(self, passages: Tensor, out: Pairs) -> Tensor:
        """bool [B, L]: passages that hold the same text by the same user as the pair's own."""
        theirs = self.documents.groups(passages)
        return (theirs == self.documents.groups(out.passage)[:, None]) & (theirs >= 0)

    def catalogue(self, query: Tensor) -> Tensor:
        """Text term and item bias of every item: [B, I]."""
        text = query @ self.item.T
        if self.model.config.form == "cosine":
            text = self.model.temperature() * text
        else:
            text = text / (query @ self.mass.T + EPS)
        return text + self.model.item_bias_of(self.view.popularity)

    def left_out(self, out: Pairs, keep: "Keep | None" = None) -> tuple[Tensor, Tensor]:
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

    def _paired_term(self, query: Tensor, said: Tensor, mass: Tensor) -> Tensor:
        if self.model.config.form == "cosine":
            return self.model.temperature() * (query * unit(said)).sum(-1)
        return (query * said).sum(-1) / ((query * mass).sum(-1) + EPS)


class Keep:
    """Hides a share of the slots at random, anew at every call."""

    def __init__(self, dropout: float, generator: torch.Generator) -> None:
        self.dropout, self.generator = dropout, generator

    def __call__(self, mask: Tensor) -> Tensor:
        """`mask` less the hidden slots."""
        drawn = torch.rand(mask.shape, generator=self.generator) >= self.dropout
        return mask & drawn.to(mask.device)


def first(mask: Tensor) -> Tensor:
    """The first HISTORY entries of each row of `mask`."""
    return mask & (mask.cumsum(1) <= HISTORY)


def scorer(scores: Scores) -> Scorer:
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
        cosine = model.config.form == "cosine"
        found = Scorer(
            form="dot" if cosine else "ratio",
            query=(query * model.temperature() if cosine else query).cpu(),
            item=scores.item.cpu(),
            item_mass=None if cosine else scores.mass.cpu().contiguous(),
            eps=EPS,
            item_bias=model.item_bias_of(view.popularity).cpu(),
            user_bias=(model.bias + model.user_bias).cpu(),
        )
        if scores.collaboration is None:
            return found
        collaboration = scores.collaboration
        beside = with_item_item(found, collaboration.positives, collaboration.item_item())
        return beside.weighted(float(model.collaboration))
