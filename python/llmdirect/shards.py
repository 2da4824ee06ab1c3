"""Shards: folders with the files of a store, each committed by its manifest."""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import write_store_files
from llmdirect.artefacts import MANIFEST, Json, read_manifest, sync_folder, write_manifest
from llmdirect.errors import DataError

STORE_FORMAT, STORE_VERSION = "llmdirect-store", 2
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_BESIDE_TOKENS = 8  # bytes of a token's span
_BESIDE_PASSAGES = 24  # bytes of a passage's offset and key


def read_store_manifest(folder: Path, made_by: str) -> Json:
    """The manifest of a store or shard, of any version. Raises as `read_manifest` does."""
    return read_manifest(folder, STORE_FORMAT, STORE_VERSION, made_by, oldest=1)


def shard_folder(store: Path, shard: int) -> Path:
    """Where a shard lies."""
    return store / "shards" / f"{shard:05d}"


def store_bytes(rows: int, passages: int, dim: int, dtype: str) -> int:
    """Bytes on disk of so many tokens and passages."""
    return rows * (dim * ITEM_BYTES[dtype] + _BESIDE_TOKENS) + passages * _BESIDE_PASSAGES


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
) -> None:
    """Writes the data files of a new folder, then the manifest, which alone makes the shard exist.

    `tokens` [rows, dim] in the store's type (bfloat16 as its uint16 bits).
    """
    folder.mkdir(parents=True)
    arrays = [("tokens", tokens), ("offsets", offsets), ("spans", spans), ("keys", keys)]
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
            "files": write_store_files(folder, arrays),
        }
        write_manifest(folder, manifest)
    except BaseException:
        shutil.rmtree(folder)
        raise
    sync_folder(folder.parent)


def keep_or_clear(folder: Path, *, rows: int, encoder: Json, source: Json) -> bool:
    """Whether the shard is complete and of this run; what a killed run left of it is removed.

    Raises DataError where a committed shard is of another encoder or plan.
    """
    if not folder.exists():
        return False
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder)
        return False
    manifest = read_store_manifest(folder, "llmdirect precompute")
    found = [manifest.get(key) for key in ("encoder", "source", "rows")]
    if found != [encoder, source, rows]:
        raise DataError(f"{folder}: not a shard of this run; delete it, and it is made again")
    if damaged_file(folder, manifest) is None:
        return True
    shutil.rmtree(folder)
    return False


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
