"""Recovery metrics of planted words and aspects in a synthetic corpus."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmdirect.aspects.matching import match
from llmdirect.common.types import Json
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.synthetic.corpus import Corpus
from llmdirect.text.sentences import sentence_spans
from llmdirect.text.words import is_function_word

_CHANCE_DRAWS: Final = 200


def planted_word_precision(
    explanations: Sequence[Mapping[str, Any]], corpus: Corpus, k: int = 10
) -> dict[str, float]:
    """Precision@k and R-precision of planted words among the highest contributions.

    Function words are ignored, as wherever words are listed. Ties go to the earlier word; case is ignored.

    Parameters
    ----------
    explanations
        JSON of explanations: "user_id" and "passages" with "text" and "words", which have "start", "text"
        and "contribution".
    k
        Words of each explanation.

    Returns
    -------
    Means over all words of all explanations:

    - `of_interest`: share of planted words of an aspect of the user's interest;
    - `planted`: share of planted words of any aspect;
    - `sentence_of_interest`: share of words in a sentence with a word of the first kind;
    - each name with `_by_chance`: expectation for as many random words of each explanation;
    - `of_interest_recall`, `planted_recall`: R-precision, the share of words of the kind among as many of
      the strongest words as the explanation has of that kind.

    Raises
    ------
    ValueError
        If k is below 1, a user is unknown, or no explanation has a word that is not a function word.
    """
    if k < 1:
        raise ValueError(f"k is {k}, below 1")
    names = ("of_interest", "planted", "sentence_of_interest")
    hits_at_k, expected, num_words = np.zeros(3), np.zeros(3), 0
    recalled, num_relevant = np.zeros(2), np.zeros(2)
    for explanation in explanations:
        contributions, hits = _word_hits(explanation, corpus)
        if not len(hits):
            continue
        ranked = hits[np.argsort(-contributions, kind="stable")]
        shown = min(k, len(ranked))
        num_words += shown
        hits_at_k += ranked[:shown].sum(0)
        expected += shown * hits.mean(0)
        for kind in range(2):
            count = int(hits[:, kind].sum())
            recalled[kind] += ranked[:count, kind].sum()
            num_relevant[kind] += count
    if not num_words:
        raise ValueError(f"none of the {len(explanations)} explanations has a word that names something")
    return {
        **dict(zip(names, (hits_at_k / num_words).tolist(), strict=True)),
        **dict(zip((f"{name}_by_chance" for name in names), (expected / num_words).tolist(), strict=True)),
        **{
            f"{name}_recall": float(hit / max(count, 1))
            for name, hit, count in zip(names, recalled, num_relevant, strict=False)
        },
    }


def _word_hits(
    explanation: Mapping[str, Any], corpus: Corpus
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contributions [n] of the content words of an explanation, and 0 or 1 [n, 3] for each kind of word."""
    user = explanation["user_id"]
    if user not in corpus.user_rows:
        raise ValueError(f"user {user!r} is not in the corpus of {corpus.reviews_path}")
    interest = corpus.aspects_of_interest(user)
    contributions: list[float] = []
    hits: list[tuple[bool, bool, bool]] = []
    for passage in explanation["passages"]:
        starts = [start for start, _ in sentence_spans(passage["text"])]
        words = passage["words"]
        aspects = [corpus.aspect_of_word.get(word["text"].casefold()) for word in words]
        positions = [bisect_right(starts, word["start"]) for word in words]
        of_interest = {n for n, aspect in zip(positions, aspects, strict=True) if aspect in interest}
        for word, aspect, position in zip(words, aspects, positions, strict=True):
            if not is_function_word(word["text"]):
                contributions.append(word["contribution"])
                hits.append((aspect in interest, aspect is not None, position in of_interest))
    return np.array(contributions, np.float64), np.array(hits, np.float64).reshape(-1, 3)


