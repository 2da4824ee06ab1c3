"""Eigenvectors that are the same on every processor: one sign, and one basis where eigenvalues repeat.

An eigenvector is known up to its sign, and those of an eigenvalue that repeats (a null space, above all) up
to a rotation. Which of them LAPACK returns is told by rounding, so by the order in which a processor sums.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

ROUNDING = 1e-9
"""Relative to the size of what it was computed from, a float64 difference that may be rounding alone."""

_ITERATIONS = 9
"""Products with the matrix before the leading eigenvectors are read off."""


def eigenvectors(matrix: Tensor, size: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues float64 [n] of a symmetric matrix, the largest first, and canonical eigenvectors [n, n].

    matrix: float64 [n, n]. size: as in `canonical`.
    """
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0), canonical(values.flip(0), vectors.flip(1), size)


def leading_eigenvectors(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues float64 [k], and canonical eigenvectors [n, k], with k = min(count, n).

    matrix: float64 [n, n], symmetric and positive semi-definite. Of a large one by subspace iteration from
    fixed random directions (Halko et al. 2011), so that close eigenvalues are approximate.
    """
    if count >= len(matrix):
        return eigenvectors(matrix, matrix.trace())
    basis = _directions(len(matrix), count)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ basis)[0]
    values, within = torch.linalg.eigh(basis.T @ matrix @ basis)
    return values.flip(0), canonical(values.flip(0), basis @ within.flip(1), matrix.trace())


def canonical(values: Tensor, vectors: Tensor, size: Tensor | None = None) -> Tensor:
    """Of all orthonormal eigenvectors, those nearest to fixed random directions: float64 [n, k].

    values: float64 [k] in descending order. vectors: float64 [n, k], orthonormal eigenvectors.
    size: scale of what the matrix was summed from, where that may have cancelled; else the largest absolute
    eigenvalue. Neighbours that differ by no more than `ROUNDING` of it count as one eigenvalue.

    For each eigenspace V and as many directions A the basis is V times the orthogonal factor of VᵀA
    (orthogonal Procrustes), which is the same for every basis V and moves little where V does. Of a single
    vector it is the sign for which v·a is positive.
    """
    if not len(values):
        return vectors
    fixed = _directions(*vectors.shape)
    found = torch.where((vectors * fixed).sum(0) < 0, -vectors, vectors)
    size = values.abs().max() if size is None else size
    apart = values[:-1] - values[1:] > ROUNDING * size
    borders = [0, *(apart.nonzero()[:, 0] + 1).tolist(), len(values)]
    for start, stop in pairwise(borders):
        if stop - start > 1:
            space = vectors[:, start:stop]
            left, _, right = torch.linalg.svd(space.T @ fixed[:, start:stop])
            found[:, start:stop] = space @ (left @ right)
    return found


def first_largest(values: Tensor) -> Tensor:
    """int64 [n]: place of the largest in each row of float64 [n, k], numbers of size 1.

    Of those that rounding alone may part from it, the first.
    """
    return (values >= values.amax(1, keepdim=True) - ROUNDING).int().argmax(1)


def _directions(rows: int, columns: int) -> Tensor:
    """float64 [rows, columns], uniform between -1/2 and 1/2: a generator's bits, the same anywhere."""
    bits = np.random.PCG64(0).random_raw(columns * rows)
    return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53 - 0.5).view(columns, rows).T
