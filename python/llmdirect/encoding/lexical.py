"""Stores of static word vectors, fitted on the train texts of a dataset, without a language model.

Nothing here imports torch: vectors are fitted and stored in NumPy.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import Store
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import MANIFEST, free_bytes
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.ranges import Range, check_range
from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.options import named_folder
from llmdirect.encoding.results import EncodingPlan, PrecomputeResult
from llmdirect.encoding.texts import Texts
from llmdirect.store.batch_plan import PLAN, differences
from llmdirect.store.consolidation import consolidate
from llmdirect.store.lexical import (
    LEXICAL,
    check_train_texts,
    is_lexical,
    read_word_vectors,
    train_texts_hash,
    write_word_vectors,
)
from llmdirect.store.rounding import quantize_int8, to_bfloat16
from llmdirect.store.shards import (
    clear_other_shards,
    content_hash,
    keep_or_clear,
    read_store_manifest,
    shard_folder,
    shard_writer,
    store_bytes,
    write_shard,
)
from llmdirect.store.store import EmbeddingStore
from llmdirect.store.token_format import TokenFormat
from llmdirect.text.word_vectors import MIN_TEXTS, WordVectors

DIMENSIONS: Final = 384
"""Dimensions of a word's vector by default."""
_RANGE: Final = Range(1, 4096)
_SHARD_TEXTS: Final = 1024
"""Texts per shard."""


