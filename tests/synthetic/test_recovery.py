"""Recovery measures on hand-made explanations: perfect is 1, random is the base rate."""

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
    """Words as explanations cut them, case folded."""
    return [text[start:end].casefold() for start, end in word_spans(text)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return generate(tmp_path_factory.mktemp("raw"))


def explanation(user: str, item: str, *passages: list[tuple[str, float]]) -> dict:
    """An explanation of words with contributions, as JSON."""
    shown = []
    for passage in passages:
        entries, start = [], 0
        for word, contribution in passage:
            place = {"start": start, "end": start + len(word), "text": word, "contribution": contribution}
            entries.append(place | {"effect": contribution, "aspect": 0})
            start += len(word) + 1
        shown.append({"text": " ".join(word for word, _ in passage), "words": entries})
    return {"user_id": user, "item_id": item, "passages": shown}


def explained(corpus: Corpus, contribution) -> list[dict]:
    """Each user with the reviews of two items; contribution(user, word) weighs a word."""
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
def test_precision_of_perfect_explanations_is_one(corpus: Corpus) -> None:
    def perfect(user: str, word: str) -> float:
        aspect = corpus.aspect_of_word.get(word)
        return 2.0 * (aspect in corpus.aspects_of_interest(user)) + (aspect is not None)

    every = explained(corpus, perfect)
    reasons = [sum(w["contribution"] == 3 for p in e["passages"] for w in p["words"]) for e in every]
    first = planted_word_precision(every, corpus, k=1)
    assert first["planted"] == 1
    # An item of which no review speaks of what the user cares about has no such word to show.
    assert first["of_interest"] == pytest.approx(np.mean([count > 0 for count in reasons]))
    rich = [one for one, count in zip(every, reasons, strict=True) if count >= 10]
    assert len(rich) > 50
    assert planted_word_precision(rich, corpus)["of_interest"] == 1
    worst = explained(corpus, lambda user, word: -perfect(user, word))
    assert planted_word_precision(worst, corpus)["planted"] == 0


@pytest.mark.slow
def test_precision_of_random_explanations_is_the_base_rate(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    shown = explained(corpus, lambda user, word: rng.random())
    found = planted_word_precision(shown, corpus, k=30)
    assert found["planted"] == pytest.approx(found["planted_by_chance"], abs=0.01)
    assert found["of_interest"] == pytest.approx(found["of_interest_by_chance"], abs=0.01)
    shares = []
    for one in shown:
        telling = [w["text"] for p in one["passages"] for w in p["words"] if not is_function_word(w["text"])]
        aspects = [corpus.aspect_of_word.get(word) for word in telling]
        cared = corpus.aspects_of_interest(one["user_id"])
        shares.append([np.mean([a in cared for a in aspects]), np.mean([a is not None for a in aspects])])
    by_chance = [found["of_interest_by_chance"], found["planted_by_chance"]]
    np.testing.assert_allclose(by_chance, np.mean(shares, axis=0))
    in_sentence = found["sentence_of_interest_by_chance"]
    assert found["sentence_of_interest"] == pytest.approx(in_sentence, abs=0.02)
    assert in_sentence > by_chance[0]
    assert 0 < by_chance[0] < by_chance[1]


def test_precision_by_hand(corpus: Corpus) -> None:
    user = next(user for user in corpus.user_ids if corpus.aspects_of_interest(user) == {0})
    item = corpus.item_ids[0]
    # "Crisp" is of the user's aspect, "plush" of another; of the tied words the earlier one goes first.
    # "The" and "." name nothing. "cable" stands in the sentence of "Crisp", "box" in one of its own.
    first = explanation(
        user,
        item,
        [("The", 3.0), ("Crisp", 0.9), ("cable.", 0.3), ("Box", -5.0)],
        [("plush", 0.5), (".", 0.3), ("pouch", 0.3)],
    )
    second = explanation(user, item, [("muddy", 0.1)])
    found = planted_word_precision([first, second, explanation(user, item, [])], corpus, k=3)
    # Three of the first (Crisp, plush, cable), the only one of the second.
    assert found == {
        "of_interest": pytest.approx(2 / 4),
        "planted": pytest.approx(3 / 4),
        "sentence_of_interest": pytest.approx(3 / 4),
        "of_interest_by_chance": pytest.approx((3 * 1 / 5 + 1) / 4),
        "planted_by_chance": pytest.approx((3 * 2 / 5 + 1) / 4),
        "sentence_of_interest_by_chance": pytest.approx((3 * 2 / 5 + 1) / 4),
        "of_interest_recall": 1,
        "planted_recall": 1,
    }
    json.dumps(found)
    # One word of interest, not the strongest; two planted ones, of which one is among the two strongest.
    third = explanation(user, item, [("cable", 0.9), ("crisp", 0.8), ("box", 0.2), ("plush", 0.1)])
    found = planted_word_precision([third], corpus)
    assert (found["of_interest_recall"], found["planted_recall"]) == (0, 0.5)
    found = planted_word_precision([third, second], corpus)
    assert (found["of_interest_recall"], found["planted_recall"]) == (1 / 2, pytest.approx(2 / 3))


def test_precision_refuses_what_it_cannot_measure(corpus: Corpus) -> None:
    empty = explanation(corpus.user_ids[0], corpus.item_ids[0], [])
    with pytest.raises(ValueError, match="none of the 1 explanations has a word that names something"):
        planted_word_precision([empty], corpus)
    with pytest.raises(ValueError, match="has a word that names something"):
        planted_word_precision([explanation(corpus.user_ids[0], "x", [("The", 1.0)])], corpus)
    with pytest.raises(ValueError, match="k is 0, below 1"):
        planted_word_precision([empty], corpus, k=0)
    with pytest.raises(ValueError, match=r"user 'nobody' is not in the corpus of .*reviews\.json\.gz"):
        planted_word_precision([explanation("nobody", "x", [("crisp", 1.0)])], corpus)


def test_aspect_recovery_of_the_planted_aspects_under_other_numbers(corpus: Corpus) -> None:
    new_number = [4, 2, 7, 0, 6, 3]
    mention = {word: np.eye(8)[new_number[aspect]] for word, aspect in corpus.aspect_of_word.items()}
    found = aspect_recovery(mention | {"the": np.zeros(8)}, corpus)
    assert found["accuracy"] == found["purity"] == 1
    assert found["nmi"] == pytest.approx(1)
    assert found["matching"] == dict(zip(ASPECTS, new_number, strict=True))
    assert found["words"] == len(corpus.aspect_of_word)
    assert found["accuracy_by_chance"] < 0.35
    assert found["nmi_by_chance"] < 0.15
    json.dumps(found)


def test_aspect_recovery_by_hand(corpus: Corpus) -> None:
    one = aspect_recovery({word: [1.0] for word in corpus.aspect_of_word}, corpus)
    assert one["accuracy"] == one["purity"] == pytest.approx(1 / 6)
    assert one["nmi"] == pytest.approx(0)
    assert list(one["matching"].values()).count(None) == 5
    # Found 0 holds three words of sound and one of comfort, found 1 two of comfort.
    first, second = ("crisp", "clear", "muddy", "plush"), ("soft", "Itchy")
    mention = {word: [0.9, 0.1] for word in first} | {word: [0.2, 0.8] for word in second}
    found = aspect_recovery(mention, corpus)
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["purity"] == pytest.approx((3 / 4 + 2 / 2) / 2)
    h_planted = np.log(2)
    h_found = -(4 / 6 * np.log(4 / 6) + 2 / 6 * np.log(2 / 6))
    h_joint = -(3 / 6 * np.log(3 / 6) + 1 / 6 * np.log(1 / 6) + 2 / 6 * np.log(2 / 6))
    assert found["nmi"] == pytest.approx(2 * (h_planted + h_found - h_joint) / (h_planted + h_found))
    assert found["matching"] == {"sound": 0, "comfort": 1} | dict.fromkeys(ASPECTS[2:])


def test_aspect_recovery_of_random_aspects_is_chance(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    draws = [aspect_recovery({w: rng.random(6) for w in corpus.aspect_of_word}, corpus) for _ in range(10)]
    for name in ("accuracy", "purity", "nmi"):
        found, chance = (np.mean([draw[key] for draw in draws]) for key in (name, f"{name}_by_chance"))
        assert found == pytest.approx(chance, abs=0.03), name


def test_aspect_recovery_refuses_what_it_cannot_measure(corpus: Corpus) -> None:
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
def test_the_matching_is_the_best_of_all(gains: np.ndarray) -> None:
    found = match(gains)
    assert len(set(found.values())) == len(found)
    tall = gains if gains.shape[0] >= gains.shape[1] else gains.T
    every = (
        sum(tall[row, column] for column, row in enumerate(rows))
        for rows in permutations(range(tall.shape[0]), tall.shape[1])
    )
    assert sum(gains[row, column] for column, row in found.items()) == max(every)


def test_the_matching_refuses_too_many_columns() -> None:
    with pytest.raises(ValueError, match="13 columns to match, at most 12"):
        match(np.ones((2, 13)))
