"""How much of what was planted in a synthetic corpus a model finds again."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmdirect.aspects.matching import match
from llmdirect.common.types import Json
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.synthetic.corpus import Corpus
from llmdirect.text.sentences import sentence_spans
from llmdirect.text.words import is_function_word

T = TypeVar("T")

_CHANCE_DRAWS: Final = 200


def planted_word_precision(
    explanations: Sequence[Mapping[str, Any]], corpus: Corpus, k: int = 10
) -> dict[str, float]:
    """How many of the k words with the highest contribution are planted, over all explanations.

    explanations: the JSON of explanations: user_id, and passages with their text and words, which have
    start, text and contribution. Function words are left out of account, as wherever words are listed. Of
    equal contributions the earlier word goes first; case does not count.

    Returns `of_interest`, the share of planted words of an aspect that the user cares about (interest above
    uniform), `planted`, the share of planted words of any aspect, `sentence_of_interest`, the share of words
    in whose sentence a word of the first kind stands, and each name with `_by_chance`: what as many words
    picked at random from each explanation give on average. `of_interest_recall` and `planted_recall`: of as
    many of the strongest words as there are of the kind, in each explanation, the share that is of it.

    Raises ValueError for k below 1, an unknown user, and explanations without any word that is no function
    word.
    """
    if k < 1:
        raise ValueError(f"k is {k}, below 1")
    aspect_of_word = corpus.aspect_of_word
    names = ("of_interest", "planted", "sentence_of_interest")
    top, chance, recalled, there = np.zeros(3), np.zeros(3), np.zeros(2), np.zeros(2)
    picked = 0
    for explanation in explanations:
        user = explanation["user_id"]
        if user not in corpus.user_rows:
            raise ValueError(f"user {user!r} is not in the corpus of {corpus.reviews_path}")
        cared = corpus.cares_about(user)
        found: list[tuple[float, tuple[bool, bool, bool]]] = []
        for passage in explanation["passages"]:
            borders = [start for start, _ in sentence_spans(passage["text"])]
            aspects = [aspect_of_word.get(word["text"].casefold()) for word in passage["words"]]
            places = [bisect_right(borders, word["start"]) for word in passage["words"]]
            said = {place for place, aspect in zip(places, aspects, strict=True) if aspect in cared}
            found += [
                (word["contribution"], (aspect in cared, aspect is not None, place in said))
                for word, aspect, place in zip(passage["words"], aspects, places, strict=True)
                if not is_function_word(word["text"])
            ]
        if not found:
            continue
        hits = np.array([hit for _, hit in found], np.float64)
        order = np.argsort([-contribution for contribution, _ in found], kind="stable")
        shown = min(k, len(order))
        picked += shown
        top += hits[order[:shown]].sum(0)
        chance += shown * hits.mean(0)
        for kind in range(2):
            count = int(hits[:, kind].sum())
            recalled[kind] += hits[order[:count], kind].sum()
            there[kind] += count
    if not picked:
        raise ValueError(f"none of the {len(explanations)} explanations has a word that names something")
    return {
        **dict(zip(names, (top / picked).tolist(), strict=True)),
        **dict(zip((f"{name}_by_chance" for name in names), (chance / picked).tolist(), strict=True)),
        **{
            f"{name}_recall": float(hit / max(count, 1))
            for name, hit, count in zip(names, recalled, there, strict=False)
        },
    }


def aspect_recovery(mention: Mapping[str, ArrayLike], corpus: Corpus) -> Json:
    """How well the aspects that a model found divide the planted words as the planted aspects do.

    mention: word -> weights [K] of the found aspects, without the background; words that are not planted
    are left out of account. A word belongs to the found aspect of its largest weight (the first of equals).

    Returns
    - `accuracy`: share of words whose found aspect is matched with their planted one. The matching is one
      to one and the best there is (exact, by dynamic programming over subsets of the planted aspects);
    - `purity`: mean, over matched found aspects, of the share of their words from the planted aspect;
    - `nmi`: mutual information of both divisions over the mean of their entropies;
    - `accuracy_by_chance`, `purity_by_chance`, `nmi_by_chance`: means over random reassignments of the same
      found aspects to the words (seeded), above which a finding begins;
    - `matching`: name of the planted aspect -> number of the found one, None where none is left;
    - `words`: planted words that have weights.

    Raises ValueError where no planted word has weights, or weights differ in length or are not finite.
    """
    by_word = _casefolded(mention)
    words = [word for word in corpus.aspect_of_word if word in by_word]
    if not words:
        raise ValueError(f"no planted word among the {len(mention)} words with aspect weights")
    rows = [np.asarray(by_word[word], np.float64) for word in words]
    lengths = {row.shape for row in rows}
    if len(lengths) > 1 or rows[0].ndim != 1 or not len(rows[0]):
        raise ValueError(f"aspect weights have the shapes {sorted(lengths)}, expected one [K] with K >= 1")
    weights = np.array(rows)
    if not np.isfinite(weights).all():
        bad = int(np.flatnonzero(~np.isfinite(weights).all(1))[0])
        raise ValueError(f"the aspect weights of {words[bad]!r} are not finite")
    found = weights.argmax(1)
    planted = np.array([corpus.aspect_of_word[word] for word in words])
    shape = (weights.shape[1], len(corpus.aspects))
    measures, matching = _agreement(_table(found, planted, shape))
    rng = np.random.default_rng(0)
    chance = np.mean(
        [_agreement(_table(rng.permutation(found), planted, shape))[0] for _ in range(_CHANCE_DRAWS)], axis=0
    )
    names = ("accuracy", "purity", "nmi")
    return {
        **dict(zip(names, measures, strict=True)),
        **{f"{name}_by_chance": float(value) for name, value in zip(names, chance, strict=True)},
        "matching": {aspect: matching.get(number) for number, aspect in enumerate(corpus.aspects)},
        "words": len(words),
    }


def oracle(corpus: Corpus, user_ids: Sequence[str], item_ids: Sequence[str]) -> ScoreTables:
    """Ranks by what choices were drawn from: log popularity + taste · interest · quality.

    The ids, of a prepared dataset say, give the order of the rows. KeyError for one that is not planted.
    """
    users = [corpus.user_rows[user] for user in user_ids]
    items = [corpus.item_rows[item] for item in item_ids]
    return ScoreTables(
        query=corpus.taste * corpus.interests[users],
        item=corpus.qualities[items],
        item_bias=np.log(corpus.popularity[items]),
    )


def _casefolded(by_word: Mapping[str, T]) -> dict[str, T]:
    return {word.casefold(): value for word, value in by_word.items()}


def _table(
    found: NDArray[np.int64], planted: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Words of each found and each planted aspect: [K, A]."""
    table = np.zeros(shape)
    np.add.at(table, (found, planted), 1.0)
    return table


def _agreement(table: NDArray[np.float64]) -> tuple[tuple[float, float, float], dict[int, int]]:
    """Accuracy, purity and NMI of a contingency table [K, A], and the matching planted -> found."""
    matching = match(table)
    matched = np.array([table[found, planted] for planted, found in matching.items()])
    sizes = np.array([table[found].sum() for found in matching.values()])
    joint = table / table.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    entropies = _entropy(rows) + _entropy(columns)
    information = entropies - _entropy(joint.ravel())
    nmi = 2 * information / entropies if entropies > 0 else 1.0
    return (float(matched.sum() / table.sum()), float((matched / sizes).mean()), float(nmi)), matching


def _entropy(shares: NDArray[np.float64]) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())
