"""Shards: folders with the files of a store, each committed by its manifest."""

import logging
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import Store, write_store_files
from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST, digest, read_manifest, sync_folder, write_manifest
from llmdirect.common.types import Json, canonical_json
from llmdirect.store.batch_plan import differences

STORE_FORMAT, STORE_VERSION = "llmdirect-store", 2
_BESIDE_TOKENS = 8  # bytes of a token's span
_BESIDE_PASSAGES = 24  # bytes of a passage's offset and key

logger = logging.getLogger(__name__)


def read_store_manifest(folder: Path, made_by: str) -> Json:
    """The manifest of a store or shard, of any version. Raises as `read_manifest` does."""
    return read_manifest(folder, STORE_FORMAT, STORE_VERSION, made_by, oldest=1)


def content_hash(manifest: Json) -> str:
    """Digest of the data files: equal for stores and shards that hold the same bytes."""
    return digest(canonical_json(manifest["files"]))


def encoder_differences(found: Json, wanted: Json) -> list[str]:
    """In what two encoders' descriptions differ, but for the versions of libraries: they move last bits."""
    found, wanted = ({**each, "versions": None} for each in (found, wanted))
    return differences(found, wanted)


def clear_shards(store: Path) -> None:
    """Removes all shards of the store."""
    if (store / "shards").exists():
        shutil.rmtree(store / "shards")


def shard_folder(store: Path, shard: int) -> Path:
    """Where a shard lies."""
    return store / "shards" / f"{shard:05d}"


def store_bytes(rows: int, passages: int, row_bytes: int) -> int:
    """Bytes on disk of so many tokens, of `row_bytes` each, and passages."""
    return rows * (row_bytes + _BESIDE_TOKENS) + passages * _BESIDE_PASSAGES


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
    form: Json | None = None,
) -> None:
    """Writes the data files of a new folder, then the manifest, which alone makes the shard exist.

    `tokens` [rows, dim] in the store's type (bfloat16 as its uint16 bits), `scales` [rows] and `channels`
    [dim] with int8 alone. `form` tells how tokens are kept, where not all are as the encoder gave them.
    """
    folder.mkdir(parents=True)
    given = {"tokens": tokens, "offsets": offsets, "spans": spans, "keys": keys}
    beside = {"scales": scales, "channels": channels}
    arrays = [(name, array) for name, array in {**given, **beside}.items() if array is not None]
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
            **({"form": form} if form else {}),
            "files": write_store_files(folder, arrays),
        }
        write_manifest(folder, manifest)
    except BaseException:
        shutil.rmtree(folder)
        raise
    sync_folder(folder.parent)


def keep_or_clear(folder: Path, *, expected: Json) -> bool:
    """Whether the shard is complete and of this run, to the byte; what is left of another one is removed.

    Raises DataError where the manifest of a committed shard has other values than `expected`.
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
    """The first data file that is missing or not as long as the manifest says."""
    paths = {folder / entry["name"]: entry["bytes"] for entry in manifest["files"].values()}
    return next((path for path, data_bytes in paths.items() if not _is_whole(path, data_bytes)), None)


def _is_whole(path: Path, data_bytes: int) -> bool:
    """Whether the .npy file has its header and all of its data."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            return path.stat().st_size == file.tell() + data_bytes
    except (OSError, ValueError):
        return False
