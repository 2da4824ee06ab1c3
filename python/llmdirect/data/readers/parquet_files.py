"""Raw Parquet files: whatever Polars cannot read becomes an error that names the file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from llmdirect.common.errors import DataError


def parquet_columns(path: Path) -> list[str]:
    """The column names. Raises DataError where the file is damaged, or compressed as a whole."""
    with _damage_named(path):
        return list(pl.read_parquet_schema(path))


def read_parquet(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """These columns. Raises DataError where the file is damaged."""
    with _damage_named(path):
        return pl.read_parquet(path, columns=list(columns))


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise DataError(
                f"{path}: a Parquet file inside a compressed one; unpack it (Parquet is compressed within)"
            )
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # bad pages can panic
        raise DataError(f"{path}: damaged, not readable as Parquet ({error}); fetch it again") from None
