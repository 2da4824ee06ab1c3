"""Negative sampling."""

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.arrays import ArrayOrTensor, index_array
from llmdirect.csr import Csr


def sample_negatives(
    users: ArrayOrTensor, positives: Csr, num_items: int, num_negatives: int, *, seed: int, draw: int = 0
) -> NDArray[np.int32]:
    """Draws items that are not positives of the user, each equally likely, with replacement.

    users: [n] rows of `positives`, one for each training pair. seed: 0 to 2^64 - 1. draw: 0 to 2^32 - 1,
    such as the epoch; every (seed, draw) has a stream of its own. Result: int32 [n, num_negatives].

    The result depends on the arguments alone, not on the number of threads: the number at a position comes
    from a counter-based generator (Philox), and says which of the user's negatives, in order, is taken.

    Raises ValueError for a user without a row, a user who has every item, or positives beyond `num_items`.
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
    users = index_array("users", users)
    return _core.sample_negatives(users, positives.checked, num_items, num_negatives, seed=seed, draw=draw)
