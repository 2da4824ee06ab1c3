"""Subsets of a prepared dataset for evaluation protocols, in memory."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.common.files import digest
from llmdirect.data.dataset import TEST, TRAIN, Dataset
from llmdirect.data.resplit import resplit, select_interactions


def active_users(dataset: Dataset, minimum: int) -> Dataset:
    """Subset of the users with at least `minimum` interactions, with their items and passages.

    Users, items and passages are reindexed; items of other users alone are removed. Splits do not change. The
    hash is `digest(dataset.hash, "users", minimum)`, or `dataset.hash` where all users remain.

    Raises
    ------
    DataError
        If no user has so many interactions.
    ValueError
        If passages are documents, or the dataset is one of `cold_items`.
    """
    if dataset.extra_seen is not None:
        raise ValueError(f"{dataset.path}: select the users before items are held out")
    rows, passages = dataset.interactions, dataset.passages
    kept_users = np.bincount(rows.user_idx, minlength=dataset.num_users) >= minimum
    if kept_users.all():
        return dataset
    if not kept_users.any():
        raise DataError(
            f"{dataset.path}: no user has {minimum} interactions, the most is "
            f"{np.bincount(rows.user_idx).max()}; choose another protocol"
        )
    kept = kept_users[rows.user_idx]
    kept_items = np.zeros(dataset.num_items, bool)
    kept_items[rows.item_idx[kept]] = True
    kept_items |= np.bincount(rows.item_idx, minlength=dataset.num_items) == 0
    kept_passages = ~_authored_by(~kept_users, dataset) & kept_items[passages.item_idx]
    user, item, passage = (_new_indices(part) for part in (kept_users, kept_items, kept_passages))
    chosen = np.flatnonzero(kept_passages)
    remaining = select_interactions(rows, kept)
    return Dataset(
        path=dataset.path,
        manifest=dataset.manifest_of(remaining.split),
        base_hash=digest(dataset.hash, "users", str(minimum)),
        user_ids=[dataset.user_ids[index] for index in np.flatnonzero(kept_users)],
        item_ids=[dataset.item_ids[index] for index in np.flatnonzero(kept_items)],
        item_titles=[dataset.item_titles[index] for index in np.flatnonzero(kept_items)],
        item_details=None if dataset.item_details is None else dataset.item_details.filter(kept_items),
        interactions=replace(
            remaining,
            user_idx=user[remaining.user_idx].astype(np.int32),
            item_idx=item[remaining.item_idx].astype(np.int32),
            passage_idx=passage[remaining.passage_idx],
        ),
        passages=replace(
            passages,
            text=passages.text.gather(chosen),
            kind=passages.kind[chosen],
            user_idx=np.where(passages.user_idx < 0, -1, user[passages.user_idx])[chosen].astype(np.int32),
            item_idx=item[passages.item_idx[chosen]].astype(np.int32),
            split=passages.split[chosen],
        ),
    )


def _new_indices(kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """New index of each row, -1 for a removed one: int64 [n]."""
    return np.where(kept, np.cumsum(kept) - 1, -1)


def cold_items(dataset: Dataset, *, seed: int, share: float = 0.1) -> Dataset:
    """Cold-start split: `share` of the items have text, but no interaction in train.

    Cold items are drawn at random among those with at least two reviews with text. Half of the reviews of
    such an item remain as anonymous text in train; the interactions of the other half are the test split,
    without those whose text has a duplicate by the same user. The other items have the random split of this
    seed without its test interactions. A user whose review was made anonymous has seen the item
    (`extra_seen`).

    Parameters
    ----------
    dataset
        The dataset.
    seed
        Seed of the split and of the draws.
    share
        Share of the items, at least one.

    Raises
    ------
    DataError
        If no item has two reviews with text.
    ValueError
        If passages are documents.
    """
    whole = resplit(dataset, seed=seed)
    rows, passages = whole.interactions, whole.passages
    rng = np.random.default_rng(seed)
    duplicate = whole.duplicate_ids()
    has_text = duplicate[rows.passage_idx] >= 0
    eligible = np.flatnonzero(np.bincount(rows.item_idx[has_text], minlength=whole.num_items) > 1)
    if not len(eligible):
        raise DataError(f"{dataset.path}: no item has two reviews with text, so none can be held out")
    cold = np.zeros(whole.num_items, bool)
    num_reviewed = len(np.unique(rows.item_idx))
    cold[rng.permutation(eligible)[: max(1, int(share * num_reviewed))]] = True
    # In random order, every second review of an item: half of its reviews, whatever their number.
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows.item_idx[order], kind="stable")]
    first = np.searchsorted(rows.item_idx[order], np.arange(whole.num_items))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - first[rows.item_idx[order]]
    of_cold = cold[rows.item_idx]
    anonymous = of_cold & (rank % 2 == 0)
    repeated = (np.bincount(duplicate[duplicate >= 0]) > 1)[duplicate[rows.passage_idx]] & has_text
    tested = of_cold & ~anonymous & ~repeated
    kept = tested | ~of_cold & (rows.split != TEST)
    removed = of_cold & ~tested
    code = np.where(tested, TEST, rows.split).astype(np.uint8)
    user, split = passages.user_idx.copy(), np.full(len(passages), TEST, np.uint8)
    split[passages.user_idx < 0] = TRAIN
    split[rows.passage_idx[kept]] = code[kept]
    texts = rows.passage_idx[anonymous]
    user[texts], split[texts] = -1, TRAIN
    return replace(
        whole,
        manifest=whole.manifest_of(code[kept]),
        base_split="",
        base_hash=digest(whole.hash, "cold items", "known ones hidden", str(share)),
        interactions=select_interactions(replace(rows, split=code), kept),
        passages=replace(passages, user_idx=user, split=split, key_user_idx=passages.user_idx),
        extra_seen=Csr.from_pairs(rows.user_idx[removed], rows.item_idx[removed], whole.num_users),
    )


def without_users(dataset: Dataset, held_out: NDArray[np.bool_]) -> Dataset:
    """Dataset without the interactions and texts of some users.

    Users and items keep their indices; removed texts move to the test split. The hash is that of the dataset
    and of the users.

    Parameters
    ----------
    dataset
        The dataset.
    held_out
        bool [num_users], users to remove.

    Raises
    ------
    ValueError
        If passages are documents.
    """
    rows, passages = dataset.interactions, dataset.passages
    kept = ~held_out[rows.user_idx]
    removed = _authored_by(held_out, dataset)
    return replace(
        dataset,
        manifest=dataset.manifest_of(rows.split[kept]),
        base_split="",
        base_hash=digest(dataset.hash, "without", np.packbits(held_out).tobytes().hex()),
        interactions=select_interactions(rows, kept),
        passages=replace(passages, split=np.where(removed, TEST, passages.split).astype(np.uint8)),
    )


def _authored_by(users: NDArray[np.bool_], dataset: Dataset) -> NDArray[np.bool_]:
    """bool [num_passages], whether the author is among `users`, bool [num_users]."""
    if dataset.manifest["options"]["unit"] == "document":
        raise ValueError(
            f"{dataset.path}: its passages are documents, which mix users; prepare the subset itself"
        )
    author = dataset.passages.user_idx
    return (author >= 0) & users[author]
