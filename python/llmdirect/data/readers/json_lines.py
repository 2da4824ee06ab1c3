"""Raw files of JSON lines: blocks by Polars, ambiguous lines again one by one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

import polars as pl

from llmdirect.data.readers.bad_lines import BadLines
from llmdirect.data.readers.raw_files import read_line_blocks
from llmdirect.text.words import LONE_SURROGATE

LINE: Final = "line"
"""Column of line numbers."""
NOT_UTF8: Final = (
    "invalid UTF-8; where all of the file is in another encoding: iconv -f WINDOWS-1252 -t UTF-8"
)
_BOM: Final = b"\xef\xbb\xbf"


def read_json_lines(file: IO[bytes], fields: Mapping[str, str]) -> Iterator[tuple[pl.DataFrame, BadLines]]:
    """Read fields of JSON lines in pieces.

    Parameters
    ----------
    file
        The open file, decompressed.
    fields
        Field name of each role.

    Yields
    ------
    frame
        Columns `line` (int64) and a string column per role, null where absent.
    bad
        Bad lines.
    """
    for first, block in read_line_blocks(file):
        if first == 1:
            block = block.removeprefix(_BOM)
        frame = _read_block(first, block, fields)
        if frame is None:
            yield _read_line_by_line(first, block.split(b"\n"), None, fields)
            continue
        ambiguous = frame.filter(_is_ambiguous(fields))[LINE].to_list()
        if not ambiguous:
            yield frame, []
            continue
        again, bad = _read_line_by_line(first, block.split(b"\n"), ambiguous, fields)
        yield pl.concat([frame.filter(~_is_ambiguous(fields)), again]).sort(LINE), bad


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, without a byte order mark."""
    for number, line in enumerate(file, start=1):
        yield number, line.removeprefix(_BOM) if number == 1 else line


def parse_line(line: bytes) -> dict[str, Any]:
    """Object of a JSON line; of a repeated key the first value, as Polars reads it.

    Raises
    ------
    ValueError
        If it is not a JSON object; the message is the reason.
    """
    try:
        value = json.loads(line.decode(), object_pairs_hook=_first_values)
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start + 1} of the line") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read (nested too deeply)") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {type(value).__name__}")
    return value


def _first_values(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    return record if len(record) == len(pairs) else dict(reversed(pairs))


def _read_block(first: int, block: bytes, fields: Mapping[str, str]) -> pl.DataFrame | None:
    """Rows of a block; None where Polars rejects it, or its rows cannot be matched with lines."""
    schema = dict.fromkeys(fields.values(), pl.String())
    try:
        rows = pl.read_ndjson(block, schema=schema)
    except pl.exceptions.PolarsError:
        return None
    lines = range(first, first + block.count(b"\n") + (not block.endswith(b"\n")))
    if len(lines) != rows.height:
        filled = [line for line, text in zip(lines, block.split(b"\n"), strict=False) if text.strip()]
        if len(filled) != rows.height:
            return None
        numbers = pl.Series(LINE, filled, dtype=pl.Int64)
    else:
        numbers = pl.int_range(lines.start, lines.stop, eager=True).alias(LINE)
    return rows.select(numbers, *(pl.col(name).alias(role) for role, name in fields.items()))


def _is_ambiguous(fields: Mapping[str, str]) -> pl.Expr:
    """Rows that Polars may have misread: lists and booleans as text, unpaired surrogates without an error."""
    texts = [role for role in fields if role not in ("rating", "time")]
    return pl.any_horizontal(
        *(pl.col(role).is_null() for role in ("user", "item", "text") if role in fields),
        *(pl.col(role).str.starts_with("{") | pl.col(role).str.starts_with("[") for role in texts),
        *(pl.col(role).str.contains("\x00", literal=True) for role in texts),
        *(pl.col(role).is_in(["true", "false"]) for role in texts),
    ).fill_null(True)


def _read_line_by_line(
    first: int, lines: Sequence[bytes], line_numbers: list[int] | None, fields: Mapping[str, str]
) -> tuple[pl.DataFrame, BadLines]:
    """Rows and bad lines of all lines, or of those with the given numbers."""
    numbers = line_numbers if line_numbers is not None else range(first, first + len(lines))
    rows: list[tuple[int | str | None, ...]] = []
    bad: BadLines = []
    for number in numbers:
        line = lines[number - first]
        if not line.strip():
            continue
        try:
            record = parse_line(line)
            rows.append((number, *(to_text(record.get(name), name) for name in fields.values())))
        except ValueError as error:
            bad.append((number, str(error)))
    schema = {LINE: pl.Int64(), **dict.fromkeys(fields, pl.String())}
    return pl.DataFrame(rows, schema=schema, orient="row"), bad


def to_text(value: Any, name: str) -> str | None:
    """Text of a JSON string or number, None for null.

    Raises
    ------
    ValueError
        If the value is a boolean, a list or an object; the message names the field.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if LONE_SURROGATE.search(value):
            raise ValueError(f"{name} holds an unpaired surrogate, which is no character")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    cure = "; move its fields to the top level" if isinstance(value, dict) else ""
    raise ValueError(f"{name} is {type(value).__name__}, expected text or a number{cure}")
