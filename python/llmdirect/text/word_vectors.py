"""Static word vectors of texts: TF-IDF and truncated SVD (latent semantic analysis), in NumPy alone.

A text is the mean of the vectors of its words, which is its TF-IDF vector in the space of the leading right
singular vectors, divided by its number of words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.canonical import canonical_basis, directions
from llmdirect.common.progress import SILENT, Progress
from llmdirect.text.words import count_words, counted_words

MIN_TEXTS: Final = 2
"""Minimum document frequency of a word: one of a single text relates it to no other."""
MAX_WORDS: Final = 1 << 17
"""Most words of a vocabulary, the most frequent ones."""
_EXTRA: Final = 16
"""Directions beyond those that are kept, with which subspace iteration converges faster."""
_ITERATIONS: Final = 4
"""Number of subspace iterations on some of the texts."""
_ITERATED_TEXTS: Final = 1 << 14
"""Maximum number of texts, evenly spread, of these iterations; two more passes read all texts."""
_PART: Final = 128
"""Texts whose word counts are dense at a time."""
_SMALLEST: Final = 1e-9
"""Least eigenvalue of a direction, relative to the largest."""


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Vectors of the words of a vocabulary. V words, D dimensions."""

    words: tuple[str, ...]
    """V counted words, sorted."""
    vectors: NDArray[np.float16]
    """[V, D] weight of the word times its entries in the right singular vectors. 16 bits: the last bits of
    float64 results depend on processor and threads."""
    channels: NDArray[np.float32]
    """[D] root mean square of each dimension over the words of the texts, repeated words included."""

    @property
    def dim(self) -> int:
        """Dimension D of the vectors."""
        return int(self.vectors.shape[1])

    @classmethod
    def fit(cls, texts: Sequence[str], dimensions: int, progress: Progress = SILENT) -> "WordVectors":
        """Fit vocabulary, weights and vectors on texts.

        A word with n occurrences in a text has the weight n·log((1 + N) / (1 + df)) there, N the number of
        texts and df that of texts with the word; each text is scaled to length 1. Vectors are scaled to a
        root mean square length of the square root of D.

        Parameters
        ----------
        texts
            N different texts, in an order that does not depend on other data.
        dimensions
            Dimensions; fewer where the matrix of texts and words has a lower rank, 0 where no word is in
            two texts.

        References
        ----------
        Deerwester, S., et al. (1990). Indexing by Latent Semantic Analysis. JASIS 41(6).
        """
        matrix, words, weight, counts = _tfidf(texts)
        basis = np.zeros((len(words), 0))
        if len(words):
            basis = matrix.right_singular_vectors(dimensions, progress)
        vectors = weight[:, None] * basis
        mean_squares = counts @ np.square(vectors) / max(1, counts.sum())
        scale = np.sqrt(mean_squares.mean()) if mean_squares.any() else 1.0
        stored = (vectors / scale).astype(np.float16)
        squares = counts @ np.square(stored.astype(np.float64)) / max(1, counts.sum())
        channels = np.maximum(np.sqrt(squares), 1e-3).astype(np.float32)
        return cls(tuple(words), stored, channels)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    def lookup(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Rows int64 [T] and spans uint32 [T, 2] of the words of a text that are in the vocabulary."""
        words, spans = counted_words(text)
        rows = np.array([self._index.get(word, -1) for word in words], np.int64)
        return rows[rows >= 0], spans[rows >= 0].astype(np.uint32)


def _tfidf(
    texts: Sequence[str],
) -> tuple["_Rows", list[str], NDArray[np.float64], NDArray[np.float64]]:
    """TF-IDF matrix of texts, its vocabulary [V], and weight and occurrences [V] of each word."""
    vocabulary, indptr, words, counts = count_words(texts)
    text = np.repeat(np.arange(len(texts)), np.diff(indptr))
    frequency = np.bincount(words, minlength=len(vocabulary))
    kept = np.flatnonzero(frequency >= MIN_TEXTS)
    kept = np.sort(kept[np.argsort(-frequency[kept], kind="stable")[:MAX_WORDS]])
    column = np.full(len(vocabulary), -1)
    column[kept] = np.arange(len(kept))
    used = column[words] >= 0
    text, word, count = text[used], column[words[used]], counts[used].astype(np.float64)
    weight = np.log((1 + len(texts)) / (1 + frequency[kept]))
    value = count * weight[word]
    length = np.sqrt(np.bincount(text, np.square(value), minlength=len(texts)))
    starts = np.searchsorted(text, np.arange(len(texts) + 1))
    rows = _Rows(starts, word, value / np.where(length > 0, length, 1.0)[text], len(kept))
    occurrences = np.bincount(word, count, minlength=len(kept)).astype(np.float64)
    return rows, [vocabulary[row] for row in kept.tolist()], weight, occurrences


@dataclass(frozen=True, eq=False)
class _Rows:
    """Sparse matrix X of N texts and V words."""

    indptr: NDArray[np.int64]
    """[N + 1]"""
    words: NDArray[np.int64]
    """[nnz] columns"""
    values: NDArray[np.float64]
    """[nnz]"""
    num_words: int

    def right_singular_vectors(self, count: int, progress: Progress) -> NDArray[np.float64]:
        """[V, D] leading right singular vectors, D at most `count`, by subspace iteration."""
        num_texts = len(self.indptr) - 1
        count = min(count, num_texts, self.num_words)
        width = min(count + _EXTRA, num_texts, self.num_words)
        every = np.arange(num_texts)
        some = np.unique(np.linspace(0, num_texts - 1, min(num_texts, _ITERATED_TEXTS)).astype(np.int64))
        steps = [some] * _ITERATIONS + [every]
        basis = directions(self.num_words, width)
        with progress.task("fit word vectors", sum(map(len, steps)) + num_texts, "texts") as task:
            for texts in steps:
                product = np.zeros_like(basis)
                for words, rows in self._parts(texts):
                    product[words] += rows.T @ (rows @ basis[words])
                    task.advance(len(rows))
                basis = np.linalg.qr(product)[0]
            gram = np.zeros((width, width))
            for words, rows in self._parts(every):
                projected = rows @ basis[words]
                gram += projected.T @ projected
                task.advance(len(rows))
        values, within = np.linalg.eigh(gram)
        values, within = values[::-1][:count], within[:, ::-1][:, :count]
        strong = values > _SMALLEST * max(values.tolist(), default=0.0)
        return canonical_basis(values[strong], basis @ within[:, strong], float(num_texts))

    def _parts(self, texts: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Words [v] of some texts after others, and the dense columns [n, v] of these words."""
        for start in range(0, len(texts), _PART):
            part = texts[start : start + _PART]
            sizes = self.indptr[part + 1] - self.indptr[part]
            row = np.repeat(np.arange(len(part)), sizes)
            position = np.arange(len(row)) + np.repeat(self.indptr[part] - (np.cumsum(sizes) - sizes), sizes)
            words, column = np.unique(self.words[position], return_inverse=True)
            dense = np.zeros((len(part), len(words)))
            dense[row, column] = self.values[position]
            yield words, dense
