"""Store of vectors that the user has, instead of token embeddings of an encoder.

Each passage has one "token", whose span is the whole text: its own vector, or that of its item.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import MANIFEST, check_disk, free_bytes
from llmdirect.common.progress import Progress
from llmdirect.common.types import Json
from llmdirect.data.dataset import KINDS, TRAIN, Dataset, PassageKey
from llmdirect.encoding.calibrate import SAMPLE_SEED, SAMPLE_TOKENS, Moments
from llmdirect.encoding.encoders.sources import slug
from llmdirect.encoding.options import named_folder
from llmdirect.encoding.results import EncodingPlan, PrecomputeResult
from llmdirect.encoding.vector_files import OwnVectors, read_own_vectors
from llmdirect.store.batch_plan import differences
from llmdirect.store.calibration import Calibration, first_not_finite
from llmdirect.store.shards import (
    keep_or_clear,
    read_store_manifest,
    shard_folder,
    shard_writer,
    store_bytes,
    write_shard,
)
from llmdirect.store.token_format import TokenFormat

_NAMED: Final = 3
"""Most missing ids that are named."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Assigned:
    """Vectors of the passages of a dataset. P different keys."""

    by: PassageKey
    keys: NDArray[np.uint8]
    """uint8 [P, 16]"""
    rows: NDArray[np.int64]
    """int64 [P] row of the vectors; -1 for none."""
    ends: NDArray[np.int64]
    """int64 [P] number of characters of the text, at least 1; the longest of an item."""
    in_train: NDArray[np.bool_]
    """bool [P] whether a train passage has the key."""


def store_own_vectors(
    dataset: Dataset,
    source: Any,
    *,
    ids: Path | str | Sequence[str] | None,
    token_format: TokenFormat,
    shard_tokens: int,
    store: str | None,
    progress: Progress,
) -> PrecomputeResult:
    """Write the shards of a store of vectors of items or passages.

    Parameters
    ----------
    source, ids
        As `read_own_vectors`.
    token_format
        Type and projection of the stored vectors.
    shard_tokens
        Vectors per shard.
    store
        Name or path of the store; by default it is named after the file and the format.

    Raises
    ------
    DataError
        If ids or numbers do not fit the dataset.
    MismatchError
        If the store holds other vectors.
    """
    vectors = read_own_vectors(source, ids)
    dim = token_format.dim(vectors.vectors.shape[1])
    assigned, dataset = _assign(dataset, vectors)
    _note_missing(dataset, vectors, assigned)
    folder = named_folder(dataset.path, store or f"{slug(vectors.name)}-{token_format.name}")
    encoder: Json = {"id": vectors.id, "vectors": assigned.by, "hash": vectors.hash}
    if (folder / MANIFEST).exists():
        return _consolidated(folder, encoder, token_format, assigned)
    used = assigned.rows >= 0
    row_bytes = token_format.row_bytes(dim)
    size = store_bytes(int(used.sum()), len(used), row_bytes)
    shards = [slice(at, at + shard_tokens) for at in range(0, len(used), shard_tokens)]
    check_disk(folder, size, "the shards need")
    with shard_writer(folder), progress.task("write vectors", int(used.sum()), "vectors") as task:
        calibration = _calibration(vectors, assigned, token_format)
        entry = calibration.write(folder) if token_format.calibrated else None
        written = 0
        for number, part in enumerate(shards):
            expected = {"encoder": encoder, "passages": len(used[part]), "rows": int(used[part].sum())}
            if not keep_or_clear(shard_folder(folder, number), expected=expected):
                _write(folder, number, vectors, assigned, part, token_format, calibration, entry, encoder)
                written += 1
            task.advance(int(used[part].sum()))
    plan = EncodingPlan(
        model=encoder["id"],
        passages=dataset.num_passages,
        texts_without_tokens=int((~used).sum()),
        texts_in_windows=0,
        dim=dim,
        dtype=token_format.dtype,
        calibration=entry,
        bytes=size,
        shards=len(shards),
        tokens_to_encode=int(used.sum()),
        bytes_to_write=size,
        bytes_free=free_bytes(folder),
    )
    counts = len(used), int(used.sum()), written, written
    return PrecomputeResult(folder, *counts, consolidated=False, plan=plan, vectors=assigned.by)


