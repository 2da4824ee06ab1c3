"""Stores of the first version, as files: every later version must read them."""

from pathlib import Path

import numpy as np
import pytest

from llmdirect._core import passage_keys
from llmdirect.store import EmbeddingStore

GOLDEN = Path(__file__).parent / "golden"
TEXTS = ["one two three", "", "four five", "six seven eight nine"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ram", [False, True])
def test_a_store_of_the_first_version_is_read(dtype: str, ram: bool) -> None:
    store = EmbeddingStore.open(GOLDEN / f"store-{dtype}", ram=ram, verify=True)
    assert (store.dtype, store.dim, store.num_passages, store.num_rows) == (dtype, 4, 4, 9)
    expected = (np.arange(36, dtype=np.float32).reshape(9, 4) - 16) / 8  # exact in every type
    np.testing.assert_array_equal(store.tokens.float().numpy(), expected)
    assert store.offsets.tolist() == [0, 3, 3, 5, 9]
    assert store.spans.tolist() == [[at, at + 1] for at in range(9)]
    assert store.lookup(passage_keys(TEXTS[::-1])).tolist() == [3, 2, 1, 0]
    gathered = np.empty((6, 4), np.float32)
    assert store.gather([2, 3], gathered).tolist() == [0, 2, 6]
    np.testing.assert_array_equal(gathered, expected[3:])
