"""Joining shards, or folders in the published format, into one store."""

import json
import os
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
from llmdirect.common.errors import DataError, MismatchError, MissingError
from llmdirect.common.files import MANIFEST, check_disk, disk_full_hint, write_manifest
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, Result, canonical_json
from llmdirect.data.dataset import Dataset
from llmdirect.store.batch_plan import PLAN, remove_plan
from llmdirect.store.shards import (
    STORE_FORMAT,
    STORE_VERSION,
    clear_shards,
    content_hash,
    encoder_differences,
    read_store_manifest,
)

Layout = Literal["store", "padded"]
_PUBLISHED_ENCODER = {"id": "published"}
_PUBLISHED = ("user_embeddings", "user_masks", "item_embeddings", "item_masks")
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
    changed: bool
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
    """Joins the shards of a dataset's store, or a folder in the published format, into one store.

    Bytes are streamed, in a few MiB of memory, and compared with their checksums on the way. The new
    state appears at once or not at all; a killed run is simply run again.

    `source` is a dataset whose shards `precompute` made: they are joined, together with the store
    that is already there, and removed afterwards unless `keep_shards`; `store` names the store where
    the dataset has several, or is the path of one elsewhere. Passages that the dataset has no more are
    dropped from its own stores, not from one elsewhere.

    Or `source` is a folder with any of `user_embeddings/`, `user_masks/`, `item_embeddings/`, `item_masks/`,
    each `0.npy, 1.npy, …`: written to `out`, as a ragged store without the masked rows (layout "store", the
    default; `dtype` "float32", "bfloat16", "float16" or "int8"), or as `all_user_embeddings.npy` and its kin
    for plain `np.load` (layout "padded").

    Raises DataError naming the file at fault, MismatchError where shards are of different encoders,
    MissingError for an unknown store name, BusyError beside another writer, OSError (a full disk).
    """
    folder = Path(source)
    if any((folder / name).is_dir() for name in _PUBLISHED):
        if out is None:
            raise ValueError(f"{folder} is in the published format: say where to write with out (--out OUT)")
        if store is not None or keep_shards:
            raise ValueError("store and keep_shards are for datasets, not for the published format")
        if layout not in (None, "store", "padded"):
            raise ValueError(f"layout is {layout!r}, expected 'store' or 'padded'")
        if dtype not in (None, "float32", "bfloat16", "float16", "int8"):
            raise ValueError(f"dtype is {dtype!r}, expected 'float32', 'bfloat16', 'float16' or 'int8'")
        if layout == "padded" and dtype not in (None, "float32"):
            raise ValueError("layout padded is always float32")
        return _published(folder, Path(out), layout or "store", dtype or "float32", progress)
    if out is not None or layout is not None or dtype is not None:
        raise ValueError(
            f"out, layout and dtype are for the published format, and {folder} holds none of "
            + ", ".join(f"{name}/" for name in _PUBLISHED)
        )
    place = store_folder(folder, store)
    own = place.parent == folder / "stores" and (folder / MANIFEST).exists()
    return _shards(place, Dataset.open(folder).passage_keys() if own else None, keep_shards, progress)


def _published(
    source: Path, out: Path, layout: Layout, dtype: str, progress: Progress
) -> ConsolidatedStore | PaddedArrays:
    published = _core.Published.open(source)
    if layout == "padded":
        check_disk(out, published.bytes, "the arrays need")
    with (
        single_writer(out),
        disk_full_hint(out, "make room and run again"),
        _on_bytes(progress, "consolidate", published.bytes) as on_bytes,
    ):
        if layout == "padded":
            files = published.write_padded(out, on_bytes)
            described = {name: {"shape": shape, "dtype": descr} for name, shape, descr in files}
            return PaddedArrays(out, "padded", described, changed=True)
        if (old := _existing(out)) and old["encoder"] != _PUBLISHED_ENCODER:
            raise MismatchError(
                f"{out}: holds a store of encoder {old['encoder'].get('id')!r}, which this would replace; "
                "choose another --out"
            )
        with _only_committed_files(out):
            data = published.write_store(out, dtype, on_bytes)
            source_counts = {"users": published.documents("user"), "items": published.documents("item")}
            manifest = {**data, "encoder": _PUBLISHED_ENCODER, "source": source_counts}
            write_manifest(out, {"format": STORE_FORMAT, "version": STORE_VERSION, **manifest})
    return _summary(out, manifest)


