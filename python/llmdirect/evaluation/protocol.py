"""Held-out figures: which users, which candidates, which metrics. One protocol for every model."""

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.data.dataset import SPLIT_NAMES, Dataset
from llmdirect.ranking.metrics import evaluate
from llmdirect.ranking.rating_metrics import rating_metrics
from llmdirect.ranking.scorer import ScoreTables


def seen_before(dataset: Dataset, split: int) -> Csr:
    """What is hidden at ranking: validation hides train, test hides train and validation."""
    seen = dataset.csr(tuple(range(split)), positive_only=False)
    return seen if dataset.extra_seen is None else seen.union(dataset.extra_seen)


def held_out_users(dataset: Dataset, split: int) -> NDArray[np.int32]:
    """Users with a positive in the split. DataError where there are none."""
    users = np.flatnonzero(np.diff(dataset.csr(split).indptr)).astype(np.int32)
    if not len(users):
        raise DataError(
            f"{dataset.path}: no positive in {SPLIT_NAMES[split]}, so there is nothing to measure"
        )
    return users


def by_user(
    tables: ScoreTables, dataset: Dataset, split: int, names: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Each metric for every user with a positive in the split, over the full catalogue."""
    return evaluate(
        tables,
        held_out_users(dataset, split),
        names=names,
        seen=seen_before(dataset, split),
        relevant=dataset.csr(split),
    )


def rating_means(tables: ScoreTables, dataset: Dataset, split: int) -> dict[str, float]:
    """mse, rmse, mae, auc, accuracy and f1 of the split's ratings; DataError where there are none.

    A figure that is not defined there (no rating below 4, say) is left out.
    """
    means = rating_metrics(*_predicted(tables, dataset, split))
    return {name: value for name, value in means.items() if not np.isnan(value)}


def squared_errors(tables: ScoreTables, dataset: Dataset, split: int) -> NDArray[np.float64]:
    """That of each rating of the split; DataError where there are none."""
    predicted, actual = _predicted(tables, dataset, split)
    return np.square(predicted.astype(np.float64) - actual)


def _predicted(
    tables: ScoreTables, dataset: Dataset, split: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Predicted and actual ratings of the split."""
    rows = dataset.interactions
    rated = (rows.split == split) & ~np.isnan(rows.rating)
    if not rated.any():
        raise DataError(f"{dataset.path}: no rating in {SPLIT_NAMES[split]}, so there is nothing to measure")
    return tables.score_pairs(rows.user_idx[rated], rows.item_idx[rated]), rows.rating[rated]
