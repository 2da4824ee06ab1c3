"""One-to-one matching of learned aspects to reference topics."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_MATCHED: Final = 12
"""Columns that `match` takes: it visits all subsets of them."""


def match(gains: NDArray[np.float64]) -> dict[int, int]:
    """The one-to-one matching of rows and columns with the largest sum of gains: column -> row.

    gains: [K, A], none negative. Exact: best[mask], the best sum with the columns in `mask` taken, is
    carried from row to row. Pairs without gain are left out.
    Raises ValueError for more than 12 columns, whose subsets are too many.
    """
    num_rows, num_columns = gains.shape
    if num_columns > MOST_MATCHED:
        raise ValueError(f"{num_columns} columns to match, at most {MOST_MATCHED}")
    best = np.full(1 << num_columns, -np.inf)
    best[0] = 0.0
    masks = np.arange(1 << num_columns)
    taken = np.full((num_rows, len(masks)), -1)
    for row in range(num_rows):
        previous = best.copy()
        for column in range(num_columns):
            with_column = masks[(masks >> column & 1) == 1]
            sums = previous[with_column ^ (1 << column)] + gains[row, column]
            better = sums > best[with_column]
            best[with_column[better]] = sums[better]
            taken[row, with_column[better]] = column
    mask = int(best.argmax())
    matching: dict[int, int] = {}
    for row in range(num_rows - 1, -1, -1):
        if (column := int(taken[row, mask])) >= 0:
            matching[column] = row
            mask ^= 1 << column
    return {column: row for column, row in matching.items() if gains[row, column] > 0}
