"""Encoders of one's own: the hook, the checks of what they return, and the stages after them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmdirect.common.errors import DataError, MismatchError, MissingError
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.encoding.encoders import registered
from llmdirect.encoding.encoders.registered import check_encoder, register_encoder
from llmdirect.encoding.precompute import precompute
from llmdirect.explanation.explain import explain
from llmdirect.runs.recommend import recommend_new
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore, open_store
from llmdirect.training.train import train
from run_helpers import write_reviews
from word_encoder import DIM, WordEncoder


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "_LOADERS", {})
    monkeypatch.setattr(registered, "_LOADED", {})
    monkeypatch.setattr("llmdirect.encoding.registered_job._SHARD_TEXTS", 40)
    register_encoder("words", WordEncoder)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    prepare(write_reviews(tmp_path / "raw.jsonl"), tmp_path / "data")
    return tmp_path / "data"


def test_all_stages(tmp_path: Path, dataset: Path) -> None:
    result = precompute(dataset, encoder="words", dtype="float32")
    assert result.store.name == "words-float32"
    assert result.plan is not None
    assert (result.plan.dim, result.encoded_shards, result.pending_shards) == (DIM, 5, 5)
    assert precompute(dataset, encoder="words", dtype="float32").encoded_shards == 0
    consolidate(dataset)
    assert precompute(dataset, encoder="words", dtype="float32").consolidated
    opened, store = Dataset.open(dataset), open_store(dataset)
    assert result.tokens == store.num_rows
    for row, passage in enumerate(store.lookup(opened.passage_keys()).tolist()):
        [embedding] = WordEncoder().encode([opened.passages.text[row]])
        spans, tokens = store.read(passage)
        np.testing.assert_array_equal(spans, embedding.spans)
        np.testing.assert_array_equal(tokens, embedding.tokens.numpy())
    run = tmp_path / "run"
    train(dataset, run, model=ModelConfig(aspects=3), training=TrainConfig(num_epochs=2))
    assert recommend_new(run, texts=["a warm sound"]).recommendations[0].items
    result = explain(run, "u1", k=1, counterfactual=3)
    assert result["explanations"][0]["passages"][0]["words"]

    class Other(WordEncoder):
        version = "2"

    register_encoder("words", Other)
    with pytest.raises(MismatchError, match="another version"):
        recommend_new(run, texts=["warm"])
    with pytest.raises(MismatchError, match="weights"):
        precompute(dataset, encoder="words", dtype="float32")
    registered._LOADERS.clear()
    with pytest.raises(MissingError, match=r"call `llmdirect.register_encoder\('words', ...\)` first"):
        recommend_new(run, texts=["warm"])


@pytest.mark.parametrize("options", [{}, {"project": 4, "tokens": "content"}, {"dtype": "bfloat16"}])
def test_a_growing_dataset_and_a_kill(
    tmp_path: Path, dataset: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(tmp_path / "store")

    class Killed(WordEncoder):
        left = 2

        def encode(self, texts: Sequence[str], *, token_budget: int = 0) -> list[Any]:
            if "boom" in sizes and len(texts) > 1:
                Killed.left -= 1
                if Killed.left < 0:
                    raise KeyboardInterrupt
            return super().encode(texts)

    sizes = {"boom"}
    register_encoder("words", Killed)
    with pytest.raises(KeyboardInterrupt):
        precompute(dataset, encoder="words", store=store, **options)
    sizes.clear()
    precompute(dataset, encoder="words", store=store, **options)
    consolidate(dataset, store=store)
    first = EmbeddingStore.open(store)
    other = str(tmp_path / "other")
    precompute(dataset, encoder="words", store=other, **options)
    consolidate(dataset, store=other)
    assert EmbeddingStore.open(other).hash == first.hash
    prepare(write_reviews(tmp_path / "more.jsonl", num_users=30), tmp_path / "more")
    grown = precompute(tmp_path / "more", encoder="words", store=store, **options)
    assert 0 < grown.encoded_shards < 5
    consolidate(tmp_path / "more", store=store)
    keys = Dataset.open(tmp_path / "more").passage_keys()
    assert EmbeddingStore.open(store).contains(keys).all()


def test_settings_without_effect(dataset: Path) -> None:
    for setting, value in {"device": "cpu", "max_length": 7, "shard_tokens": 9, "engine": "here"}.items():
        with pytest.raises(ValueError, match=f"^`{setting}`: has no effect with a registered encoder"):
            precompute(dataset, encoder="words", **{setting: value})  # type: ignore[arg-type]
    for name in ("", "minilm", "a/b"):
        with pytest.raises(ValueError, match="name of an encoder"):
            register_encoder(name, WordEncoder)
    register_encoder("nothing", dict)  # type: ignore[arg-type]
    with pytest.raises(MissingError, match="encoder nothing: dict has no method `encode`"):
        precompute(dataset, encoder="nothing")


class Fixed:
    """Returns what it was made with."""

    def __init__(self, vectors: Any, spans: Any) -> None:
        self.result = vectors, spans

    def encode(self, texts: Sequence[str]) -> list[Any]:
        return [self.result for _ in texts]


@pytest.mark.parametrize(
    ("vectors", "spans", "message"),
    [
        (np.ones((1, 3)), [[0, 9]], "span 0 to 9, outside of the text of 4 characters"),
        (np.ones((1, 3)), [[-1, 2]], "span -1 to 2, outside"),
        (np.ones((1, 3)), [[3, 2]], "span 3 to 2, outside"),
        (np.ones((2, 3)), [[2, 4], [0, 1]], "spans do not ascend"),
        (np.ones((2, 3)), [[0, 1]], r"expected whole numbers \[2, 2\]"),
        (np.ones((1, 3)), [[0.0, 1.0]], "spans are float64"),
        (np.array([[1.0, np.nan]]), [[0, 1]], "NaN or an infinity"),
        (np.ones(3), [[0, 1]], r"vectors are torch.float64 \[3\]"),
        (np.ones((1, 3), int), [[0, 1]], "expected floats"),
        ("text", "text", "expected a pair"),
    ],
)
def test_what_an_encoder_must_not_return(vectors: Any, spans: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"encoder Fixed: text 'warm'.*{message}"):
        check_encoder(Fixed(vectors, spans))


def test_check_encoder() -> None:
    assert check_encoder(WordEncoder()) == DIM
    special = Fixed(torch.ones(3, 5), np.array([[0, 0], [0, 4], [0, 0]]))  # special tokens at both ends
    assert check_encoder(special, ["warm"]) == 5

    class Short(WordEncoder):
        def encode(self, texts: Sequence[str], *, token_budget: int = 0) -> list[Any]:
            return super().encode(texts[:1])

    with pytest.raises(DataError, match="1 results for 6 texts"):
        check_encoder(Short())

    class Mixed(WordEncoder):
        def encode(self, texts: Sequence[str], *, token_budget: int = 0) -> list[Any]:
            return [(each.tokens * len(texts), each.spans) for each in super().encode(texts)]

    with pytest.raises(DataError, match="other vectors alone than together"):
        check_encoder(Mixed())
