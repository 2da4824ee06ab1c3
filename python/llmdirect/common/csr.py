"""Sets of items by row: positives, seen items, histories, relevant items."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.arrays import ArrayOrTensor, border_array, index_array


@dataclass(frozen=True, eq=False)
class Csr:
    """Compressed sparse rows; the indices of a row are sorted and unique.

    Checked once, then immutable: both arrays are read-only views of memory that the extension owns.
    Raises ValueError that names the first row at fault.
    """

    indptr: NDArray[np.int64]
    """[rows + 1] row borders, from 0 to the number of indices."""
    indices: NDArray[np.int32]
    """[nnz] the indices of all rows, one row after the other."""
    checked: _core.CheckedCsr = field(init=False, repr=False)
    """The same table for functions of the extension."""

    def __post_init__(self) -> None:
        checked = _core.CheckedCsr(border_array("indptr", self.indptr), index_array("indices", self.indices))
        object.__setattr__(self, "checked", checked)
        object.__setattr__(self, "indptr", checked.indptr)
        object.__setattr__(self, "indices", checked.indices)

    @classmethod
    def from_pairs(cls, rows: ArrayOrTensor, cols: ArrayOrTensor, num_rows: int) -> "Csr":
        """The table of the pairs `(rows[n], cols[n])`, in any order; a pair given twice counts once.

        Raises ValueError for a row outside 0 to num_rows - 1 and for a negative column.
        """
        rows, cols = index_array("rows", rows), index_array("cols", cols)
        if rows.shape != cols.shape:
            raise ValueError(f"rows and cols differ in length: {len(rows)} and {len(cols)}")
        for name, values, outside, limits in (
            ("rows", rows, (rows < 0) | (rows >= num_rows), f"outside 0 to {num_rows - 1}"),
            ("cols", cols, cols < 0, "below 0"),
        ):
            if outside.any():
                position = int(outside.argmax())
                raise ValueError(f"{name}[{position}] is {values[position]}, {limits}")
        pairs = np.unique(_pairs(rows, cols))
        counts = np.bincount(pairs >> 32, minlength=num_rows)
        return cls(_borders(counts), (pairs & 0x7FFF_FFFF).astype(np.int32))

    @property
    def num_rows(self) -> int:
        """Number of rows, empty ones included."""
        return len(self.indptr) - 1

    def row(self, row: int) -> NDArray[np.int32]:
        """The sorted indices of one row, without a copy. IndexError for a row that does not exist."""
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of {self.num_rows}")
        return self.indices[self.indptr[row] : self.indptr[row + 1]]

    def rows(self, subset: ArrayOrTensor) -> "Csr":
        """The table of these rows in this order. IndexError for a row that does not exist."""
        subset = index_array("subset", subset)
        if subset.size and not (subset.min() >= 0 and subset.max() < self.num_rows):
            raise IndexError(f"rows {subset.min()} to {subset.max()} of {self.num_rows}")
        counts = np.diff(self.indptr)[subset]
        indptr = _borders(counts)
        moved = np.repeat(self.indptr[subset] - indptr[:-1], counts)
        return Csr(indptr, self.indices[moved + np.arange(len(moved))])

    def columns(self, subset: ArrayOrTensor) -> "Csr":
        """The entries in these columns, which are numbered anew from 0. ValueError unless they ascend."""
        subset = index_array("subset", subset)
        if not len(subset) or (np.diff(subset) <= 0).any():
            raise ValueError("subset: expected ascending columns, at least one")
        place = np.searchsorted(subset, self.indices).clip(max=len(subset) - 1)
        stays = subset[place] == self.indices
        return Csr(_borders(stays)[self.indptr], place[stays].astype(np.int32))

    def without(self, other: "Csr") -> "Csr":
        """The entries that `other`, a table of as many rows, does not have."""
        if other.num_rows != self.num_rows:
            raise ValueError(f"tables of {self.num_rows} and {other.num_rows} rows")
        stays = ~np.isin(self._keys(), other._keys(), assume_unique=True)
        return Csr(_borders(stays)[self.indptr], self.indices[stays])

    def union(self, other: "Csr") -> "Csr":
        """The entries of this table and of `other`, a table of as many rows."""
        if other.num_rows != self.num_rows:
            raise ValueError(f"tables of {self.num_rows} and {other.num_rows} rows")
        keys = np.concatenate([self._keys(), other._keys()])
        return Csr.from_pairs(keys >> 32, keys & 0x7FFF_FFFF, self.num_rows)

    def _keys(self) -> NDArray[np.int64]:
        return _pairs(np.repeat(np.arange(self.num_rows), np.diff(self.indptr)), self.indices)

    def __reduce__(self) -> tuple[Callable[..., "Csr"], tuple[Any, ...]]:
        return Csr, (np.asarray(self.indptr), np.asarray(self.indices))


def _pairs(rows: NDArray[np.integer], cols: NDArray[np.int32]) -> NDArray[np.int64]:
    """One number a pair, in the order of rows, then columns."""
    return rows.astype(np.int64) << 32 | cols


def _borders(counts: NDArray[np.integer | np.bool]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
