"""Words out of tokens: where they stand in a passage, and one static vector a word type."""

import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.views import View

LINK = 0.2
"""Cosine of two static word vectors from which they are linked, as published."""
_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]+", re.UNICODE)


def word_spans(text: str) -> NDArray[np.int64]:
    """Characters [n, 2], half-open, of the words of a text; a run of punctuation is a word of its own."""
    return np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)


def words_of_tokens(spans: NDArray[np.uint32], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """The word in which each token [T, 2] starts, int64 [T]; -1 for a token in no word (a lone blank).

    A token that covers more than one word counts for the first.
    """
    if not len(words):
        return np.full(len(spans), -1, np.int64)
    middle_word = np.searchsorted(words[:, 1], spans[:, 0], side="right")
    inside = (middle_word < len(words)) & (spans[:, 1] > spans[:, 0])
    word = np.where(inside, middle_word, 0)
    return np.where(inside & (words[word, 0] < spans[:, 1]), word, -1)


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
    def of(cls, view: View, texts: list[str], limit: int = 4096, at_least: int = 5) -> "WordTypes":
        """Counts the words of `texts` (one a passage of the view) and averages the most frequent ones."""
        sums: dict[str, tuple[int, NDArray[np.float64]]] = {}
        store = view.store
        for text, stored in zip(texts, view.stored.tolist(), strict=True):
            rows = slice(store.offsets[stored], store.offsets[stored + 1])
            words = word_spans(text)
            owner = words_of_tokens(store.spans[rows], words)
            flat = np.empty((len(owner), store.dim), np.float32)
            store.gather([stored], flat)
            for word in np.unique(owner[owner >= 0]).tolist():
                name = text[words[word, 0] : words[word, 1]].casefold()
                count, total = sums.get(name, (0, np.zeros(store.dim)))
                sums[name] = (count + 1, total + flat[owner == word].mean(0))
        counted = sorted(
            ((name, count, total) for name, (count, total) in sums.items() if count >= at_least),
            key=lambda entry: (-entry[1], entry[0]),
        )[:limit]
        vectors = torch.from_numpy(
            np.array([total / count for _, count, total in counted], np.float32).reshape(-1, store.dim)
        )
        centred = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
        return cls([name for name, _, _ in counted], vectors, centred)

    def to(self, device: torch.device) -> "WordTypes":
        """The same types with their vectors on a device."""
        return WordTypes(self.names, self.vectors.to(device), self.centred.to(device))

    def draw(self, count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Vectors [N, D] of N random types, and float32 [G, N]: the types linked to each of the first G."""
        drawn = torch.randperm(len(self.vectors), generator=generator)[:count].to(self.vectors.device)
        centred = self.centred[drawn]
        centres = centred[: max(1, int(share * len(drawn)))]
        return self.vectors[drawn], (centres @ centred.T >= LINK).to(centred.dtype)
