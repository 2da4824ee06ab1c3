"""Encoder "lexical": word vectors fitted on train texts, and every stage after them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from command_line import CommandLine
from llmdirect.common.errors import DataError, MismatchError, MissingError
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.resplit import resplit
from llmdirect.encoding import lexical
from llmdirect.encoding.encoders.registered import register_encoder
from llmdirect.encoding.lexical import write_lexical_store
from llmdirect.encoding.precompute import precompute
from llmdirect.explanation.explain import explain
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.item_document import ItemText
from llmdirect.explanation.reencoding import Reencoder, texts_without
from llmdirect.reports.wording import STATIC_CAVEAT, definitions
from llmdirect.runs.inputs import load_run_encoder
from llmdirect.runs.recommend import recommend_new
from llmdirect.store.audit import audit
from llmdirect.store.consolidation import consolidate
from llmdirect.store.lexical import WORD_VECTORS
from llmdirect.store.store import EmbeddingStore, open_store
from llmdirect.text.words import counted_words
from llmdirect.training.train import train
from review_files import MAGAZINES, real
from run_helpers import WORDS, write_reviews
from word_encoder import WordEncoder

CONFIG: dict[str, Any] = {
    "model": ModelConfig(aspects=3),
    "training": TrainConfig(num_epochs=3, batch_size=32),
}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "_SHARD_TEXTS", 40)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    prepare(write_reviews(tmp_path / "raw.jsonl"), tmp_path / "data")
    return tmp_path / "data"


def split_reviews(path: Path, held_out: str = "", extra: str = "", num_users: int = 12) -> Path:
    """Reviews with a split of their own; `held_out` is added to valid and test, `extra` to one of train."""
    rng, lines = random.Random(1), []
    for user in range(num_users):
        for item in rng.sample(range(8), 5):
            split = ("train", "train", "train", "valid", "test")[len(lines) % 5]
            text = " ".join(rng.choices(WORDS, k=rng.randint(2, 7))) + f" u{user} i{item}"
            text += " " + (held_out if split != "train" else extra)
            extra = extra if split != "train" else ""
            lines.append({"user": f"u{user}", "item": f"i{item}", "text": text, "split": split})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def prepare_split(folder: Path, **changes: Any) -> Path:
    prepare(
        split_reviews(folder.with_suffix(".jsonl"), **changes), folder, split_column="split", overwrite=True
    )
    return folder


def test_all_stages(tmp_path: Path, dataset: Path, cli: CommandLine) -> None:
    for words in ("5 of 5 shards", "0 of 5 shards"):
        answer = cli("precompute", dataset, "--encoder", "lexical")
        assert (answer.code, words in answer.out) == (0, True), answer.out + answer.err
    assert cli("consolidate", dataset).code == 0
    assert "nothing to do" in cli("precompute", dataset, "--encoder", "lexical").out
    assert cli("audit", dataset).code == 0
    run = tmp_path / "run"
    train(dataset, run, **CONFIG)
    for command in (
        ("test", dataset, "--parameters", run),
        ("recommend", run, "--user", "u1"),
        ("recommend", run, "--text", "a warm sound"),
        ("explain", run, "--user", "u1", "--html", tmp_path / "why.html"),
        ("aspects", run),
        ("faithfulness", dataset, "--parameters", run, "--pairs", "4"),
        ("report", run, "--out", tmp_path / "report.html"),
    ):
        answer = cli(*command)
        assert answer.code == 0, answer.err
    report = (tmp_path / "report.html").read_text()
    assert "llmdirect precompute" in report
    assert "--encoder lexical" in report
    assert "None tokens" not in report
    answer = cli("recommend", run, "--text", "zzzz qqqq")
    assert (answer.code, "holds no words that the encoder knows" in answer.err) == (2, True)


def test_tokens_are_the_known_words(dataset: Path) -> None:
    precompute(dataset, encoder="lexical", dtype="float32")
    consolidate(dataset)
    opened, store = Dataset.open(dataset), open_store(dataset)
    vectors = lexical.read_word_vectors(store.path, store.encoder["weights"])
    of_word = dict(zip(vectors.words, vectors.vectors, strict=True))
    assert set(WORDS) <= set(of_word)
    assert store.dim == vectors.dim <= len(of_word)
    for row, passage in enumerate(store.lookup(opened.passage_keys()).tolist()):
        words, spans = counted_words(opened.passages.text[row])
        known = [number for number, word in enumerate(words) if word in of_word]
        read_spans, tokens = store.read(passage)
        np.testing.assert_array_equal(read_spans, spans[known])
        np.testing.assert_array_equal(tokens, np.array([of_word[words[number]] for number in known]))


def tfidf(texts: list[str], words: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Dense TF-IDF rows, not scaled to length 1, and the number of known words of each text."""
    counts = np.array([[counted_words(text)[0].count(word) for word in words] for text in texts])
    weight = np.log((1 + len(texts)) / (1 + (counts > 0).sum(0)))
    return counts * weight, counts.sum(1)