def _assign(dataset: Dataset, own: OwnVectors) -> tuple[_Assigned, Dataset]:
    """Vector of each passage, and the dataset with these passages.

    DataError where no id, or not the number of vectors, fits the dataset.
    """
    count = len(own.vectors)
    by: PassageKey = "item" if own.user_ids is None else "passage"
    if own.item_ids is None:
        if count not in (dataset.num_items, dataset.num_passages):
            raise DataError(
                f"{own.label}: {count:,} vectors, {dataset.path} has {dataset.num_items:,} items and "
                f"{dataset.num_passages:,} passages; give as many in this order, or the item ids of the rows "
                "as `embedding_ids`"
            )
        by = "item" if count == dataset.num_items else "passage"
    if by == "item":
        dataset = dataset.with_item_passages()
    passages = dataset.passages
    if own.item_ids is None:
        rows = np.where(passages.item_idx >= 0, passages.item_idx, -1) if by == "item" else np.arange(count)
    elif own.user_ids is None:
        row_of = {name: row for row, name in enumerate(own.item_ids)}
        of_items = np.array([row_of.get(name, -1) for name in dataset.item_ids], np.int64)
        rows = np.where(passages.item_idx >= 0, of_items[passages.item_idx], -1)
    else:
        row_of_pair = {pair: row for row, pair in enumerate(zip(own.user_ids, own.item_ids, strict=True))}
        users, items = [*dataset.user_ids, None], [*dataset.item_ids, ""]
        pairs = zip(passages.user_idx.tolist(), passages.item_idx.tolist(), strict=True)
        rows = np.array([row_of_pair.get((users[u], items[i]), -1) for u, i in pairs], np.int64)
    if not (rows >= 0).any():
        example = own.row(0).removeprefix(f"{own.label}: ")
        raise DataError(
            f"{own.label}: none of its ids is in {dataset.path} ({example}; the dataset has such as "
            f"{dataset.item_ids[0]!r}); give the vectors of the same collection"
        )
    keys = np.ascontiguousarray(dataset.passage_keys(by))
    _, first, inverse = np.unique(keys.view("S16").ravel(), return_index=True, return_inverse=True)
    ends = np.ones(len(first), np.int64)
    np.maximum.at(ends, inverse, passages.text.str.len_chars().to_numpy().astype(np.int64))
    in_train = np.bincount(inverse, passages.split == TRAIN, minlength=len(first)) > 0
    return _Assigned(by, keys[first], rows[first].astype(np.int64), ends, in_train), dataset


