"""What is known about items besides their reviews: titles and descriptions."""

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.readers.csv_files import csv_header, read_csv
from llmdirect.data.readers.json_lines import LINE, as_text, numbered_lines, parse_line
from llmdirect.data.readers.parquet_files import parquet_columns, read_parquet
from llmdirect.data.readers.raw_files import check_file, open_raw, raw_kind

_ID_FIELDS: Final = ("parent_asin", "asin", "item_id", "item", "business_id", "book_id", "id")
_TITLE_FIELDS: Final = ("title", "name")
_DESCRIPTION_FIELDS: Final = ("description",)
_FIELDS: Final = _ID_FIELDS + _TITLE_FIELDS + _DESCRIPTION_FIELDS
_BAD_LINES_SHOWN: Final = 10
Record = dict[str, Any]


@dataclass(frozen=True)
class ItemMetadata:
    """Aligned with the item ids asked for: a title or None, a description or an empty string."""

    titles: list[str | None]
    descriptions: list[str]
    found: int
    bad_lines: int

    def passage(self, item_idx: int) -> str:
        """Title and description, a line each; empty where nothing is known."""
        return "\n".join(part for part in (self.titles[item_idx] or "", self.descriptions[item_idx]) if part)


def read_item_metadata(
    path: Path | str, item_ids: list[str], *, skip_bad_lines: bool = False, progress: Progress = SILENT
) -> ItemMetadata:
    """Reads titles and descriptions (a string or a list of strings) of the given items.

    JSON lines, the Python-literal lines of the Amazon 2014 metadata, CSV or Parquet; an item is told by
    the first field it has of parent_asin, asin, item_id, item, business_id, book_id, id. Of an item that
    is there twice, the last one stays.

    Raises OSError kinds and DataError as `read_reviews` does; DataError also where no item is known.
    """
    path = Path(path)
    place = {item: index for index, item in enumerate(item_ids)}
    titles: list[str | None] = [None] * len(item_ids)
    descriptions = [""] * len(item_ids)
    known: set[int] = set()
    bad: list[tuple[int, str]] = []
    for number, record in _records(path, progress):
        try:
            if isinstance(record, ValueError):
                raise record
            index = place.get(_identity(record))
            if index is None:
                continue
            titles[index] = _first_text(record, _TITLE_FIELDS, " ") or None
            descriptions[index] = _first_text(record, _DESCRIPTION_FIELDS, "\n")
            known.add(index)
        except ValueError as error:
            bad.append((number, str(error)))
    if bad and not skip_bad_lines:
        bad.sort()
        shown = "".join(f"\n  line {number}: {reason}" for number, reason in bad[:_BAD_LINES_SHOWN])
        more = f"\n  and {len(bad) - _BAD_LINES_SHOWN:,} more" if len(bad) > _BAD_LINES_SHOWN else ""
        raise DataError(
            f"{path}: {len(bad):,} lines are bad; mend them, or leave them out with "
            f"--skip-bad-lines:{shown}{more}"
        )
    if not known:
        raise DataError(
            f"{path}: knows none of the {len(item_ids):,} items of the reviews (such as {item_ids[0]!r}); "
            "give the metadata of the same collection"
        )
    return ItemMetadata(titles, descriptions, len(known), len(bad))


def _records(path: Path, progress: Progress) -> Iterator[tuple[int, Record | ValueError]]:
    """Yields (line number, or row of Parquet; record or the reason why there is none)."""
    check_file(path)
    kind = raw_kind(path)
    if kind == "parquet":
        fields = _known_fields(path, parquet_columns(path))
        yield from enumerate(read_parquet(path, fields).iter_rows(named=True), start=1)
    elif kind == "csv":
        with open_raw(path) as file:
            fields = _known_fields(path, csv_header(path, file))
        with open_raw(path, progress) as file:
            for frame, bad in read_csv(path, file, {name: name for name in fields}):
                for row in frame.iter_rows(named=True):
                    yield row[LINE], row
                for number, reason in bad:
                    yield number, ValueError(reason)
    else:
        with open_raw(path, progress) as file:
            for number, line in numbered_lines(file):
                if line.strip():
                    yield number, _parse(line)


def _known_fields(path: Path, found: Sequence[str]) -> list[str]:
    if not set(_ID_FIELDS) & set(found):
        raise DataError(f"{path}: no item id; one column must be called {', '.join(_ID_FIELDS[:-1])} or id")
    return [name for name in _FIELDS if name in found]


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


def _identity(record: Record) -> str:
    for name in _ID_FIELDS:
        if identity := as_text(record.get(name), name):
            return identity
    raise ValueError(f"no item id; one of {', '.join(_ID_FIELDS)} is needed")


def _first_text(record: Record, names: Sequence[str], separator: str) -> str:
    """The first of the fields that holds words; parts of a list are joined."""
    for name in names:
        value = record.get(name)
        parts = [as_text(part, name) for part in (value if isinstance(value, list) else [value])]
        if text := separator.join(part.strip() for part in parts if part and part.strip()):
            return text
    return ""
