"""Which items are alike by their texts, with and without one passage: by their words, by their embeddings.

Rare words tell items apart (names of authors, of brands, of parts) where a mean of embeddings blurs them:
TF-IDF (Salton and Buckley 1988) for those. E is a direction for each item; what is alike is E Eᵀ.

A text that its user wrote about several items enters none of them: without a pair none of its copies exist,
so that not only the pair's own item would change.
"""

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from llmdirect.common.decompositions import leading_eigenvectors
from llmdirect.common.ragged import entries_of
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.train_view import TrainView
from llmdirect.text.lexicon import WORD_PATTERN, Lexicon

_RARE = 2
"""Items that a word must be said of: what is said of one item alone likens it to no other."""
_PART = 256
"""Rows of words that are dense at a time."""
_FITTED_ON = 4096
"""Items, evenly spread, whose words the lexicon is fitted on."""
_SPREAD = 0.5
"""How far the words' numbers spread passages, over how far their embeddings do."""


@dataclass(frozen=True, eq=False)
class Counts:
    """How often each passage says each word, sparse."""

    indptr: Tensor
    """int64 [R + 1]"""
    words: Tensor
    """int64 [nnz] columns"""
    values: Tensor
    """float64 [nnz]"""
    vocabulary: pl.Series
    """[V] words, sorted; each is said of at least two items."""

    @classmethod
    def from_texts(cls, texts: pl.Series, items: Tensor, vocabulary: pl.Series | None = None) -> "Counts":
        """Counts of `texts` [R]; items: int64 [R] what each is about, -1 for nothing.

        vocabulary: the words to count, where they are known already.
        """
        said = (
            pl.DataFrame({"passage": pl.arange(0, len(texts), eager=True), "text": texts})
            .with_columns(word=pl.col("text").str.to_lowercase().str.extract_all(WORD_PATTERN))
            .select("passage", "word")
            .explode("word")
            .drop_nulls()
            .group_by("passage", "word")
            .len("count")
        )
        if vocabulary is None:
            about = said.with_columns(item=pl.Series(items.numpy()).gather(said["passage"]))
            spread = about.filter(pl.col("item") >= 0).group_by("word").agg(pl.col("item").n_unique())
            vocabulary = spread.filter(pl.col("item") >= _RARE)["word"].sort()
        columns = pl.DataFrame({"word": vocabulary, "column": pl.arange(0, len(vocabulary), eager=True)})
        kept = said.join(columns, on="word").sort("passage", "column")
        per_passage = torch.bincount(kept["passage"].to_torch().long(), minlength=len(texts))
        return cls(
            torch.cat([torch.zeros(1, dtype=torch.int64), per_passage.cumsum(0)]),
            kept["column"].to_torch().long(),
            kept["count"].to_torch().double(),
            vocabulary,
        )

    def dense(self, passages: Tensor) -> Tensor:
        """float64 [B, V] of passages [B]."""
        row, place = entries_of(self.indptr, passages)
        table = torch.zeros(len(passages), len(self.vocabulary), dtype=torch.float64)
        return table.index_put((row, self.words[place]), self.values[place])


