"""Parts of a prepared dataset that a protocol ranks, in memory."""

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.common.files import digest
from llmdirect.common.types import Json
from llmdirect.data.dataset import SPLIT_NAMES, TEST, TRAIN, Dataset, Interactions
from llmdirect.data.resplit import resplit


def active_users(dataset: Dataset, minimum: int) -> Dataset:
    """Users with at least `minimum` interactions, with their items and passages, all numbered anew.

    Items that none of them has are no candidates. The split codes stay. `hash` is
    `digest(dataset.hash, "users", minimum)`, or `dataset.hash` where all users stay.

    Raises DataError where no user has so many, ValueError for passages of the unit "document" and where
    items are held out already.
    """
    if dataset.known is not None:
        raise ValueError(f"{dataset.path}: choose the users before items are held out")
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
    kept_passages = ~_written_by(~kept_users, dataset) & kept_items[passages.item_idx]
    user, item, passage = (_numbers(part) for part in (kept_users, kept_items, kept_passages))
    chosen = np.flatnonzero(kept_passages)
    left = _rows(rows, kept)
    return Dataset(
        path=dataset.path,
        manifest=_counted(dataset, left.split),
        hash=digest(dataset.hash, "users", str(minimum)),
        user_ids=[dataset.user_ids[index] for index in np.flatnonzero(kept_users)],
        item_ids=[dataset.item_ids[index] for index in np.flatnonzero(kept_items)],
        item_titles=[dataset.item_titles[index] for index in np.flatnonzero(kept_items)],
        interactions=replace(
            left,
            user_idx=user[left.user_idx].astype(np.int32),
            item_idx=item[left.item_idx].astype(np.int32),
            passage_idx=passage[left.passage_idx],
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


def _numbers(kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The new index of each old one; -1 for none."""
    return np.where(kept, np.cumsum(kept) - 1, -1)


def cold_items(dataset: Dataset, *, seed: int, share: float = 0.1) -> Dataset:
    """A split in which `share` of the items have text, but no interaction in train.

    They are drawn at random among those with at least two reviews with text. Half of an item's reviews stay
    without their users; the users of the other half are the test split. All other items have the split
    `direct` of this seed, less its test rows. Rows with a copy of their text by the same user leave the test:
    the copy would tell. Of whom a review of a held-out item was taken, that item is `known` to have, and is
    no candidate. The hash is that of this split with "cold items" and the share.

    Raises DataError where no item has two reviews, ValueError for passages of the unit "document".
    """
    whole = resplit(dataset, seed=seed)
    rows, passages = whole.interactions, whole.passages
    rng = np.random.default_rng(seed)
    groups = whole.copy_group()
    written = groups[rows.passage_idx] >= 0
    common = np.flatnonzero(np.bincount(rows.item_idx[written], minlength=whole.num_items) > 1)
    if not len(common):
        raise DataError(f"{dataset.path}: no item has two reviews with text, so none can be held out")
    cold = np.zeros(whole.num_items, bool)
    cold[rng.permutation(common)[: max(1, int(share * whole.num_items))]] = True
    # In random order, every second review of an item: half of its reviews, whatever their number.
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows.item_idx[order], kind="stable")]
    first = np.searchsorted(rows.item_idx[order], np.arange(whole.num_items))
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - first[rows.item_idx[order]]
    of_cold = cold[rows.item_idx]
    told = of_cold & (place % 2 == 0)
    copied = (np.bincount(groups[groups >= 0]) > 1)[groups[rows.passage_idx]] & written
    tested = of_cold & ~told & ~copied
    kept = tested | ~of_cold & (rows.split != TEST)
    taken = of_cold & ~tested
    code = np.where(tested, TEST, rows.split).astype(np.uint8)
    user, split = passages.user_idx.copy(), np.full(len(passages), TEST, np.uint8)
    split[passages.user_idx < 0] = TRAIN
    split[rows.passage_idx[kept]] = code[kept]
    texts = rows.passage_idx[told]
    user[texts], split[texts] = -1, TRAIN
    return replace(
        whole,
        manifest=_counted(whole, code[kept]),
        hash=digest(whole.hash, "cold items", "known ones hidden", str(share)),
        interactions=_rows(replace(rows, split=code), kept),
        passages=replace(passages, user_idx=user, split=split),
        known=Csr.from_pairs(rows.user_idx[taken], rows.item_idx[taken], whole.num_users),
    )


def without_users(dataset: Dataset, held_out: NDArray[np.bool_]) -> Dataset:
    """The same users and items, but no interaction and no text of the users in `held_out`, bool [U].

    The hash is that of the dataset and of the users. ValueError for passages of the unit "document".
    """
    rows, passages = dataset.interactions, dataset.passages
    kept = ~held_out[rows.user_idx]
    gone = _written_by(held_out, dataset)
    return replace(
        dataset,
        manifest=_counted(dataset, rows.split[kept]),
        hash=digest(dataset.hash, "without", np.packbits(held_out).tobytes().hex()),
        interactions=_rows(rows, kept),
        passages=replace(passages, split=np.where(gone, TEST, passages.split).astype(np.uint8)),
    )


def _written_by(users: NDArray[np.bool_], dataset: Dataset) -> NDArray[np.bool_]:
    """bool [passages]: those of `users`, bool [U]. ValueError for passages of the unit "document"."""
    if dataset.manifest["options"]["unit"] == "document":
        raise ValueError(
            f"{dataset.path}: passage unit document: its passages mix users; prepare the part itself"
        )
    author = dataset.passages.user_idx
    return (author >= 0) & users[author]


def _rows(rows: Interactions, kept: NDArray[np.bool_]) -> Interactions:
    return Interactions(**{field.name: getattr(rows, field.name)[kept] for field in fields(rows)})


def _counted(dataset: Dataset, codes: NDArray[np.uint8]) -> Json:
    """The manifest with so many rows a split."""
    counts = dict(zip(SPLIT_NAMES, np.bincount(codes, minlength=3).tolist(), strict=True))
    return dataset.manifest | {"counts": dataset.manifest["counts"] | {"per_split": counts}}
