"""Keeps a model's encoder on this machine: half the download, found again by its id without a network."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST, disk_full_hint, read_manifest, sync_folder, write_manifest
from llmdirect.common.locks import LOCK, single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, Result
from llmdirect.encoding.encoders.loading import load_model, load_tokenizer, quiet_transformers, weights_digest
from llmdirect.encoding.encoders.sources import FORMAT, VERSION, cache_folder, cached, resolve, slug


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
    """Downloads `model` (or takes it from a folder) and keeps its encoder and tokenizer, in `dtype`.

    Without `out` it goes to the cache folder, where the model's id finds it; else to the folder `out`, which
    is then given as the model. The folder appears at once, complete. Where it is already there, nothing is
    done.

    Raises MissingError (no such model or no access), DataError (weights missing, or `out` holds another
    thing), BusyError (another process writes there).
    """
    if dtype not in ("bfloat16", "float16", "float32"):
        raise ValueError(f"dtype={dtype!r}; one of bfloat16, float16, float32")
    if out is None and (kept := cached(model, revision)) is not None:
        wanted = {"id": kept.id, "revision": kept.revision, "dtype": dtype}
        return CachedEncoder(**_same_or_refuse(kept.folder, wanted), path=kept.folder, already=True)
    with progress.task(f"cache {model}", 3, "steps") as task:
        task.note("download")
        source = resolve(model, revision, use_cache=False)
        task.advance()
        target = Path(out) if out is not None else cache_folder() / slug(source.id)
        wanted = {"id": source.id, "revision": source.revision, "dtype": dtype}
        if target.exists():
            _same_or_refuse(target, wanted)
        task.note("load")
        tokenizer = load_tokenizer(source)
        network = load_model(source, getattr(torch, dtype))
        # Another checkpoint may have the same name: a folder has no revision.
        wanted["weights"] = weights_digest(network)
        task.advance()
        task.note("save")
        temporary = target.with_name(f".{target.name}.partial")
        with single_writer(temporary):
            if target.exists():
                return CachedEncoder(**_same_or_refuse(target, wanted), path=target, already=True)
            _clear(temporary)
            try:
                with disk_full_hint(target, "make room and run again"), quiet_transformers():
                    # Weights under the encoder's own names, not those of the model they came from.
                    network.save_pretrained(temporary, save_original_format=False)
                    tokenizer.save_pretrained(temporary)
                    files = {file.name: _sync(file) for file in _content(temporary)}
                    manifest: Json = {"format": FORMAT, "version": VERSION, **wanted, "files": files}
                    write_manifest(temporary, manifest)
            except BaseException:
                _clear(temporary)
                raise
            os.replace(temporary, target)
            (target / LOCK).unlink()
            sync_folder(target.parent)
            task.advance()
    return CachedEncoder(**manifest, path=target, already=False)


def _content(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != LOCK)


def _clear(folder: Path) -> None:
    for path in _content(folder):
        path.unlink()


def _same_or_refuse(target: Path, wanted: Json) -> Json:
    if not (target / MANIFEST).exists():
        raise DataError(f"{target}: exists and is not a cached encoder; choose another --out")
    manifest = read_manifest(target, FORMAT, VERSION, "llmdirect cache-model")
    different = [
        f"{key} is {manifest.get(key)!r} there, {value!r} here"
        for key, value in wanted.items()
        if manifest.get(key) != value
    ]
    if different:
        raise DataError(
            f"{target}: another encoder is there ({', '.join(different)}); delete it or choose another --out"
        )
    return manifest


def _sync(file: Path) -> int:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
    return file.stat().st_size
