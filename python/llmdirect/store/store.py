"""The embedding store: token embeddings of passages, ragged, read in place."""

import json
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmdirect import _core
from llmdirect._core import passage_keys
from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST
from llmdirect.common.types import Json
from llmdirect.store.consolidation import store_folder
from llmdirect.store.shards import content_hash, read_store_manifest, write_shard
from llmdirect.store.token_format import TokenFormat

if TYPE_CHECKING:
    import torch

    from llmdirect.store.calibration import Calibration


_ON_DISK = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "int8": "|i1"}
_WRITTEN = ("bfloat16", "float16", "float32")


class EmbeddingStore:
    """Token embeddings of passages: row r of `tokens` is a token, passage p owns the rows
    `offsets[p]` to `offsets[p + 1]`.

    Nothing is copied: every array is a view of the files, mapped privately, and keeps the map alive
    after the store itself has gone. NumPy views are read-only; the torch view can be written to, and
    what is written stays in this process. Made by `EmbeddingStore.open`.
    """

    def __init__(self, path: Path, core: _core.Store) -> None:
        self.path = path
        self.manifest: Json = json.loads(core.manifest)
        self._core = core

    @classmethod
    def open(cls, path: str | PathLike[str], *, ram: bool = False, verify: bool = False) -> "EmbeddingStore":
        """Opens a store or a shard, and checks manifest, headers and file lengths, in the same time
        whatever the size. Offsets are checked when they are first needed.

        `ram` reads it all into memory instead of mapping it; `verify` compares every byte with the
        checksums. Raises FileNotFoundError where there is no store, DataError naming the file where
        one is missing, truncated, of the wrong shape, or (with `verify`) changed.
        """
        folder = Path(path)
        while True:
            manifest = read_store_manifest(folder, "llmdirect consolidate")
            try:
                return cls(folder, _core.Store.open(folder, ram, verify))
            except DataError:
                # The files of a store that is replaced right now go after its manifest was read.
                if read_store_manifest(folder, "llmdirect consolidate") == manifest:
                    raise

    @classmethod
    def write(
        cls,
        path: str | PathLike[str],
        tokens: "NDArray[Any] | torch.Tensor",
        offsets: ArrayLike,
        *,
        texts: Sequence[str] | None = None,
        spans: ArrayLike | None = None,
        encoder: Json | None = None,
    ) -> "EmbeddingStore":
        """Writes embeddings that you have as a new store, all of it or nothing, and opens it.

        tokens: float32, float16 or (a tensor) bfloat16 [rows, dim], of all passages one after another.
        offsets: int64 [P + 1], from 0 to rows. texts: the P passages, by whose content `lookup` finds them;
        the numbers "0", "1", … if not given. spans: uint32 [rows, 2] characters of each token, zeros if not
        given. encoder: what made them, kept in the manifest.

        Raises ValueError for arrays that do not fit, and FileExistsError where the folder is.
        """
        array = _as_numpy(tokens)
        dtype = str(tokens.dtype).removeprefix("torch.")
        if array.ndim != 2 or not array.shape[1] or dtype not in _WRITTEN:
            raise ValueError(
                f"tokens are {dtype} {array.shape}, expected [rows, dim] of {', '.join(_WRITTEN)}"
            )
        borders = np.ascontiguousarray(offsets, np.int64)
        ends = borders[[0, -1]].tolist() if borders.ndim == 1 and len(borders) else []
        if ends != [0, len(array)] or (np.diff(borders) < 0).any():
            raise ValueError(f"offsets must rise from 0 to the {len(array)} rows of tokens")
        names = list(texts) if texts is not None else [str(number) for number in range(len(borders) - 1)]
        if len(names) != len(borders) - 1:
            raise ValueError(f"{len(names)} texts for {len(borders) - 1} passages")
        places = (
            np.zeros((len(array), 2), np.uint32) if spans is None else np.ascontiguousarray(spans, np.uint32)
        )
        if places.shape != (len(array), 2):
            raise ValueError(f"spans have the shape {places.shape}, expected {(len(array), 2)}")
        write_shard(
            Path(path),
            tokens=np.ascontiguousarray(array),
            offsets=borders,
            spans=places,
            keys=passage_keys(names),
            dtype=dtype,
            encoder=encoder or {"id": "unnamed"},
            source={},
        )
        return cls.open(path)

    def __repr__(self) -> str:
        shape = f"{self.num_passages} passages, {self.num_rows} x {self.dim} {self.dtype}"
        return f"EmbeddingStore({str(self.path)!r}, {shape})"

    @property
    def dim(self) -> int:
        """Length of a token embedding."""
        return int(self.manifest["dim"])

    @property
    def dtype(self) -> str:
        """Type of the embeddings: "float16", "bfloat16", "float32" or "int8"."""
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
        """What made the embeddings: model, revision, tokenizer, settings."""
        encoder: Json = self.manifest["encoder"]
        return encoder

    @property
    def token_format(self) -> TokenFormat:
        """Which tokens are there, in how many dimensions."""
        return TokenFormat.from_manifest(self.manifest)

    @cached_property
    def calibration(self) -> "Calibration":
        """What the encoder's vectors went through. DataError where its file is missing or damaged."""
        from llmdirect.store.calibration import Calibration

        return Calibration.read(self.path, (self.manifest.get("form") or {}).get("calibration"))

    @property
    def hash(self) -> str:
        """Digest of the content: equal for stores that hold the same bytes."""
        return content_hash(self.manifest)

    def _view(self, name: str, dtype: str, *shape: int, writable: bool = False) -> NDArray[Any]:
        return self._core.data(name, writable).view(dtype).reshape(shape)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """First row of each passage, and the number of rows: int64 [P + 1].

        Raises DataError where the file holds anything else.
        """
        return self._view("offsets", "<i8", self.num_passages + 1)

    @cached_property
    def spans(self) -> NDArray[np.uint32]:
        """Characters of the passage's text that each token covers, half-open: uint32 [rows, 2]."""
        return self._view("spans", "<u4", self.num_rows, 2)

    @cached_property
    def keys(self) -> NDArray[np.uint8]:
        """Content hash of each passage's text: uint8 [P, 16]."""
        return self._view("keys", "|u1", self.num_passages, 16)

    @cached_property
    def scales(self) -> NDArray[np.float16]:
        """What the numbers of each token of an int8 store are multiplied by: float16 [rows], else [0].

        Token r is `tokens[r] * scales[r] * channels`, computed in float32, which is what `gather` writes.
        """
        return self._view("scales", "<f2", -1)

    @cached_property
    def channels(self) -> NDArray[np.float32]:
        """What each dimension of an int8 store is multiplied by: float32 [dim], else [0]."""
        return self._view("channels", "<f4", -1)

    @cached_property
    def tokens_numpy(self) -> NDArray[Any]:
        """Token embeddings [rows, dim], read-only; bfloat16, which NumPy lacks, as its uint16 bits."""
        return self._view("tokens", _ON_DISK[self.dtype], self.num_rows, self.dim)

    @cached_property
    def tokens(self) -> "torch.Tensor":
        """Token embeddings [rows, dim] as a torch tensor of the store's dtype, without a copy."""
        import torch

        view = self._view("tokens", _ON_DISK[self.dtype], self.num_rows, self.dim, writable=True)
        tensor = torch.from_numpy(view)
        return tensor.view(torch.bfloat16) if self.dtype == "bfloat16" else tensor

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Passage number of each key: uint8 [n, 16] to int64 [n].

        Raises DataError saying how many are not in the store, and which is the first.
        """
        return self._core.lookup(np.ascontiguousarray(keys))

    def contains(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether each key is in the store: uint8 [n, 16] to bool [n]."""
        return self._core.find(np.ascontiguousarray(keys)) >= 0

    def row_counts(self, passages: ArrayLike) -> NDArray[np.int64]:
        """Number of tokens of each passage: int64 [n] to int64 [n]."""
        numbers = np.asarray(passages, dtype=np.int64)
        wrong = numbers[(numbers < 0) | (numbers >= self.num_passages)]
        if wrong.size:
            raise ValueError(f"passage {wrong[0]} is out of range: {self.path} holds {self.num_passages}")
        return self.offsets[numbers + 1] - self.offsets[numbers]

    def gather(self, passages: ArrayLike, out: "NDArray[Any] | torch.Tensor") -> NDArray[np.int64]:
        """Copies the rows of `passages` into `out`, in parallel; the offsets that they have without padding.

        `out` [>= total rows, dim] gets them one after another; `out` [n, T, dim] gets each passage into a
        place of its own, zeros behind it. It is a C-contiguous array or tensor on the CPU, of the store's
        dtype (bfloat16 in NumPy: uint16), or float32: converted exactly, int8 as `scales` says.

        Returns int64 [n + 1]. Raises ValueError for a passage out of range, a buffer that does not fit, or a
        passage of more than T rows, and DataError for damaged offsets; the buffer is then unchanged.
        """
        buffer = _as_numpy(out)
        if buffer.ndim not in (2, 3) or buffer.shape[-1] != self.dim or not buffer.flags.c_contiguous:
            shapes = f"[rows, {self.dim}] or [passages, rows, {self.dim}]"
            raise ValueError(f"out has shape {buffer.shape}, expected C-contiguous {shapes}")
        numbers = np.ascontiguousarray(passages, dtype=np.int64)
        padded_to = None if buffer.ndim == 2 else buffer.shape[1]
        if padded_to is not None and len(buffer) != len(numbers):
            raise ValueError(f"out has {len(buffer)} places for {len(numbers)} passages")
        flat = buffer.reshape(-1)
        if buffer.dtype.str == _ON_DISK[self.dtype]:
            return self._core.gather(numbers, flat.view(np.uint8), padded_to)
        if buffer.dtype == np.float32:
            return self._core.gather(numbers, flat, padded_to)
        raise ValueError(f"out is {out.dtype}, expected {self.dtype} or float32")

    def spans_of(self, passage: int) -> NDArray[np.uint32]:
        """Characters that each token of one passage covers: uint32 [T, 2]."""
        return self.spans[self.offsets[passage] : self.offsets[passage + 1]]

    def read(self, passage: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Spans uint32 [T, 2] and embeddings float32 [T, dim] of one passage's tokens."""
        spans = self.spans_of(passage)
        tokens = np.empty((len(spans), self.dim), np.float32)
        self.gather([passage], tokens)
        return spans, tokens


def open_store(dataset: str | PathLike[str], store: str | PathLike[str] | None = None) -> EmbeddingStore:
    """The dataset's one store; or the one named `store`; or the store in the folder `store`.

    Raises FileNotFoundError where there is none or it is not consolidated yet, MissingError for an unknown
    name and where the dataset has several stores and none was named; each says which command helps.
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


def _as_numpy(buffer: "NDArray[Any] | torch.Tensor") -> NDArray[Any]:
    """The same memory as an array; bfloat16 as uint16."""
    if isinstance(buffer, np.ndarray):
        return buffer
    import torch

    if buffer.device.type != "cpu":
        raise ValueError(f"out is on {buffer.device}, expected a buffer on the CPU")
    bits = buffer.view(torch.uint16) if buffer.dtype == torch.bfloat16 else buffer
    array: NDArray[Any] = bits.detach().numpy()
    return array
