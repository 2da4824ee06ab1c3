"""The embedding store against naive NumPy."""

import gc
import io
import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdirect import _core
from llmdirect.common.errors import DataError
from llmdirect.store import store as store_module
from llmdirect.store.store import EmbeddingStore
from llmdirect.store.write import write_store
from store_helpers import BITS, Content, assert_same, data_file, random_content, visible, write_content

DTYPES = ["float16", "bfloat16", "float32", "int8"]
COUNTS = [[], [0], [1], [0, 0, 0], [3, 0, 5, 1, 0]]


def open_random(folder: Path, counts: list[int], dtype: str, **options: bool) -> EmbeddingStore:
    write_content(folder, random_content(np.random.default_rng(3), counts, dtype=dtype), dtype)
    return EmbeddingStore.open(folder, **options)


def as_float32(store: EmbeddingStore) -> np.ndarray:
    scaled = (store.scales, store.channels) if store.dtype == "int8" else ()
    return Content(store.tokens_numpy, store.offsets, store.spans, store.keys, *scaled).float32()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("ram", [False, True])
def test_write_and_open_round_trip(tmp_path: Path, dtype: str, counts: list[int], ram: bool) -> None:
    content = random_content(np.random.default_rng(0), counts, dtype=dtype)
    write_content(tmp_path / "s", content, dtype)
    store = EmbeddingStore.open(tmp_path / "s", ram=ram, verify=True)
    assert_same(store, content)
    assert (store.dim, store.dtype, store.num_passages, store.num_rows) == (
        8,
        dtype,
        len(counts),
        sum(counts),
    )
    assert tuple(store.tokens.shape) == (sum(counts), 8)
    assert store.tokens.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(store.row_counts(np.arange(len(counts))), counts)


def test_written_files_match_numpy_bytes(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(3_000_000, dtype=np.float32).reshape(1000, 3000),
        "b": np.zeros((0, 16), np.uint8),
        "c": np.arange(5, dtype=np.int64),
        "d": np.ones((2, 3), np.float16),
        "e": np.ones((2, 3, 4), np.int8),
    }
    entries = _core.write_store_files(tmp_path, list(arrays.items()))
    assert entries == json.loads(json.dumps(entries))
    checksums = np.load(tmp_path / entries.pop("checksums")["name"])
    assert checksums[:, 0].tolist() == [4 << 20, 4 << 20, 12_000_000 - (8 << 20), 40, 12, 24]
    for name, array in arrays.items():
        expected = io.BytesIO()
        np.save(expected, array)
        entry = entries[name]
        assert (tmp_path / entry["name"]).read_bytes() == expected.getvalue()
        assert entry["bytes"] == array.nbytes
    assert len(visible(tmp_path)) == 6


