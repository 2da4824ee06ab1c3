"""Entries of rows of different lengths as flat tensors."""

import torch
from torch import Tensor


def entries_of(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Flat positions of the entries of selected rows.

    Parameters
    ----------
    indptr
        int64 [num_rows + 1], offsets of the rows.
    rows
        int64 [B], selected rows, in any order, repeated or not.

    Returns
    -------
    row
        int64 [E], position in `rows` of the row of each entry.
    position
        int64 [E], position of each entry in the flat array that `indptr` divides.
    """
    counts = indptr[rows + 1] - indptr[rows]
    row = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    shift = torch.repeat_interleave(counts.cumsum(0) - counts - indptr[rows], counts)
    return row, torch.arange(len(row), device=rows.device) - shift
