"""Reading of vectors of items or passages that the user has: .npy, Parquet, Feather, arrays and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.errors import DataError
from llmdirect.common.expansion import check_parquet
from llmdirect.common.files import digest, file_digest, open_regular
from llmdirect.data.readers.sources import resolve_source

ITEM_FIELDS: Final = (
    *("item_id", "item", "parent_asin", "asin", "product_id", "business_id", "gmap_id", "book_id"),
    *("movieId", "app_id", "ISBN", "id"),
)
USER_FIELDS: Final = ("user_id", "user", "reviewerID", "customer_id", "reviewer_id", "author_id", "userId")
_MAX_DIM: Final = 1 << 20


@dataclass(frozen=True, eq=False)
class OwnVectors:
    """Vectors with the ids that they came with. n vectors of D dimensions."""

    label: str
    """File name or "the array", for messages."""
    vectors: NDArray[Any]
    """[n, D] numbers, perhaps mapped from a file."""
    item_ids: list[str] | None
    """[n]; None where vectors come in the order of the dataset."""
    user_ids: list[str | None] | None
    """[n] author of the review, None for the description of an item; None for vectors of items."""
    hash: str
    """Digest of vectors and ids."""

    @property
    def name(self) -> str:
        """Name of the file without folder and suffix."""
        return Path(self.label).stem if self.label != "the array" else "vectors"

    @property
    def id(self) -> str:
        """Description in place of an encoder's."""
        return "given vectors" if self.label == "the array" else f"vectors of {self.name}"

    def row(self, index: int) -> str:
        """A row in messages: its number from 1, and its ids."""
        ids = [] if self.item_ids is None else [f"item {self.item_ids[index]!r}"]
        if self.user_ids is not None and self.user_ids[index] is not None:
            ids.insert(0, f"user {self.user_ids[index]!r}")
        return f"{self.label}: row {index + 1:,}" + (f" ({', '.join(ids)})" if ids else "")


def read_own_vectors(source: Any, ids: Path | str | Sequence[str] | None = None) -> OwnVectors:
    """Read vectors and their ids.

    Parameters
    ----------
    source
        Path of a .npy, Parquet or Feather file, an array [n, D], or a table in memory. Tables have a column
        of item ids, perhaps one of user ids, and one column of lists of numbers (or several of numbers).
    ids
        Item ids of the rows of an array: a list, or a text file with one a line.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If the source is not of this form; the message has file, row and cure.
    """
    is_path = isinstance(source, str | Path)
    if is_path and Path(source).suffix == ".npy":
        path = Path(source)
        return _checked(_from_array(str(path), _read_npy(path), ids, file_digest(path)))
    if isinstance(source, np.ndarray) or hasattr(source, "detach"):
        array = np.asarray(source.detach().cpu().float() if hasattr(source, "detach") else source)
        own = digest(repr((array.shape, array.dtype.str)), np.ascontiguousarray(array).tobytes())
        return _checked(_from_array("the array", array, ids, own))
    if ids is not None:
        raise ValueError("`embedding_ids` belongs to an array or a .npy file; a table has a column of ids")
    return _checked(_from_table(source))


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        open_regular(path).close()
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not found") from None
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not an array of numbers ({error}); write it with `numpy.save`") from None
    return array


def _from_array(
    label: str, array: NDArray[Any], ids: Path | str | Sequence[str] | None, own_hash: str
) -> OwnVectors:
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(f"{label}: {array.dtype} {list(array.shape)}, expected numbers [vectors, dimensions]")
    if ids is None:
        return OwnVectors(label, array, None, None, own_hash)
    if isinstance(ids, str | Path):
        where, names = str(ids), Path(ids).read_text("utf-8-sig").splitlines()
    else:
        where, names = "`embedding_ids`", list(map(str, ids))
    if len(names) != len(array):
        raise DataError(
            f"{where}: {len(names):,} ids for the {len(array):,} vectors of {label}; give one id a vector"
        )
    names = [name.strip() for name in names]
    if "" in names:
        raise DataError(f"{where}: line {names.index('') + 1:,} has no id; give one id a vector")
    return OwnVectors(label, array, names, None, digest(own_hash, "\n".join(names)))


