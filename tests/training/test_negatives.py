"""Negative sampling: never a positive, every negative equally likely, the same on any number of threads."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmdirect.common.csr import Csr
from llmdirect.training.negatives import ItemWeights, sample_negatives


@given(
    st.integers(1, 20).flatmap(
        lambda num_items: st.tuples(
            st.just(num_items),
            st.lists(st.sets(st.integers(0, num_items - 1), max_size=num_items - 1), min_size=1, max_size=5),
        )
    ),
    st.integers(0, 3),
    st.data(),
)
def test_samples_only_negatives(
    case: tuple[int, list[set[int]]], num_negatives: int, data: st.DataObject
) -> None:
    num_items, rows = case
    positives = Csr.from_pairs(
        [row for row, items in enumerate(rows) for _ in items],
        [item for items in rows for item in items],
        len(rows),
    )
    users = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=50))
    drawn = sample_negatives(users, positives, num_items, num_negatives, seed=1)
    assert drawn.shape == (len(users), num_negatives)
    assert drawn.dtype == np.int32
    for user, negatives in zip(users, drawn.tolist(), strict=True):
        assert all(0 <= item < num_items and item not in rows[user] for item in negatives)


def test_negatives_are_uniform() -> None:
    positives = Csr.from_pairs([0] * 7, [0, 1, 5, 6, 7, 20, 29], 1)
    count = 200_000
    drawn = sample_negatives(np.zeros(count, np.int32), positives, 30, 1, seed=242)
    observed = np.bincount(drawn[:, 0], minlength=30)
    negatives = np.setdiff1d(np.arange(30), positives.row(0))
    assert observed[positives.row(0)].sum() == 0
    expected = count / len(negatives)
    chi_square = ((observed[negatives] - expected) ** 2 / expected).sum()
    assert chi_square < 48.3  # the 0.999 quantile for 22 degrees of freedom


def test_negatives_follow_their_weights() -> None:
    positives = Csr.from_pairs([0, 0, 0, 1], [0, 3, 4, 9], 2)
    weights = np.arange(10.0) ** 2
    users = np.repeat(np.array([0, 1], np.int32), 20_000)
    drawn = sample_negatives(users, positives, 10, 5, weights=ItemWeights(weights), seed=242)
    for user in (0, 1):
        left = weights.copy()
        left[positives.row(user)] = 0
        observed = np.bincount(drawn[users == user].ravel(), minlength=10)
        assert not observed[left == 0].any()
        expected = left[left > 0] / left.sum() * observed.sum()
        chi_square = ((observed[left > 0] - expected) ** 2 / expected).sum()
        assert chi_square < 26.1  # the 0.999 quantile for 8 degrees of freedom


def test_popularity_weights_are_power_of_counts() -> None:
    positives = Csr.from_pairs([0, 1, 2, 3, 4], [1, 1, 1, 1, 2], 6)
    weights = ItemWeights.popularity(positives, 4, 0.5)
    drawn = sample_negatives(np.full(30_000, 5), positives, 4, 1, weights=weights, seed=1)
    observed = np.bincount(drawn[:, 0], minlength=4)
    assert observed[0] == observed[3] == 0
    assert abs(observed[1] / observed.sum() - 2 / 3) < 0.02  # sqrt(4) against sqrt(1)


def test_invalid_weights() -> None:
    with pytest.raises(ValueError, match="the weight of item 1 is -2"):
        ItemWeights([1, -2])
    with pytest.raises(ValueError, match="no item has a weight above 0"):
        ItemWeights([0, 0])
    with pytest.raises(ValueError, match="alpha is -1"):
        ItemWeights.popularity(Csr.from_pairs([0], [0], 1), 1, -1)
    positives = Csr.from_pairs([0], [1], 1)
    with pytest.raises(ValueError, match="user 0 has all 2 items with a weight above 0"):
        sample_negatives([0], positives, 2, 1, weights=ItemWeights([0, 1]), seed=0)
    with pytest.raises(ValueError, match="weights has 3 entries, but there are 2 items"):
        sample_negatives([0], positives, 2, 1, weights=ItemWeights([1, 1, 1]), seed=0)


def test_adjacent_positions_and_draws_are_independent() -> None:
    nothing = Csr(np.zeros(2, np.int64), np.zeros(0, np.int32))
    count, sides = 100_000, 6
    users = np.zeros(count, np.int32)
    first = sample_negatives(users, nothing, sides, 2, seed=3)
    second = sample_negatives(users, nothing, sides, 2, seed=3, draw=1)
    other = sample_negatives(users, nothing, sides, 2, seed=4)
    pairs = ((first[:, 0], first[:, 1]), (first[:, 0], second[:, 0]), (first[:, 0], other[:, 0]))
    for left, right in pairs:
        observed = np.bincount(left * sides + right, minlength=sides**2)
        expected = count / sides**2
        assert ((observed - expected) ** 2 / expected).sum() < 66.7  # the 0.999 quantile for 35


def test_seed_and_draw_determine_result() -> None:
    nothing = Csr(np.zeros(2, np.int64), np.zeros(0, np.int32))
    users = torch.zeros(8, dtype=torch.int64)
    first = sample_negatives(users, nothing, 1000, 2, seed=3)
    np.testing.assert_array_equal(first, sample_negatives(users, nothing, 1000, 2, seed=3, draw=0))
    # Fixed values: changing them changes published results.
    assert sample_negatives([0], nothing, 1000, 4, seed=242).tolist() == [[11, 663, 644, 892]]


THREADS_PROGRAM = """
import hashlib, numpy as np
from llmdirect.common.csr import Csr
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank
from llmdirect.training.negatives import ItemWeights, sample_negatives
rng = np.random.default_rng(0)
pairs = np.unique(rng.integers(0, 50 * 200, 2000))
seen = Csr.from_pairs(pairs // 200, pairs % 200, 50)
drawn = sample_negatives(rng.integers(0, 50, 40_000), seen, 200, 3, seed=9)
query, item = rng.standard_normal((50, 9)), rng.standard_normal((200, 9))
relevant = seen.rows(range(49, -1, -1))
lists = rank(ScoreTables(query=query, item=item), np.arange(50), k=10, seen=seen, relevant=relevant)
state = hashlib.sha256()
for array in (drawn, lists.items, lists.scores, lists.auc):
    state.update(array.tobytes())
print(state.hexdigest())
"""


def test_threads_do_not_change_results() -> None:
    digests = set()
    for threads in ("1", "2", "8"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", THREADS_PROGRAM]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(digests.pop()) == len(hashlib.sha256().hexdigest())


def test_invalid_arguments() -> None:
    positives = Csr(np.array([0, 1, 4]), np.array([0, 0, 1, 2]))
    with pytest.raises(ValueError, match="user 1 has all 3 items"):
        sample_negatives([0, 1], positives, 3, 1, seed=0)
    with pytest.raises(ValueError, match=r"users\[0\] is 2, but positives has 2 rows"):
        sample_negatives([2], positives, 3, 1, seed=0)
    with pytest.raises(ValueError, match="positives holds index 2, but there are 2 items"):
        sample_negatives([0], positives, 2, 1, seed=0)
    nothing = Csr.from_pairs([], [], 1)
    with pytest.raises(ValueError, match="there are 0 items to draw from"):
        sample_negatives([0], nothing, 0, 1, seed=0)
    assert sample_negatives([0], nothing, 0, 0, seed=0).shape == (1, 0)
    with pytest.raises(ValueError, match="seed is -1"):
        sample_negatives([0], positives, 3, 1, seed=-1)
    with pytest.raises(ValueError, match="draw is 4294967296"):
        sample_negatives([0], positives, 3, 1, seed=0, draw=1 << 32)
    with pytest.raises(ValueError, match="num_negatives is -1"):
        sample_negatives([0], positives, 3, -1, seed=0)
    with pytest.raises(ValueError, match="users must hold integers"):
        sample_negatives([0.5], positives, 3, 1, seed=0)
