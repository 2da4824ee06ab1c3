"""Which texts are copies of each other: same words after case and white space are levelled."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import passage_keys

_CHUNK = 65_536  # normalised texts alive at once


def normalise(text: str) -> str:
    """Case folded, every run of white space one blank, none at the ends."""
    return " ".join(text.casefold().split())


def text_ids(texts: Iterable[str]) -> NDArray[np.int64]:
    """Numbers the normalised texts: int64 [n], equal exactly for copies; -1 for a text without words."""
    keys: list[NDArray[np.uint8]] = []
    chunk: list[str] = []
    empty: list[bool] = []

    def flush() -> None:
        keys.append(passage_keys(chunk))
        chunk.clear()

    for text in texts:
        words = normalise(text)
        chunk.append(words)
        empty.append(not words)
        if len(chunk) == _CHUNK:
            flush()
    flush()
    halves = np.concatenate(keys).view(np.uint64)
    ids = _number_rows(halves[:, 0], halves[:, 1])
    ids[np.array(empty, dtype=np.bool_)] = -1
    return ids


def pair_ids(owner: NDArray[np.int32], text_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers the distinct (owner, text) pairs: int64 [n]; -1 where either of the two is negative."""
    ids = _number_rows(owner, text_id)
    ids[(owner < 0) | (text_id < 0)] = -1
    return ids


def copy_groups(*pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Joins rows that share a number in any of the given columns, and whatever those share in turn.

    Each column is int64 [n], -1 for "shares with nobody". Returns int64 [n]: the smallest row of the group.
    """
    parent = np.arange(len(pairs[0]), dtype=np.int64)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    touched: set[int] = set()
    for column in pairs:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0))
        for first, second in zip(order[same].tolist(), order[same + 1].tolist(), strict=True):
            low, high = sorted((root(first), root(second)))
            parent[high] = low
            touched.update((first, second))
    for row in touched:
        parent[row] = root(row)
    return parent


def _number_rows(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """Dense numbers of the distinct rows of a table given by columns: int64 [n]."""
    order = np.lexsort(columns)
    fresh = np.zeros(len(order), dtype=np.bool_)
    for column in columns:
        ordered = column[order]
        fresh[1:] |= ordered[1:] != ordered[:-1]
    ids = np.empty(len(order), dtype=np.int64)
    ids[order] = np.cumsum(fresh)
    return ids
