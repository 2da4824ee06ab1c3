"""Training data of the model: documents, histories and counts of the train split.

A view is built from some splits alone (train, for everything that is reported).
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
from llmdirect.model.slots import Slots, recency_ranks
from llmdirect.model.token_reader import TokenWords, pad_rows, pool_passages, read_tokens
from llmdirect.store.lexical import check_train_texts
from llmdirect.store.store import EmbeddingStore
from llmdirect.text.lexicon import Lexicon


@dataclass(frozen=True, eq=False)
class TrainView:
    """Everything that enters a score except the parameters. R passages, U users, I items, N positives."""

    num_users: int
    num_items: int
    pooled: Tensor
    """float32 [R, D] mean token embedding of each passage; zeros where it has no tokens."""
    lengths: Tensor
    """int64 [R] number of tokens with characters."""
    passage_item: Tensor
    """int64 [R]; -1 for passages about no item, such as a user's document."""
    group: Tensor
    """int64 [R] number that same-user copies of a text share; -1 for texts without copies."""
    pair_user: Tensor
    """int64 [N] user of each positive, ordered as in the dataset."""
    pair_item: Tensor
    """int64 [N]"""
    pair_passage: Tensor
    """int64 [N] row of the pair's own passage; -1 where the passage unit is the document."""
    pair_rating: Tensor
    """float32 [N]; NaN where missing."""
    popularity: Tensor
    """float32 [I] as `Dataset.popularity` counts."""
    history: Slots
    """Positives of each user."""
    texts: Slots
    """Passages of each user that have text."""
    seen: Csr
    """U rows of items: interactions of the splits."""
    positives: Csr
    """U rows of items: positives of the splits."""
    passage_idx: NDArray[np.int64]
    """[R] row in the dataset's passages."""
    stored: NDArray[np.int64]
    """[R] passage number in the store."""
    store: EmbeddingStore
    lexicon: Lexicon = field(default_factory=Lexicon.empty)
    """Vectors of words, appended to the embeddings of their tokens."""
    words: TokenWords | None = None
    """Lexicon words of the tokens; None without a lexicon."""

    @property
    def dim(self) -> int:
        """D, of the store's embeddings plus the lexicon."""
        return self.store.dim + self.lexicon.dim

    def with_lexicon(self, lexicon: Lexicon, texts: pl.Series) -> "TrainView":
        """View with the lexicon's vectors appended to the embeddings; texts: of its passages [R]."""
        if not lexicon.dim:
            return self
        words = TokenWords.from_texts(lexicon, self.store, self.stored, texts)
        pooled = torch.cat([self.pooled, words.mean(lexicon).to(self.pooled.device)], 1)
        return replace(self, pooled=pooled, lexicon=lexicon, words=words)

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset,
        store: EmbeddingStore,
        splits: tuple[int, ...] = (0,),
        progress: Progress = SILENT,
    ) -> "TrainView":
        """View of some splits; reads their passages once and pools them.

        Parameters
        ----------
        splits
            Codes of the splits that are visible.

        Raises
        ------
        DataError
            If the store lacks a passage of the dataset, or the splits have no positive.
        MismatchError
            If the store was fitted on other train texts (`check_train_texts`).
        """
        check_train_texts(store.path, store.encoder, dataset)
        rows = dataset.interactions
        kept = np.isin(rows.split, splits)
        passages = dataset.passages
        used = np.isin(passages.split, splits) | (passages.user_idx < 0) & (passages.split == 0)
        passage_idx = np.flatnonzero(used)
        local = np.full(dataset.num_passages, -1, np.int64)
        local[passage_idx] = np.arange(len(passage_idx))
        stored = store.lookup(dataset.passage_keys(store.keyed_by)[passage_idx])
        pooled, lengths = pool_passages(store, stored, progress)

        positive = kept & rows.positive
        if not positive.any():
            raise DataError(f"{dataset.path}: no positive interaction in train; nothing to learn from")
        own = np.where(rows.passage_idx >= 0, local[rows.passage_idx], -1)
        group = dataset.duplicate_ids()[passage_idx]
        recency = recency_ranks(rows.timestamp)
        most_copies = int(np.bincount(group[group >= 0]).max()) if (group >= 0).any() else 1
        # A passage without text takes no slot and no share of the user's attention.
        written = np.flatnonzero((passages.user_idx[passage_idx] >= 0) & (lengths.numpy() > 0))
        text_recency = np.zeros(len(passage_idx))
        text_recency[own[kept][own[kept] >= 0]] = recency[kept][own[kept] >= 0]
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
            history=Slots.from_entries(
                rows.user_idx[positive],
                rows.item_idx[positive],
                own[positive],
                recency[positive],
                dataset.num_users,
                HISTORY + 1,
            ),
            texts=Slots.from_entries(
                passages.user_idx[passage_idx][written],
                written,
                written,
                text_recency[written],
                dataset.num_users,
                HISTORY + most_copies,
            ),
            seen=seen,
            positives=dataset.csr(splits),
            passage_idx=passage_idx,
            stored=stored,
            store=store,
        )

    def hide_positives(self, table: Tensor, users: Tensor) -> Tensor:
        """Scores [B, I] with -inf at every positive of the row's user."""
        row, position = entries_of(self._positive_indptr, users)
        return table.index_put((row, self._positive_items[position]), table.new_tensor(-torch.inf))

    @cached_property
    def copied(self) -> Tensor:
        """bool [R] whether the same user posted the text elsewhere, too."""
        grouped = self.group >= 0
        sizes = torch.bincount(self.group[grouped], minlength=1)
        return grouped & (sizes[self.group.clamp(min=0)] > 1)

    @cached_property
    def unique_text_pairs(self) -> Tensor:
        """int64 [n] pairs whose text its user posted nowhere else; all pairs where there are none.

        Held-out pairs are of this kind, since copies of a text stay in train together.
        """
        copied = torch.zeros_like(self.pair_passage, dtype=torch.bool)
        written = self.pair_passage >= 0
        copied[written] = self.copied[self.pair_passage[written]]
        return (~copied | copied.all()).nonzero()[:, 0]

    @cached_property
    def _positive_indptr(self) -> Tensor:
        """int64 [U + 1]"""
        return torch.tensor(self.positives.indptr, device=self.pooled.device)

    @cached_property
    def _positive_items(self) -> Tensor:
        """int64 [N]"""
        return torch.tensor(self.positives.indices, device=self.pooled.device).long()

    @cached_property
    def positive_counts(self) -> Tensor:
        """int64 [U] number of positives of each user."""
        return self._positive_indptr.diff()

    @cached_property
    def recent(self) -> Csr:
        """U rows of items: the newest positives of each user, at most HISTORY."""
        counts = self.history.indptr.diff()
        users = torch.repeat_interleave(torch.arange(self.num_users, device=counts.device), counts)
        position = torch.arange(len(users), device=counts.device) - self.history.indptr[users]
        kept = position < HISTORY
        return Csr.from_pairs(users[kept].cpu(), self.history.entries[kept].cpu(), self.num_users)

    def to(self, device: torch.device) -> "TrainView":
        """View with its tensors on a device; token embeddings stay in the store."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor | Slots) and name in self.__dataclass_fields__
        }
        return replace(self, **moved)

    def tokens(self, passages: Tensor) -> tuple[Tensor, Tensor]:
        """Token embeddings float32 [B, T, D] of passages [B], padded with zeros, and bool mask [B, T].

        Tokens without characters (special tokens) are left out: no word could explain them.
        """
        return pad_rows(*self.flat_tokens(passages.cpu().numpy()))

    def flat_tokens(self, passages: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """Token embeddings float32 [T, D] of passages [B], concatenated, and their lengths [B]."""
        flat, lengths = read_tokens(self.store, self.stored[passages])
        if self.words is not None:
            flat = torch.cat([flat, self.lexicon.token_vectors(*self.words.rows(passages))], 1)
        return flat, lengths
