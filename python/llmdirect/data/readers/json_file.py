"""Raw files of JSON or Python literals: blocks of lines by Polars, ambiguous lines again one by one."""

import ast
import json
import tempfile
import warnings
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.readers.bad_lines import BadLines
from llmdirect.data.readers.json_values import check_record, split_values
from llmdirect.data.readers.raw_files import open_decompressed, read_line_blocks
from llmdirect.data.readers.record_file import LINE, Piece
from llmdirect.text.words import LONE_SURROGATE

_BOM: Final = b"\xef\xbb\xbf"
_SAMPLED_LINES: Final = 1000


class JsonFile:
    """Records of a file of JSON lines, a JSON array, JSON objects over several lines, or Python literals.

    Parameters
    ----------
    path
        The file, plain or compressed.
    label
        Its name in messages; by default its path.
    encoding
        Encoding of the file; by default UTF-8, or that of its byte order mark.
    candidates
        Field names that are looked for in the whole file; others count where the first 1,000 lines have them.
    """

    unit = "line"

    def __init__(
        self,
        path: Path,
        *,
        label: str | None = None,
        encoding: str | None = None,
        candidates: Sequence[str] = (),
    ) -> None:
        self.label = label or str(path)
        self._path, self._title, self._encoding = path, label, encoding
        self._converted: Any = None  # file of JSON lines in place of another notation
        self.description = "JSON lines"
        if self._is_array():
            self.description, self.unit = "a JSON array", "record"
            self._convert(self._values())
        elif self._holds_literals():
            self.description = "Python literals, one a line"
            self._convert(self._literals())
        elif self._spans_lines():
            self.description, self.unit = "JSON objects over several lines", "record"
            self._convert(self._values())
        self._check_single(candidates)
        sampled = self._sampled_names()
        missing = [name for name in candidates if name not in sampled]
        self.names = [*sampled, *self._present(missing)]

    def frames(self, fields: Mapping[str, str], progress: Progress) -> Iterator[Piece]:
        """Read the field of each role, in pieces; see `RecordFile`."""
        with self._open(progress) as file:
            yield from _read_pieces(file, fields)

    def records(
        self, names: Sequence[str], progress: Progress
    ) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
        """Read all fields; see `RecordFile`."""
        with self._open(progress) as file:
            for number, line in _numbered_lines(file):
                if not line.strip():
                    continue
                try:
                    yield number, parse_line(line)
                except ValueError as error:
                    yield number, error

    @contextmanager
    def _open(self, progress: Progress = SILENT) -> Iterator[IO[bytes]]:
        if self._converted:
            self._converted.seek(0)
            yield self._converted
            return
        with open_decompressed(self._path, progress, encoding=self._encoding, label=self._title) as file:
            yield file

    def _is_array(self) -> bool:
        with self._open() as file:
            lines = (line.strip() for _, line in _numbered_lines(file))
            return next((line.startswith(b"[") for line in lines if line), False)

    def _spans_lines(self) -> bool:
        """Whether the first line is only the start of an object."""
        with self._open() as file:
            first = next((line for _, line in _numbered_lines(file) if line.strip()), b"")
        if not first.strip().startswith(b"{") or _is_record(first):
            return False
        try:
            with closing(self._values()) as values:
                return next(values) != first.strip()
        except DataError:
            return False

    def _values(self) -> Generator[bytes]:
        with self._open() as file:
            yield from split_values(file, self.label)

    def _check_single(self, candidates: Sequence[str]) -> None:
        """Check that the only object of a file is a record."""
        with self._open() as file:
            lines = [line for _, line in islice(_numbered_lines(file), _SAMPLED_LINES) if line.strip()]
        if len(lines) == 1 and _is_record(lines[0]):
            check_record(self.label, parse_line(lines[0]), candidates)

    def _holds_literals(self) -> bool:
        """Whether the first line that is no JSON object is a dictionary in Python's notation."""
        with self._open() as file:
            for _, line in islice(_numbered_lines(file), _SAMPLED_LINES):
                try:
                    if line.strip():
                        parse_line(line)
                except ValueError:
                    return _parse_literal(line) is not None
        return False

    def _literals(self) -> Iterator[bytes]:
        """JSON line of each line; one that is no literal stays as it is."""
        with self._open() as file:
            for _, line in _numbered_lines(file):
                literal = _parse_literal(line)
                yield line.rstrip(b"\r\n") if literal is None else _as_json(literal)

    def _convert(self, lines: Iterator[bytes]) -> None:
        """Write lines of JSON to a temporary file, which is read in place of the file."""
        result = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as this object
        weakref.finalize(self, result.close)
        for line in lines:
            result.write(line)
            result.write(b"\n")
        self._converted = result

    def _sampled_names(self) -> list[str]:
        """Fields of the first lines that are objects, in the order of appearance."""
        names: dict[str, None] | None = None
        reasons: list[str] = []
        with self._open() as file:
            for number, line in islice(_numbered_lines(file), _SAMPLED_LINES):
                try:
                    names = (names or {}) | dict.fromkeys(parse_line(line))
                except ValueError as error:
                    if line.strip():
                        reasons.append(f"{self.unit} {number}: {error}")
        if names is None:
            empty = "every line is blank" if self.unit == "line" else "the array is empty"
            reason = reasons[0] if reasons else empty
            raise DataError(
                f"{self.label}: no JSON object among the first {_SAMPLED_LINES:,} {self.unit}s; {reason}"
            )
        return list(names)

    def _present(self, names: Sequence[str]) -> list[str]:
        """Names that any line of the file has, of those given."""
        present: set[str] = set()
        with self._open() as file:
            for first, block in read_line_blocks(file):
                wanted = [name for name in names if name not in present]
                frame = _read_block(first, block.removeprefix(_BOM), {name: name for name in wanted})
                if frame is not None:
                    present |= {name for name in wanted if frame[name].null_count() < frame.height}
                    continue
                for line in block.split(b"\n"):
                    try:
                        present |= parse_line(line).keys() & set(wanted)
                    except ValueError:
                        continue
        return [name for name in names if name in present]


def _parse_literal(line: bytes) -> dict[str, Any] | None:
    """Dictionary in Python's notation; None where there is none."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about escapes such as \d
            value = ast.literal_eval(line.decode().strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_record(line: bytes) -> bool:
    """Whether a line is a JSON object."""
    try:
        parse_line(line)
    except ValueError:
        return False
    return True


def _as_json(record: dict[str, Any]) -> bytes:
    return json.dumps({str(name): value for name, value in record.items()}, default=str).encode()


def _read_pieces(file: IO[bytes], fields: Mapping[str, str]) -> Iterator[Piece]:
    """Fields of JSON lines in pieces; a string column per role, null where absent."""
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


def _numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
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
    texts = [role for role in fields if role not in ("rating", "time", "weight")]
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
            rows.append(
                (number, *(_role_text(record.get(name), role, name) for role, name in fields.items()))
            )
        except ValueError as error:
            bad.append((number, str(error)))
    schema = {LINE: pl.Int64(), **dict.fromkeys(fields, pl.String())}
    return pl.DataFrame(rows, schema=schema, orient="row"), bad


def _role_text(value: Any, role: str, name: str) -> str | None:
    if isinstance(value, bool) and role in ("rating", "weight"):
        return str(value)
    return to_text(value, name)


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
