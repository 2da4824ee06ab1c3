"""Embedding store: ragged token embeddings of passages, memory-mapped."""

import json
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmdirect import _core
from llmdirect.common.arrays import as_numpy, integer_array
from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST
from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset, PassageKey
from llmdirect.store.paths import store_folder
from llmdirect.store.shards import content_hash, read_store_manifest
from llmdirect.store.token_format import TokenFormat

if TYPE_CHECKING:
    import torch

    from llmdirect.store.calibration import Calibration
_KEY_BYTES = 16
_ON_DISK = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "int8": "|i1"}
"""NumPy type of the bits on disk, by type of the store."""


class EmbeddingStore:
    """Token embeddings of passages: passage p has the rows `offsets[p]` to `offsets[p + 1]` of `tokens`.

    Every array is a view of the files, mapped privately and without a copy; it keeps the map alive after the
    store itself is deleted. NumPy views are read-only; the torch view can be written to, and what is written
    stays in this process. Constructed by `open`; `write_store` makes one from arrays.

    Examples
    --------
    >>> store = EmbeddingStore.open("instruments/stores/minilm-int8")  # doctest: +SKIP
    >>> spans, vectors = store.read(0)  # doctest: +SKIP
    >>> spans.shape, vectors.shape  # doctest: +SKIP
    ((37, 2), (37, 384))
    """

    def __init__(self, path: Path, core: _core.Store) -> None:
        self.path = path
        self.manifest: Json = json.loads(core.manifest)
        self._core = core

    @classmethod
    def open(cls, path: str | PathLike[str], *, ram: bool = False, verify: bool = False) -> "EmbeddingStore":
        """Open a store or a shard, in a time that does not depend on its size.

        Checks the manifest, headers and file lengths. Offsets are checked when they are first needed.

        Parameters
        ----------
        path
            Folder of the store.
        ram
            Read all files into memory instead of mapping them.
        verify
            Compare every byte with the checksums.

        Raises
        ------
        FileNotFoundError
            If there is no store.
        DataError
            If a file is missing, truncated, of the wrong shape, or (with `verify`) changed.
        """
        folder = Path(path)
        while True:
            manifest = read_store_manifest(folder, "llmdirect consolidate")
            try:
                return cls(folder, _core.Store.open(folder, ram, verify))
            except DataError:
                # A store that is being replaced loses its files after its manifest was read.
                if read_store_manifest(folder, "llmdirect consolidate") == manifest:
                    raise

    def __repr__(self) -> str:
        shape = f"{self.num_passages} passages, {self.num_rows} x {self.dim} {self.dtype}"
        return f"EmbeddingStore({str(self.path)!r}, {shape})"

    @property
    def dim(self) -> int:
        """Length of a token embedding."""
        return int(self.manifest["dim"])

    @property
    def dtype(self) -> str:
        """Type on disk: "float16", "bfloat16", "float32" or "int8"."""
        return str(self.manifest["dtype"])

    @property
    def num_passages(self) -> int:
        """Number of passages, empty ones included."""
        return int(self.manifest["passages"])

    @property
    def num_rows(self) -> int:
        """Number of tokens."""
        return int(self.manifest["rows"])

    @property
    def encoder(self) -> Json:
        """Description of the encoder: id, revision, weights, tokenizer, settings."""
        encoder: Json = self.manifest["encoder"]
        return encoder

    @property
    def keyed_by(self) -> PassageKey:
        """What passages are looked up by: their text or, in stores of one's own vectors, another key.

        Such a store has one token a passage, which stands for the whole text.
        """
        return keyed_by(self.encoder)

    @property
    def token_format(self) -> TokenFormat:
        """Token format: which tokens, in how many dimensions, of which type."""
        return TokenFormat.from_manifest(self.manifest)

    @cached_property
    def calibration(self) -> "Calibration":
        """Projection and int8 scales. DataError where the file is missing or damaged."""
        from llmdirect.store.calibration import Calibration

        return Calibration.read(self.path, (self.manifest.get("form") or {}).get("calibration"))

    @property
    def hash(self) -> str:
        """Digest of the content: equal for stores with the same bytes."""
        return content_hash(self.manifest)

    def _view(self, name: str, dtype: str, *shape: int, writable: bool = False) -> NDArray[Any]:
        return self._core.data(name, writable).view(dtype).reshape(shape)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [P + 1] first row of each passage, and the number of rows.

        Raises
        ------
        DataError
            If the offsets on disk do not rise from 0 to the number of rows.
        """
        return self._view("offsets", "<i8", self.num_passages + 1)

    @cached_property
    def spans(self) -> NDArray[np.uint32]:
        """uint32 [rows, 2] characters of the passage that each token covers, half-open."""
        return self._view("spans", "<u4", self.num_rows, 2)

    @cached_property
    def keys(self) -> NDArray[np.uint8]:
        """uint8 [P, 16] content hash of each passage."""
        return self._view("keys", "|u1", self.num_passages, 16)

    @cached_property
    def scales(self) -> NDArray[np.float16]:
        """float16 [rows] scale of each token of an int8 store; [0] for other types.

        The embedding of token r is `tokens[r] * scales[r] * channels`, computed in float32 as by `gather`.
        """
        return self._view("scales", "<f2", -1)

    @cached_property
    def channels(self) -> NDArray[np.float32]:
        """float32 [dim] scale of each dimension of an int8 store; [0] for other types."""
        return self._view("channels", "<f4", -1)

    @cached_property
    def tokens_numpy(self) -> NDArray[Any]:
        """Token embeddings [rows, dim] in the type of the store, read-only; bfloat16 as its uint16 bits."""
        return self._view("tokens", _ON_DISK[self.dtype], self.num_rows, self.dim)

    @cached_property
    def tokens(self) -> "torch.Tensor":
        """Token embeddings [rows, dim] as a torch tensor in the type of the store, without a copy."""
        import torch

        view = self._view("tokens", _ON_DISK[self.dtype], self.num_rows, self.dim, writable=True)
        tensor = torch.from_numpy(view)
        return tensor.view(torch.bfloat16) if self.dtype == "bfloat16" else tensor

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Indices of passages by key.

        Parameters
        ----------
        keys
            uint8 [n, 16] content hashes (`llmdirect._core.passage_keys`).

        Returns
        -------
        ndarray
            int64 [n] index of each passage.

        Raises
        ------
        ValueError
            If the keys are of another type or width.
        DataError
            If a key is not in the store; the message has the number of missing keys and the first one.
        """
        return self._core.lookup(_key_array(keys))

    def contains(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether each key is in the store: uint8 [n, 16] to bool [n]. ValueError for other arrays."""
        return self._core.find(_key_array(keys)) >= 0

    def row_counts(self, passages: ArrayLike) -> NDArray[np.int64]:
        """Number of tokens of each passage: int64 [n] to int64 [n].

        Raises
        ------
        ValueError
            If a passage is out of range.
        """
        indices = integer_array("passages", passages, np.int64)
        invalid = indices[(indices < 0) | (indices >= self.num_passages)]
        if invalid.size:
            raise ValueError(f"passage {invalid[0]} is out of range: {self.path} holds {self.num_passages}")
        return self.offsets[indices + 1] - self.offsets[indices]

    def gather(self, passages: ArrayLike, out: "NDArray[Any] | torch.Tensor") -> NDArray[np.int64]:
        """Copy the token embeddings of passages into a buffer, in parallel.

        Parameters
        ----------
        passages
            int64 [n] indices of passages.
        out
            [>= total rows, dim], filled one passage after another; or [n, T, dim], one passage each, padded
            with zeros. C-contiguous, on the CPU, in the type of the store (bfloat16 in NumPy: uint16) or
            float32, to which values are converted exactly.

        Returns
        -------
        ndarray
            int64 [n + 1] first row of each passage without padding, and the total.

        Raises
        ------
        ValueError
            If a passage is out of range or has more than T rows, or the buffer does not fit; the buffer is
            then unchanged.
        DataError
            If the offsets on disk are damaged; the buffer is then unchanged.
        """
        buffer = as_numpy(out)
        if buffer.ndim not in (2, 3) or buffer.shape[-1] != self.dim or not buffer.flags.c_contiguous:
            shapes = f"[rows, {self.dim}] or [passages, rows, {self.dim}]"
            raise ValueError(f"out has shape {buffer.shape}, expected C-contiguous {shapes}")
        indices = integer_array("passages", passages, np.int64)
        padded_to = None if buffer.ndim == 2 else buffer.shape[1]
        if padded_to is not None and len(buffer) != len(indices):
            raise ValueError(f"out has {len(buffer)} places for {len(indices)} passages")
        flat = buffer.reshape(-1)
        if buffer.dtype.str == _ON_DISK[self.dtype]:
            return self._core.gather(indices, flat.view(np.uint8), padded_to)
        if buffer.dtype == np.float32:
            return self._core.gather(indices, flat, padded_to)
        raise ValueError(f"out is {out.dtype}, expected {self.dtype} or float32")

    def spans_of(self, passage: int) -> NDArray[np.uint32]:
        """uint32 [T, 2] characters that each token of one passage covers. ValueError out of range."""
        self.row_counts([passage])
        return self.spans[self.offsets[passage] : self.offsets[passage + 1]]

    def read(self, passage: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Spans uint32 [T, 2] and embeddings float32 [T, dim] of the tokens of one passage.

        Raises
        ------
        ValueError
            If the passage is out of range.
        """
        spans = self.spans_of(passage)
        tokens = np.empty((len(spans), self.dim), np.float32)
        self.gather([passage], tokens)
        return spans, tokens


def keyed_by(encoder: Json) -> PassageKey:
    """Key of the passages of a store with this encoder entry in its manifest."""
    key = encoder.get("vectors")
    if key == "item":
        return "item"
    return "passage" if key == "passage" else "text"


def with_item_passages(dataset: Dataset, store: EmbeddingStore) -> Dataset:
    """Dataset in which every item has a train passage if the store has vectors of items, else the same."""
    return dataset.with_item_passages() if store.keyed_by == "item" else dataset


def _key_array(keys: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """C-contiguous keys; ValueError unless they are uint8 [n, 16]."""
    array = np.asarray(keys)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != _KEY_BYTES:
        raise ValueError(f"keys are {array.dtype} {array.shape}, expected uint8 [n, {_KEY_BYTES}]")
    return np.ascontiguousarray(array)


def open_store(dataset: str | PathLike[str], store: str | PathLike[str] | None = None) -> EmbeddingStore:
    """Open a store of a dataset.

    Parameters
    ----------
    dataset
        Folder of the dataset.
    store
        Name of the store, path of a store elsewhere, or None for the only store of the dataset.

    Raises
    ------
    FileNotFoundError
        If there is no store, or it is not consolidated yet.
    MissingError
        If the name is unknown, or there are several stores and no name.
    """
    if store is not None and (Path(store) / MANIFEST).exists():
        return EmbeddingStore.open(store)
    folder = store_folder(Path(dataset), None if store is None else str(store))
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(
            f"{folder}: not consolidated yet; once `llmdirect precompute {dataset}` has ended, "
            f"`llmdirect consolidate {dataset}` does it"
        )
    return EmbeddingStore.open(folder)