def _from_table(source: Any) -> OwnVectors:
    raw = resolve_source(source)
    if raw.table is None:
        if len(raw.paths) != 1:
            raise DataError(f"{raw.label}: {len(raw.paths)} files; give one file of vectors")
        table = _read_table(raw.paths[0], raw.label_of(raw.paths[0]) or str(raw.paths[0]))
    else:
        table = raw.table
    item = _field(table.column_names, ITEM_FIELDS)
    user = _field(table.column_names, USER_FIELDS)
    if item is None:
        raise DataError(
            f"{raw.label}: no column of item ids ({', '.join(ITEM_FIELDS[:4])}, …); found: "
            f"{', '.join(table.column_names)}. Rename it to item_id"
        )
    item_ids = _ids(raw.label, table, item)
    for row, name in enumerate(item_ids, 1):
        if not name:
            raise DataError(f"{raw.label}: row {row:,} has no item id in column {item!r}; remove the row")
    own = raw.digest()
    return OwnVectors(
        raw.label,
        _vector_columns(raw.label, table, {item, user}),
        [name or "" for name in item_ids],
        None if user is None else _ids(raw.label, table, user),
        own if isinstance(own, str) else digest(*own),
    )


def _read_table(path: Path, label: str) -> Any:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    open_regular(path).close()
    with path.open("rb") as file:
        start = file.read(6)
    try:
        if start[:4] == b"PAR1":
            check_parquet(path, label)
            return pyarrow.parquet.read_table(path)
        if start in (b"ARROW1", b"FEA1"):
            return pyarrow.feather.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{label}: damaged ({error}); write it again") from None
    raise DataError(
        f"{label}: neither .npy nor Parquet nor Feather; save the vectors in one of these formats"
    )


def _field(names: Sequence[str], options: Sequence[str]) -> str | None:
    lower = {name.casefold(): name for name in reversed(names)}
    return next((lower[option.casefold()] for option in options if option.casefold() in lower), None)


def _ids(label: str, table: Any, name: str) -> list[str | None]:
    import pyarrow as pa

    column = table.column(name)
    if pa.types.is_nested(column.type):
        raise DataError(f"{label}: column {name!r} is of type {column.type}, expected ids")
    texts = (None if value is None else str(value).strip() for value in column.to_pylist())
    return [text or None for text in texts]


def _vector_columns(label: str, table: Any, ids: set[str | None]) -> NDArray[Any]:
    """Vectors [n, D] of the only column of lists, or of all columns of floats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    others = [field for field in table.schema if field.name not in ids]
    lists = [
        field.name
        for field in others
        if pa.types.is_list(field.type)
        or pa.types.is_large_list(field.type)
        or pa.types.is_fixed_size_list(field.type)
    ]
    floats = [field.name for field in others if pa.types.is_floating(field.type)]
    if len(lists) > 1 or not (lists or floats):
        found = ", ".join(lists) if lists else "none"
        raise DataError(
            f"{label}: expected one column of vectors (lists of numbers), found {found}; remove the others"
        )
    if not lists:
        parts = [table.column(name).to_numpy() for name in floats]
        return np.stack(parts, axis=1)
    column = table.column(lists[0])
    if column.null_count:
        row = pc.is_null(column).to_pylist().index(True) + 1
        raise DataError(f"{label}: row {row:,} has no vector in column {lists[0]!r}; remove the row")
    widths = pc.list_value_length(column).to_numpy()
    if len(widths) and (widths != widths[0]).any():
        row = int(np.flatnonzero(widths != widths[0])[0])
        raise DataError(
            f"{label}: row {row + 1:,} has a vector of {widths[row]} numbers, row 1 one of {widths[0]}; all "
            "vectors must have the same width"
        )
    values = pc.list_flatten(column)
    if values.null_count or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise DataError(f"{label}: column {lists[0]!r} holds missing values or no numbers; expected vectors")
    return np.asarray(values.to_numpy()).reshape(len(widths), int(widths[0]) if len(widths) else 0)


def _checked(own: OwnVectors) -> OwnVectors:
    """The vectors; DataError where there are none, or an id twice, or a value is not finite in float32."""
    rows, dim = own.vectors.shape
    if not rows or not 1 <= dim <= _MAX_DIM:
        raise DataError(f"{own.label}: {rows:,} vectors of {dim:,} numbers; expected at least one of each")
    if own.item_ids is not None:
        first: dict[tuple[str | None, str], int] = {}
        for row, name in enumerate(own.item_ids):
            key = (None if own.user_ids is None else own.user_ids[row], name)
            if first.setdefault(key, row) != row:
                raise DataError(f"{own.row(row)} is also in row {first[key] + 1:,}; keep one of them")
    for start in range(0, rows, 1 << 14):
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(own.vectors[start : start + (1 << 14)], np.float32)).all(1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise DataError(f"{own.row(row)} holds NaN or an infinity; every number must be finite")
    return own
