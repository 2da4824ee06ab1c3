"""Prepared dataset: interactions, splits and passages."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect._core import passage_keys
from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.common.expansion import check_parquet
from llmdirect.common.files import MANIFEST, digest, file_digest, file_inside, read_manifest
from llmdirect.common.schema import check_schema
from llmdirect.common.types import Json
from llmdirect.data.consistency import check_consistency
from llmdirect.data.schema import DatasetManifest
from llmdirect.text.duplicates import pair_ids, text_ids

FORMAT: Final = "llmdirect-dataset"
VERSION: Final = 1
TRAIN, VALID, TEST = 0, 1, 2
SPLIT_NAMES: Final = ("train", "valid", "test")
GIVEN: Final = "given"
"""Name of a split that the user made."""
KINDS: Final = ("review", "description", "document")
PassageKey: TypeAlias = Literal["text", "passage", "item"]
"""What the embeddings of a passage are looked up by."""
_COMMAND: Final = "llmdirect prepare"
_CURE: Final = f"run `{_COMMAND}` again with `overwrite=True`"
_NULLABLE: Final = ("rating", "timestamp", "title", "price", "image")
NO_TIME: Final = np.iinfo(np.int64).min
"""Timestamp of an interaction without one."""

SCHEMAS: Final = {
    "interactions": pl.Schema(
        {
            "user_idx": pl.Int32,
            "item_idx": pl.Int32,
            "passage_idx": pl.Int64,
            "rating": pl.Float32,
            "timestamp": pl.Int64,
            "split": pl.UInt8,
            "positive": pl.Boolean,
        }
    ),
    "users": pl.Schema({"user_id": pl.String}),
    "items": pl.Schema({"item_id": pl.String, "title": pl.String}),
    "passages": pl.Schema(
        {"text": pl.String, "kind": pl.String, "user_idx": pl.Int32, "item_idx": pl.Int32, "split": pl.UInt8}
    ),
}

_WEIGHT: Final = pl.Schema({"weight": pl.Float32})
"""Column of interactions that a dataset has where some came without text."""

_DETAILS: Final = pl.Schema(
    {
        "categories": pl.List(pl.String),
        "features": pl.List(pl.String),
        "price": pl.String(),
        "image": pl.String(),
    }
)
"""Columns of items that a dataset has where the file of items has them."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions, one row per (user, item), ordered by user, then time."""

    user_idx: NDArray[np.int32]
    """int32 [n]"""
    item_idx: NDArray[np.int32]
    """int32 [n]"""
    passage_idx: NDArray[np.int64]
    """int64 [n], the review; -1 for all where passages are documents."""
    rating: NDArray[np.float32]
    """float32 [n], NaN where missing."""
    timestamp: NDArray[np.int64]
    """int64 [n], seconds since 1970; `NO_TIME` where missing."""
    split: NDArray[np.uint8]
    """uint8 [n], TRAIN, VALID or TEST."""
    positive: NDArray[np.bool_]
    """bool [n], whether the interaction counts as positive."""
    weight: NDArray[np.float32] | None = None
    """float32 [n], above 0: number of interactions, or the weight that they came with; None for 1 each."""

    def __len__(self) -> int:
        return len(self.user_idx)


