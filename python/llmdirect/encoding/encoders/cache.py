"""Cache of encoders on this machine, found by name without a network."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST, disk_full_hint, read_manifest, sync_folder, write_manifest
from llmdirect.common.locks import LOCK, single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, Result
from llmdirect.encoding.encoders.checkpoint import (
    check_vocabulary,
    load_model,
    load_tokenizer,
    quiet_transformers,
    weights_digest,
)
from llmdirect.encoding.encoders.sources import FORMAT, VERSION, cache_folder, cached, resolve, slug
from llmdirect.store.batch_plan import differences


@dataclass(frozen=True)
class CachedEncoder(Result):
    """An encoder kept by `cache_model`: its manifest and location."""

    format: str
    version: int
    id: str
    """Name on the Hub, or of the folder that it was read from."""
    revision: str | None
    dtype: str
    weights: str
    """Digest of the weights."""
    files: dict[str, int]
    """Bytes of each file."""
    path: Path
    already: bool
    """Whether it had been kept before."""


def cache_model(
    model: str,
    out: Path | str | None = None,
    *,
    revision: str | None = None,
    dtype: str = "bfloat16",
    progress: Progress = SILENT,
) -> CachedEncoder:
    """Download a language model and keep its encoder and tokenizer.

    The encoder is about half of an encoder-decoder model. The folder appears at once, complete; an encoder
    that is already there is kept.

    Parameters
    ----------
    model
        Name on the Hub, or folder of a checkpoint.
    out
        Folder to write, to be given as the encoder; by default the cache folder, where the name finds it.
    revision
        Branch, tag or commit on the Hub.
    dtype
        Type of the weights: "bfloat16", "float16" or "float32".
    progress
        Where progress is shown.

    Raises
    ------
    MissingError
        If there is no such model, or no access to it.
    DataError
        If weights are missing, or `out` holds something else.
    BusyError
        If another process writes to the folder.
    OSError
        If the disk is full.
    ValueError
        If `dtype` has no valid value.
    """
    if dtype not in ("bfloat16", "float16", "float32"):
        raise ValueError(f"`dtype`: {dtype!r}, expected one of bfloat16, float16, float32")
    if out is None and (source := cached(model, revision)) is not None:
        identity: Json = {"id": source.id, "revision": source.revision, "dtype": dtype}
        return _existing(source.folder, identity)
    with progress.task(f"cache {model}", 3, "steps") as task:
        task.note("download")
        source = resolve(model, revision, use_cache=False)
        task.advance()
        target = Path(out) if out is not None else cache_folder() / slug(source.id)
        identity = {"id": source.id, "revision": source.revision, "dtype": dtype}
        if target.exists():
            _existing(target, identity)  # raises before the weights are loaded
        task.note("load")
        tokenizer = load_tokenizer(source)
        loaded = load_model(source, getattr(torch, dtype))
        check_vocabulary(source, tokenizer, loaded)
        # Another checkpoint may have the same name: a folder has no revision.
        identity["weights"] = weights_digest(loaded)
        task.advance()
        task.note("save")
        temporary = target.with_name(f".{target.name}.partial")
        with single_writer(temporary):
            if target.exists():
                return _existing(target, identity)
            _clear(temporary)
            try:
                with disk_full_hint(target, "make room and run again"), quiet_transformers():
                    # Weights under the names of the encoder, not those of the whole model.
                    loaded.save_pretrained(temporary, save_original_format=False)
                    tokenizer.save_pretrained(temporary)
                    files = {file.name: _sync(file) for file in _files(temporary)}
                    manifest: Json = {"format": FORMAT, "version": VERSION, **identity, "files": files}
                    write_manifest(temporary, manifest)
            except BaseException:
                _clear(temporary)
                raise
            os.replace(temporary, target)
            (target / LOCK).unlink()
            sync_folder(target.parent)
            task.advance()
    return CachedEncoder(**manifest, path=target, already=False)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != LOCK)


def _clear(folder: Path) -> None:
    for path in _files(folder):
        path.unlink()


def _existing(folder: Path, identity: Json) -> CachedEncoder:
    """Cached encoder of a folder. DataError where it is not of this identity."""
    if not (folder / MANIFEST).exists():
        raise DataError(f"{folder}: exists and is not a cached encoder; choose another `out`")
    manifest = read_manifest(folder, FORMAT, VERSION, "llmdirect cache-model")
    different = differences({key: manifest.get(key) for key in identity}, identity)
    if different:
        raise DataError(
            f"{folder}: another encoder is there ({', '.join(different)}); delete it or choose another `out`"
        )
    return CachedEncoder(**manifest, path=folder, already=True)


def _sync(file: Path) -> int:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
    return file.stat().st_size
