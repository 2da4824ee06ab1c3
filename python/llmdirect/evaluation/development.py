"""Two halves of the users: those that decisions are made with, and those that reports measure."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import hash_strings

UserHalf = Literal["report", "development", "all"]
"""Users whose test interactions are measured."""
_SEED: Final = 0


def users_of(half: UserHalf, user_ids: Sequence[str]) -> NDArray[np.bool_]:
    """Users of a half, by the hash of their external ids.

    A default, a search space or any other choice of a developer looks at the development half alone, so that
    the report half says what a choice is worth on users who had no part in it.

    Parameters
    ----------
    half
        "development" (even hashes), "report" (odd hashes) or "all".
    user_ids
        External ids [U].

    Returns
    -------
    bool [U].
    """
    if half == "all":
        return np.ones(len(user_ids), bool)
    is_odd = (hash_strings(list(user_ids), _SEED) & 1).astype(bool)
    return is_odd if half == "report" else ~is_odd
