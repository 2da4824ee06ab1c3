"""Train texts of the items, with the token embeddings that the run's model reads."""

import copy
from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.csr import Csr
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.explanation.item_document import ItemText, ReadPassage
from llmdirect.runs.trained import Trained
from llmdirect.store.store import EmbeddingStore

_CACHED_ITEMS = 256
"""Documents kept as they were read: their words are the same for every user."""


class ItemTexts:
    """Documents of the items as the run's model reads them, the same for all users.

    Explainers of several users share one. All results are float64.
    """

    def __init__(self, trained: Trained, dataset: Dataset, store: EmbeddingStore) -> None:
        self.dataset, self.store, self.lexicon = dataset, store, trained.lexicon
        self.model = copy.deepcopy(trained.model).double()
        """The run's model in float64."""
        self.read = lru_cache(_CACHED_ITEMS)(self._read)
        """Document of an item word by word, from any thread; the last ones read are cached."""
        self._tables = trained.item_tables

    @cached_property
    def item_passages(self) -> Csr:
        """Rows of the dataset's train passages about each item."""
        passages = self.dataset.passages
        rows = np.flatnonzero((passages.item_idx >= 0) & (passages.split == TRAIN))
        return Csr.from_pairs(passages.item_idx[rows], rows, self.dataset.num_items)

    @cached_property
    def ratings(self) -> NDArray[np.float32]:
        """Rating of the review in each row of the passages; NaN without."""
        rows = self.dataset.interactions
        ratings = np.full(self.dataset.num_passages, np.nan, np.float32)
        has_passage = rows.passage_idx >= 0
        ratings[rows.passage_idx[has_passage]] = rows.rating[has_passage]
        return ratings

    @cached_property
    def mean_products(self) -> Callable[[Tensor], Tensor]:
        """Function of a query: mean over the items of the text term by aspect, float64 [A]."""
        tables, model = self._tables, self.model
        mentions = None if tables.item_mentions is None else torch.from_numpy(tables.item_mentions)
        return model.form.mean_products(torch.from_numpy(tables.item), mentions, model.aspects)

    def passages_of(self, item: int) -> NDArray[np.int64]:
        """Rows of the dataset's passages that make up the item's document."""
        return self.item_passages.row(item).astype(np.int64)

    def read_passages(self, rows: NDArray[np.int64]) -> list[ReadPassage]:
        """Texts and token embeddings of these rows of the dataset's passages."""
        texts = self.dataset.passages.text.gather(rows).to_list()
        stored = self.store.lookup(self._keys[rows]).tolist()
        return [
            ReadPassage(text, *self.store.read(n), is_whole=self.has_whole_texts)
            for text, n in zip(texts, stored, strict=True)
        ]

    @property
    def has_whole_texts(self) -> bool:
        """Whether vectors are of whole texts or items, not of words."""
        return self.store.keyed_by != "text"

    @cached_property
    def _keys(self) -> NDArray[np.uint8]:
        return self.dataset.passage_keys(self.store.keyed_by)

    def _read(self, item: int) -> ItemText:
        passages = self.read_passages(self.passages_of(item))
        return ItemText.from_passages(passages, self.model, self.lexicon)
