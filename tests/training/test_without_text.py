"""Datasets without text, or with text in few passages: the model ranks by popularity and co-occurrence."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

import tiny
from command_line import CommandLine
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import TRAIN, VALID, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.explanation.explain import explain
from llmdirect.runs.evaluate import evaluate
from llmdirect.runs.recommend import recommend
from llmdirect.runs.trained import Trained
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore, open_store
from llmdirect.training.train import train
from review_files import review, write_lines

SHORT = {"num_epochs": 2, "batch_size": 32}


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """Users of two tastes."""
    rng = random.Random(0)
    lines = [
        f"u{user},i{item}"
        for user in range(30)
        for item in rng.sample(range(user % 2, 16, 2), 5) + rng.sample(range(1 - user % 2, 16, 2), 1)
    ]
    path = tmp_path / "orders.csv"
    path.write_text("user_id,item_id\n" + "\n".join(lines))
    return path


def test_orders_from_file_to_recommendations(
    tmp_path: Path, orders: Path, cli: CommandLine, caplog: pytest.LogCaptureFixture
) -> None:
    shop, run = tmp_path / "shop", tmp_path / "run"
    assert cli("prepare", "--interactions", orders, "--out", shop).code == 0
    # The default encoder is not on this machine, and none is needed.
    answer = cli("precompute", shop)
    assert (answer.code, "no text, so nothing to encode" in answer.out) == (0, True)
    assert cli("precompute", shop, "--json").code == cli("consolidate", shop).code == 0
    store = open_store(shop)
    assert (store.path.name, store.num_passages, store.num_rows) == ("no-text", 1, 0)
    answer = cli("train", shop, "--out", run, "--num-epochs", "3", "--aspc-num", "3")
    assert answer.code == 0
    assert "; ridge " in answer.out
    assert "similarity" not in answer.out  # there is none without text
    assert caplog.text.count("no passage in train has text") == 1
    answer = cli("test", shop, "--parameters", run, "--json")
    assert json.loads(answer.out)["metrics"]["ndcg@10"] > 0.2
    assert cli("recommend", run, "--user", "u1").code == cli("explain", run, "--user", "u1").code == 0
    assert cli("audit", shop).code == 0


def test_train_without_a_store(tmp_path: Path, orders: Path) -> None:
    prepare(None, tmp_path / "shop", interactions=orders)
    train(tmp_path / "shop", tmp_path / "run", training=TrainConfig(num_epochs=1))
    assert open_store(tmp_path / "shop").num_rows == 0
    assert not precompute(tmp_path / "shop", estimate_only=True).consolidated
    result = precompute(tmp_path / "shop", store=str(tmp_path / "elsewhere"))
    assert (result.tokens, EmbeddingStore.open(tmp_path / "elsewhere").num_rows) == (0, 0)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"user": "text"},
        {"user": "both", "popularity": False},
        {"score_form": "ratio", "channels": 1},
        {"equal_reviews": True, "lexicon": 0},
    ],
)
def test_the_text_term_is_zero(tmp_path: Path, orders: Path, shape: dict[str, object]) -> None:
    prepare(None, tmp_path / "shop", interactions=orders)
    config = ModelConfig.for_preset("default", aspects=3, **shape)
    result = train(
        tmp_path / "shop", tmp_path / "run", model=config, training=TrainConfig(**SHORT, token_epochs=1)
    )
    assert all(np.isfinite(value) for record in result.history for value in record.losses.values())
    tables = Trained.load(tmp_path / "run").without(popularity=True, collaboration=True).tables
    assert max(np.ptp(tables.score_user(user)) for user in range(tables.num_users)) < 1e-6


def test_the_published_preset(tmp_path: Path, orders: Path) -> None:
    prepare(None, tmp_path / "shop", interactions=orders)
    train(
        tmp_path / "shop",
        tmp_path / "run",
        model=ModelConfig.for_preset("paper", aspects=3),
        training=TrainConfig.for_preset("paper", **SHORT),
    )
    assert np.isfinite(evaluate(tmp_path / "shop", tmp_path / "run").metrics["ndcg@10"])


@pytest.mark.parametrize("texts", ["one in train", "none in train"])
def test_text_in_few_passages(tmp_path: Path, orders: Path, texts: str) -> None:
    pairs = [line.split(",") for line in orders.read_text().splitlines()[1:]]
    prepare(None, tmp_path / "probe", interactions=orders)
    probe = Dataset.open(tmp_path / "probe")
    rows = probe.interactions
    row = int(np.flatnonzero(rows.split == (TRAIN if texts == "one in train" else VALID))[0])
    written = [probe.user_ids[rows.user_idx[row]], probe.item_ids[rows.item_idx[row]]]
    raw = write_lines(
        tmp_path / "raw.jsonl",
        [review(*pair, "a warm sound, bright strings" if pair == written else "") for pair in pairs],
    )
    dataset, run = tmp_path / "shop", tmp_path / "run"
    prepare(raw, dataset)
    assert Dataset.open(dataset).has_text
    checkpoint, _ = tiny.build("bert", tmp_path)
    precompute(dataset, encoder=str(checkpoint))
    consolidate(dataset)
    train(dataset, run, model=ModelConfig(aspects=3), training=TrainConfig(num_epochs=2, token_epochs=1))
    assert evaluate(dataset, run).metrics["ndcg@10"] > 0.2
    lists = recommend(run, ["u0", "u1"]).recommendations
    assert all(np.isfinite(item.score) for each in lists for item in each.items)
    explain(run, "u0", [lists[0].items[0].item_id])


def test_similarities_that_the_term_has(tmp_path: Path, orders: Path, cli: CommandLine) -> None:
    raw = write_lines(
        tmp_path / "raw.jsonl",
        [review(*line.split(","), f"a sound of {line[-1]}") for line in orders.read_text().splitlines()[1:]],
    )
    prepare(raw, tmp_path / "texts")
    prepare(None, tmp_path / "shop", interactions=orders)
    vectors = np.random.default_rng(0).standard_normal((Dataset.open(tmp_path / "shop").num_items, 4))
    for dataset, expected in (
        (tmp_path / "texts", {"words", "embeddings"}),
        (tmp_path / "shop", {"embeddings"}),
    ):
        precompute(dataset, embeddings=vectors)
        consolidate(dataset)
        run = tmp_path / f"run-{dataset.name}"
        answer = cli("train", dataset, "--out", run, "--num-epochs", "2", "--aspc-num", "3", "--json")
        assert set(json.loads(answer.out)["best"]["collaboration"]["likeness"]) == expected