def test_mean_of_tokens_is_the_tfidf_vector(tmp_path: Path, dataset: Path) -> None:
    opened = Dataset.open(dataset)
    texts = sorted(set(opened.passages.text.filter(opened.passages.split == TRAIN)))
    full = write_lexical_store(dataset, tmp_path / "full", dtype="float32")
    few = write_lexical_store(opened, tmp_path / "few", dtype="float32", dimensions=5)
    assert few.dim == 5
    vectors = lexical.read_word_vectors(full.path, full.encoder["weights"])
    rows, lengths = tfidf(texts, vectors.words)
    keys = lexical.Texts.from_dataset(opened)
    own = {text: key for text, key in zip(keys.texts, keys.keys, strict=True)}
    lookup = np.stack([own[text] for text in texts])

    def products(store: EmbeddingStore) -> NDArray[np.float64]:
        means = np.stack([store.read(p)[1].mean(0, dtype=np.float64) for p in store.lookup(lookup).tolist()])
        gram = (means * lengths[:, None]) @ (means * lengths[:, None]).T
        return gram / np.trace(gram)

    # With all directions, inner products are those of the TF-IDF vectors.
    np.testing.assert_allclose(products(full), rows @ rows.T / np.square(rows).sum(), atol=2e-5)
    # With five, those of their projections to the leading right singular vectors.
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    right = np.linalg.svd(unit, full_matrices=False)[2][:5]
    projected = rows @ right.T
    np.testing.assert_allclose(products(few), projected @ projected.T / np.square(projected).sum(), atol=2e-4)


def test_held_out_texts_change_no_word(tmp_path: Path) -> None:
    first = write_lexical_store(prepare_split(tmp_path / "a"), tmp_path / "s/a")
    changed = prepare_split(tmp_path / "b", held_out="warm warm velvet orchestra velvet i1")
    second = write_lexical_store(changed, tmp_path / "s/b")
    assert first.hash != second.hash
    assert first.encoder == second.encoder
    assert (first.path / WORD_VECTORS).read_bytes() == (second.path / WORD_VECTORS).read_bytes()
    assert "velvet" not in lexical.read_word_vectors(second.path, second.encoder["weights"]).words
    third = write_lexical_store(prepare_split(tmp_path / "c", extra="warm"), tmp_path / "s/c")
    assert third.encoder["weights"] != first.encoder["weights"]


def test_another_split_is_refused(tmp_path: Path, cli: CommandLine) -> None:
    dataset, raw = tmp_path / "data", write_reviews(tmp_path / "raw.jsonl")
    prepare(raw, dataset)
    precompute(dataset, encoder="lexical")
    consolidate(dataset)
    assert audit(dataset).ok
    prepare(raw, dataset, seed=7, overwrite=True)
    fitted = "its word vectors were fitted on the train texts"
    with pytest.raises(MismatchError, match=rf"lexical-int8: {fitted} .*`encoder=\"lexical\"` again"):
        precompute(dataset, encoder="lexical")
    with pytest.raises(MismatchError, match=fitted):
        train(dataset, tmp_path / "run", **CONFIG)
    assert not (tmp_path / "run/manifest.json").exists()
    [problem] = audit(dataset).problems
    assert fitted in problem
    answer = cli("precompute", dataset, "--encoder", "lexical")
    assert (answer.code, "with --encoder lexical again" in answer.err) == (1, True), answer.err
    precompute(dataset, encoder="lexical", store="second")
    consolidate(dataset, store="second")
    train(dataset, tmp_path / "run", store="second", **CONFIG)


def test_a_store_for_each_split_in_memory(tmp_path: Path, dataset: Path) -> None:
    full = Dataset.open(dataset)
    splits = [resplit(full, split="random", seed=seed) for seed in (1, 2)]
    stores = [write_lexical_store(split, tmp_path / f"{n}") for n, split in enumerate(splits)]
    assert stores[0].encoder["train_texts"] != stores[1].encoder["train_texts"]
    again = write_lexical_store(splits[0], tmp_path / "0")
    assert again.manifest == stores[0].manifest
    with pytest.raises(MismatchError, match="fitted on the train texts"):
        write_lexical_store(splits[1], tmp_path / "0")
    with pytest.raises(MismatchError, match="fitted on the train texts"):
        train(splits[1].path, tmp_path / "run", store=str(tmp_path / "0"), **CONFIG)


