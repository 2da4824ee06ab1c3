"""Text similarities E Eᵀ of items by TF-IDF of their words and by their mean embeddings.

Rare words (names of authors, brands, parts) distinguish items that have similar mean embeddings, hence TF-IDF
(Salton and Buckley 1988). E holds a unit vector for each item.

A text that its user posted about several items is left out of all of them: without a pair none of its copies
exist, and items other than the pair's own would change.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.decompositions import leading_eigenvectors
from llmdirect.common.ragged import entries_of
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.train_view import TrainView
from llmdirect.text.lexicon import Lexicon
from llmdirect.text.words import count_words

_MIN_ITEMS = 2
"""Minimum document frequency of a word: one of a single item relates it to no other."""
_PART = 256
"""Rows of word counts that are dense at a time."""
_FITTED_ON = 4096
"""Maximum number of items, evenly spread, that the lexicon is fitted on."""
_SPREAD = 0.5
"""Standard deviation of passages by the lexicon, relative to that by their embeddings."""


@dataclass(frozen=True, eq=False)
class WordCounts:
    """Sparse passage-word count matrix. R passages, V words."""

    indptr: Tensor
    """int64 [R + 1]"""
    words: Tensor
    """int64 [nnz] columns"""
    values: Tensor
    """float64 [nnz]"""
    vocabulary: pl.Series
    """[V] words, sorted."""

    @classmethod
    def from_texts(cls, texts: pl.Series, items: Tensor, vocabulary: pl.Series | None = None) -> "WordCounts":
        """Count the words of texts.

        Parameters
        ----------
        texts
            [R] texts.
        items
            int64 [R] item of each text; -1 for none.
        vocabulary
            Words to count; those of at least two items if not given.
        """
        all_words, indptr, words, counts = count_words(texts.to_list())
        passage = np.repeat(np.arange(len(texts)), np.diff(indptr))
        if vocabulary is None:
            item = items.numpy()[passage]
            frequency = _num_items_with(words, item, len(all_words))
            columns = np.where(frequency >= _MIN_ITEMS, np.cumsum(frequency >= _MIN_ITEMS) - 1, -1)
            vocabulary = pl.Series(all_words, dtype=pl.String).filter(pl.Series(columns >= 0))
        else:
            index = {word: column for column, word in enumerate(vocabulary.to_list())}
            columns = np.array([index.get(word, -1) for word in all_words], np.int64)
        kept = columns[words] >= 0
        per_passage = np.bincount(passage[kept], minlength=len(texts))
        return cls(
            torch.from_numpy(np.concatenate([[0], np.cumsum(per_passage)])),
            torch.from_numpy(columns[words[kept]]),
            torch.from_numpy(counts[kept]).double(),
            vocabulary,
        )

    def dense(self, passages: Tensor) -> Tensor:
        """float64 [B, V] of passages [B]."""
        row, position = entries_of(self.indptr, passages)
        table = torch.zeros(len(passages), len(self.vocabulary), dtype=torch.float64)
        return table.index_put((row, self.words[position]), self.values[position])


def _num_items_with(words: NDArray[np.int64], items: NDArray[np.int64], num_words: int) -> NDArray[np.int64]:
    """int64 [num_words] number of items with each word, from pairs [n]; item -1 for none."""
    pairs = np.unique(words[items >= 0] * (items.max(initial=0) + 1) + items[items >= 0])
    return np.bincount(pairs // (items.max(initial=0) + 1), minlength=num_words)


class WordSimilarity:
    """Cosine similarity of items by centred TF-IDF vectors. I items, V words.

    A word with n occurrences in an item's texts has weight (1 + log n)·log((1 + I) / (1 + df)), df the number
    of items with it. Rows are scaled to length 1, centred and scaled again to give E. Vocabulary, weights of
    words and mean row are a fixed map, as the centre of the embeddings is.

    Parameters
    ----------
    texts
        [R] texts of the view's passages.
    like
        Similarity whose fixed map is taken; fitted on the texts if not given.
    """

    def __init__(self, view: TrainView, texts: pl.Series, like: "WordSimilarity | None" = None) -> None:
        items = torch.where(view.copied, -1, view.passage_item).cpu()
        self.counts: WordCounts = WordCounts.from_texts(
            texts, items, None if like is None else like.counts.vocabulary
        )
        self._is_counted, num_items = items >= 0, view.num_items
        passage = torch.repeat_interleave(torch.arange(len(items)), self.counts.indptr.diff())
        owner = items[passage]
        size = (num_items, len(self.counts.vocabulary))
        self._item_counts = torch.sparse_coo_tensor(
            torch.stack([owner[owner >= 0], self.counts.words[owner >= 0]]),
            self.counts.values[owner >= 0],
            size,
            check_invariants=False,
        ).coalesce()
        item, words = self._item_counts.indices()
        self._indptr = torch.searchsorted(item.contiguous(), torch.arange(num_items + 1))
        frequency = torch.bincount(words, minlength=size[1]).double()
        self.weight: Tensor = torch.log((1 + num_items) / (1 + frequency)) if like is None else like.weight
        value = (1 + self._item_counts.values().log()) * self.weight[words]
        length = torch.zeros(num_items, dtype=torch.float64).index_add_(0, item, value.square()).sqrt()
        value = value / torch.where(length > 0, length, 1.0)[item]
        indices = self._item_counts.indices()
        self._unit = torch.sparse_coo_tensor(indices, value, size, check_invariants=False).coalesce()
        total = torch.zeros(size[1], dtype=torch.float64).index_add_(0, words, value)
        num_with_words = max(1, int((length > 0).sum()))
        self.mean: Tensor = total / num_with_words if like is None else like.mean
        distance = (1 - 2 * (self._unit @ self.mean[:, None])[:, 0] + self.mean.square().sum()).clamp(min=0)
        # Rounding may leave a residue where a row equals the mean.
        is_distinct = (length > 0) & (distance > 1e-12)
        self._scale = torch.where(is_distinct, distance, 1.0).rsqrt() * is_distinct

    def gram(self, items: Tensor) -> Tensor:
        """float64 [n, n] E Eᵀ of these items [n]."""
        gram = torch.empty(len(items), len(items), dtype=torch.float64)
        for part, chosen in zip(torch.split(gram, _PART), torch.split(items, _PART), strict=True):
            part.copy_(self._products(self._directions(self._counts_of(chosen)))[:, items])
        return gram

    def lexicon(self, view: TrainView, size: int) -> Lexicon:
        """Word vectors: rows of the leading right singular vectors of E, times the weight of the word.

        Scaled so that passages, each the mean over its tokens, have half the standard deviation that they
        have by their embeddings.

        Parameters
        ----------
        size
            Dimensions; fewer where E has a lower rank, 0 for no lexicon.
        """
        if not size:
            return Lexicon.empty()
        vectors = self.weight[:, None] * self._leading(size)
        counts, has_text = self.counts, (view.lengths > 0).cpu()
        passage = torch.repeat_interleave(torch.arange(len(has_text)), counts.indptr.diff())
        matrix = torch.sparse_coo_tensor(
            torch.stack([passage, counts.words]),
            counts.values,
            (len(has_text), len(vectors)),
            check_invariants=False,
        )
        spread = _spread((matrix @ vectors)[has_text] / view.lengths.cpu()[has_text, None])
        if not spread > 0:
            return Lexicon.empty()
        scale = _SPREAD * _spread(view.pooled.cpu()[has_text].double()) / spread
        return Lexicon(tuple(counts.vocabulary.to_list()), (vectors * scale).float())

    def _leading(self, size: int) -> Tensor:
        """float64 [V, L] leading right singular vectors of E, or of some of its rows where it has many."""
        items = torch.linspace(0, len(self._scale) - 1, min(len(self._scale), _FITTED_ON)).long()
        rows, scale = self._unit.index_select(0, items).coalesce(), self._scale[items]
        gram = torch.empty(len(items), len(items), dtype=torch.float64)
        for part, chosen in zip(torch.split(gram, _PART), torch.split(items, _PART), strict=True):
            directions = self._directions(self._counts_of(chosen))
            part.copy_(((rows @ directions.T).T - (directions @ self.mean)[:, None]) * scale)
        strength, left = leading_eigenvectors(gram, size)
        strength, left = strength[:size], left[:, :size]
        strong = strength > 1e-9 * max(strength.tolist(), default=0.0)
        left = left[:, strong] * scale[:, None]
        right: Tensor = (rows.T @ left - self.mean[:, None] * left.sum(0)) / strength[strong].sqrt()
        return right

    def text_change(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """E·d float64 [B, I] and |d|² [B], d the change of rows of E without one passage each."""
        products, squares = [], []
        for part, own in zip(torch.split(items, _PART), torch.split(passages, _PART), strict=True):
            counts = self._counts_of(part)
            removed = (own >= 0) & self._is_counted[own.clamp(min=0)]
            without = counts - self.counts.dense(own.clamp(min=0)) * removed[:, None]
            change = self._directions(counts) - self._directions(without)
            products.append(self._products(change))
            squares.append(change.square().sum(1))
        return torch.cat(products), torch.cat(squares)

    def _counts_of(self, items: Tensor) -> Tensor:
        row, position = entries_of(self._indptr, items)
        table = torch.zeros(len(items), len(self.weight), dtype=torch.float64)
        return table.index_put(
            (row, self._item_counts.indices()[1, position]), self._item_counts.values()[position]
        )

    def _directions(self, counts: Tensor) -> Tensor:
        """Rows of E [B, V] of items with these word counts [B, V]."""
        value = torch.where(counts > 0, 1 + counts.clamp(min=1).log(), 0.0) * self.weight
        length = value.norm(dim=1, keepdim=True)
        centred = torch.where(length > 0, value / torch.where(length > 0, length, 1.0) - self.mean, 0.0)
        length = centred.norm(dim=1, keepdim=True)
        return torch.where(length > 1e-6, centred / torch.where(length > 0, length, 1.0), 0.0)

    def _products(self, rows: Tensor) -> Tensor:
        """rows·Eᵀ [B, I] of dense rows [B, V]."""
        shared = (self._unit @ rows.T).T - (rows @ self.mean)[:, None]
        return shared * self._scale


def _spread(rows: Tensor) -> float:
    """Root mean square distance of rows [n, …] from their mean."""
    return float((rows - rows.mean(0)).square().sum(1).mean().sqrt()) if len(rows) else 0.0


class EmbeddingSimilarity:
    """Cosine similarity of items by centred mean embeddings. I items, D channels.

    Channels of a lexicon are left out: `WordSimilarity` covers words.

    Parameters
    ----------
    centre
        [D] subtracted from each mean embedding.
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

    def text_change(self, items: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """E·d float64 [B, I] and |d|² [B], d the change of rows of E without one passage each."""
        items, passages = items.to(self._mass.device), passages.to(self._mass.device)
        weight = torch.where(passages >= 0, self._weight[passages.clamp(min=0)], 0.0)
        own = self._pooled[passages.clamp(min=0)].double() * weight[:, None]
        change = self.directions[items] - self._direction(self._sums[items] - own, self._mass[items] - weight)
        return (change @ self.directions.T).cpu(), change.square().sum(1).cpu()

    def _direction(self, sums: Tensor, mass: Tensor) -> Tensor:
        # Rounding may leave a residue where the mass is zero.
        centred = torch.where(mass[:, None] > 0, sums - mass[:, None] * self._centre, 0.0)
        length = centred.norm(dim=1, keepdim=True)
        return centred / torch.where(length > 0, length, 1.0)