class WordSimilarity:
    """Cosines of items in the space of words, E Eᵀ. I items, V words.

    A word that an item's texts say n times counts (1 + log n)·log((1 + I) / (1 + items with it)), rows have
    length 1, and E is their directions from the mean row. Vocabulary, the weights of words and the mean row
    are a fixed map, as the centre of the embeddings is; `like` takes over another one's.
    """

    def __init__(self, view: TrainView, texts: pl.Series, like: "WordSimilarity | None" = None) -> None:
        """texts: those of the view's passages, [R]."""
        items = torch.where(view.copied, -1, view.passage_item).cpu()
        self.counts: Counts = Counts.from_texts(
            texts, items, None if like is None else like.counts.vocabulary
        )
        self._counted, num_items = items >= 0, view.num_items
        passage = torch.repeat_interleave(torch.arange(len(items)), self.counts.indptr.diff())
        about = items[passage]
        size = (num_items, len(self.counts.vocabulary))
        self._said = torch.sparse_coo_tensor(
            torch.stack([about[about >= 0], self.counts.words[about >= 0]]),
            self.counts.values[about >= 0],
            size,
            check_invariants=False,
        ).coalesce()
        said_of, words = self._said.indices()
        self._borders = torch.searchsorted(said_of.contiguous(), torch.arange(num_items + 1))
        spread = torch.bincount(words, minlength=size[1]).double()
        self.weight: Tensor = torch.log((1 + num_items) / (1 + spread)) if like is None else like.weight
        value = (1 + self._said.values().log()) * self.weight[words]
        length = torch.zeros(num_items, dtype=torch.float64).index_add_(0, said_of, value.square()).sqrt()
        value = value / torch.where(length > 0, length, 1.0)[said_of]
        places = self._said.indices()
        self._unit = torch.sparse_coo_tensor(places, value, size, check_invariants=False).coalesce()
        total = torch.zeros(size[1], dtype=torch.float64).index_add_(0, words, value)
        written = max(1, int((length > 0).sum()))
        self.mean: Tensor = total / written if like is None else like.mean
        distance = (1 - 2 * (self._unit @ self.mean[:, None])[:, 0] + self.mean.square().sum()).clamp(min=0)
        # By count: what rounding leaves of nothing is no direction.
        away = (length > 0) & (distance > 1e-12)
        self._scale = torch.where(away, distance, 1.0).rsqrt() * away

    def gram(self, items: Tensor) -> Tensor:
        """float64 [n, n] E Eᵀ of these items [n]."""
        gram = torch.empty(len(items), len(items), dtype=torch.float64)
        for part, chosen in zip(torch.split(gram, _PART), torch.split(items, _PART), strict=True):
            part.copy_(self._along(self._directions(self._of_items(chosen)))[:, items])
        return gram

    def lexicon(self, view: TrainView, size: int) -> Lexicon:
        """Each word's weight times its place in the `size` leading directions of E (fewer where E has fewer).

        Scaled so that passages, each the mean over its tokens, spread half as far as by their embeddings.
        """
        if not size:
            return Lexicon.empty()
        vectors = self.weight[:, None] * self._leading(size)
        counts, written = self.counts, (view.lengths > 0).cpu()
        passage = torch.repeat_interleave(torch.arange(len(written)), counts.indptr.diff())
        said = torch.sparse_coo_tensor(
            torch.stack([passage, counts.words]),
            counts.values,
            (len(written), len(vectors)),
            check_invariants=False,
        )
        spread = _spread((said @ vectors)[written] / view.lengths.cpu()[written, None])
        if not spread > 0:
            return Lexicon.empty()
        scale = _SPREAD * _spread(view.pooled.cpu()[written].double()) / spread
        return Lexicon(tuple(counts.vocabulary.to_list()), (vectors * scale).float())

    def _leading(self, size: int) -> Tensor:
        """float64 [V, L]: right singular vectors of E, or of a part of its rows where it has many."""
        items = torch.linspace(0, len(self._scale) - 1, min(len(self._scale), _FITTED_ON)).long()
        rows, scale = self._unit.index_select(0, items).coalesce(), self._scale[items]
        gram = torch.empty(len(items), len(items), dtype=torch.float64)
        for part, chosen in zip(torch.split(gram, _PART), torch.split(items, _PART), strict=True):
            directions = self._directions(self._of_items(chosen))
            part.copy_(((rows @ directions.T).T - (directions @ self.mean)[:, None]) * scale)
        strength, left = leading_eigenvectors(gram, size)
        strength, left = strength[:size], left[:, :size]
        strong = strength > 1e-9 * max(strength.tolist(), default=0.0)
        left = left[:, strong] * scale[:, None]
        right: Tensor = (rows.T @ left - self.mean[:, None] * left.sum(0)) / strength[strong].sqrt()
        return right

    def lost(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """What rows of E lose with one passage each (-1: nothing): E·lost float64 [B, I], and |lost|² [B]."""
        along, squares = [], []
        for part, own in zip(torch.split(items, _PART), torch.split(passages, _PART), strict=True):
            said = self._of_items(part)
            taken = (own >= 0) & self._counted[own.clamp(min=0)]
            without = said - self.counts.dense(own.clamp(min=0)) * taken[:, None]
            lost = self._directions(said) - self._directions(without)
            along.append(self._along(lost))
            squares.append(lost.square().sum(1))
        return torch.cat(along), torch.cat(squares)

    def _of_items(self, items: Tensor) -> Tensor:
        row, place = entries_of(self._borders, items)
        table = torch.zeros(len(items), len(self.weight), dtype=torch.float64)
        return table.index_put((row, self._said.indices()[1, place]), self._said.values()[place])

    def _directions(self, said: Tensor) -> Tensor:
        """Rows of E [B, V] of items that say so many words [B, V]."""
        value = torch.where(said > 0, 1 + said.clamp(min=1).log(), 0.0) * self.weight
        length = value.norm(dim=1, keepdim=True)
        away = torch.where(length > 0, value / torch.where(length > 0, length, 1.0) - self.mean, 0.0)
        length = away.norm(dim=1, keepdim=True)
        return torch.where(length > 1e-6, away / torch.where(length > 0, length, 1.0), 0.0)

    def _along(self, rows: Tensor) -> Tensor:
        """rows·Eᵀ [B, I] of dense rows [B, V]."""
        shared = (self._unit @ rows.T).T - (rows @ self.mean)[:, None]
        return shared * self._scale


def _spread(rows: Tensor) -> float:
    """Root mean square distance of rows [n, …] from their mean."""
    return float((rows - rows.mean(0)).square().sum(1).mean().sqrt()) if len(rows) else 0.0


class EmbeddingSimilarity:
    """Cosines of items' mean embeddings, each less `centre`, which has a number for each of their channels.

    The numbers that a lexicon puts beside them stay out: `WordSimilarity` says what words are worth.
    """

    def __init__(self, documents: ItemDocuments, centre: Tensor) -> None:
        self._centre = centre.double()
        self._pooled = documents.view.pooled[:, : len(centre)]
        self._weight = torch.where(documents.view.copied, 0.0, documents.weight)
        self._mass = documents.sum_over_items(self._weight)
        self._sums = documents.weighted_sums(self._weight)[:, : len(centre)]
        self.directions = self._direction(self._sums, self._mass)
        """E, float64 [I, D]"""

    def gram(self, items: Tensor) -> Tensor:
        """float64 [n, n] E Eᵀ of these items [n]."""
        directions = self.directions[items.to(self.directions.device)]
        return (directions @ directions.T).cpu()

    def lost(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """What rows of E lose with one passage each (-1: nothing): E·lost float64 [B, I], and |lost|² [B]."""
        items, passages = items.to(self._mass.device), passages.to(self._mass.device)
        weight = torch.where(passages >= 0, self._weight[passages.clamp(min=0)], 0.0)
        own = self._pooled[passages.clamp(min=0)].double() * weight[:, None]
        lost = self.directions[items] - self._direction(self._sums[items] - own, self._mass[items] - weight)
        return (lost @ self.directions.T).cpu(), lost.square().sum(1).cpu()

    def _direction(self, sums: Tensor, mass: Tensor) -> Tensor:
        # By count: what rounding leaves of nothing is no direction.
        away = torch.where(mass[:, None] > 0, sums - mass[:, None] * self._centre, 0.0)
        length = away.norm(dim=1, keepdim=True)
        return away / torch.where(length > 0, length, 1.0)
