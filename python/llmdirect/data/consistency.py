"""Checks of the tables of a dataset that its readers rely on: indices in range, ids and pairs unique."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect.common.errors import DataError

NUM_SPLITS: Final = 3
_MAX_SECONDS: Final = (2**63 - 1) // 1000  # times are read as milliseconds
_MAX_ROWS: Final = 2**31 - 1  # indices are int32


def check_consistency(
    tables: Mapping[str, pl.DataFrame], paths: Mapping[str, Path], unit: str, cure: str
) -> None:
    """Check indices, splits and times of the tables of a dataset, and that ids and pairs are there once.

    Parameters
    ----------
    tables, paths
        Tables by name, and their files, for messages.
    unit
        Unit of passages, "review" or "document".
    cure
        What to do about a table that is wrong.

    Raises
    ------
    DataError
        For the first row that is wrong; the message has file, column, row, and cure.
    """
    num_users, num_items, num_passages = (tables[name].height for name in ("users", "items", "passages"))
    for name in ("users", "items", "passages"):
        if tables[name].height > _MAX_ROWS:
            raise DataError(
                f"{paths[name]}: {tables[name].height:,} rows, at most {_MAX_ROWS:,} are read; {cure}"
            )
    lowest = -1 if unit == "document" else 0
    for table, column, low, high in (
        ("interactions", "user_idx", 0, num_users - 1),
        ("interactions", "item_idx", 0, num_items - 1),
        ("interactions", "passage_idx", lowest, num_passages - 1),
        ("interactions", "split", 0, NUM_SPLITS - 1),
        ("interactions", "timestamp", -_MAX_SECONDS, _MAX_SECONDS),
        ("passages", "user_idx", -1, num_users - 1),
        ("passages", "item_idx", -1, num_items - 1),
        ("passages", "split", 0, NUM_SPLITS - 1),
    ):
        values = tables[table][column]
        outside = ((values < low) | (values > high)).fill_null(False)
        if outside.any():
            row = int(outside.arg_max() or 0)
            raise DataError(
                f"{paths[table]}: {column} is {values[row]} in row {row}, expected {low} to {high}; {cure}"
            )
    for table, column in (("users", "user_id"), ("items", "item_id")):
        ids = tables[table][column]
        if not ids.is_unique().all():
            row = _first_repeated(ids.to_numpy())
            raise DataError(
                f"{paths[table]}: {column} {ids[row]!r} is there twice, again in row {row}; {cure}"
            )
    rows = tables["interactions"]
    pairs = rows["user_idx"].to_numpy().astype(np.int64) * max(num_items, 1) + rows["item_idx"].to_numpy()
    if len(pairs) and len(np.unique(pairs)) < len(pairs):
        row = _first_repeated(pairs)
        user, item = rows["user_idx"][row], rows["item_idx"][row]
        raise DataError(
            f"{paths['interactions']}: the pair of user {user} and item {item} is there twice, again in "
            f"row {row}; {cure}"
        )


def _first_repeated(values: NDArray[Any]) -> int:
    """First row with a value of an earlier row."""
    repeated = np.ones(len(values), dtype=np.bool_)
    repeated[np.unique(values, return_index=True)[1]] = False
    return int(np.argmax(repeated))
