"""Choice of one eigenvector basis, the same on every processor, in NumPy."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9
"""Relative tolerance of float64 results: smaller differences may be rounding alone."""


def canonical_basis(
    values: NDArray[np.float64], vectors: NDArray[np.float64], scale: float | None = None
) -> NDArray[np.float64]:
    """Orthonormal eigenvectors nearest to fixed random directions.

    For an eigenspace with basis V and as many directions A, the result is V times the orthogonal factor of
    VᵀA (orthogonal Procrustes), which is the same for every basis V and changes little where V does. For a
    single vector it is the sign for which v·a is positive.

    Parameters
    ----------
    values
        [k], eigenvalues in descending order.
    vectors
        [n, k], orthonormal eigenvectors in the columns.
    scale
        Magnitude of the terms that the matrix was summed from, where they may have cancelled; by default the
        largest absolute eigenvalue. Eigenvalues within `ROUNDING` times the scale of each other count as one.

    Returns
    -------
    [n, k], eigenvectors in the columns.

    References
    ----------
    Schönemann, P. H. (1966). A Generalized Solution of the Orthogonal Procrustes Problem. Psychometrika 31.
    """
    if not len(values):
        return vectors
    fixed = directions(*vectors.shape)
    canonical = np.where((vectors * fixed).sum(0) < 0, -vectors, vectors)
    scale = float(np.abs(values).max()) if scale is None else scale
    distinct = values[:-1] - values[1:] > ROUNDING * scale
    offsets = [0, *(np.flatnonzero(distinct) + 1).tolist(), len(values)]
    for start, stop in pairwise(offsets):
        if stop - start > 1:
            space = vectors[:, start:stop]
            left, _, right = np.linalg.svd(space.T @ fixed[:, start:stop])
            canonical[:, start:stop] = space @ (left @ right)
    return canonical


def directions(rows: int, columns: int) -> NDArray[np.float64]:
    """float64 [rows, columns], uniform between -1/2 and 1/2: a generator's bits, the same anywhere."""
    bits = np.random.PCG64(0).random_raw(columns * rows)
    uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5
    return uniform.reshape(columns, rows).T