def test_file_writer_invalid_arrays(tmp_path: Path) -> None:
    for array, message in [
        (np.ones((4, 4), np.float32).T, "tokens: array is not C-contiguous"),
        (np.ones((4, 4), np.complex64), "tokens: dtype <c8"),
        (np.ones((4, 0), np.float32), "tokens: shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            _core.write_store_files(tmp_path, [("tokens", array)])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        _core.write_store_files(tmp_path / "nowhere", [("tokens", np.ones(4, np.float32))])
    assert visible(tmp_path) == {}


@pytest.mark.parametrize("name", ["tokens", "offsets", "spans", "keys", "scales", "channels", "checksums"])
def test_verify_detects_damage(tmp_path: Path, name: str) -> None:
    open_random(tmp_path / "s", [400, 0, 300], "int8")
    path = data_file(tmp_path / "s", name)
    good = path.read_bytes()
    for at in (0, 30, 128, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(DataError, match=path.name):
            EmbeddingStore.open(tmp_path / "s", verify=True)
    path.write_bytes(good)
    EmbeddingStore.open(tmp_path / "s", verify=True)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_write_store_from_arrays(tmp_path: Path, dtype: str) -> None:
    tokens = torch.arange(20).reshape(5, 4).to(getattr(torch, dtype))
    arrays = tokens if dtype == "bfloat16" else tokens.numpy()
    spans = np.arange(10).reshape(5, 2)
    store = write_store(tmp_path / "a" / "b", arrays, [0, 2, 5], spans=spans, encoder={"id": "mine"})
    assert store.dtype == dtype
    assert torch.equal(store.tokens, tokens)
    assert (store.offsets.tolist(), store.spans.tolist()) == ([0, 2, 5], spans.tolist())
    assert store.lookup(_core.passage_keys(["1", "0"])).tolist() == [1, 0]
    assert store.encoder == {"id": "mine"}
    with pytest.raises(FileExistsError, match="a/b"):
        write_store(tmp_path / "a" / "b", arrays, [0, 2, 5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": np.zeros((5, 4))}, r"tokens are float64 \(5, 4\), expected \[rows, dim\] of bfloat16"),
        ({"tokens": np.zeros(5, np.float32)}, "tokens are float32"),
        ({"tokens": np.zeros((5, 0), np.float32)}, "tokens are float32"),
        ({"tokens": np.zeros((5, 4), np.uint16)}, "tokens are uint16"),
        ({"offsets": [0, 4]}, "offsets must rise from 0 to the 5 rows"),
        ({"offsets": [1, 5]}, "offsets must"),
        ({"offsets": []}, "offsets must"),
        ({"offsets": [0, 4, 2, 5]}, "offsets must"),
        ({"texts": ["a", "b"]}, "2 texts for 1 passages"),
        ({"offsets": [0, 2.5, 5]}, "offsets must hold integers, not float64"),
        ({"spans": np.zeros((4, 2), int)}, r"spans have the shape \(4, 2\), expected \(5, 2\)"),
        ({"spans": np.zeros((5, 2))}, "spans must hold integers"),
        ({"spans": np.full((5, 2), -1)}, "spans holds a number that does not fit into uint32"),
        ({"tokens": np.full((5, 4), np.nan, np.float32)}, "tokens hold NaN or an infinity in row 0"),
        ({"tokens": torch.eye(5, 4).log().bfloat16()}, "tokens hold NaN or an infinity in row 0"),
    ],
)
def test_write_store_invalid_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {"tokens": np.zeros((5, 4), np.float32), "offsets": [0, 5], **changes}
    with pytest.raises(ValueError, match=message):
        write_store(tmp_path / "s", **arrays)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ram", [False, True])
def test_views_share_memory(tmp_path: Path, dtype: str, ram: bool) -> None:
    store = open_random(tmp_path / "s", [3, 0, 2], dtype, ram=ram)
    address = store.tokens_numpy.__array_interface__["data"][0]
    assert store.tokens.data_ptr() == store.tokens.data_ptr() == address
    assert address % 64 == 0
    assert store.keys.__array_interface__["data"][0] == store._core.data("keys", False).ctypes.data


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_views_are_read_only_and_torch_does_not_write_file(tmp_path: Path, dtype: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = open_random(tmp_path / "s", [3, 2], dtype)
        before = visible(tmp_path)
        for view in (store.tokens_numpy, store.offsets, store.spans, store.keys):
            with pytest.raises(ValueError, match="read-only"):
                view[...] = 0
        store.tokens.fill_(7)
    assert torch.all(store.tokens == 7)
    assert visible(tmp_path) == before
    assert not torch.any(EmbeddingStore.open(tmp_path / "s", verify=True).tokens == 7)


@pytest.mark.parametrize("ram", [False, True])
def test_views_outlive_store(tmp_path: Path, ram: bool) -> None:
    content = random_content(np.random.default_rng(1), [2000] * 4, dim=64)
    write_content(tmp_path / "s", content)
    store = EmbeddingStore.open(tmp_path / "s", ram=ram)
    tokens, array, offsets = store.tokens, store.tokens_numpy[10:], store.offsets
    del store
    gc.collect()
    for path in (tmp_path / "s").iterdir():
        path.unlink()
    filler = [np.zeros(1 << 20) for _ in range(8)]  # would write to released memory
    np.testing.assert_array_equal(tokens.view(torch.uint16).numpy(), content.tokens)
    np.testing.assert_array_equal(array, content.tokens[10:])
    np.testing.assert_array_equal(offsets, content.offsets)
    del filler


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    dtype=st.sampled_from(DTYPES),
    in_float32=st.booleans(),
    in_torch=st.booleans(),
    data=st.data(),
)
def test_gather_matches_naive_loop(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    dtype: str,
    in_float32: bool,
    in_torch: bool,
    data: st.DataObject,
) -> None:
    store = open_random(tmp_path_factory.mktemp("gather") / "s", counts, dtype)
    passages = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=20))
    source = as_float32(store) if in_float32 else np.array(store.tokens_numpy)
    pieces = [source[store.offsets[p] : store.offsets[p + 1]] for p in passages]
    expected = np.concatenate([np.zeros((0, store.dim), source.dtype), *pieces])
    out = np.full((len(expected) + 2, store.dim), 3, np.float32 if in_float32 else BITS[dtype])
    target = torch.from_numpy(out) if in_torch else out
    if in_torch and not in_float32 and dtype == "bfloat16":
        target = torch.from_numpy(out).view(torch.bfloat16)
    offsets = store.gather(np.array(passages, np.int64), target)
    np.testing.assert_array_equal(out[: len(expected)], expected)
    assert np.all(out[len(expected) :] == 3)
    np.testing.assert_array_equal(offsets, np.cumsum([0, *(counts[p] for p in passages)]))


def test_all_half_floats_are_converted_exactly(tmp_path: Path) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 8)
    rng = np.random.default_rng(0)
    for dtype, exact in {
        "float16": bits.view(np.float16).astype(np.float32),
        "bfloat16": torch.from_numpy(bits.copy()).view(torch.bfloat16).float().numpy(),
    }.items():
        content = random_content(rng, [len(bits)], dtype=dtype)
        content.tokens = bits.view(BITS[dtype])
        write_content(tmp_path / dtype, content, dtype)
        out = np.empty(bits.shape, np.float32)
        EmbeddingStore.open(tmp_path / dtype).gather([0], out)
        np.testing.assert_array_equal(out, exact)  # NaN equals NaN here


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    dtype=st.sampled_from(DTYPES),
    in_float32=st.booleans(),
    room=st.integers(0, 3),
    data=st.data(),
)
def test_padded_gather_matches_naive_loop(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    dtype: str,
    in_float32: bool,
    room: int,
    data: st.DataObject,
) -> None:
    store = open_random(tmp_path_factory.mktemp("gather") / "s", counts, dtype)
    passages = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=12))
    source = as_float32(store) if in_float32 else np.array(store.tokens_numpy)
    lengths = [counts[p] for p in passages]
    out = np.full((len(passages), max(lengths, default=0) + room, store.dim), 3, source.dtype)
    offsets = store.gather(np.array(passages, np.int64), out)
    np.testing.assert_array_equal(offsets, np.cumsum([0, *lengths]))
    for row, (passage, length) in enumerate(zip(passages, lengths, strict=True)):
        np.testing.assert_array_equal(out[row, :length], source[store.offsets[passage] :][:length])
        assert not out[row, length:].any()


