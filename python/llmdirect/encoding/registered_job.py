"""Shards of the texts of a dataset, encoded by a registered encoder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect._core import Store
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import MANIFEST, free_bytes
from llmdirect.common.progress import Progress
from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.calibrate import SAMPLE_SEED, SAMPLE_TOKENS, Moments
from llmdirect.encoding.encoders.registered import RegisteredEncoder
from llmdirect.encoding.encoders.sources import slug
from llmdirect.encoding.encoders.tokens import Embedding
from llmdirect.encoding.options import named_folder
from llmdirect.encoding.results import EncodingPlan, PrecomputeResult
from llmdirect.encoding.texts import Texts
from llmdirect.store.calibration import Calibration, first_not_finite
from llmdirect.store.shards import (
    clear_other_shards,
    content_hash,
    encoder_differences,
    keep_or_clear,
    read_store_manifest,
    shard_folder,
    shard_writer,
    store_bytes,
    write_shard,
)
from llmdirect.store.token_format import TokenFormat

_TEXTS_AT_ONCE: Final = 64
_SHARD_TEXTS: Final = 1024
"""Texts per shard: their tokens are not known before they are encoded."""


def encode_registered(
    dataset: Dataset,
    encoder: RegisteredEncoder,
    *,
    token_format: TokenFormat,
    store: str | None,
    progress: Progress,
) -> PrecomputeResult:
    """Write the shards of a dataset's texts; an interrupted call is resumed.

    Parameters
    ----------
    token_format
        Which tokens are stored, in how many dimensions, of which type.
    store
        Name or path of the store; by default it is named after the encoder and the format.

    Raises
    ------
    DataError
        If the encoder returns something else than it should.
    MismatchError
        If the store is of another encoder or another format.
    """
    texts, description = Texts.from_dataset(dataset), encoder.describe()
    num_texts, dim = len(texts.texts), token_format.dim(encoder.dim)
    folder = named_folder(dataset.path, store or f"{slug(encoder.id)}-{token_format.name}")
    with shard_writer(folder):
        entry: Json | None = None
        grows: Json = {}
        if (folder / MANIFEST).exists():
            manifest = read_store_manifest(folder, "llmdirect consolidate")
            _check_same(folder, manifest, description, token_format)
            texts = texts.without(Store.open(folder, False, False).find(texts.keys) >= 0)
            if not texts.texts:
                counts = manifest["passages"], manifest["rows"], 0, 0
                return PrecomputeResult(folder, *counts, consolidated=True)
            grows = {"grows": content_hash(manifest)}
            entry = (manifest.get("form") or {}).get("calibration")
        calibration = Calibration.read(folder, entry)
        if token_format.calibrated and entry is None:
            calibration = _fit(encoder, texts, token_format, progress)
            entry = calibration.write(folder)
        form = token_format.to_json(entry)
        expected: Json = {
            "encoder": description,
            "source": {"texts": texts.hash, **grows},
            **({"form": form} if form else {}),
        }
        clear_other_shards(folder, expected)
        shards = [slice(at, at + _SHARD_TEXTS) for at in range(0, len(texts.texts), _SHARD_TEXTS)]
        written = rows = 0
        with progress.task(f"encode with {encoder.id}", len(texts.texts), "texts") as task:
            for number, part in enumerate(shards):
                path = shard_folder(folder, number)
                if not keep_or_clear(path, expected=expected):
                    _write(path, encoder, texts, part, token_format, calibration, expected)
                    written += 1
                rows += read_store_manifest(path, "llmdirect precompute")["rows"]
                task.advance(len(texts.texts[part]))
    size = store_bytes(rows, len(texts.texts), token_format.row_bytes(dim))
    plan = EncodingPlan(
        model=encoder.id,
        passages=dataset.num_passages,
        texts_without_tokens=sum(not text.strip() for text in texts.texts),
        texts_in_windows=0,
        dim=dim,
        dtype=token_format.dtype,
        calibration=entry,
        bytes=size,
        shards=len(shards),
        tokens_to_encode=rows,
        bytes_to_write=size,
        bytes_free=free_bytes(folder),
    )
    return PrecomputeResult(folder, num_texts, rows, written, written, consolidated=False, plan=plan)


def _check_same(folder: Path, manifest: Json, description: Json, token_format: TokenFormat) -> None:
    stored = TokenFormat.from_manifest(manifest)
    different = encoder_differences(manifest["encoder"], description)
    if stored != token_format:
        different.append(f"format is {stored.name} there, {token_format.name} here")
    if different:
        raise MismatchError(
            f"{folder}: a store of another run ({'; '.join(different)}); delete it or choose another `store`"
        )


def _batches(encoder: RegisteredEncoder, texts: list[str]) -> Iterator[tuple[list[str], list[Embedding]]]:
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = texts[start : start + _TEXTS_AT_ONCE]
        yield part, encoder.encode(part)


def _kept(
    part: list[str], embeddings: list[Embedding], token_format: TokenFormat
) -> Iterator[tuple[Tensor, NDArray[np.uint32]]]:
    """Stored vectors and spans of each text."""
    masks = token_format.kept(part, [embedding.spans for embedding in embeddings])
    for embedding, mask in zip(embeddings, masks, strict=True):
        yield embedding.tokens[torch.from_numpy(np.flatnonzero(mask))].float(), embedding.spans[mask]


def _write(
    path: Path,
    encoder: RegisteredEncoder,
    texts: Texts,
    part: slice,
    token_format: TokenFormat,
    calibration: Calibration,
    entries: Json,
) -> None:
    """Encode and write one shard; entries: of its manifest."""
    stored: list[dict[str, Tensor]] = []
    spans, lengths = [np.zeros((0, 2), np.uint32)], [0]
    for batch, embeddings in _batches(encoder, texts.texts[part]):
        for text, (vectors, own) in zip(batch, _kept(batch, embeddings, token_format), strict=True):
            stored.append(calibration.quantize(vectors, token_format.dtype))
            if first_not_finite(stored[-1]) is not None:
                raise DataError(
                    f"encoder {encoder.id}: text {text[:40]!r} has a vector that is not finite in "
                    f"{token_format.dtype}; store `dtype='bfloat16'` or float32"
                )
            spans.append(own)
            lengths.append(len(own))
    arrays = {name: torch.cat([each[name] for each in stored]) for name in stored[0]}
    write_shard(
        path,
        **calibration.arrays(arrays),
        offsets=np.cumsum(lengths).astype(np.int64),
        spans=np.concatenate(spans),
        keys=texts.keys[part],
        dtype=token_format.dtype,
        token_format=entries.get("form"),
        encoder=entries["encoder"],
        source=entries["source"],
    )


def _fit(
    encoder: RegisteredEncoder, texts: Texts, token_format: TokenFormat, progress: Progress
) -> Calibration:
    """Projection and scales, fitted on a sample of train texts, or of all where train has none."""
    has_text = np.array([bool(text.strip()) for text in texts.texts])
    rows = np.flatnonzero(has_text & texts.in_train)
    rows = rows if len(rows) else np.flatnonzero(has_text)
    sample = texts.select(np.random.default_rng(SAMPLE_SEED).permutation(rows))
    moments = Moments(encoder.dim)
    with progress.task("fit projection and scales", SAMPLE_TOKENS, "tokens") as task:
        for part, embeddings in _batches(encoder, sample):
            before = moments.count
            for vectors, spans in _kept(part, embeddings, token_format):
                moments.add(vectors[torch.from_numpy(spans[:, 1] > spans[:, 0])])
            task.advance(moments.count - before)
            if moments.count >= SAMPLE_TOKENS:
                break
    if not moments.count:
        raise DataError(f"encoder {encoder.id}: no token of a train passage to fit `dtype` on")
    return moments.calibration(token_format)
