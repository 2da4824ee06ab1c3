"""Keeps a model's encoder on this machine: half the download, found again by its id without a network."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from llmdirect.artefacts import MANIFEST, Json, read_manifest, single_writer, sync_folder, write_manifest
from llmdirect.encoders.loading import load_model, load_tokenizer, quiet_transformers
from llmdirect.encoders.sources import FORMAT, VERSION, cache_folder, cached, resolve, slug
from llmdirect.errors import DataError
from llmdirect.progress import SILENT, Progress


def cache_model(
    model: str,
    out: Path | str | None = None,
    *,
    revision: str | None = None,
    dtype: str = "bfloat16",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Downloads `model` (or takes it from a folder) and keeps its encoder and tokenizer, in `dtype`.

    Without `out` it goes to the cache folder, where the model's id finds it; else to the folder `out`, which
    is then given as the model. The folder appears at once, complete. Where it is already there, nothing is
    done. Returns the manifest with `path` and `already`.

    Raises MissingError (no such model or no access), DataError (weights missing, or `out` holds another
    thing), BusyError (another process writes there).
    """
    if dtype not in ("bfloat16", "float16", "float32"):
        raise ValueError(f"dtype={dtype!r}; one of bfloat16, float16, float32")
    if out is None and (kept := cached(model, revision)) is not None:
        manifest = _manifest_of(kept.folder)
        if manifest["dtype"] == dtype:
            return {**manifest, "path": str(kept.folder), "already": True}
    with progress.task(f"cache {model}", 3, "steps") as task:
        task.note("download")
        source = resolve(model, revision, use_cache=False)
        task.advance()
        target = Path(out) if out is not None else cache_folder() / slug(source.id)
        wanted = {"id": source.id, "revision": source.revision, "dtype": dtype}
        with single_writer(target.parent):
            if target.exists():
                return {**_same_or_refuse(target, wanted), "path": str(target), "already": True}
            temporary = target.with_name(f".{target.name}.partial")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            try:
                task.note("load")
                tokenizer = load_tokenizer(source)
                network = load_model(source, getattr(torch, dtype))
                task.advance()
                task.note("save")
                with quiet_transformers():
                    # Weights under the encoder's own names, not those of the model they came from.
                    network.save_pretrained(temporary, save_original_format=False)
                    tokenizer.save_pretrained(temporary)
                files = {file.name: _sync(file) for file in sorted(temporary.iterdir())}
                manifest = {"format": FORMAT, "version": VERSION, **wanted, "files": files}
                write_manifest(temporary, manifest)
                os.replace(temporary, target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_folder(target.parent)
            task.advance()
    return {**manifest, "path": str(target), "already": False}


def _manifest_of(folder: Path) -> Json:
    return read_manifest(folder, FORMAT, VERSION, "llmdirect cache-model")


def _same_or_refuse(target: Path, wanted: Json) -> Json:
    if not (target / MANIFEST).exists():
        raise DataError(f"{target}: exists and is not a cached encoder; choose another --out")
    manifest = _manifest_of(target)
    different = [f"{key} {manifest[key]!r}" for key in wanted if manifest[key] != wanted[key]]
    if different:
        raise DataError(f"{target}: holds {', '.join(different)}; delete it or choose another --out")
    return manifest


def _sync(file: Path) -> int:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
    return file.stat().st_size
