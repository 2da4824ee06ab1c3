"""Shards and published folders of random content, and the expected stores."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.files import write_manifest

ENCODER = {"id": "tiny", "revision": "1", "max_length": 16}
SOURCE = {"dataset": "abc"}
BITS = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32, "int8": np.int8}


@dataclass
class Content:
    """Arrays of a shard or store."""

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]
    spans: NDArray[np.uint32]
    keys: NDArray[np.uint8]
    scales: NDArray[np.float16] | None = None
    channels: NDArray[np.float32] | None = None

    def arrays(self) -> list[tuple[str, NDArray[Any]]]:
        """Names and arrays, without absent ones."""
        return [(name, array) for name, array in vars(self).items() if array is not None]

    def float32(self) -> NDArray[np.float32]:
        """Values of the tokens: [rows, dim]."""
        if self.scales is not None:
            return self.tokens * self.scales[:, None].astype(np.float32) * self.channels
        if self.tokens.dtype == np.uint16:
            return (self.tokens.astype(np.uint32) << 16).view(np.float32)
        return self.tokens.astype(np.float32)


def random_content(
    rng: np.random.Generator, counts: list[int], dim: int = 8, dtype: str = "bfloat16"
) -> Content:
    """Passages of `counts` tokens; bits are finite in every dtype."""
    rows = sum(counts)
    tokens = rng.standard_normal((rows, dim)).astype(np.float32)
    bits = (tokens.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else tokens
    scales = channels = None
    if dtype == "int8":
        bits = rng.integers(-127, 128, (rows, dim))
        scales = rng.uniform(0.01, 1, rows).astype(np.float16)
        channels = (1 + np.arange(dim, dtype=np.float32)) / 3
    return Content(
        np.ascontiguousarray(bits.astype(BITS[dtype])),
        np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        rng.integers(0, 1000, (rows, 2), dtype=np.uint32),
        rng.integers(0, 256, (len(counts), 16), dtype=np.uint8),
        scales,
        channels,
    )


def write_content(folder: Path, content: Content, dtype: str = "bfloat16", **changes: Any) -> None:
    """Write a shard as `precompute` does."""
    folder.mkdir(parents=True)
    manifest = {
        "format": "llmdirect-store",
        "version": 2,
        "dtype": dtype,
        "dim": content.tokens.shape[1],
        "rows": len(content.tokens),
        "passages": len(content.keys),
        "encoder": ENCODER,
        "source": SOURCE,
        "files": _core.write_store_files(folder, content.arrays()),
    }
    write_manifest(folder, {**manifest, **changes})


def write_dataset(root: Path, shards: list[Content], dtype: str = "bfloat16", name: str = "tiny") -> Path:
    """Write an unconsolidated store into a dataset folder; returns the store folder."""
    folder = root / "stores" / name
    for number, content in enumerate(shards):
        write_content(folder / "shards" / f"{number:05d}", content, dtype)
    (folder / "plan.json").write_text(json.dumps({"num_shards": len(shards)}))
    return folder


def joined(parts: list[Content]) -> Content:
    """Naive concatenation in memory."""
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Content(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([part.spans for part in parts]),
        np.concatenate([part.keys for part in parts]),
        None if parts[0].scales is None else np.concatenate([part.scales for part in parts]),
        parts[0].channels,
    )


def assert_same(store: Any, content: Content) -> None:
    """Assert that the store equals the content."""
    np.testing.assert_array_equal(store.tokens_numpy, content.tokens)
    for name, array in content.arrays()[1:]:
        np.testing.assert_array_equal(getattr(store, name), array, strict=True)


def data_file(folder: Path, name: str) -> Path:
    """Path of a data file according to the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return folder / str(manifest["files"][name]["name"])


def visible(folder: Path) -> dict[str, bytes]:
    """Bytes of each file below the folder, except the lock."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_published(root: Path, arrays: dict[str, list[NDArray[Any]]]) -> Path:
    """Folders of numbered files: {"user_embeddings": [array, ...], ...}."""
    for name, arrays_of_name in arrays.items():
        (root / name).mkdir(parents=True)
        for number, array in enumerate(arrays_of_name):
            np.save(root / name / f"{number}.npy", array)
    return root


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the file size of this process: fails with EFBIG, as a full disk does with ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def published_arrays(
    rng: np.random.Generator,
    users: int = 3,
    items: int = 2,
    tokens: int = 6,
    dim: int = 5,
    mask: Any = np.bool_,
) -> dict[str, list[np.ndarray]]:
    """Content of a published folder: padded documents of random vectors and masks."""

    def embeddings(count: int) -> list[np.ndarray]:
        return list(rng.standard_normal((count, tokens, dim)).astype(np.float32))

    def masks(count: int) -> list[np.ndarray]:
        return list(rng.integers(0, 2, (count, tokens)).astype(mask))

    return {
        "user_embeddings": embeddings(users),
        "user_masks": masks(users),
        "item_embeddings": embeddings(items),
        "item_masks": masks(items),
    }
