"""What is known about items besides their reviews: titles and descriptions."""

import ast
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from llmdirect.errors import DataError
from llmdirect.json_lines import parse_line
from llmdirect.progress import SILENT, Progress
from llmdirect.raw_files import format_suffix, open_raw

_ID_FIELDS: Final = ("parent_asin", "asin", "item_id", "item", "business_id", "book_id", "id")
_TITLE_FIELDS: Final = ("title", "name")
_BAD_LINES_SHOWN: Final = 10


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

    Raises DataError where a line is bad and skip_bad_lines is not set, or where no item is known.
    """
    path = Path(path)
    place = {item: index for index, item in enumerate(item_ids)}
    titles: list[str | None] = [None] * len(item_ids)
    descriptions = [""] * len(item_ids)
    known: set[int] = set()
    bad: list[str] = []
    for number, record in _records(path, progress):
        try:
            if isinstance(record, ValueError):
                raise record
            identity = next((record[name] for name in _ID_FIELDS if record.get(name) not in (None, "")), None)
            if identity is None:
                raise ValueError(
                    f"no item id; one of {', '.join(_ID_FIELDS)} is needed, found {', '.join(record)}"
                )
            index = place.get(str(identity))
            if index is None:
                continue
            title = _joined(next((record[name] for name in _TITLE_FIELDS if record.get(name)), None), " ")
            titles[index] = title or None
            descriptions[index] = _joined(record.get("description"), "\n")
            known.add(index)
        except ValueError as error:
            bad.append(f"line {number}: {error}")
    if bad and not skip_bad_lines:
        shown = "".join(f"\n  {text}" for text in bad[:_BAD_LINES_SHOWN])
        more = f"\n  and {len(bad) - _BAD_LINES_SHOWN:,} more" if len(bad) > _BAD_LINES_SHOWN else ""
        raise DataError(
            f"{path}: {len(bad):,} lines are bad; mend them, or leave them out with "
            f"--skip-bad-lines:{shown}{more}"
        )
    if not known:
        raise DataError(
            f"{path}: knows none of the {len(item_ids):,} items of the reviews (such as {item_ids[0]!r})"
        )
    return ItemMetadata(titles, descriptions, len(known), len(bad))


def _records(path: Path, progress: Progress) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Yields (line number, record or the reason why there is none)."""
    with open_raw(path) as probe:
        parquet = probe.read(4) == b"PAR1"
    if parquet:
        yield from enumerate(pl.read_parquet(path).iter_rows(named=True), start=1)
        return
    with open_raw(path, progress) as file:
        if format_suffix(path) in (".csv", ".tsv"):
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            reader = csv.DictReader(
                text, delimiter="\t" if format_suffix(path) == ".tsv" else ",", strict=True
            )
            try:
                for row in reader:
                    if None in row or None in row.values():
                        yield reader.line_num, ValueError("not as many fields as the header")
                    else:
                        yield reader.line_num, row
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(f"{path}: line {reader.line_num + 1}: not CSV ({error})") from None
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parse(line)


def _parse(line: bytes) -> dict[str, Any] | ValueError:
    try:
        return parse_line(line)
    except ValueError as reason:
        try:
            value = ast.literal_eval(line.decode())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return reason
        return value if isinstance(value, dict) else reason


def _joined(value: Any, separator: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return separator.join(part.strip() for part in value if part.strip())
    raise ValueError(
        f"a title or description is {type(value).__name__}, expected a string or a list of strings"
    )
