"""Damped-mean rating biases of users and items, and their leave-one-out values."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.model.item_documents import Pairs
from llmdirect.model.train_view import TrainView

_RIDGES = tuple(2.0**power for power in range(8))
_ROUNDS = 20


@dataclass(frozen=True, eq=False)
class RatingBiases:
    """Bias model rating ≈ mean + b_u + b_i with ridge regularisation.

    A rating's leverage on its user's bias alone is h_u = 1 / (n_u + ridge_u), on its item's h_i; on both it
    is close to h with 1 - h = (1 - h_u)(1 - h_i). The leave-one-out residual is e / (1 - h), e the residual.

    References
    ----------
    Koren, Y. et al. (2009). Matrix Factorization Techniques for Recommender Systems.
    """

    mean: float
    user: Tensor
    """float32 [U]"""
    item: Tensor
    """float32 [I]"""
    leverage_of_user: Tensor
    """float32 [U]"""
    leverage_of_item: Tensor
    """float32 [I]"""

    @classmethod
    def fit(cls, view: TrainView) -> "RatingBiases":
        """Fit on the rated train pairs, with the ridges of the lowest leave-one-out error."""
        rated = ~torch.isnan(view.pair_rating)
        users, items, ratings = (
            column[rated].cpu().numpy() for column in (view.pair_user, view.pair_item, view.pair_rating)
        )
        sizes = view.num_users, view.num_items
        fitted = (
            _fit(users, items, ratings.astype(np.float64), sizes, pair) for pair in product(_RIDGES, _RIDGES)
        )
        (user, item), (of_user, of_item), _ = min(fitted, key=lambda fit: fit[2])
        device = view.pair_rating.device
        tensors = (torch.from_numpy(array).float().to(device) for array in (user, item, of_user, of_item))
        return cls(float(ratings.mean()), *tensors)

    def change(self, pairs: Pairs) -> Tensor:
        """float32 [B] change of b_u + b_i when each pair's own rating is left out; NaN without a rating."""
        residual = pairs.rating - self.mean - self.user[pairs.user] - self.item[pairs.item]
        rest = (1 - self.leverage_of_user[pairs.user]) * (1 - self.leverage_of_item[pairs.item])
        return residual - residual / rest


Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


def _fit(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    ratings: NDArray[np.float64],
    sizes: tuple[int, int],
    ridges: tuple[float, float],
) -> tuple[Arrays, Arrays, float]:
    """Biases, leverages, and mean squared leave-one-out error."""
    centred = ratings - ratings.mean()
    leverages = tuple(
        1 / (np.bincount(numbers, minlength=size) + ridge)
        for numbers, size, ridge in zip((users, items), sizes, ridges, strict=True)
    )
    user, item = np.zeros(sizes[0]), np.zeros(sizes[1])
    for _ in range(_ROUNDS):
        item = np.bincount(items, centred - user[users], sizes[1]) * leverages[1]
        user = np.bincount(users, centred - item[items], sizes[0]) * leverages[0]
    rest = (1 - leverages[0][users]) * (1 - leverages[1][items])
    residuals = (centred - user[users] - item[items]) / rest
    return (user, item), (leverages[0], leverages[1]), float(np.square(residuals).mean())
