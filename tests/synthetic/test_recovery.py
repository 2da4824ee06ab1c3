"""Recovery measures on constructed explanations: 1 if perfect, the base rate if random."""

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmdirect.aspects.matching import match
from llmdirect.synthetic.corpus import Corpus, generate
from llmdirect.synthetic.recovery import aspect_recovery, planted_word_precision
from llmdirect.synthetic.sentences import ASPECTS
from llmdirect.text.words import is_function_word, word_spans


def words(text: str) -> list[str]:
    """Words as segmented in explanations, case folded."""
    return [text[start:end].casefold() for start, end in word_spans(text)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return generate(tmp_path_factory.mktemp("raw"))


def explanation(user: str, item: str, *passages: list[tuple[str, float]]) -> dict:
    """Explanation with the contributions of words, as JSON."""
    output = []
    for passage in passages:
        entries, start = [], 0
        for word, contribution in passage:
            span = {"start": start, "end": start + len(word), "text": word, "contribution": contribution}
            entries.append(span | {"effect": contribution, "aspect": 0})
            start += len(word) + 1
        output.append({"text": " ".join(word for word, _ in passage), "words": entries})
    return {"user_id": user, "item_id": item, "passages": output}


def explanations_of(corpus: Corpus, contribution) -> list[dict]:
    """Explanations of two items per user with word weights `contribution(user, word)`."""
    by_item: dict[str, list[str]] = {}
    for review in corpus.reviews:
        by_item.setdefault(review.item_id, []).append(review.text)
    return [
        explanation(
            user,
            item,
            *([(word, contribution(user, word)) for word in words(text)] for text in by_item[item]),
        )
        for row, user in enumerate(corpus.user_ids)
        for item in (corpus.item_ids[row % 100], corpus.item_ids[(row + 37) % 100])
    ]


@pytest.mark.slow
def test_precision_of_perfect_explanations(corpus: Corpus) -> None:
    def perfect(user: str, word: str) -> float:
        aspect = corpus.aspect_of_word.get(word)
        return 2.0 * (aspect in corpus.aspects_of_interest(user)) + (aspect is not None)

    explanations = explanations_of(corpus, perfect)
    reasons = [sum(w["contribution"] == 3 for p in e["passages"] for w in p["words"]) for e in explanations]
    first = planted_word_precision(explanations, corpus, k=1)
    assert first["planted"] == 1
    # Items without a review that mentions an aspect of interest have no such word.
    assert first["of_interest"] == pytest.approx(np.mean([count > 0 for count in reasons]))
    with_reasons = [entry for entry, count in zip(explanations, reasons, strict=True) if count >= 10]
    assert len(with_reasons) > 50
    assert planted_word_precision(with_reasons, corpus)["of_interest"] == 1
    worst = explanations_of(corpus, lambda user, word: -perfect(user, word))
    assert planted_word_precision(worst, corpus)["planted"] == 0


@pytest.mark.slow
def test_precision_of_random_explanations_is_base_rate(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    explanations = explanations_of(corpus, lambda user, word: rng.random())
    result = planted_word_precision(explanations, corpus, k=30)
    assert result["planted"] == pytest.approx(result["planted_by_chance"], abs=0.01)
    assert result["of_interest"] == pytest.approx(result["of_interest_by_chance"], abs=0.01)
    shares = []
    for entry in explanations:
        content_words = [
            w["text"] for p in entry["passages"] for w in p["words"] if not is_function_word(w["text"])
        ]
        aspects = [corpus.aspect_of_word.get(word) for word in content_words]
        interests = corpus.aspects_of_interest(entry["user_id"])
        shares.append([np.mean([a in interests for a in aspects]), np.mean([a is not None for a in aspects])])
    by_chance = [result["of_interest_by_chance"], result["planted_by_chance"]]
    np.testing.assert_allclose(by_chance, np.mean(shares, axis=0))
    in_sentence = result["sentence_of_interest_by_chance"]
    assert result["sentence_of_interest"] == pytest.approx(in_sentence, abs=0.02)
    assert in_sentence > by_chance[0]
    assert 0 < by_chance[0] < by_chance[1]


def test_precision_known_values(corpus: Corpus) -> None:
    user = next(user for user in corpus.user_ids if corpus.aspects_of_interest(user) == {0})
    item = corpus.item_ids[0]
    # "Crisp" belongs to the user's aspect, "plush" to another; ties are broken by position.
    # "The" and "." are function words. "cable" is in the sentence of "Crisp", "box" in a separate one.
    first = explanation(
        user,
        item,
        [("The", 3.0), ("Crisp", 0.9), ("cable.", 0.3), ("Box", -5.0)],
        [("plush", 0.5), (".", 0.3), ("pouch", 0.3)],
    )
    second = explanation(user, item, [("muddy", 0.1)])
    result = planted_word_precision([first, second, explanation(user, item, [])], corpus, k=3)
    # Top words: three of the first explanation (Crisp, plush, cable), one of the second.
    assert result == {
        "of_interest": pytest.approx(2 / 4),
        "planted": pytest.approx(3 / 4),
        "sentence_of_interest": pytest.approx(3 / 4),
        "of_interest_by_chance": pytest.approx((3 * 1 / 5 + 1) / 4),
        "planted_by_chance": pytest.approx((3 * 2 / 5 + 1) / 4),
        "sentence_of_interest_by_chance": pytest.approx((3 * 2 / 5 + 1) / 4),
        "of_interest_recall": 1,
        "planted_recall": 1,
    }
    json.dumps(result)
    # One word of interest, not the strongest; two planted words, one of them among the two strongest.
    third = explanation(user, item, [("cable", 0.9), ("crisp", 0.8), ("box", 0.2), ("plush", 0.1)])
    result = planted_word_precision([third], corpus)
    assert (result["of_interest_recall"], result["planted_recall"]) == (0, 0.5)
    result = planted_word_precision([third, second], corpus)
    assert (result["of_interest_recall"], result["planted_recall"]) == (1 / 2, pytest.approx(2 / 3))


def test_precision_invalid_explanations(corpus: Corpus) -> None:
    empty = explanation(corpus.user_ids[0], corpus.item_ids[0], [])
    with pytest.raises(ValueError, match="none of the 1 explanations has a word that names something"):
        planted_word_precision([empty], corpus)
    with pytest.raises(ValueError, match="has a word that names something"):
        planted_word_precision([explanation(corpus.user_ids[0], "x", [("The", 1.0)])], corpus)
    with pytest.raises(ValueError, match="k is 0, below 1"):
        planted_word_precision([empty], corpus, k=0)
    with pytest.raises(ValueError, match=r"user 'nobody' is not in the corpus of .*reviews\.json\.gz"):
        planted_word_precision([explanation("nobody", "x", [("crisp", 1.0)])], corpus)


def test_aspect_recovery_invariant_to_permutation(corpus: Corpus) -> None:
    new_number = [4, 2, 7, 0, 6, 3]
    mention = {word: np.eye(8)[new_number[aspect]] for word, aspect in corpus.aspect_of_word.items()}
    result = aspect_recovery(mention | {"the": np.zeros(8)}, corpus)
    assert result["accuracy"] == result["purity"] == 1
    assert result["nmi"] == pytest.approx(1)
    assert result["matching"] == dict(zip(ASPECTS, new_number, strict=True))
    assert result["words"] == len(corpus.aspect_of_word)
    assert result["accuracy_by_chance"] < 0.35
    assert result["nmi_by_chance"] < 0.15
    json.dumps(result)


def test_aspect_recovery_known_values(corpus: Corpus) -> None:
    single = aspect_recovery({word: [1.0] for word in corpus.aspect_of_word}, corpus)
    assert single["accuracy"] == single["purity"] == pytest.approx(1 / 6)
    assert single["nmi"] == pytest.approx(0)
    assert list(single["matching"].values()).count(None) == 5
    # Predicted aspect 0 holds three words of sound and one of comfort, aspect 1 two of comfort.
    first, second = ("crisp", "clear", "muddy", "plush"), ("soft", "Itchy")
    mention = {word: [0.9, 0.1] for word in first} | {word: [0.2, 0.8] for word in second}
    result = aspect_recovery(mention, corpus)
    assert result["accuracy"] == pytest.approx(5 / 6)
    assert result["purity"] == pytest.approx((3 / 4 + 2 / 2) / 2)
    h_planted = np.log(2)
    h_predicted = -(4 / 6 * np.log(4 / 6) + 2 / 6 * np.log(2 / 6))
    h_joint = -(3 / 6 * np.log(3 / 6) + 1 / 6 * np.log(1 / 6) + 2 / 6 * np.log(2 / 6))
    assert result["nmi"] == pytest.approx(2 * (h_planted + h_predicted - h_joint) / (h_planted + h_predicted))
    assert result["matching"] == {"sound": 0, "comfort": 1} | dict.fromkeys(ASPECTS[2:])


def test_aspect_recovery_of_random_aspects_is_base_rate(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    draws = [aspect_recovery({w: rng.random(6) for w in corpus.aspect_of_word}, corpus) for _ in range(10)]
    for name in ("accuracy", "purity", "nmi"):
        value, chance = (np.mean([draw[key] for draw in draws]) for key in (name, f"{name}_by_chance"))
        assert value == pytest.approx(chance, abs=0.03), name


def test_aspect_recovery_invalid_weights(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="no planted word among the 1 words with aspect weights"):
        aspect_recovery({"the": [1.0]}, corpus)
    with pytest.raises(ValueError, match=r"shapes \[\(1,\), \(2,\)\], expected one \[K\]"):
        aspect_recovery({"crisp": [1.0], "plush": [1.0, 0.0]}, corpus)
    with pytest.raises(ValueError, match="aspect weights of 'plush' are not finite"):
        aspect_recovery({"crisp": [1.0, 0.0], "plush": [float("nan"), 0.0]}, corpus)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
        lambda shape: arrays(np.float64, shape, elements=st.integers(0, 4).map(float))
    )
)
def test_match_is_optimal(gains: np.ndarray) -> None:
    matching = match(gains)
    assert len(set(matching.values())) == len(matching)
    tall = gains if gains.shape[0] >= gains.shape[1] else gains.T
    totals = (
        sum(tall[row, column] for column, row in enumerate(rows))
        for rows in permutations(range(tall.shape[0]), tall.shape[1])
    )
    assert sum(gains[row, column] for column, row in matching.items()) == max(totals)


def test_match_too_many_columns() -> None:
    with pytest.raises(ValueError, match="13 columns to match, at most 12"):
        match(np.ones((2, 13)))
