"""From raw reviews to the Dataset artefact: one call that reads, splits, and commits."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST, digest, file_digest, write_hashed, write_manifest
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import FORMAT, SCHEMAS, VERSION, Dataset, read_dataset_manifest
from llmdirect.data.defaults import DEFAULT_FRACTIONS, DEFAULT_SEED
from llmdirect.data.readers.raw_files import check_file, stem
from llmdirect.data.readers.reviews import read_reviews
from llmdirect.data.splits import Fractions, check_split
from llmdirect.data.tables import UNITS, Positive, Tables, build_tables

_log = logging.getLogger(__name__)
_TABLE_FILE: Final = re.compile(rf"({'|'.join(SCHEMAS)})-[0-9a-f]{{32}}\.parquet")
NOTHING_HELD_OUT: Final = (
    "no review is in valid, so nothing can be trained: users have one there from three reviews on "
    "(--k-core 3 keeps those alone)"
)
DOCUMENT_NOTE: Final = (
    "unit document: the text of a user or an item is one passage, so the review that is being scored "
    "cannot be taken out of it; training pairs see their own review"
)


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    k_core: int = 0,
    split: str = "random",
    seed: int = DEFAULT_SEED,
    fractions: Fractions = DEFAULT_FRACTIONS,
    positive: str | None = None,
    unit: str = "review",
    items: Path | str | None = None,
    with_summary: bool = False,
    skip_bad_lines: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Json:
    """Writes the dataset of a raw review file into the folder `out`.

    Reads, drops repeated (user, item) pairs (the last stays), reduces to the k-core, splits, and commits
    in one step: killed at any point, the folder holds the old dataset or none, and a second run gives the
    same bytes. A complete dataset of the same input and options is left as it is; with overwrite, any
    dataset is written anew, a damaged one too.

    fractions: train, valid, test; positive: such as "rating>=4", None for every interaction; unit:
    "review" (a passage per review) or "document" (a passage per user and per item, of train reviews);
    items: a file of titles and descriptions.

    Returns status ("written" or "unchanged"), dataset, hash, options, counts and notes.
    Raises ValueError for options that make no sense, DataError for what the files hold (see
    `read_reviews`) or where `out` holds a dataset of other options, BusyError where another process
    writes there. Nothing is written then.
    """
    source, out = Path(source), Path(out)
    _check_options(k_core, split, seed, fractions, unit)
    rule = Positive.parse(positive)
    for path in (source, *([Path(items)] if items else [])):
        check_file(path)
    options: Json = {
        "columns": dict(columns) if columns else None,
        "fractions": None if split == "leave-last-out" else list(fractions),
        "items": file_digest(Path(items)) if items else None,
        "k_core": k_core,
        "positive": str(rule) if rule else None,
        "seed": seed,
        "skip_bad_lines": skip_bad_lines,
        "source": file_digest(source),
        "split": split,
        "unit": unit,
        "with_summary": with_summary,
    }
    if complete := _complete(out, options, overwrite):
        if _orphans(out, complete):  # a run was killed after its commit
            with single_writer(out):
                _remove_orphans(out, complete)
        return _result(out, complete, "unchanged")
    reviews = read_reviews(
        source, columns=columns, with_summary=with_summary, skip_bad_lines=skip_bad_lines, progress=progress
    )
    tables = build_tables(
        reviews,
        source,
        k_core=k_core,
        split=split,
        seed=seed,
        fractions=fractions,
        positive=rule,
        unit=unit,
        items=Path(items) if items else None,
        skip_bad_lines=skip_bad_lines,
        progress=progress,
    )
    with single_writer(out):
        if complete := _complete(out, options, overwrite):  # another process may have been faster
            return _result(out, complete, "unchanged")
        manifest = _commit(out, options, tables)
    if unit == "document":
        _log.warning(DOCUMENT_NOTE)
    return _result(out, manifest, "written")


def open_or_prepare(path: Path | str, progress: Progress = SILENT) -> Dataset:
    """Opens a dataset folder; a raw file is first prepared, with default options, into `./<stem>/`."""
    path = Path(path)
    if path.is_dir():
        return Dataset.open(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; give a dataset folder or a file of reviews")
    out = Path(stem(path))
    if out.resolve() == path.resolve():
        raise ValueError(
            f"{path}: the folder for its dataset would have the same name; add a suffix to the file"
        )
    _log.info("%s: a raw file; preparing it into %s", path, out)
    prepare(path, out, progress=progress)
    return Dataset.open(out)


def _check_options(k_core: int, split: str, seed: int, fractions: Fractions, unit: str) -> None:
    if k_core < 0:
        raise ValueError(f"--k-core: {k_core}, expected 0 (off) or more")
    if unit not in UNITS:
        raise ValueError(f"--unit: {unit!r} is unknown; one of {', '.join(UNITS)}")
    check_split(split, seed, fractions)


def _complete(out: Path, options: Json, overwrite: bool) -> Json | None:
    """The manifest where `out` already is this very dataset; None where it is still to be written."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out}: is a file; --out names a folder")
    if not (out / MANIFEST).exists():
        return None
    if overwrite:
        _check_replaceable(out / MANIFEST)
        return None
    manifest = read_dataset_manifest(out)
    if manifest["options"] != options:
        changed = [name for name in options if manifest["options"].get(name) != options[name]]
        raise DataError(
            f"{out}: holds a dataset of other options (different: {', '.join(changed)}); "
            "choose another --out, or replace it with --overwrite"
        )
    for entry in manifest["files"].values():
        path = out / entry["name"]
        if not path.exists() or path.stat().st_size != entry["bytes"]:
            return None
    return manifest


def _check_replaceable(path: Path) -> None:
    """Raises DataError for the manifest of anything but a dataset; one that is not even JSON may go."""
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError:
        return
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not of a dataset, so --overwrite leaves it alone; choose another --out")


def _commit(out: Path, options: Json, tables: Tables) -> Json:
    """Writes the tables, then the manifest that makes them the dataset, then removes what it replaced."""
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
    }
    write_manifest(out, manifest)
    _remove_orphans(out, manifest)
    return manifest


def _orphans(out: Path, manifest: Json) -> list[Path]:
    """Tables that the manifest does not name: a killed run's, or those just replaced."""
    named = {entry["name"] for entry in manifest["files"].values()}
    return [path for path in out.iterdir() if _TABLE_FILE.fullmatch(path.name) and path.name not in named]


def _remove_orphans(out: Path, manifest: Json) -> None:
    for path in _orphans(out, manifest):
        path.unlink(missing_ok=True)


def _result(out: Path, manifest: Json, status: str) -> Json:
    options = manifest["options"]
    notes = [DOCUMENT_NOTE] if options["unit"] == "document" else []
    if not manifest["counts"]["per_split"]["valid"] and (
        options["fractions"] is None or options["fractions"][1]
    ):
        notes.append(NOTHING_HELD_OUT)
    return {
        "status": status,
        "dataset": str(out),
        "hash": manifest["hash"],
        "options": options,
        "counts": manifest["counts"],
        "notes": notes,
    }
