"""Stores and arguments made to read what is not there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdirect import _core
from llmdirect.common.errors import DataError
from llmdirect.store.store import EmbeddingStore
from llmdirect.store.write import write_store
from store_helpers import data_file, random_content, write_content

FILES = ("tokens", "offsets", "spans", "keys", "scales", "channels")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_content(
        tmp_path / "store", random_content(np.random.default_rng(0), [3, 0, 2], dtype="int8"), "int8"
    )
    return tmp_path / "store"


def edit(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize("ram", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_only_tokens_can_be_written_to(folder: Path, name: str, ram: bool) -> None:
    core = _core.Store.open(folder, ram, False)
    if name == "tokens":
        core.data(name, True)[:] = 1
    else:
        with pytest.raises(ValueError, match=f"`writable`: {name} are read-only"):
            core.data(name, True)
    view = core.data(name, False)
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        view.setflags(write=True)
    assert not isinstance(view.base, np.ndarray)
    store = EmbeddingStore.open(folder, ram=ram)
    array = getattr(store, "tokens_numpy" if name == "tokens" else name)
    while isinstance(array, np.ndarray):
        assert not array.flags.writeable
        array = array.base
    with pytest.raises(ValueError, match="out is a view of the store"):
        core.gather(np.array([0]), core.data("tokens", True), None)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_length_is_refused_when_opened(folder: Path, name: str) -> None:
    path = data_file(folder, name)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:70], b"", content + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=path.name):
            EmbeddingStore.open(folder)


def test_offsets_that_change_while_the_store_is_open(tmp_path: Path) -> None:
    """Checked at the first use; a file that is modified in place is noticed at the next, not followed."""
    write_content(tmp_path / "store", random_content(np.random.default_rng(0), [2] * 1000))
    path = data_file(tmp_path / "store", "offsets")
    store = EmbeddingStore.open(tmp_path / "store")
    out = np.empty((2, 8), np.float32)
    store.gather([3], out)
    for value in (-1, 1 << 62, 5):
        with path.open("r+b") as file:
            file.seek(-8 * (1001 - 7), os.SEEK_END)
            file.write(value.to_bytes(8, "little", signed=True))
        with pytest.raises((DataError, ValueError), match=r"changed while the store was open|out has 2 rows"):
            store.gather([7 if value == 5 else 6], out)
        store.gather([3], out)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_regular_file_is_refused(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    path = data_file(folder, name)
    path.unlink()
    make(path)
    with pytest.raises(DataError, match=rf"{path.name}: is a (named pipe|symbolic link|folder)"):
        EmbeddingStore.open(folder)
    with pytest.raises(DataError, match=rf"{path.name}: is a (named pipe|symbolic link|folder)"):
        _core.Store.open(folder, False, False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dim": 0}, "`dim`: expected `int` >= 1"),
        ({"dim": 10**9}, "`dim`: expected `int` <= 1048576"),
        ({"dim": 2.0}, "`dim`: expected `int`, got `float`"),
        ({"rows": -1}, "`rows`: expected `int` >= 0"),
        ({"rows": 10**30}, "`rows`: "),
        ({"passages": 2**32 - 1}, "`passages`: expected `int` <= 4294967294"),
        ({"dtype": "int4"}, "`dtype`: invalid enum value 'int4'"),
        ({"encoder": None}, "`encoder`: expected `object`, got `null`"),
        ({"files": []}, "`files`: expected `object`, got `array`"),
        ({"form": {"tokens": "some"}}, "`form.tokens`: invalid enum value 'some'"),
    ],
)
def test_manifests_out_of_bounds(folder: Path, changes: dict[str, Any], words: str) -> None:
    edit(folder, **changes)
    with pytest.raises(DataError, match=f"manifest.json: {words}.*run `llmdirect precompute`"):
        EmbeddingStore.open(folder)


@pytest.mark.parametrize("changes", [{"dim": 10**9}, {"passages": 2**32 - 1}, {"rows": -1}, {"dim": 2**63}])
def test_the_extension_checks_bounds_itself(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    with pytest.raises(DataError, match=r"manifest.json: .*run `llmdirect precompute`"):
        _core.Store.open(folder, False, False)


@pytest.mark.parametrize(
    "keys",
    [
        np.zeros((2, 15), np.uint8),
        np.zeros((2, 17), np.uint8),
        np.zeros((2, 16), np.int8),
        np.zeros((2, 2), np.uint64),
        np.zeros(32, np.uint8),
        np.zeros((2, 16), object),
        np.zeros((1, 2, 16), np.uint8),
        ["a key"],
    ],
    ids=lambda keys: f"{np.asarray(keys).dtype}-{np.asarray(keys).shape}",
)
def test_keys_of_another_width_or_type(folder: Path, keys: Any) -> None:
    store = EmbeddingStore.open(folder)
    for find in (store.lookup, store.contains):
        with pytest.raises(ValueError, match=r"keys are .*, expected uint8 \[n, 16\]"):
            find(keys)
    for find in (store._core.lookup, store._core.find):
        with pytest.raises((ValueError, TypeError), match="keys"):
            find(keys)
    assert store.contains(store.keys[::-1]).all()
    assert store.lookup(np.asfortranarray(store.keys)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("passage", [-1, 3, 10**12, -(10**12)])
def test_passages_out_of_range(folder: Path, passage: int) -> None:
    store = EmbeddingStore.open(folder)
    out = np.empty((9, 8), np.float32)
    for read in (
        store.read,
        store.spans_of,
        lambda p: store.row_counts([p]),
        lambda p: store.gather([p], out),
    ):
        with pytest.raises(ValueError, match=f"passage {passage} is out of range: .* holds 3"):
            read(passage)


@pytest.mark.parametrize("passages", [[0.7], ["0"], [[0]], [None], [True, 2.5]])
def test_passages_that_are_no_integers(folder: Path, passages: Any) -> None:
    store = EmbeddingStore.open(folder)
    for read in (store.row_counts, lambda p: store.gather(p, np.empty((9, 8), np.float32))):
        with pytest.raises(ValueError, match="passages must"):
            read(passages)


def test_buffers_that_would_overflow(folder: Path) -> None:
    core = _core.Store.open(folder, False, False)
    for padded_to in (2**61, 2**63, 2**64 - 1, 2**70, -1):
        with pytest.raises(ValueError, match=r"out has|`padded_to`"):
            core.gather(np.array([0, 2]), np.empty(64, np.float32), padded_to)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"tokens": np.ones((2, 3), object)}, "tokens are object"),
        ({"tokens": np.ones((2, 3))}, "tokens are float64"),
        ({"tokens": np.ones((2, 0), np.float32)}, r"tokens are float32 \(2, 0\)"),
        ({"tokens": np.full((2, 3), np.nan, np.float32)}, "NaN or an infinity in row 0"),
        ({"offsets": [0, 1.5, 2]}, "offsets must hold integers"),
        ({"offsets": [0, -1, 2]}, "offsets must rise from 0"),
        ({"offsets": []}, "offsets must rise from 0"),
        ({"spans": [[-1, 2], [0, 1]]}, "spans holds a number that does not fit"),
        ({"spans": [[0, 2**32], [0, 1]]}, "spans holds a number that does not fit"),
        ({"spans": [[0, 1]]}, "spans have the shape"),
    ],
)
def test_arrays_that_a_store_cannot_hold(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write_store(
            tmp_path / "mine", **{"tokens": np.ones((2, 3), np.float32), "offsets": [0, 1, 2], **arrays}
        )
    assert not (tmp_path / "mine").exists()


def test_arrays_of_any_layout(tmp_path: Path) -> None:
    tokens = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(6, 4))[::2]
    store = write_store(tmp_path / "mine", tokens, np.array([0, 9, 2, 9, 3])[::2])
    np.testing.assert_array_equal(store.tokens_numpy, tokens)
    empty = write_store(tmp_path / "empty", np.ones((0, 4), np.float32), [0])
    assert (empty.num_passages, empty.num_rows) == (0, 0)
    assert not empty.contains(np.zeros((2, 16), np.uint8)).any()
    assert len(empty.gather([], np.empty((0, 4), np.float32))) == 1
