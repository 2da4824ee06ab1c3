"""Item metadata: titles, descriptions, categories, features, prices and images."""

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.readers.bad_lines import BadLine, check_bad_lines
from llmdirect.data.readers.formats import check_columns, field_list, named_fields
from llmdirect.data.readers.json_file import to_text
from llmdirect.data.readers.sources import Source, resolve_source
from llmdirect.data.readers.values import MISSING
from llmdirect.text.clean import clean_text

_FIELDS: Final = {
    "item": (
        "parent_asin",
        "asin",
        "item_id",
        "item",
        "business_id",
        "gmap_id",
        "book_id",
        "movieId",
        "product_id",
        "app_id",
        "ISBN",
        "id",
    ),
    "title": ("title", "name", "movie_title", "Book-Title", "product_title", "app_name"),
    "description": ("description",),
    "categories": ("categories", "category", "genres", "genre"),
    "features": ("features", "feature"),
    "price": ("price",),
    "image": ("images", "imageURLHighRes", "imageURL", "image", "imUrl", "image_url", "img_url"),
}
"""Possible fields of each role, in the order of preference."""
_ESSENTIAL: Final = ("item", "title", "description")
_IMAGE_KEYS: Final = ("hi_res", "large", "thumb", "url")
"""Keys of an image in the order of preference, as Amazon 2023 has them."""
_LIST: Final = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
_UNDIVIDED: Final = re.compile(r"(?<=['\"])\s+(?=['\"])")


@dataclass(frozen=True)
class ItemMetadata:
    """Metadata of items: of those that were asked for, then of those that are in the file alone."""

    new_ids: list[str]
    """Ids of the items that are in the file alone, sorted."""
    titles: list[str | None]
    """Titles [num_items], None where unknown."""
    descriptions: list[str]
    """Descriptions [num_items], empty where unknown."""
    categories: list[list[str]]
    """Categories [num_items], each once."""
    features: list[list[str]]
    """Features [num_items]."""
    prices: list[str | None]
    """Prices [num_items] as they are in the file."""
    images: list[str | None]
    """Addresses of the first image [num_items]."""
    num_found: int
    """Number of items in the file, of those that were asked for."""
    fields: dict[str, str]
    """Field of each role that was read, the first with a value of several."""
    bad_lines: int
    """Number of lines left out."""

    def passage(self, item_idx: int) -> str:
        """Title, categories (one line), features and description of an item; empty where all are unknown."""
        parts = (
            self.titles[item_idx] or "",
            ", ".join(self.categories[item_idx]),
            *self.features[item_idx],
            self.descriptions[item_idx],
        )
        return "\n".join(part for part in parts if part)

    def details(self) -> pl.DataFrame:
        """Columns of what the file has besides titles and descriptions."""
        columns = {
            "categories": pl.Series(self.categories, dtype=pl.List(pl.String)),
            "features": pl.Series(self.features, dtype=pl.List(pl.String)),
            "price": pl.Series(self.prices, dtype=pl.String),
            "image": pl.Series(self.images, dtype=pl.String),
        }
        return pl.DataFrame({role: column for role, column in columns.items() if role in self.fields})


def read_item_metadata(
    source: Source,
    item_ids: list[str],
    *,
    columns: Mapping[str, str] | None = None,
    review_item_field: str | None = None,
    excluded: Collection[str] | None = None,
    skip_bad_lines: bool = False,
    encoding: str | None = None,
    quote: str | None = None,
    raw_text: bool = False,
    progress: Progress = SILENT,
) -> ItemMetadata:
    """Read titles, descriptions, categories, features, prices and image addresses of items.

    Of a repeated item the last line counts. A description may be a list of texts, also one
    that pandas wrote to CSV as "['first', 'second']".

    Parameters
    ----------
    source
        As in `read_reviews`.
    item_ids
        External ids of the items.
    columns
        Field of each role: item, title, description, categories, features, price, image; by default the usual
        names are recognised.
    review_item_field
        Field of the items in the file of reviews, which is tried first.
    excluded
        Ids of the file that do not become new items; None where none does.
    skip_bad_lines
        Leave out bad lines instead of raising an error.
    encoding, quote
        As in `RawSource.open`.
    raw_text
        Leave texts as they are.
    progress
        Receiver of progress reports.

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If a role is unknown.
    DataError
        If a file is damaged, has bad lines, or has none of the items.
    """
    raw = resolve_source(source)
    columns = named_fields(columns)
    known = tuple(name for names in _FIELDS.values() for name in names)
    files = raw.open(encoding=encoding, quote=quote, columns=columns, candidates=known)
    names = list(dict.fromkeys(name for file in files for name in file.names))
    fields = _choose_fields(raw.label, names, columns, review_item_field)
    index_of = {item: index for index, item in enumerate(item_ids)}
    rows: dict[int, dict[str, list[str]]] = {}
    new_ids: list[str] = []
    bad: list[BadLine] = []
    for file in files:
        present = [name for options in fields.values() for name in options if name in file.names]
        for number, record in file.records(present, progress):
            try:
                if isinstance(record, ValueError):
                    raise record
                values = {role: _values(record, role, options, raw_text) for role, options in fields.items()}
                if not values["item"]:
                    raise ValueError(f"no item ({' or '.join(fields['item'])} is missing)")
                item = values["item"][0]
                index = index_of.get(item, index_of.get(_without_point(item)))
                if index is None:
                    if excluded is None or item in excluded or _without_point(item) in excluded:
                        continue
                    index = index_of[item] = len(item_ids) + len(new_ids)
                    new_ids.append(item)
                rows[index] = values
            except ValueError as error:
                bad.append(BadLine(file.label, file.unit, number, str(error)))
    if not skip_bad_lines:
        check_bad_lines(raw.label, sorted(bad))
    num_found = sum(index < len(item_ids) for index in rows)
    if not num_found:
        raise DataError(
            f"{raw.label}: its field {' or '.join(fields['item'])} has none of the {len(item_ids):,} items "
            f"of the reviews (such as {item_ids[0]!r}); give the metadata of the same collection, or name "
            'the field with `item_columns={"item": "FIELD"}`'
        )
    order = sorted(range(len(new_ids)), key=lambda n: new_ids[n])
    indices = [*range(len(item_ids)), *(len(item_ids) + n for n in order)]

    def column(role: str) -> list[list[str]]:
        return [rows.get(index, {}).get(role, []) for index in indices]

    return ItemMetadata(
        new_ids=[new_ids[n] for n in order],
        titles=[" ".join(parts) or None for parts in column("title")],
        descriptions=["\n".join(parts) for parts in column("description")],
        categories=[list(dict.fromkeys(parts)) for parts in column("categories")],
        features=column("features"),
        prices=[parts[0] if parts else None for parts in column("price")],
        images=[parts[0] if parts else None for parts in column("image")],
        num_found=num_found,
        fields={role: " or ".join(options) for role, options in fields.items()},
        bad_lines=len(bad),
    )