def encode_lexical(
    dataset: Dataset,
    *,
    dimensions: int | None = None,
    token_format: TokenFormat | None = None,
    store: str | None = None,
    progress: Progress = SILENT,
) -> PrecomputeResult:
    """Fit word vectors on the train texts of a dataset, and write the shards of all its texts.

    Each word of a text that is in the vocabulary is a token, whose embedding is the word's vector; a text
    without such words has no rows. The vectors are kept next to the shards in lexical.safetensors. A store
    that is consolidated keeps its vectors, and gets the texts that it lacks.

    Parameters
    ----------
    dimensions
        Dimensions of the vectors; 384 by default. Fewer where there are fewer train texts or words.
    token_format
        Type of the stored vectors, and whether function words are kept; `project` is None.
    store
        Name or path of the store; by default it is named after encoder and format.

    Raises
    ------
    DataError
        If no word is in two train texts.
    MismatchError
        If the store is of another encoder, format or number of dimensions, or was fitted on other texts.
    ValueError
        If `dimensions` is out of range.
    """
    token_format = token_format or TokenFormat()
    dimensions = DIMENSIONS if dimensions is None else dimensions
    check_range("dimensions", dimensions, _RANGE)
    texts = Texts.from_dataset(dataset)
    num_texts = len(texts.texts)
    folder = named_folder(dataset.path, store or f"{LEXICAL}-{token_format.name}")
    with shard_writer(folder):
        grows: Json = {}
        if (folder / MANIFEST).exists():
            manifest = read_store_manifest(folder, "llmdirect consolidate")
            _check_same(folder, manifest, dataset, dimensions, token_format)
            encoder = manifest["encoder"]
            vectors = read_word_vectors(folder, encoder["weights"])
            texts = texts.without(Store.open(folder, False, False).find(texts.keys) >= 0)
            if not texts.texts:
                counts = manifest["passages"], manifest["rows"], 0, 0
                return PrecomputeResult(folder, *counts, consolidated=True)
            grows = {"grows": content_hash(manifest)}
        elif (folder / PLAN).exists():
            raise MismatchError(
                f"{folder}: holds shards of a language model; delete it or choose another `store`"
            )
        else:
            vectors = _fit(dataset, texts, dimensions, progress)
            encoder = _describe(dataset, dimensions, write_word_vectors(folder, vectors))
        form = token_format.to_json(None)
        expected: Json = {
            "encoder": encoder,
            "source": {"texts": texts.hash, **grows},
            **({"form": form} if form else {}),
        }
        clear_other_shards(folder, expected)
        written, lengths = _write_shards(folder, texts, vectors, token_format, expected, progress)
    num_tokens = int(lengths.sum())
    size = store_bytes(num_tokens, len(lengths), token_format.row_bytes(vectors.dim))
    plan = EncodingPlan(
        model=LEXICAL,
        passages=dataset.num_passages,
        texts_without_tokens=int((lengths == 0).sum()),
        texts_in_windows=0,
        dim=vectors.dim,
        dtype=token_format.dtype,
        calibration=None,
        bytes=size,
        shards=-(-len(lengths) // _SHARD_TEXTS),
        tokens_to_encode=num_tokens,
        bytes_to_write=size,
        bytes_free=free_bytes(folder),
    )
    return PrecomputeResult(folder, num_texts, num_tokens, written, written, consolidated=False, plan=plan)


def write_lexical_store(
    dataset: Dataset | Path | str,
    out: str | PathLike[str],
    *,
    dimensions: int | None = None,
    dtype: str = TokenFormat.dtype,
    tokens: str = "all",
    progress: Progress = SILENT,
) -> EmbeddingStore:
    """Fit word vectors on the train texts of a dataset, and write its texts as a consolidated store.

    Each split of a dataset needs a store of its own, also one that was made in memory (`resplit`): the
    vectors depend on which texts are in train. A complete store is kept.

    Parameters
    ----------
    dataset
        Dataset or its folder.
    out
        Folder of the store.
    dimensions
        Dimensions of the vectors; 384 by default.
    dtype
        Type on disk: "int8", "bfloat16", "float16" or "float32".
    tokens
        "all", or "content": without stop words.

    Raises
    ------
    DataError, MismatchError, ValueError
        As `encode_lexical`.

    Examples
    --------
    >>> store = write_lexical_store("instruments", "stores/lexical")  # doctest: +SKIP
    >>> store.encoder["id"]  # doctest: +SKIP
    'lexical'
    """
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    path = str(Path(out).absolute())
    token_format = TokenFormat(dtype, tokens=tokens)
    result = encode_lexical(
        opened, dimensions=dimensions, token_format=token_format, store=path, progress=progress
    )
    if not result.consolidated:
        consolidate(opened.path, store=path, progress=progress)
    return EmbeddingStore.open(path)


def _describe(dataset: Dataset, dimensions: int, weights: str) -> Json:
    """Entry "encoder" of manifests."""
    return {
        "id": LEXICAL,
        "revision": None,
        "weights": weights,
        "tokenizer": None,
        "max_length": None,
        "dimensions": dimensions,
        "train_texts": train_texts_hash(dataset),
    }


def _check_same(
    folder: Path, manifest: Json, dataset: Dataset, dimensions: int, token_format: TokenFormat
) -> None:
    stored = manifest["encoder"]
    different = differences(vars(TokenFormat.from_manifest(manifest)), vars(token_format))
    if not is_lexical(stored):
        different.append(f"encoder is {stored.get('id')} there, {LEXICAL} here")
    elif stored.get("dimensions") != dimensions:
        different.append(f"dimensions is {stored.get('dimensions')} there, {dimensions} here")
    if different:
        raise MismatchError(
            f"{folder}: a store of another run ({'; '.join(different)}); delete it or choose another `store`"
        )
    check_train_texts(folder, stored, dataset)


def _fit(dataset: Dataset, texts: Texts, dimensions: int, progress: Progress) -> WordVectors:
    vectors = WordVectors.fit(texts.select(np.flatnonzero(texts.in_train)), dimensions, progress)
    if not vectors.dim:
        raise DataError(
            f"{dataset.path}: no word is in {MIN_TEXTS} texts of train, so there are no word vectors; take "
            "another `encoder`"
        )
    return vectors


def _write_shards(
    folder: Path,
    texts: Texts,
    vectors: WordVectors,
    token_format: TokenFormat,
    entries: Mapping[str, Any],
    progress: Progress,
) -> tuple[int, NDArray[np.int64]]:
    """Write the shards that are missing; their number, and the number of tokens of each text."""
    table, scales = _stored(vectors, token_format.dtype)
    lengths, written = [], 0
    with progress.task(f"encode with {LEXICAL}", len(texts.texts), "texts") as task:
        for number, start in enumerate(range(0, len(texts.texts), _SHARD_TEXTS)):
            part, path = slice(start, start + _SHARD_TEXTS), shard_folder(folder, number)
            if not keep_or_clear(path, expected=dict(entries)):
                rows, spans, offsets = _tokens(vectors, texts.texts[part], token_format)
                write_shard(
                    path,
                    tokens=table[rows],
                    scales=None if scales is None else scales[rows],
                    channels=None if scales is None else vectors.channels,
                    offsets=offsets,
                    spans=spans,
                    keys=texts.keys[part],
                    dtype=token_format.dtype,
                    token_format=entries.get("form"),
                    encoder=entries["encoder"],
                    source=entries["source"],
                )
                written += 1
            lengths.append(np.diff(EmbeddingStore.open(path).offsets))
            task.advance(len(lengths[-1]))
    return written, np.concatenate(lengths)


def _stored(vectors: WordVectors, dtype: str) -> tuple[NDArray[np.generic], NDArray[np.float16] | None]:
    """Vectors [V, D] in the type of the store, and for int8 the scales [V]."""
    values = vectors.vectors.astype(np.float32)
    if dtype == "int8":
        return quantize_int8(values, vectors.channels)
    return (to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype)), None


def _tokens(
    vectors: WordVectors, texts: list[str], token_format: TokenFormat
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
    """Rows of the vectors [T] and spans [T, 2] of the tokens of texts, and offsets [n + 1]."""
    found = [vectors.lookup(text) for text in texts]
    masks = token_format.kept(texts, [spans for _, spans in found])
    rows = [rows[mask] for (rows, _), mask in zip(found, masks, strict=True)]
    spans = [spans[mask] for (_, spans), mask in zip(found, masks, strict=True)]
    return np.concatenate(rows), np.concatenate(spans), np.cumsum([0, *map(len, rows)]).astype(np.int64)
