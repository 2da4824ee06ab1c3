"""Embedding store: consolidating, opening, verifying, gathering."""

import ctypes
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
from llmdirect.common.files import write_manifest
from llmdirect.store.consolidation import consolidate
from llmdirect.store.shards import STORE_FORMAT, STORE_VERSION, write_shard
from llmdirect.store.store import EmbeddingStore

TOKENS, DIM, DOCUMENTS = 512, 2304, 60
"""Size of a document of the published format (4.7 MB), and number of documents."""
STEP = 4 << 20
LIBC = ctypes.CDLL("libc.so.6")
LIBC.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


PEER = "copy_file_range and fsync, unchecked"


def jobs(folder: Path) -> Iterator[Job]:
    """Peers: copies by the kernel, the fastest reads of the same file, torch.index_select, memcpy."""
    yield from published(folder)
    yield from shards(folder)
    for dim, passages in ((384, 8000), (2304, 1500)):
        yield from opened(folder / f"opened-{dim}", dim, passages)
    yield large(folder / "large")


def kernel_copy(files: list[Path], target: Path, write_back: bool = False) -> None:
    """Concatenate the files with copy_file_range and fsync, without reading them in user space.

    write_back: start writing each file to the disk while the next one is copied.
    """
    with target.open("wb") as out:
        for path in files:
            with path.open("rb") as file:
                start, left = out.tell(), path.stat().st_size
                while left:
                    left -= os.copy_file_range(file.fileno(), out.fileno(), left)
            if write_back:
                LIBC.sync_file_range(out.fileno(), start, os.lseek(out.fileno(), 0, os.SEEK_CUR) - start, 2)
        os.fsync(out.fileno())


def published(folder: Path) -> Iterator[Job]:
    """Consolidate numbered .npy files of 4.7 MB, as the published scripts write them."""
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
        tokens = np.load(folder / "padded" / "all_item_embeddings.npy", mmap_mode="r")
        assert all(np.array_equal(tokens[number], np.load(path)) for number, path in enumerate(files))

    name = f"consolidate {DOCUMENTS} numbered files of 4.7 MB, synced"
    yield Job(name, PEER, ours, theirs, agree, size, "GB", rounds=5)

    def early() -> None:
        kernel_copy(files, copied, write_back=True)

    yield Job(name, f"{PEER}, written back early", ours, early, agree, size, "GB", rounds=5)

    for dtype in ("bfloat16", "int8"):

        def rounded(dtype: str = dtype) -> None:
            consolidate(source.parent, out=folder / dtype, dtype=dtype)

        def rounding_agrees(dtype: str = dtype) -> None:
            rounded(dtype)
            store = EmbeddingStore.open(folder / dtype)
            tokens, step = np.empty((1, TOKENS, DIM), np.float32), 2.0**-8
            store.gather([DOCUMENTS - 1], tokens)
            exact = np.load(files[-1])
            if dtype == "int8":
                step = 0.5001 * store.scales[-TOKENS:, None].astype(np.float32) * store.channels
            else:
                step *= np.abs(exact)
            assert (np.abs(tokens[0] - exact) <= step).all()

        yield Job(f"{name}, to {dtype}", PEER, rounded, theirs, rounding_agrees, size, "GB", rounds=5)
    for path in ("published", "padded", "bfloat16", "int8"):
        shutil.rmtree(folder / path, ignore_errors=True)


def shards(folder: Path) -> Iterator[Job]:
    """Consolidate shards of precompute, with their checksums checked."""
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

    yield Job("consolidate shards, synced", PEER, discarded, theirs, agree, size, "GB", rounds=5)

    def early() -> None:
        kernel_copy(files, folder / "copied", write_back=True)

    name = f"{PEER}, written back early"
    yield Job("consolidate shards, synced", name, discarded, early, agree, size, "GB", rounds=5)
    shutil.rmtree(dataset)


def opened(folder: Path, dim: int, passages: int) -> Iterator[Job]:
    """Open, verify and gather from a store of half a gigabyte or less."""
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
    yield Job(name, "np.load(mmap_mode), of tokens alone", map_ours, map_numpy, same, 1, "opens", 1, 51)

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

    yield from gathering(EmbeddingStore.open(folder, ram=True), rng.permutation(passages)[: passages // 2])


def gathering(store: EmbeddingStore, chosen: NDArray[np.int64]) -> Iterator[Job]:
    """Gather some passages of a store, one after the other or padded."""
    dim, rows_of = store.dim, f"rows of {2 * store.dim:,} bytes"
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

    widest = int(store.row_counts(chosen).max())
    padded, padded_other = (torch.zeros(len(chosen), widest, dim, dtype=torch.bfloat16) for _ in range(2))
    occupied = torch.from_numpy(np.arange(widest) < store.row_counts(chosen)[:, None])

    def gather_padded() -> torch.Tensor:
        store.gather(chosen, padded)
        return padded

    def select_padded() -> torch.Tensor:
        # The buffer is zero behind every passage already: the peer need not write there.
        padded_other[occupied] = torch.index_select(store.tokens, 0, index, out=other)
        return padded_other

    def equal_padded() -> None:
        assert torch.equal(gather_padded(), select_padded())

    gigabytes = out.nbytes / 1e9
    name = f"gather {gigabytes:.1f} GB of passages, {rows_of}"
    yield Job(name, "torch.index_select(out=)", gather, select, equal, gigabytes, "GB")
    yield Job(name, "memcpy (torch copy_)", gather, lambda: other.copy_(source), equal, gigabytes, "GB")
    peer = "torch.index_select(out=), boolean mask"
    yield Job(f"{name}, padded", peer, gather_padded, select_padded, equal_padded, gigabytes, "GB")


def large(folder: Path) -> Job:
    """Open a store of the size of Amazon Clothing; its files are sparse, as opening does not read them."""
    folder.mkdir()
    rows, passages = 30_000_000, 500_000
    shapes = {
        "tokens": ("<u2", (rows, DIM)),
        "offsets": ("<i8", (passages + 1,)),
        "spans": ("<u4", (rows, 2)),
        "keys": ("|u1", (passages, 16)),
        "checksums": ("<u8", (rows * DIM * 2 // STEP, 2)),
    }
    files = {}
    for stem, (dtype, shape) in shapes.items():
        array = np.lib.format.open_memmap(folder / f"{stem}-0.npy", "w+", dtype, shape)
        files[stem] = {"name": f"{stem}-0.npy", "bytes": array.nbytes}
        if stem == "offsets":
            array[-1] = rows
        del array
    counts = {"dtype": "bfloat16", "dim": DIM, "rows": rows, "passages": passages, "files": files}
    write_manifest(
        folder, {"format": STORE_FORMAT, "version": STORE_VERSION, "encoder": {}, "source": {}, **counts}
    )

    def ours() -> EmbeddingStore:
        return EmbeddingStore.open(folder)

    def theirs() -> NDArray[np.uint16]:
        return np.load(folder / "tokens-0.npy", mmap_mode="r")

    def agree() -> None:
        assert ours().tokens.shape == theirs().shape == (rows, DIM)

    name = f"open a store of {files['tokens']['bytes'] / 1e9:.0f} GB, mapped"
    return Job(name, "np.load(mmap_mode), of tokens alone", ours, theirs, agree, 1, "opens", 1, 51)


def write_random(folder: Path, rng: np.random.Generator, dim: int, passages: int) -> None:
    """Write a store or shard of random bfloat16 tokens, 60 a passage."""
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
