"""Quality of aspects: coherence, uniqueness, usage entropy, stability."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmdirect.aspects.matching import MAX_COLUMNS, match
from llmdirect.common.types import Json
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.runs.inputs import check_dataset
from llmdirect.runs.trained import Trained
from llmdirect.text.words import count_words


def top_words(trained: Trained) -> list[list[str]]:
    """Top words of each aspect, whatever it was renamed to."""
    catalogue = trained.run.values("best/catalogue")
    return [name.split(", ") for name in catalogue["aspects"]]


def aspect_quality(trained: Trained, dataset: Dataset, other_runs: Sequence[Trained] = ()) -> Json:
    """Intrinsic quality of a run's aspects.

    Parameters
    ----------
    dataset
        That of the run.
    other_runs
        Runs of the same dataset, for the stability.

    Returns
    -------
    quality
        - "coherence": mean NPMI of the pairs of an aspect's top words over train passages, from -1 (never
          together) over 0 (chance) to 1 (always together); "by_aspect" of each;
        - "uniqueness": share of distinct words among all top words;
        - "usage_entropy": normalised entropy of the aspects' shares "usage" in the items' texts;
        - "stability": mean Jaccard similarity of the top words with those of the matched aspect of another
          run (one to one, with the largest sum), over `other_runs`; None without other runs;
        - "top_words".

    Raises
    ------
    MismatchError
        If the run was trained on another dataset.

    References
    ----------
    Lau, J. H., et al. (2014). Machine Reading Tea Leaves.
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
        "stability": float(np.mean([stability(words, top_words(other)) for other in other_runs]))
        if other_runs
        else None,
        "top_words": words,
    }


def npmi(words: Sequence[Sequence[str]], texts: Sequence[str]) -> list[float]:
    """Mean normalised pointwise mutual information of each list of words, with passages as windows.

    NPMI = log(p(a, b) / (p(a) p(b))) / -log p(a, b); -1 for words that never occur together, 1 for those that
    occur in every passage. 0 for a list of fewer than two words.
    """
    index = {word: number for number, word in enumerate(dict.fromkeys(w for row in words for w in row))}
    present = np.zeros((len(texts), len(index)), bool)
    vocabulary, indptr, found, _ = count_words(texts)
    number = np.array([index.get(word, -1) for word in vocabulary], np.int64)[found]
    row = np.repeat(np.arange(len(texts)), np.diff(indptr))
    present[row[number >= 0], number[number >= 0]] = True
    joint = present.T.astype(np.float64) @ present.astype(np.float64) / max(1, len(texts))
    scores = []
    for row_words in words:
        pairs = [(index[a], index[b]) for a, b in combinations(row_words, 2) if a != b]
        values = [_npmi(joint[a, b], joint[a, a], joint[b, b]) for a, b in pairs]
        scores.append(float(np.mean(values)) if values else 0.0)
    return scores


def _npmi(both: float, first: float, second: float) -> float:
    if both <= 0:
        return -1.0
    return float(np.log(both / (first * second)) / -np.log(both)) if both < 1 else 1.0


def uniqueness(words: Sequence[Sequence[str]]) -> float:
    """Share of distinct words among all words of the lists."""
    all_words = [word for row in words for word in row]
    return len(set(all_words)) / max(1, len(all_words))


def usage_shares(trained: Trained) -> NDArray[np.float64]:
    """Share float64 [A] of each aspect in the items: of squared length (cosine form), of mentions (ratio)."""
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
    """Entropy of shares over the log of their number: 1 where all are equal, 0 where one has all."""
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum() / np.log(len(shares))) if len(shares) > 1 else 0.0


def stability(words: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> float:
    """Mean Jaccard similarity of lists of words, matched one to one with those of another run.

    The matching is optimal up to MAX_COLUMNS lists, greedy beyond.
    """
    gains = np.array([[_jaccard(first, second) for second in others] for first in words])
    if gains.shape[1] <= MAX_COLUMNS:
        return float(sum(gains[row, column] for column, row in match(gains).items()) / len(words))
    total = 0.0
    for _ in range(min(gains.shape)):
        row, column = np.unravel_index(int(gains.argmax()), gains.shape)
        total += float(gains[row, column])
        gains[row], gains[:, column] = -1.0, -1.0
    return total / len(words)


def _jaccard(first: Sequence[str], second: Sequence[str]) -> float:
    union = set(first) | set(second)
    return len(set(first) & set(second)) / len(union) if union else 0.0


def _train_texts(dataset: Dataset) -> list[str]:
    rows = np.flatnonzero(dataset.passages.split == TRAIN)
    texts: list[str] = dataset.passages.text.gather(rows).to_list()
    return texts