@pytest.mark.parametrize("options", [{}, {"tokens": "content", "dtype": "bfloat16"}, {"dtype": "float16"}])
def test_a_kill_and_growth(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = prepare_split(tmp_path / "data", num_users=24)
    store, whole, write = str(tmp_path / "store"), str(tmp_path / "whole"), lexical.write_shard
    written: list[Path] = []

    def killed(path: Path, **entries: Any) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        write(path, **entries)

    monkeypatch.setattr(lexical, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        precompute(dataset, encoder="lexical", store=store, **options)
    monkeypatch.setattr(lexical, "write_shard", write)
    result = precompute(dataset, encoder="lexical", store=store, **options)
    assert result.plan is not None
    assert (result.encoded_shards, result.plan.shards) == (2, 3)
    consolidate(dataset, store=store)
    expected = write_lexical_store(dataset, whole, **options)
    assert EmbeddingStore.open(store).manifest == expected.manifest
    assert expected.num_rows == result.tokens
    prepare_split(tmp_path / "data", num_users=24, held_out="bright velvet")
    grown = precompute(dataset, encoder="lexical", store=store, **options)
    assert grown.encoded_shards > 0
    consolidate(dataset, store=store)
    assert EmbeddingStore.open(store).contains(Dataset.open(dataset).passage_keys()).all()
    assert EmbeddingStore.open(store).encoder == expected.encoder
    with pytest.raises(MismatchError, match="dimensions is 384 there, 7 here"):
        precompute(dataset, encoder="lexical", store=store, dimensions=7, **options)
    prepare_split(tmp_path / "data", num_users=24, extra="bright")
    with pytest.raises(MismatchError, match="fitted on the train texts"):
        precompute(dataset, encoder="lexical", store=store, **options)


def test_content_words(dataset: Path, tmp_path: Path) -> None:
    raw = tmp_path / "the.jsonl"
    raw.write_text(write_reviews(raw).read_text().replace("warm", "the"))
    prepare(raw, tmp_path / "the")
    every = write_lexical_store(tmp_path / "the", tmp_path / "all")
    content = write_lexical_store(tmp_path / "the", tmp_path / "content", tokens="content")
    assert content.token_format.tokens == "content"
    assert content.num_rows < every.num_rows


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"project": 4}, "`project`"),
        ({"device": "cpu", "max_length": 7}, "`device`"),
        ({"token_budget": 9}, "`token_budget`"),
        ({"shard_tokens": 9}, "`shard_tokens`"),
        ({"revision": "main"}, "`revision`"),
        ({"estimate_only": True}, "`estimate_only`"),
        ({"engine": "ray"}, "`engine`"),
    ],
)
def test_settings_without_effect(dataset: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=rf'{named}: has no effect with `encoder="lexical"`; leave'):
        precompute(dataset, encoder="lexical", **options)


