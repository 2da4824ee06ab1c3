"""Consolidation of shards, or of folders in the published format, into one embedding store."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.conditions import check_conditions
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import MANIFEST, check_disk, disk_full_hint, read_json, write_manifest
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, Result, canonical_json
from llmdirect.data.dataset import Dataset
from llmdirect.store.batch_plan import PLAN, remove_plan
from llmdirect.store.lexical import is_lexical, read_word_vectors
from llmdirect.store.paths import store_folder
from llmdirect.store.shards import (
    STORE_FORMAT,
    STORE_VERSION,
    clear_shards,
    content_hash,
    encoder_differences,
    read_store_manifest,
)
from llmdirect.store.store import keyed_by

Layout = Literal["store", "padded"]
_PUBLISHED_ENCODER = {"id": "published"}
_PUBLISHED_FOLDERS = ("user_embeddings", "user_masks", "item_embeddings", "item_masks")
_PUBLISHED_DTYPES = ("float32", "bfloat16", "float16", "int8")
_DATA_FILE = re.compile(r"(tokens|offsets|spans|keys|scales|channels|checksums)-[0-9a-f]{16}\.npy")


@dataclass(frozen=True)
class ConsolidatedStore(Result):
    """A consolidated store: counts, sizes, and what the run changed."""

    path: Path
    layout: Literal["store"]
    dtype: str
    dim: int
    rows: int
    """Number of tokens."""
    passages: int
    bytes: int
    """Bytes of the data files."""
    changed: bool = True
    """False where the store was up to date."""
    shards: int | None = None
    """Number of joined shards; None for the published format."""
    dropped: int | None = None
    """Number of passages removed because the dataset lacks them; None for the published format."""

    def to_json(self) -> Json:
        """Fields that have a value."""
        return {key: value for key, value in super().to_json().items() if value is not None}


@dataclass(frozen=True)
class PaddedArrays(Result):
    """Padded arrays written from the published format."""

    path: Path
    layout: Literal["padded"]
    files: dict[str, Json]
    """`shape` and `dtype` of each array by file name."""
    changed: bool


def consolidate(
    source: str | PathLike[str],
    *,
    out: str | PathLike[str] | None = None,
    layout: Layout | None = None,
    dtype: str | None = None,
    store: str | None = None,
    keep_shards: bool = False,
    progress: Progress = SILENT,
) -> ConsolidatedStore | PaddedArrays:
    """Join the shards of a dataset, or a folder in the published format, into one store.

    Bytes are streamed in a few MiB of memory and compared with their checksums. The new state appears at
    once or not at all; after a kill, run it again.

    Parameters
    ----------
    source
        A dataset whose shards `precompute` wrote: they are joined with the store that is already there.
        Passages that the dataset no longer has are dropped from its own stores, not from one elsewhere.
        Or a folder in the published format: any of `user_embeddings/`, `user_masks/`, `item_embeddings/`,
        `item_masks/`, each with `0.npy, 1.npy, …`.
    out
        Folder to write, for the published format alone.
    layout
        For the published format: "store" (default), a ragged store without the masked rows; "padded",
        arrays `all_user_embeddings.npy`, … for `np.load`.
    dtype
        For the published format with layout "store": "float32" (default), "bfloat16", "float16" or "int8".
    store
        Name of the store where the dataset has several, or the path of a store elsewhere.
    keep_shards
        Keep the shards after they are joined.
    progress
        Where progress is shown.

    Returns
    -------
    ConsolidatedStore or PaddedArrays

    Raises
    ------
    DataError
        If a file is damaged, or shards are missing.
    MismatchError
        If shards are of different encoders, or `out` holds another store.
    MissingError
        If there is no store of that name.
    BusyError
        If another process writes to the store.
    OSError
        If the disk is full.
    ValueError
        If settings do not fit the source.
    """
    folder = Path(source)
    settings = {"out": out, "dtype": dtype, "store": store, "keep_shards": keep_shards or None}
    check_conditions("consolidate", settings, {**settings, "layout": layout or "store"})
    if any((folder / name).is_dir() for name in _PUBLISHED_FOLDERS):
        if out is None:
            raise ValueError(f"{folder} is in the published format: give the folder to write as `out`")
        if store is not None or keep_shards:
            raise ValueError("`store` and `keep_shards` are for datasets, not for the published format")
        return _consolidate_published(folder, Path(out), layout or "store", dtype or "float32", progress)
    if out is not None or layout is not None or dtype is not None:
        raise ValueError(
            f"`out`, `layout` and `dtype` are for the published format, and {folder} holds none of "
            + ", ".join(f"{name}/" for name in _PUBLISHED_FOLDERS)
        )
    path = store_folder(folder, store)
    is_own = path.parent == folder / "stores" and (folder / MANIFEST).exists()
    return _consolidate_shards(path, Dataset.open(folder) if is_own else None, keep_shards, progress)


def _consolidate_published(
    source: Path, out: Path, layout: Layout, dtype: str, progress: Progress
) -> ConsolidatedStore | PaddedArrays:
    if layout not in ("store", "padded"):
        raise ValueError(f"`layout`: {layout!r}, expected 'store' or 'padded'")
    if dtype not in _PUBLISHED_DTYPES:
        raise ValueError(f"`dtype`: {dtype!r}, expected one of {', '.join(_PUBLISHED_DTYPES)}")
    if layout == "padded" and dtype != "float32":
        raise ValueError("`layout='padded'` is always float32")
    published = _core.Published.open(source)
    if layout == "padded":
        check_disk(out, published.bytes, "the arrays need")
    with (
        single_writer(out),
        disk_full_hint(out, "make room and run again"),
        _byte_progress(progress, published.bytes) as advance,
    ):
        if layout == "padded":
            files = published.write_padded(out, advance)
            described = {name: {"shape": shape, "dtype": descr} for name, shape, descr in files}
            return PaddedArrays(out, "padded", described, changed=True)
        if (replaced := _existing_manifest(out)) and replaced["encoder"] != _PUBLISHED_ENCODER:
            raise MismatchError(
                f"{out}: holds a store of encoder {replaced['encoder'].get('id')!r}, which this would "
                "replace; choose another `out`"
            )
        with _only_committed_files(out):
            data = published.write_store(out, dtype, advance)
            counts = {"users": published.documents("user"), "items": published.documents("item")}
            manifest = {**data, "encoder": _PUBLISHED_ENCODER, "source": counts}
            write_manifest(out, {"format": STORE_FORMAT, "version": STORE_VERSION, **manifest})
    return _result(out, manifest)


def _consolidate_shards(
    folder: Path, dataset: Dataset | None, keep_shards: bool, progress: Progress
) -> ConsolidatedStore:
    """Join new shards with the store, without passages that a dataset no longer has."""
    with single_writer(folder), _only_committed_files(folder):
        manifest = _existing_manifest(folder)
        shards = {path: read_store_manifest(path, "llmdirect precompute") for path in _shard_folders(folder)}
        joined = manifest.get("parts", ()) if manifest else ()
        hashes = {path: content_hash(shard) for path, shard in shards.items()}
        new = {path: shard for path, shard in shards.items() if hashes[path] not in joined}
        if not new and manifest is None:
            raise DataError(f"{folder}: no shards to join; run `llmdirect precompute` first")
        if new or _is_growing(folder, manifest):
            _check_complete(folder, [int(path.name) for path in shards])
        kept = None
        if manifest is not None and dataset is not None:
            by = keyed_by(manifest["encoder"])
            keyed = dataset.with_item_passages() if by == "item" else dataset
            kept = _kept_passages(folder, keyed.passage_keys(by))
        dropped = 0 if kept is None else int((~kept).sum())
        if new or dropped:
            _check_compatible(folder, manifest, new)
            parts = list(hashes.values())  # shards that stay next to the store and are in it
            manifest = _join(folder, manifest, new, kept if dropped else None, parts, progress)
        if not keep_shards:
            clear_shards(folder)
            remove_plan(folder)
        assert manifest is not None
        return _result(folder, manifest, shards=len(new), changed=bool(new or dropped), dropped=dropped)


def _join(
    folder: Path,
    manifest: Json | None,
    new: dict[Path, Json],
    kept: NDArray[np.bool_] | None,
    parts: list[str],
    progress: Progress,
) -> Json:
    """Write the store of its `kept` passages [P] (None: all) and new shards; its new manifest."""
    latest = list(new.values())[-1] if new else manifest
    assert latest is not None  # there are new shards, or a store
    _check_fitted_files(folder, latest)
    total = sum(map(_data_bytes, new.values())) + (_data_bytes(manifest) if manifest else 0)
    check_disk(folder, total, "the store, next to its shards, needs")
    sources = [folder] * (manifest is not None) + list(new)
    masks = None if kept is None else [kept, *[None] * len(new)]
    with (
        disk_full_hint(folder, "make room and run again; nothing has changed"),
        _byte_progress(progress, total) as advance,
    ):
        data = _core.consolidate_shards(sources, folder, advance, masks)
        joined = {
            **data,
            "encoder": (manifest or latest)["encoder"],
            "source": latest["source"],
            **({"form": latest["form"]} if "form" in latest else {}),
            "parts": parts,
        }
        write_manifest(folder, {"format": STORE_FORMAT, "version": STORE_VERSION, **joined})
    return joined


def _is_growing(folder: Path, manifest: Json | None) -> bool:
    """Whether `precompute` has begun to write shards that a consolidated store lacks."""
    plan = folder / PLAN
    if manifest is None or not plan.exists():
        return False
    try:
        return bool(read_json(plan).get("grows") == content_hash(manifest))
    except (ValueError, AttributeError):
        raise DataError(f"{plan}: not a plan; remove it and run `llmdirect precompute` again") from None


def _kept_passages(folder: Path, dataset_keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask of the passages of the store that the dataset still has."""
    keys = _core.Store.open(folder, False, False).data("keys", False)
    return np.isin(keys.view("S16"), np.ascontiguousarray(dataset_keys).view("S16"))


