"""Speed of the core beside named peers: same data, same process, interleaved, medians; results are compared.

python benches/core.py [FILE]    FILE: one line a user, user id then item ids (.gz); default: random data.
"""

import gzip
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.csr import Csr
from llmdirect.ranking import Scorer, rank
from llmdirect.sampling import sample_negatives

ROUNDS = 7
DIM = 64
K = 20


def main() -> None:
    """Prints a line a job: ours, the peer's, the ratio."""
    positives, num_items = interactions(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"{positives.num_rows:,} users, {num_items:,} items, {len(positives.indices):,} interactions")
    print(f"{torch.get_num_threads()} threads, NumPy {np.__version__}, torch {torch.__version__}")
    negatives(positives, num_items)
    ranking(positives, num_items)


def interactions(path: Path | None) -> tuple[Csr, int]:
    """Positives by user, from the file or drawn with a long tail."""
    if path is None:
        rng = np.random.default_rng(0)
        num_users, num_items = 20_000, 12_000
        weight = 1 / np.arange(1, num_items + 1) ** 0.7
        items = rng.choice(num_items, (num_users, 9), p=weight / weight.sum())
        return Csr.from_pairs(np.repeat(np.arange(num_users), 9), items.ravel(), num_users), num_items
    with gzip.open(path, "rt") as file:
        lines = [line.split()[1:] for line in file]
    names = {name: index for index, name in enumerate(sorted({item for line in lines for item in line}))}
    users = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    return Csr.from_pairs(users, [names[item] for line in lines for item in line], len(lines)), len(names)


def negatives(positives: Csr, num_items: int) -> None:
    """One negative a positive, users shuffled, against NumPy that draws again what it must reject."""
    users = np.repeat(np.arange(positives.num_rows, dtype=np.int32), np.diff(positives.indptr))
    users = np.random.default_rng(1).permutation(users)
    owner = np.repeat(np.arange(positives.num_rows), np.diff(positives.indptr))
    keys = owner * num_items + positives.indices

    def peer() -> NDArray[np.int64]:
        rng = np.random.default_rng(2)
        drawn = rng.integers(0, num_items, len(users))
        wrong = np.arange(len(users))
        while len(wrong):
            wanted = users[wrong] * np.int64(num_items) + drawn[wrong]
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            wrong = wrong[keys[place] == wanted]
            drawn[wrong] = rng.integers(0, num_items, len(wrong))
        return drawn

    def ours() -> NDArray[np.int32]:
        return sample_negatives(users, positives, num_items, 1, seed=0)

    for drawn in (ours()[:, 0], peer()):
        assert not np.isin(users * np.int64(num_items) + drawn, keys).any()
    report("negatives, 1 a positive", "NumPy rejection", ours, peer, len(users), "samples")


def ranking(positives: Csr, num_items: int) -> None:
    """Masked top-20 of dot products, against torch: matmul, mask, topk in blocks of 1024 users."""
    rng = np.random.default_rng(3)
    query = rng.standard_normal((positives.num_rows, DIM)).astype(np.float32)
    item = rng.standard_normal((num_items, DIM)).astype(np.float32)
    scorer = Scorer(query=query, item=item)
    users = np.arange(positives.num_rows, dtype=np.int32)
    left, right = torch.from_numpy(query), torch.from_numpy(item).T.contiguous()
    borders, seen = torch.tensor(positives.indptr), torch.tensor(positives.indices).long()

    def peer() -> NDArray[np.int64]:
        lists = []
        for start in range(0, len(users), 1024):
            stop = min(start + 1024, len(users))
            scores = left[start:stop] @ right
            row = torch.repeat_interleave(torch.arange(stop - start), borders[start : stop + 1].diff())
            scores[row, seen[borders[start] : borders[stop]]] = -torch.inf
            lists.append(scores.topk(K, sorted=True).indices)
        return torch.cat(lists).numpy()

    def ours() -> NDArray[np.int32]:
        return rank(scorer, users, k=K, seen=positives).items

    agreement = float((ours() == peer()).mean())
    assert agreement > 0.9999, f"only {agreement:.4%} of the lists agree"
    report(f"masked top-{K}, {DIM} dims", "torch matmul + topk", ours, peer, len(users), "users")


def report(
    job: str, name: str, ours: Callable[[], object], peer: Callable[[], object], count: int, unit: str
) -> None:
    """Times both in turns and prints medians."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for function, seconds in zip((ours, peer), times, strict=True):
            started = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - started)
    mine, theirs = (count / statistics.median(seconds) for seconds in times)
    print(f"{job}: {mine:,.0f} {unit}/s; {name}: {theirs:,.0f} {unit}/s; ratio {mine / theirs:.2f}")


if __name__ == "__main__":
    main()
