"""Item metadata: titles and descriptions."""

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.readers.bad_lines import BadLines, check_bad_lines
from llmdirect.data.readers.csv_files import csv_header, read_csv
from llmdirect.data.readers.json_lines import LINE, numbered_lines, parse_line, to_text
from llmdirect.data.readers.parquet_files import parquet_columns, read_parquet
from llmdirect.data.readers.raw_files import check_input_file, detect_format, open_decompressed

_ID_FIELDS: Final = ("parent_asin", "asin", "item_id", "item", "business_id", "book_id", "id")
_TITLE_FIELDS: Final = ("title", "name")
_DESCRIPTION_FIELDS: Final = ("description",)
_FIELDS: Final = _ID_FIELDS + _TITLE_FIELDS + _DESCRIPTION_FIELDS
Record = dict[str, Any]


@dataclass(frozen=True)
class ItemMetadata:
    """Titles and descriptions of items."""

    titles: list[str | None]
    """Titles [num_items], None where unknown."""
    descriptions: list[str]
    """Descriptions [num_items], empty where unknown."""
    num_found: int
    """Number of items in the file."""
    bad_lines: int
    """Number of lines left out."""

    def passage(self, item_idx: int) -> str:
        """Title and description of an item, a line each; empty where both are unknown."""
        return "\n".join(part for part in (self.titles[item_idx] or "", self.descriptions[item_idx]) if part)


def read_item_metadata(
    path: Path | str, item_ids: list[str], *, skip_bad_lines: bool = False, progress: Progress = SILENT
) -> ItemMetadata:
    """Read titles and descriptions of items.

    The file is of JSON lines, Python literals (metadata of Amazon 2014), CSV or Parquet. The id of an item is
    the first field present of parent_asin, asin, item_id, item, business_id, book_id and id. Of a repeated
    item the last line counts. A description may be a list of strings.

    Parameters
    ----------
    path
        The file, plain or compressed.
    item_ids
        External ids of the items.
    skip_bad_lines
        Leave out bad lines instead of raising an error.
    progress
        Receiver of progress reports.

    Raises
    ------
    OSError
        If the file cannot be read.
    DataError
        If the file is damaged, has bad lines, or has none of the items.
    """
    path = Path(path)
    index_of = {item: index for index, item in enumerate(item_ids)}
    titles: list[str | None] = [None] * len(item_ids)
    descriptions = [""] * len(item_ids)
    matched: set[int] = set()
    bad: BadLines = []
    for number, record in _records(path, progress):
        try:
            if isinstance(record, ValueError):
                raise record
            index = index_of.get(_item_id(record))
            if index is None:
                continue
            titles[index] = _first_text(record, _TITLE_FIELDS, " ") or None
            descriptions[index] = _first_text(record, _DESCRIPTION_FIELDS, "\n")
            matched.add(index)
        except ValueError as error:
            bad.append((number, str(error)))
    if not skip_bad_lines:
        check_bad_lines(path, sorted(bad))
    if not matched:
        raise DataError(
            f"{path}: knows none of the {len(item_ids):,} items of the reviews (such as {item_ids[0]!r}); "
            "give the metadata of the same collection"
        )
    return ItemMetadata(titles, descriptions, len(matched), len(bad))


def _records(path: Path, progress: Progress) -> Iterator[tuple[int, Record | ValueError]]:
    """Number of each line or Parquet row from 1, and its record, or why there is none."""
    check_input_file(path)
    format = detect_format(path)
    if format == "parquet":
        fields = _select_fields(path, parquet_columns(path))
        yield from enumerate(read_parquet(path, fields).iter_rows(named=True), start=1)
    elif format == "csv":
        with open_decompressed(path) as file:
            fields = _select_fields(path, csv_header(path, file))
        with open_decompressed(path, progress) as file:
            for frame, bad in read_csv(path, file, {name: name for name in fields}):
                for row in frame.iter_rows(named=True):
                    yield row[LINE], row
                for number, reason in bad:
                    yield number, ValueError(reason)
    else:
        with open_decompressed(path, progress) as file:
            for number, line in numbered_lines(file):
                if line.strip():
                    yield number, _parse(line)


def _select_fields(path: Path, names: Sequence[str]) -> list[str]:
    if not set(_ID_FIELDS) & set(names):
        raise DataError(f"{path}: no item id; one column must be called {', '.join(_ID_FIELDS[:-1])} or id")
    return [name for name in _FIELDS if name in names]


def _parse(line: bytes) -> Record | ValueError:
    try:
        return parse_line(line)
    except ValueError as reason:
        try:
            with warnings.catch_warnings(action="ignore"):  # about escapes such as \d
                value = ast.literal_eval(line.decode().strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return reason
        return value if isinstance(value, dict) else reason


def _item_id(record: Record) -> str:
    for name in _ID_FIELDS:
        if item_id := to_text(record.get(name), name):
            return item_id
    raise ValueError(f"no item id; one of {', '.join(_ID_FIELDS)} is needed")


def _first_text(record: Record, names: Sequence[str], separator: str) -> str:
    """Text of the first field that has any; the parts of a list are joined."""
    for name in names:
        value = record.get(name)
        parts = [to_text(part, name) for part in (value if isinstance(value, list) else [value])]
        if text := separator.join(part.strip() for part in parts if part and part.strip()):
            return text
    return ""
