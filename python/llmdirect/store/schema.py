"""Schema of the manifest of a store or shard; the extension checks files, names and lengths itself."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from llmdirect.common.schema import Count, FileName, Hash

Dim = Annotated[int, Meta(ge=1, le=1 << 20)]


class StoreFile(Struct):
    """A data file; those of version 1 have their checksums here."""

    name: FileName
    bytes: Count


class Files(Struct, forbid_unknown_fields=True):
    """Data files of a store."""

    tokens: StoreFile
    offsets: StoreFile
    spans: StoreFile
    keys: StoreFile
    scales: StoreFile | None = None
    channels: StoreFile | None = None
    checksums: StoreFile | None = None


class Calibration(Struct):
    """The calibration file of a store, with statistics of its fit."""

    bytes: Count
    hash: Hash


class Form(Struct):
    """Token format."""

    tokens: Literal["all", "content"]
    project: Dim | None = None
    calibration: Calibration | None = None


class StoreManifest(Struct):
    """manifest.json of a store or shard."""

    format: str
    version: int
    dtype: Literal["float16", "bfloat16", "float32", "int8"]
    dim: Dim
    rows: Count
    passages: Annotated[int, Meta(ge=0, le=(1 << 32) - 2)]
    files: Files
    encoder: dict[str, Any]
    source: dict[str, Any] | None
    form: Form | None = None
