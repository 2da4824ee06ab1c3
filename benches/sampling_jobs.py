"""Negative sampling: one and ten negatives a positive, users shuffled."""

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from harness import Job
from lenskit import _accel
from numpy.typing import NDArray

from llmdirect.common.csr import Csr
from llmdirect.training.negatives import ItemWeights, sample_negatives


def jobs(positives: Csr, num_items: int) -> Iterator[Job]:
    """Peers: rejection sampling in NumPy, and LensKit's sampler in Rust, which has one thread."""
    owner = np.repeat(np.arange(positives.num_rows), np.diff(positives.indptr))
    keys = owner * num_items + positives.indices
    users = np.random.default_rng(1).permutation(owner).astype(np.int32)
    columns = [pa.array(owner.astype(np.int32)), pa.array(np.asarray(positives.indices))]
    table = _accel.data.CoordinateTable(2)
    table.extend(pa.RecordBatch.from_arrays(columns, names=["user", "item"]))
    seeds = itertools.count()  # a repeated draw would train the branch predictor
    weights = ItemWeights.popularity(positives, num_items, 0.75)

    def are_negatives(drawn: NDArray[np.integer]) -> None:
        pairs = users.astype(np.int64)[:, None] * num_items + drawn.reshape(len(users), -1)
        assert not np.isin(pairs, keys).any()

    for count in (1, 10):

        def ours(count: int = count) -> NDArray[np.int32]:
            return sample_negatives(users, positives, num_items, count, seed=next(seeds))

        def weighted(count: int = count) -> NDArray[np.int32]:
            return sample_negatives(users, positives, num_items, count, weights=weights, seed=next(seeds))

        def rejection(count: int = count) -> NDArray[np.int64]:
            rng = np.random.default_rng(next(seeds))
            owners = np.repeat(users.astype(np.int64), count)
            drawn = rng.integers(0, num_items, len(owners))
            rejected = np.arange(len(owners))
            while len(rejected):
                pairs = owners[rejected] * num_items + drawn[rejected]
                position = np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)
                rejected = rejected[keys[position] == pairs]
                drawn[rejected] = rng.integers(0, num_items, len(rejected))
            return drawn

        def lenskit(count: int = count) -> NDArray[np.int32]:
            return _accel.data.sample_negatives(table, users, num_items, n=count, seed=next(seeds))

        def popular(count: int = count) -> NDArray[np.int32]:
            return _accel.data.sample_negatives(
                table, users, num_items, n=count, pop_weighted=True, seed=next(seeds)
            )

        def agree(ours=ours, theirs=rejection) -> None:
            are_negatives(ours())
            are_negatives(theirs())

        def ours_agree(ours=ours) -> None:
            are_negatives(ours())  # LensKit returns a positive after ten attempts

        def weighted_agree(weighted=weighted) -> None:
            are_negatives(weighted())

        name, total = f"negatives, {count} a positive", len(users) * count
        yield Job(name, "NumPy, rechecking rejects", ours, rejection, agree, total, "negatives", 2)
        for threads in (1, 2):
            yield Job(name, "LensKit (1 thread)", ours, lenskit, ours_agree, total, "negatives", threads, 25)
        name += ", popularity^.75"
        yield Job(
            name, "LensKit, popularity (1 thread)", weighted, popular, weighted_agree, total, "negatives", 2
        )
        yield Job(name, "ours, equally likely", weighted, ours, weighted_agree, total, "negatives", 2, 25)
