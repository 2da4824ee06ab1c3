"""Tables of a dataset from raw reviews, in memory."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect.common.errors import DataError
from llmdirect.common.types import Json
from llmdirect.data.dataset import GIVEN, SCHEMAS, TRAIN, count_splits
from llmdirect.data.filtering import category_codes, drop_duplicate_pairs, join_interactions, k_core_mask
from llmdirect.data.readers.item_metadata import ItemMetadata
from llmdirect.data.readers.reviews import Reviews
from llmdirect.data.splits import (
    Fractions,
    leave_last_out_quotas,
    random_keys,
    random_quotas,
    recency_ranks,
    split_by_time,
    split_by_user,
)
from llmdirect.text.duplicates import connected_groups, pair_ids, text_ids

PASSAGE_UNITS: Final = ("review", "document")
"""What a passage is: a review, or all reviews of a user or an item in train."""
_SHARED: Final = ("user", "item")
_TIE_SEED: Final = 0
"""Of the order of rows of the same time; other splits of a dataset keep the order."""


@dataclass(frozen=True)
class Tables:
    """Tables of a dataset and their counts."""

    frames: dict[str, pl.DataFrame]
    """Tables by name, in `SCHEMAS`."""
    counts: Json
    """Counts for the manifest."""


@dataclass(frozen=True)
class PositiveRule:
    """Threshold on ratings or weights that makes interactions positive, such as `rating>=4`."""

    column: str
    operator: str
    bound: float

    _PATTERN = re.compile(r"\s*(rating|weight)\s*(>=|>|<=|<|==)\s*(-?\d+(?:\.\d+)?)\s*")

    @classmethod
    def parse(cls, text: str | None) -> "PositiveRule | None":
        """Parse a rule such as "rating>=4" or "weight>=2"; None stays None.

        Raises
        ------
        ValueError
            If it is not a comparison (>=, >, <=, <, ==) of `rating` or `weight` with a number.
        """
        if text is None:
            return None
        if not (match := cls._PATTERN.fullmatch(text)):
            raise ValueError(
                f"`positive`: {text!r} is not of the form rating>=4 (>=, >, <=, <, == and a number)"
            )
        return cls(match[1], match[2], float(match[3]))

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{str(self.bound).removesuffix('.0')}"

    def mask(self, rows: pl.DataFrame) -> pl.Series:
        """Boolean [n], whether each row is positive; one without a value is not."""
        rating = rows[self.column]
        bound = float(np.float32(self.bound))
        compared = {
            ">=": rating >= bound,
            ">": rating > bound,
            "<=": rating <= bound,
            "<": rating < bound,
            "==": rating == bound,
        }[self.operator]
        return compared.fill_null(False)


def build_tables(
    reviews: Reviews | None,
    interactions: Reviews | None,
    *,
    k_core: int,
    split: str,
    seed: int,
    fractions: Fractions,
    positive: PositiveRule | None,
    passage_unit: str,
    metadata: Callable[[list[str], Collection[str]], ItemMetadata] | None,
) -> Tables:
    """Build the tables of a dataset: drop duplicates, take the k-core, index, split, and make passages.

    Parameters
    ----------
    reviews, interactions
        Raw reviews, and interactions without text; at least one.
    k_core, split, seed, fractions, passage_unit
        As in `prepare`.
    positive
        Rule of positive interactions, None for all.
    metadata
        Function that reads the metadata of items with given ids, and of others that are not among the items
        of all interactions; None where there is none.

    Raises
    ------
    DataError
        If nothing is left to train on, or a column is missing that an option needs.
    """
    parts = [part for part in (reviews, interactions) if part is not None]
    source = " and ".join(part.label for part in parts)
    if positive:
        _check_positive(positive, reviews, interactions, source)
    shared: Json = {}
    if reviews is not None and interactions is not None:
        shared = {role: _num_shared(reviews.frame[role], interactions.frame[role]) for role in _SHARED}
    if interactions is None:
        rows = drop_duplicate_pairs(parts[0].frame)
    else:
        reviewed = interactions.frame.clear() if reviews is None else reviews.frame
        rows = join_interactions(reviewed, interactions.frame)
    rows_read = sum(part.frame.height for part in parts)
    counts: Json = {
        "rows_read": rows_read,
        "bad_lines": sum(part.bad_lines for part in parts),
        "sources": {
            name: part.to_json()
            for name, part in (("reviews", reviews), ("interactions", interactions))
            if part is not None
        },
        "duplicates_dropped": rows_read - rows.height,
        **({"shared_ids": shared} if shared else {}),
    }
    named_items = set(rows["item"].unique())
    rows, counts["k_core_removed"] = _k_core(rows, k_core, source)
    rows = rows.with_columns(pl.col("time_ms").floordiv(1000).alias("timestamp"))
    user_ids, item_ids = (rows[role].unique().sort() for role in ("user", "item"))
    rows = rows.with_columns(
        category_codes(rows["user"], user_ids).cast(pl.Int32).alias("user_idx"),
        category_codes(rows["item"], item_ids).cast(pl.Int32).alias("item_idx"),
    )
    rows = _order_by_time(rows)
    items = metadata(item_ids.to_list(), named_items) if metadata else None
    if items:  # those without interactions come last
        item_ids = pl.concat([item_ids, pl.Series(items.new_ids, dtype=pl.String)])
    descriptions = _description_passages(items)
    positives = positive.mask(rows) if positive else pl.repeat(True, rows.height, eager=True)
    rows = rows.with_columns(positives.alias("positive"))
    if split == GIVEN:  # interactions without text are train
        split_codes, groups = (
            rows["split"].fill_null(TRAIN).to_numpy(),
            duplicate_groups(rows, descriptions)[0],
        )
        check_train(rows["positive"].to_numpy(), split_codes, source)
    else:
        split_codes, groups = split_rows(rows, descriptions, source, split, seed, fractions)
    rows = rows.with_columns(pl.Series("split", split_codes))
    if passage_unit == "review":
        texts = rows.select("text", pl.lit("review").alias("kind"), "user_idx", "item_idx", "split")
    else:
        texts = _document_passages(rows, len(user_ids), len(item_ids))
    passages = pl.concat([_to_schema(texts, "passages"), descriptions])
    passage_idx = pl.int_range(rows.height) if passage_unit == "review" else pl.lit(-1)
    pairs = rows.with_columns(passage_idx.alias("passage_idx"))
    titles = pl.Series("title", items.titles if items else [None] * len(item_ids), dtype=pl.String)
    weight = pairs["weight"].cast(pl.Float32)
    frames = {
        "interactions": _to_schema(pairs, "interactions").with_columns(
            [] if weight.null_count() else [weight]
        ),
        "users": user_ids.alias("user_id").to_frame(),
        "items": pl.DataFrame([item_ids.alias("item_id"), titles, *(items.details() if items else ())]),
        "passages": passages,
    }
    counts |= _counts(frames, rows, groups)
    if items:
        counts["item_metadata"] = {
            "items_found": items.num_found,
            "items_without_interactions": len(items.new_ids),
            "descriptions": descriptions.height,
            "bad_lines": items.bad_lines,
            "fields": items.fields,
        }
    return Tables(frames, counts)


def _order_by_time(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows by user and time; those of the same time at random, those without one in the order of the source.

    The order of a source within one time is often that of item ids, from which a split would learn the item.
    """
    keys = random_keys(rows["user"].to_list(), rows["item"].to_list(), _TIE_SEED)
    tie = pl.when(pl.col("time_ms").is_null()).then(pl.col("position").cast(pl.UInt64))
    return rows.sort("user_idx", "time_ms", tie.otherwise(pl.Series(keys)), nulls_last=False)


