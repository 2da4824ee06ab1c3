"""Raw files of delimited text: CSV, tab-separated, RecBole atomic files, MovieLens."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.readers.bad_lines import BadLines
from llmdirect.data.readers.dialects import (
    Dialect,
    Record,
    choose_dialect,
    read_records,
)
from llmdirect.data.readers.encodings import NOT_UTF8, is_utf8
from llmdirect.data.readers.headers import check_widths, read_header
from llmdirect.data.readers.raw_files import open_decompressed
from llmdirect.data.readers.record_file import LINE, Piece

_FRAME_ROWS: Final = 100_000
_SAMPLED_LINES: Final = 200
_END_OF_COPY: Final = "\\."
"""Last line of what COPY of PostgreSQL writes."""
NumberedLines = Iterator[tuple[int, str]]


class DelimitedFile:
    """Records of a file of delimited text.

    Parameters
    ----------
    path
        The file, plain or compressed.
    label
        Its name in messages; by default its path.
    encoding
        Encoding of the file; by default UTF-8, or that of its byte order mark.
    quote
        One of `dialects.QUOTES`; by default found in the file.
    header
        Whether the first line holds the field names; else they are "0", "1", ….
    """

    unit = "line"

    def __init__(
        self,
        path: Path,
        *,
        label: str | None = None,
        encoding: str | None = None,
        quote: str | None = None,
        header: bool = True,
    ) -> None:
        self.label = label or str(path)
        self._path, self._title, self._encoding = path, label, encoding
        with open_decompressed(path, encoding=encoding, label=label) as file:
            head = file.read(1 << 16)
        # Old programs of the Macintosh end lines by carriage returns alone.
        self._line_end = "\r" if b"\r" in head and b"\n" not in head else "\n"
        with self._lines() as lines:
            sample = list(islice(lines, _SAMPLED_LINES))
        first = read_header(self.label, sample, header)
        if header:
            check_widths(self.label, sample, first)
        self._first_line = first.first_line
        self._header_lines = first.last_line if header else first.first_line - 1
        self.names = first.names if header else [str(n) for n in range(len(first.values))]
        self._dialect = Dialect(first.delimiter, quote) if quote else self._choose_dialect(first.delimiter)
        self.description = f"delimited by {self._dialect}"

    def frames(self, fields: Mapping[str, str], progress: Progress) -> Iterator[Piece]:
        """Read the field of each role, in pieces; see `RecordFile`."""
        self._check_repeated(fields.values())
        positions = [self.names.index(name) for name in fields.values()]
        schema = {LINE: pl.Int64(), **dict.fromkeys(fields, pl.String())}
        rows: list[tuple[int | str, ...]] = []
        bad: BadLines = []
        for record in self._records(progress):
            reason = record.reason
            if reason is None:
                values = [record.values[position] for position in positions]
                joined = "".join(values)
                if not joined.isascii() and not is_utf8(joined):
                    reason = NOT_UTF8
            if reason is not None:
                bad.append((record.line, reason))
                continue
            rows.append((record.line, *values))
            if len(rows) == _FRAME_ROWS:
                yield pl.DataFrame(rows, schema=schema, orient="row"), bad
                rows, bad = [], []
        yield pl.DataFrame(rows, schema=schema, orient="row"), bad

    def records(
        self, names: Sequence[str], progress: Progress
    ) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
        """Read some fields; see `RecordFile`."""
        for frame, bad in self.frames({name: name for name in names}, progress):
            for row in frame.iter_rows(named=True):
                yield row[LINE], row
            for number, reason in bad:
                yield number, ValueError(reason)

    @contextmanager
    def _lines(self, progress: Progress = SILENT) -> Iterator[NumberedLines]:
        """Numbered lines of the file without line feeds; a carriage return before one stays."""
        with open_decompressed(self._path, progress, encoding=self._encoding, label=self._title) as file:
            # surrogateescape lets a line that is not UTF-8 through, so that it can be named
            end = self._line_end
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=end)
            yield _without_end((number, line.removesuffix(end)) for number, line in enumerate(text, start=1))
            text.detach()

    def _choose_dialect(self, delimiter: str) -> Dialect:
        def lines() -> NumberedLines:
            with self._lines() as numbered:
                yield from islice(numbered, self._header_lines, None)

        return choose_dialect(lines, delimiter, len(self.names))

    def _records(self, progress: Progress) -> Iterator[Record]:
        with self._lines(progress) as lines:
            body = islice(lines, self._header_lines, None)
            yield from read_records(body, self._dialect, len(self.names))

    def _check_repeated(self, names: Iterable[str]) -> None:
        for name in names:
            if (count := self.names.count(name)) > 1:
                raise DataError(
                    f"{self.label}: line {self._first_line}: column {name!r} is there {count} times"
                )


def _without_end(lines: NumberedLines) -> NumberedLines:
    """Lines without the end mark of PostgreSQL, after which only blank ones may come."""
    held: list[tuple[int, str]] = []
    for number, line in lines:
        if held:
            held.append((number, line))
            if line.strip():
                yield from held
                held = []
        elif line.removesuffix("\r") == _END_OF_COPY:
            held = [(number, line)]
        else:
            yield number, line
