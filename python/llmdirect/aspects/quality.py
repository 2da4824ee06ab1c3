"""How good the aspects of a run are: whether their words belong together, differ, recur, and tell stars."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmdirect.aspects.matching import MOST_MATCHED, match
from llmdirect.common.types import Json
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.runs.inputs import check_dataset
from llmdirect.runs.trained import Trained
from llmdirect.text.words import word_spans


def top_words(trained: Trained) -> list[list[str]]:
    """The most telling words of each aspect, as they name it when nobody has named it otherwise."""
    catalogue = trained.run.values("best/catalogue")
    return [name.split(", ") for name in catalogue["aspects"]]


def aspect_quality(trained: Trained, dataset: Dataset, beside: Sequence[Trained] = ()) -> Json:
    """What can be said of a run's aspects without judging them by eye.

    - `coherence`: mean NPMI of the pairs of an aspect's top words over train passages (Lau et al. 2014): 1
      where they only ever stand together, 0 by chance, -1 never together; `by_aspect` of each;
    - `uniqueness`: share of distinct words among all top words: 1 where no two aspects share one;
    - `usage_entropy`: of the shares that aspects have of what the items' texts say, over its maximum;
    - `stability`: mean Jaccard of the top words with those of the aspect of another run that is matched with
      it (one to one, so that the sum is largest), over `beside`; None without other runs.

    Raises MismatchError where the run was trained on another dataset.
    """
    check_dataset(trained.run, dataset)
    words = top_words(trained)
    coherence = npmi(words, _train_texts(dataset))
    usage = usage_shares(trained)
    return {
        "coherence": float(np.mean(coherence)),
        "by_aspect": coherence,
        "uniqueness": uniqueness(words),
        "usage_entropy": normalised_entropy(usage),
        "usage": usage.tolist(),
        "stability": float(np.mean([stability(words, top_words(other)) for other in beside]))
        if beside
        else None,
        "top_words": words,
    }


def npmi(words: Sequence[Sequence[str]], texts: Sequence[str]) -> list[float]:
    """For each list of words the mean NPMI of its pairs, a passage being the window.

    log(p(a, b) / (p(a) p(b))) / -log p(a, b); -1 for words that never stand together, 1 for those that stand
    in every passage. 0 for a list of fewer than two words.
    """
    wanted = {word: number for number, word in enumerate(dict.fromkeys(w for one in words for w in one))}
    present = np.zeros((len(texts), len(wanted)), bool)
    for row, text in enumerate(texts):
        for start, end in word_spans(text).tolist():
            number = wanted.get(text[start:end].casefold())
            if number is not None:
                present[row, number] = True
    together = present.T.astype(np.float64) @ present.astype(np.float64) / max(1, len(texts))
    scores = []
    for one in words:
        pairs = [(wanted[a], wanted[b]) for a, b in combinations(one, 2) if a != b]
        values = [_npmi(together[a, b], together[a, a], together[b, b]) for a, b in pairs]
        scores.append(float(np.mean(values)) if values else 0.0)
    return scores


def _npmi(both: float, first: float, second: float) -> float:
    if both <= 0:
        return -1.0
    return float(np.log(both / (first * second)) / -np.log(both)) if both < 1 else 1.0


def uniqueness(words: Sequence[Sequence[str]]) -> float:
    """Share of distinct words among all words of the lists."""
    everything = [word for one in words for word in one]
    return len(set(everything)) / max(1, len(everything))


def usage_shares(trained: Trained) -> NDArray[np.float64]:
    """float64 [A]: share of each aspect in what the items' texts say, over all items that have text.

    In the cosine form of the squared length of the item vectors, in the ratio form of the mentions.
    """
    sizes, aspects = item_sizes(trained), trained.model.aspects
    total = sizes.sum()
    shares: NDArray[np.float64] = sizes.sum(0) / total if total else np.full(aspects, 1 / aspects)
    return shares


def item_sizes(trained: Trained) -> NDArray[np.float64]:
    """[I, A] size of each aspect in the items: squared length (cosine form), mentions (ratio form)."""
    model, tables = trained.model, trained.tables
    return model.form.item_sizes(tables.item, tables.item_mentions, model.aspects)


def user_sizes(trained: Trained, query: ArrayLike) -> NDArray[np.float64]:
    """[U, A] size of each aspect in users' queries: squared length (cosine form), interest (ratio form)."""
    return trained.model.form.user_sizes(query, trained.model.aspects)


def normalised_entropy(shares: NDArray[np.float64]) -> float:
    """Entropy of shares over the log of their number: 1 where all are alike, 0 where one is all."""
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum() / np.log(len(shares))) if len(shares) > 1 else 0.0


def stability(words: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> float:
    """Mean Jaccard of lists of words matched one to one with those of another run.

    The matching is the best there is up to MOST_MATCHED lists, beyond that greedy by Jaccard.
    """
    gains = np.array([[_jaccard(one, other) for other in others] for one in words])
    if gains.shape[1] <= MOST_MATCHED:
        return float(sum(gains[row, column] for column, row in match(gains).items()) / len(words))
    total = 0.0
    for _ in range(min(gains.shape)):
        row, column = np.unravel_index(int(gains.argmax()), gains.shape)
        total += float(gains[row, column])
        gains[row], gains[:, column] = -1.0, -1.0
    return total / len(words)


def _jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    union = set(one) | set(other)
    return len(set(one) & set(other)) / len(union) if union else 0.0


def _train_texts(dataset: Dataset) -> list[str]:
    rows = np.flatnonzero(dataset.passages.split == TRAIN)
    texts: list[str] = dataset.passages.text.gather(rows).to_list()
    return texts
