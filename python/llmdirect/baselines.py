"""What a user could have in a few lines: popularity and EASE, fitted on train alone."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from llmdirect.csr import Csr
from llmdirect.dataset import TRAIN, Dataset
from llmdirect.ranking import Scorer

EASE_RIDGES = (5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 2000)
"""Regularisations among which validation chooses."""


def popularity(dataset: Dataset) -> Scorer:
    """Ranks by the number of train positives; equal numbers by item index."""
    counts = _counts(dataset.csr(TRAIN), dataset.num_items)
    return Scorer(
        query=np.zeros((dataset.num_users, 0)), item=np.zeros((dataset.num_items, 0)), item_bias=counts
    )


def ease(dataset: Dataset, ridge: float) -> Scorer:
    """EASE (Steck 2019): B = -P / diag(P) with P = (XᵀX + ridge·1)⁻¹, zero diagonal; score = X B.

    Memory: I * I float64. Raises ValueError for a ridge of 0 or below.
    """
    return next(ease_path(dataset, [ridge]))


def ease_path(dataset: Dataset, ridges: list[float]) -> Iterator[Scorer]:
    """EASE at each ridge, from one Gram matrix."""
    if not all(ridge > 0 for ridge in ridges):
        raise ValueError(f"ridges {ridges}: each must be above 0")
    history = dataset.csr(TRAIN)
    num_items = dataset.num_items
    rows = _dense(history, num_items)
    gram = rows.T @ rows
    for ridge in ridges:
        inverse = np.linalg.inv(gram + ridge * np.eye(num_items))
        table = -inverse / np.diag(inverse)
        np.fill_diagonal(table, 0.0)
        # As user vectors x_u and item vectors B[:, i]: the product is the same as over sparse histories.
        yield Scorer(query=rows, item=np.ascontiguousarray(table.T))


def _counts(positives: Csr, num_items: int) -> NDArray[np.int64]:
    return np.bincount(positives.indices, minlength=num_items)


def _dense(positives: Csr, num_items: int) -> NDArray[np.float64]:
    rows = np.zeros((positives.num_rows, num_items))
    users = np.repeat(np.arange(positives.num_rows), np.diff(positives.indptr))
    rows[users, positives.indices] = 1.0
    return rows
