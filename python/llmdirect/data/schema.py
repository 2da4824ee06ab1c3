"""Schema of the manifest of a dataset."""

from typing import Any, Literal

from msgspec import Struct

from llmdirect.common.schema import FileEntry, Hash


class Files(Struct, forbid_unknown_fields=True):
    """Tables of a dataset."""

    interactions: FileEntry
    users: FileEntry
    items: FileEntry
    passages: FileEntry


class Options(Struct):
    """Options of `prepare`; only the unit of passages decides how the tables are read."""

    unit: Literal["review", "document"]


class DatasetManifest(Struct, forbid_unknown_fields=True):
    """manifest.json of a dataset."""

    format: str
    version: int
    hash: Hash
    options: Options
    counts: dict[str, Any]
    files: Files
    readers: int = 1
    """Version of the readers, `READERS_VERSION`; 1 before there was the entry."""
