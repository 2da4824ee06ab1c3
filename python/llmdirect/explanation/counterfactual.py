"""Counterfactual explanations: few words whose deletion drops an item out of a user's top k."""

from collections.abc import Callable

import numpy as np

from llmdirect.common.types import Json
from llmdirect.explanation.attribution import deletions
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.item_document import ItemText
from llmdirect.explanation.reencoding import Reencoder, texts_without
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

    def ranked(score: float) -> Json:
        return {"score": score, "rank": place_among(others, score)}

    rows = explainer.texts.passages_of(item)
    passages = explainer.texts.read_passages(rows)
    text = ItemText.from_passages(passages, explainer.texts.model, trained.lexicon)
    query = explainer.query(user)
    score = float(lists.scores[0, position[0]])
    base = score - float(explainer.text_term_by_aspect(user, item).sum())
    reader.add(passages)
    owner = text.passage.numpy()

    def checked(words: list[int]) -> Json:
        return ranked(base + reader.text_term(query, texts_without(passages, text, words)))

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
    order: list[int] = []
    terms: list[float] = []
    steps = deletions(text, query, explainer.texts.model, 1)

    def predicted(count: int) -> Json:
        while len(order) < count:
            words, term = next(steps)
            order.extend(words.tolist())
            terms.append(term)
        return ranked(base + terms[count - 1])

    count = 1
    while count < len(text) and predicted(count)["rank"] <= k:
        count += 1

    def out(count: int) -> bool:
        predicted(count)
        return bool(checked(order[:count])["rank"] > k)

    count = _fewest(count, len(text), out)
    chosen = order[:count]
    return {
        **result,
        "words": [
            {
                "passage_idx": int(rows[owner[word]]),
                "start": int(text.spans[word, 0]),
                "end": int(text.spans[word, 1]),
                "text": passages[owner[word]].text[slice(*text.spans[word].tolist())],
            }
            for word in chosen
        ],
        "predicted": predicted(count),
        "checked": checked(chosen),
    }


def _fewest(guess: int, most: int, out: Callable[[int], bool]) -> int:
    """The smallest number from 1 to `most` at which `out` holds, as far as it holds from there on.

    `out(most)` holds: then nothing is left.
    """
    low, high = 0, guess
    while high < most and not out(high):
        low, high = high, min(most, max(high + 1, int(high * _GROWTH)))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if out(middle) else (middle, high)
    return high
