"""Batched reading and pooling of token embeddings from a store."""

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
    """Lexicon words in which the tokens of passages start (`Lexicon.find`). R passages, T tokens."""

    indptr: NDArray[np.int64]
    """[R + 1]"""
    words: NDArray[np.int64]
    """[T] rows of the lexicon; -1 for none of its words."""
    share: NDArray[np.float32]
    """[T] share of the word's vector that the token carries."""

    @classmethod
    def from_texts(
        cls, lexicon: Lexicon, store: EmbeddingStore, stored: NDArray[np.int64], texts: pl.Series
    ) -> "TokenWords":
        """Words of the tokens with characters.

        Parameters
        ----------
        stored
            [R] passage numbers in the store.
        texts
            [R] their texts.
        """
        counts, words, share = [0], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for passage, text in zip(stored.tolist(), texts, strict=True):
            spans = store.spans_of(passage)
            own_words, own_share = lexicon.find(text, spans[spans[:, 1] > spans[:, 0]])
            counts.append(len(own_words))
            words.append(own_words)
            share.append(own_share)
        return cls(np.cumsum(counts), np.concatenate(words), np.concatenate(share))

    def mean(self, lexicon: Lexicon) -> Tensor:
        """Mean word vector float32 [R, L] over the tokens of each passage; zeros where it has none."""
        counts = np.diff(self.indptr)
        passage = np.repeat(np.arange(len(counts)), counts)
        in_lexicon = self.words >= 0
        table = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([passage, self.words])[:, in_lexicon]),
            torch.from_numpy((self.share / counts.clip(min=1)[passage])[in_lexicon]).double(),
            (len(counts), len(lexicon.names)),
            check_invariants=False,
        )
        return (table @ lexicon.vectors.double()).float()

    def rows(self, passages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Words and shares of the tokens of passages [B], concatenated."""
        _, position = entries_of(torch.from_numpy(self.indptr), torch.from_numpy(passages))
        return self.words[position.numpy()], self.share[position.numpy()]


def read_tokens(store: EmbeddingStore, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
    """Token embeddings float32 [T, D] of stored passages [B], concatenated, and their lengths [B].

    Tokens without characters are left out.
    """
    counts = store.row_counts(stored)
    flat = np.empty((int(counts.sum()), store.dim), np.float32)
    offsets = store.gather(stored, flat)
    real = (
        np.concatenate([_has_characters(store, int(p)) for p in stored]) if len(stored) else np.empty(0, bool)
    )
    lengths = np.add.reduceat(np.append(real, False), offsets[:-1]) * (counts > 0)
    return torch.from_numpy(flat[real]), lengths


def pad_rows(flat: Tensor, lengths: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Concatenated rows [T, D] padded to [B, T, D], and bool mask [B, T]; lengths: [B]."""
    mask = torch.arange(int(lengths.max(initial=0))) < torch.from_numpy(lengths)[:, None]
    padded = torch.zeros(*mask.shape, flat.shape[1])
    padded[mask] = flat
    return padded, mask


def _has_characters(store: EmbeddingStore, passage: int) -> NDArray[np.bool_]:
    """bool [T] which tokens of a passage cover characters."""
    spans = store.spans_of(passage)
    return np.asarray(spans[:, 1] > spans[:, 0])


def length_batches(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Batches of positions of similar length.

    Parameters
    ----------
    lengths
        [n]
    budget
        Most tokens of a padded batch of more than one row.
    """
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
    """Mean token embedding float32 [R, D] and length int64 [R] of stored passages [R]."""
    pooled = torch.zeros(len(stored), store.dim)
    lengths = torch.zeros(len(stored), dtype=torch.int64)
    with progress.task("Pooling passages", len(stored), "passages") as task:
        for batch in length_batches(store.row_counts(stored), TOKEN_BUDGET):
            flat, counts = read_tokens(store, stored[batch])
            # Passage by passage, which stays in cache: a float64 sum over the batch is ten times slower.
            parts = np.split(flat.numpy(), np.cumsum(counts)[:-1])
            sums = np.stack([tokens.sum(0, dtype=np.float64) for tokens in parts])
            pooled[batch] = torch.from_numpy(sums / counts.clip(min=1)[:, None]).float()
            lengths[batch] = torch.from_numpy(counts)
            task.advance(len(batch))
    return pooled, lengths
