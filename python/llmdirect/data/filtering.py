"""Filters of interactions: duplicate pairs and the k-core."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect.data.readers.record_file import LINE


def drop_duplicate_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Last row of each (user, item) pair: by `time_ms`, missing first, then by position in the file.

    Parameters
    ----------
    frame
        Rows of `Reviews.frame`.

    Returns
    -------
    The remaining rows, without `LINE`, with their position in the file in the column `position`.
    """
    rows = frame.drop(LINE).with_row_index("position")
    newest_last = rows.sort("time_ms", "position", nulls_last=False)
    return newest_last.unique(["user", "item"], keep="last", maintain_order=True)


def join_interactions(reviews: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """Pairs of reviews and of interactions without text, once each.

    Parameters
    ----------
    reviews, interactions
        Rows as `drop_duplicate_pairs` takes them.

    Returns
    -------
    Rows as it returns them; a pair with a review is that review. The weight of a pair is the sum of the
    weights of its interactions, 1 for one without a weight, and 1 for its review.
    """
    pair = ["user", "item"]
    summed = interactions.group_by(pair).agg(pl.col("weight").fill_null(1).sum().alias("ordered"))
    reviewed = drop_duplicate_pairs(reviews).with_columns(pl.lit(1, pl.Float32).alias("weight"))
    newest = drop_duplicate_pairs(interactions).with_columns(
        pl.lit(0, pl.Float32).alias("weight"), (pl.col("position") + reviews.height).alias("position")
    )
    rows = pl.concat([reviewed, newest.join(reviewed, pair, "anti", maintain_order="left")])
    total = pl.col("weight") + pl.col("ordered").fill_null(0)
    return (
        rows.join(summed, pair, "left", maintain_order="left")
        .with_columns(total.alias("weight"))
        .drop("ordered")
    )


def k_core_mask(user: NDArray[np.uint32], item: NDArray[np.uint32], k: int) -> tuple[NDArray[np.bool_], int]:
    """k-core: the largest set of interactions in which every user and every item has at least k.

    Parameters
    ----------
    user, item
        uint32 [n], contiguous indices.
    k
        Minimum number of interactions; 0 keeps all.

    Returns
    -------
    mask
        bool [n], the interactions of the k-core.
    rounds
        Number of passes that removed interactions.
    """
    kept = np.ones(len(user), dtype=np.bool_)
    rounds = 0
    while True:
        per_user = np.bincount(user[kept], minlength=int(user.max(initial=0)) + 1)
        per_item = np.bincount(item[kept], minlength=int(item.max(initial=0)) + 1)
        smaller = kept & (per_user[user] >= k) & (per_item[item] >= k)
        if smaller.sum() == kept.sum():
            return kept, rounds
        kept = smaller
        rounds += 1


def category_codes(values: pl.Series, categories: pl.Series) -> pl.Series:
    """Position of each value in unique categories: uint32."""
    return values.cast(pl.Enum(categories)).to_physical()
