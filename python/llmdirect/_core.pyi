"""Types of the Rust extension. `stubtest` checks this file against the built module."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AliasTable",
    "CheckedCsr",
    "Published",
    "Store",
    "__version__",
    "consolidate_shards",
    "hash_strings",
    "list_metric_names",
    "list_metrics",
    "num_threads",
    "passage_keys",
    "rank",
    "sample_negatives",
    "set_num_threads",
    "write_store_files",
]

__version__: str

def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def passage_keys(texts: list[str]) -> NDArray[np.uint8]: ...
def hash_strings(texts: list[str], seed: int = 0) -> NDArray[np.uint64]: ...

@final
class CheckedCsr:
    def __new__(cls, indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> CheckedCsr: ...
    @property
    def indptr(self) -> NDArray[np.int64]: ...
    @property
    def indices(self) -> NDArray[np.int32]: ...

@final
class AliasTable:
    def __new__(cls, weights: NDArray[np.float32]) -> AliasTable: ...

def sample_negatives(
    users: NDArray[np.int32],
    positives: CheckedCsr,
    num_items: int,
    num_negatives: int,
    *,
    weights: AliasTable | None = None,
    seed: int,
    draw: int,
) -> NDArray[np.int32]: ...
def rank(
    users: NDArray[np.int32],
    k: int,
    query: NDArray[np.float32],
    item: NDArray[np.float32],
    item_bias: NDArray[np.float32],
    *,
    item_mass: NDArray[np.float32] | None = None,
    eps: float = 0.0,
    user_bias: NDArray[np.float32] | None = None,
    history: CheckedCsr | None = None,
    item_item: CheckedCsr | None = None,
    item_item_values: NDArray[np.float32] | None = None,
    seen: CheckedCsr | None = None,
    relevant: CheckedCsr | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64] | None]: ...
def list_metrics(
    lists: NDArray[np.int32], relevant: CheckedCsr, names: list[tuple[str, int]]
) -> NDArray[np.float64]: ...
def list_metric_names() -> list[str]: ...
def write_store_files(
    folder: str | PathLike[str], arrays: Sequence[tuple[str, NDArray[Any]]]
) -> dict[str, dict[str, Any]]: ...
def consolidate_shards(
    shards: Sequence[PathLike[str]],
    out: str | PathLike[str],
    progress: Callable[[int], object],
    kept: Sequence[NDArray[np.bool_] | None] | None = None,
) -> dict[str, Any]: ...

@final
class Published:
    @staticmethod
    def open(folder: str | PathLike[str]) -> Published: ...
    @property
    def bytes(self) -> int: ...
    def documents(self, side: str) -> int: ...
    def write_padded(
        self, out: str | PathLike[str], progress: Callable[[int], object]
    ) -> list[tuple[str, list[int], str]]: ...
    def write_store(
        self, out: str | PathLike[str], dtype: str, progress: Callable[[int], object]
    ) -> dict[str, Any]: ...

@final
class Store:
    @staticmethod
    def open(path: str | PathLike[str], ram: bool, verify: bool) -> Store: ...
    @property
    def manifest(self) -> str: ...
    def data(self, name: str, writable: bool) -> NDArray[np.uint8]: ...
    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]: ...
    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]: ...
    def gather(
        self,
        passages: NDArray[np.int64],
        out: NDArray[np.uint8] | NDArray[np.float32],
        padded_to: int | None,
    ) -> NDArray[np.int64]: ...
