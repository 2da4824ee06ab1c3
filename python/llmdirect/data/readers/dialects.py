"""Dialects of delimited text: the delimiter, and how a value may hold a delimiter or a line break."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from _csv import Reader

QUOTES: Final = ("none", "double", "backslash")
"""Ways of quoting: no quotes, a quote inside quotes written twice, or escaped by a backslash."""
DELIMITERS: Final = {"::": "'::'", "\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
"""Delimiters and their names in messages."""
_SAMPLED_LINES: Final = 200
_MAX_RECORD_LINES: Final = 1000  # of a record with line breaks; a quote that opens more is a stray one
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

    def __str__(self) -> str:
        return f"{DELIMITERS[self.delimiter]}, {_QUOTE_MESSAGES[self.quote]}"


class Record(NamedTuple):
    """One record of delimited text, or the line that is none."""

    line: int
    """Number of its first line, from 1."""
    values: list[str]
    reason: str | None = None
    """Why it cannot be used."""


def choose_delimiter(lines: Iterable[str], header: bool) -> str:
    """Delimiter of a file.

    Parameters
    ----------
    lines
        First lines of the file.
    header
        Whether the first one holds column names.

    Returns
    -------
    The most frequent delimiter of the header outside of quotes; without a header, the one that divides most
    lines into the same number of fields.
    """
    sample = [re.sub(r'"[^"]*"', "", line) for line in islice(filter(str.strip, lines), _SAMPLED_LINES)]
    if not sample:
        return ","
    if header:
        return max(DELIMITERS, key=lambda delimiter: sample[0].count(delimiter) * len(delimiter))

    def regularity(delimiter: str) -> tuple[bool, float]:
        counts = [line.count(delimiter) for line in sample]
        return counts[0] > 0, counts.count(counts[0]) / len(counts)

    return max(DELIMITERS, key=regularity)


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
        if survey.num_bad and survey.has_escapes and _is_clean(lines(), dialects["backslash"], width):
            return dialects["backslash"]
        return dialects["none"]
    if not survey.num_bad and not survey.is_quoted:
        return dialects["none"]
    clean = (quote for quote in ("double", "backslash") if _is_clean(lines(), dialects[quote], width))
    if best := next(clean, None):
        return dialects[best]
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
    has_quoted_column: bool
    """Whether all values of a column are in quotes."""
    is_quoted: bool
    """Whether the quotes are those of a quoted file."""


def _survey(lines: Iterable[tuple[int, str]], delimiter: str, width: int) -> _Survey:
    num_bad = 0
    has_quotes = has_escapes = broken = superfluous = False
    quoted = [0] * width
    unquoted = [0] * width
    for _, line in lines:
        record = line.removesuffix("\r")
        if not record:
            continue
        has_escapes |= "\\" in record
        if record.count(delimiter) != width - 1:
            num_bad += 1
            has_quotes |= '"' in record
            continue
        if '"' not in record:
            for column, value in enumerate(record.split(delimiter)):
                unquoted[column] += value not in _NEUTRAL
            continue
        for column, value in enumerate(record.split(delimiter)):
            text = value.strip(" ")
            if not text.startswith('"'):
                unquoted[column] += value not in _NEUTRAL
                continue
            has_quotes = True
            inner = text[1:-1]
            if len(text) < 2 or not text.endswith('"') or _has_bare_quote(inner):
                broken = True
                unquoted[column] += 1
                continue
            quoted[column] += 1
            superfluous |= bool(inner) and '"' not in inner
    has_quoted_column = any(some and not others for some, others in zip(quoted, unquoted, strict=True))
    needed = not superfluous or delimiter != "\t"  # a comma file is quoted by RFC 4180, a tab file is not
    return _Survey(
        num_bad, has_quotes, has_escapes, has_quoted_column, has_quoted_column or (not broken and needed)
    )


def _has_bare_quote(inner: str) -> bool:
    """Whether a quote between quotes is neither doubled nor escaped."""
    return '"' in inner.replace('""', "") and '"' in re.sub(r"\\.", "", inner)


_NEUTRAL: Final = ("", "NA", "NULL", "null", "\\N", "None", "nan")
"""Values that writers leave without quotes in a quoted column."""


def _is_clean(lines: Iterable[tuple[int, str]], dialect: Dialect, width: int) -> bool:
    """Whether every record has the width, and none swallows lines that are records of their own."""
    widths: list[bool] = []  # of the lines of the current record: whether each has the width by itself

    def watched() -> Iterator[str]:
        for _, line in lines:
            widths.append(line.count(dialect.delimiter) == width - 1)
            # A carriage return inside a line would end the record for the csv module.
            yield line.removesuffix("\r").replace("\r", " ") + "\n"

    reader = csv_reader(watched(), dialect)
    try:
        for values in reader:
            if values and len(values) != width:
                return False
            if len(widths) > 1 and all(widths):
                return False
            widths.clear()
    except csv.Error:
        return False
    return True


def csv_reader(lines: Iterable[str], dialect: Dialect) -> "Reader":
    """Strict reader of the standard library for a quoted dialect."""
    escaped = dialect.quote == "backslash"
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        escapechar="\\" if escaped else None,
        doublequote=not escaped,
        strict=True,
    )


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
    rest = iter(lines)
    ahead: list[tuple[int, str]] = []
    while True:
        if not ahead:
            if (line := next(rest, None)) is None:
                return
            ahead.append(line)
        number, first = ahead[0]
        if not first.removesuffix("\r"):
            ahead.pop(0)
            continue
        used, values, reason = 1, *_split(first.removesuffix("\r"), dialect)
        while values is None and reason == _UNCLOSED and used < _MAX_RECORD_LINES:
            if len(ahead) <= used:
                if (line := next(rest, None)) is None:
                    break
                ahead.append(line)
            used += 1
            if _can_close(ahead[used - 1][1], dialect):
                values, reason = _split(_join(ahead[:used]), dialect)
        lone = dialect.delimiter
        if values is not None and used > 1 and all(line.count(lone) == width - 1 for _, line in ahead[:used]):
            values, reason = None, _UNCLOSED  # else lines that are records of their own would be swallowed
        if values is None:
            used = 1
        elif len(values) != width:
            reason, used = _width_reason(len(values), width), 1
        yield Record(number, values or [], reason)
        del ahead[:used]


def _read_unquoted(lines: Iterable[tuple[int, str]], delimiter: str, width: int) -> Iterator[Record]:
    for number, line in lines:
        record = line.removesuffix("\r")
        if not record:
            continue
        values = record.split(delimiter)
        reason = None if len(values) == width else _width_reason(len(values), width)
        yield Record(number, values, reason)


def _width_reason(count: int, width: int) -> str:
    return f"{count} fields, the header has {width}"


def _join(lines: Sequence[tuple[int, str]]) -> str:
    return "\n".join(line for _, line in lines).removesuffix("\r")


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


def _split(text: str, dialect: Dialect) -> tuple[list[str] | None, str | None]:
    """Values of a record; None and the reason where it is not one."""
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
            values.append(value if value == "\\N" else re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL))
        position = match.end()
        if not match["end"]:
            return values, None
    return None, _UNCLOSED if unclosed.match(text, position) else "text after a closing quote"
