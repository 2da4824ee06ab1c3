"""Folder of a prepared dataset: whether it is complete, and its replacement in one step."""

import json
import re
from pathlib import Path
from typing import Final

from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST, digest, write_hashed, write_manifest
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import FORMAT, SCHEMAS, VERSION, read_dataset_manifest
from llmdirect.data.readers.source_reader import READERS_VERSION
from llmdirect.data.tables import Tables

_TABLE_FILE: Final = re.compile(rf"({'|'.join(SCHEMAS)})-[0-9a-f]{{32}}\.parquet")


def complete_manifest(out: Path, options: Json, overwrite: bool) -> Json | None:
    """Manifest of the dataset in `out` if complete and of these options; None if it is to be written."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out}: is a file; `out` names a folder")
    if not (out / MANIFEST).exists():
        return None
    if overwrite:
        _check_replaceable(out / MANIFEST)
        return None
    manifest = read_dataset_manifest(out)
    if manifest["options"] != options:
        stored = manifest["options"]
        changed = [name for name in {**stored, **options} if stored.get(name) != options.get(name)]
        raise DataError(
            f"{out}: holds a dataset of other options (different: {', '.join(changed)}); "
            "choose another `out`, or replace it with `overwrite=True`"
        )
    if manifest.get("readers") != READERS_VERSION:
        return None
    for entry in manifest["files"].values():
        path = out / entry["name"]
        if not path.exists() or path.stat().st_size != entry["bytes"]:
            return None
    return manifest


def hash_of_other_readers(out: Path) -> str | None:
    """Hash of the dataset in `out` where another version of the readers wrote it."""
    if not (out / MANIFEST).exists():
        return None
    manifest = read_dataset_manifest(out)
    return None if manifest.get("readers") == READERS_VERSION else str(manifest["hash"])


def _check_replaceable(path: Path) -> None:
    """Check that a manifest is that of a dataset, or not JSON at all; else DataError."""
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError:
        return
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not of a dataset, so it is not overwritten; choose another `out`")


def write_tables(out: Path, options: Json, tables: Tables) -> Json:
    """Write the tables, then the manifest that commits them, then remove replaced tables."""
    files = {
        name: write_hashed(out, name, ".parquet", table.write_parquet)
        for name, table in tables.frames.items()
    }
    manifest: Json = {
        "format": FORMAT,
        "version": VERSION,
        "hash": digest(canonical_json({"options": options, "files": files})),
        "options": options,
        "counts": tables.counts,
        "files": files,
        "readers": READERS_VERSION,
    }
    write_manifest(out, manifest)
    remove_unreferenced(out, manifest)
    return manifest


def unreferenced_tables(out: Path, manifest: Json) -> list[Path]:
    """Tables that the manifest does not name: of a killed process, or just replaced."""
    named = {entry["name"] for entry in manifest["files"].values()}
    return [path for path in out.iterdir() if _TABLE_FILE.fullmatch(path.name) and path.name not in named]


def remove_unreferenced(out: Path, manifest: Json) -> None:
    for path in unreferenced_tables(out, manifest):
        path.unlink(missing_ok=True)
