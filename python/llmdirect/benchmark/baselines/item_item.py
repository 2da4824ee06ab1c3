"""Item-item baselines: neighbourhoods, random walks, linear autoencoders."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.benchmark.baselines.data import (
    Baseline,
    TrainData,
    Trial,
    item_item,
    largest_neighbours,
    shrunk_cosine,
)
from llmdirect.collaborative.gram import inverse_to_weights, regularised_inverse
from llmdirect.ranking.scorer import ScoreTables


def itemknn(data: TrainData, neighbours: int, shrink: float, user_power: float) -> ScoreTables:
    """Item-based nearest neighbours (Sarwar et al. 2001) with shrunk cosine similarity.

    Parameters
    ----------
    neighbours
        Neighbours of each item.
    shrink
        Added to the denominator: lowers the similarity of items with few users.
    user_power
        Exponent p of the user weight n**-p in the Gram matrix.
    """
    similarity = shrunk_cosine(data.gram(user_power), shrink)
    return item_item(data, largest_neighbours(similarity, neighbours, axis=0))


def rp3beta(data: TrainData, neighbours: int, alpha: float, beta: float) -> ScoreTables:
    """RP3beta: three-step random walks, user to item to user to item (Paudel et al. 2017).

    Parameters
    ----------
    neighbours
        Neighbours of each item.
    alpha
        Exponent of the transition probabilities.
    beta
        Exponent of the popularity that the weights of an item are divided by.
    """
    matrix = data.matrix()
    popularity = data.popularity.clip(1)
    to_item = matrix.multiply((1 / data.counts)[:, None]).tocsr().power(alpha)
    to_user = matrix.multiply((1 / popularity)[None, :]).tocsr().power(alpha)
    weights = (to_user.T @ to_item).toarray() / popularity[None, :] ** beta
    np.fill_diagonal(weights, 0.0)
    return item_item(data, largest_neighbours(weights, neighbours, axis=0))


def slim(data: TrainData, l1: float, l2: float) -> ScoreTables:
    """SLIM: sparse linear item-item model (Ning and Karypis 2011), by coordinate descent.

    Minimises ½‖X - XB‖² + l1 Σ B + ½ l2 ‖B‖² over B ≥ 0 with zero diagonal. A row of B is updated for all
    columns at once.

    Parameters
    ----------
    l1, l2
        Regularisation of the elastic net.
    """
    gram = data.gram(0.0)
    diagonal = np.diag(gram).copy()
    table = np.zeros_like(gram)
    fitted = np.zeros_like(gram)  # gram @ table
    for _ in range(30):
        largest_change = 0.0
        for item in range(len(gram)):
            row = table[item]
            new = (gram[item] - fitted[item] + diagonal[item] * row - l1) / (diagonal[item] + l2)
            new = np.maximum(new, 0.0)
            new[item] = 0.0
            change = new - row
            touched = np.flatnonzero(change)
            if len(touched):
                fitted[:, touched] += np.outer(gram[:, item], change[touched])
                table[item] = new
                largest_change = max(largest_change, float(np.abs(change).max()))
        if largest_change < 1e-4:
            break
    return item_item(data, table)


def _inverse(gram: NDArray[np.float64], ridge: float, name: str = "ridge") -> NDArray[np.float64]:
    """Inverse of gram + ridge·1, float64 [I, I]; ValueError as `regularised_inverse`."""
    inverse: NDArray[np.float64] = regularised_inverse(torch.tensor(gram), ridge, name).numpy()
    return inverse


def _autoencoder(inverse: NDArray[np.float64]) -> NDArray[np.float64]:
    """B = -P / diag(P), zero diagonal (Steck 2019)."""
    weights: NDArray[np.float64] = inverse_to_weights(torch.from_numpy(inverse), torch.float64).numpy()
    return weights


def ease(
    data: TrainData, ridge: float, user_power: float = 0.0, likeness: float = 0.0, words: float = 0.0
) -> ScoreTables:
    """EASE item-item model (Steck 2019), with text similarities as side information.

    B = -P / diag(P) with P = (Xᵀ diag(n^-user_power) X + likeness E Eᵀ + words S + ridge 1)⁻¹ and zero
    diagonal; the score is X B. Memory: I * I float64.

    Parameters
    ----------
    ridge
        L2 regularisation, above 0.
    user_power
        Exponent of the user weight, where n is the number of a user's positives.
    likeness
        Weight of E Eᵀ, E the items' text directions (collective EASE).
    words
        Weight of S, the similarity of the items' TF-IDF vectors.

    Raises
    ------
    ValueError
        If the ridge is not above 0, or below the float64 rounding of the Gram matrix.
    """
    gram = data.gram(user_power)
    if likeness:
        gram += likeness * (data.directions @ data.directions.T)
    if words:
        gram += words * data.common_words
    return item_item(data, _autoencoder(_inverse(gram, ridge)))


def l3ae(data: TrainData, ridge: float, text_ridge: float, distil: float) -> ScoreTables:
    """L3AE: linear autoencoder distilled from one of the items' texts (after Moon et al. 2025).

    Fits an autoencoder S of the text similarities (EASE with `text_ridge`), then minimises
    ‖X - XB‖² + ridge ‖B‖² + distil ‖B - S‖² over B with zero diagonal.

    Parameters
    ----------
    ridge, text_ridge
        L2 regularisation of B and of S, above 0.
    distil
        Weight of the distance from S.

    Raises
    ------
    ValueError
        If a ridge is below the float64 rounding of its Gram matrix.
    """
    similarity = data.directions @ data.directions.T
    semantic = _autoencoder(_inverse(similarity, text_ridge, "text_ridge"))
    gram = data.gram(0.0)
    inverse = _inverse(gram, ridge + distil)
    free = inverse @ (gram + distil * semantic)
    table = free - inverse * (np.diag(free) / np.diag(inverse))
    np.fill_diagonal(table, 0.0)
    return item_item(data, table)


def _itemknn_space(trial: Trial) -> dict[str, Any]:
    return {
        "neighbours": trial.suggest_int("neighbours", 5, 1000, log=True),
        "shrink": trial.suggest_float("shrink", 0.1, 300, log=True),
        "user_power": trial.suggest_float("user_power", 0, 1),
    }


def _rp3beta_space(trial: Trial) -> dict[str, Any]:
    return {
        "neighbours": trial.suggest_int("neighbours", 5, 1000, log=True),
        "alpha": trial.suggest_float("alpha", 0.1, 2),
        "beta": trial.suggest_float("beta", 0, 1),
    }


def _ridge(trial: Trial, low: float = 1.0) -> float:
    return float(trial.suggest_float("ridge", low, 3000, log=True))


def _ease_text_space(trial: Trial, texts: str) -> dict[str, Any]:
    return {
        "ridge": _ridge(trial, 0.3),
        "user_power": trial.suggest_categorical("user_power", [0.0, 0.5, 1.0]),
        texts: trial.suggest_float(texts, 0.1, 100, log=True),
    }


ITEM_ITEM = {
    "itemknn": Baseline(itemknn, _itemknn_space),
    "rp3beta": Baseline(rp3beta, _rp3beta_space),
    "slim": Baseline(
        slim,
        lambda trial: {
            "l1": trial.suggest_float("l1", 0.01, 10, log=True),
            "l2": trial.suggest_float("l2", 1, 1000, log=True),
        },
    ),
    "ease": Baseline(ease, lambda trial: {"ridge": _ridge(trial)}),
    "ease-user": Baseline(
        ease,
        lambda trial: {"ridge": _ridge(trial, 0.1), "user_power": trial.suggest_float("user_power", 0.1, 1)},
    ),
    "ease-text": Baseline(ease, lambda trial: _ease_text_space(trial, "likeness")),
    "ease-words": Baseline(ease, lambda trial: _ease_text_space(trial, "words")),
    "l3ae": Baseline(
        l3ae,
        lambda trial: {
            "ridge": _ridge(trial),
            "text_ridge": trial.suggest_float("text_ridge", 0.1, 100, log=True),
            "distil": trial.suggest_float("distil", 1, 1000, log=True),
        },
    ),
}
"""Baselines whose weights are an item-item matrix [I, I], by row name."""