def _shards(
    folder: Path, wanted: NDArray[np.uint8] | None, keep_shards: bool, progress: Progress
) -> ConsolidatedStore:
    with single_writer(folder), _only_committed_files(folder):
        old = _existing(folder)
        shards = {path: _manifest(path) for path in _shard_folders(folder)}
        done = old.get("parts", ()) if old else ()
        hashes = {path: content_hash(manifest) for path, manifest in shards.items()}
        new = [path for path in shards if hashes[path] not in done]
        if not new and old is None:
            raise DataError(f"{folder}: no shards to join; run `llmdirect precompute` first")
        if new or _is_growing(folder, old):
            _check_complete(folder, [int(path.name) for path in shards])
        kept = None if old is None or wanted is None else _kept(folder, wanted)
        dropped = 0 if kept is None else int((~kept).sum())
        if new or dropped:
            _check_alike(folder, old, {path: shards[path] for path in new})
            described = shards[new[-1]] if new else old
            assert described is not None
            _check_calibration(folder, described)
            parts = [folder] * (old is not None) + new
            total = sum(_data_bytes(shards[path]) for path in new) + (_data_bytes(old) if old else 0)
            check_disk(folder, total, "the store, beside its shards, needs")
            with disk_full_hint(folder, "make room and run again; nothing has changed"):
                with _on_bytes(progress, "consolidate", total) as on_bytes:
                    chosen = [[kept, *[None] * len(new)]] if dropped else []
                    data = _core.consolidate_shards(parts, folder, on_bytes, *chosen)
                old = {
                    **data,
                    "encoder": (old or described)["encoder"],
                    "source": described["source"],
                    **({"form": described["form"]} if "form" in described else {}),
                    "parts": list(hashes.values()),  # what lies beside it and is in it
                }
                write_manifest(folder, {"format": STORE_FORMAT, "version": STORE_VERSION, **old})
        if not keep_shards:
            clear_shards(folder)
            remove_plan(folder)
        assert old is not None
        return _summary(folder, old, shards=len(new), changed=bool(new or dropped), dropped=dropped)


def _is_growing(folder: Path, old: Json | None) -> bool:
    """Whether `precompute` has begun to make shards that the store lacks."""
    plan = folder / PLAN
    if old is None or not plan.exists():
        return False
    try:
        return bool(json.loads(plan.read_bytes()).get("grows") == content_hash(old))
    except (ValueError, AttributeError):
        raise DataError(f"{plan}: not a plan; remove it and run `llmdirect precompute` again") from None