def split_rows(
    rows: pl.DataFrame,
    descriptions: pl.DataFrame,
    source: Path | str,
    split: str,
    seed: int,
    fractions: Fractions,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Split of each interaction.

    Parameters
    ----------
    rows
        Columns user, item (external ids), user_idx, item_idx, text, timestamp (null if missing) and
        positive, ordered by user_idx, then time.
    descriptions
        Columns text and item_idx.
    source
        File or folder of the reviews, which errors name.
    split, seed, fractions
        As in `prepare`.

    Returns
    -------
    split_codes
        uint8 [n], TRAIN, VALID or TEST.
    groups
        int64 [n], group of duplicates of each row.

    Raises
    ------
    DataError
        If a time is missing that the split needs, or train would be empty or hold no positive.
    """
    if split != "random":
        _check_times(rows["timestamp"], split, source)
    groups, pinned = duplicate_groups(rows, descriptions)
    user = rows["user_idx"].to_numpy()
    num_users = int(user[-1]) + 1
    if split == "random":
        order = random_keys(rows["user"].to_list(), rows["item"].to_list(), seed)
        split_codes = split_by_user(user, order, groups, pinned, random_quotas(user, num_users, fractions))
    elif split == "leave-last-out":
        split_codes = split_by_user(
            user, recency_ranks(user), groups, pinned, leave_last_out_quotas(user, num_users)
        )
    else:
        split_codes = split_by_time(rows["timestamp"].to_numpy(), groups, pinned, fractions)
    if not (split_codes == TRAIN).any():
        raise DataError(
            f'{source}: `split="{split}"`: {rows["timestamp"].n_unique()} distinct times are too few for '
            'train, valid and test; use `split="random"`'
        )
    check_train(rows["positive"].to_numpy(), split_codes, source)
    return split_codes, groups


def check_train(positive: NDArray[np.bool_], split: NDArray[np.uint8], source: Path | str) -> None:
    """Check that there is something to train on. DataError if no interaction in train is positive."""
    if not (split == TRAIN).any():
        raise DataError(f"{source}: no review is in train")
    if not (positive & (split == TRAIN)).any():
        raise DataError(f"{source}: no positive is left in train, so nothing to learn; loosen `positive`")


def _num_shared(ids: pl.Series, others: pl.Series) -> int:
    return int(ids.unique().is_in(others.unique().implode()).sum())


def _check_positive(
    rule: PositiveRule, reviews: Reviews | None, interactions: Reviews | None, source: str
) -> None:
    """Check that some source has the column of the rule."""
    if rule.column == "weight":
        if interactions is None:
            raise DataError(
                f'{source}: `positive="{rule}"`, but only interactions without text have weights; '
                "give them as `interactions`"
            )
        return
    if not any(part is not None and part.has_ratings for part in (reviews, interactions)):
        setting = "columns" if reviews is not None else "interaction_columns"
        raise DataError(
            f'{source}: `positive="{rule}"`, but no rating field is known; name it with '
            f'`{setting}={{"rating": "FIELD"}}`'
        )


def _to_schema(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.select(*SCHEMAS[name]).cast(SCHEMAS[name])


def _k_core(rows: pl.DataFrame, k_core: int, source: str) -> tuple[pl.DataFrame, Json]:
    user, item = (category_codes(rows[role], rows[role].unique()).to_numpy() for role in ("user", "item"))
    keep, rounds = k_core_mask(user, item, k_core)
    core = rows.filter(keep)
    if core.is_empty():
        raise DataError(
            f"{source}: the {k_core}-core of its {rows.height:,} interactions is empty; lower `k_core`"
        )
    return core, {
        "rounds": rounds,
        "interactions": rows.height - core.height,
        "users": rows["user"].n_unique() - core["user"].n_unique(),
        "items": rows["item"].n_unique() - core["item"].n_unique(),
    }


def _check_times(times: pl.Series, split: str, source: Path | str) -> None:
    missing = times.null_count()
    if missing == len(times):
        raise DataError(
            f'{source}: `split="{split}"` needs times; name their field: `columns={{"time": "FIELD"}}`'
        )
    if missing:
        raise DataError(
            f'{source}: `split="{split}"` needs a time for every review, {missing:,} of {len(times):,} have '
            'none; use `split="random"`'
        )


def _description_passages(metadata: ItemMetadata | None) -> pl.DataFrame:
    texts = [metadata.passage(index) for index in range(len(metadata.titles))] if metadata else []
    frame = pl.DataFrame({"text": texts, "item_idx": range(len(texts))}, schema_overrides={"text": pl.String})
    frame = frame.filter(pl.col("text") != "").with_columns(
        pl.lit("description").alias("kind"), pl.lit(-1).alias("user_idx"), pl.lit(TRAIN).alias("split")
    )
    return _to_schema(frame, "passages")


def duplicate_groups(
    rows: pl.DataFrame, descriptions: pl.DataFrame
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Group of duplicates of each row, int64 [n], and rows that repeat the item's description, bool [n]."""
    num_rows = rows.height
    text_id = text_ids(chain(rows["text"], descriptions["text"]))
    by_item = pair_ids(
        np.concatenate([rows["item_idx"].to_numpy(), descriptions["item_idx"].to_numpy()]), text_id
    )
    by_user = pair_ids(rows["user_idx"].to_numpy(), text_id[:num_rows])
    described = by_item[num_rows:]
    pinned = np.isin(by_item[:num_rows], described[described >= 0])
    return connected_groups(by_user, by_item[:num_rows]), pinned


def _document_passages(rows: pl.DataFrame, num_users: int, num_items: int) -> pl.DataFrame:
    """Documents of train reviews, newest last: passage u of user u, passage num_users + i of item i."""
    train = rows.filter((pl.col("split") == TRAIN) & (pl.col("text") != ""))
    train = train.sort("time_ms", "position", nulls_last=False)
    parts = []
    for owner, other, count in (("user_idx", "item_idx", num_users), ("item_idx", "user_idx", num_items)):
        joined = train.group_by(owner).agg(pl.col("text").str.join("\n"))
        owners = pl.DataFrame({owner: pl.int_range(count, dtype=pl.Int32, eager=True)})
        document = owners.join(joined, on=owner, how="left", maintain_order="left")
        parts.append(
            document.with_columns(
                pl.col("text").fill_null(""),
                pl.lit("document").alias("kind"),
                pl.lit(-1).alias(other),
                pl.lit(TRAIN).alias("split"),
            ).pipe(_to_schema, "passages")
        )
    return pl.concat(parts)


def _counts(frames: dict[str, pl.DataFrame], rows: pl.DataFrame, groups: NDArray[np.int64]) -> Json:
    num_users, num_items = frames["users"].height, frames["items"].height
    sizes = np.bincount(groups)
    words = rows.filter(pl.col("text") != "")["text"].str.count_matches(r"\S+").median()
    return {
        "users": num_users,
        "items": num_items,
        "interactions": rows.height,
        "passages": frames["passages"].height,
        "per_split": count_splits(rows["split"].to_numpy()),
        "positives": int(rows["positive"].sum()),
        "density": rows.height / (num_users * num_items),
        "median_words": words,
        "empty_texts": int((rows["text"].str.strip_chars() == "").sum()),
        "without_rating": rows["rating"].null_count(),
        "without_time": rows["time_ms"].null_count(),
        "copies_kept_together": {
            "groups": int((sizes > 1).sum()),
            "interactions": int(sizes[sizes > 1].sum()),
        },
    }
