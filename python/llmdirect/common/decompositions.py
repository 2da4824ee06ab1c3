"""Eigenvectors that do not depend on the processor.

An eigenvector is determined up to its sign, and those of a repeated eigenvalue (above all, of a null space)
up to a rotation. Which ones LAPACK returns depends on rounding, thus on the order in which a processor sums.
The functions here choose one sign, and one basis of the eigenspace of a repeated eigenvalue.
"""

import torch
from torch import Tensor

from llmdirect.common.canonical import ROUNDING, canonical_basis, directions

_ITERATIONS = 9
"""Number of subspace iterations."""


def eigenvectors(matrix: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Eigendecomposition of a symmetric matrix with canonical eigenvectors.

    Parameters
    ----------
    matrix
        float64 [n, n], symmetric.
    scale
        As in `canonical_basis`.

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
    basis = torch.from_numpy(directions(len(matrix), count))
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ basis)[0]
    values, within = torch.linalg.eigh(basis.T @ matrix @ basis)
    return values.flip(0), canonical_eigenvectors(values.flip(0), basis @ within.flip(1), matrix.trace())


def canonical_eigenvectors(values: Tensor, vectors: Tensor, scale: Tensor | None = None) -> Tensor:
    """`canonical_basis` of tensors: float64 [k] eigenvalues and [n, k] eigenvectors in the columns."""
    basis = canonical_basis(values.numpy(), vectors.numpy(), None if scale is None else float(scale))
    return torch.from_numpy(basis)


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