@dataclass(frozen=True, eq=False)
class Passages:
    """Passages: reviews, item descriptions and documents."""

    text: pl.Series
    """String [num_passages]"""
    kind: NDArray[np.uint8]
    """uint8 [num_passages], index into `KINDS`."""
    user_idx: NDArray[np.int32]
    """int32 [num_passages], author; -1 for none."""
    item_idx: NDArray[np.int32]
    """int32 [num_passages], -1 for the document of a user."""
    split: NDArray[np.uint8]
    """uint8 [num_passages], TRAIN, VALID or TEST."""
    key_user_idx: NDArray[np.int32] | None = None
    """int32 [num_passages], author in the key of a passage, where authors are hidden; None: `user_idx`."""

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared dataset: interactions of users with items, passages, and splits.

    Examples
    --------
    >>> dataset = Dataset.open("instruments")  # doctest: +SKIP
    >>> train = dataset.csr(TRAIN)  # doctest: +SKIP
    """

    path: Path
    """Folder of the dataset."""
    manifest: Json
    base_hash: str
    """Hash of all but a split that was replaced in memory: 32 hex digits."""
    user_ids: list[str]
    """External ids [num_users]."""
    item_ids: list[str]
    """External ids [num_items]."""
    item_titles: list[str | None]
    """Titles [num_items], None where unknown."""
    interactions: Interactions
    passages: Passages
    extra_seen: Csr | None = None
    """Items [num_users rows] that users have seen apart from their interactions; no candidates for them."""
    item_details: pl.DataFrame | None = None
    """Table [num_items] with what the file of items has of the columns `categories` and `features` (lists of
    texts), `price` and `image` (texts, null where unknown); None without any."""
    base_split: str = ""
    """Digest of the split that `base_hash` covers; by default of the split of `interactions`."""

    def __post_init__(self) -> None:
        if not self.base_split:
            object.__setattr__(self, "base_split", _split_digest(self.interactions))

    @classmethod
    def open(cls, path: Path | str) -> "Dataset":
        """Open the folder of a dataset, verify the bytes of its files, and check indices, ids and pairs.

        `audit` also checks that interactions and passages agree, and that nothing leaks between the splits.

        Raises
        ------
        FileNotFoundError
            If the manifest or one of its files is missing.
        DataError
            If the manifest is invalid, a file differs from it, or a table holds an index out of range, an
            id or a pair twice; the message has file, row and cure.
        """
        path = Path(path)
        manifest = read_dataset_manifest(path)
        tables = {name: _read_table(path, manifest, name) for name in SCHEMAS}
        files = {name: path / entry["name"] for name, entry in manifest["files"].items()}
        check_consistency(tables, files, manifest["options"]["unit"], _CURE)
        rows, passages, items = tables["interactions"], tables["passages"], tables["items"]
        return cls(
            path=path,
            manifest=manifest,
            base_hash=manifest["hash"],
            user_ids=tables["users"]["user_id"].to_list(),
            item_ids=items["item_id"].to_list(),
            item_titles=items["title"].to_list(),
            interactions=Interactions(
                user_idx=rows["user_idx"].to_numpy(),
                item_idx=rows["item_idx"].to_numpy(),
                passage_idx=rows["passage_idx"].to_numpy(),
                rating=rows["rating"].fill_null(float("nan")).to_numpy(),
                timestamp=rows["timestamp"].fill_null(NO_TIME).to_numpy(),
                split=rows["split"].to_numpy(),
                positive=rows["positive"].to_numpy(),
                weight=rows["weight"].to_numpy() if "weight" in rows.columns else None,
            ),
            passages=Passages(
                text=passages["text"],
                kind=_kind_codes(passages["kind"]),
                user_idx=passages["user_idx"].to_numpy(),
                item_idx=passages["item_idx"].to_numpy(),
                split=passages["split"].to_numpy(),
            ),
            item_details=items.select(pl.exclude("item_id", "title")) if items.width > 2 else None,
        )

    @property
    def hash(self) -> str:
        """Content hash: 32 hex digits; another one where the split was replaced in memory."""
        split = _split_digest(self.interactions)
        return self.base_hash if split == self.base_split else digest(self.base_hash, "split", split)

    def with_split(self, split: NDArray[np.uint8]) -> "Dataset":
        """Dataset with another split of the same interactions, in memory.

        Parameters
        ----------
        split
            uint8 [n], TRAIN, VALID or TEST for each of `interactions`.

        Raises
        ------
        ValueError
            If the array is of another length or holds another number, or passages are documents.
        """
        rows = self.interactions
        if split.shape != rows.split.shape or not np.isin(split, (TRAIN, VALID, TEST)).all():
            raise ValueError(f"split: expected {len(rows):,} numbers, {TRAIN} to {TEST}")
        if self.manifest["options"]["unit"] == "document":
            raise ValueError(f"{self.path}: its passages are documents, which hold the texts of one split")
        codes = split.astype(np.uint8)
        passage_codes = self.passages.split.copy()
        passage_codes[rows.passage_idx] = codes
        return replace(
            self,
            manifest=self.manifest_of(codes) | {"options": self.manifest["options"] | {"split": GIVEN}},
            interactions=replace(rows, split=codes),
            passages=replace(self.passages, split=passage_codes),
        )

    def manifest_of(self, split: NDArray[np.uint8]) -> Json:
        """Manifest with the counts of other interactions per split, uint8 [n]."""
        return self.manifest | {"counts": self.manifest["counts"] | {"per_split": count_splits(split)}}

    @property
    def num_users(self) -> int:
        """Number of users with at least one interaction, in any split."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of items; those that come from a file of items alone have no interaction."""
        return len(self.item_ids)

    @property
    def num_passages(self) -> int:
        """Number of passages of all kinds, empty ones included."""
        return len(self.passages)

    @property
    def has_text(self) -> bool:
        """Whether any passage has text, in any split."""
        return bool((self.passages.text.str.strip_chars() != "").any())

    def passage_keys(self, by: PassageKey = "text") -> NDArray[np.uint8]:
        """Keys of the passages in an embedding store, uint8 [num_passages, 16].

        Parameters
        ----------
        by
            What a store knows a passage by: its text, or, for vectors of one's own, its user, item and kind
            ("passage"), or its item.
        """
        passages = self.passages
        if by == "text":
            return passage_keys(passages.text.to_list())
        items = [*self.item_ids, ""]
        if by == "item":
            return passage_keys([f"item\n{items[item]}" for item in passages.item_idx.tolist()])
        users = [*self.user_ids, ""]
        authors = passages.user_idx if passages.key_user_idx is None else passages.key_user_idx
        rows = zip(authors.tolist(), passages.item_idx.tolist(), passages.kind.tolist(), strict=True)
        return passage_keys([f"{KINDS[kind]}\n{users[user]}\n{items[item]}" for user, item, kind in rows])

    def with_item_passages(self) -> "Dataset":
        """Dataset in which every item has a passage in train, in memory: an empty one where it had none.

        Vectors by item belong to the items, whether these have texts or not.
        """
        passages = self.passages
        has_train = np.zeros(self.num_items, bool)
        has_train[passages.item_idx[(passages.split == TRAIN) & (passages.item_idx >= 0)]] = True
        items = np.flatnonzero(~has_train)
        if not len(items):
            return self

        def extend(values: NDArray[Any], added: Any) -> NDArray[Any]:
            return np.concatenate([values, np.broadcast_to(added, len(items)).astype(values.dtype)])

        authors = passages.key_user_idx
        extended = Passages(
            text=passages.text.extend_constant("", len(items)),
            kind=extend(passages.kind, KINDS.index("description")),
            user_idx=extend(passages.user_idx, -1),
            item_idx=extend(passages.item_idx, items),
            split=extend(passages.split, TRAIN),
            key_user_idx=None if authors is None else extend(authors, -1),
        )
        return replace(self, passages=extended)

    def duplicate_ids(self) -> NDArray[np.int64]:
        """Ids of the texts of each user, the same for duplicates after normalisation.

        Where a pair is left out of the statistics that score it, its duplicates are left out too.

        Returns
        -------
        int64 [num_passages], -1 for a passage without words or without a user.
        """
        return pair_ids(self.passages.user_idx, text_ids(self.passages.text))

    def csr(self, split: int | tuple[int, ...], positive_only: bool = True) -> Csr:
        """Items of each user in one split or several, num_users rows.

        Parameters
        ----------
        split
            TRAIN, VALID or TEST, or several of them.
        positive_only
            Leave out interactions that are not positive.
        """
        rows = self.interactions
        keep = np.isin(rows.split, np.atleast_1d(split))
        if positive_only:
            keep &= rows.positive
        return Csr.from_pairs(rows.user_idx[keep], rows.item_idx[keep], self.num_users)

    def popularity(self, split: int | tuple[int, ...]) -> NDArray[np.int64]:
        """Popularity of the items in one split or several: positives and reviews without a user.

        Returns
        -------
        int64 [num_items].
        """
        passages = self.passages
        anonymous = np.isin(passages.split, np.atleast_1d(split)) & (passages.user_idx < 0)
        anonymous &= passages.kind == KINDS.index("review")
        chosen = np.concatenate([self.csr(split).indices, passages.item_idx[anonymous]])
        return np.bincount(chosen, minlength=self.num_items)


