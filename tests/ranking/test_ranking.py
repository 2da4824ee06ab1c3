"""Full ranking against a sort of all scores in NumPy."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.csr import Csr
from llmdirect.ranking.metrics import evaluate, mean_metrics, metrics
from llmdirect.ranking.ranked_lists import write_ranked_lists
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import RankedLists, rank


def random_table(rng: np.random.Generator, num_rows: int, num_cols: int, density: float) -> Csr:
    rows, cols = np.nonzero(rng.random((num_rows, num_cols)) < density)
    return Csr.from_pairs(rows, cols, num_rows)


def random_scorer(
    rng: np.random.Generator, num_users: int, num_items: int, dim: int, form: Any, history: bool = True
) -> ScoreTables:
    """Small integers, so that float32 is exact but for the division, and ties are common."""

    def numbers(*shape: int) -> NDArray[np.float32]:
        return rng.integers(0, 4, shape).astype(np.float32)

    item_item = random_table(rng, num_items, num_items, 0.2)
    return ScoreTables(
        kernel=form,
        query=numbers(num_users, dim),
        item=numbers(num_items, dim) - 2,
        item_mentions=numbers(num_items, dim) if form == "ratio" else None,
        eps=0.5,
        item_bias=numbers(num_items),
        user_bias=numbers(num_users) if rng.random() < 0.5 else None,
        history=random_table(rng, num_users, num_items, 0.1) if history else None,
        item_item=(item_item.indptr, item_item.indices, numbers(len(item_item.indices))) if history else None,
    )


def dense(table: Csr, num_cols: int, values: Any = 1.0) -> NDArray[np.float32]:
    matrix = np.zeros((table.num_rows, num_cols), np.float32)
    matrix[np.repeat(np.arange(table.num_rows), np.diff(table.indptr)), table.indices] = values
    return matrix


def naive_scores(tables: ScoreTables) -> NDArray[np.float32]:
    scores = tables.query @ tables.item.T
    if tables.kernel == "ratio":
        scores = scores / (tables.query @ tables.item_mentions.T + np.float32(tables.eps))
    user_bias = np.zeros(tables.num_users, np.float32) if tables.user_bias is None else tables.user_bias
    if tables.history is not None and tables.item_item is not None:
        indptr, indices, values = tables.item_item
        history = dense(tables.history, tables.num_items)
        scores = scores + history @ dense(Csr(indptr, indices), tables.num_items, values)
    scores = scores + (user_bias[:, None] + tables.item_bias)
    return np.asarray(scores, dtype=np.float32)


def naive_auc(scores: NDArray[np.float32], relevant: set[int], candidates: list[int]) -> float:
    positives = [scores[item] for item in candidates if item in relevant]
    negatives = [scores[item] for item in candidates if item not in relevant]
    won = [float(p > n) + 0.5 * float(p == n) for p in positives for n in negatives]
    return float(np.mean(won)) if won else float("nan")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_users=st.integers(1, 9),
    num_items=st.integers(0, 40) | st.integers(250, 300),
    dim=st.integers(0, 6),
    k=st.integers(0, 12) | st.just(400),
    form=st.sampled_from(["dot", "ratio"]),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    history=st.booleans(),
)
def test_matches_full_sort(
    seed: int, num_users: int, num_items: int, dim: int, k: int, form: str, density: float, history: bool
) -> None:
    rng = np.random.default_rng(seed)
    tables = random_scorer(rng, num_users, num_items, dim, form, history)
    seen = random_table(rng, num_users, num_items, density)
    relevant = random_table(rng, num_users, num_items, 0.1)
    users = rng.permutation(num_users)[: 1 + num_users // 2]
    lists = rank(tables, users, k=k, seen=seen, relevant=relevant)
    assert lists.items.shape == lists.scores.shape == (len(users), k)
    assert lists.auc is not None
    alone = rank(tables, users, k=k, seen=seen)  # without AUC the ratio form need not score all items
    np.testing.assert_array_equal(alone.items, lists.items)
    np.testing.assert_array_equal(alone.scores, lists.scores)
    scores = naive_scores(tables)
    for row, user in enumerate(users):
        candidates = sorted(set(range(num_items)) - set(seen.row(user).tolist()))
        best = sorted(candidates, key=lambda item: (-scores[user, item], item))[:k]
        padding = k - len(best)
        assert lists.items[row].tolist() == best + [-1] * padding
        assert lists.scores[row].tolist() == [*scores[user, best].tolist(), *[float("-inf")] * padding]
        expected = naive_auc(scores[user], set(relevant.row(user).tolist()), candidates)
        np.testing.assert_allclose(lists.auc[row], expected, rtol=1e-12)
        np.testing.assert_allclose(tables.score_user(int(user)), scores[user], rtol=1e-6)


def test_tensor_dtypes_give_equal_ranking() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, 70, generator=generator).bfloat16().requires_grad_()
    item = torch.randn(300, 70, generator=generator, dtype=torch.float64)
    lists = rank(ScoreTables(query=query, item=item), torch.arange(4), k=5, seen=None)
    with torch.no_grad():
        expected = torch.topk(query.double() @ item.T, 5)
    assert lists.items.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(lists.scores, expected.values.numpy(), rtol=1e-5)
    assert lists.auc is None


def test_equal_scores_are_ordered_by_index() -> None:
    rng = np.random.default_rng(1)
    item = np.tile(rng.standard_normal((1, 13)), (700, 1))
    tables = ScoreTables(query=rng.standard_normal((101, 13)), item=item)
    relevant = Csr.from_pairs(np.arange(101), 699 - np.arange(101), 101)
    lists = rank(tables, np.arange(101), k=4, seen=None, relevant=relevant)
    assert (lists.items == [0, 1, 2, 3]).all()
    assert lists.auc is not None
    assert (lists.auc == 0.5).all()


@pytest.mark.parametrize("form", ["dot", "ratio"])
@pytest.mark.parametrize("history", [True, False])
def test_for_users_equals_separate_scorer(form: str, history: bool) -> None:
    rng = np.random.default_rng(4)
    first = replace(random_scorer(rng, 6, 30, 5, form, history), user_bias=np.arange(6))
    few = None if first.history is None else first.history.rows([0, 1])
    base = replace(first, query=first.query[:2], history=few, user_bias=None)
    result = base.for_users(first.query, first.history, first.user_bias)
    np.testing.assert_array_equal(naive_scores(result), naive_scores(first))
    ours, theirs = (rank(tables, np.arange(6), k=30, seen=None) for tables in (result, first))
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert base.num_users == 2
    for query in (first.query[:, :4], first.query[:5]):
        with pytest.raises(ValueError, match=r"do not fit vectors of 5 numbers"):
            base.for_users(query, first.history, first.user_bias)
    with pytest.raises(ValueError, match="history belongs to a table of items"):
        base.for_users(first.query, None if history else Csr.from_pairs([0], [0], 6), None)


@pytest.mark.parametrize("form", ["dot", "ratio"])
def test_without_terms_subtracts_them_from_score(form: str) -> None:
    tables = random_scorer(np.random.default_rng(5), 4, 20, 3, form)
    plain = replace(tables, history=None, item_item=None)
    for popularity in (False, True):
        for collaboration in (False, True):
            base = plain if collaboration else tables
            expected = naive_scores(replace(base, item_bias=np.zeros(20)) if popularity else base)
            result = tables.without(popularity=popularity, collaboration=collaboration)
            np.testing.assert_array_equal(naive_scores(result), expected)
            np.testing.assert_allclose(result.score_user(3), expected[3], rtol=1e-6)
            assert rank(result, [3], k=1, seen=None).scores[0, 0] == expected[3].max()


def test_single_user_ranking_is_bit_equal() -> None:
    rng = np.random.default_rng(2)
    tables = ScoreTables(query=rng.standard_normal((150, 33)), item=rng.standard_normal((500, 33)))
    together = rank(tables, np.arange(150), k=7, seen=None)
    for user in (0, 5, 77, 149):
        alone = rank(tables, [user], k=7, seen=None)
        assert alone.items[0].tolist() == together.items[user].tolist()
        assert alone.scores[0].tobytes() == together.scores[user].tobytes()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_score_names_user_and_item(bad: float) -> None:
    item_bias = np.zeros(300)
    item_bias[270] = bad
    tables = ScoreTables(query=np.ones((3, 2)), item=np.ones((300, 2)), item_bias=item_bias)
    with pytest.raises(ValueError, match="the score of user 2 and item 270 is"):
        rank(tables, [2, 1], k=3, seen=None)
    empty_mass = ScoreTables(kernel="ratio", query=np.ones((2, 1)), item=[[0]], item_mentions=[[0]], eps=0)
    with pytest.raises(ValueError, match="user 1 and item 0 is NaN"):
        rank(empty_mass, [1], k=1, seen=None)


def test_invalid_shapes() -> None:
    query, item = np.ones((3, 2)), np.ones((5, 2))
    with pytest.raises(ValueError, match=r"item has the shape \(5, 3\), expected \(5, 2\)"):
        ScoreTables(query=query, item=np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"user_bias has the shape \(5,\), expected \(3,\)"):
        ScoreTables(query=query, item=item, user_bias=np.ones(5))
    with pytest.raises(ValueError, match="item_mentions belongs to the ratio kernel"):
        ScoreTables(query=query, item=item, kernel="ratio")
    with pytest.raises(ValueError, match="kernel is 'cosine'"):
        ScoreTables(query=query, item=item, kernel="cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="history and item_item belong together"):
        ScoreTables(query=query, item=item, history=Csr([0, 0, 0, 0], []))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="query must have 2 axes"):
        ScoreTables(query=np.ones(3), item=item)
    tables = ScoreTables(query=query, item=item)
    table = Csr.from_pairs([1], [5], 3)
    with pytest.raises(ValueError, match="seen holds index 5, but there are 5 items"):
        rank(tables, [0], k=1, seen=table)
    with pytest.raises(ValueError, match="relevant has 2 rows, expected 3"):
        rank(tables, [0], k=1, seen=None, relevant=Csr.from_pairs([1], [0], 2))
    with pytest.raises(ValueError, match=r"user_rows\[1\] is 3, but the score tables have 3 users"):
        rank(tables, [0, 3], k=1, seen=None)
    with pytest.raises(ValueError, match="there is no table of items to weigh"):
        ScoreTables(query=np.ones((1, 2)), item=np.ones((3, 2))).weighted(2.0)
    with pytest.raises(ValueError, match=r"`k`: 4611686018427387904 .* does not fit into memory"):
        rank(ScoreTables(query=np.ones((1, 2)), item=np.ones((3, 2))), [0], k=2**62, seen=None)
    with pytest.raises(ValueError, match="k is -1"):
        rank(tables, [0], k=-1, seen=None)


def test_extension_error_messages() -> None:
    users, item_bias = np.zeros(1, np.int32), np.zeros(2, np.float32)
    item = np.zeros((2, 2), np.float32)
    with pytest.raises(
        TypeError, match=r"query must be a C-contiguous float32 array of 2 axes, got a float64"
    ):
        _core.rank(users, 1, item.astype(np.float64), item, item_bias)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got a non-contiguous float32 array of shape \[2, 1\]"):
        _core.rank(users, 1, item[:, ::2], item, item_bias)
    with pytest.raises(TypeError, match=r"users must be .* got list"):
        _core.rank([0], 1, item, item, item_bias)  # type: ignore[arg-type]


def test_evaluate_excludes_seen_relevant_items() -> None:
    # Popularity: items are ranked 0, 1, 2, 3, 4. User 0 has seen 0; user 2 has nothing relevant unseen.
    tables = ScoreTables(query=np.ones((3, 0)), item=np.ones((5, 0)), item_bias=[5, 4, 3, 2, 1])
    seen = Csr.from_pairs([0, 2], [0, 4], 3)
    relevant = Csr.from_pairs([0, 0, 1, 2], [0, 2, 1, 4], 3)
    names = ["auc", "recall@1", "recall@2", "mrr@2"]
    result = evaluate(tables, [2, 1, 0], names=names, seen=seen, relevant=relevant)
    nan = float("nan")
    assert list(result) == names
    np.testing.assert_array_equal(result["auc"], [nan, 3 / 4, 2 / 3])
    np.testing.assert_array_equal(result["recall@1"], [nan, 0, 0])
    np.testing.assert_array_equal(result["recall@2"], [nan, 1, 1])
    np.testing.assert_array_equal(result["mrr@2"], [nan, 1 / 2, 1 / 2])
    assert mean_metrics(result)["mrr@2"] == 0.5


def test_run_files_round_trip(tmp_path: Path) -> None:
    tables = ScoreTables(query=np.ones((2, 0)), item=np.ones((3, 0)), item_bias=[0.1, 1e-7, 1e9])
    seen = Csr.from_pairs([1, 1], [0, 1], 2)
    lists = rank(tables, [1, 0], k=2, seen=seen)
    user_ids, item_ids = ["ann", 'b "o\tb" 5%'], ["x", "y", "new\u2003item"]
    write_ranked_lists(tmp_path / "run.parquet", lists, user_ids, item_ids)
    run = pl.read_parquet(tmp_path / "run.parquet")
    assert run.schema == {"user_idx": pl.Int32, "item_idx": pl.Int32, "rank": pl.Int32, "score": pl.Float32}
    scores = tables.item_bias
    assert run.rows() == [(1, 2, 1, scores[2]), (0, 2, 1, scores[2]), (0, 0, 2, scores[0])]
    lines = [line.split() for line in (tmp_path / "run.trec").read_text().splitlines()]
    assert [unquote(line[0]) for line in lines] == [user_ids[1], "ann", "ann"]
    assert [unquote(line[2]) for line in lines] == [item_ids[2], item_ids[2], "x"]
    assert [np.float32(line[4]) for line in lines] == [scores[2], scores[2], scores[0]]
    assert {(line[1], line[5]) for line in lines} == {("Q0", "llmdirect")}
    assert [line[3] for line in lines] == ["1", "1", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.parquet", "run.trec"]


def test_run_files_invalid_ids(tmp_path: Path) -> None:
    items = np.array([[1]], np.int32)
    lists = RankedLists(items, np.ones((1, 1), np.float32), None, np.zeros(1, np.int32))
    with pytest.raises(ValueError, match=r"ends in \.parquet"):
        write_ranked_lists(tmp_path / "run.csv", lists, ["u"], ["a", "b"])
    with pytest.raises(ValueError, match="item_ids has 1 ids, but the lists hold index 1"):
        write_ranked_lists(tmp_path / "run.parquet", lists, ["u"], ["a"])
    with pytest.raises(ValueError, match=r"user_ids\[0\] is empty"):
        write_ranked_lists(tmp_path / "run.parquet", lists, [""], ["a", "b"])
    assert not list(tmp_path.iterdir())


def test_ranked_lists_are_valid_input_of_metrics() -> None:
    tables = ScoreTables(query=np.ones((2, 0)), item=np.ones((3, 0)), item_bias=[3, 2, 1])
    seen = Csr.from_pairs([0, 0, 0], [0, 1, 2], 2)
    lists = rank(tables, [0, 1], k=5, seen=seen)
    assert lists.items.tolist() == [[-1] * 5, [0, 1, 2, -1, -1]]
    result = metrics(lists.items, Csr.from_pairs([1], [2], 2), ["mrr@5"])
    np.testing.assert_array_equal(result["mrr@5"], [np.nan, 1 / 3])
