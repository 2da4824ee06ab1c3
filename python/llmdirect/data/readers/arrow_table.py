"""Raw tables of columns: Parquet and Feather files, and tables in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet

from llmdirect.common.errors import DataError
from llmdirect.common.progress import Progress
from llmdirect.data.readers.record_file import LINE, Piece


class ArrowTable:
    """Records of a table of columns.

    Parameters
    ----------
    label
        Its path or name, for messages.
    description
        Its format in words.
    names
        Names of its columns.
    read
        Function that reads some columns.
    """

    unit = "row"

    def __init__(
        self, label: str, description: str, names: list[str], read: Callable[[list[str]], pa.Table]
    ) -> None:
        self.label, self.description, self.names, self._read = label, description, names, read

    @classmethod
    def of_parquet(cls, path: Path, label: str) -> "ArrowTable":
        """Table of a Parquet file. Raises DataError if it is damaged or compressed as a whole."""

        def read(columns: list[str]) -> pa.Table:
            return _checked(label, "Parquet", lambda: pyarrow.parquet.ParquetFile(path).read(columns))

        _check_plain(path, label, (b"PAR1",), "a Parquet file")
        schema = _checked(label, "Parquet", lambda: pyarrow.parquet.read_schema(path))
        return cls(label, "Parquet", schema.names, read)

    @classmethod
    def of_feather(cls, path: Path, label: str) -> "ArrowTable":
        """Table of a Feather or Arrow file. Raises DataError if it is damaged."""
        _check_plain(path, label, (b"ARROW1", b"FEA1"), "a Feather file")
        table = _checked(label, "Feather", lambda: pyarrow.feather.read_table(path, memory_map=True))
        return cls(label, "Feather", table.column_names, table.select)

    @classmethod
    def in_memory(cls, table: pa.Table, label: str) -> "ArrowTable":
        """Table in memory."""
        return cls(label, "a table in memory", table.column_names, table.select)

    def frames(self, fields: Mapping[str, str], progress: Progress) -> Iterator[Piece]:
        """Read the field of each role; see `RecordFile`."""
        table = self._read(list(dict.fromkeys(fields.values())))
        columns = {
            role: self._as_text(table.column(name), role, name).combine_chunks()
            for role, name in fields.items()
        }
        frame = pl.DataFrame({role: pl.from_arrow(column) for role, column in columns.items()})
        yield frame.cast(pl.String).with_row_index(LINE, offset=1).cast({LINE: pl.Int64}), []

    def records(
        self, names: Sequence[str], progress: Progress
    ) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
        """Read some fields with values of any type; see `RecordFile`."""
        start = 1
        for batch in self._read(list(names)).to_batches():
            yield from enumerate(batch.to_pylist(), start)
            start += len(batch)

    def _as_text(self, column: pa.ChunkedArray, role: str, name: str) -> pa.ChunkedArray:
        """Column of strings: times as ISO 8601 in UTC, true and false as 1 and 0."""
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = column.type
        if pa.types.is_null(kind) or _is_string(kind):
            return column.cast(pa.large_string())
        if role == "time" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            return pc.strftime(column.cast(pa.timestamp("ms"), safe=False), "%Y-%m-%dT%H:%M:%S")
        if role in ("rating", "weight") and pa.types.is_boolean(kind):
            return column.cast(pa.int8()).cast(pa.large_string())
        if pa.types.is_decimal(kind):
            column, kind = column.cast(pa.float64()), pa.float64()
        if pa.types.is_integer(kind):
            return column.cast(pa.large_string())
        if pa.types.is_floating(kind):
            if pa.types.is_float16(kind):
                column = column.cast(pa.float32())
            return _float_text(column)
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            try:
                return column.cast(pa.large_string())
            except pa.ArrowInvalid:
                raise DataError(f"{self.label}: column {name!r} holds bytes that are not UTF-8") from None
        expected = {
            "time": "dates, timestamps, or numbers since 1970",
            "rating": "numbers",
            "weight": "numbers",
        }.get(role, "text or numbers")
        raise DataError(f"{self.label}: column {name!r} is {kind}, expected {expected} for the {role}")


def _is_string(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _float_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Shortest decimals of floats, of whole ones without a point; NaN is missing."""
    column = pc.if_else(pc.is_nan(column), None, column)
    text = column.cast(pa.large_string())
    is_whole = pc.and_(pc.equal(column, pc.round(column)), pc.less(pc.abs(column), 2.0**53))
    whole = pc.if_else(is_whole, column, None).cast(pa.int64()).cast(pa.large_string())
    return pc.coalesce(whole, text)


def _check_plain(path: Path, label: str, marks: tuple[bytes, ...], kind: str) -> None:
    """Check that a file is not compressed as a whole."""
    with path.open("rb") as file:
        head = file.read(6)
    if not head.startswith(marks):
        raise DataError(f"{label}: {kind} inside a compressed one; unpack it (its columns are compressed)")


def _checked(label: str, kind: str, read: Callable[[], Any]) -> Any:
    """Result of reading a file; DataError where it is damaged."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).split("\n")[0]
        raise DataError(f"{label}: damaged, not readable as {kind} ({reason}); fetch it again") from None
