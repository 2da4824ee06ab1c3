"""Negative sampling."""

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.arrays import ArrayOrTensor, float_array, index_array
from llmdirect.common.csr import Csr


class ItemWeights:
    """How likely each item is to be drawn, in relation to the others; prepared once, for many draws.

    weights: [I] numbers, finite and not negative, taken as float32. An item of weight 0 is never drawn.
    Raises ValueError naming the first item at fault, and where no item has a weight above 0.
    """

    def __init__(self, weights: ArrayOrTensor) -> None:
        self.table = _core.AliasTable(float_array("weights", weights, 1))

    @classmethod
    def popularity(cls, positives: Csr, num_items: int, alpha: float) -> "ItemWeights":
        """(number of positives)^alpha for each item; 0.75 as in word2vec (Mikolov et al., 2013).

        With an alpha of 0 every item that has a positive is equally likely. ValueError for a negative alpha.
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
    """Draws items that are not positives of the user, with replacement: int32 [n, num_negatives].

    users: [n] rows of `positives`, one for each training pair. weights: the chance of each negative among the
    user's negatives, in proportion; all are equally likely if not given. seed: 0 to 2^64 - 1. draw: 0 to
    2^32 - 1, such as the epoch; every (seed, draw) has a stream of its own.

    The result depends on the arguments alone, not on the number of threads: the number at a position comes
    from a counter-based generator (Philox), and says which of the user's negatives, in order, is taken; with
    weights, which item, until it is a negative.

    Raises ValueError for a user without a row, a user who has every item (of a weight above 0), positives
    beyond `num_items`, each naming the user or the item, and where there are no items to draw from.
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
        index_array("users", users),
        positives.checked,
        num_items,
        num_negatives,
        weights=None if weights is None else weights.table,
        seed=seed,
        draw=draw,
    )
