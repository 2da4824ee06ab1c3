"""Other splits of a prepared dataset, in memory."""

from dataclasses import replace

import numpy as np
import polars as pl

from llmdirect.choices import DEFAULT_FRACTIONS
from llmdirect.common.files import digest
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import KINDS, NO_TIME, Dataset
from llmdirect.data.splits import Fractions, check_split
from llmdirect.data.tables import split_rows


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
