"""JSON values that are not on a line each: arrays, and objects over several lines."""

import io
import json
import re
from collections.abc import Collection, Generator, Mapping
from typing import IO, Any, Final

from llmdirect.common.errors import DataError

_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str)  # only the end of a value matters
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_CHUNK_CHARS: Final = 1 << 20
_LONGEST_TOKEN: Final = 16  # characters of a literal or an escape that the end of a chunk may cut
_LINES: Final = "write one object a line"
_PANDAS: Final = 'DataFrame.to_json(path, orient="records", lines=True)'


def split_values(file: IO[bytes], label: str) -> Generator[bytes]:
    """Split an array, or objects that follow each other, into its values.

    Parameters
    ----------
    file
        UTF-8 text; what is not UTF-8 passes through.
    label
        Name of the file, for errors.

    Yields
    ------
    bytes
        JSON text of a value, on one line.

    Raises
    ------
    DataError
        If the text is no JSON, is cut, or goes on after the array; the message has the record and the line.
    """
    # surrogateescape lets bytes that are not UTF-8 through, so that their record can be named
    wrapper = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    scanner = _Scanner(wrapper)
    is_array = scanner.peek() == "["
    number = 1
    try:
        if is_array:
            scanner.skip()
        while (char := scanner.peek()) and not (is_array and char == "]"):
            yield scanner.value()
            number += 1
            if is_array and scanner.peek() == ",":
                scanner.skip()
                if scanner.peek() == "]":
                    raise ValueError("a comma before the closing bracket")
            elif is_array and scanner.peek() not in ("]", ""):
                raise ValueError("expected a comma between records")
        if is_array and not char:
            raise EOFError
        if is_array:
            scanner.skip()
            if scanner.peek():
                raise ValueError(f"text after the end of the array; {_LINES}")
    except EOFError:
        raise DataError(
            f"{label}: the JSON is cut: it ends inside of record {number:,} or before the closing bracket; "
            "fetch the file again"
        ) from None
    except RecursionError:
        raise DataError(f"{label}: record {number:,} is nested too deeply; {_LINES}") from None
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"{label}: record {number:,} (line {scanner.line:,}): not JSON ({reason}); mend it there"
        ) from None
    finally:
        wrapper.detach()


class _Scanner:
    """Position in a text of JSON, which is read in chunks."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._position = file, "", 0
        self._lines_before = 0

    @property
    def line(self) -> int:
        """Number of the current line, from 1."""
        return 1 + self._lines_before + self._text.count("\n", 0, self._position)

    def peek(self) -> str:
        """Next character that is not white space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None  # it matches nothing, too
            self._position = match.end()
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._fill():
                return ""

    def skip(self) -> None:
        """Go behind the next character."""
        self._position += 1

    def value(self) -> bytes:
        """JSON text of the value at the position, on one line. Raises EOFError if it is cut."""
        while True:
            try:
                end = _DECODER.raw_decode(self._text, self._position)[1]
            except json.JSONDecodeError as error:
                is_open = error.msg.startswith("Unterminated string")
                if not is_open and error.pos < len(self._text) - _LONGEST_TOKEN:
                    self._position = error.pos
                    raise
                if not self._fill():
                    if is_open or error.pos >= len(self._text.rstrip()):
                        raise EOFError from None
                    self._position = error.pos
                    raise
                continue
            if end == len(self._text) and self._fill():  # a number may go on
                continue
            text = self._text[self._position : end]
            self._position = end
            # Inside of strings line breaks are escaped.
            return text.replace("\n", " ").replace("\r", " ").encode(errors="surrogateescape")

    def _fill(self) -> bool:
        """Read on; False at the end of the file."""
        rest = self._text[self._position :]
        if not (data := self._file.read(max(_CHUNK_CHARS, len(rest)))):
            return False
        self._lines_before += self._text.count("\n", 0, self._position)
        self._text, self._position = rest + data, 0
        return True


def check_record(label: str, record: Mapping[str, Any], fields: Collection[str]) -> None:
    """Check that the only object of a file is a record, not a table or a wrapper of one.

    Parameters
    ----------
    label
        Name of the file, for errors.
    record
        The object.
    fields
        Usual names of the fields of records.

    Raises
    ------
    DataError
        If it is; the message says what it is, and how to write records.
    """
    keys, values = set(record), list(record.values())
    if keys == {"columns", "index", "data"}:
        _raise_table(label, 'a table split into columns and data, as pandas writes it with orient="split"')
    if keys == {"schema", "data"}:
        _raise_table(label, 'a table with a schema, as pandas writes it with orient="table"')
    inner = [value for value in values if isinstance(value, dict)]
    if inner and len(inner) == len(values) and len({frozenset(value) for value in inner}) == 1:
        if all(key.isdecimal() for key in record) and not all(key.isdecimal() for key in inner[0]):
            _raise_table(label, 'a dictionary of rows, as pandas writes it with orient="index"')
        names = ", ".join(map(repr, list(record)[:4]))
        _raise_table(label, f"a dictionary of columns ({names}), as pandas writes it by default")
    lists = [key for key, value in record.items() if isinstance(value, list)]
    if len(lists) > 1 and len(lists) == len(values):
        names = ", ".join(map(repr, lists[:4]))
        _raise_table(label, f"a dictionary of columns ({names})")
    is_record = any(not isinstance(record.get(name), dict | list | None) for name in fields)
    for key in [] if is_record else lists:
        if record[key] and all(isinstance(value, dict) for value in record[key]):
            raise DataError(
                f"{label}: one JSON object, whose {key!r} is a list of records; write that list alone: "
                f"jq -c '.[{json.dumps(key)}][]' FILE > FILE.jsonl"
            )


def _raise_table(label: str, kind: str) -> None:
    raise DataError(f"{label}: {kind}; {_LINES}: {_PANDAS}")
