"""JSON lines: Polars reads a block at once; lines it cannot vouch for are read again one by one."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

import polars as pl

from llmdirect.data.readers.raw_files import line_blocks

BadLines = list[tuple[int, str]]  # (line number, reason)
LINE: Final = "line"
NOT_UTF8: Final = (
    "invalid UTF-8; where all of the file is in another encoding: iconv -f WINDOWS-1252 -t UTF-8"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_BOM: Final = b"\xef\xbb\xbf"


def read_json_lines(file: IO[bytes], fields: Mapping[str, str]) -> Iterator[tuple[pl.DataFrame, BadLines]]:
    """Yields frames of `line` (int64) and one string column per role (null: absent), and the bad lines."""
    for first, block in line_blocks(file):
        if first == 1:
            block = block.removeprefix(_BOM)
        frame = _read_block(first, block, fields)
        if frame is None:
            yield _read_strictly(first, block.split(b"\n"), None, fields)
            continue
        doubtful = frame.filter(_doubtful(fields))[LINE].to_list()
        if not doubtful:
            yield frame, []
            continue
        again, bad = _read_strictly(first, block.split(b"\n"), doubtful, fields)
        yield pl.concat([frame.filter(~_doubtful(fields)), again]).sort(LINE), bad


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, line), a byte order mark removed."""
    for number, line in enumerate(file, start=1):
        yield number, line.removeprefix(_BOM) if number == 1 else line


def parse_line(line: bytes) -> dict[str, Any]:
    """One line as an object. Raises ValueError with the reason where it is not one.

    Of a repeated key the first one counts, as it does for Polars.
    """
    try:
        value = json.loads(line.decode(), object_pairs_hook=_first_of_each)
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start + 1} of the line") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read (nested too deeply)") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {type(value).__name__}")
    return value


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    return record if len(record) == len(pairs) else dict(reversed(pairs))


def _read_block(first: int, block: bytes, fields: Mapping[str, str]) -> pl.DataFrame | None:
    """The fast path; None where Polars refuses the block or its rows cannot be matched with lines."""
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


def _doubtful(fields: Mapping[str, str]) -> pl.Expr:
    """Rows whose strings may not be what the line says: Polars writes lists and booleans as text, and
    breaks an unpaired surrogate without an error."""
    texts = [role for role in fields if role not in ("rating", "time")]
    return pl.any_horizontal(
        *(pl.col(role).is_null() for role in ("user", "item", "text") if role in fields),
        *(pl.col(role).str.starts_with("{") | pl.col(role).str.starts_with("[") for role in texts),
        *(pl.col(role).str.contains("\x00", literal=True) for role in texts),
        *(pl.col(role).is_in(["true", "false"]) for role in texts),
    ).fill_null(True)


def _read_strictly(
    first: int, lines: Sequence[bytes], wanted: list[int] | None, fields: Mapping[str, str]
) -> tuple[pl.DataFrame, BadLines]:
    """The line-by-line path, which names what is wrong; `wanted` restricts it to some line numbers."""
    numbers = wanted if wanted is not None else range(first, first + len(lines))
    rows: list[tuple[int | str | None, ...]] = []
    bad: BadLines = []
    for number in numbers:
        line = lines[number - first]
        if not line.strip():
            continue
        try:
            record = parse_line(line)
            rows.append((number, *(as_text(record.get(name), name) for name in fields.values())))
        except ValueError as error:
            bad.append((number, str(error)))
    schema = {LINE: pl.Int64(), **dict.fromkeys(fields, pl.String())}
    return pl.DataFrame(rows, schema=schema, orient="row"), bad


def as_text(value: Any, name: str) -> str | None:
    """A JSON value as text, None for null. Raises ValueError naming the field for anything nested or true."""
    if value is None:
        return None
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise ValueError(f"{name} holds an unpaired surrogate, which is no character")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    cure = "; move its fields to the top level" if isinstance(value, dict) else ""
    raise ValueError(f"{name} is {type(value).__name__}, expected text or a number{cure}")
