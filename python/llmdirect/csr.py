"""Sets of items per user as compressed sparse rows, the one form that sampling and ranking take."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Csr:
    """Row r holds `indices[indptr[r]:indptr[r + 1]]`: ascending, each value once.

    indptr: int64 [rows + 1]; indices: int32 [nnz].
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]

    @classmethod
    def from_pairs(cls, rows: ArrayLike, cols: ArrayLike, num_rows: int) -> "Csr":
        """Sorts (row, column) pairs in any order, and drops repeated ones.

        Raises ValueError where the two differ in length or a row is outside 0..num_rows-1.
        """
        rows = np.asarray(rows, dtype=np.int64)
        cols = np.asarray(cols, dtype=np.int64)
        if rows.shape != cols.shape or rows.ndim != 1:
            raise ValueError(
                f"rows and cols must be vectors of one length, got {rows.shape} and {cols.shape}"
            )
        if rows.size and not (rows.min() >= 0 and rows.max() < num_rows and cols.min() >= 0):
            raise ValueError(f"rows must lie in 0..{num_rows - 1} and columns must not be negative")
        width = int(cols.max()) + 1 if cols.size else 1
        cells = np.unique(rows * width + cols)
        indptr = np.zeros(num_rows + 1, dtype=np.int64)
        np.cumsum(np.bincount(cells // width, minlength=num_rows), out=indptr[1:])
        return cls(indptr, (cells % width).astype(np.int32))
