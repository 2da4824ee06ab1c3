"""Checks of the tables of a dataset: consistency and leaks."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST, digest
from llmdirect.common.types import Result, canonical_json
from llmdirect.data.dataset import KINDS, SPLIT_NAMES, TEST, TRAIN, VALID, Dataset
from llmdirect.text.duplicates import pair_ids, text_ids

EXCERPT: Final = 80
"""Characters of a text in a report."""
_CURE: Final = "run `llmdirect prepare` again with `overwrite=True`"


@dataclass(frozen=True)
class Leak(Result):
    """A held-out text of which train holds a copy."""

    relation: str
    """What the two have in common: "same user" or "same item"."""
    split: str
    """Split of the held-out text: "valid" or "test"."""
    passage_idx: int
    user_id: str | None
    item_id: str | None
    train_passage_idx: int
    train_user_id: str | None
    train_item_id: str | None
    text: str
    """Beginning of the held-out text."""


def check_manifest(dataset: Dataset) -> None:
    """Check that the hash of a dataset is that of its options and files.

    Raises
    ------
    DataError
        If it is another one.
    """
    manifest = dataset.manifest
    expected = digest(canonical_json({"options": manifest["options"], "files": manifest["files"]}))
    if expected != manifest["hash"]:
        raise DataError(
            f"{dataset.path / MANIFEST}: hash is {manifest['hash']}, its contents hash to {expected}: "
            f"the file was edited; {_CURE}"
        )


def check_tables(dataset: Dataset) -> None:
    """Check that interactions and passages agree; `Dataset.open` has checked indices, ids and pairs.

    Raises
    ------
    DataError
        If not; the message names the first row.
    """
    rows, passages = dataset.interactions, dataset.passages

    def check(wrong: NDArray[np.bool_], what: str) -> None:
        if wrong.any():
            raise DataError(f"{dataset.path}: {what} (first: row {int(np.argmax(wrong))}); {_CURE}")

    has_passage = rows.passage_idx >= 0
    passage = rows.passage_idx[has_passage]
    agree = (passages.user_idx[passage] == rows.user_idx[has_passage]) & (
        passages.item_idx[passage] == rows.item_idx[has_passage]
    )
    check(
        ~(agree & (passages.split[passage] == rows.split[has_passage])),
        "an interaction and its passage disagree",
    )
    used = np.zeros(len(passages), dtype=np.bool_)
    used[passage] = True
    review = passages.kind == KINDS.index("review")
    check(review & ~used, "a passage is the review of no interaction")
    check(~review & (passages.split != TRAIN), "a description or document outside train")


def find_leaks(dataset: Dataset) -> tuple[list[Leak], list[str]]:
    """Held-out texts of which train holds a copy by the same user or about the same item.

    Returns
    -------
    leaks
        Leaks, at most one per held-out passage, in their order.
    notes
        Numbers of other copies.
    """
    passages = dataset.passages
    text_id = text_ids(passages.text)
    by_user, by_item = pair_ids(passages.user_idx, text_id), pair_ids(passages.item_idx, text_id)
    held_out = passages.split != TRAIN
    leaks: dict[int, Leak] = {}
    for relation, pairs in (("same user", by_user), ("same item", by_item)):
        train_rows = _first_rows(pairs, ~held_out)
        for row in np.flatnonzero(held_out & np.isin(pairs, list(train_rows))).tolist():
            leaks.setdefault(row, _leak(dataset, row, train_rows[int(pairs[row])], relation))
    notes = []
    if dataset.manifest["options"]["unit"] == "document":
        notes.append("passage unit document: held-out texts are not stored, so none is compared")

    def count(name: str, ids: NDArray[np.int64], rows: NDArray[np.bool_], others: NDArray[np.bool_]) -> None:
        shared = int((rows & np.isin(ids, ids[others & (ids >= 0)]) & (ids >= 0)).sum())
        if shared:
            notes.append(name.format(f"{shared:,}"))

    not_leaking = held_out.copy()
    not_leaking[list(leaks)] = False
    count(
        "{} held-out texts have a copy in train by another user about another item",
        text_id,
        not_leaking,
        ~held_out,
    )
    test, valid = passages.split == TEST, passages.split == VALID
    count("{} test texts have a copy by the same user in valid", by_user, test, valid)
    count("{} test texts have a copy about the same item in valid", by_item, test, valid)
    copies = len(by_user) - len(np.unique(by_user)) - int((by_user < 0).sum()) + int((by_user < 0).any())
    if copies:
        notes.append(f"{copies:,} texts repeat one that the same user wrote before")
    return [leaks[row] for row in sorted(leaks)], notes


def _first_rows(pairs: NDArray[np.int64], where: NDArray[np.bool_]) -> dict[int, int]:
    """First row of each id among the rows `where`."""
    rows = np.flatnonzero(where & (pairs >= 0))
    values, first = np.unique(pairs[rows], return_index=True)
    return dict(zip(values.tolist(), rows[first].tolist(), strict=True))


def _leak(dataset: Dataset, row: int, train_row: int, relation: str) -> Leak:
    passages = dataset.passages

    def name(ids: list[str], index: np.int32) -> str | None:
        return ids[index] if index >= 0 else None

    return Leak(
        relation=relation,
        split=SPLIT_NAMES[passages.split[row]],
        passage_idx=row,
        user_id=name(dataset.user_ids, passages.user_idx[row]),
        item_id=name(dataset.item_ids, passages.item_idx[row]),
        train_passage_idx=train_row,
        train_user_id=name(dataset.user_ids, passages.user_idx[train_row]),
        train_item_id=name(dataset.item_ids, passages.item_idx[train_row]),
        text=passages.text[row][:EXCERPT],
    )
