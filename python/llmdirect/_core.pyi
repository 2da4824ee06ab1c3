"""Types and documentation of the Rust extension; `stubtest` checks them against the built module.

Indices are copied before they are checked, so that another thread may write to them meanwhile; other arrays
are shared, and a write during a call makes its result meaningless. A panic raises InternalError.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AliasTable",
    "CheckedCsr",
    "Published",
    "Store",
    "__version__",
    "_panic",
    "consolidate_shards",
    "count_words",
    "counted_words",
    "hash_strings",
    "list_metric_names",
    "list_metrics",
    "num_threads",
    "passage_keys",
    "rank",
    "sample_negatives",
    "set_num_threads",
    "word_spans",
    "write_store_files",
]

__version__: str

def num_threads() -> int:
    """Number of threads of a parallel operation."""

def _panic(message: str) -> None:
    """Panic, so that tests see what a defect of the extension raises: InternalError."""

def set_num_threads(count: int) -> None:
    """Set the number of threads, 1 to 256; results do not depend on it.

    Raises
    ------
    ValueError
        If the number is out of range.
    """

def passage_keys(texts: list[str]) -> NDArray[np.uint8]:
    """Content hash of each text: uint8 [n, 16]."""

def hash_strings(texts: list[str], seed: int = 0) -> NDArray[np.uint64]:
    """Seeded 64-bit hash of each string: uint64 [n]."""

def word_spans(text: str) -> NDArray[np.int64]:
    """Spans of the words, runs of symbols and runs of white space, which together cover a text.

    Returns
    -------
    ndarray
        int64 [n, 2], half-open ranges of characters.

    Raises
    ------
    UnicodeEncodeError
        If the text holds a lone surrogate.
    """

def counted_words(text: str) -> tuple[list[str], NDArray[np.int64]]:
    """Counted words of a text in lower case, and their spans.

    Returns
    -------
    words
        [n]
    spans
        int64 [n, 2], half-open ranges of characters.

    Raises
    ------
    UnicodeEncodeError
        If the text holds a lone surrogate.
    """

def count_words(
    texts: list[str],
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count the words of texts in parallel: a CSR matrix of texts and words.

    Returns
    -------
    vocabulary
        [V] words, sorted.
    indptr
        int64 [n + 1] row pointers.
    words
        int64 [nnz] columns, ascending in each row.
    counts
        int64 [nnz] occurrences.

    Raises
    ------
    UnicodeEncodeError
        If a text holds a lone surrogate.
    """

@final
class CheckedCsr:
    """CSR table of sorted unique indices, validated and immutable.

    Parameters
    ----------
    indptr
        int64 [rows + 1] row pointers, from 0 to nnz.
    indices
        int32 [nnz] non-negative, ascending in each row.

    Raises
    ------
    ValueError
        If the arrays are not of that form.
    """

    def __new__(cls, indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> CheckedCsr: ...
    @property
    def indptr(self) -> NDArray[np.int64]:
        """int64 [rows + 1] row pointers, read-only."""

    @property
    def indices(self) -> NDArray[np.int32]:
        """int32 [nnz] indices of all rows, read-only."""

@final
class AliasTable:
    """Alias table for sampling items in proportion to weights; immutable.

    Parameters
    ----------
    weights
        float32 [items] non-negative, not all zero.
    """

    def __new__(cls, weights: NDArray[np.float32]) -> AliasTable: ...

def sample_negatives(
    users: NDArray[np.int32],
    positives: CheckedCsr,
    num_items: int,
    num_negatives: int,
    *,
    weights: AliasTable | None = None,
    seed: int,
    draw: int,
) -> NDArray[np.int32]:
    """Sample negatives of each user, none of them among its positives.

    The same seed and draw give the same negatives on any number of threads.

    Parameters
    ----------
    users
        int32 [B] row of each user in `positives`.
    positives
        Positives of all users.
    num_items
        Number of items.
    num_negatives
        Negatives of each user, 0 to 1,048,576.
    weights
        Sampling weights of the items; uniform by default.
    seed, draw
        Seed and number of the draw.

    Returns
    -------
    ndarray
        int32 [B, num_negatives].
    """

def rank(
    users: NDArray[np.int32],
    k: int,
    query: NDArray[np.float32],
    item: NDArray[np.float32],
    item_bias: NDArray[np.float32],
    *,
    item_mass: NDArray[np.float32] | None = None,
    eps: float = 0.0,
    user_bias: NDArray[np.float32] | None = None,
    history: CheckedCsr | None = None,
    item_item: CheckedCsr | None = None,
    item_item_values: NDArray[np.float32] | None = None,
    seen: CheckedCsr | None = None,
    relevant: CheckedCsr | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64] | None]:
    """Rank all candidates of users by score; ties go to the smaller item index.

    Parameters
    ----------
    users
        int32 [B] row of each user in `query`, `user_bias` and the tables.
    k
        Length of the lists.
    query
        float32 [users, D].
    item
        float32 [items, D].
    item_bias
        float32 [items].
    item_mass, eps
        float32 [items, M] mentions and the constant added to the denominator, for the ratio form.
    user_bias
        float32 [users].
    history, item_item, item_item_values
        Items of each user, item-item matrix, and its values float32 [nnz].
    seen
        Items of each user that are not ranked.
    relevant
        Relevant items of each user, for the AUC.

    Returns
    -------
    items
        int32 [B, k], -1 where there are fewer candidates.
    scores
        float32 [B, k].
    auc
        float64 [B]; None without `relevant`.
    """

