"""Dialects of delimited text: the delimiter, and how a value may hold a delimiter or a line break."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from _csv import Reader

QUOTES: Final = ("none", "double", "backslash")
"""Ways of quoting: no quotes, a quote inside quotes written twice, or escaped by a backslash."""
DELIMITERS: Final = {"::": "'::'", "\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
"""Delimiters and their names in messages."""
_MAX_RECORD_LINES: Final = 1000  # of a record with line breaks; a quote that opens more is a stray one
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r"}
_NEEDS_QUOTES: Final = re.compile(r'["\r]')
_UNCLOSED: Final = "a quote is not closed"
_QUOTE_MESSAGES: Final = {
    "none": "without quotes",
    "double": "quoted where needed",
    "backslash": "with backslash escapes",
}


@dataclass(frozen=True)
class Dialect:
    """Dialect of delimited text."""

    delimiter: str
    quote: str
    """One of `QUOTES`."""
    is_regular: bool = False
    """Whether the csv module of the standard library reads every record."""

    def __str__(self) -> str:
        return f"{DELIMITERS[self.delimiter]}, {_QUOTE_MESSAGES[self.quote]}"


class Record(NamedTuple):
    """One record of delimited text, or the line that is none."""

    line: int
    """Number of its first line, from 1."""
    values: list[str]
    reason: str | None = None
    """Why it cannot be used."""


def choose_dialect(lines: Callable[[], Iterable[tuple[int, str]]], delimiter: str, width: int) -> Dialect:
    """Dialect in which the records of a file have the width of its header.

    A file in which every line has that width holds one record a line. It is quoted only where its quotes say
    so: every value that starts with a quote also ends with one, and either a whole column is quoted, or the
    quotes were needed. Any other file is quoted if every record then has the width of the header. Where no
    dialect reads every record, the one with the fewest bad records is taken.

    Parameters
    ----------
    lines
        Function that returns the numbered lines of the records, without the header, from the start.
    delimiter
        Of the file.
    width
        Number of columns of the header.
    """
    if delimiter == "::":  # MovieLens and its kind have no quotes
        return Dialect(delimiter, "none")
    dialects = {quote: Dialect(delimiter, quote) for quote in QUOTES}
    survey = _survey(lines(), delimiter, width)
    if not survey.has_quotes:
        escaped = None
        if survey.has_nulls or (survey.num_bad and survey.has_escapes):
            escaped = _clean_dialect(lines(), dialects["backslash"], width)
        return escaped or dialects["none"]
    if not survey.num_bad and not survey.is_quoted:
        return dialects["none"]
    for quote in ("double", "backslash"):
        if clean := _clean_dialect(lines(), dialects[quote], width):
            return clean
    if not survey.num_bad and not survey.has_quoted_column:
        return dialects["none"]
    num_bad = {
        quote: sum(record.reason is not None for record in read_records(lines(), dialects[quote], width))
        for quote in ("double", "backslash")
    }
    if not survey.has_quoted_column:
        num_bad["none"] = survey.num_bad
    return dialects[min(num_bad, key=lambda quote: num_bad[quote])]


class _Survey(NamedTuple):
    """What the lines of a file look like where each of them is one record."""

    num_bad: int
    """Number of lines without the width of the header."""
    has_quotes: bool
    """Whether a value starts with a quote."""
    has_escapes: bool
    """Whether there is a backslash."""
    has_nulls: bool
    r"""Whether a value is \N, which MySQL and PostgreSQL write beside other escapes."""
    has_quoted_column: bool
    """Whether all values of a column are in quotes."""
    is_quoted: bool
    """Whether the quotes are those of a quoted file."""


def _survey(lines: Iterable[tuple[int, str]], delimiter: str, width: int) -> _Survey:
    num_bad = 0
    has_quotes = has_escapes = has_nulls = broken = superfluous = False
    quoted: set[int] = set()  # columns with a value in quotes
    unquoted: set[int] = set()  # columns with a value that is not
    for _, line in lines:
        record = line.removesuffix("\r")
        if not record:
            continue
        has_escapes |= "\\" in record
        if not has_nulls and "\\N" in record:
            has_nulls = "\\N" in record.split(delimiter)
        if record.count(delimiter) != width - 1:
            num_bad += 1
            has_quotes |= '"' in record
            continue
        if '"' not in record and len(unquoted) == width:
            continue
        for column, value in enumerate(record.split(delimiter)):
            text = value.strip(" ")
            if not text.startswith('"'):
                if value not in _NEUTRAL:
                    unquoted.add(column)
                continue
            has_quotes = True
            inner = text[1:-1]
            if len(text) < 2 or not text.endswith('"') or _has_bare_quote(inner):
                broken = True
                unquoted.add(column)
                continue
            quoted.add(column)
            superfluous |= bool(inner) and not _NEEDS_QUOTES.search(inner)
    has_quoted_column = bool(quoted - unquoted)
    needed = not superfluous or delimiter != "\t"  # a comma file is quoted by RFC 4180, a tab file is not
    return _Survey(
        num_bad,
        has_quotes,
        has_escapes,
        has_nulls,
        has_quoted_column,
        has_quoted_column or (not broken and needed),
    )


def _has_bare_quote(inner: str) -> bool:
    """Whether a quote between quotes is neither doubled nor escaped."""
    return '"' in inner.replace('""', "") and '"' in re.sub(r"\\.", "", inner)


_NEUTRAL: Final = ("", "NA", "NULL", "null", "\\N", "None", "nan")
"""Values that writers leave without quotes in a quoted column."""


def _clean_dialect(lines: Iterable[tuple[int, str]], dialect: Dialect, width: int) -> Dialect | None:
    """The dialect if every record has the width, and none swallows lines that are records of their own."""
    is_regular = True
    widths: list[bool] = []  # of the lines of the current record: whether each has the width by itself

    def watched() -> Iterator[str]:
        nonlocal is_regular
        for _, line in lines:
            widths.append(line.count(dialect.delimiter) == width - 1)
            record = line.removesuffix("\r")
            if "\r" in record:  # would end the record for the csv module
                is_regular = False
                record = record.replace("\r", " ")
            yield record + "\n"

    try:
        with _csv_reader(watched(), dialect) as reader:
            for values in reader:
                if values and len(values) != width:
                    return None
                if len(widths) > 1 and all(widths):
                    return None
                widths.clear()
    except csv.Error:
        return None
    # Of an escaped line feed the csv module would keep the letter n.
    return replace(dialect, is_regular=is_regular and dialect.quote == "double")


@contextmanager
def _csv_reader(lines: Iterable[str], dialect: Dialect) -> "Iterator[Reader]":
    """Strict reader of the standard library for a quoted dialect."""
    escaped = dialect.quote == "backslash"
    limit = csv.field_size_limit(1 << 30)  # the default refuses texts above 128 KiB
    try:
        yield csv.reader(
            lines,
            delimiter=dialect.delimiter,
            escapechar="\\" if escaped else None,
            doublequote=not escaped,
            strict=True,
        )
    finally:
        csv.field_size_limit(limit)


def read_records(lines: Iterable[tuple[int, str]], dialect: Dialect, width: int) -> Iterator[Record]:
    """Records of lines; a bad line is reported, and reading goes on at the next line.

    Parameters
    ----------
    lines
        Numbered lines, without their line feeds.
    dialect
        Of the lines.
    width
        Number of values of a record.

    Yields
    ------
    Record
        In the order of the file; blank lines are left out.
    """
    if dialect.quote == "none":
        yield from _read_unquoted(lines, dialect.delimiter, width)
        return
    if dialect.is_regular:
        yield from _read_regular(lines, dialect)
        return
    rest = iter(lines)
    ahead: list[tuple[int, str]] = []  # lines of a record that was none, to be read again
    while line := ahead.pop(0) if ahead else next(rest, None):
        number, first = line
        if not (record := first.removesuffix("\r")):
            continue
        values, reason = split_record(record, dialect)
        if reason == _UNCLOSED:
            following = _following_lines(ahead, rest, first, dialect, width)
            if following is None:
                values = None
            else:
                values, reason = following
        if values is not None and len(values) != width:
            reason = _width_reason(len(values), width)
        yield Record(number, values or [], reason)


def _following_lines(
    ahead: list[tuple[int, str]],
    rest: Iterator[tuple[int, str]],
    first: str,
    dialect: Dialect,
    width: int,
) -> tuple[list[str], None] | None:
    """Values of a record of several lines, the rest of which is taken from `ahead` and `rest`.

    None where it is no record: the quote that opened it was a stray one, and all lines stay in `ahead`.
    """
    parts = [first]
    used = 0
    while len(parts) < _MAX_RECORD_LINES:
        if len(ahead) <= used:
            if (line := next(rest, None)) is None:
                return None
            ahead.append(line)
        parts.append(ahead[used][1])
        used += 1
        if not _can_close(parts[-1], dialect):
            continue
        values, reason = split_record("\n".join(parts).removesuffix("\r"), dialect)
        if values is not None:
            # Lines that are records by themselves must not be swallowed.
            if len(values) != width or all(part.count(dialect.delimiter) == width - 1 for part in parts):
                return None
            del ahead[:used]
            return values, None
        if reason != _UNCLOSED:
            return None
    return None


def _read_regular(lines: Iterable[tuple[int, str]], dialect: Dialect) -> Iterator[Record]:
    numbers: list[int] = []  # of the lines of the current record

    def numbered() -> Iterator[str]:
        for number, line in lines:
            numbers.append(number)
            yield line + "\n"

    with _csv_reader(numbered(), dialect) as reader:
        for values in reader:
            if values:
                yield Record(numbers[0], values)
            numbers.clear()


def _read_unquoted(lines: Iterable[tuple[int, str]], delimiter: str, width: int) -> Iterator[Record]:
    for number, line in lines:
        record = line.removesuffix("\r")
        if not record:
            continue
        values = record.split(delimiter)
        reason = None if len(values) == width else _width_reason(len(values), width)
        yield Record(number, values, reason)


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPED_LETTERS.get(match[1], match[1])


def _width_reason(count: int, width: int) -> str:
    return f"{count} fields, the header has {width}"


def _can_close(line: str, dialect: Dialect) -> bool:
    return '"' in line or (dialect.quote == "backslash" and not line.removesuffix("\r").endswith("\\"))


@cache
def _patterns(dialect: Dialect) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A whole value up to the next delimiter, and a value that the end of the text leaves open."""
    end = re.escape(dialect.delimiter)
    if dialect.quote == "double":
        inner, bare = r'[^"]*(?:""[^"]*)*', rf"[^{end}]*"
    else:
        inner, bare = r'[^"\\]*(?:\\.[^"\\]*)*', rf"[^{end}\\]*(?:\\.[^{end}\\]*)*"
    whole = rf'(?: *"(?P<quoted>{inner})" *|(?! *")(?P<bare>{bare}))(?P<end>{end}|\Z)'
    return re.compile(whole, re.DOTALL), re.compile(rf' *"{inner}\\?\Z|(?! *"){bare}\\\Z', re.DOTALL)


def split_record(text: str, dialect: Dialect) -> tuple[list[str] | None, str | None]:
    """Values of the text of a record; None and the reason where it is not one."""
    if '"' not in text and (dialect.quote == "double" or "\\" not in text):
        return text.split(dialect.delimiter), None
    whole, unclosed = _patterns(dialect)
    values: list[str] = []
    position = 0
    while match := whole.match(text, position):
        quoted = match["quoted"]
        value = quoted if quoted is not None else match["bare"]
        if dialect.quote == "double":
            values.append(value.replace('""', '"') if quoted is not None else value)
        else:
            values.append(value if value == "\\N" else _ESCAPE.sub(_unescaped, value))
        position = match.end()
        if not match["end"]:
            return values, None
    return None, _UNCLOSED if unclosed.match(text, position) else "text after a closing quote"
