"""Audit of a dataset and its embedding stores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import MANIFEST
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Result
from llmdirect.data.audit import (
    EXCERPT,
    Leak,
    check_manifest,
    check_tables,
    find_leaks,
)
from llmdirect.data.dataset import Dataset
from llmdirect.store.lexical import check_train_texts, is_lexical, read_word_vectors
from llmdirect.store.store import EmbeddingStore, with_item_passages

_MAX_LEAKS: Final = 20  # listed; all are counted


@dataclass(frozen=True)
class AuditReport(Result):
    """Report of `audit`."""

    ok: bool
    """No leak and no problem."""
    dataset: Path
    """Folder of the dataset."""
    hash: str
    """Content hash of the dataset: 32 hex digits."""
    files_checked: int
    stores_checked: list[str]
    """Names of the embedding stores."""
    num_leaks: int
    leaks: list[Leak]
    """The first 20 leaks, in the order of the held-out passages."""
    problems: list[str]
    """Stores that are damaged or lack passages of the dataset, a line each."""
    notes: list[str]
    """Coincidences that are no leak, and stores that are not complete."""


def audit(path: Path | str, *, verify_stores: bool = True, progress: Progress = SILENT) -> AuditReport:
    """Audit a dataset: bytes of its files, indices, leaks between its splits, embedding stores.

    A leak is a held-out text of which a copy (up to case and white space) by the same user or about the same
    item is in train.

    Parameters
    ----------
    path
        Folder of the dataset.
    verify_stores
        Read every byte of the stores; otherwise only their sizes and keys are checked.
    progress
        Receiver of progress reports.

    Raises
    ------
    FileNotFoundError
        If a file of the dataset is missing.
    DataError
        If a file is damaged or the tables contradict each other, so that no report is possible.
    """
    dataset = Dataset.open(path)  # compares every byte of its tables with the manifest
    check_manifest(dataset)
    check_tables(dataset)
    leaks, notes = find_leaks(dataset)
    problems: list[str] = []
    stores: list[str] = []
    folders = [folder for folder in sorted((dataset.path / "stores").glob("*")) if folder.is_dir()]
    with progress.task("Checking stores", len(folders), "stores") as task:
        for folder in folders:
            if (folder / MANIFEST).exists():
                stores.append(folder.name)
                store_problems, store_notes = check_store(dataset, folder, verify_stores)
                problems += store_problems
                notes += store_notes
            else:
                notes.append(
                    f"{folder}: no manifest yet; `llmdirect consolidate {dataset.path}` completes it"
                )
            task.advance()
    return AuditReport(
        ok=not leaks and not problems,
        dataset=dataset.path,
        hash=dataset.hash,
        files_checked=len(dataset.manifest["files"]),
        stores_checked=stores,
        num_leaks=len(leaks),
        leaks=leaks[:_MAX_LEAKS],
        problems=problems,
        notes=notes,
    )


def check_store(dataset: Dataset, folder: Path, verify: bool = True) -> tuple[list[str], list[str]]:
    """Check that an embedding store is sound and holds every passage of a dataset.

    Parameters
    ----------
    dataset
        The dataset.
    folder
        Folder of the store.
    verify
        Compare every byte of the store with its checksums.

    Returns
    -------
    problems, notes
        Lines that name the folder.
    """
    try:
        store = EmbeddingStore.open(folder, verify=verify)
        _ = store.calibration  # read, and compared with its hash
        if is_lexical(store.encoder):
            read_word_vectors(folder, store.encoder["weights"])
            check_train_texts(folder, store.encoder, dataset)
    except (DataError, MismatchError, FileNotFoundError) as error:
        return [str(error)], []
    dataset = with_item_passages(dataset, store)
    keys = dataset.passage_keys(store.keyed_by)
    _, first = np.unique(keys.view("S16").ravel(), return_index=True)
    rows = np.sort(first)
    missing = ~store.contains(keys[rows])
    problems = []
    if missing.any():
        example = dataset.passages.text[int(rows[np.argmax(missing)])][:EXCERPT]
        problems.append(
            f"{folder}: lacks {int(missing.sum()):,} of {len(rows):,} texts of the dataset "
            f"(first: {example!r}); run `llmdirect precompute {dataset.path}`"
        )
    source = (store.manifest.get("source") or {}).get("dataset")
    notes = []
    if source not in (None, dataset.hash):
        notes.append(
            f"{folder}: was made from dataset {source}, this is {dataset.hash}; compared by its keys alone"
        )
    return problems, notes
