"""Weighted item-item Gram matrices, their regularised inverse and the closed form of EASE."""

import torch
from torch import Tensor

from llmdirect.common.csr import Csr

_PART = 1024
"""Rows of the item-item matrix that are processed at a time."""
_PAIRS = 1 << 20
"""Pairs of items that are counted at a time."""


def cooccurrences(positives: Csr, num_items: int, user_power: float) -> Tensor:
    """Weighted item-item Gram matrix Xᵀ W X of binary interactions.

    Parameters
    ----------
    positives
        U rows of items.
    user_power
        Exponent p of the user weight n**-p, n the number of a user's positives: 0 for one vote an
        interaction, 1 for one vote a user.

    Returns
    -------
    Tensor
        float64 [I, I].
    """
    gram = torch.zeros(num_items * num_items, dtype=torch.float64)
    indices, counts = torch.tensor(positives.indices).long(), torch.tensor(positives.indptr).diff()
    partners = torch.repeat_interleave(counts, counts)  # of each entry: the entries of its user
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    step = torch.div(partners.cumsum(0) - 1, _PAIRS, rounding_mode="floor")
    for entries in torch.split(torch.arange(len(indices)), torch.bincount(step).tolist()):
        others = partners[entries]
        first = torch.repeat_interleave(start[entries] - (others.cumsum(0) - others), others)
        second = indices[first + torch.arange(len(first))]
        key = torch.repeat_interleave(indices[entries], others) * num_items + second
        weight = partners[entries].double().pow(-user_power)
        gram.index_add_(0, key, torch.repeat_interleave(weight, others))
    return gram.view(num_items, num_items)


def user_weights_without(counts: Tensor, user_power: float) -> tuple[Tensor, Tensor]:
    """Weights n**-p of users with `counts` positives, and with one positive less."""
    return counts.pow(-user_power), (counts - 1).clamp(min=1).pow(-user_power)


def regularised_inverse(gram: Tensor, ridge: float, name: str = "ridge") -> Tensor:
    """Inverse of gram + ridge·1 by Cholesky factorisation; `gram` is overwritten.

    Parameters
    ----------
    gram
        float64 [I, I], positive semidefinite.
    name
        Setting that an error names.

    Raises
    ------
    ValueError
        If the ridge is not above 0, or so small that rounding leaves no inverse.
    """
    if not ridge > 0:
        raise ValueError(f"{name}: {ridge}, expected above 0")
    # Below rounding, whether a factorisation fails or returns noise depends on the processor.
    if ridge < torch.finfo(torch.float64).eps * float(gram.trace()):
        raise _too_small(name, ridge)
    gram.diagonal().add_(ridge)
    root, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        raise _too_small(name, ridge)
    del gram  # as large as the inverse
    return torch.cholesky_inverse(root)


def inverse_to_weights(inverse: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Item-item weights -P / diag(P) with a zero diagonal, [I, I] of `dtype` (Steck 2019)."""
    weights = torch.empty(inverse.shape, dtype=dtype)
    diagonal = inverse.diagonal()
    for part, rows in zip(torch.split(weights, _PART), torch.split(inverse, _PART), strict=True):
        part.copy_(-rows / diagonal)
    return weights.fill_diagonal_(0.0)


def _too_small(name: str, ridge: float) -> ValueError:
    return ValueError(f"{name}: {ridge} is too small, the item-item matrix has no inverse")
