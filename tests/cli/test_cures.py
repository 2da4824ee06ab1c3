"""Errors name the file and a cure, and the cure works when it is followed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny
from command_line import CommandLine
from llmdirect.common.errors import DataError
from llmdirect.common.files import disk_full_hint, write_atomic, write_hashed
from llmdirect.data.dataset import TEST, VALID, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.encoding.encoders import load_encoder
from llmdirect.evaluation.protocol import evaluate_ratings
from llmdirect.ranking.rating_metrics import disliked_to, liked_from
from llmdirect.runs.evaluate import evaluate
from llmdirect.runs.trained import Trained
from run_helpers import fit, make_dataset, write_reviews
from store_helpers import largest_file

# ---- language models


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("models")
    return lambda name: tiny.build(name, folder)[0]


@pytest.mark.parametrize("name", ["bert", "roberta", "t5", "t5gemma", "t5gemma2"])
def test_a_model_without_its_tokenizer_is_refused(
    checkpoints: Callable[[str], Path], tmp_path: Path, cli: CommandLine, name: str
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(checkpoints(name) / file, bare / file)
    prepare(write_reviews(tmp_path / "reviews.json"), tmp_path / "data")
    answer = cli("precompute", tmp_path / "data", "--encoder", bare)
    assert answer.code == 1
    assert f"{bare}: no tokenizer files (tokenizer.json" in answer.err
    for file in checkpoints(name).iterdir():  # the cure
        shutil.copy(file, bare / file.name)
    assert load_encoder(str(bare), max_length=64).dim
    (bare / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="its tokenizer cannot be read"):
        load_encoder(str(bare), max_length=64)


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path: Path) -> None:
    model = tiny.bert()
    model.resize_token_embeddings(50)
    folder = tiny.save(model, tiny.bert_tokenizer(), tmp_path / "model")
    with pytest.raises(DataError, match=r"its tokenizer numbers words up to \d+, and the model has .* 50"):
        load_encoder(str(folder))


def test_a_model_that_was_moved_is_to_be_named(
    checkpoints: Callable[[str], Path], tmp_path: Path, cli: CommandLine
) -> None:
    encoder = shutil.copytree(checkpoints("bert"), tmp_path / "old")
    prepare(write_reviews(tmp_path / "reviews.json"), tmp_path / "data")
    assert cli("precompute", tmp_path / "data", "--encoder", encoder).code == 0
    assert cli("consolidate", tmp_path / "data").code == 0
    fit(tmp_path / "data", tmp_path / "run", num_epochs=1)
    moved = encoder.rename(tmp_path / "new")
    ask = ("recommend", tmp_path / "run", "--text", "warm sound")
    answer = cli(*ask)
    assert answer.code == 1
    assert "was in a folder 'old', which is not here; name its present location with --encoder" in answer.err
    assert cli(*ask, "--encoder", moved).code == 0


# ---- cures of messages


def test_cures_work_when_followed(tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_dataset(tmp_path / "data")
    raw, run = tmp_path / "data.json", tmp_path / "run"
    for command, cure, words in (
        (("prepare", raw, "--out", data, "--k-core", 1), "--overwrite", ["--overwrite"]),
        (("train", data, "--out", run, "--num-epochs", 1, "--g3", 1),
         "--token-epochs 5", ["--token-epochs", 5]),
        (("train", data, "--out", run, "--num-epochs", 1, "--lr", 1e-4), "--overwrite", ["--overwrite"]),
        (("train", data, "--out", tmp_path / "r2", "--num-epochs", 1, "--score-form", "ratio",
          "--history-term", "ease+neighbours"), "--score-form cosine", ["--score-form", "cosine"]),
        (("train", data, "--out", tmp_path / "r3", "--num-epochs", 1, "--no-collaborative",
          "--history-term", "ease"), "--collaborative", ["--collaborative"]),
        (("grid", data, "--num-epochs", 1, "--param", "lr=1e-3", "--trials", 1),
         "--sampler tpe", ["--sampler", "tpe"]),
        (("grid", data, "--out", tmp_path / "g2", "--num-epochs", 1, "--param", "orthogonality=1"),
         "--param token_epochs=5", ["--param", "token_epochs=1"]),
        (("prepare", raw, "--out", tmp_path / "d2", "--split", "leave-last-out", "--seed", 3),
         "--split random", ["--split", "random"]),
        (("test", data, "--parameters", run, "--depth", 5), "--lists-out", ["--lists-out", "lists.parquet"]),
    ):  # fmt: skip
        answer = cli(*command)
        assert answer.code in (1, 2), command
        assert cure in answer.err, answer.err
        cured = cli(*command, *words)
        assert cured.code == 0, (command, words, cured.err)


# ---- a full disk


def test_a_full_disk_names_path_and_cure(tmp_path: Path) -> None:
    cure = "make room and run again"
    with largest_file(10), pytest.raises(OSError, match=f"{cure}: .*report.html"):
        write_atomic(tmp_path / "report.html", lambda file: file.write(b"x" * 100))
    with largest_file(10), pytest.raises(OSError, match=f"{cure}: .*table.parquet"):
        write_hashed(tmp_path, "table", ".parquet", lambda file: file.write(b"x" * 100))
    inner = disk_full_hint(tmp_path, f"{cure}; nothing has changed")
    with (
        largest_file(10),
        pytest.raises(OSError, match=f"; {cure}; nothing has changed: .*a.json") as full,
        inner,
    ):
        write_atomic(tmp_path / "a.json", lambda file: file.write(b"x" * 100))
    assert str(full.value).count(cure) == 1
    assert not list(tmp_path.iterdir())


def test_every_stage_names_path_and_cure_of_a_full_disk(tmp_path: Path, cli: CommandLine) -> None:
    data = make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    fit(data, run, num_epochs=1)
    for stage in (
        ("prepare", tmp_path / "data.json", "--out", tmp_path / "d2"),
        ("precompute", data, "--encoder", "minilm"),
        ("train", data, "--out", tmp_path / "r2", "--num-epochs", 1),
        ("grid", data, "--out", tmp_path / "g", "--num-epochs", 1, "--param", "lr=1e-3"),
        ("scoreboard", data, "--rows", "popularity", "--splits", 1, "--out", tmp_path / "s"),
        ("report", run, "--out", tmp_path / "report.html"),
        ("explain", run, "--user", "u1", "--html", tmp_path / "why.html"),
        ("test", data, "--parameters", run, "--lists-out", tmp_path / "lists.parquet"),
    ):
        with largest_file(400):
            answer = cli(*stage)
        assert answer.code == 1, (stage, answer)
        assert "make room" in answer.err, (stage, answer.err)
        assert str(tmp_path) in answer.err, (stage, answer.err)


# ---- ratings of another scale


def test_what_is_liked_follows_the_scale() -> None:
    for ratings, expected in (
        ([1, 2, 3, 4, 5], 4), ([2, 5], 4), ([0.5, 4.5], 4), ([0, 40, 100], 75), ([1, 10], 7.75),
        ([0, 1], 0.75), ([-10, 10], 5), ([float("nan"), 0, 20], 15), ([float("nan")], 4),
    ):  # fmt: skip
        assert liked_from(torch.tensor(ratings).numpy()) == expected


def test_what_is_disliked_follows_the_scale() -> None:
    for ratings, expected in (([1, 5], 2), ([0, 100], 25), ([1, 10], 3.25), ([float("nan")], 2)):
        assert disliked_to(torch.tensor(ratings).float().numpy()) == expected


def test_what_is_liked_is_a_setting(tmp_path: Path, cli: CommandLine) -> None:
    data, run, ranking = make_dataset(tmp_path / "data"), tmp_path / "run", tmp_path / "ranking"
    train = ("train", data, "--num-epochs", 1, "--out")
    assert cli(*train, run, "--objective", "rating", "--liked", 3).code == 0
    assert cli(*train, ranking).code == 0
    figures = json.loads((run / "history.jsonl").read_text().splitlines()[-1])["valid"]
    tables, opened = Trained.load(run).tables, Dataset.open(data)
    assert figures["accuracy"] == pytest.approx(evaluate_ratings(tables, opened, VALID, 3)["accuracy"])
    assert figures["accuracy"] != pytest.approx(evaluate_ratings(tables, opened, VALID)["accuracy"])
    test = ("test", data, "--parameters", run, "--json")
    for words, liked in (((), 3), (("--liked", 2), 2), (("--liked", 4), 4)):
        metrics = json.loads(cli(*test, *words).out)["metrics"]
        assert metrics["accuracy"] == pytest.approx(evaluate_ratings(tables, opened, TEST, liked)["accuracy"])
    for command, error in (
        (("train", data, "--liked", 3), "--liked: has no effect with --objective softmax"),
        (
            ("test", data, "--parameters", ranking, "--liked", 3),
            "--liked: has no effect with a run that ranks",
        ),
        ((*test, "--liked", "inf"), "--liked: inf, expected -1e+12 to 1e+12"),
        ((*test, "--liked", "nan"), "--liked: nan, expected -1e+12 to 1e+12"),
    ):
        answer = cli(*command)
        assert (answer.code, error in answer.err) == (2, True), answer.err


@pytest.mark.parametrize("scale", [100.0, 0.0])
def test_ratings_of_another_scale_are_measured(tmp_path: Path, cli: CommandLine, scale: float) -> None:
    raw = write_reviews(tmp_path / "plain.json")
    lines = [json.loads(line) for line in raw.read_text().splitlines()]
    for line in lines:
        line["overall"] = (line["overall"] - 1) * 25.0 if scale else 2.0
    (tmp_path / "data.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = tmp_path / "data"
    prepare(tmp_path / "data.json", data)
    other = make_dataset(tmp_path / "other")
    shutil.copytree(other / "stores", data / "stores")
    run = tmp_path / "run"
    assert cli("train", data, "--out", run, "--objective", "rating", "--num-epochs", 1).code == 0
    metrics = evaluate(data, run).metrics
    if scale:
        assert 0 < metrics["accuracy"] < 1  # type: ignore[operator]
        return
    assert metrics["accuracy"] is metrics["f1"] is metrics["auc"] is None
    assert json.loads(cli("test", data, "--parameters", run, "--json").out)["metrics"]["f1"] is None
    assert "-" in cli("test", data, "--parameters", run).out