def test_gather_invalid_arguments(tmp_path: Path) -> None:
    store = open_random(tmp_path / "s", [3, 2], "bfloat16")
    out = np.zeros((5, 8), np.float32)
    for passages in ([2], [-1], [0, 9]):
        with pytest.raises(ValueError, match=f"passage {passages[-1]} is out of range"):
            store.gather(passages, out)
        with pytest.raises(ValueError, match=f"passage {passages[-1]} is out of range"):
            store.row_counts(passages)
    for bad in (out[:4], out[:, :7], out.T, np.zeros((5, 8)), np.zeros((5, 8), np.float16), out.reshape(-1)):
        with pytest.raises(ValueError, match="out "):
            store.gather([0, 1], bad)
    padded = np.zeros((2, 2, 8), np.float32)
    with pytest.raises(ValueError, match="passage 0 has 3 rows, but out has only 2 rows for each"):
        store.gather([1, 0], padded)
    with pytest.raises(ValueError, match="out has 2 places for 3 passages"):
        store.gather([1, 1, 1], padded)
    assert not padded.any()
    with pytest.raises(ValueError, match="view of the store itself"):
        store.gather([1], store.tokens)
    assert not out.any()


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_lookup_and_missing_key_error(tmp_path: Path, count: int) -> None:
    store = open_random(tmp_path / "s", [0] * count, "float16")
    order = np.random.default_rng(0).permutation(count)
    np.testing.assert_array_equal(store.lookup(store.keys[order]), order)
    absent = np.full((2, 16), 7, np.uint8)
    keys_to_find = np.concatenate([store.keys[order], absent])
    np.testing.assert_array_equal(store.contains(keys_to_find), np.arange(count + 2) < count)
    with pytest.raises(DataError, match=rf"2 of {count + 2} passages .* number {count} \(key 0707"):
        store.lookup(keys_to_find)
    assert store.lookup(absent[:0]).shape == (0,)


def test_hash_depends_on_content(tmp_path: Path) -> None:
    first = open_random(tmp_path / "a", [3, 2], "bfloat16")
    same = open_random(tmp_path / "b", [3, 2], "bfloat16")
    other = open_random(tmp_path / "c", [2, 3], "bfloat16")
    assert first.hash == same.hash != other.hash


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["tokens", "offsets", "spans", "keys"])
def test_missing_truncated_and_longer_files(tmp_path: Path, name: str) -> None:
    open_random(tmp_path / "s", [3, 2], "bfloat16")
    path = data_file(tmp_path / "s", name)
    good = path.read_bytes()
    for bad in (good[:-1], good[:100], b"", good + b"\0"):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=path.name):
            EmbeddingStore.open(tmp_path / "s")
    path.unlink()
    with pytest.raises(DataError, match=f"{path.name}: missing.*llmdirect precompute"):
        EmbeddingStore.open(tmp_path / "s")


