"""Metrics of predicted ratings."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.arrays import ArrayOrTensor, float_array

FIVE_STARS_LIKED: Final = 4.0
"""Smallest liked rating on a scale to 5."""
_FIVE_STARS_DISLIKED: Final = 2.0
"""Largest disliked rating on a scale to 5."""
_LIKED_SHARE: Final = 0.75
"""Position of the smallest liked rating on another scale, from lowest to highest: that of 4 in 1 to 5."""


def liked_from(ratings: NDArray[np.floating]) -> float:
    """Smallest rating that counts as liked, by the scale that ratings [n] are on; NaN ones are ignored.

    4 on a scale that ends between 3 and 5, else three quarters of the way from the lowest to the highest:
    75 of 0 to 100, 1 of 0 and 1.
    """
    return _on_scale(ratings, FIVE_STARS_LIKED, _LIKED_SHARE)


def disliked_to(ratings: NDArray[np.floating]) -> float:
    """Largest rating that counts as disliked, the mirror image of `liked_from`: 2 of 5, 25 of 0 to 100."""
    return _on_scale(ratings, _FIVE_STARS_DISLIKED, 1 - _LIKED_SHARE)


def _on_scale(ratings: NDArray[np.floating], of_five_stars: float, share: float) -> float:
    """A rating by its position on the scale of the known ratings."""
    known = ratings[~np.isnan(ratings)].astype(np.float64)
    if not len(known):
        return of_five_stars
    low, high = float(known.min()), float(known.max())
    if low >= 0 and 3 < high <= 5:
        return of_five_stars
    return low + share * (high - low)


def rating_metrics(
    predicted: ArrayOrTensor, actual: ArrayOrTensor, threshold: float = FIVE_STARS_LIKED
) -> dict[str, float]:
    """Metrics of predicted ratings: mse, rmse, mae, auc, accuracy and f1.

    A rating is liked if it is at least `threshold`.

    - auc: share of pairs of a liked and a not liked rating (by the actual ones) in which the liked one is
      predicted higher, ties half; NaN without such a pair.
    - accuracy: share of predictions on the right side of the threshold.
    - f1: harmonic mean of precision and recall of "liked", 2 TP / (2 TP + FP + FN); NaN where nothing is
      liked or predicted to be.

    Parameters
    ----------
    predicted, actual
        Numbers [n].
    threshold
        Smallest rating that is liked, as `liked_from` gives it for a scale.

    Raises
    ------
    ValueError
        If the lengths differ, there are no ratings, or one is not finite.
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
    true_positives = np.count_nonzero(liked & predicted_liked)
    liked_sum = np.count_nonzero(liked) + np.count_nonzero(predicted_liked)
    mse = float(np.mean(error**2))
    return {
        "mse": mse,
        "rmse": mse**0.5,
        "mae": float(np.mean(np.abs(error))),
        "auc": _auc(predictions[liked], predictions[~liked]),
        "accuracy": float(np.mean(liked == predicted_liked)),
        "f1": float(2 * true_positives / liked_sum) if liked_sum else float("nan"),
    }


def _auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    pairs = len(positive) * len(negative)
    if not pairs:
        return float("nan")
    negative = np.sort(negative)
    below = np.searchsorted(negative, positive, side="left").sum()
    not_above = np.searchsorted(negative, positive, side="right").sum()
    return float(below + not_above) / (2 * pairs)
