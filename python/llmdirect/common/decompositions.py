"""Eigenvectors that do not depend on the processor.

An eigenvector is determined up to its sign, and those of a repeated eigenvalue (above all, of a null space)
up to a rotation. Which ones LAPACK returns depends on rounding, thus on the order in which a processor sums.
The functions here choose one sign, and one basis of the eigenspace of a repeated eigenvalue.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

ROUNDING = 1e-9
"""Relative tolerance of float64 results: smaller differences may be rounding alone."""

_ITERATIONS = 9
"""Number of subspace iterations."""


def eigenvectors(matrix: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Eigendecomposition of a symmetric matrix with canonical eigenvectors.

    Parameters
    ----------
    matrix
        float64 [n, n], symmetric.
    scale
        As in `canonical_eigenvectors`.

    Returns
    -------
    values
        float64 [n], eigenvalues in descending order.
    vectors
        float64 [n, n], eigenvectors in the columns.
    """
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0), canonical_eigenvectors(values.flip(0), vectors.flip(1), scale)


def leading_eigenvectors(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues of a positive semi-definite matrix, with canonical eigenvectors.

    For `count` below n by subspace iteration from fixed random directions, so that close eigenvalues are
    approximate.

    Parameters
    ----------
    matrix
        float64 [n, n], symmetric and positive semi-definite.
    count
        Number of eigenvalues.

    Returns
    -------
    values
        float64 [k], eigenvalues in descending order, k = min(count, n).
    vectors
        float64 [n, k], eigenvectors in the columns.

    References
    ----------
    Halko, N., Martinsson, P.-G., Tropp, J. A. (2011). Finding Structure with Randomness. SIAM Review 53(2).
    """
    if count >= len(matrix):
        return eigenvectors(matrix, matrix.trace())
    basis = _directions(len(matrix), count)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ basis)[0]
    values, within = torch.linalg.eigh(basis.T @ matrix @ basis)
    return values.flip(0), canonical_eigenvectors(values.flip(0), basis @ within.flip(1), matrix.trace())


def canonical_eigenvectors(values: Tensor, vectors: Tensor, scale: Tensor | None = None) -> Tensor:
    """Orthonormal eigenvectors nearest to fixed random directions.

    For an eigenspace with basis V and as many directions A, the result is V times the orthogonal factor of
    VᵀA (orthogonal Procrustes), which is the same for every basis V and changes little where V does. For a
    single vector it is the sign for which v·a is positive.

    Parameters
    ----------
    values
        float64 [k], eigenvalues in descending order.
    vectors
        float64 [n, k], orthonormal eigenvectors in the columns.
    scale
        Magnitude of the terms that the matrix was summed from, where they may have cancelled; by default the
        largest absolute eigenvalue. Eigenvalues within `ROUNDING` times the scale of each other count as one.

    Returns
    -------
    float64 [n, k], eigenvectors in the columns.

    References
    ----------
    Schönemann, P. H. (1966). A Generalized Solution of the Orthogonal Procrustes Problem. Psychometrika 31.
    """
    if not len(values):
        return vectors
    fixed = _directions(*vectors.shape)
    canonical = torch.where((vectors * fixed).sum(0) < 0, -vectors, vectors)
    scale = values.abs().max() if scale is None else scale
    distinct = values[:-1] - values[1:] > ROUNDING * scale
    offsets = [0, *(distinct.nonzero()[:, 0] + 1).tolist(), len(values)]
    for start, stop in pairwise(offsets):
        if stop - start > 1:
            space = vectors[:, start:stop]
            left, _, right = torch.linalg.svd(space.T @ fixed[:, start:stop])
            canonical[:, start:stop] = space @ (left @ right)
    return canonical


def first_largest(values: Tensor) -> Tensor:
    """Argmax of each row; the first of those that differ from the largest by rounding alone.

    Parameters
    ----------
    values
        float64 [n, k], numbers of magnitude 1.

    Returns
    -------
    int64 [n], columns.
    """
    return (values >= values.amax(1, keepdim=True) - ROUNDING).int().argmax(1)


def _directions(rows: int, columns: int) -> Tensor:
    """float64 [rows, columns], uniform between -1/2 and 1/2: a generator's bits, the same anywhere."""
    bits = np.random.PCG64(0).random_raw(columns * rows)
    return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53 - 0.5).view(columns, rows).T
