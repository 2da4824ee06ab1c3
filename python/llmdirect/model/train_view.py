"""What of a dataset and its store the model may see: the documents, histories and counts of train.

A view is made from some splits alone (train, for everything that is reported). `Slots` are the ordered
lists (a user's history, a user's passages) from which a training pair takes its own interaction out.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.ragged import entries_of
from llmdirect.config import HISTORY
from llmdirect.data.dataset import Dataset
from llmdirect.model.token_reader import (
    TokenWords,
    pad_rows,
    pool_passages,
    read_flat,
)
from llmdirect.store.store import EmbeddingStore
from llmdirect.text.lexicon import Lexicon


@dataclass(frozen=True, eq=False)
class Slots:
    """An ordered list for each user, newest first, in compressed rows."""

    indptr: Tensor
    """int64 [U + 1]"""
    entries: Tensor
    """int64 [nnz] items, or passages."""
    passages: Tensor
    """int64 [nnz] the user's own passage of the entry; -1 for none."""
    width: int
    """Entries that always hold the first HISTORY of those that stay, whatever one pair takes out."""

    def gather(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """entries, passages and mask, each [B, width]; False where a user has fewer."""
        start = self.indptr[users]
        position = start[:, None] + torch.arange(self.width, device=start.device)
        mask = position < self.indptr[users + 1][:, None]
        position = torch.where(mask, position, 0)
        if not len(self.entries):
            return position, position - 1, mask
        return self.entries[position], self.passages[position], mask

    def to(self, device: torch.device) -> "Slots":
        """The same lists on a device."""
        return Slots(self.indptr.to(device), self.entries.to(device), self.passages.to(device), self.width)


@dataclass(frozen=True, eq=False)
class TrainView:
    """Everything that a score is made of, but for the parameters. R passages, U users, I items."""

    num_users: int
    num_items: int
    pooled: Tensor
    """float32 [R, D] mean of a passage's tokens; zeros where it has none."""
    lengths: Tensor
    """int64 [R] tokens of each passage that have characters."""
    passage_item: Tensor
    """int64 [R]; -1 for a user's document."""
    group: Tensor
    """int64 [R] same-user copies of a text share it; -1 for none."""
    pair_user: Tensor
    """int64 [N] user of each positive, ordered as in the dataset."""
    pair_item: Tensor
    """int64 [N]"""
    pair_passage: Tensor
    """int64 [N] row of the pair's own passage; -1 in the document unit."""
    pair_rating: Tensor
    """float32 [N]; NaN where missing."""
    popularity: Tensor
    """float32 [I] as `Dataset.popularity` counts."""
    history: Slots
    texts: Slots
    seen: Csr
    positives: Csr
    passage_idx: NDArray[np.int64]
    """[R] row of the dataset's passages."""
    stored: NDArray[np.int64]
    """[R] passage number in the store."""
    store: EmbeddingStore
    lexicon: Lexicon = field(default_factory=Lexicon.empty)
    """What each word brings beside the embeddings of its tokens."""
    words: TokenWords | None = None
    """The words of the tokens; None where the lexicon knows none."""

    @property
    def dim(self) -> int:
        """D: of the store's embeddings, and of the lexicon."""
        return self.store.dim + self.lexicon.dim

    def with_lexicon(self, lexicon: Lexicon, texts: pl.Series) -> "TrainView":
        """The same view with the words' numbers beside the embeddings; texts: of its passages [R]."""
        if not lexicon.dim:
            return self
        words = TokenWords.from_texts(lexicon, self.store, self.stored, texts)
        pooled = torch.cat([self.pooled, words.mean(lexicon).to(self.pooled.device)], 1)
        return replace(self, pooled=pooled, lexicon=lexicon, words=words)

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        store: EmbeddingStore,
        splits: tuple[int, ...] = (0,),
        progress: Progress = SILENT,
    ) -> "TrainView":
        """Reads the passages of `splits` once and pools them.

        Raises DataError where the store lacks a passage of the dataset.
        """
        rows = dataset.interactions
        kept = np.isin(rows.split, splits)
        passages = dataset.passages
        used = np.isin(passages.split, splits) | (passages.user_idx < 0) & (passages.split == 0)
        passage_idx = np.flatnonzero(used)
        local = np.full(dataset.num_passages, -1, np.int64)
        local[passage_idx] = np.arange(len(passage_idx))
        stored = store.lookup(dataset.passage_keys()[passage_idx])
        pooled, lengths = pool_passages(store, stored, progress)

        positive = kept & rows.positive
        if not positive.any():
            raise DataError(f"{dataset.path}: no positive interaction in train; nothing to learn from")
        own = np.where(rows.passage_idx >= 0, local[rows.passage_idx], -1)
        group = dataset.duplicate_ids()[passage_idx]
        recent = _recency(rows.timestamp)
        widest = int(np.bincount(group[group >= 0]).max()) if (group >= 0).any() else 1
        # A passage without text is none: it takes no slot and no share of the user's attention.
        written = np.flatnonzero((passages.user_idx[passage_idx] >= 0) & (lengths.numpy() > 0))
        text_recent = np.zeros(len(passage_idx))
        text_recent[own[kept][own[kept] >= 0]] = recent[kept][own[kept] >= 0]
        seen = Csr.from_pairs(rows.user_idx[kept], rows.item_idx[kept], dataset.num_users)
        return cls(
            num_users=dataset.num_users,
            num_items=dataset.num_items,
            pooled=pooled,
            lengths=lengths,
            passage_item=torch.from_numpy(passages.item_idx[passage_idx].astype(np.int64)),
            group=torch.from_numpy(group),
            pair_user=torch.from_numpy(rows.user_idx[positive].astype(np.int64)),
            pair_item=torch.from_numpy(rows.item_idx[positive].astype(np.int64)),
            pair_passage=torch.from_numpy(own[positive]),
            pair_rating=torch.from_numpy(rows.rating[positive].copy()),
            popularity=torch.from_numpy(dataset.popularity(splits).astype(np.float32)),
            history=_slots(
                rows.user_idx[positive],
                rows.item_idx[positive],
                own[positive],
                recent[positive],
                dataset.num_users,
                HISTORY + 1,
            ),
            texts=_slots(
                passages.user_idx[passage_idx][written],
                written,
                written,
                text_recent[written],
                dataset.num_users,
                HISTORY + widest,
            ),
            seen=seen,
            positives=dataset.csr(splits),
            passage_idx=passage_idx,
            stored=stored,
            store=store,
        )

    def hide_positives(self, table: Tensor, users: Tensor) -> Tensor:
        """`table` [B, I] with -inf at every positive of the row's user."""
        row, place = entries_of(self.positive_borders, users)
        return table.index_put((row, self.positive_items[place]), table.new_tensor(-torch.inf))

    @cached_property
    def copied(self) -> Tensor:
        """bool [R]: whether the same user has written the text elsewhere too."""
        grouped = self.group >= 0
        sizes = torch.bincount(self.group[grouped], minlength=1)
        return grouped & (sizes[self.group.clamp(min=0)] > 1)

    @cached_property
    def unique_text_pairs(self) -> Tensor:
        """int64 [n] pairs whose text its user has written nowhere else; all pairs where there is no such.

        Held-out pairs are of this kind, since copies of a text stay in train together.
        """
        copied = torch.zeros_like(self.pair_passage, dtype=torch.bool)
        written = self.pair_passage >= 0
        copied[written] = self.copied[self.pair_passage[written]]
        return (~copied | copied.all()).nonzero()[:, 0]

    @cached_property
    def positive_borders(self) -> Tensor:
        """int64 [U + 1] where the positives of each user start in `positive_items`."""
        return torch.tensor(self.positives.indptr, device=self.pooled.device)

    @cached_property
    def positive_items(self) -> Tensor:
        """int64 [N] the positives of all users."""
        return torch.tensor(self.positives.indices, device=self.pooled.device).long()

    @cached_property
    def positive_counts(self) -> Tensor:
        """int64 [U] number of positives."""
        return self.positive_borders.diff()

    @cached_property
    def recent(self) -> Csr:
        """The newest positives of each user, at most HISTORY, as a table of items."""
        counts = self.history.indptr.diff()
        users = torch.repeat_interleave(torch.arange(self.num_users, device=counts.device), counts)
        place = torch.arange(len(users), device=counts.device) - self.history.indptr[users]
        kept = place < HISTORY
        return Csr.from_pairs(users[kept].cpu(), self.history.entries[kept].cpu(), self.num_users)

    def to(self, device: torch.device) -> "TrainView":
        """The same view with its tensors on a device; token embeddings stay in the store."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor | Slots) and name in self.__dataclass_fields__
        }
        return replace(self, **moved)

    def tokens(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [B, T, D] tokens of these passages, padded with zeros, and bool mask [B, T].

        Tokens without characters (specials) are left out: nobody can point at them.
        """
        return pad_rows(*self.flat_tokens(passages.cpu().numpy()))

    def flat_tokens(self, passages: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """float32 [T, D] the same tokens of passages [B], one after another, and [B] their numbers."""
        flat, lengths = read_flat(self.store, self.stored[passages])
        if self.words is not None:
            flat = torch.cat([flat, self.lexicon.token_vectors(*self.words.rows(passages))], 1)
        return flat, lengths


def _recency(timestamp: NDArray[np.int64]) -> NDArray[np.float64]:
    """Larger is newer; without times the later row of the file counts as newer."""
    order = np.lexsort((np.arange(len(timestamp)), timestamp))
    rank = np.empty(len(timestamp))
    rank[order] = np.arange(len(timestamp))
    return rank


def _slots(
    users: NDArray[np.int32],
    entries: NDArray[np.integer],
    passages: NDArray[np.int64],
    recency: NDArray[np.float64],
    num_users: int,
    width: int,
) -> Slots:
    order = np.lexsort((-recency, users))
    counts = np.bincount(users, minlength=num_users)
    return Slots(
        indptr=torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])),
        entries=torch.from_numpy(entries[order].astype(np.int64)),
        passages=torch.from_numpy(passages[order]),
        width=min(width, int(counts.max(initial=0))) or 1,
    )
