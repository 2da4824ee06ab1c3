"""Item-item baselines: neighbourhoods, random walks, linear autoencoders."""

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.benchmark.baselines.data import TrainData, largest_neighbours, shrunk_cosine
from llmdirect.benchmark.models import ItemItemModel
from llmdirect.collaborative.gram import inverse_to_weights, regularised_inverse


def itemknn(data: TrainData, neighbours: int, shrink: float, user_power: float) -> ItemItemModel:
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
    return ItemItemModel(largest_neighbours(similarity, neighbours, axis=0))


def rp3beta(data: TrainData, neighbours: int, alpha: float, beta: float) -> ItemItemModel:
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
    return ItemItemModel(largest_neighbours(weights, neighbours, axis=0))


def slim(data: TrainData, l1: float, l2: float) -> ItemItemModel:
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
    return ItemItemModel(table)


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
) -> ItemItemModel:
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
    return ItemItemModel(_autoencoder(_inverse(gram, ridge)))


def l3ae(data: TrainData, ridge: float, text_ridge: float, distil: float) -> ItemItemModel:
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
    return ItemItemModel(table)
