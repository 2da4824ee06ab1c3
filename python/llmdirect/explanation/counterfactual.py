"""Counterfactual explanations: few words whose deletion drops an item out of a user's top k."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.types import Json
from llmdirect.explanation.attribution import deletions
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.item_document import ItemText
from llmdirect.explanation.reencoding import Reencoder, texts_without
from llmdirect.model.direct import Direct
from llmdirect.ranking.top_k import place_among, rank

_GROWTH = 1.5
"""Factor by which the number of words grows while the item is still in."""


def counterfactual(explainer: Explainer, reader: Reencoder, user: int, item: int, k: int) -> Json:
    """Words of an item's document without which it leaves the user's top k.

    Greedy: always the word with the largest closed-form effect on the rest, until the item would be out; then
    the texts without these words are encoded again, and words are added or spared until the item is out by
    that and would be in with one word fewer of the same order (bisection). Greedy words are few, not proven
    to be the fewest.

    Parameters
    ----------
    reader
        Encodes the changed texts.

    Returns
    -------
    result
        k, rank and score at present; possible (False where the item stays in the top k without any text);
        `words` (passage_idx, start, end, text) in greedy order, num_words of the document, `predicted` and
        `checked` {"score", "rank"} without them; without_text, the same without any text.

    Raises
    ------
    ValueError
        If the item is not in the top k of the user's candidates, or there are no more than k.
    """
    score, others = _top_score(explainer, user, item, k)
    texts, query = explainer.texts, explainer.query(user)
    rows = texts.passages_of(item)
    passages = texts.read_passages(rows)
    text = ItemText.from_passages(passages, texts.model, texts.lexicon)
    base = score - float(explainer.text_term_by_aspect(user, item).sum())
    reader.add(passages)

    def ranked(score: float) -> Json:
        return {"score": score, "rank": place_among(others, score)}

    result: Json = {
        "k": k,
        **ranked(score),
        "without_text": ranked(base),
        "num_words": len(text),
        "possible": ranked(base)["rank"] > k and len(text) > 0,
        "words": [],
        "predicted": None,
        "checked": None,
    }
    if not result["possible"]:
        return result
    greedy = _GreedyDeletions(text, query, texts.model)

    def predicted(count: int) -> Json:
        return ranked(base + greedy.text_term(count))

    def checked(count: int) -> Json:
        changed = texts_without(passages, text, greedy.words(count))
        return ranked(base + reader.text_term(query, changed))

    guess = 1
    while guess < len(text) and predicted(guess)["rank"] <= k:
        guess += 1
    count = _fewest(guess, len(text), lambda count: bool(checked(count)["rank"] > k))
    owner = text.passage.numpy()
    return {
        **result,
        "words": [
            {
                "passage_idx": int(rows[owner[word]]),
                "start": int(text.spans[word, 0]),
                "end": int(text.spans[word, 1]),
                "text": passages[owner[word]].text[slice(*text.spans[word].tolist())],
            }
            for word in greedy.words(count)
        ],
        "predicted": predicted(count),
        "checked": checked(count),
    }


def _top_score(explainer: Explainer, user: int, item: int, k: int) -> tuple[float, NDArray[np.float64]]:
    """Score of an item of the user's top k, and the other candidates' scores in ascending order."""
    trained = explainer.trained
    lists = rank(trained.tables, [user], k=trained.tables.num_items, seen=trained.users.seen)
    items = lists.items[0][lists.items[0] >= 0]
    position = np.flatnonzero(items == item)
    if not len(position) or position[0] >= k:
        where = f"has rank {position[0] + 1}" if len(position) else "is seen already"
        raise ValueError(
            f"item {trained.item_ids[item]} {where}: it is not among the {k} best to drop out of"
        )
    if len(items) <= k:
        raise ValueError(f"the user has {len(items)} candidates, no more than {k}: none can drop out")
    others = np.sort(np.delete(lists.scores[0][: len(items)].astype(np.float64), position[0]))
    return float(lists.scores[0, position[0]]), others


class _GreedyDeletions:
    """Words of a document in greedy order, computed as far as they are needed."""

    def __init__(self, text: ItemText, query: Tensor, model: Direct) -> None:
        self._steps = deletions(text, query, model, 1)
        self._order: list[int] = []
        self._terms: list[float] = []

    def words(self, count: int) -> list[int]:
        """The first `count` words."""
        while len(self._order) < count:
            words, term = next(self._steps)
            self._order.extend(words.tolist())
            self._terms.append(term)
        return self._order[:count]

    def text_term(self, count: int) -> float:
        """Closed-form text term without the first `count` words."""
        self.words(count)
        return self._terms[count - 1]


def _fewest(guess: int, most: int, out: Callable[[int], bool]) -> int:
    """Smallest number from 1 to `most` at which `out` holds, assumed monotone; `out(most)` must hold."""
    low, high = 0, guess
    while high < most and not out(high):
        low, high = high, min(most, max(high + 1, int(high * _GROWTH)))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if out(middle) else (middle, high)
    return high
