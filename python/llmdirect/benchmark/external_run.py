"""Rows of ranked lists that somebody else's model made."""

from pathlib import Path
from typing import Final
from urllib.parse import unquote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect.benchmark.benchmark import Benchmark, FittedRow, Row
from llmdirect.benchmark.models import FittedModel
from llmdirect.common.errors import DataError
from llmdirect.common.files import file_digest
from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.evaluation.queries import Queries

_NAMES: Final = {"user": ("user", "user_id", "query_id"), "item": ("item", "item_id", "doc_id")}
_SHOWN: Final = 3


class ListsModel(FittedModel):
    """Given lists, without the items that a user has seen.

    Parameters
    ----------
    lists
        Items of each user index, best first.
    """

    def __init__(self, lists: dict[int, NDArray[np.int32]]) -> None:
        self._lists = lists

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]: minus the rank of listed items, -inf for others."""
        scores = np.full((len(queries), queries.num_items), -np.inf, np.float32)
        for row, user in enumerate(queries.users.tolist()):
            items = self._lists.get(user, np.empty(0, np.int32))
            scores[row, items] = -np.arange(len(items), dtype=np.float32)
        return scores


def external_row(path: Path, dataset: Dataset) -> Row:
    """Row of a file of ranked lists.

    Parameters
    ----------
    path
        TREC run (``user Q0 item rank score tag``, ids percent-encoded as `test --lists-out` writes them) or
        a Parquet table with the columns user or user_id, item or item_id, and score or rank.
    dataset
        The dataset whose test split the lists are for.

    Raises
    ------
    DataError
        If the file is not of these forms, or names an unknown item or no known user.
    """
    table = _read(path)
    users = pl.DataFrame({"user": dataset.user_ids, "u": np.arange(dataset.num_users, dtype=np.int32)})
    items = pl.DataFrame({"item": dataset.item_ids, "i": np.arange(dataset.num_items, dtype=np.int32)})
    joined = table.join(users, on="user", how="left").join(items, on="item", how="left")
    unknown = joined.filter(pl.col("i").is_null())["item"].unique().sort()
    if len(unknown):
        shown = ", ".join(map(repr, unknown.head(_SHOWN).to_list()))
        raise DataError(f"{path}: {len(unknown):,} items are not in {dataset.path}, such as {shown}")
    known = joined.filter(pl.col("u").is_not_null())
    if known.is_empty():
        raise DataError(f"{path}: none of its users is in {dataset.path}, such as {joined['user'][0]!r}")
    if known.select("u", "i").is_duplicated().any():
        raise DataError(f"{path}: lists an item twice for a user")
    ordered = known.sort("u", "order")
    lists = {int(user): rows["i"].to_numpy() for (user,), rows in ordered.group_by("u", maintain_order=True)}

    def fit(benchmark: Benchmark, split: int, settings: Json) -> FittedRow:
        return FittedRow(ListsModel(lists), {"lists": len(lists)})

    return Row(fit, fixed_settings={"file": file_digest(path)})


def _read(path: Path) -> pl.DataFrame:
    """Columns user, item (strings) and order (float64, ascending from the best)."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found")
    if path.suffix != ".parquet":
        return _read_trec(path)
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path}: not readable as Parquet ({error})") from None
    names = {
        role: next((name for name in options if name in table.columns), None)
        for role, options in _NAMES.items()
    }
    order = next((name for name in ("score", "rank") if name in table.columns), None)
    if None in names.values() or order is None:
        raise DataError(
            f"{path}: has the columns {', '.join(table.columns)}; expected user or user_id, item or item_id, "
            "and score or rank"
        )
    sign = -1.0 if order == "score" else 1.0
    return table.select(
        *(pl.col(name).cast(pl.String).alias(role) for role, name in names.items() if name),
        (pl.col(order).cast(pl.Float64) * sign).alias("order"),
    )


def _read_trec(path: Path) -> pl.DataFrame:
    rows: list[tuple[str, str, float]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            parts = line.split()
            try:
                user, _, item, _, score, *_ = parts
                rows.append((unquote(user), unquote(item), -float(score)))
            except ValueError:
                raise DataError(
                    f"{path}: line {number} is not `user Q0 item rank score tag`: {line.strip()[:60]!r}"
                ) from None
    if not rows:
        raise DataError(f"{path}: the file is empty")
    return pl.DataFrame(
        rows, schema={"user": pl.String, "item": pl.String, "order": pl.Float64}, orient="row"
    )
