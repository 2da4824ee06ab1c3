"""Raw Parquet files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from llmdirect.common.errors import DataError


def parquet_columns(path: Path) -> list[str]:
    """Column names of a Parquet file.

    Raises
    ------
    DataError
        If the file is damaged, or compressed as a whole.
    """
    with _as_data_error(path):
        return list(pl.read_parquet_schema(path))


def read_parquet(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Read columns of a Parquet file.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    with _as_data_error(path):
        return pl.read_parquet(path, columns=list(columns))


@contextmanager
def _as_data_error(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise DataError(
                f"{path}: a Parquet file inside a compressed one; unpack it (Parquet is compressed within)"
            )
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # bad pages can panic
        raise DataError(f"{path}: damaged, not readable as Parquet ({error}); fetch it again") from None