def _note_missing(dataset: Dataset, own: OwnVectors, assigned: _Assigned) -> None:
    """Log the items or passages without a vector, and the vectors of no item."""
    if assigned.by == "item":
        key_rows = dict(zip(assigned.keys.view("S16").ravel().tolist(), assigned.rows.tolist(), strict=True))
        passages = dataset.passages
        item_keys = np.ascontiguousarray(dataset.passage_keys("item")).view("S16").ravel().tolist()
        lacking = sorted(
            {
                item
                for item, key in zip(passages.item_idx.tolist(), item_keys, strict=True)
                if key_rows[key] < 0
            }
            - {-1}
        )
        if lacking:
            names = ", ".join(repr(dataset.item_ids[item]) for item in lacking[:_NAMED])
            logger.warning(
                "%s: %s of %s items have no vector (%s%s); their text term is zero",
                *(own.label, f"{len(lacking):,}", f"{dataset.num_items:,}", names),
                ", …" if len(lacking) > _NAMED else "",
            )
    elif lacking_passages := int((assigned.rows < 0).sum()):
        keys = np.ascontiguousarray(dataset.passage_keys("passage")).view("S16").ravel()
        first = int(np.argmax(np.isin(keys, assigned.keys[assigned.rows < 0].view("S16").ravel())))
        user, item = dataset.passages.user_idx[first], dataset.passages.item_idx[first]
        logger.warning(
            "%s: %s of %s passages have no vector, such as the %s of item %r%s",
            *(own.label, f"{lacking_passages:,}", f"{len(assigned.rows):,}"),
            KINDS[dataset.passages.kind[first]],
            dataset.item_ids[item] if item >= 0 else "",
            f" by {dataset.user_ids[user]!r}" if user >= 0 else "",
        )
    unused = len(own.vectors) - len(np.unique(assigned.rows[assigned.rows >= 0]))
    if unused:
        logger.info("%s: %s vectors are of nothing in the dataset", own.label, f"{unused:,}")


def _consolidated(
    folder: Path, encoder: Json, token_format: TokenFormat, assigned: _Assigned
) -> PrecomputeResult:
    """Result where the store exists. MismatchError where it is of other vectors or another format."""
    from llmdirect._core import Store

    manifest = read_store_manifest(folder, "llmdirect consolidate")
    different = differences(manifest["encoder"], encoder)
    different += differences(vars(TokenFormat.from_manifest(manifest)), vars(token_format))
    if not different and (Store.open(folder, False, False).find(assigned.keys) < 0).any():
        different = ["it lacks passages of the dataset"]
    if different:
        raise MismatchError(
            f"{folder}: a finished store of something else ({'; '.join(different)}); delete it or choose "
            "another `store`"
        )
    counts = manifest["passages"], manifest["rows"], 0, 0
    return PrecomputeResult(folder, *counts, consolidated=True, vectors=assigned.by)


def _calibration(own: OwnVectors, assigned: _Assigned, token_format: TokenFormat) -> Calibration:
    """Scales and projection of the vectors of train passages, of all where these have none."""
    if not token_format.calibrated:
        return Calibration()
    rows = np.unique(assigned.rows[assigned.in_train & (assigned.rows >= 0)])
    if not len(rows):
        rows = np.unique(assigned.rows[assigned.rows >= 0])
    if len(rows) > SAMPLE_TOKENS:
        rows = np.sort(np.random.default_rng(SAMPLE_SEED).permutation(rows)[:SAMPLE_TOKENS])
    moments = Moments(own.vectors.shape[1])
    for part in np.array_split(rows, max(1, len(rows) >> 12)):
        moments.add(torch.from_numpy(np.asarray(own.vectors[part], np.float32)))
    return moments.calibration(token_format)


def _write(
    folder: Path,
    number: int,
    own: OwnVectors,
    assigned: _Assigned,
    part: slice,
    token_format: TokenFormat,
    calibration: Calibration,
    entry: Json | None,
    encoder: Json,
) -> None:
    rows = assigned.rows[part]
    used = rows >= 0
    vectors = torch.from_numpy(np.asarray(own.vectors[rows[used]], np.float32))
    stored = calibration.quantize(vectors, token_format.dtype)
    if (row := first_not_finite(stored)) is not None:
        raise DataError(
            f"{own.row(int(rows[used][row]))} is not finite in {token_format.dtype}; "
            "store it as `dtype='float32'`"
        )
    ends = assigned.ends[part][used]
    write_shard(
        shard_folder(folder, number),
        **calibration.arrays(stored),
        offsets=np.concatenate([[0], np.cumsum(used)]).astype(np.int64),
        spans=np.stack([np.zeros_like(ends), ends], 1).astype(np.uint32),
        keys=assigned.keys[part],
        dtype=token_format.dtype,
        token_format=token_format.to_json(entry),
        encoder=encoder,
        source={},
    )