def count_splits(split: NDArray[np.uint8]) -> dict[str, int]:
    """Number of interactions of each split, by name."""
    return dict(zip(SPLIT_NAMES, np.bincount(split, minlength=len(SPLIT_NAMES)).tolist(), strict=True))


def _split_digest(rows: Interactions) -> str:
    return digest(rows.split.tobytes())


def read_dataset_manifest(folder: Path) -> Json:
    """Read and validate the manifest of a dataset.

    Raises
    ------
    FileNotFoundError
        If there is none.
    DataError
        If it is not that of a dataset, or a part is missing or not as its schema has it.
    """
    manifest = read_manifest(folder, FORMAT, VERSION, _COMMAND)
    check_schema(folder / MANIFEST, manifest, DatasetManifest, _CURE)
    return manifest


def _read_table(folder: Path, manifest: Json, name: str) -> pl.DataFrame:
    entry = manifest["files"][name]
    path = file_inside(folder, entry["name"])
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found, though {folder / MANIFEST} names it; {_CURE}")
    if path.stat().st_size != entry["bytes"]:
        raise DataError(f"{path}: {path.stat().st_size} bytes, the manifest says {entry['bytes']}; {_CURE}")
    if (actual := file_digest(path)) != entry["hash"]:
        raise DataError(
            f"{path}: damaged, its bytes hash to {actual}, the manifest says {entry['hash']}; {_CURE}"
        )
    check_parquet(path)
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # bad pages can panic
        raise DataError(f"{path}: not readable as Parquet ({error}); {_CURE}") from None
    possible = {"interactions": _WEIGHT, "items": _DETAILS}.get(name, pl.Schema())
    optional = {column: dtype for column, dtype in possible.items() if column in table.columns}
    if table.schema != pl.Schema({**SCHEMAS[name], **optional}):
        raise DataError(f"{path}: columns are {dict(table.schema)}, expected {dict(SCHEMAS[name])}; {_CURE}")
    for column in table.iter_columns():
        if column.null_count() and column.name not in _NULLABLE:
            raise DataError(f"{path}: column {column.name!r} lacks {column.null_count():,} values; {_CURE}")
    if name == "passages" and not (unknown := table["kind"].filter(~table["kind"].is_in(KINDS))).is_empty():
        raise DataError(f"{path}: passage of kind {unknown[0]!r}, there are {', '.join(KINDS)}; {_CURE}")
    return table


def _kind_codes(kinds: pl.Series) -> NDArray[np.uint8]:
    codes = kinds.replace_strict(list(KINDS), list(range(len(KINDS))), return_dtype=pl.UInt8)
    return codes.to_numpy()
