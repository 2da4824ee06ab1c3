"""Metrics by which epochs and collaborative terms are compared."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmdirect.config import TrainConfig
from llmdirect.data.dataset import VALID, Dataset
from llmdirect.evaluation.protocol import evaluate_ratings, evaluate_split, squared_errors
from llmdirect.model.left_out import train_left_out
from llmdirect.model.scores import CatalogueScores
from llmdirect.ranking.metrics import mean_metrics
from llmdirect.ranking.scorer import ScoreTables


@dataclass(frozen=True, eq=False)
class Validator:
    """Metrics of the validation split, next to those of left-out train pairs."""

    dataset: Dataset
    training: TrainConfig

    def train_left_out(self, scores: CatalogueScores) -> dict[str, float]:
        """The metric of train pairs, each scored as if it did not exist; empty for ratings."""
        if self.training.predicts_ratings:
            return {}
        return {self.training.metric: train_left_out(scores, self.training.metric)}

    def valid(self, tables: ScoreTables) -> dict[str, float]:
        """Metrics of the validation split by name: means over users, or over ratings."""
        if self.training.predicts_ratings:
            values = evaluate_ratings(tables, self.dataset, VALID, self.training.liked)
            return {name: value for name, value in values.items() if not np.isnan(value)}
        return mean_metrics(evaluate_split(tables, self.dataset, VALID, [self.training.metric]))

    def gains(self, tables: ScoreTables) -> NDArray[np.float64]:
        """[n] value of each validation user, or negative squared error of each rating: higher is better."""
        if self.training.predicts_ratings:
            return -squared_errors(tables, self.dataset, VALID)
        metric = self.training.metric
        values = evaluate_split(tables, self.dataset, VALID, [metric])[metric]
        return values[~np.isnan(values)]  # the AUC of a user whose candidates are all relevant