def _kept(folder: Path, wanted: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which passages of the store the dataset still has."""
    keys = _core.Store.open(folder, False, False).data("keys", False)
    return np.isin(keys.view("S16"), np.ascontiguousarray(wanted).view("S16"))


def store_folder(dataset: Path, name: str | None) -> Path:
    """The dataset's one store, or the one of this name; or the folder that `name` is the path of."""
    if name is not None and os.sep in name:
        if not Path(name).is_dir():
            raise FileNotFoundError(f"{name}: no such folder")
        return Path(name)
    stores = dataset / "stores"
    if not stores.is_dir():
        raise FileNotFoundError(f"{stores}: not found; `llmdirect precompute {dataset}` makes it")
    names = sorted(path.name for path in stores.iterdir() if path.is_dir())
    if not names:
        raise FileNotFoundError(f"{stores}: holds no store; `llmdirect precompute {dataset}` makes one")
    listed = ", ".join(names)
    if name is not None and name not in names:
        raise MissingError(f"{stores}: no store named {name!r}; there is {listed}")
    if name is None and len(names) > 1:
        raise MissingError(f"{stores}: holds several stores; choose with --store one of {listed}")
    return stores / (name or names[0])


def _existing(folder: Path) -> Json | None:
    return _manifest(folder) if (folder / MANIFEST).exists() else None


def _manifest(folder: Path) -> Json:
    manifest = read_store_manifest(folder, "llmdirect precompute")
    missing = {"encoder", "source", "files"} - manifest.keys()
    if missing:
        raise DataError(
            f"{folder / MANIFEST}: lacks {', '.join(sorted(missing))}; remove {folder} and run "
            "`llmdirect precompute` again"
        )
    return manifest


def _shard_folders(folder: Path) -> list[Path]:
    """Complete shards in the order of their numbers; one without a manifest is still being written."""
    shards = folder / "shards"
    if not shards.is_dir():
        return []
    numbered = (path for path in shards.iterdir() if path.name.isdecimal() and (path / MANIFEST).exists())
    return sorted(numbered, key=lambda path: int(path.name))


def _check_calibration(folder: Path, manifest: Json) -> None:
    """DataError where the store's calibration file is missing or damaged."""
    if entry := (manifest.get("form") or {}).get("calibration"):
        from llmdirect.store.calibration import Calibration

        Calibration.read(folder, entry)


def _check_complete(folder: Path, present: list[int]) -> None:
    """All shards that the batch plan announces are there, and no others."""
    plan = folder / PLAN
    try:
        expected = int(json.loads(plan.read_bytes())["num_shards"])
    except FileNotFoundError:
        expected = max(present) + 1
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{plan}: does not say num_shards; run `llmdirect precompute` again") from None
    missing = sorted(set(range(expected)) - set(present))
    if missing:
        raise DataError(
            f"{folder / 'shards' / f'{missing[0]:05d}'}: missing, {len(missing)} of {expected} shards are; "
            "run precompute again (`llmdirect precompute`), which makes only those"
        )
    beyond = [number for number in present if number >= expected]
    if beyond:
        raise DataError(
            f"{folder / 'shards' / f'{beyond[0]:05d}'}: {plan} has only {expected} shards; "
            "remove it and run `llmdirect precompute` again"
        )


def _check_alike(folder: Path, old: Json | None, new: dict[Path, Json]) -> None:
    """All parts are of one encoder, the new ones of one source, and none repeats what the store has."""
    if not new:
        return
    first, reference = next(iter(new.items()))
    if old is not None:
        reference, first = {**reference, "encoder": old["encoder"], "form": old.get("form")}, folder
    for path, manifest in new.items():
        for key in ("encoder", "form", "source"):
            there, here = manifest.get(key), reference.get(key)
            if there != here and not (key == "encoder" and not encoder_differences(there or {}, here or {})):
                raise MismatchError(
                    f"{path / MANIFEST}: {key} is {canonical_json(manifest.get(key))}, but "
                    f"{first / MANIFEST} has {canonical_json(reference.get(key))}; remove the shards of one "
                    "of the two and run `llmdirect precompute` again"
                )
    if old is None:
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
    """Before and after the block, removes data files that no manifest names."""

    def clean() -> None:
        manifest = _existing(folder)
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
def _on_bytes(progress: Progress, label: str, total: int) -> Iterator[Callable[[int], None]]:
    with progress.task(label, total / 1e6, "MB") as task:
        yield lambda count: task.advance(count / 1e6)


def _data_bytes(manifest: Json) -> int:
    return sum(int(entry["bytes"]) for entry in manifest["files"].values())


def _summary(
    folder: Path,
    manifest: Json,
    changed: bool = True,
    shards: int | None = None,
    dropped: int | None = None,
) -> ConsolidatedStore:
    counts = {key: manifest[key] for key in ("dtype", "dim", "rows", "passages")}
    return ConsolidatedStore(
        path=folder,
        layout="store",
        **counts,
        bytes=_data_bytes(manifest),
        changed=changed,
        shards=shards,
        dropped=dropped,
    )