@pytest.mark.parametrize("name", ["tokens", "spans", "keys"])
@pytest.mark.parametrize("ram", [False, True])
def test_verify_detects_flipped_byte(tmp_path: Path, name: str, ram: bool) -> None:
    open_random(tmp_path / "s", [3, 2], "bfloat16")
    path = data_file(tmp_path / "s", name)
    good = bytearray(path.read_bytes())
    good[-3] ^= 4
    path.write_bytes(good)
    EmbeddingStore.open(tmp_path / "s", ram=ram)
    with pytest.raises(DataError, match=rf"{path.name}: checksum .* precompute"):
        EmbeddingStore.open(tmp_path / "s", ram=ram, verify=True)


@pytest.mark.parametrize("offsets", [[1, 3, 5], [0, 4, 3, 5], [0, 3, 4], [0, -1, 5], [0, 6, 5], [0, 2]])
def test_invalid_offset_bounds(tmp_path: Path, offsets: list[int]) -> None:
    content = random_content(np.random.default_rng(0), [1] * (len(offsets) - 1))
    content.tokens, content.spans = np.zeros((5, 8), np.uint16), np.zeros((5, 2), np.uint32)
    content.offsets = np.array(offsets, np.int64)
    write_content(tmp_path / "s", content)
    name = data_file(tmp_path / "s", "offsets").name
    with pytest.raises(DataError, match=name):
        EmbeddingStore.open(tmp_path / "s", verify=True)
    if (offsets[0], offsets[-1]) != (0, 5):
        with pytest.raises(DataError, match=name):
            EmbeddingStore.open(tmp_path / "s")
        return
    # Opening checks the ends only; the remainder is checked on first use.
    out = np.zeros((5, 8), np.uint16)
    with pytest.raises(DataError, match=name):
        EmbeddingStore.open(tmp_path / "s").gather([0], out)
    with pytest.raises(DataError, match=name):
        EmbeddingStore.open(tmp_path / "s").row_counts([0])
    assert not out.any()


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 9},
        {"dim": 0},
        {"dim": -8},
        {"rows": 6},
        {"passages": 3},
        {"dtype": "float16"},
        {"dtype": "float64"},
        {"version": 1},
        {"version": 3},
        {"dtype": "int8"},
        {"format": "x"},
        {"files": {}},
    ],
)
def test_manifest_inconsistent_with_files(tmp_path: Path, change: dict[str, object]) -> None:
    open_random(tmp_path / "s", [3, 2], "bfloat16")
    edit_manifest(tmp_path / "s", **change)
    with pytest.raises(DataError, match="manifest"):
        EmbeddingStore.open(tmp_path / "s")


def test_manifest_paths_outside_store(tmp_path: Path) -> None:
    open_random(tmp_path / "s", [3, 2], "bfloat16")
    files = json.loads((tmp_path / "s" / "manifest.json").read_text())["files"]
    files["keys"]["name"] = "../s/" + files["keys"]["name"]
    edit_manifest(tmp_path / "s", files=files)
    with pytest.raises(
        DataError, match=r"`files.keys.name`: expected the plain name of a file in this folder"
    ):
        EmbeddingStore.open(tmp_path / "s")


def test_store_replaced_during_open_is_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_random(tmp_path / "s", [3, 2], "bfloat16")
    content = random_content(np.random.default_rng(4), [1, 7])
    write_content(tmp_path / "next", content)
    calls = []

    def replaced_in_between(folder: Path, ram: bool, verify: bool) -> _core.Store:
        calls.append(folder)
        if len(calls) == 1:
            shutil.rmtree(folder)
            (tmp_path / "next").rename(folder)
            raise DataError("a file that the old manifest names has gone")
        return _core.Store.open(folder, ram, verify)

    core = SimpleNamespace(Store=SimpleNamespace(open=replaced_in_between))
    monkeypatch.setattr(store_module, "_core", core)
    assert_same(EmbeddingStore.open(tmp_path / "s", verify=True), content)
    assert len(calls) == 2


def test_missing_store_error_names_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="llmdirect consolidate"):
        EmbeddingStore.open(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        EmbeddingStore.open(tmp_path)
