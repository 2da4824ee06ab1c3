"""Another split of a prepared dataset, in memory: several seeds without several folders."""

from dataclasses import replace

import numpy as np
import polars as pl

from llmdirect.common.files import digest
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import KINDS, NO_TIME, SPLIT_NAMES, TRAIN, Dataset
from llmdirect.data.defaults import DEFAULT_FRACTIONS
from llmdirect.data.splits import Fractions, check_split
from llmdirect.data.tables import split_rows


def resplit(
    dataset: Dataset, *, seed: int, split: str = "random", fractions: Fractions = DEFAULT_FRACTIONS
) -> Dataset:
    """The same users, items and passages, divided as `prepare` would divide them with these options.

    Split codes of interactions and passages equal those that `prepare` writes for the same raw file;
    descriptions stay in train. Only the arrays of split codes are new, all others are shared.

    The manifest is a copy with the options and the counts per split changed. `hash` cannot be the one that
    `prepare` gives, which covers the bytes of the written tables: it is
    `digest(dataset.hash, canonical_json(options that differ))`, or `dataset.hash` where none differs.

    Raises ValueError for the unit "document", whose passages are made of one split's texts, and for options
    that make no sense; DataError where a time that the split needs is missing, or where train would hold
    no positive.
    """
    options = dataset.manifest["options"]
    if options["unit"] == "document":
        raise ValueError(
            f"{dataset.path}: unit document: its passages are made of one split's texts, so another split "
            "needs another `llmdirect prepare --unit document`"
        )
    check_split(split, seed, fractions)
    wanted = {
        "fractions": None if split == "leave-last-out" else list(fractions),
        "seed": seed,
        "split": split,
    }
    changed = {name: value for name, value in wanted.items() if options[name] != value}
    if not changed:
        return dataset
    rows, passages = dataset.interactions, dataset.passages
    codes, _ = split_rows(_rows_frame(dataset), _descriptions(dataset), dataset.path, split, seed, fractions)
    passage_codes = np.full(len(passages), TRAIN, dtype=np.uint8)
    passage_codes[rows.passage_idx] = codes
    per_split = {name: int((codes == code).sum()) for code, name in enumerate(SPLIT_NAMES)}
    new_hash = digest(dataset.hash, canonical_json(changed))
    manifest: Json = dataset.manifest | {
        "hash": new_hash,
        "options": options | wanted,
        "counts": dataset.manifest["counts"] | {"per_split": per_split},
    }
    return replace(
        dataset,
        manifest=manifest,
        hash=new_hash,
        interactions=replace(rows, split=codes),
        passages=replace(passages, split=passage_codes),
    )


def _rows_frame(dataset: Dataset) -> pl.DataFrame:
    """The interactions as `split_rows` takes them."""
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
    chosen = np.flatnonzero(passages.kind == KINDS.index("description"))
    return pl.DataFrame({"text": passages.text.gather(chosen), "item_idx": passages.item_idx[chosen]})
