"""Schema of the manifest of a run."""

from typing import Any, Literal

from msgspec import Struct

from llmdirect.common.schema import FileEntry, Hash
from llmdirect.store.schema import Form

_NAMES = {
    f"{folder}_{stem}": f"{folder}/{stem}"
    for folder, stems in (
        ("best", ("model", "lexicon", "tables", "catalogue")),
        ("last", ("model", "mean", "optimiser", "state")),
    )
    for stem in stems
}


class Files(Struct, forbid_unknown_fields=True, rename=_NAMES):
    """Files of a run; a run that has just begun has none."""

    best_model: FileEntry | None = None
    best_lexicon: FileEntry | None = None
    best_tables: FileEntry | None = None
    best_catalogue: FileEntry | None = None
    last_model: FileEntry | None = None
    last_mean: FileEntry | None = None
    last_optimiser: FileEntry | None = None
    last_state: FileEntry | None = None


class Config(Struct, forbid_unknown_fields=True):
    """Settings by name; `ModelConfig` and `TrainConfig` check them."""

    model: dict[str, Any]
    training: dict[str, Any]


class DatasetEntry(Struct, forbid_unknown_fields=True):
    """The dataset that a run was trained on."""

    path: str
    hash: Hash


class StoreEntry(Struct):
    """The store that a run was trained on."""

    path: str
    hash: Hash
    encoder: dict[str, Any]
    dtype: Literal["float16", "bfloat16", "float32", "int8"]
    form: Form | None = None


class Catalogue(Struct):
    """best/catalogue of a run; the figures of the training are not read with it."""

    users: list[str]
    items: list[str]
    titles: list[str | None]
    aspects: list[str]


class RunManifest(Struct, forbid_unknown_fields=True):
    """manifest.json of a run."""

    format: str
    version: int
    config: Config
    dataset: DatasetEntry
    store: StoreEntry
    files: Files
    finished: bool
