"""python benches/scale.py    Time and memory as sizes grow.

Every size doubles four times; time a unit should stay constant. Each line is measured in a process of its
own, for its peak memory.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

BASE = {"users": 4000, "items": 4000, "dims": 32, "tokens": 100_000, "documents": 16}
CLOTHING = {"users": 39_387, "items": 23_033, "dims": 64}


def main() -> None:
    """Measure and print a line a size."""
    print(f"{'what doubles':<12} {'size':>10} {'seconds':>9} {'a unit':>12} {'peak MB':>8}")
    jobs = {"tokens": "gather", "documents": "consolidate"}
    for name in BASE:
        for doubling in range(5):
            sizes = {**BASE, name: BASE[name] << doubling}
            seconds, peak, units = measure(sizes, jobs.get(name, "rank"))
            print(
                f"{name:<12} {sizes[name]:>10,} {seconds:>9.4f} {seconds / units * 1e9:>9.3f} ns {peak:>8.0f}"
            )
    seconds, peak, _ = measure({**BASE, **CLOTHING}, "rank")
    users = CLOTHING["users"]
    print(
        f"shape of Clothing, {CLOTHING}: {seconds:.2f} s, {users / seconds:,.0f} users/s, peak {peak:.0f} MB"
    )


def measure(sizes: dict[str, int], job: str) -> tuple[float, float, int]:
    """Seconds, MB above the process's start, and units (products of two numbers, or bytes)."""
    command = [sys.executable, __file__, job, json.dumps(sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak, units = json.loads(done.stdout)
    return seconds, peak, units


def rank_once(sizes: dict[str, int]) -> tuple[float, float, int]:
    """Rank the full catalogue for every user, top-20."""
    from llmdirect.ranking.scorer import ScoreTables
    from llmdirect.ranking.top_k import rank

    rng = np.random.default_rng(0)
    users, items, dims = sizes["users"], sizes["items"], sizes["dims"]
    query = rng.standard_normal((users, dims), np.float32)
    tables = ScoreTables(query=query, item=rng.standard_normal((items, dims), np.float32))
    chosen = np.arange(users, dtype=np.int32)
    rank(tables, chosen[:1000], k=20, seen=None)  # starts the threads
    before, started = peak_mb(), time.perf_counter()
    rank(tables, chosen, k=20, seen=None)
    return time.perf_counter() - started, peak_mb() - before, users * items * dims


def gather_once(sizes: dict[str, int]) -> tuple[float, float, int]:
    """Gather passages of 60 tokens in random order, from a mapped store to a warm buffer."""
    import store_jobs
    import torch

    from llmdirect.store.store import EmbeddingStore

    passages = sizes["tokens"] // 60
    with TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as folder:
        store_jobs.write_random(Path(folder) / "store", np.random.default_rng(0), 384, passages)
        store = EmbeddingStore.open(Path(folder) / "store")
        order = np.random.default_rng(1).permutation(passages)
        out = torch.empty(store.num_rows, 384, dtype=torch.bfloat16)
        store.gather(order, out)
        before, started = peak_mb(), time.perf_counter()
        store.gather(order, out)
        return time.perf_counter() - started, peak_mb() - before, out.nbytes


def consolidate_once(sizes: dict[str, int]) -> tuple[float, float, int]:
    """Consolidate documents of the published format, 4.7 MB each, to a store of bfloat16, synced."""
    from llmdirect.store.consolidation import consolidate

    rng = np.random.default_rng(0)
    with TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as folder:
        source = Path(folder) / "item_embeddings"
        source.mkdir()
        for number in range(sizes["documents"]):
            np.save(source / f"{number}.npy", rng.standard_normal((512, 2304), np.float32))
        os.sync()  # writing the inputs is not measured
        before, started = peak_mb(), time.perf_counter()
        consolidate(folder, out=Path(folder) / "out", dtype="bfloat16")
        return time.perf_counter() - started, peak_mb() - before, sizes["documents"] * 512 * 2304 * 4


def peak_mb() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        calls = {"rank": rank_once, "gather": gather_once, "consolidate": consolidate_once}
        print(json.dumps(calls[sys.argv[1]](json.loads(sys.argv[2]))))
