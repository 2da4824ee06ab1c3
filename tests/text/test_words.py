"""Word spans, mapping of tokens to words, and static vectors of word types."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from llmdirect.model.train_view import TrainView
from llmdirect.model.word_types import WordTypes
from llmdirect.text.words import count_words, counted_words, token_word_ids, word_spans
from model_helpers import Row, dataset_of, write_embeddings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's warm, isn\u2019t it?", ["It's", " ", "warm", ",", " ", "isn\u2019t", " ", "it", "?"]),
        ("well-made  ...ok", ["well", "-", "made", "  ", "...", "ok"]),
        ("good.Then U.S.A 10.5", ["good", ".", "Then", " ", "U.S.A", " ", "10.5"]),
        ("अच्छा है।", ["अच्छा", " ", "है", "।"]),
        ("कि\u094dक", ["कि\u094dक"]),
        ("很好 😀👍🏽", ["很好", " ", "😀👍🏽"]),
        ("half \ud83d", ["half", " ", "\ud83d"]),
        ("नमस्ते जी", ["नमस्ते", " ", "जी"]),
        ("cafe\u0301 noir", ["cafe\u0301", " ", "noir"]),
        ("", []),
    ],
)
def test_word_spans_cover_text(text: str, words: list[str]) -> None:
    spans = word_spans(text).tolist()
    assert [text[start:end] for start, end in spans] == words
    assert "".join(words) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A GUITAR isn\u2019t 7 x2", ["guitar", "isn't", "x2"]),
        # One ideograph or Hangul syllable is a word, one letter of another script is not.
        ("吉他的音色非常好。弦很软", ["吉他", "的", "音色", "非常", "好", "弦", "很", "软"]),
        ("このギターは音がとても良いです", ["この", "ギター", "音", "とても", "良い", "です"]),
        ("กีตาร์ตัวนี้เสียงดี", ["กีตาร์", "ตัว", "นี้", "เสียง", "ดี"]),
        ("기타 줄", ["기타", "줄"]),
        ("यह गिटार अच्छा है", ["यह", "गिटार", "अच्छा", "है"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # noqa: RUF001
        ("😀👍🏽 👨‍👩‍👧 🅰️ 1️⃣ 🇩🇪", []),
        ("half \ud83d", ["half"]),
        ("", []),
    ],
)
def test_counted_words(text: str, words: list[str]) -> None:
    found, spans = counted_words(text)
    assert found == words
    assert [text[start:end].lower().replace("\u2019", "'") for start, end in spans.tolist()] == words


def test_counts_are_those_of_the_single_texts() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["A", "warm", "Warm", "很好", "ok", "..."], 9)) for _ in range(700)]
    vocabulary, indptr, words, counts = count_words([*texts, ""])
    assert vocabulary == sorted(vocabulary)
    assert len(indptr) == len(texts) + 2
    for row, text in enumerate([*texts, ""]):
        entries = slice(indptr[row], indptr[row + 1])
        found = {vocabulary[word]: count for word, count in zip(words[entries], counts[entries], strict=True)}
        assert found == Counter(counted_words(text)[0])
        assert (np.diff(words[entries]) > 0).all()


def test_tokens_between_counted_words_belong_to_none() -> None:
    spans = np.array([[0, 1], [2, 6], [6, 7], [8, 9], [9, 12]], np.uint32)
    assert token_word_ids(spans, counted_words("a good, x day")[1]).tolist() == [-1, 0, -1, -1, -1]
    assert token_word_ids(spans, counted_words("")[1]).tolist() == [-1] * 5


def test_tokens_map_to_word_of_their_start() -> None:
    spans = np.array([[0, 0], [0, 3], [3, 6], [6, 7], [8, 10], [10, 11], [0, 0]], np.uint32)
    assert token_word_ids(spans, word_spans("abcdef, gh.")).tolist() == [-1, 0, 0, 1, 3, 4, -1]


def test_word_types_are_means_over_occurrences(tmp_path: Path) -> None:
    texts = ["Warm sound", "warm cable, warm", "sound 12", "warm", "cable warm", ""] * 3
    texts = [f"{text} {'x' * number}".strip() for number, text in enumerate(texts)]
    rows = [Row(number % 4, number % 5, text) for number, text in enumerate(texts)]
    dataset = dataset_of(rows, 4, 5)
    store = write_embeddings(tmp_path / "store", texts)
    view = TrainView.from_dataset(dataset, store)
    types = WordTypes.from_view(view, dataset.passages.text.gather(view.passage_idx))
    tokens_of_word = defaultdict(list)
    for text, number in zip(dataset.passages.text.to_list(), view.stored.tolist(), strict=True):
        spans = store.spans[store.offsets[number] : store.offsets[number + 1]].tolist()
        tokens = store.tokens_numpy[store.offsets[number] : store.offsets[number + 1]]
        for (start, end), token in zip(spans, tokens, strict=True):
            if end > start and text[start].isalpha():
                tokens_of_word[text[start:end].strip(",").casefold()].append(token)
    expected = {word: np.mean(tokens, axis=0) for word, tokens in tokens_of_word.items() if len(tokens) >= 5}
    assert set(types.names) == set(expected) == {"warm", "sound", "cable"}
    for name, vector in zip(types.names, types.vectors.numpy(), strict=True):
        np.testing.assert_allclose(vector, expected[name], rtol=1e-5)
    assert types.names[0] == "warm"
    items_of_word = {
        name: {row % 5 for row, text in enumerate(texts) if name in text.replace(",", "").casefold().split()}
        for name in types.names
    }
    assert types.items.tolist() == [len(items_of_word[name]) for name in types.names]
