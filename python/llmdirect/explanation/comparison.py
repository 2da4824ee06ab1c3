"""Comparison of two items' explanations for one user."""

from collections.abc import Iterable

from llmdirect.common.types import Json

_PARTS = ("words", "words_everywhere", "popularity", "collaboration")


def compare(first: Json, second: Json) -> Json:
    """Difference of the scores of two items, by the parts of their explanations.

    Parameters
    ----------
    first, second
        What `Explainer.explain` returned for the same user.

    Returns
    -------
    comparison
        item_id, title, rank, score of the second; `total`, the first score minus the second, and its `parts`,
        which add up to it; `words` (by word type, in lower case), which add up to the part of that name, as
        `aspects` do; `collaboration` (by item of the history), which add up to theirs. Each entry has `here`
        (first), `there` (second) and `difference`; the largest difference comes first. `history`: the same of
        the items of the history, which add up to words and words_everywhere together; empty where interests
        cannot be attributed to items.
    """
    parts = {name: first["terms"][name] - second["terms"][name] for name in _PARTS}
    both = (first, second)
    names = {entry["aspect"]: entry["name"] for side in (second, first) for entry in side["aspects"]}
    titles = {
        entry["item_id"]: entry["title"]
        for side in (second, first)
        for entry in (*side["history"], *side["collaboration"])
    }

    def of_items(key: str) -> list[Json]:
        sums = (_sums((e["item_id"], e["contribution"] or 0.0) for e in side[key]) for side in both)
        return [{**entry, "title": titles[entry["item_id"]]} for entry in _differences("item_id", *sums)]

    has_contributions = all(entry["contribution"] is not None for entry in first["history"])
    aspects = (_sums((e["aspect"], e["contribution"]) for e in side["aspects"]) for side in both)
    return {
        **{key: second[key] for key in ("item_id", "title", "rank", "score")},
        "total": first["score"] - second["score"],
        "parts": parts,
        "aspects": [{**e, "name": names[e["aspect"]]} for e in _differences("aspect", *aspects)],
        "words": _differences("text", *(_sums(_words(side)) for side in both)),
        "history": of_items("history") if has_contributions else [],
        "collaboration": of_items("collaboration"),
    }


def _words(explanation: Json) -> Iterable[tuple[str, float]]:
    for passage in explanation["passages"]:
        for word in passage["words"]:
            yield word["text"].casefold(), word["contribution"]


def _sums(values: Iterable[tuple[object, float]]) -> dict[object, float]:
    sums: dict[object, float] = {}
    for key, value in values:
        sums[key] = sums.get(key, 0.0) + value
    return sums


def _differences(name: str, here: dict[object, float], there: dict[object, float]) -> list[Json]:
    entries: list[Json] = [
        {
            name: key,
            "here": here.get(key, 0.0),
            "there": there.get(key, 0.0),
            "difference": here.get(key, 0.0) - there.get(key, 0.0),
        }
        for key in dict.fromkeys((*here, *there))
    ]
    return sorted(entries, key=lambda entry: -abs(entry["difference"]))
