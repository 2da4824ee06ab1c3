"""Shards of an embedding store: folders with the files of a store, each committed by its manifest."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import Store, write_store_files
from llmdirect.common.errors import DataError
from llmdirect.common.files import (
    MANIFEST,
    digest,
    disk_full_hint,
    file_inside,
    open_regular,
    read_manifest,
    sync_folder,
    write_manifest,
)
from llmdirect.common.locks import shared_writer, single_writer
from llmdirect.common.schema import check_schema
from llmdirect.common.types import Json, canonical_json
from llmdirect.store.batch_plan import differences
from llmdirect.store.schema import StoreManifest

STORE_FORMAT, STORE_VERSION = "llmdirect-store", 2
_SPAN_BYTES = 8  # of a token
_OFFSET_AND_KEY_BYTES = 24  # of a passage

logger = logging.getLogger(__name__)


def read_store_manifest(folder: Path, made_by: str) -> Json:
    """Manifest of a store or shard, of any version.

    Raises
    ------
    FileNotFoundError, DataError
        As `read_manifest`; DataError also for content that is not as its schema has it.
    """
    manifest = read_manifest(folder, STORE_FORMAT, STORE_VERSION, made_by, oldest=1)
    cure = f"remove {folder}, then run `llmdirect precompute` and `llmdirect consolidate` again"
    check_schema(folder / MANIFEST, manifest, StoreManifest, cure)
    return manifest


def content_hash(manifest: Json) -> str:
    """Digest of the data files: equal for stores and shards with the same bytes."""
    return digest(canonical_json(manifest["files"]))


def encoder_differences(stored: Json, expected: Json) -> list[str]:
    """Differences of two encoder descriptions, except versions of libraries, which change only last bits."""
    stored, expected = ({**description, "versions": None} for description in (stored, expected))
    return differences(stored, expected)


@contextmanager
def shard_writer(store: Path, *, shared: bool = False) -> Iterator[Callable[[], None] | None]:
    """Lock of a store while shards are written; the error of a full disk says that they can be resumed.

    Parameters
    ----------
    store
        Folder of the store.
    shared
        Write next to the process that holds the lock and has shared it.

    Yields
    ------
    callable or None
        Function that shares the lock; None if it is shared already.

    Raises
    ------
    BusyError
        If another process writes to the store.
    """
    lock = shared_writer if shared else single_writer
    with (
        lock(store) as share,
        disk_full_hint(store, "make room and run again: shards that are complete stay"),
    ):
        yield share


def clear_shards(store: Path) -> None:
    """Remove all shards of a store."""
    if (store / "shards").exists():
        shutil.rmtree(store / "shards")


def clear_other_shards(store: Path, expected: Json) -> None:
    """Remove all shards where one is of other texts or of another encoder, such as those kept after joining.

    Parameters
    ----------
    expected
        Entries that the manifest of every shard must have.
    """
    for path in sorted((store / "shards").glob("*")):
        if (path / MANIFEST).exists():
            stored = read_store_manifest(path, "llmdirect precompute")
            if any(stored.get(key) != value for key, value in expected.items()):
                clear_shards(store)
                return


def shard_folder(store: Path, shard: int) -> Path:
    """Folder of a shard."""
    return store / "shards" / f"{shard:05d}"


def store_bytes(rows: int, passages: int, row_bytes: int) -> int:
    """Bytes on disk of `rows` tokens, of `row_bytes` each without their spans, in `passages` passages."""
    return rows * (row_bytes + _SPAN_BYTES) + passages * _OFFSET_AND_KEY_BYTES


def write_shard(
    folder: Path,
    *,
    tokens: NDArray[np.generic],
    offsets: NDArray[np.int64],
    spans: NDArray[np.uint32],
    keys: NDArray[np.uint8],
    dtype: str,
    encoder: Json,
    source: Json,
    scales: NDArray[np.float16] | None = None,
    channels: NDArray[np.float32] | None = None,
    token_format: Json | None = None,
) -> None:
    """Write the data files of a new shard or store, then its manifest, which commits it.

    Parameters
    ----------
    folder
        Folder to create.
    tokens
        [rows, dim] in the type of the store; bfloat16 as its uint16 bits.
    offsets
        int64 [P + 1] first row of each passage.
    spans
        uint32 [rows, 2] characters of each token.
    keys
        uint8 [P, 16] content hash of each passage.
    dtype
        Name of the type of the store.
    encoder, source
        Entries of the manifest.
    scales, channels
        float16 [rows] and float32 [dim], for int8 alone.
    token_format
        Entry "form" of the manifest (`TokenFormat.to_json`).
    """
    folder.mkdir(parents=True)
    arrays: dict[str, NDArray[np.generic] | None] = {
        "tokens": tokens,
        "offsets": offsets,
        "spans": spans,
        "keys": keys,
        "scales": scales,
        "channels": channels,
    }
    try:
        manifest = {
            "format": STORE_FORMAT,
            "version": STORE_VERSION,
            "dtype": dtype,
            "dim": tokens.shape[1],
            "rows": len(tokens),
            "passages": len(keys),
            "encoder": encoder,
            "source": source,
            **({"form": token_format} if token_format else {}),
            "files": write_store_files(
                folder, [(name, array) for name, array in arrays.items() if array is not None]
            ),
        }
        write_manifest(folder, manifest)
    except BaseException:
        shutil.rmtree(folder)
        raise
    sync_folder(folder.parent)


def keep_or_clear(folder: Path, *, expected: Json) -> bool:
    """Whether a shard is complete, to the byte; an incomplete or damaged one is removed.

    Parameters
    ----------
    folder
        Folder of the shard.
    expected
        Entries that its manifest must have.

    Raises
    ------
    DataError
        If the manifest of a complete shard has other entries.
    """
    if not folder.exists():
        return False
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder)
        return False
    manifest = read_store_manifest(folder, "llmdirect precompute")
    if any(manifest.get(key) != value for key, value in expected.items()):
        raise DataError(f"{folder}: not a shard of this run; delete it, and it is made again")
    try:
        Store.open(folder, False, True)
    except DataError as error:
        logger.warning("%s; it is made again", str(error).split(";")[0])
        shutil.rmtree(folder)
        return False
    return True


def damaged_file(folder: Path, manifest: Json) -> Path | None:
    """First data file that is missing or shorter or longer than the manifest says."""
    paths = {file_inside(folder, entry["name"]): entry["bytes"] for entry in manifest["files"].values()}
    return next((path for path, data_bytes in paths.items() if not _is_whole(path, data_bytes)), None)


def _is_whole(path: Path, data_bytes: int) -> bool:
    """Whether a .npy file has its header and all of its data."""
    try:
        with open_regular(path) as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            return path.stat().st_size == file.tell() + data_bytes
    except (OSError, ValueError):
        return False
