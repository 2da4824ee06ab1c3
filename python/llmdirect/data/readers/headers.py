"""First lines of delimited text: the delimiter and the names of the columns."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from llmdirect.common.errors import DataError
from llmdirect.data.readers.dialects import DELIMITERS, Dialect, choose_dialect, read_records, split_record
from llmdirect.data.readers.encodings import NOT_UTF8, is_utf8

NumberedLine = tuple[int, str]
_SEPARATOR: Final = re.compile(r'"?sep=(.+?)"?', re.IGNORECASE)
_RECBOLE_TYPE: Final = re.compile(r":(token|token_seq|float|float_seq)$")
_LINE_BREAK: Final = re.compile(r"\s*[\r\n]\s*")
_MAX_HEADER_LINES: Final = 50


class Header(NamedTuple):
    """What the first lines of delimited text say."""

    delimiter: str
    """One of `DELIMITERS`."""
    values: list[str]
    """Values of the first record."""
    first_line: int
    """Number of the first line of the record, from 1."""
    last_line: int
    """Number of its last line."""

    @property
    def names(self) -> list[str]:
        """Names of the columns: the values without blanks, line breaks and types of RecBole."""
        names = [_LINE_BREAK.sub(" ", value.strip()) for value in self.values]
        if all(map(_RECBOLE_TYPE.search, names)):
            names = [_RECBOLE_TYPE.sub("", name) for name in names]
        return names


def read_header(label: str, lines: Sequence[NumberedLine], has_names: bool) -> Header:
    """Read the first record of delimited text.

    Parameters
    ----------
    label
        Name of the file, for errors.
    lines
        First lines of the file, numbered from 1.
    has_names
        Whether the first record holds the names of the columns.

    Raises
    ------
    DataError
        If the line `sep=` of Excel names a delimiter that is not read, or names are separated by blanks or
        not UTF-8.
    """
    filled = [(number, line.removesuffix("\r")) for number, line in lines if line.strip()]
    if not filled:
        return Header(",", [""], 1, 1)
    delimiter = None
    if match := _SEPARATOR.fullmatch(filled[0][1]):
        delimiter = match[1].replace("\\t", "\t")
        if delimiter not in DELIMITERS:
            raise DataError(
                f"{label}: line {filled[0][0]}: the delimiter {delimiter!r} is not read; write the file with "
                f"{', '.join(DELIMITERS.values())}"
            )
        filled = filled[1:] or [(filled[0][0] + 1, "")]
    number, first = filled[0]
    if delimiter is None:
        delimiter = choose_delimiter([line for _, line in filled], has_names)
    following = [line for line_number, line in lines if line_number > number]
    if has_names and not is_utf8(first):
        raise DataError(f"{label}: line {number}: {NOT_UTF8}")
    values, num_lines = _split_header(first, following, delimiter) if has_names else ([], 1)
    header = Header(delimiter, values or split_header(first, delimiter), number, number + num_lines - 1)
    if has_names and len(header.values) == 1 and len(first.split()) > 1:
        raise DataError(
            f"{label}: line {number}: no delimiter ({', '.join(DELIMITERS.values())}) in {first[:60]!r}; if "
            "its values are separated by blanks, write the file with tabs or commas; the first line must "
            "hold the names of the columns"
        )
    return header


def choose_delimiter(lines: Sequence[str], header: bool) -> str:
    """Delimiter of a file.

    Parameters
    ----------
    lines
        First lines of the file that are not blank.
    header
        Whether the first one holds column names.

    Returns
    -------
    The most frequent delimiter of the header outside of quotes; without a header, the one that divides most
    lines into the same number of fields.
    """
    sample = [re.sub(r'"[^"]*"', "", line) for line in lines]
    if not sample:
        return ","
    if header:
        return max(DELIMITERS, key=lambda delimiter: sample[0].count(delimiter) * len(delimiter))

    def regularity(delimiter: str) -> tuple[bool, float]:
        counts = [line.count(delimiter) for line in sample]
        return counts[0] > 0, counts.count(counts[0]) / len(counts)

    return max(DELIMITERS, key=regularity)


def split_header(line: str, delimiter: str) -> list[str]:
    """Values of a line, which are quoted if they can be read so."""
    values = None if delimiter == "::" else split_record(line, Dialect(delimiter, "double"))[0]
    return line.split(delimiter) if values is None else values


def _split_header(first: str, following: Sequence[str], delimiter: str) -> tuple[list[str] | None, int]:
    """Values of a header with line breaks inside of quotes, and its number of lines; None without these."""
    dialect = Dialect(delimiter, "double")
    if delimiter == "::" or split_record(first, dialect)[0] is not None:
        return None, 1
    parts = [first]
    for line in following[:_MAX_HEADER_LINES]:
        parts.append(line)
        values, _ = split_record("\n".join(parts).removesuffix("\r"), dialect)
        if values is not None:
            # A stray quote must not swallow lines that are records by themselves.
            are_records = all(part.count(delimiter) == len(values) - 1 for part in parts)
            return (None, 1) if are_records else (values, len(parts))
    return None, 1


def check_widths(label: str, lines: Sequence[NumberedLine], header: Header) -> None:
    """Check that not all lines after the header have one value more than it.

    Parameters
    ----------
    label
        Name of the file, for errors.
    lines
        First lines of the file, numbered from 1.
    header
        Of the file.

    Raises
    ------
    DataError
        If they have; the message says why that may be.
    """
    body = [(number, line) for number, line in lines if number > header.last_line]
    width = len(header.values) + 1
    fields = [line.count(header.delimiter) + 1 for _, line in body if line.strip()]
    if len(fields) < 2 or min(fields) < width:
        return
    dialect = choose_dialect(lambda: iter(body), header.delimiter, width)
    records = list(read_records(iter(body), dialect, width))
    if not records or any(record.reason for record in records):
        return
    if not any(record.values[-1].strip() for record in records):
        cause = "a delimiter at its end, which the header has not; add one to the header"
    elif len({record.values[0] for record in records}) == len(records):
        cause = (
            f"one field more than the header ({width} and {width - 1}), as row names of R (put a name for "
            "them in front of the header, or write the file with row.names = FALSE) or delimiters in texts "
            "(quote these)"
        )
    else:
        return
    raise DataError(f"{label}: every line has {cause}")