def _existing_manifest(folder: Path) -> Json | None:
    exists = (folder / MANIFEST).exists()
    return read_store_manifest(folder, "llmdirect precompute") if exists else None


def _shard_folders(folder: Path) -> list[Path]:
    """Complete shards in the order of their numbers; one without a manifest is still being written."""
    shards = folder / "shards"
    if not shards.is_dir():
        return []
    numbered = (path for path in shards.iterdir() if path.name.isdecimal() and (path / MANIFEST).exists())
    return sorted(numbered, key=lambda path: int(path.name))


def _check_fitted_files(folder: Path, manifest: Json) -> None:
    """DataError where the calibration or the word vectors of the store are missing or damaged."""
    if is_lexical(manifest["encoder"]):
        read_word_vectors(folder, manifest["encoder"]["weights"])
    if entry := (manifest.get("form") or {}).get("calibration"):
        from llmdirect.store.calibration import Calibration

        Calibration.read(folder, entry)


def _check_complete(folder: Path, numbers: list[int]) -> None:
    """DataError unless the shards are those of the batch plan, all and no others."""
    plan = folder / PLAN
    try:
        expected = int(read_json(plan)["num_shards"])
    except FileNotFoundError:
        expected = max(numbers) + 1
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{plan}: does not say num_shards; run `llmdirect precompute` again") from None
    present = {number for number in numbers if number < expected}
    if len(present) < expected:  # of a damaged plan, any number
        first = next(number for number in range(expected) if number not in present)
        num_missing = expected - len(present)
        raise DataError(
            f"{folder / 'shards' / f'{first:05d}'}: missing, {num_missing} of {expected} shards are; "
            "run precompute again (`llmdirect precompute`), which makes only those"
        )
    beyond = [number for number in numbers if number >= expected]
    if beyond:
        raise DataError(
            f"{folder / 'shards' / f'{beyond[0]:05d}'}: {plan} has only {expected} shards; "
            "remove it and run `llmdirect precompute` again"
        )


