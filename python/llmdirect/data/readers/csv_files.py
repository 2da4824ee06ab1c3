"""Raw CSV files, read strictly."""

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.data.readers.bad_lines import BadLines
from llmdirect.data.readers.json_lines import LINE, NOT_UTF8

if TYPE_CHECKING:
    from _csv import Reader

_FRAME_ROWS: Final = 100_000
_DELIMITERS: Final = ",\t;|"


def csv_header(path: Path, file: IO[bytes]) -> list[str]:
    """Column names of a CSV file.

    Raises
    ------
    DataError
        If the first line is not UTF-8.
    """
    with _csv_reader(path, file) as reader:
        header = next(reader, [])
    if any(map(_is_not_utf8, header)):
        raise DataError(f"{path}: line 1: {NOT_UTF8}")
    return header


def read_csv(
    path: Path, file: IO[bytes], fields: Mapping[str, str]
) -> Iterator[tuple[pl.DataFrame, BadLines]]:
    """Read columns of a CSV file in pieces.

    Parameters
    ----------
    path
        Path of the file, for errors.
    file
        The open file, decompressed.
    fields
        Column name of each role.

    Yields
    ------
    frame
        Columns `line` (int64; the first line of a record) and a string column per role.
    bad
        Bad lines.

    Raises
    ------
    DataError
        If quoting is broken, or a column name is repeated.
    """
    schema = {LINE: pl.Int64(), **dict.fromkeys(fields, pl.String())}
    with _csv_reader(path, file) as reader:
        header = next(reader)
        for name in fields.values():
            if header.count(name) > 1:
                raise DataError(f"{path}: line 1: column {name!r} is there {header.count(name)} times")
        positions = [header.index(name) for name in fields.values()]
        rows: list[tuple[int | str, ...]] = []
        bad: BadLines = []
        start = reader.line_num + 1
        try:
            for record in reader:
                number, start = start, reader.line_num + 1
                if not record:
                    continue
                if len(record) != len(header):
                    bad.append((number, f"{len(record)} fields, the header has {len(header)}"))
                    continue
                values = [record[position] for position in positions]
                if any(not value.isascii() and _is_not_utf8(value) for value in values):
                    bad.append((number, NOT_UTF8))
                    continue
                rows.append((number, *values))
                if len(rows) == _FRAME_ROWS:
                    yield pl.DataFrame(rows, schema=schema, orient="row"), bad
                    rows, bad = [], []
        except csv.Error as error:
            raise DataError(
                f"{path}: line {start}: not CSV from here on ({error}); write a text with a quote in "
                "quotes, and the quote twice"
            ) from None
        yield pl.DataFrame(rows, schema=schema, orient="row"), bad


def _is_not_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


@contextmanager
def _csv_reader(path: Path, file: IO[bytes]) -> Iterator["Reader"]:
    """Strict reader; the delimiter is the most frequent one of the header line."""
    # surrogateescape lets a line that is not UTF-8 through, so that it can be named
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    head = text.readline()
    delimiter = max(_DELIMITERS, key=head.count)
    limit = csv.field_size_limit(1 << 30)  # the default refuses texts above 128 KiB
    try:
        yield csv.reader(chain([head] if head else [], text), delimiter=delimiter, strict=True)
    finally:
        csv.field_size_limit(limit)
        text.detach()