def list_metrics(
    lists: NDArray[np.int32], relevant: CheckedCsr, names: list[tuple[str, int]]
) -> NDArray[np.float64]:
    """Metrics of ranked lists.

    Parameters
    ----------
    lists
        int32 [B, k] items, -1 for none.
    relevant
        Relevant items of each list.
    names
        Name and cutoff of each metric.

    Returns
    -------
    ndarray
        float64 [B, metrics].
    """

def list_metric_names() -> list[str]:
    """Names of the metrics with a cutoff."""

def write_store_files(
    folder: str | PathLike[str], arrays: Sequence[tuple[str, NDArray[Any]]]
) -> dict[str, dict[str, Any]]:
    """Write C-contiguous arrays to `folder/<name>-<content hash>.npy`, synced, and a file of checksums.

    Returns
    -------
    dict
        Manifest entry of each file.
    """

def consolidate_shards(
    shards: Sequence[PathLike[str]],
    out: str | PathLike[str],
    progress: Callable[[int], object],
    kept: Sequence[NDArray[np.bool_] | None] | None = None,
) -> dict[str, Any]:
    """Concatenate shards into the data files of a store.

    Parameters
    ----------
    shards
        Folders of the shards.
    out
        Folder of the store.
    progress
        Called with numbers of bytes.
    kept
        bool [P] passages of each shard to keep; None for all.

    Returns
    -------
    dict
        Manifest without encoder and source.

    Raises
    ------
    DataError
        If a shard is damaged.
    """

@final
class Published:
    """Folder of one `.npy` file per document, the format of the published code."""

    @staticmethod
    def open(folder: str | PathLike[str]) -> Published:
        """Open a folder and check the numbers of its files."""

    @property
    def bytes(self) -> int:
        """Data bytes of all files."""

    def documents(self, side: str) -> int:
        """Number of documents of a side, "user" or "item"."""

    def write_padded(
        self, out: str | PathLike[str], progress: Callable[[int], object]
    ) -> list[tuple[str, list[int], str]]:
        """Write one padded array per subfolder; name, shape and dtype of each."""

    def write_store(
        self, out: str | PathLike[str], dtype: str, progress: Callable[[int], object]
    ) -> dict[str, Any]:
        """Write the data files of a store; its manifest without encoder and source."""

@final
class Store:
    """Opened store, kept alive by every view of its data."""

    @staticmethod
    def open(path: str | PathLike[str], ram: bool, verify: bool) -> Store:
        """Open a store; `ram` reads it into memory, `verify` compares all data with the checksums.

        Raises
        ------
        DataError
            If a file is missing or damaged.
        """

    @property
    def manifest(self) -> str:
        """Text of the manifest when the store was opened."""

    def data(self, name: str, writable: bool) -> NDArray[np.uint8]:
        """Data of a file as a flat uint8 view without a copy; empty for a file that the store lacks.

        Only `tokens` can be writable, and what is written does not reach the file. The memory of the other
        files cannot be written to.
        """

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Passage of each key, uint8 [n, 16] to int64 [n]; -1 for a missing key."""

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """As `find`. DataError where a key is missing."""

    def gather(
        self,
        passages: NDArray[np.int64],
        out: NDArray[np.uint8] | NDArray[np.float32],
        padded_to: int | None,
    ) -> NDArray[np.int64]:
        """Copy the rows of passages into a flat buffer.

        Parameters
        ----------
        passages
            int64 [n] indices of passages.
        out
            Flat buffer: bytes of the type of the store, or float32.
        padded_to
            Rows of each passage, padded with zeros; None concatenates them.

        Returns
        -------
        ndarray
            int64 [n + 1] row offsets without padding.
        """
