"""The embedding store: joining, opening, verifying, gathering."""

import itertools
import mmap
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from harness import Job
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.consolidation import consolidate
from llmdirect.shards import write_shard
from llmdirect.store import EmbeddingStore

TOKENS, DIM, DOCUMENTS = 512, 2304, 60
"""A document of the published format: 4.7 MB."""
STEP = 4 << 20


def jobs(folder: Path) -> Iterator[Job]:
    """Kernel copies of the same bytes, the fastest reads of the same file, torch.index_select, memcpy."""
    yield from published(folder)
    yield from shards(folder)
    for dim, passages in ((384, 8000), (2304, 1500)):
        yield from opened(folder / f"opened-{dim}", dim, passages)


def kernel_copy(files: list[Path], target: Path) -> None:
    """All bytes of the files, one after the other, synced: the kernel moves them, nobody looks at them."""
    with target.open("wb") as out:
        for path in files:
            with path.open("rb") as file:
                left = path.stat().st_size
                while left:
                    left -= os.copy_file_range(file.fileno(), out.fileno(), left)
        os.fsync(out.fileno())


def published(folder: Path) -> Iterator[Job]:
    """Numbered .npy files of 4.7 MB, as the published scripts leave them."""
    source = folder / "published" / "item_embeddings"
    source.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(DOCUMENTS):
        np.save(source / f"{number}.npy", rng.standard_normal((TOKENS, DIM), np.float32))
    files = [source / f"{number}.npy" for number in range(DOCUMENTS)]
    size = DOCUMENTS * TOKENS * DIM * 4 / 1e9
    copied = folder / "copied"

    def ours() -> None:
        consolidate(source.parent, out=folder / "padded", layout="padded")

    def theirs() -> None:
        kernel_copy(files, copied)

    def agree() -> None:
        ours()
        found = np.load(folder / "padded" / "all_item_embeddings.npy", mmap_mode="r")
        assert all(np.array_equal(found[number], np.load(path)) for number, path in enumerate(files))

    name = f"consolidate {DOCUMENTS} numbered files of 4.7 MB, synced"
    yield Job(name, "copy_file_range and fsync, unchecked", ours, theirs, agree, size, "GB", rounds=5)

    def half() -> None:
        consolidate(source.parent, out=folder / "half", dtype="bfloat16")

    yield Job(f"{name}, to bfloat16", "the same", half, theirs, half, size, "GB", rounds=5)
    for path in ("published", "padded", "half"):
        shutil.rmtree(folder / path, ignore_errors=True)


def shards(folder: Path) -> Iterator[Job]:
    """Shards of precompute: checked against their checksums and joined."""
    rng = np.random.default_rng(1)
    dataset = folder / "dataset" / "stores" / "random"
    paths = [dataset / "shards" / f"{number:05d}" for number in range(4)]
    for path in paths:
        write_random(path, rng, DIM, 180)
    files = [file for path in paths for file in path.glob("*.npy")]
    size = sum(file.stat().st_size for file in files) / 1e9
    numbers = itertools.count()

    def ours() -> Path:
        out = folder / f"joined-{next(numbers)}"
        out.mkdir()
        _core.consolidate_shards(paths, out, lambda _: None)
        return out

    def discarded() -> None:
        shutil.rmtree(ours())

    def theirs() -> None:
        kernel_copy(files, folder / "copied")

    def agree() -> None:
        out = ours()
        tokens = [np.load(next(path.glob("tokens-*.npy"))) for path in paths]
        assert np.array_equal(np.load(next(out.glob("tokens-*.npy"))), np.concatenate(tokens))
        shutil.rmtree(out)

    peer = "copy_file_range and fsync, unchecked"
    yield Job("consolidate shards, synced", peer, discarded, theirs, agree, size, "GB", rounds=5)
    shutil.rmtree(dataset)


def opened(folder: Path, dim: int, passages: int) -> Iterator[Job]:
    """One store of half a gigabyte or less."""
    rng = np.random.default_rng(2)
    write_random(folder, rng, dim, passages)
    tokens_file = next(folder.glob("tokens-*.npy"))
    size = tokens_file.stat().st_size / 1e9
    rows_of = f"rows of {2 * dim:,} bytes"

    def map_ours() -> EmbeddingStore:
        return EmbeddingStore.open(folder)

    def map_numpy() -> NDArray[np.uint16]:
        return np.load(tokens_file, mmap_mode="r")

    def same() -> None:
        store = map_ours()
        assert np.array_equal(store.tokens_numpy, map_numpy())
        assert store.tokens.data_ptr() == store.tokens_numpy.ctypes.data

    name = f"open a store of {size:.1f} GB, mapped"
    yield Job(name, "np.load(mmap_mode)", map_ours, map_numpy, same, 1, "opens", 1, 51)

    def ram_ours() -> EmbeddingStore:
        return EmbeddingStore.open(folder, ram=True)

    def ram_raw() -> mmap.mmap:
        memory = mmap.mmap(-1, tokens_file.stat().st_size)
        memory.madvise(mmap.MADV_HUGEPAGE)
        view = memoryview(memory)
        with tokens_file.open("rb") as file, ThreadPoolExecutor(2) as pool:
            starts = range(0, len(view), STEP)
            list(pool.map(lambda at: os.preadv(file.fileno(), [view[at : at + STEP]], at), starts))
        return memory

    yield Job(
        f"open in RAM, {rows_of}", "parallel preadv into huge pages", ram_ours, ram_raw, same, size, "GB"
    )

    def verify() -> EmbeddingStore:
        return EmbeddingStore.open(folder, verify=True)

    buffer = bytearray(STEP)

    def read_once() -> None:
        with tokens_file.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    yield Job(
        f"verify every checksum, {rows_of}", "read() of the same file", verify, read_once, same, size, "GB", 1
    )

    store = EmbeddingStore.open(folder, ram=True)
    chosen = rng.permutation(passages)[: passages // 2]
    rows = np.concatenate([np.arange(store.offsets[p], store.offsets[p + 1]) for p in chosen])
    out, other = (torch.empty(len(rows), dim, dtype=torch.bfloat16) for _ in range(2))
    index, source = torch.from_numpy(rows), torch.zeros(len(rows), dim, dtype=torch.bfloat16)

    def gather() -> torch.Tensor:
        store.gather(chosen, out)
        return out

    def select() -> torch.Tensor:
        return torch.index_select(store.tokens, 0, index, out=other)

    def equal() -> None:
        assert torch.equal(gather(), select())

    gigabytes = out.nbytes / 1e9
    name = f"gather {gigabytes:.1f} GB of passages, {rows_of}"
    yield Job(name, "torch.index_select(out=)", gather, select, equal, gigabytes, "GB")
    yield Job(name, "memcpy (torch copy_)", gather, lambda: other.copy_(source), equal, gigabytes, "GB")


def write_random(folder: Path, rng: np.random.Generator, dim: int, passages: int) -> None:
    """A store or shard of random bfloat16 tokens, 60 a passage."""
    counts = rng.integers(20, 101, passages)
    rows = int(counts.sum())
    write_shard(
        folder,
        tokens=rng.integers(0, 1 << 14, (rows, dim), np.uint16),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        spans=rng.integers(0, 1000, (rows, 2), np.uint32),
        keys=rng.integers(0, 256, (passages, 16), np.uint8),
        dtype="bfloat16",
        encoder={"id": "random"},
        source={},
    )
