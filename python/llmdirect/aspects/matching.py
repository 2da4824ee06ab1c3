"""One-to-one matching of learned aspects to reference topics."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_COLUMNS: Final = 12
"""Most columns of `match`, which visits all subsets of them."""


def match(gains: NDArray[np.float64]) -> dict[int, int]:
    """Maximum weight matching of rows and columns, by dynamic programming over subsets of columns.

    Parameters
    ----------
    gains
        [n, m] non-negative weights.

    Returns
    -------
    matching
        Column -> row; pairs without gain are left out.

    Raises
    ------
    ValueError
        For more than 12 columns.
    """
    num_rows, num_columns = gains.shape
    if num_columns > MAX_COLUMNS:
        raise ValueError(f"{num_columns} columns to match, at most {MAX_COLUMNS}")
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
