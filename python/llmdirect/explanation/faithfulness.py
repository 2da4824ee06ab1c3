"""How faithful explanations are: words are taken out of the texts, the texts are encoded again, and the score
that falls is compared with what the explanation said. `docs/explanations.md` defines every figure."""

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
"""Of a document's words: taken out (comprehensiveness), or alone kept (sufficiency)."""
METHODS: Final = ("direct", "gradient_x_input", "mention", "random")
PREDICTIONS: Final = ("effect", "contribution", "gradient_x_input", "gradient_x_centred", "mention")
WORDS: Final = 200
_BEST: Final = 10
"""A pair's item is one of so many best."""
_SINGLE: Final = 8
"""Words of a pair that are taken out one by one."""
_TOGETHER: Final = 10
"""Pairs whose texts are encoded together."""


def faithfulness(
    dataset: Path | str,
    run: Path | str,
    *,
    pairs: int = 200,
    words: int = WORDS,
    seed: int = 0,
    model: str | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Json:
    """Measures on `pairs` users, each with one of the ten items recommended to them, drawn at random.

    words: of an item's document, passages in random order are read while they have so many words together
    (0: all of them); the item is scored as if they were its only ones, before and after. model: where the
    run's language model lies, if its name is not enough.

    Returns "comprehensiveness", "sufficiency" (by method: mean, low, high, and "at" each share of words),
    "direct_minus_gradient", "direct_minus_random" (mean, low, high: by how much more the score falls without
    the words of direct) and each with "_sufficiency" (by how much less with them alone), "correlation" (by
    prediction), "deletion" and "insertion" (by method: share of words, score, rank), and what was done.
    Intervals are 95 %, by bootstrap over pairs. Raises DataError where fewer than two users can be measured,
    MismatchError for another dataset or language model.
    """
    explainer = Explainer.open(run, dataset)
    reader = Reencoder(explainer, load_run_encoder(explainer.trained.run, model, device))
    generator = np.random.default_rng(seed)
    chosen = _pairs(explainer, pairs, words, generator)
    if len(chosen) < 2:
        raise DataError(f"{run}: has {len(chosen)} users with an item to explain; two are the fewest")
    measured: list[_Measured] = []
    with progress.task("Reading texts without words", len(chosen), "pairs") as task:
        for start in range(0, len(chosen), _TOGETHER):
            group = [
                _Changes.from_pair(explainer, pair, generator) for pair in chosen[start : start + _TOGETHER]
            ]
            for changes in group:
                reader.know(changes.pair.passages)
            reader.read([text for changes in group for text in changes.texts()])
            measured += [changes.measure(reader, explainer) for changes in group]
            task.advance(len(group))
    return {
        **_summary(measured),
        "pairs": len(measured),
        "words": words,
        "mean_words": float(np.mean([one.num_words for one in measured])),
        "mean_score": float(np.mean([one.score for one in measured])),
        "mean_text_term": float(np.mean([one.score - one.without for one in measured])),
        "seed": seed,
        "encoded_tokens": reader.tokens,
        "encoder": explainer.texts.store.encoder.get("id"),
        "run": str(run),
        "dataset": str(explainer.texts.dataset.path),
    }


@dataclass(frozen=True, eq=False)
class Pair:
    """A user, an item recommended to them, and the texts by which the item is scored."""

    user: int
    item: int
    passages: list[ReadPassage]
    text: ItemText
    others: NDArray[np.float64]
    """Scores of the user's other candidates, ascending."""
    base: float
    """The item's score without any text."""

    def rank(self, score: float) -> int:
        """Place among the candidates, from 1, of an item with this score."""
        return place_among(self.others, score)


def _pairs(explainer: Explainer, count: int, words: int, generator: np.random.Generator) -> list[Pair]:
    """The first `count` users, in random order, who have a recommended item with text."""
    trained = explainer.trained
    pairs: list[Pair] = []
    for user in generator.permutation(len(trained.users.ids)).tolist():
        if len(pairs) == count:
            break
        lists = rank(trained.tables, [user], k=trained.tables.num_items, seen=trained.users.seen)
        items = lists.items[0][lists.items[0] >= 0]
        if len(items) < 2:
            continue
        place = int(generator.integers(min(_BEST, len(items))))
        passages = _some(explainer, int(items[place]), words, generator)
        text = ItemText.from_passages(passages, explainer.texts.model, trained.lexicon)
        if len(text) < 2:
            continue
        whole = float(lists.scores[0, place])
        term = float(explainer.text_of(user, int(items[place])).sum())
        others = np.delete(lists.scores[0][: len(items)].astype(np.float64), place)[::-1]
        pairs.append(Pair(user, int(items[place]), passages, text, others.copy(), whole - term))
    return pairs


def _some(explainer: Explainer, item: int, words: int, generator: np.random.Generator) -> list[ReadPassage]:
    """Passages of the item in random order, while they have at most `words` words; at least the shortest."""
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
class _Measured:
    """What was found for one pair. M methods, S shares, N single words."""

    num_words: int
    score: float
    without: float
    deleted: NDArray[np.float64]
    """[M, S] scores."""
    inserted: NDArray[np.float64]
    ranks: NDArray[np.float64]
    """[M, 2, S + 2] places in the ranking from no word taken out, or in, to all of them."""
    correlation: NDArray[np.float64]
    """[P] of each prediction with the change of the score by single words; NaN where one does not vary."""


@dataclass(frozen=True, eq=False)
class _Changes:
    """Which words are taken out of a pair's texts, and what is left of each text."""

    pair: Pair
    deleted: list[list[list[str]]]
    """By method and share: the texts."""
    inserted: list[list[list[str]]]
    single: list[list[str]]
    """The texts without one word."""
    predicted: NDArray[np.float64]
    """[P, N] what is said of these words."""

    @classmethod
    def from_pair(cls, explainer: Explainer, pair: Pair, generator: np.random.Generator) -> "_Changes":
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

        def left(gone: NDArray[np.int64]) -> list[str]:
            return texts_without(pair.passages, text, gone.tolist())

        counts = [max(1, round(share * len(text))) for share in SHARES]
        deleted = [[left(orders[name][:count]) for count in counts] for name in METHODS]
        inserted = [[left(orders[name][count:]) for count in counts] for name in METHODS]
        words = generator.permutation(len(text))[:_SINGLE]
        said = {
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
            [left(words[n : n + 1]) for n in range(len(words))],
            np.array([said[name][words] for name in PREDICTIONS]),
        )

    def texts(self) -> list[str]:
        """All that has to be read."""
        changed = [texts for shares in (*self.deleted, *self.inserted) for texts in shares]
        return [text for texts in (*changed, *self.single) for text in texts]

    def measure(self, reader: Reencoder, explainer: Explainer) -> _Measured:
        pair = self.pair
        query = explainer.query(pair.user)

        def score(texts: Sequence[str]) -> float:
            return pair.base + reader.text_term(query, texts)

        whole = score([passage.text for passage in pair.passages])
        deleted, inserted = (
            np.array([[score(texts) for texts in shares] for shares in methods])
            for methods in (self.deleted, self.inserted)
        )
        ends = np.full((len(METHODS), 1), whole), np.full((len(METHODS), 1), pair.base)
        curves = np.stack(
            [np.hstack([ends[0], deleted, ends[1]]), np.hstack([ends[1], inserted, ends[0]])], 1
        )
        change = np.array([whole - score(texts) for texts in self.single])
        return _Measured(
            num_words=len(pair.text),
            score=whole,
            without=pair.base,
            deleted=deleted,
            inserted=inserted,
            ranks=np.vectorize(pair.rank, otypes=[float])(curves),
            correlation=np.array([rank_correlation(said, change) for said in self.predicted]),
        )


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's: the correlation of mid-ranks; NaN where one of them does not vary."""
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


def _summary(measured: Sequence[_Measured]) -> Json:
    """Means over pairs with their intervals."""
    score = np.array([one.score for one in measured])[:, None, None]
    without = np.array([one.without for one in measured])
    falls = {
        "comprehensiveness": score - np.array([one.deleted for one in measured]),
        "sufficiency": score - np.array([one.inserted for one in measured]),
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
        # Better where it is smaller: the other's less DIRECT's.
        result[f"direct_minus_{title}_sufficiency"] = interval(-gaps["sufficiency"])
    result["correlation"] = {}
    for p, name in enumerate(PREDICTIONS):
        told = np.array([one.correlation[p] for one in measured])
        told = told[~np.isnan(told)]
        result["correlation"][name] = interval(told) if len(told) else None
    ranks = np.array([one.ranks for one in measured])
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
