"""Raw rows to the interactions that stay: one row per (user, item), and the k-core."""

import numpy as np
import polars as pl
from numpy.typing import NDArray


def distinct_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Keeps the last row of each (user, item): by time_ms (missing first), then by position in the file.

    Adds `position`, the row's place in the file.
    """
    rows = frame.drop("line").with_row_index("position")
    newest_last = rows.sort("time_ms", "position", nulls_last=False)
    return newest_last.unique(["user", "item"], keep="last", maintain_order=True)


def k_core_mask(user: NDArray[np.uint32], item: NDArray[np.uint32], k: int) -> tuple[NDArray[np.bool_], int]:
    """The largest set of interactions in which every user and every item has at least k.

    user, item: contiguous numbers, [n]. Returns the mask [n] and the number of rounds that removed some.
    """
    keep = np.ones(len(user), dtype=np.bool_)
    rounds = 0
    while True:
        per_user = np.bincount(user[keep], minlength=int(user.max(initial=0)) + 1)
        per_item = np.bincount(item[keep], minlength=int(item.max(initial=0)) + 1)
        smaller = keep & (per_user[user] >= k) & (per_item[item] >= k)
        if smaller.sum() == keep.sum():
            return keep, rounds
        keep = smaller
        rounds += 1


def codes(values: pl.Series, ordered: pl.Series) -> pl.Series:
    """The place of each value in `ordered` (unique values): uint32."""
    return values.cast(pl.Enum(ordered)).to_physical()
