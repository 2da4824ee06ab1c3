"""Consolidation: results against naive NumPy, and errors."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdirect.common.errors import BusyError, DataError, LlmdirectError, MismatchError, MissingError
from llmdirect.common.locks import single_writer
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore
from store_helpers import (
    ENCODER,
    SOURCE,
    assert_same,
    data_file,
    joined,
    largest_file,
    published_arrays,
    random_content,
    visible,
    write_content,
    write_dataset,
    write_published,
)

DTYPES = ["float16", "bfloat16", "float32", "int8"]
COUNTS = st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=1, max_size=4)


@settings(max_examples=20, deadline=None)
@given(counts=COUNTS, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_joined_shards_match_naive(
    tmp_path_factory: pytest.TempPathFactory, counts: list[list[int]], dtype: str, seed: int
) -> None:
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(seed)
    shards = [random_content(rng, part, dtype=dtype) for part in counts]
    folder = write_dataset(root, shards, dtype)
    result = consolidate(root)
    store = EmbeddingStore.open(folder, verify=True)
    assert_same(store, joined(shards))
    assert (store.encoder, store.manifest["source"]) == (ENCODER, SOURCE)
    assert result.changed
    assert result.shards == len(shards)
    assert (result.rows, result.passages) == (store.num_rows, store.num_passages)
    assert not (folder / "shards").exists()


def test_checksum_chunks_are_copied(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shards = [random_content(rng, [900, 800], dim=2304), random_content(rng, [1]), random_content(rng, [1])]
    shards[1:] = [random_content(rng, [5], dim=2304), random_content(rng, [], dim=2304)]
    folder = write_dataset(tmp_path, shards)
    chunks = {name: [] for name in ("tokens", "spans", "keys")}
    for shard in sorted(folder.glob("shards/*")):
        left = np.load(data_file(shard, "checksums")).tolist()
        for name in ("tokens", "offsets", "spans", "keys"):  # file order
            taken = []
            while sum(size for size, _ in taken) < np.load(data_file(shard, name), mmap_mode="r").nbytes:
                taken.append(left.pop(0))
            chunks.get(name, []).extend(taken)
        assert not left
    consolidate(tmp_path)
    EmbeddingStore.open(folder, verify=True)
    checksums = np.load(data_file(folder, "checksums")).tolist()
    assert len(chunks["tokens"]) == 3
    assert checksums[:3] == chunks["tokens"]
    assert checksums[4:] == chunks["spans"] + chunks["keys"]  # a chunk of new offsets precedes them


def test_second_run_is_no_op(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = write_dataset(tmp_path, [random_content(rng, [3]), random_content(rng, [0, 2])])
    first = consolidate(tmp_path, keep_shards=True)
    before = visible(folder)
    again = consolidate(tmp_path, keep_shards=True)
    assert (first.changed, again.changed, again.shards) == (True, False, 0)
    assert visible(folder) == before
    consolidate(tmp_path)  # as after a kill between the commit and the removal of the shards
    assert not (folder / "shards").exists()
    assert not consolidate(tmp_path).changed


@pytest.mark.parametrize("keep", [False, True])
def test_new_shards_extend_existing_store(tmp_path: Path, keep: bool) -> None:
    rng = np.random.default_rng(0)
    old = [random_content(rng, [3]), random_content(rng, [0, 2])]
    new = [random_content(rng, [1, 0]), random_content(rng, [4])]
    folder = write_dataset(tmp_path, old)
    consolidate(tmp_path, keep_shards=keep)
    opened = EmbeddingStore.open(folder)
    for number, content in enumerate(new, start=2 * keep):
        write_content(folder / "shards" / f"{number:05d}", content, source={"dataset": "next"})
    (folder / "plan.json").write_text(json.dumps({"num_shards": 2 + 2 * keep}))
    result = consolidate(tmp_path, keep_shards=keep)
    assert result.shards == 2
    store = EmbeddingStore.open(folder, verify=True)
    assert_same(store, joined(old + new))
    assert store.manifest["source"] == {"dataset": "next"}
    assert len(list(folder.glob("*.npy"))) == 5
    assert_same(opened, joined(old))  # an open store outlives its replacement


def fails(root: Path, error: type[Exception], match: str, **options: Any) -> None:
    """Assert an error that names the path and leaves the folder unchanged."""
    before = visible(root)
    with pytest.raises(error, match=match):
        consolidate(root, **options)
    assert visible(root) == before


def three_shards(root: Path) -> Path:
    rng = np.random.default_rng(0)
    return write_dataset(root, [random_content(rng, counts) for counts in ([3], [0, 2], [4])])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_missing_shard(tmp_path: Path, number: int) -> None:
    folder = three_shards(tmp_path)
    (folder / "shards" / f"{number:05d}" / "manifest.json").unlink()  # still being written
    fails(tmp_path, DataError, rf"shards/{number:05d}: missing.*run precompute again")
    shutil.rmtree(folder / "shards" / f"{number:05d}")
    fails(tmp_path, DataError, rf"shards/{number:05d}: missing.*run precompute again")


def test_gap_without_a_plan_and_shard_beyond_it(tmp_path: Path) -> None:
    folder = three_shards(tmp_path)
    (folder / "plan.json").write_text('{"num_shards": 2}')
    fails(tmp_path, DataError, r"shards/00002: .*plan\.json has only 2")
    (folder / "plan.json").write_text("{}")
    fails(tmp_path, DataError, r"plan\.json: does not say num_shards")
    (folder / "plan.json").unlink()
    shutil.rmtree(folder / "shards" / "00001")
    fails(tmp_path, DataError, "shards/00001: missing")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"encoder": {"id": "other"}}, MismatchError),
        ({"source": {"dataset": "other"}}, MismatchError),
        ({"version": 3}, DataError),
        ({"rows": 5}, DataError),
    ],
)
def test_incompatible_shards(tmp_path: Path, changes: dict[str, Any], error: type[Exception]) -> None:
    folder = three_shards(tmp_path)
    shutil.rmtree(folder / "shards" / "00001")
    content = random_content(np.random.default_rng(1), [2])
    write_content(folder / "shards" / "00001", content, **changes)
    fails(tmp_path, error, r"shards/00001/manifest\.json")


@pytest.mark.parametrize(("dim", "dtype"), [(9, "bfloat16"), (8, "float16")])
def test_shards_of_another_dim_or_dtype(tmp_path: Path, dim: int, dtype: str) -> None:
    folder = three_shards(tmp_path)
    shutil.rmtree(folder / "shards" / "00002")
    write_content(
        folder / "shards" / "00002", random_content(np.random.default_rng(1), [2], dim, dtype), dtype
    )
    fails(tmp_path, DataError, rf"shards/00002/manifest\.json: {dtype} of dimension {dim}")


def test_int8_shards_with_different_channels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    contents = [random_content(rng, [2], dtype="int8") for _ in range(3)]
    contents[2].channels = contents[2].channels * 2
    write_dataset(tmp_path, contents, "int8")
    fails(tmp_path, DataError, r"shards/00002/manifest\.json: its per-channel scales differ from those of")


@pytest.mark.parametrize("name", ["tokens", "offsets", "spans", "keys", "scales", "checksums"])
def test_damaged_shard(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    folder = write_dataset(tmp_path, [random_content(rng, [2], dtype="int8") for _ in range(3)], "int8")
    path = data_file(folder / "shards" / "00001", name)
    good = path.read_bytes()
    for bad in (good[:-1], good[:-1] + bytes([good[-1] ^ 1]), good[:50]):
        path.write_bytes(bad)
        fails(tmp_path, DataError, path.name)
    path.unlink()
    fails(tmp_path, DataError, f"{path.name}: missing")


def test_failed_merge_keeps_old_store(tmp_path: Path) -> None:
    folder = three_shards(tmp_path)
    consolidate(tmp_path)
    content = random_content(np.random.default_rng(9), [2, 2])
    write_content(folder / "shards" / "00000", content)
    (folder / "plan.json").write_text('{"num_shards": 1}')
    path = data_file(folder / "shards" / "00000", "tokens")
    path.write_bytes(path.read_bytes()[:-1])
    fails(tmp_path, DataError, path.name)
    EmbeddingStore.open(folder, verify=True)


def test_duplicate_passage(tmp_path: Path) -> None:
    folder = three_shards(tmp_path)
    consolidate(tmp_path)
    content = random_content(np.random.default_rng(9), [2, 2])
    content.keys[1] = EmbeddingStore.open(folder).keys[1]
    write_content(folder / "shards" / "00000", content)
    (folder / "plan.json").write_text('{"num_shards": 1}')
    fails(tmp_path, DataError, "shards/00000: passage 1 .* already")


def test_store_selection(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="llmdirect precompute"):
        consolidate(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_dataset(tmp_path, [random_content(rng, [2])], name=name)
    fails(tmp_path, MissingError, "`store` one of a, b")
    fails(tmp_path, MissingError, "no store named 'c'; there is a, b", store="c")
    assert consolidate(tmp_path, store="b").path == tmp_path / "stores" / "b"
    assert not (tmp_path / "stores" / "a" / "manifest.json").exists()


def test_second_writer(tmp_path: Path) -> None:
    folder = three_shards(tmp_path)
    with single_writer(folder):
        fails(tmp_path, BusyError, re.escape(str(folder)))
    assert consolidate(tmp_path).changed


@pytest.mark.parametrize("size", [64, 20_000, 90_000])
def test_full_disk_keeps_shards_and_old_store(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    folder = write_dataset(tmp_path, [random_content(rng, [100, 400], dim=64) for _ in range(2)])
    for _ in range(2):
        with largest_file(size):
            fails(
                tmp_path,
                OSError,
                rf"File too large; make room and run again; nothing has changed: '{re.escape(str(folder))}/",
            )
        consolidate(tmp_path)
        EmbeddingStore.open(folder, verify=True)
        # Repeated with an existing store.
        write_content(folder / "shards" / "00000", random_content(rng, [700], dim=64))
        (folder / "plan.json").write_text('{"num_shards": 1}')


def test_insufficient_disk_space_fails_before_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_shards(tmp_path / "dataset")
    source = write_published(tmp_path / "in", published_arrays(np.random.default_rng(0)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    fails(
        tmp_path / "dataset", OSError, r"next to its shards, needs 0\.00 GB and .* 0\.00 GB free; make room"
    )
    with pytest.raises(OSError, match=r"the arrays need .* make room"):
        consolidate(source, out=tmp_path / "out", layout="padded")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", DTYPES)
def test_offsets_inconsistent_with_rows(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    contents = [random_content(rng, [3], dtype=dtype), random_content(rng, [2, 2], dtype=dtype)]
    contents[1].offsets[1] = 5
    folder = write_dataset(tmp_path, contents, dtype)
    fails(tmp_path, DataError, data_file(folder / "shards" / "00001", "offsets").name)


def test_store_of_another_model_is_kept(tmp_path: Path) -> None:
    folder = three_shards(tmp_path)
    consolidate(tmp_path)
    content = random_content(np.random.default_rng(9), [2, 2])
    write_content(folder / "shards" / "00000", content, encoder={**ENCODER, "id": "other"})
    (folder / "plan.json").write_text('{"num_shards": 1}')
    fails(tmp_path, MismatchError, r"shards/00000/manifest\.json: encoder is .*other.*tiny")
    source = write_published(tmp_path / "in", published_arrays(np.random.default_rng(0)))
    before = visible(folder)
    with pytest.raises(MismatchError, match=r"holds a store of encoder 'tiny', .* choose another `out`"):
        consolidate(source, out=folder)
    assert visible(folder) == before


def test_empty_store_folder(tmp_path: Path) -> None:
    (tmp_path / "stores" / "a" / "shards").mkdir(parents=True)
    fails(tmp_path, DataError, "no shards to join; run `llmdirect precompute`")


def test_incompatible_arguments(tmp_path: Path) -> None:
    source = write_published(tmp_path / "in", published_arrays(np.random.default_rng(0)))
    three_shards(tmp_path / "dataset")
    for folder, options in [
        (source, {}),
        (source, {"out": tmp_path / "out", "keep_shards": True}),
        (source, {"out": tmp_path / "out", "store": "a"}),
        (source, {"out": tmp_path / "out", "layout": "padded", "dtype": "float16"}),
        (source, {"out": tmp_path / "out", "dtype": "float64"}),
        (source, {"out": tmp_path / "out", "layout": "other"}),
        (tmp_path / "dataset", {"out": tmp_path / "out"}),
        (tmp_path / "dataset", {"layout": "padded"}),
    ]:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 messages differ
            consolidate(folder, **options)
        assert not isinstance(caught.value, LlmdirectError)
    assert not (tmp_path / "out").exists()


class Recorder:
    """Progress bar that counts calls."""

    def __init__(self) -> None:
        self.total, self.done = 0.0, 0.0

    def task(self, label: str, total: float | None, unit: str) -> "Recorder":
        self.total = total or 0.0
        return self

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self, amount: float = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        pass


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    three_shards(tmp_path / "dataset")
    source = write_published(tmp_path / "in", published_arrays(np.random.default_rng(0)))
    for folder, options in [
        (tmp_path / "dataset", {}),
        (source, {"out": tmp_path / "a"}),
        (source, {"out": tmp_path / "b", "layout": "padded"}),
    ]:
        recorder = Recorder()
        consolidate(folder, progress=recorder, **options)
        assert recorder.done == pytest.approx(recorder.total) != 0


def test_progress_bar_error_propagates(tmp_path: Path) -> None:
    three_shards(tmp_path)
    recorder = Recorder()
    recorder.advance = lambda amount=1: 1 / 0  # type: ignore[assignment]
    fails(tmp_path, ZeroDivisionError, "division", progress=recorder)
