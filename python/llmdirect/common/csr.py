"""Sets of items per row: positives, seen items, histories, relevant items."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.arrays import ArrayOrTensor, integer_array


@dataclass(frozen=True, eq=False)
class Csr:
    """Compressed sparse rows without values; the indices of a row are sorted and unique.

    Validated once, then immutable: both arrays are read-only views of memory of the extension.

    Parameters
    ----------
    indptr
        int64 [num_rows + 1], offsets of the rows, from 0 to nnz.
    indices
        int32 [nnz], indices of all rows, one row after the other, none negative.

    Raises
    ------
    ValueError
        If an array is not as described; the message names the first row at fault.

    Examples
    --------
    >>> seen = Csr.from_pairs([0, 2, 0], [4, 1, 3], num_rows=3)
    >>> seen.row(0).tolist()
    [3, 4]
    """

    indptr: NDArray[np.int64]
    """int64 [num_rows + 1], offsets of the rows, from 0 to nnz."""
    indices: NDArray[np.int32]
    """int32 [nnz], indices of all rows, one row after the other."""
    checked: _core.CheckedCsr = field(init=False, repr=False)
    """The same table as the extension's functions take it."""

    def __post_init__(self) -> None:
        checked = _core.CheckedCsr(
            integer_array("indptr", self.indptr, np.int64), integer_array("indices", self.indices, np.int32)
        )
        object.__setattr__(self, "checked", checked)
        object.__setattr__(self, "indptr", checked.indptr)
        object.__setattr__(self, "indices", checked.indices)

    @classmethod
    def from_pairs(cls, rows: ArrayOrTensor, cols: ArrayOrTensor, num_rows: int) -> "Csr":
        """Table of the pairs `(rows[n], cols[n])`, in any order, duplicates merged.

        Parameters
        ----------
        rows, cols
            Integers [n].
        num_rows
            Number of rows of the table.

        Raises
        ------
        ValueError
            If a row is outside 0 to num_rows - 1, or a column is negative.
        """
        rows, cols = integer_array("rows", rows, np.int32), integer_array("cols", cols, np.int32)
        if rows.shape != cols.shape:
            raise ValueError(f"rows and cols differ in length: {len(rows)} and {len(cols)}")
        for name, values, outside, limits in (
            ("rows", rows, (rows < 0) | (rows >= num_rows), f"outside 0 to {num_rows - 1}"),
            ("cols", cols, cols < 0, "below 0"),
        ):
            if outside.any():
                position = int(outside.argmax())
                raise ValueError(f"{name}[{position}] is {values[position]}, {limits}")
        keys = np.unique(_pair_keys(rows, cols))
        counts = np.bincount(keys >> 32, minlength=num_rows)
        return cls(_offsets(counts), (keys & 0x7FFF_FFFF).astype(np.int32))

    @property
    def num_rows(self) -> int:
        """Number of rows, empty ones included."""
        return len(self.indptr) - 1

    def row(self, row: int) -> NDArray[np.int32]:
        """Sorted indices of one row, as a view.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of {self.num_rows}")
        return self.indices[self.indptr[row] : self.indptr[row + 1]]

    def rows(self, subset: ArrayOrTensor) -> "Csr":
        """Table of the rows `subset`, integers [n], in this order.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        subset = integer_array("subset", subset, np.int32)
        if subset.size and not (subset.min() >= 0 and subset.max() < self.num_rows):
            raise IndexError(f"rows {subset.min()} to {subset.max()} of {self.num_rows}")
        counts = np.diff(self.indptr)[subset]
        indptr = _offsets(counts)
        shift = np.repeat(self.indptr[subset] - indptr[:-1], counts)
        return Csr(indptr, self.indices[shift + np.arange(len(shift))])

    def columns(self, subset: ArrayOrTensor) -> "Csr":
        """Table of the columns `subset`, ascending integers [n], which are renumbered from 0.

        Raises
        ------
        ValueError
            If the columns do not ascend, or there is none.
        """
        subset = integer_array("subset", subset, np.int32)
        if not len(subset) or (np.diff(subset) <= 0).any():
            raise ValueError("subset: expected ascending columns, at least one")
        position = np.searchsorted(subset, self.indices).clip(max=len(subset) - 1)
        kept = subset[position] == self.indices
        return Csr(_offsets(kept)[self.indptr], position[kept].astype(np.int32))

    def without(self, other: "Csr") -> "Csr":
        """Entries that `other`, a table of as many rows, does not have.

        Raises
        ------
        ValueError
            If the numbers of rows differ.
        """
        self._check_num_rows(other)
        kept = ~np.isin(self._keys(), other._keys(), assume_unique=True)
        return Csr(_offsets(kept)[self.indptr], self.indices[kept])

    def union(self, other: "Csr") -> "Csr":
        """Entries of this table and of `other`, a table of as many rows.

        Raises
        ------
        ValueError
            If the numbers of rows differ.
        """
        self._check_num_rows(other)
        keys = np.concatenate([self._keys(), other._keys()])
        return Csr.from_pairs(keys >> 32, keys & 0x7FFF_FFFF, self.num_rows)

    def _check_num_rows(self, other: "Csr") -> None:
        if other.num_rows != self.num_rows:
            raise ValueError(f"tables of {self.num_rows} and {other.num_rows} rows")

    def _keys(self) -> NDArray[np.int64]:
        return _pair_keys(np.repeat(np.arange(self.num_rows), np.diff(self.indptr)), self.indices)

    def __reduce__(self) -> tuple[Callable[..., "Csr"], tuple[Any, ...]]:
        return Csr, (np.asarray(self.indptr), np.asarray(self.indices))


def _pair_keys(rows: NDArray[np.integer], cols: NDArray[np.int32]) -> NDArray[np.int64]:
    """A number for each pair, in the order of rows, then columns."""
    return rows.astype(np.int64) << 32 | cols


def _offsets(counts: NDArray[np.integer | np.bool]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
