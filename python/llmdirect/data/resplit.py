"""Other splits of a prepared dataset, in memory."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect.choices import DEFAULT_FRACTIONS
from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.common.files import digest
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import KINDS, NO_TIME, TEST, TRAIN, VALID, Dataset, Interactions
from llmdirect.data.splits import Fractions, check_split
from llmdirect.data.tables import check_train, duplicate_groups, split_rows


def resplit(
    dataset: Dataset, *, seed: int, split: str = "random", fractions: Fractions = DEFAULT_FRACTIONS
) -> Dataset:
    """Dataset with the split that `prepare` makes of the same reviews with these options.

    Descriptions stay in train. Only the arrays of splits are new, all others are shared. The manifest is a
    copy with other options and counts per split. The hash is `digest(dataset.hash, canonical_json(changed
    options))`, or `dataset.hash` where none changes; `prepare` gives another one, of the written files.

    Parameters
    ----------
    dataset
        A dataset of reviews.
    seed
        Seed of the random split.
    split
        "random", "leave-last-out" or "global-time".
    fractions
        Shares of train, valid and test.

    Raises
    ------
    ValueError
        If an option is invalid, or passages are documents.
    DataError
        If a time is missing that the split needs, or train would hold no positive.
    """
    options = dataset.manifest["options"]
    if options["unit"] == "document":
        raise ValueError(
            f"{dataset.path}: its passages are documents, which hold the texts of one split; run "
            '`llmdirect prepare` with another `out` and `passage_unit="document"` for another split'
        )
    check_split(split, seed, fractions)
    requested = {
        "fractions": None if split == "leave-last-out" else list(fractions),
        "seed": seed,
        "split": split,
    }
    changed = {name: value for name, value in requested.items() if options[name] != value}
    if not changed:
        return dataset
    codes, _ = split_rows(_rows_frame(dataset), _descriptions(dataset), dataset.path, split, seed, fractions)
    new_hash = digest(dataset.hash, canonical_json(changed))
    result = dataset.with_split(codes)
    manifest: Json = result.manifest | {"hash": new_hash, "options": options | requested}
    return replace(result, manifest=manifest, base_hash=new_hash, base_split="")


def rolling_cut(dataset: Dataset, number: int, *, cuts: int = 5, window: float = 0.1) -> Dataset:
    """Global-time split at one of several cuts, none of which knows anything of what came after it.

    Test is the window after the cut, valid the window before it, train what was before that; interactions
    after test are removed. So is a held-out interaction whose text has a copy in an earlier split, by the
    same user or about the same item; the user has its item, so it is no candidate. The hash is that of the
    dataset and the cut.

    Parameters
    ----------
    dataset
        The dataset, of any split.
    number
        Of the cut, from 0, the earliest, to cuts - 1.
    cuts
        Number of cuts; the last window ends with the data.
    window
        Share of all interactions in a window.

    Raises
    ------
    ValueError
        If the cut does not exist, or passages are documents.
    DataError
        If a time is missing, or a split would be empty.
    """
    if not 0 <= number < cuts or not 0 < window * (cuts + 1) < 1:
        raise ValueError(f"cut {number} of {cuts} with windows of {window}: expected 0 to {cuts - 1}")
    if dataset.manifest["options"]["unit"] == "document":
        raise ValueError(f"{dataset.path}: its passages are documents, which hold the texts of one split")
    rows, passages = dataset.interactions, dataset.passages
    if (rows.timestamp == NO_TIME).any():
        raise DataError(f"{dataset.path}: global-time needs a time for every interaction")
    ordered = np.sort(rows.timestamp)
    shares = 1 - window * (cuts - number + np.array([1, 0, -1]))
    starts = [ordered[min(int(share * len(ordered) + 1e-9), len(ordered) - 1)] for share in shares]
    after = rows.timestamp >= starts[2] if number < cuts - 1 else np.zeros(len(rows), bool)
    code = ((rows.timestamp >= starts[0]).astype(np.uint8) + (rows.timestamp >= starts[1])).astype(np.uint8)
    groups, pinned = duplicate_groups(_rows_frame(dataset), _descriptions(dataset))
    earliest = np.full(len(rows), TEST, np.uint8)
    np.minimum.at(earliest, groups, np.where(pinned, TRAIN, code).astype(np.uint8))
    copies = ~after & (earliest[groups] < code)
    kept = ~after & ~copies
    for part, name in ((TRAIN, "train"), (VALID, "validation"), (TEST, "test")):
        if not (kept & (code == part)).any():
            raise DataError(
                f"{dataset.path}: {len(np.unique(ordered)):,} distinct times are too few for {cuts} cuts: "
                f"nothing is left in {name} of cut {number + 1}"
            )
    check_train(rows.positive[kept], code[kept], dataset.path)
    split = np.full(len(passages), TEST, np.uint8)
    split[passages.user_idx < 0] = TRAIN
    split[rows.passage_idx[kept]] = code[kept]
    options = dataset.manifest["options"] | {"split": "global-time", "fractions": None}
    identity = canonical_json({"cut": number, "cuts": cuts, "window": window})
    result = replace(
        dataset,
        manifest=dataset.manifest_of(code[kept]) | {"options": options},
        base_split="",
        base_hash=digest(dataset.hash, "rolling cut", identity),
        interactions=select_interactions(replace(rows, split=code), kept),
        passages=replace(passages, split=split),
    )
    if copies.any():
        hidden = Csr.from_pairs(rows.user_idx[copies], rows.item_idx[copies], dataset.num_users)
        result = replace(result, extra_seen=hidden)
    return result


def select_interactions(rows: Interactions, kept: NDArray[np.bool_]) -> Interactions:
    """Some of the interactions, by a mask bool [n]."""
    columns: dict[str, Any] = {}
    for field in fields(rows):
        array = getattr(rows, field.name)
        columns[field.name] = None if array is None else array[kept]
    return Interactions(**columns)


def _rows_frame(dataset: Dataset) -> pl.DataFrame:
    """Interactions as `split_rows` takes them."""
    rows = dataset.interactions
    timestamp = pl.Series(rows.timestamp)
    return pl.DataFrame(
        {
            "user": pl.Series(dataset.user_ids, dtype=pl.String).gather(rows.user_idx),
            "item": pl.Series(dataset.item_ids, dtype=pl.String).gather(rows.item_idx),
            "user_idx": rows.user_idx,
            "item_idx": rows.item_idx,
            "text": dataset.passages.text.gather(rows.passage_idx),
            "timestamp": timestamp.set(timestamp == NO_TIME, None),
            "positive": rows.positive,
        }
    )


def _descriptions(dataset: Dataset) -> pl.DataFrame:
    passages = dataset.passages
    rows = np.flatnonzero(passages.kind == KINDS.index("description"))
    return pl.DataFrame({"text": passages.text.gather(rows), "item_idx": passages.item_idx[rows]})
