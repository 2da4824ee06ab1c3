"""Training: exact resume after a kill, objectives, early stopping, invalid arguments."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from command_line import CommandLine
from llmdirect.common.errors import BusyError, DataError, MissingError
from llmdirect.common.locks import single_writer
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import TEST, TRAIN, VALID, Dataset
from llmdirect.data.prepare import EMPTY_VALID_NOTE, prepare
from llmdirect.evaluation.protocol import evaluate_ratings, evaluate_split
from llmdirect.explanation.explain import explain
from llmdirect.model.left_out import sampled_pairs, train_left_out
from llmdirect.ranking.metrics import mean_metrics
from llmdirect.runs.evaluate import evaluate
from llmdirect.runs.folder import RunFolder
from llmdirect.runs.recommend import recommend
from llmdirect.runs.trained import Trained
from llmdirect.training.train import train
from model_helpers import write_embeddings
from run_helpers import SHAPES, content, fit, make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


def test_collaborative_term_is_limited_to_popular_items(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module, name, value in (
        ("training.train", "MAX_ITEMS", 9),
        ("collaborative.selection", "MAX_ITEMS", 9),
        ("collaborative.selection", "_SEARCHED", 6),
    ):
        monkeypatch.setattr(f"llmdirect.{module}.{name}", value)
    result = fit(dataset, tmp_path / "run", "collaborative")
    assert "has 14 items; the collaborative term is of the 9 most popular ones" in caplog.text
    data, ranking = Dataset.open(dataset), Trained.load(tmp_path / "run").tables
    counts = np.bincount(data.csr(TRAIN).indices, minlength=14)
    popular = np.argsort(-counts, kind="stable")[:9]
    assert ranking.item_item is not None
    indptr, indices, values = ranking.item_item
    assert np.flatnonzero(np.diff(indptr)).tolist() == sorted(popular.tolist())
    assert set(indices.tolist()) == set(popular.tolist())
    assert values.any()
    again = mean_metrics(evaluate_split(ranking, data, VALID, ["ndcg@10"]))
    assert result.best_value == pytest.approx(again["ndcg@10"], abs=1e-6)
    assert result.best.train_left_out


@pytest.mark.parametrize("shape", ["default", "both", "collaborative", "paper"])
def test_continued_run_equals_uninterrupted_run(dataset: Path, tmp_path: Path, shape: str) -> None:
    fit(dataset, tmp_path / "whole", shape, num_epochs=5)
    for epochs in (1, 2, 5):
        fit(dataset, tmp_path / "parts", shape, num_epochs=epochs)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_token_epochs_are_reproducible(dataset: Path, tmp_path: Path) -> None:
    fit(dataset, tmp_path / "whole", num_epochs=2, token_epochs=3)
    fit(dataset, tmp_path / "again", num_epochs=2, token_epochs=3)
    whole = content(tmp_path / "whole")
    assert content(tmp_path / "again") == whole
    assert [entry["phase"] for entry in whole["history"]] == ["pooled"] * 2 + ["tokens"] * 3
    assert whole["last"]["sharpness"] != 0.0


def test_killed_run_resumes_bit_equal(dataset: Path, tmp_path: Path) -> None:
    # Long enough for the learning rate to drop and for token epochs to follow pooled ones.
    options = ["--num-epochs", "14", "--patience", "2", "--token-epochs", "8", "--aspc-num", "3"]
    command = [sys.executable, "-m", "llmdirect", "train", str(dataset), *options, "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    run = tmp_path / "killed"
    kills = 0
    for num_epochs in (2, 9, 16):
        process = subprocess.Popen([*command, str(run)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            lines = (run / "history.jsonl").read_text().count("\n") if (run / "history.jsonl").exists() else 0
            if lines >= num_epochs:
                os.kill(process.pid, signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.002)
    assert kills >= 1
    subprocess.run([*command, str(run)], check=True, capture_output=True)
    assert content(run) == content(tmp_path / "whole")
    left = {path.name for path in run.rglob("*") if path.is_file()}
    named = {entry["name"] for entry in RunFolder.open(run).manifest["files"].values()}
    assert left == named | {"manifest.json", "history.jsonl", ".lock"}


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("objective", ["softmax", "bpr", "rating"])
def test_every_objective_improves(dataset: Path, tmp_path: Path, shape: str, objective: str) -> None:
    auxiliary = {"contrastive": 5e-3, "rate": 1e-6, "orthogonality": 2.5, "anchor": 0.1}
    tokens = {"token_epochs": 0 if SHAPES[shape].sentiment == "mlp" else 2}
    options = {"num_epochs": 6, "objective": objective, "lr": 5e-3, "patience": 9}
    result = fit(dataset, tmp_path / "run", shape, **options, **tokens, **auxiliary)
    losses = [record.losses for record in result.history]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert {"contrastive", "orthogonality", "anchor", "rate"} <= losses[0].keys()
    assert all(np.isfinite(list(parts.values())).all() for parts in losses)
    assert result.metric == ("mse" if objective == "rating" else "ndcg@10")


def test_sampled_softmax_improves(dataset: Path, tmp_path: Path) -> None:
    result = fit(dataset, tmp_path / "run", num_epochs=6, negatives=4)
    losses = [record.losses["loss"] for record in result.history]
    assert losses[-1] < losses[0]


def test_rate_drops_from_best_state_then_early_stopping(dataset: Path, tmp_path: Path) -> None:
    result = fit(dataset, tmp_path / "run", num_epochs=100, patience=1, max_lr_drops=2)
    rates = [record.lr for record in result.history]
    assert len(rates) < 100
    np.testing.assert_allclose(sorted(set(rates), reverse=True), [1e-3, 1e-4, 1e-5])
    best = max(record.valid["ndcg@10"] for record in result.history)
    assert result.history[result.best_epoch - 1].valid["ndcg@10"] == best
    assert result.best_value == result.best.valid["ndcg@10"] >= best  # with the collaborative term


@pytest.mark.parametrize("shape", list(SHAPES))
def test_saved_tables_reproduce_validation_metric(dataset: Path, tmp_path: Path, shape: str) -> None:
    result = fit(dataset, tmp_path / "run", shape)
    validation = evaluate(dataset, tmp_path / "run", metrics=["ndcg@10"], split="valid")
    assert validation.metrics["ndcg@10"] == pytest.approx(result.best_value, abs=1e-6)
    data, trained = Dataset.open(dataset), Trained.load(tmp_path / "run")
    again = mean_metrics(evaluate_split(trained.tables, data, TEST, ["ndcg@10"]))
    assert evaluate(dataset, tmp_path / "run", metrics=["ndcg@10"]).metrics == again


def test_default_objective_reports_rating_metrics(dataset: Path, tmp_path: Path) -> None:
    shape = replace(SHAPES["default"], popularity=False, collaborative=False)
    result = train(
        dataset, tmp_path / "run", model=shape, training=TrainConfig(objective="rating", num_epochs=2)
    )
    figures = evaluate(dataset, tmp_path / "run", split="valid").metrics
    assert figures["mse"] == pytest.approx(result.best_value)
    assert {"rmse", "mae", "accuracy", "f1"} <= figures.keys()
    data, tables = Dataset.open(dataset), Trained.load(tmp_path / "run").tables
    rows = data.interactions
    held = rows.split == VALID
    predicted = [
        tables.user_bias[u] + tables.item_bias[i] + tables.query[u] @ tables.item[i]
        for u, i in zip(rows.user_idx[held], rows.item_idx[held], strict=True)
    ]
    assert evaluate_ratings(tables, data, VALID)["mse"] == pytest.approx(
        np.mean((np.array(predicted) - rows.rating[held]) ** 2), rel=1e-5
    )


def test_held_out_splits_do_not_influence_training(dataset: Path, tmp_path: Path) -> None:
    """Changed held-out texts and ratings leave every parameter unchanged."""
    raw = dataset.with_suffix(".json")
    held = Dataset.open(dataset)
    users, items = held.user_ids, held.item_ids
    outside = {
        (users[u], items[i])
        for u, i, split in zip(
            held.interactions.user_idx, held.interactions.item_idx, held.interactions.split, strict=True
        )
        if split != 0
    }
    lines = []
    for line in raw.read_text().splitlines():
        record = json.loads(line)
        if (record["reviewerID"], record["asin"]) in outside:
            record["reviewText"] += " changed entirely"
            record["overall"] = 6 - record["overall"]
        lines.append(json.dumps(record) + "\n")
    changed = tmp_path / "changed.json"
    changed.write_text("".join(lines))
    prepare(changed, tmp_path / "changed")
    texts = Dataset.open(tmp_path / "changed").passages.text.to_list()
    assert texts != held.passages.text.to_list()
    # A shared store, so that a text has the same tokens in both runs.
    every = sorted({*texts, *held.passages.text.to_list()})
    store = write_embeddings(tmp_path / "store", every, dim=12)
    for name, data in (("one", dataset), ("two", tmp_path / "changed")):
        train(
            data, tmp_path / name, model=SHAPES["both"], training=TrainConfig(num_epochs=2), store=store.path
        )
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_sampling_reaches_last_of_many_pairs() -> None:
    number = (1 << 24) + 4  # float32 cannot represent all indices of this size
    pairs = {name: torch.zeros(1, dtype=torch.int64).expand(number) for name in ("user", "passage", "rating")}
    view: Any = SimpleNamespace(
        pair_item=torch.arange(number),
        unique_text_pairs=torch.arange(number),
        **{f"pair_{name}": value for name, value in pairs.items()},
    )
    items = sampled_pairs(view).item
    assert (len(items), int(items[0]), int(items[-1])) == (2048, 0, number - 1)


def test_train_left_out_metric_ranks_among_non_positives(dataset: Path, tmp_path: Path) -> None:
    from llmdirect.model.item_documents import Pairs
    from llmdirect.model.train_view import TrainView
    from llmdirect.store.store import open_store
    from model_helpers import random_model, scores_of

    data = Dataset.open(dataset)
    view = TrainView.from_dataset(data, open_store(dataset))
    scores = scores_of(random_model(SHAPES["default"], view), view, False)
    gains, areas = [], []
    with torch.no_grad():
        for row in view.unique_text_pairs.tolist():
            pairs = Pairs.from_view(view, torch.tensor([row]))
            table = scores.left_out(pairs)[0][0].numpy()
            user, item = int(pairs.user), int(pairs.item)
            positives = set(view.positives.row(user).tolist())
            candidates = [other for other in range(view.num_items) if other == item or other not in positives]
            rank = 1 + sorted(candidates, key=lambda other: (-table[other], other)).index(item)
            gains.append(1 / np.log2(rank + 1) if rank <= 3 else 0.0)
            others = table[[other for other in candidates if other != item]]
            areas.append(np.mean((others < table[item]) + 0.5 * (others == table[item])))
        assert train_left_out(scores, "ndcg@3") == pytest.approx(np.mean(gains))
        assert train_left_out(scores, "auc") == pytest.approx(np.mean(areas))


def test_invalid_training_arguments(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    out = tmp_path / "run"
    if not torch.cuda.is_available():
        with pytest.raises(MissingError, match=r"device cuda was asked for.*`device=\"cpu\"`"):
            fit(dataset, out, device="cuda")
    with pytest.raises(MissingError, match=r"no store named 'none'; there is random"):
        train(dataset, out, store="none")
    with pytest.raises(ValueError, match=r"no metric 'ndgc@10'"):
        fit(dataset, out, metric="ndgc@10")
    with pytest.raises(FileNotFoundError, match=r"not found"):
        train(tmp_path / "nowhere", out)
    assert not out.exists()
    with single_writer(out), pytest.raises(BusyError, match=r"another llmdirect process"):
        fit(dataset, out)
    answer = cli("train", dataset, "--objective", "softmin", "--out", out)
    assert answer.code == 2
    assert all(word in answer.err for word in ("--objective", "softmin", "'softmax'", "'bpr'"))
    answer = cli("train", dataset, "--lr", "0", "--out", out)
    assert answer.code == 2
    assert "--lr: 0.0, expected above 0" in answer.err
    assert cli("train", "--out", out).code == 2


def test_dataset_without_validation_split(tmp_path: Path) -> None:
    raw = tmp_path / "few.jsonl"
    raw.write_text(
        "".join(f'{{"user": "u{n % 9}", "item": "i{n % 4}", "text": "t{n}"}}\n' for n in range(18))
    )
    result = prepare(raw, tmp_path / "few")
    assert result.notes == [EMPTY_VALID_NOTE]
    dataset = Dataset.open(tmp_path / "few")
    write_embeddings(tmp_path / "few" / "stores" / "random", dataset.passages.text.to_list(), dim=12)
    with pytest.raises(DataError, match="validation split; users have one from three reviews"):
        fit(tmp_path / "few", tmp_path / "run")
    prepare(raw, tmp_path / "none", fractions=(0.8, 0.0, 0.2))
    write_embeddings(tmp_path / "none" / "stores" / "random", dataset.passages.text.to_list(), dim=12)
    with pytest.raises(DataError, match=r"split; prepare it with `fractions=\(0\.7, 0\.1, 0\.2\)`"):
        fit(tmp_path / "none", tmp_path / "run")


def test_invalid_evaluation_arguments(dataset: Path, tmp_path: Path) -> None:
    fit(dataset, tmp_path / "run", num_epochs=1)
    for invalid, message in (
        ({"split": "train"}, "`split` is 'train', expected one of valid, test"),
        ({"metrics": "ndcg@10"}, "`metrics` is 'ndcg@10', expected a list"),
        ({"depth": 0}, "`depth`: has no effect without `lists_out`"),
        ({"depth": 0, "lists_out": tmp_path / "lists.trec"}, "`depth` is 0"),
        ({"lists_out": tmp_path / "lists.csv"}, "ends in .parquet"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(dataset, tmp_path / "run", **invalid)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        evaluate(dataset, tmp_path / "run", lists_out=tmp_path / "nowhere" / "lists.parquet")
    result = evaluate(dataset, tmp_path / "run", lists_out=str(tmp_path / "lists.parquet"), depth=2)
    keys = "metrics num_users num_items split seed positive run aspects_off run_out"  # stable keys of --json
    assert result.to_json().keys() == set(keys.split())
    assert result.to_json()["run_out"] == str(tmp_path / "lists.parquet")
    assert (tmp_path / "lists.parquet").exists()
    with pytest.raises(ValueError, match="`user_ids`: 'u0', expected a list"):
        recommend(tmp_path / "run", "u0")
    with pytest.raises(ValueError, match="`item_ids`: 'i0', expected a list"):
        explain(tmp_path / "run", "u0", "i0")
    with pytest.raises(MissingError, match="no user 7"):
        recommend(tmp_path / "run", [7])  # type: ignore[list-item]


def test_rating_objective_without_ratings(tmp_path: Path) -> None:
    raw = tmp_path / "plain.csv"
    raw.write_text("u,i,t\n" + "".join(f"u{u},i{i},text {u} {i}\n" for u in range(5) for i in range(5)))
    prepare(raw, tmp_path / "plain", columns={"user": "u", "item": "i", "text": "t"})
    write_embeddings(tmp_path / "plain/stores/s", Dataset.open(tmp_path / "plain").passages.text.to_list())
    with pytest.raises(DataError, match=r"plain: has no ratings"):
        train(tmp_path / "plain", tmp_path / "run", training=TrainConfig(objective="rating"))
    train(
        tmp_path / "plain", tmp_path / "run", model=ModelConfig(aspects=2), training=TrainConfig(num_epochs=1)
    )


def test_tensorboard(dataset: Path, tmp_path: Path) -> None:
    training = TrainConfig(num_epochs=1)
    train(dataset, tmp_path / "run", model=SHAPES["default"], training=training, tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_batches_without_ratings(tmp_path: Path) -> None:
    raw = tmp_path / "few.csv"
    lines = [f"u{u},i{i},text {u} {i},{4 if (u + i) % 4 == 0 else ''}\n" for u in range(9) for i in range(7)]
    raw.write_text("u,i,t,r\n" + "".join(lines))
    prepare(raw, tmp_path / "few", columns={"user": "u", "item": "i", "text": "t", "rating": "r"})
    write_embeddings(tmp_path / "few/stores/s", Dataset.open(tmp_path / "few").passages.text.to_list())
    shape = ModelConfig(aspects=2, popularity=False)
    training = TrainConfig(objective="rating", num_epochs=3, batch_size=1)
    result = train(tmp_path / "few", tmp_path / "run", model=shape, training=training)
    assert all(np.isfinite(record.losses["loss"]) for record in result.history)


def test_rating_objective_requires_all_ratings(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "liked", positive="rating>=3")
    with pytest.raises(DataError, match=r"liked: was prepared with `positive=rating>=3`.*prepare it without"):
        fit(data, tmp_path / "run", objective="rating")
