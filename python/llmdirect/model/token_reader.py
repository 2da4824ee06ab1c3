"""Batched reading and pooling of token embeddings from the store."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.progress import Progress
from llmdirect.common.ragged import entries_of
from llmdirect.store.store import EmbeddingStore
from llmdirect.text.lexicon import Lexicon

TOKEN_BUDGET = 1 << 15
"""Tokens read from the store at a time."""


@dataclass(frozen=True, eq=False)
class TokenWords:
    """Words in which the tokens of passages start, by `Lexicon.lookup`. R passages, T tokens."""

    indptr: NDArray[np.int64]
    """[R + 1]"""
    words: NDArray[np.int64]
    """[T] rows of the lexicon; -1 for none of its words."""
    share: NDArray[np.float32]
    """[T]"""

    @classmethod
    def from_texts(
        cls, lexicon: Lexicon, store: EmbeddingStore, stored: NDArray[np.int64], texts: pl.Series
    ) -> "TokenWords":
        """Of the tokens with characters of the passages `stored` [R], whose texts these are."""
        counts, words, share = [0], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for passage, text in zip(stored.tolist(), texts, strict=True):
            spans = store.spans_of(passage)
            found = lexicon.lookup(text, spans[spans[:, 1] > spans[:, 0]])
            counts.append(len(found[0]))
            words.append(found[0])
            share.append(found[1])
        return cls(np.cumsum(counts), np.concatenate(words), np.concatenate(share))

    def mean(self, lexicon: Lexicon) -> Tensor:
        """float32 [R, L]: mean over the tokens of each passage; zeros where it has none."""
        counts = np.diff(self.indptr)
        passage = np.repeat(np.arange(len(counts)), counts)
        known = self.words >= 0
        table = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([passage, self.words])[:, known]),
            torch.from_numpy((self.share / counts.clip(min=1)[passage])[known]).double(),
            (len(counts), len(lexicon.words)),
            check_invariants=False,
        )
        return (table @ lexicon.vectors.double()).float()

    def rows(self, passages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Words and shares of the tokens of passages [B], one passage after another."""
        _, place = entries_of(torch.from_numpy(self.indptr), torch.from_numpy(passages))
        return self.words[place.numpy()], self.share[place.numpy()]


def read_flat(store: EmbeddingStore, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
    counts = store.row_counts(stored)
    flat = np.empty((int(counts.sum()), store.dim), np.float32)
    offsets = store.gather(stored, flat)
    real = np.concatenate([_worded(store, int(p)) for p in stored]) if len(stored) else np.empty(0, bool)
    lengths = np.add.reduceat(np.append(real, False), offsets[:-1]) * (counts > 0)
    return torch.from_numpy(flat[real]), lengths


def pad_rows(flat: Tensor, lengths: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    mask = torch.arange(int(lengths.max(initial=0))) < torch.from_numpy(lengths)[:, None]
    padded = torch.zeros(*mask.shape, flat.shape[1])
    padded[mask] = flat
    return padded, mask


def _worded(store: EmbeddingStore, passage: int) -> NDArray[np.bool_]:
    """bool [tokens of the passage]: which of them cover characters."""
    spans = store.spans_of(passage)
    return np.asarray(spans[:, 1] > spans[:, 0])


def length_batches(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Positions sorted by length, cut so that no batch pads to more than `budget` tokens (or holds one)."""
    order = np.argsort(lengths, kind="stable")
    batches, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > budget:
            batches.append(order[start:end])
            start = end
    return batches


def pool_passages(
    store: EmbeddingStore, stored: NDArray[np.int64], progress: Progress
) -> tuple[Tensor, Tensor]:
    pooled = torch.zeros(len(stored), store.dim)
    lengths = torch.zeros(len(stored), dtype=torch.int64)
    with progress.task("Pooling passages", len(stored), "passages") as task:
        for batch in length_batches(store.row_counts(stored), TOKEN_BUDGET):
            flat, counts = read_flat(store, stored[batch])
            # Passage by passage, in cache: a sum in float64 over all of a batch takes ten times as long.
            parts = np.split(flat.numpy(), np.cumsum(counts)[:-1])
            sums = np.stack([tokens.sum(0, dtype=np.float64) for tokens in parts])
            pooled[batch] = torch.from_numpy(sums / counts.clip(min=1)[:, None]).float()
            lengths[batch] = torch.from_numpy(counts)
            task.advance(len(batch))
    return pooled, lengths
