"""Rows of different lengths, one after the other, as tensors."""

import torch
from torch import Tensor


def entries_of(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of each entry of these rows [B] of a table with the borders `indptr`: which of them, and its place."""
    counts = indptr[rows + 1] - indptr[rows]
    row = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    before = torch.repeat_interleave(counts.cumsum(0) - counts - indptr[rows], counts)
    return row, torch.arange(len(row), device=rows.device) - before
