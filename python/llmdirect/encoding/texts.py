"""Distinct texts of a dataset."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.errors import DataError
from llmdirect.common.files import digest
from llmdirect.common.progress import Progress
from llmdirect.data.dataset import TRAIN, Dataset

if TYPE_CHECKING:  # torch takes seconds to import
    from llmdirect.encoding.encoders import Encoder

_TEXTS_PER_STEP = 8192


@dataclass(frozen=True, eq=False)
class Texts:
    """Distinct texts of a dataset, sorted by key."""

    keys: NDArray[np.uint8]
    """uint8 [n, 16] content hash of each text."""
    passage_idx: NDArray[np.int64]
    """int64 [n] first passage with the text."""
    in_train: NDArray[np.bool_]
    """bool [n] whether a train passage has the text."""
    texts: list[str]

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Texts":
        """Distinct texts of all passages of a dataset.

        Raises
        ------
        DataError
            If the dataset has no passages.
        """
        if not dataset.num_passages:
            raise DataError(f"{dataset.path}: has no passages to encode")
        keys = np.ascontiguousarray(dataset.passage_keys())
        # As strings of 16 bytes: padding is zero bytes, so they compare as the bytes do.
        _, first, inverse = np.unique(keys.view("S16").ravel(), return_index=True, return_inverse=True)
        in_train = np.bincount(inverse, dataset.passages.split == TRAIN) > 0
        texts = dataset.passages.text.gather(first).to_list()
        return cls(keys[first], first.astype(np.int64), in_train, texts)

    @property
    def hash(self) -> str:
        """Digest of the keys."""
        return digest(self.keys.tobytes())

    def select(self, rows: NDArray[np.signedinteger]) -> list[str]:
        """Texts of the rows, in their order."""
        return [self.texts[row] for row in rows.tolist()]

    def without(self, stored: NDArray[np.bool_]) -> "Texts":
        """Texts that are not `stored` [n]."""
        rows = np.flatnonzero(~stored)
        return Texts(self.keys[rows], self.passage_idx[rows], self.in_train[rows], self.select(rows))

    def count_tokens(self, encoder: "Encoder", progress: Progress) -> NDArray[np.int32]:
        """Number of tokens of each text: int32 [n]."""
        counts: list[int] = []
        with progress.task("count tokens", len(self.texts), "texts") as task:
            for start in range(0, len(self.texts), _TEXTS_PER_STEP):
                part = self.texts[start : start + _TEXTS_PER_STEP]
                counts += encoder.count_tokens(part)
                task.advance(len(part))
        return np.array(counts, np.int32)
