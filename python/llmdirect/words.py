"""Words out of tokens: where they stand in a passage, and one static vector a word type."""

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.model import unit
from llmdirect.progress import SILENT, Progress
from llmdirect.views import View

_PASSAGES = 20_000
_TYPES = 4096
_OCCURRENCES = 5
LINK = 0.2
"""Cosine of two static word vectors from which they are linked, as published."""
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]+|\s+", re.UNICODE)


def word_spans(text: str) -> NDArray[np.int64]:
    """Characters [n, 2], half-open: words, runs of punctuation, of white space; together the whole text."""
    if not text.isascii():
        # A combining mark belongs to the letter before it, though `re` does not count it to a word.
        text = "".join("x" if unicodedata.category(letter)[0] == "M" else letter for letter in text)
    return np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)


def words_of_tokens(spans: NDArray[np.uint32], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """The word in which each token [T, 2] of a text starts: int64 [T]; -1 for a token without characters."""
    owner = np.searchsorted(words[:, 1], spans[:, 0], side="right")
    return np.where(spans[:, 1] > spans[:, 0], owner, -1)


@dataclass(frozen=True, eq=False)
class WordTypes:
    """One static vector for each of the most frequent word types of the view's passages.

    The store holds embeddings in context alone; their mean over all occurrences of a word is a static
    embedding of it (Bommasani et al. 2020).
    """

    names: list[str]
    vectors: Tensor
    """float32 [V, D]"""
    centred: Tensor
    """The same less their mean, scaled to length 1: what cosines are taken of."""

    @classmethod
    def of(cls, view: View, texts: pl.Series, progress: Progress = SILENT) -> "WordTypes":
        """Counts the words of `texts` (one a passage of the view) and averages the most frequent ones.

        At most 20,000 passages are read, evenly spread.
        """
        store = view.store
        sums: dict[str, tuple[int, NDArray[np.float32]]] = {}
        chosen = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _PASSAGES)).astype(np.int64))
        with progress.task("Reading words", len(chosen), "passages") as task:
            for row in chosen.tolist():
                task.advance()
                text, stored = str(texts[row]), int(view.stored[row])
                words = word_spans(text)
                owner = words_of_tokens(store.spans[store.offsets[stored] : store.offsets[stored + 1]], words)
                flat = np.empty((len(owner), store.dim), np.float32)
                store.gather([stored], flat)
                real = owner >= 0
                owner, flat = owner[real], flat[real]
                if not len(owner):
                    continue
                starts = np.flatnonzero(np.diff(owner, prepend=-1))
                means = np.add.reduceat(flat, starts) / np.diff(starts, append=len(owner))[:, None]
                for word, mean in zip(owner[starts].tolist(), means, strict=True):
                    name = text[words[word, 0] : words[word, 1]].casefold()
                    if name[0].isalpha():
                        count, total = sums.get(name, (0, np.float32(0)))
                        sums[name] = (count + 1, total + mean)
        counted = sorted(
            ((name, count, total) for name, (count, total) in sums.items() if count >= _OCCURRENCES),
            key=lambda entry: (-entry[1], entry[0]),
        )[:_TYPES]
        vectors = torch.from_numpy(
            np.array([total / count for _, count, total in counted], np.float32).reshape(-1, store.dim)
        ).to(view.pooled.device)
        return cls([name for name, _, _ in counted], vectors, unit(vectors - vectors.mean(0)))

    def draw(self, count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Vectors [N, D] of N random types, and float32 [G, N]: the types linked to each of the first G."""
        drawn = torch.randperm(len(self.vectors), generator=generator)[:count].to(self.vectors.device)
        centred = self.centred[drawn]
        centres = centred[: max(1, int(share * len(drawn)))]
        return self.vectors[drawn], (centres @ centred.T >= LINK).to(centred.dtype)
