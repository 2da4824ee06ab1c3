"""Types of the Rust extension. `stubtest` checks this file against the built module."""

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def passage_keys(texts: list[str]) -> NDArray[np.uint8]: ...
def hash_strings(texts: list[str], seed: int = 0) -> NDArray[np.uint64]: ...
def write_store_file(folder: str | PathLike[str], stem: str, array: NDArray[Any]) -> dict[str, Any]: ...
def verify_store_file(folder: str | PathLike[str], entry: dict[str, Any]) -> None: ...
