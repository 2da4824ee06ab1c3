"""CSV: the standard library's reader, which counts physical lines and refuses broken quoting."""

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.data.readers.json_lines import LINE, NOT_UTF8, BadLines

if TYPE_CHECKING:
    from _csv import Reader

_ROWS: Final = 100_000  # rows a frame
_DELIMITERS: Final = ",\t;|"


def csv_header(path: Path, file: IO[bytes]) -> list[str]:
    """The column names. Raises DataError where the first line is not UTF-8."""
    with _reader(path, file) as reader:
        header = next(reader, [])
    if any(map(_undecodable, header)):
        raise DataError(f"{path}: line 1: {NOT_UTF8}")
    return header


def read_csv(
    path: Path, file: IO[bytes], fields: Mapping[str, str]
) -> Iterator[tuple[pl.DataFrame, BadLines]]:
    """Yields frames of `line` (int64) and one string column per role, and the bad lines.

    A record that spans several lines goes by its first. Raises DataError where a quote is never closed.
    """
    schema = {LINE: pl.Int64(), **dict.fromkeys(fields, pl.String())}
    with _reader(path, file) as reader:
        header = next(reader)
        for name in fields.values():
            if header.count(name) > 1:
                raise DataError(f"{path}: line 1: column {name!r} is there {header.count(name)} times")
        places = [header.index(name) for name in fields.values()]
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
                values = [record[place] for place in places]
                if any(not value.isascii() and _undecodable(value) for value in values):
                    bad.append((number, NOT_UTF8))
                    continue
                rows.append((number, *values))
                if len(rows) == _ROWS:
                    yield pl.DataFrame(rows, schema=schema, orient="row"), bad
                    rows, bad = [], []
        except csv.Error as error:
            raise DataError(
                f"{path}: line {start}: not CSV from here on ({error}); a text with a quote in it stands in "
                "quotes, and the quote twice"
            ) from None
        yield pl.DataFrame(rows, schema=schema, orient="row"), bad


def _undecodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


@contextmanager
def _reader(path: Path, file: IO[bytes]) -> Iterator["Reader"]:
    """A strict reader whose delimiter is the one seen most often in the header line."""
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
