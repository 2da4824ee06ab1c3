"""Metrics: known values, and a naive reference."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import CommandLine
from llmdirect.common.csr import Csr
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.ranking.metrics import CUTOFF_METRICS, mean_metrics, metrics, parse_metric
from llmdirect.ranking.rating_metrics import rating_metrics
from model_helpers import write_embeddings
from review_files import review, write_lines

LOG3 = math.log2(3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The list is 7 3 9 1 (then padding); 3, 1 and 8 are relevant: hits at ranks 2 and 4.
        ("recall@1", 0),
        ("recall@2", 1 / 3),
        ("recall@5", 2 / 3),
        ("precision@2", 1 / 2),
        ("precision@5", 2 / 5),
        ("hit_rate@1", 0),
        ("hit_rate@2", 1),
        ("mrr@1", 0),
        ("mrr@5", 1 / 2),
        ("map@2", (1 / 2) / 2),
        ("map@5", (1 / 2 + 2 / 4) / 3),
        ("ndcg@2", (1 / LOG3) / (1 + 1 / LOG3)),
        ("ndcg@5", (1 / LOG3 + 1 / math.log2(5)) / (1 + 1 / LOG3 + 1 / 2)),
    ],
)
def test_known_values(name: str, expected: float) -> None:
    relevant = Csr.from_pairs([0, 0, 0], [1, 3, 8], 1)
    result = metrics([[7, 3, 9, 1, -1]], relevant, [name])
    np.testing.assert_allclose(result[name], [expected], rtol=1e-14)


def naive(metric: str, ranked: list[int], relevant: set[int], k: int) -> float:
    if not relevant:
        return math.nan
    gains = [1 if item in relevant else 0 for item in ranked[:k]]
    best = min(k, len(relevant))
    match metric:
        case "recall":
            return sum(gains) / len(relevant)
        case "precision":
            return sum(gains) / k
        case "hit_rate":
            return max(gains, default=0)
        case "ndcg":
            gained = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
            return gained / sum(1 / math.log2(rank + 1) for rank in range(1, best + 1))
        case "mrr":
            return max((gain / rank for rank, gain in enumerate(gains, 1)), default=0)
        case "map":
            return sum(gain * sum(gains[:rank]) / rank for rank, gain in enumerate(gains, 1)) / best
    raise AssertionError(metric)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 15), unique=True, max_size=10), st.sets(st.integers(0, 15))),
        max_size=5,
    )
)
def test_matches_naive_reference(cases: list[tuple[list[int], set[int]]]) -> None:
    lists = np.full((len(cases), 10), -1)
    for row, (ranked, _) in enumerate(cases):
        lists[row, : len(ranked)] = ranked
    relevant = Csr.from_pairs(
        [row for row, (_, items) in enumerate(cases) for _ in items],
        [item for _, items in cases for item in items],
        len(cases),
    )
    names = [f"{metric}@{k}" for metric in CUTOFF_METRICS for k in (1, 2, 7, 10)]
    result = metrics(lists, relevant, names)
    assert list(result) == names
    for name in names:
        metric, k = parse_metric(name)
        assert k is not None
        expected = [naive(metric, ranked, items, k) for ranked, items in cases]
        np.testing.assert_allclose(result[name], expected, rtol=1e-12)
        defined = result[name][~np.isnan(result[name])]
        assert ((defined >= 0) & (defined <= 1 + 1e-12)).all()


def test_parse_metric_names() -> None:
    assert parse_metric("ndcg@10") == ("ndcg", 10)
    assert parse_metric("auc") == ("auc", None)
    for name in ("ndcg", "ndcg@0", "ndcg@-1", "ndcg@01", "NDCG@10", "auc@5", "f1@3", "ndcg@10 ", ""):
        with pytest.raises(
            ValueError, match=r"there are recall@K, precision@K, .*map@K \(K from 1\) and auc"
        ):
            parse_metric(name)


def test_invalid_lists() -> None:
    relevant = Csr.from_pairs([0], [1], 1)
    for items, message in (
        ([[1, 1]], "list 0 holds item 1 twice"),
        ([[-1, 1]], "list 0 holds 1 after its padding"),
        ([[0, -7]], "list 0 holds the negative index -7"),
        ([[0], [1]], "not 1 lists of 1 items"),
        ([[0]], "cutoff 2 is outside 1 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics(items, relevant, ["recall@2" if "cutoff" in message else "recall@1"])
    with pytest.raises(ValueError, match="auc needs all candidates"):
        metrics([[0]], relevant, ["auc"])


def test_means_exclude_users_without_relevant_items() -> None:
    per_user = {"mrr@3": np.array([1.0, np.nan, 0.5]), "auc": np.array([np.nan])}
    means = mean_metrics(per_user)
    assert means["mrr@3"] == 0.75
    assert math.isnan(means["auc"])


def test_undefined_metric_is_omitted(tmp_path: Path, cli: CommandLine) -> None:
    """AUC is undefined for users without irrelevant candidates."""
    lines = [review(f"u{user}", f"i{item}", f"text {user} {item}") for user in range(6) for item in range(10)]
    prepare(write_lines(tmp_path / "raw.jsonl", lines), tmp_path / "data")
    write_embeddings(tmp_path / "data/stores/s", Dataset.open(tmp_path / "data").passages.text.to_list())
    answer = cli("train", tmp_path / "data", "--out", tmp_path / "run", "--num-epochs", "1")
    assert answer.code == 0, answer.err
    answer = cli("test", tmp_path / "data", "--parameters", tmp_path / "run", "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)["metrics"]
    assert "auc" not in result
    assert result["ndcg@10"] == 1


def test_rating_metrics_known_values() -> None:
    # Liked: the first and the third. Predicted to be liked: the first and the second.
    result = rating_metrics([4.5, 4.0, 3.0, 3.0], [5, 3, 4, 1])
    assert result["mse"] == (0.25 + 1 + 1 + 4) / 4
    assert result["rmse"] == math.sqrt(6.25 / 4)
    assert result["mae"] == (0.5 + 1 + 1 + 2) / 4
    assert result["auc"] == (2 + 0 + 0.5) / 4  # 4.5 wins twice, 3.0 loses to 4.0 and ties with 3.0
    assert result["accuracy"] == 2 / 4
    assert result["f1"] == 2 * 1 / (2 * 1 + 1 + 1)
    nothing_liked = rating_metrics([1.0], [2.0])
    assert nothing_liked["accuracy"] == 1
    assert math.isnan(nothing_liked["auc"])
    assert math.isnan(nothing_liked["f1"])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), min_size=1, max_size=30))
def test_rating_auc_matches_pair_counts(pairs: list[tuple[int, int]]) -> None:
    predicted, actual = zip(*pairs, strict=True)
    won = [(a > b) + 0.5 * (a == b) for a, x in pairs for b, y in pairs if x >= 4 > y]
    result = rating_metrics(predicted, actual)["auc"]
    np.testing.assert_allclose(result, np.mean(won) if won else math.nan, rtol=1e-12)


def test_invalid_ratings() -> None:
    with pytest.raises(ValueError, match="2 predicted ratings, but 1 actual"):
        rating_metrics([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no ratings"):
        rating_metrics([], [])
    with pytest.raises(ValueError, match=r"actual\[1\] is nan"):
        rating_metrics([1.0, 2.0], [1.0, float("nan")])
