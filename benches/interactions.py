"""Interactions to measure on."""

import gzip
from pathlib import Path

import numpy as np

from llmdirect.common.csr import Csr


def read(path: Path) -> tuple[Csr, int, str]:
    """Positives by user, number of items and a description: a line a user, user id then item ids (.gz)."""
    with gzip.open(path, "rt") as file:
        lines = [line.split()[1:] for line in file]
    names = {name: index for index, name in enumerate(sorted({item for line in lines for item in line}))}
    users = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    positives = Csr.from_pairs(users, [names[item] for line in lines for item in line], len(lines))
    return positives, len(names), described(path.name, positives, len(names))


def drawn(num_users: int = 19_412, num_items: int = 11_924, mean: float = 8.6) -> tuple[Csr, int, str]:
    """Random interactions of the shape of Amazon Toys 2014, with a long tail of users and of items."""
    rng = np.random.default_rng(0)
    weight = 1 / np.arange(1, num_items + 1) ** 0.7
    counts = 5 + rng.geometric(1 / (mean - 4), num_users) - 1
    items = rng.choice(num_items, counts.sum(), p=weight / weight.sum())
    positives = Csr.from_pairs(np.repeat(np.arange(num_users), counts), items, num_users)
    return positives, num_items, described("random", positives, num_items)


def described(name: str, positives: Csr, num_items: int) -> str:
    """Name and size."""
    return (
        f"{name}, {positives.num_rows:,} users, {num_items:,} items, {len(positives.indices):,} interactions"
    )
