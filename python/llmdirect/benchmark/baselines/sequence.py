"""Baselines of what comes next: directed transitions, and a linear model with time."""

import numpy as np
import torch

from llmdirect.benchmark.baselines.data import TrainData
from llmdirect.benchmark.models import ItemItemModel
from llmdirect.collaborative.gram import regularised_inverse


def transition(
    data: TrainData,
    reach: int,
    gap_half_life: float,
    half_life: float,
    shrink: float,
    popularity_power: float,
) -> ItemItemModel:
    """Directed transitions from each history item to the items that followed it, decayed with the gap.

    T[j, i] sums 0.5^((gap - 1) / gap_half_life) over pairs of events (j before i) of one user with a gap of
    at most `reach`; the weight is T[j, i] / (Σ_i T[j, i] + shrink)^½ / (Σ_j T[j, i] + shrink)^p with p the
    popularity power.

    Parameters
    ----------
    reach
        Largest gap in events; 1: a first-order Markov chain.
    gap_half_life
        Gap from which the weight of a pair halves.
    half_life
        Age in events at which the weight of a history item halves.
    shrink
        Added to the sums of rows and columns.
    popularity_power
        Exponent of the sum of a column: 0 favours popular items.
    """
    pairs = (data.before(reach, gap_half_life).T @ data.targets).tocsr().astype(np.float64)
    sources = (np.asarray(pairs.sum(axis=1)).ravel() + shrink) ** -0.5
    targets = (np.asarray(pairs.sum(axis=0)).ravel() + shrink) ** -popularity_power
    return ItemItemModel(pairs.multiply(sources[:, None]).multiply(targets[None, :]).tocsr(), half_life)


def temporal_ease(
    data: TrainData, ridge: float, directed: float, gap_half_life: float, half_life: float
) -> ItemItemModel:
    """Linear item-item model of whole histories and of what follows them, in closed form.

    After SLIST (Choi et al. 2021): minimises

        (1 - directed) ‖X - X B‖² + directed ‖T - S B‖² + ridge ‖B‖²

    over B with zero diagonal, where a row of X holds all items of a user, a row of S what a user did before
    one event, weighted by age, and the row of T the item of that event. Memory: several I * I float64.

    Parameters
    ----------
    ridge
        L2 regularisation, above 0.
    directed
        Weight of the directed part, from 0 (EASE) to 1.
    gap_half_life
        Age in events at which the weight of an item in S halves.
    half_life
        Age in events at which the weight of a history item halves when ranking.

    Raises
    ------
    ValueError
        If the ridge is below the float64 rounding of the Gram matrix.
    """
    before = data.before(50, gap_half_life).astype(np.float64)
    whole = data.gram(0.0) * (1 - directed)
    gram = whole + directed * (before.T @ before).toarray()
    inverse = regularised_inverse(torch.tensor(gram), ridge).numpy()
    table = inverse @ (whole + directed * (before.T @ data.targets).toarray())
    table -= inverse * (np.diag(table) / np.diag(inverse))  # Lagrange multipliers of the zero diagonal
    np.fill_diagonal(table, 0.0)
    return ItemItemModel(table, half_life)
