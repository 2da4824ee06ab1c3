"""Consolidation of published folders: results against naive NumPy, and errors."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdirect import _core
from llmdirect.common.errors import DataError
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore
from store_helpers import (
    largest_file,
    published_arrays,
    visible,
    write_published,
)

SUBSETS = [
    ("user_embeddings", "user_masks", "item_embeddings", "item_masks"),
    ("user_embeddings", "user_masks"),
    ("item_embeddings", "item_masks"),
    ("user_embeddings",),
    ("user_embeddings", "item_embeddings", "item_masks"),
]


@pytest.mark.parametrize("names", [*SUBSETS, ("user_masks",)])
@pytest.mark.parametrize("mask", [np.bool_, np.int64, np.uint8, np.float32])
def test_padded_arrays_match_np_stack(tmp_path: Path, names: tuple[str, ...], mask: Any) -> None:
    arrays = published_arrays(np.random.default_rng(0), mask=mask)
    source = write_published(tmp_path / "in", {name: arrays[name] for name in names})
    result = consolidate(source, out=tmp_path / "out", layout="padded")
    assert set(result.files) == {f"all_{name}.npy" for name in names}
    assert set(visible(tmp_path / "out")) == set(result.files)
    for name in names:
        expected = np.stack(arrays[name])
        written = np.load(tmp_path / "out" / f"all_{name}.npy")
        np.testing.assert_array_equal(written, expected, strict=True)
        assert result.files[f"all_{name}.npy"] == {
            "shape": list(expected.shape),
            "dtype": expected.dtype.str,
        }


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    tensor = torch.from_numpy(values).to(getattr(torch, dtype))
    return tensor.view(torch.uint16).numpy() if dtype == "bfloat16" else tensor.numpy()


@settings(max_examples=20, deadline=None)
@given(
    names=st.sampled_from(SUBSETS),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    mask=st.sampled_from([np.bool_, np.int8, np.int64, np.float16, np.float32, np.float64]),
    tokens=st.integers(1, 7),
    dim=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_store_layout_matches_naive(
    tmp_path_factory: pytest.TempPathFactory,
    names: tuple[str, ...],
    dtype: str,
    mask: Any,
    tokens: int,
    dim: int,
    seed: int,
) -> None:
    root = tmp_path_factory.mktemp("published")
    arrays = published_arrays(np.random.default_rng(seed), tokens=tokens, dim=dim, mask=mask)
    write_published(root / "in", {name: arrays[name] for name in names})
    consolidate(root / "in", out=root / "out", dtype=None if dtype == "float32" else dtype)
    store = EmbeddingStore.open(root / "out", verify=True)
    passages, keys = [], []
    for side in ("user", "item"):
        for number, rows in enumerate(arrays[f"{side}_embeddings"]):
            if f"{side}_embeddings" in names:
                keep = arrays[f"{side}_masks"][number] != 0 if f"{side}_masks" in names else slice(None)
                passages.append(rows[keep])
                keys.append(f"{side}:{number}")
    np.testing.assert_array_equal(store.tokens_numpy, rounded(np.concatenate(passages), dtype), strict=True)
    np.testing.assert_array_equal(store.row_counts(np.arange(len(keys))), [len(p) for p in passages])
    np.testing.assert_array_equal(store.keys, _core.passage_keys(keys))
    assert not store.spans.any()
    assert store.dtype == dtype


def test_int8_matches_formula_within_half_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spread = np.array([1, 1, 40, 0.01, 1, 0, 3], np.float32)  # one large dimension, one of zeros only
    arrays = {
        "user_embeddings": list((rng.standard_normal((40, 6, 7)) * spread).astype(np.float32)),
        "user_masks": list(rng.random((40, 6)) < 0.7),
        "item_embeddings": list((rng.standard_normal((30, 5, 7)) * spread).astype(np.float32)),
    }
    arrays["user_embeddings"][3][:] = 0
    arrays["user_masks"][3][:] = True
    rows = np.concatenate(
        [a[m] for a, m in zip(arrays["user_embeddings"], arrays["user_masks"], strict=True)]
        + arrays["item_embeddings"]
    )
    source = write_published(tmp_path / "in", arrays)
    consolidate(source, out=tmp_path / "out", dtype="int8")
    store = EmbeddingStore.open(tmp_path / "out", verify=True)
    root_mean_square = np.sqrt((rows.astype(np.float64) ** 2).mean(0))
    least = np.sqrt((root_mean_square**2).mean()) / 1000
    np.testing.assert_allclose(store.channels, np.maximum(root_mean_square, least), rtol=0.1)

    scaled = rows / store.channels
    largest = np.abs(scaled).max(1)
    scales = (largest / np.float32(127)).astype(np.float16)
    assert (np.abs(store.scales.astype(np.float64) - scales) <= np.spacing(scales)).all()
    steps = store.scales[:, None].astype(np.float32)
    with np.errstate(invalid="ignore"):
        expected = np.where(steps > 0, np.rint(scaled / steps), 0)  # np.rint: ties to even
    np.testing.assert_array_equal(store.tokens_numpy, expected.astype(np.int8))
    assert store.tokens_numpy.min() >= -127

    back = np.empty(rows.shape, np.float32)
    store.gather(np.arange(store.num_passages), back)
    assert (np.abs(back - rows) <= 0.5001 * steps * store.channels).all()
    again = tmp_path / "again"
    consolidate(source, out=again, dtype="int8")
    assert visible(again) == visible(tmp_path / "out")


def test_token_exceeding_int8_range(tmp_path: Path) -> None:
    arrays = [np.ones((200, 3), np.float32) for _ in range(300)]
    arrays[2][151, 1] = 1e38  # a document outside the sample
    source = write_published(tmp_path / "in", {"user_embeddings": arrays})
    with pytest.raises(DataError, match=r"2\.npy: token 151 has a magnitude out of .* int8; choose"):
        consolidate(source, out=tmp_path / "out", dtype="int8")
    assert visible(tmp_path / "out") == {}


def test_rounding_to_nearest_even_and_overflow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 40_000, dtype=np.uint64).astype(np.uint32)
    bits[:20_000] &= 0xFFFF8000  # many ties
    values = bits.view(np.float32)
    for dtype, limit in {"float16": 65519.0, "bfloat16": 3e38}.items():
        good = values[np.abs(np.nan_to_num(values, nan=np.inf)) < limit]
        array = np.ascontiguousarray(good[: len(good) // 8 * 8]).reshape(-1, 8)
        source = write_published(tmp_path / dtype, {"user_embeddings": [array]})
        consolidate(source, out=tmp_path / "out", dtype=dtype)
        np.testing.assert_array_equal(
            EmbeddingStore.open(tmp_path / "out").tokens_numpy, rounded(array, dtype)
        )
    for dtype, value in {"float16": 65520.0, "bfloat16": 3.3961776e38}.items():
        source = write_published(
            tmp_path / f"over-{dtype}", {"user_embeddings": [np.full((2, 3), value, "<f4")]}
        )
        with pytest.raises(DataError, match=r"0\.npy: .* at token 0, dimension 0: too large"):
            consolidate(source, out=tmp_path / "over", dtype=dtype)
        assert visible(tmp_path / "over") == {}


def spoil(root: Path, how: str) -> str:
    """Damage a published folder; returns the file named by the error."""
    embedding, mask = root / "user_embeddings" / "1.npy", root / "user_masks" / "1.npy"
    array = np.load(embedding)
    if how == "gap":
        embedding.unlink()
    elif how == "shape":
        np.save(embedding, array[:-1])
    elif how == "dim":
        np.save(embedding, array[:, :-1])
    elif how == "axes":
        np.save(embedding, array[None])
    elif how == "dtype":
        np.save(embedding, array.astype(np.float64))
    elif how == "big-endian":
        np.save(embedding, array.astype(">f4"))
    elif how == "fortran":
        np.save(embedding, np.asfortranarray(array))
    elif how == "truncated":
        embedding.write_bytes(embedding.read_bytes()[:-1])
    elif how == "longer":
        embedding.write_bytes(embedding.read_bytes() + b"\0")
    elif how == "header":
        embedding.write_bytes(embedding.read_bytes()[:20])
    elif how == "not npy":
        embedding.write_bytes(b"hello")
    elif how in ("nan", "inf"):
        array[3, 2] = float(how)
        np.save(embedding, array)
        return "user_embeddings/1.npy: (NaN|inf) at token 3, dimension 2: not finite"
    elif how == "mask gap":
        mask.unlink()
        return "user_masks/1.npy"
    elif how == "mask missing":
        (root / "user_masks" / "2.npy").unlink()
        return "user_masks/2.npy"
    elif how == "mask shape":
        np.save(mask, np.ones(5, np.bool_))
        return "user_masks/1.npy"
    elif how == "masks of other length":
        for number in range(3):
            np.save(root / "user_masks" / f"{number}.npy", np.ones(5, np.bool_))
        return "user_masks/0.npy: mask of 5 tokens, but the embeddings have 6"
    elif how == "mask nan":
        for number in range(3):
            np.save(root / "user_masks" / f"{number}.npy", np.array([1, 0, 1, np.nan, 1, 1], np.float32))
        return "user_masks/0.npy: NaN at token 3"
    elif how == "extra":
        np.save(root / "user_embeddings" / "01.npy", array)
        return "user_embeddings/01.npy"
    elif how == "empty":
        shutil.rmtree(root / "item_masks")
        (root / "item_masks").mkdir()
        return "item_masks"
    return "user_embeddings/1.npy"


SPOILT = [
    *("gap", "shape", "dim", "axes", "dtype", "big-endian", "fortran", "truncated", "longer", "header"),
    *("not npy", "nan", "inf", "mask gap", "mask missing", "mask shape", "masks of other length"),
    *("mask nan", "extra", "empty"),
]


@pytest.mark.parametrize("layout", ["store", "padded"])
@pytest.mark.parametrize("how", SPOILT)
def test_damaged_published_folder_writes_nothing(tmp_path: Path, how: str, layout: Any) -> None:
    source = write_published(tmp_path / "in", published_arrays(np.random.default_rng(0)))
    path = spoil(source, how)
    with pytest.raises(DataError, match=path):
        consolidate(source, out=tmp_path / "out", layout=layout)
    assert visible(tmp_path / "out") == {}


def test_store_layout_requires_equal_dims(tmp_path: Path) -> None:
    arrays = published_arrays(np.random.default_rng(0))
    masks = write_published(tmp_path / "masks", {"item_masks": arrays["item_masks"]})
    with pytest.raises(DataError, match=r"item_masks/0\.npy: a mask without item_embeddings"):
        consolidate(masks, out=tmp_path / "out")
    arrays["item_embeddings"] = [np.ones((6, 4), np.float32)] * 2
    source = write_published(tmp_path / "in", arrays)
    with pytest.raises(DataError, match=r"item_embeddings/0\.npy: dimension 4, but .* have 5"):
        consolidate(source, out=tmp_path / "out")
    assert visible(tmp_path / "out") == {}


def test_published_store_is_replaced_atomically(tmp_path: Path) -> None:
    for seed in range(2):
        source = write_published(tmp_path / f"in{seed}", published_arrays(np.random.default_rng(seed)))
        consolidate(source, out=tmp_path / "out")
        assert len(visible(tmp_path / "out")) == 6
    before = visible(tmp_path / "out")
    spoil(source, "nan")
    with pytest.raises(DataError, match="not finite"):
        consolidate(source, out=tmp_path / "out")
    assert visible(tmp_path / "out") == before


@pytest.mark.parametrize("layout", ["store", "padded"])
@pytest.mark.parametrize("size", [64, 3000])
def test_full_disk_during_published_merge(tmp_path: Path, layout: Any, size: int) -> None:
    arrays = published_arrays(np.random.default_rng(0), users=9, tokens=20, dim=12)
    source = write_published(tmp_path / "in", arrays)
    with largest_file(size), pytest.raises(OSError, match="File too large; make room and run again"):
        consolidate(source, out=tmp_path / "out", layout=layout)
    assert not (tmp_path / "out").exists()
    consolidate(source, out=tmp_path / "out", layout=layout)
    before = visible(tmp_path / "out")
    with largest_file(size), pytest.raises(OSError, match="File too large; make room and run again"):
        consolidate(source, out=tmp_path / "out", layout=layout)
    assert visible(tmp_path / "out") == before


MEMORY_PROGRAM = """
import resource, sys
from llmdirect.store.consolidation import consolidate
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source, out = sys.argv[1:]
before = peak()
consolidate(source, out=out + "/padded", layout="padded")
for dtype in ("float32", "int8"):
    consolidate(source, out=out + "/" + dtype, dtype=dtype)
print((peak() - before) // 1024)
"""


def test_memory_independent_of_num_documents(tmp_path: Path) -> None:
    series = tmp_path / "in" / "item_embeddings"
    series.mkdir(parents=True)
    for number in range(40):  # 190 MB of holes
        np.lib.format.open_memmap(series / f"{number}.npy", "w+", np.float32, (512, 2304))
    command = [sys.executable, "-c", MEMORY_PROGRAM, tmp_path / "in", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 48
