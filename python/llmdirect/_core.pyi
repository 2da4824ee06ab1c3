"""Types of the Rust extension. `stubtest` checks this file against the built module."""

import numpy as np
from numpy.typing import NDArray

__version__: str

def passage_keys(texts: list[str]) -> NDArray[np.uint8]: ...
def hash_strings(texts: list[str], seed: int = 0) -> NDArray[np.uint64]: ...
