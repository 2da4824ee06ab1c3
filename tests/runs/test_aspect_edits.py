"""Renamed, merged and disabled aspects, and scaled interests."""

import json
from pathlib import Path

import numpy as np
import pytest

from command_line import CommandLine
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.data.dataset import TEST, Dataset
from llmdirect.evaluation.protocol import evaluate_split
from llmdirect.explanation.explainer import Explainer
from llmdirect.ranking.metrics import mean_metrics
from llmdirect.ranking.top_k import rank
from llmdirect.runs.aspect_edits import FILE, AspectEdits
from llmdirect.runs.evaluate import evaluate
from llmdirect.runs.recommend import recommend, recommend_new
from llmdirect.runs.trained import Trained
from run_helpers import fit_each, make_dataset

NAMES = ["default", "ratio", "paper", "both"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return fit_each(dataset, tmp_path_factory.mktemp("runs"), NAMES)


def reference_scores(trained: Trained, user: int, factors: list[float]) -> np.ndarray:
    """Reference: scores [I] of a user with scaled interests, in a plain loop over aspects."""
    tables = trained.tables
    query, item = trained.users.query[user].double().numpy(), np.asarray(tables.item, np.float64)
    width = len(query) // len(factors)
    parts = np.stack([query[a * width : (a + 1) * width] for a in range(len(factors))])
    text = np.zeros(len(item))
    mass = np.zeros(len(item))
    for aspect, factor in enumerate(factors):
        text += factor * (item[:, aspect * width : (aspect + 1) * width] @ parts[aspect])
        if tables.item_mentions is not None:
            mass += factor * np.asarray(tables.item_mentions, np.float64)[:, aspect] * parts[aspect][0]
    if tables.item_mentions is not None:
        text /= mass + tables.eps
    pairs = np.full(len(item), user, np.int32), np.arange(len(item), dtype=np.int32)
    bias = 0.0 if tables.user_bias is None else float(tables.user_bias[user])
    return text + tables.item_bias + bias + tables.score_collaborative_pairs(*pairs)


def order(scores: np.ndarray, seen: list[int]) -> list[int]:
    return [item for item in np.argsort(-scores, kind="stable").tolist() if item not in seen]


@pytest.mark.parametrize("name", NAMES)
def test_scaled_interest_matches_reference_ranking(runs: dict[str, Path], name: str) -> None:
    trained = Trained.load(runs[name])
    for user, factors in ((0, [1.0, 2.5, 1.0]), (3, [0.0, 1.0, 0.5])):
        moved = {aspect: factor for aspect, factor in enumerate(factors) if factor != 1}
        changed = trained.with_interests(user, moved)
        lists = rank(changed.tables, [user], k=5, seen=changed.users.seen)
        expected = reference_scores(trained, user, factors)
        assert lists.items[0].tolist() == order(expected, trained.users.seen.row(user).tolist())[:5]
        assert lists.scores[0] == pytest.approx(expected[lists.items[0]], rel=1e-5)
        assert lists.user_rows.tolist() == [user]
    unmoved = rank(trained.tables, [0], k=5, seen=trained.users.seen)
    assert unmoved.scores[0] == pytest.approx(
        reference_scores(trained, 0, [1.0] * 3)[unmoved.items[0]], rel=1e-5
    )


def test_interest_factors_are_relative_to_model(runs: dict[str, Path]) -> None:
    trained = Trained.load(runs["default"])
    twice = trained.with_interests(2, {1: 0.0}).with_interests(2, {1: 3.0})
    once = trained.with_interests(2, {1: 3.0})
    assert np.array_equal(twice.tables.query, once.tables.query)
    assert np.array_equal(np.delete(once.tables.query, 2, 0), np.delete(trained.tables.query, 2, 0))
    with pytest.raises(ValueError, match=r"no aspect 3, they go from 0 to 2"):
        trained.with_interests(2, {3: 1.0})
    with pytest.raises(ValueError, match=r"interest 1 times -0.5"):
        trained.with_interests(2, {1: -0.5})


@pytest.mark.parametrize("name", NAMES)
def test_disabled_aspect_does_not_contribute(runs: dict[str, Path], dataset: Path, name: str) -> None:
    run = runs[name]
    plain = Trained.load(run)
    before = evaluate(dataset, run, metrics=["ndcg@5"])
    try:
        AspectEdits().switch(off=[1]).write(run, plain.run.weights_hash)
        trained = Trained.load(run)
        expected = reference_scores(trained, 4, [1.0, 0.0, 1.0])
        (listed,) = recommend(run, [trained.users.ids[4]], k=4).recommendations
        items = [trained.item_idx(entry.item_id) for entry in listed.items]
        assert items == order(expected, trained.users.seen.row(4).tolist())[:4]
        assert [entry.score for entry in listed.items] == pytest.approx(expected[items], rel=1e-5)

        entry = Explainer.open(run).explain(4, items[0])
        parts = {aspect["aspect"]: aspect["contribution"] for aspect in entry["aspects"]}
        assert entry["score"] == pytest.approx(expected[items[0]], rel=1e-5)
        assert parts[1] == 0.0
        if name == "default":
            text = entry["terms"]["words"] + entry["terms"]["words_everywhere"]
            assert sum(part["contribution"] for part in entry["history"]) == pytest.approx(text, rel=1e-4)
        # A disabled aspect remains off for any factor.
        assert np.array_equal(trained.with_interests(4, {1: 9.0}).tables.query, trained.tables.query)
        without = mean_metrics(evaluate_split(trained.tables, Dataset.open(dataset), TEST, ["ndcg@5"]))
        result = evaluate(dataset, run, metrics=["ndcg@5"])
        assert (result.metrics, result.aspects_off, before.aspects_off) == (without, [1], [])
        with pytest.raises(ValueError, match=r"interest 1: .* switched off; .* `on=1` first"):
            recommend(run, [trained.users.ids[4]], interests={0: 2.0, 1: 2.0})
        assert (without != before.metrics) or name == "paper"  # with a small text term
        if trained.model.config.user == "history":
            history = [trained.item_ids[item] for item in trained.users.seen.row(4).tolist()]
            (new,) = recommend_new(run, history=history, k=4).recommendations
            assert [one.item_id for one in new.items] == [one.item_id for one in listed.items]
    finally:
        (run / FILE).unlink()
    assert evaluate(dataset, run, metrics=["ndcg@5"]).metrics == before.metrics


def test_merged_aspects_are_reported_as_one(runs: dict[str, Path]) -> None:
    run = runs["default"]
    plain = Explainer.open(run)
    item = int(plain.candidates(1)[0])
    apart = {one["aspect"]: one["contribution"] for one in plain.explain(1, item)["aspects"]}
    try:
        AspectEdits().merge([2, 0]).rename({2: "sound"}).write(run, plain.trained.run.weights_hash)
        merged = Explainer.open(run)
        entry = merged.explain(1, item)
        together = {one["aspect"]: one["contribution"] for one in entry["aspects"]}
        assert together == pytest.approx({0: apart[0] + apart[2], 1: apart[1]})
        assert [one["name"] for one in entry["aspects"] if one["aspect"] == 0] == ["sound"]
        words = [word for passage in entry["passages"] for word in passage["words"]]
        assert {word["aspect"] for word in words} <= {0, 1}
        moved = merged.trained.with_interests(1, {2: 2.0}).tables
        expected = reference_scores(merged.trained, 1, [2.0, 1.0, 2.0])
        assert moved.score_pairs([1], [item])[0] == pytest.approx(expected[item], rel=1e-5)
    finally:
        (run / FILE).unlink()


def test_merge_and_split_groups() -> None:
    edits = AspectEdits().merge([4, 7]).merge([7, 1]).merge([2, 3])
    assert edits.merged == ((1, 4, 7), (2, 3))
    assert edits.group(4) == (1, 4, 7)
    assert edits.group(5) == (5,)
    assert edits.split([4]).merged == ((2, 3),)
    assert edits.named([f"a{n}" for n in range(8)])[4:] == ["a1", "a5", "a6", "a1"]
    assert edits.rename({7: "x", 5: " y "}).named(["a"] * 8) == ["a", "x", "a", "a", "x", "y", "a", "x"]
    assert edits.rename({7: "x"}).rename({7: ""}).names == {}
    assert edits.combined([1, 1, 1, 1, 1, 1, 1, 1]) == {0: 1, 1: 3, 2: 2, 5: 1, 6: 1}
    assert edits.switch(off=[4, 6]).factors(8).tolist() == [1, 0, 1, 1, 0, 1, 0, 0]
    assert edits.switch(off=[4, 6]).switch(on=[4]).off == {6}
    with pytest.raises(ValueError, match="two aspects or more"):
        AspectEdits().merge([3, 3])


def test_invalid_aspect_file(runs: dict[str, Path], tmp_path: Path) -> None:
    edits = AspectEdits().merge([0, 1]).rename({0: "klänge"}).switch(off=[2])
    edits.write(tmp_path, "abc")
    assert AspectEdits.read(tmp_path, "abc", 3) == edits
    assert json.loads((tmp_path / FILE).read_text())["names"] == {"0": "klänge"}
    with pytest.raises(MismatchError, match=r"trained again since.*`reset=True`"):
        AspectEdits.read(tmp_path, "abd", 3)
    with pytest.raises(DataError, match=r"aspects.json: damaged \(there is no aspect 2.*`reset=True`"):
        AspectEdits.read(tmp_path, "abc", 2)
    for broken in ("{", "[]", '{"format": "llmdirect-aspects", "version": 9}', '{"format": "x"}'):
        (tmp_path / FILE).write_text(broken)
        with pytest.raises(DataError, match=r"aspects.json: damaged"):
            AspectEdits.read(tmp_path, "abc", 3)


def test_recommend_command_scales_interests(runs: dict[str, Path], cli: CommandLine) -> None:
    run = runs["default"]
    trained = Trained.load(run)
    expected = order(reference_scores(trained, 2, [1.5, 1.0, 0.2]), trained.users.seen.row(2).tolist())[:3]
    user = trained.users.ids[2]
    answer = cli(
        *("recommend", run, "--user", user, "-k", "3", "--json"),
        *("--interest", "0=+50%", "--interest", "2=-80%"),
    )
    assert answer.code == 0, answer.err
    (listed,) = json.loads(answer.out)["recommendations"]
    assert [trained.item_idx(item["item_id"]) for item in listed["items"]] == expected
    factor = cli("recommend", run, "--user", user, "-k", "3", "--json", "--interest", "0=1.5,2=0.2")
    assert json.loads(factor.out) == json.loads(answer.out)
    for wrong in ("0", "a=1", "0=lots", "0=-150%", "7=1"):
        assert cli("recommend", run, "--user", user, "--interest", wrong).code == 2
    assert cli("recommend", run, "--history", "i1", "--interest", "0=2").code == 2


def test_single_user_keeps_scaled_interests(runs: dict[str, Path]) -> None:
    trained = Trained.load(runs["default"])
    moved = trained.with_interests(5, {0: 0.3})
    explainer = Explainer.open(runs["default"])
    item = int(explainer.candidates(5)[0])
    alone = moved.for_user(5)
    for other in (alone, trained.for_user(5).with_interests(0, {0: 0.3})):
        entry = explainer.for_users(other).explain(0, item)
        assert entry["score"] == pytest.approx(
            float(reference_scores(trained, 5, [0.3, 1.0, 1.0])[item]), rel=1e-5
        )
        text = entry["terms"]["words"] + entry["terms"]["words_everywhere"]
        assert sum(part["contribution"] for part in entry["history"]) == pytest.approx(text, rel=1e-4)
