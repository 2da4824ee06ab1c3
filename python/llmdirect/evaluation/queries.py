"""What may be known about users when a held-out split is ranked, by the protocol of the split."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.data.dataset import GIVEN, NO_TIME, SPLIT_NAMES, TRAIN, Dataset
from llmdirect.evaluation.protocol import seen_items

Protocol = Literal["random", "leave-last-out", "global-time"]
"""By whose rules a split is measured."""
QueryTime = Literal["last", "event"]
"""When a query of leave-last-out comes: at the user's last input event, or at the held-out event."""
DAY: Final = 86_400
"""Seconds of a day."""


@dataclass(frozen=True, eq=False)
class Events:
    """Input events of all users, in the order of time. E events."""

    user: NDArray[np.int32]
    """int32 [E]"""
    item: NDArray[np.int32]
    """int32 [E]"""
    time: NDArray[np.int64]
    """int64 [E], seconds since 1970, ascending."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Queries:
    """Users to rank for, and what may be known of each. B users, I items.

    See `build_queries` for what each protocol allows.
    """

    protocol: Protocol
    users: NDArray[np.int32]
    """int32 [B] user indices, ascending."""
    indptr: NDArray[np.int64]
    """int64 [B + 1] offsets of the histories."""
    items: NDArray[np.int32]
    """int32 [n] items of the histories, each from the oldest to the newest."""
    is_ordered: bool
    """Whether the order of the histories is that of time."""
    num_items: int
    seen: Csr
    """B rows of items that are no candidates."""
    relevant: Csr
    """B rows of held-out positives, without `seen`."""
    now: NDArray[np.int64] | None = None
    """int64 [B], seconds since 1970: time of each query; None where times are missing."""
    events: Events | None = None
    """Input events of all users; None where times are missing."""
    tied_share: float = float("nan")
    """Share of users whose held-out event has the time of the event before it."""
    num_without_history: int = 0
    """Users with a held-out positive who are not ranked, since nothing is known of them."""

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def ages(self) -> NDArray[np.int64]:
        """Age of each history item in events: int64 [n], 0 for the newest of a user."""
        return np.repeat(self.indptr[1:], np.diff(self.indptr)) - 1 - np.arange(len(self.items))

    def history(self, half_life: float = 0.0) -> Any:
        """History as a SciPy CSR array float32 [B, I].

        Parameters
        ----------
        half_life
            Events after which the weight of an item is half; 0: every item has the weight 1.
        """
        from scipy.sparse import csr_array

        weights = 0.5 ** (self.ages / half_life) if half_life else np.ones(len(self.items))
        shape = len(self), self.num_items
        return csr_array((weights.astype(np.float32), self.items, self.indptr), shape=shape)

    def history_rows(self) -> Csr:
        """History without its order, B rows of items."""
        rows = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        return Csr.from_pairs(rows, self.items, len(self))

    def select(self, rows: NDArray[np.int64]) -> "Queries":
        """Queries of some rows, integers [n] into `users`."""
        lengths = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        position = np.repeat(self.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return replace(
            self,
            users=self.users[rows],
            indptr=indptr,
            items=self.items[position],
            seen=self.seen.rows(rows),
            relevant=self.relevant.rows(rows),
            now=None if self.now is None else self.now[rows],
        )


def build_queries(
    dataset: Dataset,
    split: int,
    *,
    query_time: QueryTime = "last",
    among: NDArray[np.bool_] | None = None,
) -> Queries:
    """Queries of the users with a positive in a held-out split.

    - **random**: history and events are the train positives; a query comes at the end of the data, so that
      nothing depends on the time of a held-out event.
    - **leave-last-out**: the history is what the user did before the held-out event, validation included;
      a query comes at the time of the newest item of the history. Events of others count up to that time.
    - **global-time**: every query comes at the first event of the split; the history is what was before it.

    A split that the user made is taken as leave-last-out if each user's held-out positives come after all
    of the user's events of earlier splits, else as random.

    Parameters
    ----------
    dataset
        The dataset with its split.
    split
        VALID or TEST.
    query_time
        "event": queries of leave-last-out come at the time of the held-out event itself.
    among
        bool [num_users], users that are ranked; all by default.

    Raises
    ------
    DataError
        If no user has a positive in the split, or times are missing that `query_time` needs.
    ValueError
        If `query_time="event"` is asked of another protocol.
    """
    rows = dataset.interactions
    protocol = protocol_of(dataset)
    has_times = bool(len(rows)) and not (rows.timestamp == NO_TIME).any()
    if query_time == "event" and (protocol != "leave-last-out" or not has_times):
        raise ValueError(
            '`query_time="event"`: belongs to leave-last-out, where a user has one held-out event with a time'
        )
    held_out = (rows.split == split) & rows.positive
    if not held_out.any():
        raise DataError(
            f"{dataset.path}: no positive in {SPLIT_NAMES[split]}, so there is nothing to measure"
        )
    position = np.arange(len(rows))
    first = np.full(dataset.num_users, len(rows))
    np.minimum.at(first, rows.user_idx[held_out], position[held_out])
    is_input = rows.positive & (rows.split < (split if protocol != "random" else 1))
    if protocol == "leave-last-out":
        is_input &= position < first[rows.user_idx]
    cut = int(rows.timestamp[rows.split == split].min()) if has_times else 0
    if protocol == "global-time":
        is_input &= rows.timestamp < cut

    counts = np.bincount(rows.user_idx[is_input], minlength=dataset.num_users)
    measured = first < len(rows)
    if among is not None:
        measured &= among
    users = np.flatnonzero(measured & (counts > 0)).astype(np.int32)
    if not len(users):
        raise DataError(
            f"{dataset.path}: no user with a positive in {SPLIT_NAMES[split]} has an earlier one, so "
            "there is nothing to measure"
        )
    is_history = is_input & np.isin(rows.user_idx, users)
    indptr = np.concatenate([[0], np.cumsum(counts[users])])
    seen = seen_items(dataset, split).rows(users)
    now = None
    if has_times:
        last_input = np.flatnonzero(is_history)[indptr[1:] - 1]
        now = {
            "random": np.full(len(users), rows.timestamp[is_input].max()),
            "leave-last-out": rows.timestamp[last_input if query_time == "last" else first[users]],
            "global-time": np.full(len(users), cut - 1),
        }[protocol]
    return Queries(
        protocol=protocol,
        users=users,
        indptr=indptr,
        items=rows.item_idx[is_history],
        is_ordered=has_times,
        num_items=dataset.num_items,
        seen=seen,
        relevant=dataset.csr(split).rows(users).without(seen),
        now=now,
        events=_events(dataset, is_input) if has_times else None,
        tied_share=_tied_share(rows.timestamp, first[users], rows.user_idx) if has_times else float("nan"),
        num_without_history=int((measured & (counts == 0)).sum()),
    )


def new_user_queries(
    dataset: Dataset, users: NDArray[np.bool_], *, relevant_share: float = 0.2, minimum: int = 5
) -> Queries:
    """Queries of users whom no model was fitted on: the older part of what they did is their history.

    A query comes at the time of the newest item of the history; all events of other users are input.

    Parameters
    ----------
    dataset
        Dataset with the interactions of these users, in any split.
    users
        bool [num_users]
    relevant_share
        Share of a user's positives, the newest, that is to be found; the others are the history.
    minimum
        Fewest positives of a user who is tested.

    Raises
    ------
    DataError
        If none of the users has enough positives.
    """
    rows = dataset.interactions
    chosen = np.flatnonzero(rows.positive & users[rows.user_idx])
    counts = np.bincount(rows.user_idx[chosen], minlength=dataset.num_users)
    tested = np.flatnonzero(counts >= minimum).astype(np.int32)
    if not len(tested):
        raise DataError(
            f"{dataset.path}: no new user has {minimum} positives, so there is nothing to measure"
        )
    chosen = chosen[counts[rows.user_idx[chosen]] >= minimum]
    counts = counts[tested]
    place = np.arange(len(chosen)) - np.repeat(np.cumsum(counts) - counts, counts)
    num_known = (counts * (1 - relevant_share) + 1e-9).astype(np.int64)
    is_known = place < np.repeat(num_known, counts)
    row, items = np.repeat(np.arange(len(tested)), counts), rows.item_idx[chosen]
    known = Csr.from_pairs(row[is_known], items[is_known], len(tested))
    has_times = not (rows.timestamp == NO_TIME).any()
    is_input = rows.positive & ~users[rows.user_idx]
    is_input[chosen[is_known]] = True
    newest = chosen[is_known][np.cumsum(num_known) - 1]
    return Queries(
        protocol="leave-last-out",
        users=tested,
        indptr=np.concatenate([[0], np.cumsum(num_known)]),
        items=items[is_known],
        is_ordered=has_times,
        num_items=dataset.num_items,
        seen=known,
        now=rows.timestamp[newest] if has_times else None,
        events=_events(dataset, is_input) if has_times else None,
        relevant=Csr.from_pairs(row[~is_known], items[~is_known], len(tested)),
    )


def protocol_of(dataset: Dataset) -> Protocol:
    """Protocol by whose rules a dataset's split is measured."""
    split = dataset.manifest["options"]["split"]
    if split != GIVEN:
        result: Protocol = split
        return result
    rows = dataset.interactions
    if (rows.timestamp == NO_TIME).any():
        return "random"
    newest = np.full((len(SPLIT_NAMES), dataset.num_users), NO_TIME)
    for code in range(len(SPLIT_NAMES)):
        chosen = rows.split == code
        np.maximum.at(newest[code], rows.user_idx[chosen], rows.timestamp[chosen])
    before = np.maximum.accumulate(newest, axis=0)
    later = rows.split > TRAIN
    is_after = rows.timestamp[later] >= before[rows.split[later] - 1, rows.user_idx[later]]
    return "leave-last-out" if later.any() and is_after.all() else "random"


def _events(dataset: Dataset, chosen: NDArray[np.bool_]) -> Events:
    rows = dataset.interactions
    order = np.flatnonzero(chosen)[np.argsort(rows.timestamp[chosen], kind="stable")]
    return Events(rows.user_idx[order], rows.item_idx[order], rows.timestamp[order])


def _tied_share(time: NDArray[np.int64], first: NDArray[np.int64], user: NDArray[np.int32]) -> float:
    """Share of held-out events, at the positions `first`, with the time of the same user's event before."""
    before = np.maximum(first - 1, 0)
    tied = (user[before] == user[first]) & (first > 0) & (time[before] == time[first])
    return float(tied.mean())
