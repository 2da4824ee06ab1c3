"""Metrics of predicted ratings."""

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.arrays import ArrayOrTensor, float_array


def rating_metrics(
    predicted: ArrayOrTensor, actual: ArrayOrTensor, threshold: float = 4.0
) -> dict[str, float]:
    """mse, rmse, mae, auc, accuracy and f1 of predicted ratings [n] against the actual ones [n].

    A rating is liked if it is at least `threshold`. auc: the share of (liked, not liked) pairs by actual
    rating in which the liked one is predicted higher, ties half; NaN without such a pair. accuracy: the
    share of predictions on the right side of the threshold. f1: harmonic mean of precision and recall of
    "liked", 2 TP / (2 TP + FP + FN); NaN where nothing is liked or predicted to be.

    Raises ValueError if the lengths differ, there are no ratings, or one is not finite.
    """
    predictions = float_array("predicted", predicted, 1).astype(np.float64)
    ratings = float_array("actual", actual, 1).astype(np.float64)
    if predictions.shape != ratings.shape:
        raise ValueError(f"{len(predictions)} predicted ratings, but {len(ratings)} actual ones")
    if not len(ratings):
        raise ValueError("there are no ratings to measure")
    for name, values in (("predicted", predictions), ("actual", ratings)):
        if not np.isfinite(values).all():
            position = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{name}[{position}] is {values[position]}")
    error = predictions - ratings
    liked, predicted_liked = ratings >= threshold, predictions >= threshold
    hits = np.count_nonzero(liked & predicted_liked)
    named = np.count_nonzero(liked) + np.count_nonzero(predicted_liked)
    mse = float(np.mean(error**2))
    return {
        "mse": mse,
        "rmse": mse**0.5,
        "mae": float(np.mean(np.abs(error))),
        "auc": _auc(predictions[liked], predictions[~liked]),
        "accuracy": float(np.mean(liked == predicted_liked)),
        "f1": float(2 * hits / named) if named else float("nan"),
    }


def _auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    pairs = len(positive) * len(negative)
    if not pairs:
        return float("nan")
    negative = np.sort(negative)
    below = np.searchsorted(negative, positive, side="left").sum()
    not_above = np.searchsorted(negative, positive, side="right").sum()
    return float(below + not_above) / (2 * pairs)
