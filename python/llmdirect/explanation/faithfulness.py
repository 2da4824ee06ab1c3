"""Faithfulness of explanations: words are deleted, texts encoded again, scores compared with the explanation.

docs/explanations.md defines every metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.evaluation.statistics import interval
from llmdirect.explanation.attribution import by_effect, gradient_x_input
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.item_document import ItemText, ReadPassage
from llmdirect.explanation.reencoding import Reencoder, texts_without
from llmdirect.ranking.top_k import place_among, rank
from llmdirect.runs.inputs import load_run_encoder

SHARES: Final = (0.01, 0.05, 0.1, 0.2)
"""Shares of a document's words that are deleted (comprehensiveness), or alone kept (sufficiency)."""
METHODS: Final = ("direct", "gradient_x_input", "mention", "random")
PREDICTIONS: Final = ("effect", "contribution", "gradient_x_input", "gradient_x_centred", "mention")
WORDS: Final = 200
"""Most words of a document by default."""
_TOP: Final = 10
"""Length of the list from which a pair's item is drawn."""
_SINGLE: Final = 8
"""Words of a pair that are deleted one by one."""
_BATCH: Final = 10
"""Pairs whose texts are encoded together."""


def faithfulness(
    dataset: Path | str,
    run: Path | str,
    *,
    pairs: int = 200,
    words: int = WORDS,
    seed: int = 0,
    encoder: str | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Json:
    """Measure faithfulness on random users, each with a random one of their top ten items.

    Parameters
    ----------
    dataset
        Folder that `prepare` wrote.
    run
        Folder that `train` wrote.
    pairs
        Number of users.
    words
        Most words of an item's document: passages in random order are read while they have so many together
        (0: all of them); the item is scored as if they were its only ones, before and after.
    encoder
        Location of the run's encoder, where its id does not suffice.
    device
        Of the encoder.

    Returns
    -------
    result
        "comprehensiveness", "sufficiency" (by method: mean, low, high, and "at" each share of words),
        "direct_minus_gradient", "direct_minus_random" (mean, low, high: by how much more the score falls
        without the words of direct) and each with "_sufficiency" (by how much less with them alone),
        "correlation" (by prediction), "deletion" and "insertion" (by method: share of words, score, rank),
        and the settings. Intervals are 95 %, by bootstrap over pairs.

    Raises
    ------
    DataError
        If fewer than two users can be measured.
    MismatchError
        For another dataset or encoder.
    """
    explainer = Explainer.open(run, dataset)
    reader = Reencoder(explainer, load_run_encoder(explainer.trained.run, encoder, device))
    generator = np.random.default_rng(seed)
    sample = _sample_pairs(explainer, pairs, words, generator)
    if len(sample) < 2:
        raise DataError(f"{run}: has {len(sample)} users with an item to explain; at least two are needed")
    measured: list[_Measurement] = []
    with progress.task("Reading texts without words", len(sample), "pairs") as task:
        for start in range(0, len(sample), _BATCH):
            group = [
                _Deletions.from_pair(explainer, pair, generator) for pair in sample[start : start + _BATCH]
            ]
            for deletions in group:
                reader.add(deletions.pair.passages)
            reader.read([text for deletions in group for text in deletions.texts()])
            measured += [deletions.measure(reader, explainer) for deletions in group]
            task.advance(len(group))
    return {
        **_summary(measured),
        "pairs": len(measured),
        "words": words,
        "mean_words": float(np.mean([pair.num_words for pair in measured])),
        "mean_score": float(np.mean([pair.score for pair in measured])),
        "mean_text_term": float(np.mean([pair.score - pair.without for pair in measured])),
        "seed": seed,
        "encoded_tokens": reader.tokens,
        "encoder": explainer.texts.store.encoder.get("id"),
        "run": str(run),
        "dataset": str(explainer.texts.dataset.path),
    }


@dataclass(frozen=True, eq=False)
class Pair:
    """User, recommended item, and the texts by which the item is scored."""

    user: int
    item: int
    passages: list[ReadPassage]
    text: ItemText
    others: NDArray[np.float64]
    """Scores of the user's other candidates, ascending."""
    base: float
    """The item's score without any text."""

    def rank(self, score: float) -> int:
        """Rank among the candidates, from 1, of an item with this score."""
        return place_among(self.others, score)


def _sample_pairs(explainer: Explainer, count: int, words: int, generator: np.random.Generator) -> list[Pair]:
    """Pairs of at most `count` random users whose drawn item has text."""
    trained = explainer.trained
    pairs: list[Pair] = []
    for user in generator.permutation(len(trained.users.ids)).tolist():
        if len(pairs) == count:
            break
        lists = rank(trained.tables, [user], k=trained.tables.num_items, seen=trained.users.seen)
        items = lists.items[0][lists.items[0] >= 0]
        if len(items) < 2:
            continue
        position = int(generator.integers(min(_TOP, len(items))))
        passages = _sample_passages(explainer, int(items[position]), words, generator)
        text = ItemText.from_passages(passages, explainer.texts.model, trained.lexicon)
        if len(text) < 2:
            continue
        score = float(lists.scores[0, position])
        term = float(explainer.text_term_by_aspect(user, int(items[position])).sum())
        others = np.delete(lists.scores[0][: len(items)].astype(np.float64), position)[::-1]
        pairs.append(Pair(user, int(items[position]), passages, text, others.copy(), score - term))
    return pairs


def _sample_passages(
    explainer: Explainer, item: int, words: int, generator: np.random.Generator
) -> list[ReadPassage]:
    """Random passages of the item with at most `words` words together; at least the shortest."""
    rows = explainer.texts.passages_of(item)
    texts = explainer.texts.dataset.passages.text.gather(rows).to_list()
    lengths = np.array([len(text.split()) for text in texts], np.int64)
    rows, lengths = rows[lengths > 0], lengths[lengths > 0]
    if words and len(rows):
        order = generator.permutation(len(rows))
        fitting = order[np.cumsum(lengths[order]) <= words]
        rows = rows[fitting if len(fitting) else [int(lengths.argmin())]]
    return explainer.texts.read_passages(rows)


@dataclass(frozen=True, eq=False)
class _Measurement:
    """Scores of one pair after deletions. M methods, S shares, P predictions."""

    num_words: int
    score: float
    without: float
    deleted: NDArray[np.float64]
    """[M, S] scores without the first words of a method."""
    inserted: NDArray[np.float64]
    """[M, S] scores with these words alone."""
    ranks: NDArray[np.float64]
    """[M, 2, S + 2] ranks from no word deleted, or inserted, to all of them."""
    correlation: NDArray[np.float64]
    """[P] rank correlation of each prediction with the effect of single words; NaN where one is constant."""


@dataclass(frozen=True, eq=False)
class _Deletions:
    """Texts of a pair after deletions. P predictions, N single words."""

    pair: Pair
    deleted: list[list[list[str]]]
    """Texts by method and share, without the first words of a method."""
    inserted: list[list[list[str]]]
    """Texts by method and share, with these words alone."""
    single: list[list[str]]
    """Texts without one word."""
    predicted: NDArray[np.float64]
    """[P, N] predicted effect of these words."""

    @classmethod
    def from_pair(cls, explainer: Explainer, pair: Pair, generator: np.random.Generator) -> "_Deletions":
        """Deletions of a pair by all methods."""
        query, model, text = explainer.query(pair.user), explainer.texts.model, pair.text
        lexicon = explainer.trained.lexicon
        gradient = gradient_x_input(pair.passages, query, model, lexicon)
        mention = text.mentions.sum(1).numpy()
        orders = {
            "direct": by_effect(text, query, model),
            "gradient_x_input": np.argsort(-gradient, kind="stable"),
            "mention": np.argsort(-mention, kind="stable"),
            "random": generator.permutation(len(text)),
        }

        def without(words: NDArray[np.int64]) -> list[str]:
            return texts_without(pair.passages, text, words.tolist())

        counts = [max(1, round(share * len(text))) for share in SHARES]
        deleted = [[without(orders[name][:count]) for count in counts] for name in METHODS]
        inserted = [[without(orders[name][count:]) for count in counts] for name in METHODS]
        words = generator.permutation(len(text))[:_SINGLE]
        predictions = {
            "effect": text.effects(query, model)[0].numpy(),
            "contribution": explainer.contributions(pair.user, text)[0],
            "gradient_x_input": gradient,
            "gradient_x_centred": gradient_x_input(pair.passages, query, model, lexicon, centred=True),
            "mention": mention,
        }
        return cls(
            pair,
            deleted,
            inserted,
            [without(words[n : n + 1]) for n in range(len(words))],
            np.array([predictions[name][words] for name in PREDICTIONS]),
        )

    def texts(self) -> list[str]:
        """All texts that have to be encoded."""
        changed = [texts for shares in (*self.deleted, *self.inserted) for texts in shares]
        return [text for texts in (*changed, *self.single) for text in texts]

    def measure(self, reader: Reencoder, explainer: Explainer) -> _Measurement:
        """Scores of the changed texts."""
        pair = self.pair
        query = explainer.query(pair.user)

        def score(texts: Sequence[str]) -> float:
            return pair.base + reader.text_term(query, texts)

        present = score([passage.text for passage in pair.passages])
        deleted, inserted = (
            np.array([[score(texts) for texts in shares] for shares in methods])
            for methods in (self.deleted, self.inserted)
        )
        ends = np.full((len(METHODS), 1), present), np.full((len(METHODS), 1), pair.base)
        curves = np.stack(
            [np.hstack([ends[0], deleted, ends[1]]), np.hstack([ends[1], inserted, ends[0]])], 1
        )
        change = np.array([present - score(texts) for texts in self.single])
        return _Measurement(
            num_words=len(pair.text),
            score=present,
            without=pair.base,
            deleted=deleted,
            inserted=inserted,
            ranks=np.vectorize(pair.rank, otypes=[float])(curves),
            correlation=np.array([rank_correlation(predicted, change) for predicted in self.predicted]),
        )


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman correlation (of mid-ranks); NaN where one of them is constant."""
    ranks = [_mid_ranks(values) for values in (first, second)]
    spreads = [float(values.std()) for values in ranks]
    if not all(spreads):
        return float("nan")
    centred = [values - values.mean() for values in ranks]
    return float((centred[0] * centred[1]).mean() / (spreads[0] * spreads[1]))


def _mid_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: NDArray[np.float64] = np.cumsum(counts).astype(np.float64)
    return (last - (counts - 1) / 2)[inverse]


def _summary(measured: Sequence[_Measurement]) -> Json:
    """Means over pairs with their intervals."""
    score = np.array([pair.score for pair in measured])[:, None, None]
    without = np.array([pair.without for pair in measured])
    falls = {
        "comprehensiveness": score - np.array([pair.deleted for pair in measured]),
        "sufficiency": score - np.array([pair.inserted for pair in measured]),
    }
    result: Json = {}
    for name, fall in falls.items():
        result[name] = {
            method: {
                **interval(fall[:, m].mean(1)),
                "at": {f"{share:g}": interval(fall[:, m, s]) for s, share in enumerate(SHARES)},
            }
            for m, method in enumerate(METHODS)
        }
    for other, title in (("gradient_x_input", "gradient"), ("random", "random")):
        gaps = {name: (fall[:, 0] - fall[:, METHODS.index(other)]).mean(1) for name, fall in falls.items()}
        result[f"direct_minus_{title}"] = interval(gaps["comprehensiveness"])
        # Smaller is better: the other method's minus DIRECT's.
        result[f"direct_minus_{title}_sufficiency"] = interval(-gaps["sufficiency"])
    result["correlation"] = {}
    for p, name in enumerate(PREDICTIONS):
        correlations = np.array([pair.correlation[p] for pair in measured])
        correlations = correlations[~np.isnan(correlations)]
        result["correlation"][name] = interval(correlations) if len(correlations) else None
    ranks = np.array([pair.ranks for pair in measured])
    curves: Mapping[str, NDArray[np.float64]] = {
        "deletion": score - falls["comprehensiveness"],
        "insertion": score - falls["sufficiency"],
    }
    for side, (name, scores) in enumerate(curves.items()):
        ends = float(score.mean()), float(without.mean())
        first, last = ends if name == "deletion" else ends[::-1]
        result[name] = {
            method: {
                "share": [0.0, *SHARES, 1.0],
                "score": [first, *scores[:, m].mean(0).tolist(), last],
                "rank": ranks[:, m, side].mean(0).tolist(),
            }
            for m, method in enumerate(METHODS)
        }
    return result
