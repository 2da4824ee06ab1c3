"""Ranked lists as Parquet and TREC run files."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect.common.csr import Csr
from llmdirect.common.files import check_writable, write_atomic
from llmdirect.ranking.top_k import RankedLists


def check_ranked_lists_path(path: Path) -> None:
    """Check that ranked lists can be written to a path, before they are computed.

    Raises
    ------
    ValueError
        If `path` does not end in .parquet.
    OSError
        If it cannot be written.
    """
    if path.suffix != ".parquet":
        raise ValueError(f"{path}: ranked lists are written as Parquet; give a name that ends in .parquet")
    check_writable(path)


def write_ranked_lists(
    path: Path, lists: RankedLists, user_ids: Sequence[str], item_ids: Sequence[str]
) -> None:
    """Write ranked lists as Parquet and as a TREC run file.

    The Parquet file has the columns user_idx i32, item_idx i32, rank i32 (from 1) and score f32. The TREC
    file next to it has the suffix .trec and lines ``user_id Q0 item_id rank score llmdirect``; whitespace
    and % in ids are percent-encoded there (`urllib.parse.unquote` decodes them). Each file is replaced
    atomically.

    Parameters
    ----------
    path
        The Parquet file.
    user_ids, item_ids
        External id of each index.

    Raises
    ------
    ValueError
        If `path` does not end in .parquet, or an id is missing or empty.
    """
    check_ranked_lists_path(path)
    listed = lists.items >= 0
    rows, columns = np.nonzero(listed)
    table = pl.DataFrame(
        {
            "user_idx": lists.user_rows[rows],
            "item_idx": lists.items[listed],
            "rank": (columns + 1).astype(np.int32),
            "score": lists.scores[listed],
        }
    )
    trec = table.select(
        _tokens("user_ids", user_ids, table["user_idx"]),
        pl.lit("Q0").alias("Q0"),
        _tokens("item_ids", item_ids, table["item_idx"]),
        "rank",
        "score",
        pl.lit("llmdirect").alias("tag"),
    )
    write_atomic(path, table.write_parquet)
    write_atomic(
        path.with_suffix(".trec"),
        lambda file: trec.write_csv(file, include_header=False, separator=" ", quote_style="never"),
    )


def write_qrels(
    path: Path,
    user_rows: NDArray[np.int32],
    relevant: Csr,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
) -> None:
    """Write relevant items as TREC qrels, ``user_id 0 item_id 1``, ids encoded as in the run file.

    Parameters
    ----------
    user_rows
        int32 [B] user indices.
    relevant
        B rows of items.
    user_ids, item_ids
        External id of each index.
    """
    users = pl.Series(np.repeat(user_rows, np.diff(relevant.indptr)))
    qrels = pl.DataFrame(
        [
            _tokens("user_ids", user_ids, users),
            pl.repeat(0, len(users), eager=True).alias("0"),
            _tokens("item_ids", item_ids, pl.Series(relevant.indices)),
            pl.repeat(1, len(users), eager=True).alias("1"),
        ]
    )
    write_atomic(
        path, lambda file: qrels.write_csv(file, include_header=False, separator=" ", quote_style="never")
    )


def _tokens(name: str, ids: Sequence[str], indices: pl.Series) -> pl.Series:
    """The id of each index, percent-encoded to one token of a line."""
    highest = indices.max()
    if isinstance(highest, int) and highest >= len(ids):
        raise ValueError(f"{name} has {len(ids)} ids, but the lists hold index {highest}")
    tokens = [re.sub(r"[\s%]", lambda match: quote(match[0]), external) for external in ids]
    if "" in tokens:
        raise ValueError(f"{name}[{tokens.index('')}] is empty; a TREC file cannot hold it")
    return pl.Series(name, tokens, dtype=pl.String).gather(indices)
