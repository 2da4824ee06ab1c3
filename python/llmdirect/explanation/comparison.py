"""Why one item rather than another: two explanations for one user, laid side by side."""

from collections.abc import Iterable

from llmdirect.common.types import Json

_PARTS = ("words", "words_everywhere", "popularity", "collaboration")


def compare(here: Json, there: Json) -> Json:
    """What the first item has over the second, from the explanations of both for one user.

    item_id, title, rank, score of the second; `total`, by how much the first scores higher, and its `parts`,
    which add up to it; `words` (by word type, in lower case) add up to the part of that name, `aspects` too,
    `collaboration` (by item of the history) to its own. Of these each entry has `here`, `there` and
    `difference`; the largest difference goes first. `history`: the same of what each item of the history
    brings to the text terms, where that can be told: they add up to words and words_everywhere together.
    """
    parts = {name: here["terms"][name] - there["terms"][name] for name in _PARTS}
    names = {entry["aspect"]: entry["name"] for one in (there, here) for entry in one["aspects"]}
    titles = {
        entry["item_id"]: entry["title"]
        for one in (there, here)
        for entry in (*one["history"], *one["collaboration"])
    }

    def of_items(key: str) -> list[Json]:
        sums = (_sums((e["item_id"], e["contribution"] or 0.0) for e in one[key]) for one in (here, there))
        return [{**entry, "title": titles[entry["item_id"]]} for entry in _differences("item_id", *sums)]

    told = all(entry["contribution"] is not None for entry in here["history"])
    aspects = (_sums((e["aspect"], e["contribution"]) for e in one["aspects"]) for one in (here, there))
    return {
        **{key: there[key] for key in ("item_id", "title", "rank", "score")},
        "total": here["score"] - there["score"],
        "parts": parts,
        "aspects": [{**e, "name": names[e["aspect"]]} for e in _differences("aspect", *aspects)],
        "words": _differences("text", *(_sums(_words(one)) for one in (here, there))),
        "history": of_items("history") if told else [],
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