def _choose_fields(
    label: str, names: Sequence[str], columns: Mapping[str, str] | None, review_item_field: str | None
) -> dict[str, list[str]]:
    """Possible fields of each role, of which the first with a value counts.

    Raises
    ------
    ValueError
        If a role is unknown.
    DataError
        If there is no item id, no field of a given name, or nothing to read.
    """
    lower = {name.casefold(): name for name in reversed(names)}
    chosen: dict[str, list[str]] = {}
    for role, options in _FIELDS.items():
        first = (review_item_field,) if role == "item" and review_item_field else ()
        known = dict.fromkeys(lower.get(option.casefold()) for option in (*first, *options))
        chosen[role] = [name for name in known if name is not None]
    for role, name in check_columns(label, names, columns, "item_columns", _FIELDS).items():
        chosen[role] = [name] if name else []
    chosen = {role: options for role, options in chosen.items() if options}
    if "item" not in chosen:
        raise DataError(
            f"{label}: cannot tell the field of the item ids; found: {field_list(names)}. "
            'Name it with `item_columns={"item": "FIELD"}`'
        )
    if len(chosen) == 1:
        raise DataError(
            f"{label}: neither titles nor descriptions; found: {field_list(names)}. "
            'Name them with `item_columns={"title": "FIELD", "description": "FIELD"}`'
        )
    return chosen


def _without_point(text: str) -> str:
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def _values(record: Mapping[str, Any], role: str, names: Sequence[str], raw_text: bool) -> list[str]:
    """Texts of a role, of the first field that has any; what is no text is an error in the essential."""
    try:
        is_image = role == "image"
        as_is = raw_text or role in ("item", "image")  # ids and addresses are no text to clean
        texts = (_texts(record.get(name), name, as_is, is_image) for name in names)
        values = next(filter(None, texts), [])
    except ValueError:
        if role in _ESSENTIAL:
            raise
        return []
    if role == "categories" and len(values) == 1:  # as MovieLens writes genres
        return [part.strip() for part in values[0].split("|") if part.strip()]
    return values


def _texts(value: Any, name: str, raw_text: bool, is_image: bool = False) -> list[str]:
    """Texts of a value that are neither missing nor blank; a list has several."""
    if isinstance(value, str) and _LIST.fullmatch(value):
        value = _parse_list(value)
    parts = [to_text(part, name) for part in _flat(value, is_image)]
    texts = (part.strip() if raw_text else clean_text(part).strip() for part in parts if part is not None)
    return [text for text in texts if text and text not in MISSING]


def _flat(value: Any, is_image: bool = False) -> Iterator[Any]:
    """Values of a list of lists; of an image with addresses of several sizes, the largest."""
    if is_image and isinstance(value, Mapping):
        known = [value[key] for key in _IMAGE_KEYS if value.get(key)]
        yield from known[:1]
    elif isinstance(value, list):
        for part in value:
            yield from _flat(part, is_image)
    else:
        yield value


def _parse_list(text: str) -> list[Any] | str:
    """List of a text such as "['first', 'second']", as pandas and NumPy write lists to CSV; else the text."""
    for candidate in (_UNDIVIDED.sub(", ", text), text):
        try:
            value = ast.literal_eval(candidate.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list):
            return value
    return text