def aspect_recovery(mention: Mapping[str, ArrayLike], corpus: Corpus) -> Json:
    """Agreement of learned aspects with the planted ones, as clusterings of the planted words.

    A word belongs to the learned aspect of its largest weight (the first of equals). Words that are not
    planted are ignored.

    Parameters
    ----------
    mention
        Weights [K] of the learned aspects, without the background, by word.

    Returns
    -------
    - `accuracy`: share of words whose learned aspect is matched with their planted one, under the best
      one-to-one matching;
    - `purity`: mean over matched learned aspects of the share of their words from the planted aspect;
    - `nmi`: normalised mutual information, over the arithmetic mean of the entropies;
    - `accuracy_by_chance`, `purity_by_chance`, `nmi_by_chance`: means over random permutations of the
      learned aspects among the words (seeded);
    - `matching`: index of the learned aspect by name of the planted one, None if it is not matched;
    - `words`: number of planted words that have weights.

    Raises
    ------
    ValueError
        If no planted word has weights, or weights differ in length or are not finite.
    """
    by_word = {word.casefold(): weights for word, weights in mention.items()}
    words = [word for word in corpus.aspect_of_word if word in by_word]
    if not words:
        raise ValueError(f"no planted word among the {len(mention)} words with aspect weights")
    rows = [np.asarray(by_word[word], np.float64) for word in words]
    lengths = {row.shape for row in rows}
    if len(lengths) > 1 or rows[0].ndim != 1 or not len(rows[0]):
        raise ValueError(f"aspect weights have the shapes {sorted(lengths)}, expected one [K] with K >= 1")
    weights = np.array(rows)
    if not np.isfinite(weights).all():
        row = int(np.flatnonzero(~np.isfinite(weights).all(1))[0])
        raise ValueError(f"the aspect weights of {words[row]!r} are not finite")
    learned = weights.argmax(1)
    planted = np.array([corpus.aspect_of_word[word] for word in words])
    shape = (weights.shape[1], len(corpus.aspects))
    measures, matching = _agreement(_contingency(learned, planted, shape))
    rng = np.random.default_rng(0)
    chance = np.mean(
        [_agreement(_contingency(rng.permutation(learned), planted, shape))[0] for _ in range(_CHANCE_DRAWS)],
        axis=0,
    )
    names = ("accuracy", "purity", "nmi")
    return {
        **dict(zip(names, measures, strict=True)),
        **{f"{name}_by_chance": float(value) for name, value in zip(names, chance, strict=True)},
        "matching": {aspect: matching.get(number) for number, aspect in enumerate(corpus.aspects)},
        "words": len(words),
    }


def oracle(corpus: Corpus, user_ids: Sequence[str], item_ids: Sequence[str]) -> ScoreTables:
    """Score tables of the choice model that the corpus was drawn from (`utilities`).

    Parameters
    ----------
    user_ids, item_ids
        External ids in the order of the rows, such as those of a prepared dataset.

    Raises
    ------
    KeyError
        If an id is not in the corpus.
    """
    users = [corpus.user_rows[user] for user in user_ids]
    items = [corpus.item_rows[item] for item in item_ids]
    return ScoreTables(
        query=corpus.taste * corpus.interests[users],
        item=corpus.qualities[items],
        item_bias=np.log(corpus.popularity[items]),
    )


def _contingency(
    learned: NDArray[np.int64], planted: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Contingency table [K, A]: words of each learned and each planted aspect."""
    table = np.zeros(shape)
    np.add.at(table, (learned, planted), 1.0)
    return table


def _agreement(table: NDArray[np.float64]) -> tuple[tuple[float, float, float], dict[int, int]]:
    """Accuracy, purity and NMI of a contingency table [K, A], and the learned aspect of each planted one."""
    matching = match(table)
    matched = np.array([table[learned, planted] for planted, learned in matching.items()])
    sizes = np.array([table[learned].sum() for learned in matching.values()])
    joint = table / table.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    entropies = _entropy(rows) + _entropy(columns)
    information = entropies - _entropy(joint.ravel())
    nmi = 2 * information / entropies if entropies > 0 else 1.0
    return (float(matched.sum() / table.sum()), float((matched / sizes).mean()), float(nmi)), matching


def _entropy(shares: NDArray[np.float64]) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())
