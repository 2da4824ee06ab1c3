"""Writing arrays of one's own as an embedding store."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmdirect._core import passage_keys
from llmdirect.common.arrays import as_numpy, integer_array
from llmdirect.common.types import Json
from llmdirect.store.shards import write_shard
from llmdirect.store.store import EmbeddingStore

if TYPE_CHECKING:
    import torch
_WRITABLE = ("bfloat16", "float16", "float32")


def write_store(
    path: str | PathLike[str],
    tokens: "NDArray[Any] | torch.Tensor",
    offsets: ArrayLike,
    *,
    texts: Sequence[str] | None = None,
    spans: ArrayLike | None = None,
    encoder: Json | None = None,
) -> EmbeddingStore:
    """Write token embeddings as a new store, completely or not at all, and open it.

    Parameters
    ----------
    path
        Folder to create.
    tokens
        [rows, dim] of all passages one after another: finite float32, float16 or (a tensor) bfloat16.
    offsets
        int64 [P + 1] first row of each passage, from 0 to rows.
    texts
        P passages, by whose content `EmbeddingStore.lookup` finds them; "0", "1", … by default.
    spans
        uint32 [rows, 2] characters of each token; zeros by default.
    encoder
        Description of the encoder, kept in the manifest.

    Raises
    ------
    ValueError
        If the arrays do not fit each other, or hold values that their types cannot.
    FileExistsError
        If the folder exists.

    Examples
    --------
    >>> tokens = np.ones((5, 4), np.float32)
    >>> texts = ["warm sound", "it hums loudly"]
    >>> store = write_store("mine", tokens, [0, 2, 5], texts=texts)  # doctest: +SKIP
    """
    array = as_numpy(tokens)
    dtype = str(tokens.dtype).removeprefix("torch.")
    if array.ndim != 2 or not array.shape[1] or dtype not in _WRITABLE:
        raise ValueError(f"tokens are {dtype} {array.shape}, expected [rows, dim] of {', '.join(_WRITABLE)}")
    _check_finite(array, dtype)
    starts = integer_array("offsets", offsets, np.int64)
    ends = starts[[0, -1]].tolist() if len(starts) else []
    if ends != [0, len(array)] or (np.diff(starts) < 0).any():
        raise ValueError(f"offsets must rise from 0 to the {len(array)} rows of tokens")
    num_passages = len(starts) - 1
    names = list(texts) if texts is not None else [str(passage) for passage in range(num_passages)]
    if len(names) != num_passages:
        raise ValueError(f"{len(names)} texts for {num_passages} passages")
    shape = (len(array), 2)
    characters = np.zeros(shape, np.uint32) if spans is None else integer_array("spans", spans, np.uint32, 2)
    if characters.shape != shape:
        raise ValueError(f"spans have the shape {characters.shape}, expected {shape}")
    write_shard(
        Path(path),
        tokens=np.ascontiguousarray(array),
        offsets=starts,
        spans=characters,
        keys=passage_keys(names),
        dtype=dtype,
        encoder=encoder or {"id": "unnamed"},
        source={},
    )
    return EmbeddingStore.open(path)


def _check_finite(array: NDArray[Any], dtype: str) -> None:
    """Raise ValueError at the first row of tokens with NaN or an infinity; bfloat16 comes as its bits."""
    # The exponent of a bfloat16 is all ones for NaN and the infinities.
    finite = (array & 0x7F80) != 0x7F80 if dtype == "bfloat16" else np.isfinite(array)
    if not finite.all():
        row = int(np.flatnonzero(~finite.all(1))[0])
        raise ValueError(f"tokens hold NaN or an infinity in row {row}; every value must be finite")
