"""Corpora of unusual words through training, aspects and explanations."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from llmdirect.aspects.quality import npmi
from llmdirect.collaborative.similarity import WordCounts
from llmdirect.data.prepare import prepare
from llmdirect.explanation.explainer import Explainer
from llmdirect.model.word_types import _Occurrences
from llmdirect.training.results import TrainResult
from model_helpers import Row, dataset_of
from run_helpers import fit
from word_encoder import write_words

ADJECTIVES, NOUNS = ["非常好", "很明亮", "太吵闹"], ["吉他", "琴弦", "钢琴"]


def chinese(user: int, item: int) -> str:
    return f"这把{NOUNS[item % 3]}的音色{ADJECTIVES[user % 3]}。" + f"我很喜欢{NOUNS[item % 3]}。" * (
        1 + item // 3
    )


def emoji(user: int, item: int) -> str:
    return "\U0001f600\U0001f44d\U0001f3fd" * (1 + item) + "\U0001f3b8" * (user % 2)


def rare(user: int, item: int) -> str:
    return f"word{user}x{item}"


def long_and_rare(user: int, item: int) -> str:
    """A text is a batch of its own, in which no word is frequent."""
    count = 17_000 if user == 3 else 1
    return " ".join(f"word{user}x{item}y{number}" for number in range(count))


def long_among_frequent(user: int, item: int) -> str:
    return long_and_rare(user, item) if user == 3 else "warm strings " * (1 + item)


def one_word(user: int, item: int) -> str:
    return "guitar " * (1 + (user + item) % 10)


def function_words(user: int, item: int) -> str:
    return "the of and " * (1 + (user + item) % 10)


def symbols(user: int, item: int) -> str:
    return "... !!! " * (1 + (user + item) % 10)


def almost_no_text(user: int, item: int) -> str:
    return "good" if (user, item) == (0, 0) else ""


Text = Callable[[int, int], str]
CORPORA: list[Text] = [chinese, emoji, rare, one_word, function_words, symbols, almost_no_text]


def trained(text: Text, folder: Path) -> TrainResult:
    rng = random.Random(0)
    pairs = [(user, item) for user in range(12) for item in [0, *rng.sample(range(1, 10), 5)]]
    lines = [{"user": f"u{user}", "item": f"i{item}", "text": text(user, item)} for user, item in pairs]
    reviews = folder / "reviews.jsonl"
    reviews.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(reviews, folder / "data")
    write_words(folder / "data")
    return fit(folder / "data", folder / "run", num_epochs=1)


@pytest.mark.parametrize("text", CORPORA, ids=lambda text: text.__name__)
def test_training_ends(text: Text, tmp_path: Path) -> None:
    assert trained(text, tmp_path).epochs == 1
    assert len(Explainer.open(tmp_path / "run").trained.aspect_names) == 3


@pytest.mark.slow
@pytest.mark.parametrize("text", [long_and_rare, long_among_frequent], ids=lambda text: text.__name__)
def test_training_ends_with_a_batch_without_frequent_words(
    text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, token_sums = [], _Occurrences.token_sums

    def recorded(*arguments: Any) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
        for batch in token_sums(*arguments):
            batches.append(len(batch[1]))
            yield batch

    monkeypatch.setattr(_Occurrences, "token_sums", recorded)
    assert trained(text, tmp_path).epochs == 1
    assert 0 in batches


def test_words_of_chinese_name_aspects_and_are_explained(tmp_path: Path) -> None:
    trained(chinese, tmp_path)
    explainer = Explainer.open(tmp_path / "run")
    words = {*NOUNS, "音色", "这", "把", "的", "非常", "好", "很", "明亮", "太", "吵闹", "我", "很喜欢"}
    named = {word for name in explainer.trained.aspect_names for word in name.split(", ")}
    assert named <= words
    assert set(NOUNS) <= set(explainer.trained.lexicon.words) <= words
    item = int(explainer.candidates(0)[0])
    explanation = explainer.explain(0, item)
    explained = {word["text"] for passage in explanation["passages"] for word in passage["words"]}
    assert NOUNS[item % 3] in explained or not explanation["passages"]
    assert explained - {"。"} <= words


def test_words_of_every_script_relate_items() -> None:
    texts = ["กีตาร์เสียงดี", "กีตาร์ตัวนี้", "ギターの音", "ギターを買いました", "अच्छा गिटार", "गिटार है"]
    texts += ["\U0001f600"] * 2
    dataset = dataset_of([Row(0, item, text) for item, text in enumerate(texts)], 1, len(texts))
    counts = WordCounts.from_texts(dataset.passages.text, torch.arange(len(texts)))
    assert counts.vocabulary.to_list() == sorted(["กีตาร์", "ギター", "गिटार"])
    assert counts.indptr.diff().tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def test_coherence_counts_the_same_words() -> None:
    texts = ["很好的吉他", "吉他很好", "Warm, isn\u2019t it", "isn't WARM", "x"]
    assert npmi([["吉他", "很"], ["warm", "isn't"], ["warm", "吉他"], ["x"]], texts)[1:] == pytest.approx(
        [1.0, -1.0, 0.0]
    )
