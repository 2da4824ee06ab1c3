"""Empty embedding store of a dataset without text."""

from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np

from llmdirect._core import passage_keys
from llmdirect.common.files import MANIFEST
from llmdirect.data.dataset import Dataset
from llmdirect.store.consolidation import consolidate
from llmdirect.store.shards import keep_or_clear, shard_folder, shard_writer, write_shard
from llmdirect.store.store import EmbeddingStore, open_store

NO_TEXT: Final = "no-text"
"""Name of the store of a dataset without text, and id of its encoder."""


def write_empty_store(dataset: Dataset, folder: Path) -> EmbeddingStore:
    """Write a store in which every passage of a dataset without text has no tokens; an existing one is kept.

    Parameters
    ----------
    folder
        Folder of the store.

    Raises
    ------
    BusyError
        If another process writes to the store.
    """
    if not (folder / MANIFEST).exists():
        keys = passage_keys(sorted(set(dataset.passages.text)))
        with shard_writer(folder):
            shard = shard_folder(folder, 0)
            if not keep_or_clear(shard, expected={"encoder": {"id": NO_TEXT}, "passages": len(keys)}):
                write_shard(
                    shard,
                    tokens=np.zeros((0, 1), np.float32),
                    offsets=np.zeros(len(keys) + 1, np.int64),
                    spans=np.zeros((0, 2), np.uint32),
                    keys=keys,
                    dtype="float32",
                    encoder={"id": NO_TEXT},
                    source={},
                )
        consolidate(dataset.path, store=f"{folder.parent}/{folder.name}")
    return EmbeddingStore.open(folder)


def open_or_write_store(dataset: Dataset, store: str | PathLike[str] | None = None) -> EmbeddingStore:
    """Open a store of a dataset, as `open_store`; a dataset without text needs none, so it gets an empty one.

    Parameters
    ----------
    store
        Name of the store, path of a store elsewhere, or None for the only store of the dataset.

    Raises
    ------
    FileNotFoundError, MissingError
        As `open_store`, for a dataset with text.
    """
    stores = dataset.path / "stores"
    if store is None and not dataset.has_text and not (stores.is_dir() and any(stores.iterdir())):
        return write_empty_store(dataset, stores / NO_TEXT)
    return open_store(dataset.path, store)
