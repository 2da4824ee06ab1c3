"""Negative sampling from the items without a positive of the user."""

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.arrays import ArrayOrTensor, float_array, integer_array
from llmdirect.common.csr import Csr


class ItemWeights:
    """Sampling weights of items, as an alias table for many draws.

    Parameters
    ----------
    weights
        [I] relative weights, finite and 0 or above, used as float32. An item of weight 0 is never drawn.

    Raises
    ------
    ValueError
        If a weight is invalid, naming the first such item, or no weight is above 0.
    """

    def __init__(self, weights: ArrayOrTensor) -> None:
        self.table = _core.AliasTable(float_array("weights", weights, 1))

    @classmethod
    def popularity(cls, positives: Csr, num_items: int, alpha: float) -> "ItemWeights":
        """Popularity weights: (number of positives)**alpha for each item.

        Parameters
        ----------
        alpha
            0 or above; with 0 all items that have a positive are equally likely, 0.75 is word2vec's.

        Raises
        ------
        ValueError
            If alpha is negative.

        References
        ----------
        Mikolov, T. et al. (2013). Distributed Representations of Words and Phrases.
        """
        if not alpha >= 0:
            raise ValueError(f"alpha is {alpha}, below 0")
        counts = np.bincount(positives.indices, minlength=num_items)
        return cls(np.where(counts > 0, counts.astype(np.float64) ** alpha, 0))


def sample_negatives(
    users: ArrayOrTensor,
    positives: Csr,
    num_items: int,
    num_negatives: int,
    *,
    weights: ItemWeights | None = None,
    seed: int,
    draw: int = 0,
) -> NDArray[np.int32]:
    """Sample items that are not positives of the user, with replacement.

    The result does not depend on the number of threads: each position has a random number of a counter-based
    generator (Philox), which selects one of the user's negatives in ascending order or, with weights, items
    until one is a negative.

    Parameters
    ----------
    users
        [n] rows of `positives`, one for each training pair.
    weights
        Relative probability of each item among the user's negatives; uniform if not given.
    seed
        0 to 2^64 - 1.
    draw
        0 to 2^32 - 1, such as the epoch; every (seed, draw) has a stream of its own.

    Returns
    -------
    ndarray
        int32 [n, num_negatives].

    Raises
    ------
    ValueError
        If a user has no row or every item (of a weight above 0), if a positive is beyond `num_items`, or if
        there are no items; names the user or the item.
    """
    for name, value, end in (
        ("seed", seed, 1 << 64),
        ("draw", draw, 1 << 32),
        ("num_items", num_items, 1 << 31),
    ):
        if not 0 <= value < end:
            raise ValueError(f"{name} is {value}, outside 0 to {end - 1}")
    if num_negatives < 0:
        raise ValueError(f"num_negatives is {num_negatives}, below 0")
    return _core.sample_negatives(
        integer_array("users", users, np.int32),
        positives.checked,
        num_items,
        num_negatives,
        weights=None if weights is None else weights.table,
        seed=seed,
        draw=draw,
    )