def test_what_is_refused(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    for dimensions in (0, 5000):
        with pytest.raises(ValueError, match=rf"`dimensions`: {dimensions}, expected 1 to 4096"):
            precompute(dataset, encoder="lexical", dimensions=dimensions)
    with pytest.raises(ValueError, match=r"`dimensions`: has no effect"):
        precompute(dataset, encoder="minilm", dimensions=5)
    with pytest.raises(ValueError, match="not 'minilm' or 'lexical'"):
        register_encoder("lexical", WordEncoder)
    answer = cli("precompute", dataset, "--encoder", "lexical", "--check")
    assert (answer.code, "lexical: is fitted on the train texts" in answer.err) == (2, True)
    raw = tmp_path / "once.jsonl"
    raw.write_text(
        "".join(
            json.dumps({"user": f"u{n % 3}", "item": f"i{n}", "text": f"word{n} only{n}"}) + "\n"
            for n in range(9)
        )
    )
    prepare(raw, tmp_path / "once")
    with pytest.raises(DataError, match="no word is in 2 texts of train"):
        precompute(tmp_path / "once", encoder="lexical")
    (dataset / "stores/lexical-int8").mkdir(parents=True)
    (dataset / "stores/lexical-int8/plan.json").write_text("{}")
    with pytest.raises(MismatchError, match="holds shards of a language model"):
        precompute(dataset, encoder="lexical")


def test_new_texts_are_read_with_the_words_of_the_store(tmp_path: Path, dataset: Path) -> None:
    precompute(dataset, encoder="lexical")
    consolidate(dataset)
    run, store = tmp_path / "run", dataset / "stores/lexical-int8"
    train(dataset, run, **CONFIG)
    first = recommend_new(run, texts=["a warm sound"]).recommendations[0].items
    with pytest.raises(ValueError, match="`device`: 'cuda' has no effect"):
        recommend_new(run, texts=["a warm sound"], device="cuda")
    moved = store.rename(tmp_path / "moved")
    with pytest.raises(MissingError, match=f"{WORD_VECTORS}: not found.*`encoder`"):
        recommend_new(run, texts=["a warm sound"])
    again = recommend_new(run, texts=["a warm sound"], encoder=str(moved)).recommendations[0].items
    assert [(item.item_id, item.score) for item in again] == [(item.item_id, item.score) for item in first]
    path = moved / WORD_VECTORS
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(MismatchError, match="not the word vectors of the store"):
        recommend_new(run, texts=["a warm sound"], encoder=str(moved))
    moved.rename(store)
    [problem] = audit(dataset).problems
    assert "not the file that the store was made with" in problem
    (store / WORD_VECTORS).unlink()
    [problem] = audit(dataset).problems
    assert f"{WORD_VECTORS}: missing; copy it back" in problem


def test_effects_are_exact(tmp_path: Path, dataset: Path) -> None:
    # Vectors do not depend on context: texts read again have the score that the closed form predicts.
    precompute(dataset, encoder="lexical")
    consolidate(dataset)
    train(
        dataset,
        tmp_path / "run",
        model=ModelConfig(aspects=3, collaborative=False),
        training=CONFIG["training"],
    )
    explained = explain(tmp_path / "run", "u1", k=1, counterfactual=2)
    assert definitions(explained)[2] == STATIC_CAVEAT
    result = explained["explanations"][0]["counterfactual"]
    assert result["words"]
    assert result["checked"]["rank"] == result["predicted"]["rank"]
    assert result["checked"]["score"] == pytest.approx(result["predicted"]["score"], abs=1e-5)
    explainer = Explainer.open(tmp_path / "run")
    reader = Reencoder(explainer, load_run_encoder(explainer.trained.run))
    texts, model, query = explainer.texts, explainer.texts.model, explainer.query(0)
    passages = texts.read_passages(texts.passages_of(1))
    text = ItemText.from_passages(passages, model, explainer.trained.lexicon)
    whole = reader.text_term(query, [passage.text for passage in passages])
    changes = [
        whole - reader.text_term(query, texts_without(passages, text, [word])) for word in range(len(text))
    ]
    effects = text.effects(query, model)[0].numpy()
    assert np.abs(effects).max() > 1e-3
    np.testing.assert_allclose(changes, effects, atol=1e-9)


@pytest.mark.parametrize("call", ["python", "command"])
def test_torch_is_not_imported(dataset: Path, call: str) -> None:
    run = {
        "python": f"import llmdirect; llmdirect.precompute({str(dataset)!r}, encoder='lexical')",
        "command": f"sys.argv = ['llmdirect', 'precompute', {str(dataset)!r}, '--encoder', 'lexical']\n"
        "from llmdirect.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code",
    }[call]
    script = f"import sys\n{run}\nprint(sorted({{'torch', 'transformers', 'tokenizers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_bytes_do_not_depend_on_threads_or_processor(dataset: Path) -> None:
    texts = sorted(set(Dataset.open(dataset).passages.text))
    script = (
        "import hashlib, json, sys; from llmdirect.text.word_vectors import WordVectors\n"
        "fitted = WordVectors.fit(json.loads(sys.argv[1]), 20)\n"
        "print(hashlib.md5(fitted.vectors.tobytes() + fitted.channels.tobytes()).hexdigest())"
    )
    printed = set()
    for threads, core in (("1", ""), ("2", "Prescott")):  # Prescott: kernels of OpenBLAS without AVX
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": core}
        command = [sys.executable, "-c", script, json.dumps(texts)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        printed.add(done.stdout)
    assert len(printed) == 1


def test_magazine(tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    dataset = tmp_path / "data"
    assert cli("prepare", real(MAGAZINES), "--out", dataset).code == 0
    answer = cli("precompute", dataset, "--encoder", "lexical", "--dimensions", "64", "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert (result["dim"], result["texts"], result["encoded_shards"]) == (64, 1866, 2)
    assert cli("consolidate", dataset).code == 0
    assert audit(dataset).ok
