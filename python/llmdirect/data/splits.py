"""Which interactions are learned from, and which are held out. Copies of a text never part."""

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import hash_strings
from llmdirect.data.dataset import TEST, TRAIN, VALID

SPLITS: Final = ("random", "leave-last-out", "global-time")
MIN_USER_INTERACTIONS: Final = 3  # a user with fewer stays in train
Fractions = tuple[float, float, float]  # train, valid, test


def check_split(split: str, seed: int, fractions: Fractions) -> None:
    """Raises ValueError for an unknown split, a seed that is no uint64, or fractions that are no shares.

    fractions: they add up to 1, none is negative, and train is not empty.
    """
    if split not in SPLITS:
        raise ValueError(f"--split: {split!r} is unknown; one of {', '.join(SPLITS)}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"--seed: {seed}, expected 0 to 2^64 - 1")
    train, valid, test = fractions
    if not (train > 0 and valid >= 0 and test >= 0 and abs(train + valid + test - 1) < 1e-9):
        raise ValueError(f"--fractions: {fractions}: train,valid,test must add up to 1, train above 0")


def random_order(users: list[str], items: list[str], seed: int) -> NDArray[np.uint64]:
    """The place of each interaction in the seed's order: a hash, so it depends on no other row."""
    return hash_strings([f"{user}\x1f{item}" for user, item in zip(users, items, strict=True)], seed)


def split_by_user(
    user_idx: NDArray[np.int32],
    order: NDArray[np.generic],
    groups: NDArray[np.int64],
    pinned: NDArray[np.bool_],
    rooms: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Fills each user's test, then valid, in ascending `order`; the rest is train.

    A group of copies, which may span users, is placed as one, when the last of its members is due: in
    test if every one of its users has room for all of his there, else in valid if they have it there,
    else in train. A group with a pinned row goes to train.

    user_idx, order, groups (the number of a row's group), pinned: [n]; rooms: int64 [users, 2], how many
    interactions of the user go to test and to valid. Returns split codes: uint8 [n].
    """
    num_rows = len(user_idx)
    split = np.full(num_rows, TRAIN, dtype=np.uint8)
    size = np.bincount(groups, minlength=num_rows)
    tied = (size[groups] > 1) | pinned
    user_tied = np.zeros(len(rooms), dtype=np.bool_)
    user_tied[user_idx[tied]] = True

    free = np.flatnonzero(~user_tied[user_idx])  # users all of whose interactions stand alone: no loop needed
    free = free[np.lexsort((free, order[free], user_idx[free]))]
    owner = user_idx[free]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    place = np.arange(len(free)) - np.repeat(starts, np.diff(starts, append=len(free)))
    test, valid = rooms[owner, 0], rooms[owner, 1]
    split[free[place < test]] = TEST
    split[free[(place >= test) & (place < test + valid)]] = VALID

    rest = np.flatnonzero(user_tied[user_idx])
    rest = rest[np.lexsort((rest, order[rest]))]
    members: dict[int, list[int]] = {}
    room = {user: rooms[user].tolist() for user in np.flatnonzero(user_tied).tolist()}
    for row, group in zip(rest.tolist(), groups[rest].tolist(), strict=True):
        waiting = members.setdefault(group, [])
        waiting.append(row)
        if len(waiting) < size[group] or pinned[waiting].any():
            continue
        wanted = Counter(user_idx[waiting].tolist())
        for slot, code in enumerate((TEST, VALID)):
            if all(room[user][slot] >= count for user, count in wanted.items()):
                split[waiting] = code
                for user, count in wanted.items():
                    room[user][slot] -= count
                break
    return split


def random_rooms(user_idx: NDArray[np.int32], num_users: int, fractions: Fractions) -> NDArray[np.int64]:
    """max(1, floor(fraction · n)) held out for test and valid of a user with n >= 3: int64 [users, 2].

    One interaction at least stays in train, whatever the fractions.
    """
    count = np.bincount(user_idx, minlength=num_users)
    rooms = np.zeros((num_users, 2), dtype=np.int64)
    for slot, fraction in enumerate((fractions[2], fractions[1])):
        if fraction > 0:
            rooms[:, slot] = np.maximum(1, _floor(fraction, count))
    rooms[:, 0] = np.minimum(rooms[:, 0], count - 1)
    rooms[:, 1] = np.minimum(rooms[:, 1], count - 1 - rooms[:, 0])
    rooms[count < MIN_USER_INTERACTIONS] = 0
    return rooms


def last_rooms(user_idx: NDArray[np.int32], num_users: int) -> NDArray[np.int64]:
    """One for test and one for valid of a user with n >= 3: int64 [users, 2]."""
    count = np.bincount(user_idx, minlength=num_users)
    return np.repeat((count >= MIN_USER_INTERACTIONS).astype(np.int64)[:, None], 2, axis=1)


def recency(user_idx: NDArray[np.int32]) -> NDArray[np.int64]:
    """0 for the last interaction of each user, 1 for the one before, …; rows are ordered by user and time."""
    ends = np.flatnonzero(np.diff(user_idx, append=-1)) + 1
    lengths = np.diff(ends, prepend=0)
    return np.repeat(ends, lengths) - 1 - np.arange(len(user_idx))


def split_by_time(
    time: NDArray[np.int64], groups: NDArray[np.int64], pinned: NDArray[np.bool_], fractions: Fractions
) -> NDArray[np.uint8]:
    """The newest fraction of all interactions is test, the next newest valid; equal times never part.

    A group of copies goes to the split of its earliest member, with a pinned row to train.
    Where distinct times are few, nothing may be left in train.
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
    """floor(fraction · count), where a product a rounding error below a whole number counts as it."""
    whole: NDArray[np.int64] = np.floor(fraction * count + 1e-9).astype(np.int64)
    return whole
