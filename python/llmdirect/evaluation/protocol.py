"""Evaluation protocol of held-out splits, the same for every model."""

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.data.dataset import SPLIT_NAMES, TRAIN, Dataset
from llmdirect.ranking.metrics import evaluate
from llmdirect.ranking.rating_metrics import liked_from, rating_metrics
from llmdirect.ranking.scorer import ScoreTables


def seen_items(dataset: Dataset, split: int) -> Csr:
    """Items hidden at ranking: U rows of the interactions of all earlier splits.

    Validation hides train; test hides train and validation.
    """
    seen = dataset.csr(tuple(range(split)), positive_only=False)
    return seen if dataset.extra_seen is None else seen.union(dataset.extra_seen)


def held_out_users(dataset: Dataset, split: int) -> NDArray[np.int32]:
    """Users with a positive in the split: ascending indices [n].

    Raises
    ------
    DataError
        If there are none.
    """
    users = np.flatnonzero(np.diff(dataset.csr(split).indptr)).astype(np.int32)
    if not len(users):
        raise DataError(
            f"{dataset.path}: no positive in {SPLIT_NAMES[split]}, so there is nothing to measure"
        )
    return users


def evaluate_split(
    tables: ScoreTables, dataset: Dataset, split: int, names: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Ranking metrics of each held-out user of a split, over the full catalogue.

    Parameters
    ----------
    names
        Names of metrics, such as "ndcg@10".

    Returns
    -------
    float64 [n] for each name, in the order of `held_out_users`.

    Raises
    ------
    DataError
        If no user has a positive in the split.
    """
    return evaluate(
        tables,
        held_out_users(dataset, split),
        names=names,
        seen=seen_items(dataset, split),
        relevant=dataset.csr(split),
    )


def evaluate_ratings(
    tables: ScoreTables, dataset: Dataset, split: int, liked: float | None = None
) -> dict[str, float]:
    """Rating metrics of a split: mse, rmse, mae, auc, accuracy and f1.

    Where all ratings of the split are liked, or none is, auc, accuracy and f1 say nothing and are NaN.

    Parameters
    ----------
    liked
        Smallest rating that counts as liked; by default by the scale of the ratings in train (`liked_from`).

    Raises
    ------
    DataError
        If the split has no ratings.
    """
    rows = dataset.interactions
    threshold = liked_from(np.asarray(rows.rating)[rows.split == TRAIN]) if liked is None else liked
    predicted, actual = _predicted_and_actual(tables, dataset, split)
    values = rating_metrics(predicted, actual, threshold)
    is_liked = actual >= threshold
    if is_liked.all() or not is_liked.any():
        values |= dict.fromkeys(("auc", "accuracy", "f1"), float("nan"))
    return values


def squared_errors(tables: ScoreTables, dataset: Dataset, split: int) -> NDArray[np.float64]:
    """Squared error of each rating of a split: float64 [n].

    Raises
    ------
    DataError
        If the split has no ratings.
    """
    predicted, actual = _predicted_and_actual(tables, dataset, split)
    return np.square(predicted.astype(np.float64) - actual)


def _predicted_and_actual(
    tables: ScoreTables, dataset: Dataset, split: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Predicted and actual ratings of the split, [n] each."""
    rows = dataset.interactions
    rated = (rows.split == split) & ~np.isnan(rows.rating)
    if not rated.any():
        raise DataError(f"{dataset.path}: no rating in {SPLIT_NAMES[split]}, so there is nothing to measure")
    return tables.score_pairs(rows.user_idx[rated], rows.item_idx[rated]), rows.rating[rated]
