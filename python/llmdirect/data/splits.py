"""Train, validation and test splits that keep duplicate texts together."""

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import hash_strings
from llmdirect.data.dataset import TEST, TRAIN, VALID

SPLITS: Final = ("random", "leave-last-out", "global-time")
MIN_USER_INTERACTIONS: Final = 3
"""Users with fewer interactions have all of them in train."""
Fractions = tuple[float, float, float]
"""Shares of train, valid and test."""


def check_split(split: str, seed: int, fractions: Fractions) -> None:
    """Validate the options of a split.

    Parameters
    ----------
    split
        One of `SPLITS`.
    seed
        0 to 2^64 - 1.
    fractions
        Shares that add up to 1, that of train above 0.

    Raises
    ------
    ValueError
        If an option is invalid.
    """
    if split not in SPLITS:
        raise ValueError(f"`split`: {split!r} is unknown; one of {', '.join(SPLITS)}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"`seed`: {seed}, expected 0 to 2^64 - 1")
    train, valid, test = fractions
    if not (train > 0 and valid >= 0 and test >= 0 and abs(train + valid + test - 1) < 1e-9):
        raise ValueError(f"`fractions`: {fractions}: train,valid,test must add up to 1, train above 0")


def random_keys(users: list[str], items: list[str], seed: int) -> NDArray[np.uint64]:
    """Sort keys of a random order: uint64 [n], hashes of user and item id that depend on no other row."""
    return hash_strings([f"{user}\x1f{item}" for user, item in zip(users, items, strict=True)], seed)


def split_by_user(
    user_idx: NDArray[np.int32],
    order: NDArray[np.generic],
    groups: NDArray[np.int64],
    pinned: NDArray[np.bool_],
    quotas: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Split by user: in ascending order a user's test is filled, then valid; the rest is train.

    A group of duplicates, which may span users, is assigned as a whole, when its last row is reached: to
    test if it fits into the quotas of all of its users there, else to valid if it fits there, else to train.

    Parameters
    ----------
    user_idx
        int32 [n]
    order
        [n], sort keys.
    groups
        int64 [n], group of duplicates of each row.
    pinned
        bool [n], rows whose group goes to train.
    quotas
        int64 [num_users, 2], maximum numbers of test and of valid interactions.

    Returns
    -------
    uint8 [n], TRAIN, VALID or TEST.
    """
    num_rows = len(user_idx)
    split = np.full(num_rows, TRAIN, dtype=np.uint8)
    size = np.bincount(groups, minlength=num_rows)
    grouped = (size[groups] > 1) | pinned
    user_grouped = np.zeros(len(quotas), dtype=np.bool_)
    user_grouped[user_idx[grouped]] = True

    free = np.flatnonzero(~user_grouped[user_idx])  # users without duplicates: no loop needed
    free = free[np.lexsort((free, order[free], user_idx[free]))]
    user = user_idx[free]
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    rank = np.arange(len(free)) - np.repeat(starts, np.diff(starts, append=len(free)))
    test, valid = quotas[user, 0], quotas[user, 1]
    split[free[rank < test]] = TEST
    split[free[(rank >= test) & (rank < test + valid)]] = VALID

    rest = np.flatnonzero(user_grouped[user_idx])
    rest = rest[np.lexsort((rest, order[rest]))]
    members: dict[int, list[int]] = {}
    remaining = {user: quotas[user].tolist() for user in np.flatnonzero(user_grouped).tolist()}
    for row, group in zip(rest.tolist(), groups[rest].tolist(), strict=True):
        reached = members.setdefault(group, [])
        reached.append(row)
        if len(reached) < size[group] or pinned[reached].any():
            continue
        needed = Counter(user_idx[reached].tolist())
        for slot, code in enumerate((TEST, VALID)):
            if all(remaining[user][slot] >= count for user, count in needed.items()):
                split[reached] = code
                for user, count in needed.items():
                    remaining[user][slot] -= count
                break
    return split


def random_quotas(user_idx: NDArray[np.int32], num_users: int, fractions: Fractions) -> NDArray[np.int64]:
    """Quotas of the random split: max(1, floor(fraction · n)) of the n interactions of a user, n >= 3.

    At least one interaction stays in train, whatever the fractions.

    Returns
    -------
    int64 [num_users, 2], maximum numbers of test and of valid interactions.
    """
    count = np.bincount(user_idx, minlength=num_users)
    quotas = np.zeros((num_users, 2), dtype=np.int64)
    for slot, fraction in enumerate((fractions[2], fractions[1])):
        if fraction > 0:
            quotas[:, slot] = np.maximum(1, _floor(fraction, count))
    quotas[:, 0] = np.minimum(quotas[:, 0], count - 1)
    quotas[:, 1] = np.minimum(quotas[:, 1], count - 1 - quotas[:, 0])
    quotas[count < MIN_USER_INTERACTIONS] = 0
    return quotas


def leave_last_out_quotas(user_idx: NDArray[np.int32], num_users: int) -> NDArray[np.int64]:
    """Quotas of leave-last-out: one test and one valid interaction of a user with at least three.

    Returns
    -------
    int64 [num_users, 2].
    """
    count = np.bincount(user_idx, minlength=num_users)
    return np.repeat((count >= MIN_USER_INTERACTIONS).astype(np.int64)[:, None], 2, axis=1)


def recency_ranks(user_idx: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rank of each interaction of a user from the last, 0, backwards; rows are ordered by user and time."""
    ends = np.flatnonzero(np.diff(user_idx, append=-1)) + 1
    lengths = np.diff(ends, prepend=0)
    return np.repeat(ends, lengths) - 1 - np.arange(len(user_idx))


def split_by_time(
    time: NDArray[np.int64], groups: NDArray[np.int64], pinned: NDArray[np.bool_], fractions: Fractions
) -> NDArray[np.uint8]:
    """Global split by time: the newest interactions are test, the next newest valid.

    Interactions of the same time are in the same split; where distinct times are few, train may be empty. A
    group of duplicates is in the split of its earliest row.

    Parameters
    ----------
    time
        int64 [n]
    groups
        int64 [n], group of duplicates of each row.
    pinned
        bool [n], rows whose group goes to train.
    fractions
        Shares of train, valid and test.

    Returns
    -------
    uint8 [n], TRAIN, VALID or TEST.
    """
    ordered = np.sort(time)
    num_test = int(_floor(fractions[2], np.array(len(time))))
    num_valid = int(_floor(fractions[1], np.array(len(time))))
    split = np.full(len(time), TRAIN, dtype=np.uint8)
    for held_out, code in ((num_test + num_valid, VALID), (num_test, TEST)):
        if held_out:
            split[time >= ordered[len(time) - held_out]] = code
    earliest = np.full(len(time), TEST, dtype=np.uint8)  # codes ascend with time
    np.minimum.at(earliest, groups, np.where(pinned, TRAIN, split).astype(np.uint8))
    return earliest[groups]


def _floor(fraction: float, count: NDArray[np.int64]) -> NDArray[np.int64]:
    """floor(fraction · count), tolerant of rounding errors just below an integer."""
    floor: NDArray[np.int64] = np.floor(fraction * count + 1e-9).astype(np.int64)
    return floor