def _check_compatible(folder: Path, manifest: Json | None, new: dict[Path, Json]) -> None:
    """One encoder for all parts, one source for the new ones, and no passage that the store has."""
    if not new:
        return
    first, reference = next(iter(new.items()))
    if manifest is not None:
        reference, first = {**reference, "encoder": manifest["encoder"], "form": manifest.get("form")}, folder
    for path, shard in new.items():
        for key in ("encoder", "form", "source"):
            there, here = shard.get(key), reference.get(key)
            if there != here and not (key == "encoder" and not encoder_differences(there or {}, here or {})):
                raise MismatchError(
                    f"{path / MANIFEST}: {key} is {canonical_json(there)}, but {first / MANIFEST} has "
                    f"{canonical_json(here)}; remove the shards of one of the two and run "
                    "`llmdirect precompute` again"
                )
    if manifest is None:
        return
    store = _core.Store.open(folder, False, False)
    for path in new:
        keys = _core.Store.open(path, False, False).data("keys", False).reshape(-1, 16)
        repeated = np.flatnonzero(store.find(keys) >= 0)
        if repeated.size:
            raise DataError(
                f"{path}: passage {repeated[0]} (and {repeated.size - 1} more) is in {folder} already; "
                f"remove {path} and run `llmdirect precompute` again"
            )


@contextmanager
def _only_committed_files(folder: Path) -> Iterator[None]:
    """Remove data files that no manifest names, before and after the block."""

    def clean() -> None:
        manifest = _existing_manifest(folder)
        named = {entry["name"] for entry in manifest["files"].values()} if manifest else set()
        for path in folder.iterdir():
            if _DATA_FILE.fullmatch(path.name) and path.name not in named:
                path.unlink()

    clean()
    try:
        yield
    finally:
        clean()


@contextmanager
def _byte_progress(progress: Progress, total: int) -> Iterator[Callable[[int], None]]:
    with progress.task("consolidate", total / 1e6, "MB") as task:
        yield lambda count: task.advance(count / 1e6)


def _data_bytes(manifest: Json) -> int:
    return sum(int(entry["bytes"]) for entry in manifest["files"].values())


def _result(
    folder: Path,
    manifest: Json,
    *,
    changed: bool = True,
    shards: int | None = None,
    dropped: int | None = None,
) -> ConsolidatedStore:
    return ConsolidatedStore(
        path=folder,
        layout="store",
        **{key: manifest[key] for key in ("dtype", "dim", "rows", "passages")},
        bytes=_data_bytes(manifest),
        changed=changed,
        shards=shards,
        dropped=dropped,
    )
