"""Interactions for benchmarks, read from a file or random."""

import gzip
from pathlib import Path

import numpy as np

from llmdirect.common.csr import Csr


def read(path: Path) -> tuple[Csr, int, str]:
    """Read interactions: positives by user, number of items, description.

    The file (.gz) has a line a user: the user id, then item ids.
    """
    with gzip.open(path, "rt") as file:
        lines = [line.split()[1:] for line in file]
    item_idx = {item: index for index, item in enumerate(sorted({item for line in lines for item in line}))}
    users = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    positives = Csr.from_pairs(users, [item_idx[item] for line in lines for item in line], len(lines))
    return positives, len(item_idx), describe(path.name, positives, len(item_idx))


def random(num_users: int = 19_412, num_items: int = 11_924, mean: float = 8.6) -> tuple[Csr, int, str]:
    """Random interactions of the shape of Amazon Toys 2014, with a long tail of users and of items."""
    rng = np.random.default_rng(0)
    weight = 1 / np.arange(1, num_items + 1) ** 0.7
    counts = 5 + rng.geometric(1 / (mean - 4), num_users) - 1
    items = rng.choice(num_items, counts.sum(), p=weight / weight.sum())
    positives = Csr.from_pairs(np.repeat(np.arange(num_users), counts), items, num_users)
    return positives, num_items, describe("random", positives, num_items)


def describe(name: str, positives: Csr, num_items: int) -> str:
    """Name and size of a dataset."""
    return (
        f"{name}, {positives.num_rows:,} users, {num_items:,} items, {len(positives.indices):,} interactions"
    )
