"""Popularity, over all train positives and lately."""

import numpy as np
from numpy.typing import NDArray

from llmdirect.benchmark.baselines.data import TrainData
from llmdirect.benchmark.models import FittedModel, ItemBiasModel
from llmdirect.evaluation.queries import DAY, Events, Queries


def popularity(data: TrainData) -> ItemBiasModel:
    """Items by their number of train positives."""
    return ItemBiasModel(data.popularity)


def recent_popularity(data: TrainData, days: float, popularity_weight: float) -> "RecentPopularity":
    """Items by their number of events in the last days before a query.

    Parameters
    ----------
    days
        Length of the window, which ends with the query's time.
    popularity_weight
        Weight of log(1 + train positives) beside log(1 + events in the window).
    """
    return RecentPopularity(days, popularity_weight * np.log1p(data.popularity))


class RecentPopularity(FittedModel):
    """Log count of the input events in a window before each query, plus a bias float [I]."""

    def __init__(self, days: float, bias: NDArray[np.floating]) -> None:
        self.days, self.bias = days, bias.astype(np.float32)

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]; ValueError without times."""
        if queries.now is None or queries.events is None:
            raise ValueError("recent-popularity needs a time for every interaction")
        times, row = np.unique(queries.now, return_inverse=True)
        counts = np.stack([_counts(queries.events, time, self.days, queries.num_items) for time in times])
        return (np.log1p(counts).astype(np.float32) + self.bias)[row]


def _counts(events: Events, now: int, days: float, num_items: int) -> NDArray[np.int64]:
    """Events of each item in the days up to a time: int64 [I]."""
    first, last = np.searchsorted(events.time, [now - int(days * DAY), now], side="right")
    return np.bincount(events.item[first:last], minlength=num_items)
