"""The prepared dataset as later stages read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect._core import passage_keys
from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST, file_digest, read_manifest
from llmdirect.common.types import Json
from llmdirect.text.duplicates import pair_ids, text_ids

FORMAT: Final = "llmdirect-dataset"
VERSION: Final = 1
TRAIN, VALID, TEST = 0, 1, 2
SPLIT_NAMES: Final = ("train", "valid", "test")
KINDS: Final = ("review", "description", "document")
_MADE_BY: Final = "llmdirect prepare REVIEWS --out DATASET"
_NULLABLE: Final = ("rating", "timestamp", "title")
NO_TIME: Final = np.iinfo(np.int64).min

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


@dataclass(frozen=True, eq=False)
class Interactions:
    """One row per (user, item), ordered by user, then time; all arrays are [n].

    passage_idx is -1 in the document unit; rating is NaN and timestamp (seconds) NO_TIME where missing.
    """

    user_idx: NDArray[np.int32]
    item_idx: NDArray[np.int32]
    passage_idx: NDArray[np.int64]
    rating: NDArray[np.float32]
    timestamp: NDArray[np.int64]
    split: NDArray[np.uint8]
    positive: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.user_idx)


@dataclass(frozen=True, eq=False)
class Passages:
    """One row per passage, all [num_passages]; kind indexes KINDS; user_idx or item_idx is -1 for none."""

    text: pl.Series
    kind: NDArray[np.uint8]
    user_idx: NDArray[np.int32]
    item_idx: NDArray[np.int32]
    split: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What `prepare` made: who wrote what about which item, and in which split."""

    path: Path
    manifest: Json
    hash: str
    user_ids: list[str]
    item_ids: list[str]
    item_titles: list[str | None]
    interactions: Interactions
    passages: Passages
    known: Csr | None = None
    """What users have beside their interactions, U rows of items: no candidates for them."""

    @classmethod
    def open(cls, path: Path | str) -> "Dataset":
        """Reads the folder that `prepare` wrote.

        Raises FileNotFoundError where the manifest or one of its files is missing, DataError where a file
        is not what the manifest says, to the byte; `audit` also checks what the tables say.
        """
        path = Path(path)
        manifest = read_dataset_manifest(path)
        tables = {name: _read_table(path, manifest, name) for name in SCHEMAS}
        rows, passages, items = tables["interactions"], tables["passages"], tables["items"]
        return cls(
            path=path,
            manifest=manifest,
            hash=manifest["hash"],
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
            ),
            passages=Passages(
                text=passages["text"],
                kind=_kind_codes(passages["kind"]),
                user_idx=passages["user_idx"].to_numpy(),
                item_idx=passages["item_idx"].to_numpy(),
                split=passages["split"].to_numpy(),
            ),
        )

    @property
    def num_users(self) -> int:
        """Users with at least one interaction, in any split."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Items with at least one interaction, in any split."""
        return len(self.item_ids)

    @property
    def num_passages(self) -> int:
        """Passages of all kinds, empty ones among them."""
        return len(self.passages)

    def passage_keys(self) -> NDArray[np.uint8]:
        """Content hash of each passage text, its key in the embedding store: uint8 [num_passages, 16]."""
        return passage_keys(self.passages.text.to_list())

    def copy_group(self) -> NDArray[np.int64]:
        """The same number for same-user copies of one normalised text: int64 [num_passages].

        -1 for a passage without words or without a user. Where a pair is left out of the statistics that
        score it, every passage of its group is left out too.
        """
        return pair_ids(self.passages.user_idx, text_ids(self.passages.text))

    def csr(self, split: int | tuple[int, ...], positive_only: bool = True) -> Csr:
        """The items of each user in one split or several: num_users rows, ascending, each item once."""
        rows = self.interactions
        keep = np.isin(rows.split, np.atleast_1d(split))
        if positive_only:
            keep &= rows.positive
        return Csr.from_pairs(rows.user_idx[keep], rows.item_idx[keep], self.num_users)

    def popularity(self, split: int | tuple[int, ...]) -> NDArray[np.int64]:
        """How often each item was chosen in one split or several, int64 [num_items]: its positives, and the
        reviews of it that have no user, each of which somebody wrote.
        """
        passages = self.passages
        nameless = np.isin(passages.split, np.atleast_1d(split)) & (passages.user_idx < 0)
        nameless &= passages.kind == KINDS.index("review")
        chosen = np.concatenate([self.csr(split).indices, passages.item_idx[nameless]])
        return np.bincount(chosen, minlength=self.num_items)


def read_dataset_manifest(folder: Path) -> Json:
    """Reads the manifest that `prepare` wrote. Raises as `read_manifest` does, and where a part lacks."""
    manifest = read_manifest(folder, FORMAT, VERSION, _MADE_BY)
    try:
        whole = isinstance(manifest["hash"], str) and isinstance(manifest["counts"], dict)
        whole &= manifest["options"]["unit"] in ("review", "document")
        for name in SCHEMAS:
            entry = manifest["files"][name]
            whole &= all(isinstance(entry[key], str) for key in ("name", "hash"))
            whole &= isinstance(entry["bytes"], int)
    except (KeyError, TypeError, IndexError):
        whole = False
    if not whole:
        raise DataError(
            f"{folder / MANIFEST}: a part is missing or of the wrong type; run `{_MADE_BY} --overwrite`"
        )
    return manifest


def _read_table(folder: Path, manifest: Json, name: str) -> pl.DataFrame:
    entry = manifest["files"][name]
    path = folder / entry["name"]
    cure = f"run `{_MADE_BY} --overwrite`"
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found, though {folder / MANIFEST} names it; {cure}")
    if path.stat().st_size != entry["bytes"]:
        raise DataError(f"{path}: {path.stat().st_size} bytes, the manifest says {entry['bytes']}; {cure}")
    if (found := file_digest(path)) != entry["hash"]:
        raise DataError(
            f"{path}: damaged, its bytes hash to {found}, the manifest says {entry['hash']}; {cure}"
        )
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not readable as Parquet ({error}); {cure}") from None
    if table.schema != SCHEMAS[name]:
        raise DataError(f"{path}: columns are {dict(table.schema)}, expected {dict(SCHEMAS[name])}; {cure}")
    for column in table.iter_columns():
        if column.null_count() and column.name not in _NULLABLE:
            raise DataError(f"{path}: column {column.name!r} lacks {column.null_count():,} values; {cure}")
    if name == "passages" and not (unknown := table["kind"].filter(~table["kind"].is_in(KINDS))).is_empty():
        raise DataError(f"{path}: passage of kind {unknown[0]!r}, there are {', '.join(KINDS)}; {cure}")
    return table


def _kind_codes(kinds: pl.Series) -> NDArray[np.uint8]:
    codes = kinds.replace_strict(list(KINDS), list(range(len(KINDS))), return_dtype=pl.UInt8)
    return codes.to_numpy()
