"""Duplicate texts: the same after cleaning and normalisation of form, case and white space."""

import unicodedata
from collections.abc import Iterable
from itertools import islice

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect._core import passage_keys
from llmdirect.text.clean import clean_text, clean_texts

_CHUNK = 65_536  # normalised texts in memory at once


def normalize_text(text: str) -> str:
    """Cleaned, case-folded text of compatible characters (NFKC) with single spaces, none at the ends."""
    return _fold(clean_text(text))


def _fold(text: str) -> str:
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())  # folding may leave other forms


def text_ids(texts: Iterable[str]) -> NDArray[np.int64]:
    """Integer ids of normalised texts.

    Returns
    -------
    int64 [n], equal exactly for duplicates; -1 for a text that is empty or white space alone.
    """
    keys = [np.empty((0, 16), np.uint8)]
    is_empty: list[bool] = []
    rest = iter(texts)
    while chunk := list(islice(rest, _CHUNK)):
        folded = list(map(_fold, clean_texts(pl.Series(chunk, dtype=pl.String)).to_list()))
        keys.append(passage_keys(folded))
        is_empty += [not text for text in folded]
    halves = np.concatenate(keys).view(np.uint64)
    ids = _row_ids(halves[:, 0], halves[:, 1])
    ids[np.array(is_empty, dtype=np.bool_)] = -1
    return ids


def pair_ids(owner: NDArray[np.int32], text_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integer ids of the distinct (owner, text) pairs.

    Parameters
    ----------
    owner
        int32 [n], indices of users or of items, -1 for none.
    text_id
        int64 [n], as `text_ids` returns them.

    Returns
    -------
    int64 [n], -1 where the owner or the text is negative.
    """
    ids = _row_ids(owner, text_id)
    ids[(owner < 0) | (text_id < 0)] = -1
    return ids


def connected_groups(*ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Connected components of rows, where rows that share an id are connected.

    Parameters
    ----------
    ids
        Arrays int64 [n]; rows are connected where any of them holds the same number, -1 excepted.

    Returns
    -------
    int64 [n], smallest row of the component of each row.
    """
    parent = np.arange(len(ids[0]), dtype=np.int64)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    touched: set[int] = set()
    for column in ids:
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


def _row_ids(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """Dense ids of the distinct rows of a table given by columns: int64 [n]."""
    order = np.lexsort(columns)
    is_new = np.zeros(len(order), dtype=np.bool_)
    for column in columns:
        ordered = column[order]
        is_new[1:] |= ordered[1:] != ordered[:-1]
    ids = np.empty(len(order), dtype=np.int64)
    ids[order] = np.cumsum(is_new)
    return ids
