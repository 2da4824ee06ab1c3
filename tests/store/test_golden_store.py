"""Golden stores of all format versions remain readable."""

from pathlib import Path

import numpy as np
import pytest

from llmdirect._core import passage_keys
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore
from repository import GOLDEN
from store_helpers import visible

TEXTS = ["one two three", "", "four five", "six seven eight nine"]
EXPECTED = (np.arange(36, dtype=np.float32).reshape(9, 4) - 16) / 8
"""Exact in every type, with the scales that the int8 store has."""
STORES = sorted(path.name.removeprefix("store-") for path in GOLDEN.glob("store-*"))


def test_golden_stores_exist() -> None:
    floats = ["bfloat16", "float16", "float32"]
    assert [*(f"1-{dtype}" for dtype in floats), *(f"2-{dtype}" for dtype in [*floats, "int8"])] == STORES


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("ram", [False, True])
def test_open_store_of_each_version(name: str, ram: bool) -> None:
    store = EmbeddingStore.open(GOLDEN / f"store-{name}", ram=ram, verify=True)
    dtype = name.split("-")[1]
    assert (store.dtype, store.dim, store.num_passages, store.num_rows) == (dtype, 4, 4, 9)
    assert store.offsets.tolist() == [0, 3, 3, 5, 9]
    assert store.spans.tolist() == [[at, at + 1] for at in range(9)]
    assert store.lookup(passage_keys(TEXTS[::-1])).tolist() == [3, 2, 1, 0]
    gathered = np.empty((9, 4), np.float32)
    assert store.gather([2, 0, 3, 1], gathered).tolist() == [0, 2, 5, 9, 9]
    np.testing.assert_array_equal(gathered, EXPECTED[[3, 4, 0, 1, 2, 5, 6, 7, 8]])


@pytest.mark.parametrize("name", [name for name in STORES if name.startswith("1-")])
def test_consolidate_shard_of_older_version(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "stores" / "golden"
    shard = folder / "shards" / "00000"
    shard.mkdir(parents=True)
    for file, content in visible(GOLDEN / f"store-{name}").items():
        (shard / file).write_bytes(content)
    consolidate(tmp_path)
    joined = EmbeddingStore.open(folder, verify=True)
    assert joined.manifest["version"] == 2
    gathered = np.empty((9, 4), np.float32)
    joined.gather(np.arange(4), gathered)
    np.testing.assert_array_equal(gathered, EXPECTED)
