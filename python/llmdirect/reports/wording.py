"""Sentences, excerpts and number formats of explanations, shared by the pages and the terminal.

An explanation is the dictionary that `Explainer.explain` documents.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from llmdirect.common.types import Json
from llmdirect.text.sentences import Span, sentence_spans
from llmdirect.text.words import is_function_word

PARTS: Final = {
    "words": "the words of reviews and descriptions, weighted by this user's interests",
    "popularity": "the item's bias, mostly how often it was chosen",
    "collaboration": "similarity to the items of this user's history, by co-occurrence and by text",
}
"""Name and description of each part of a lead."""

TERMS: Final = {
    "user": "the same for every item",
    "popularity": PARTS["popularity"],
    "words_everywhere": "the text term of an average item",
    "words": "the sum of all word contributions",
    "collaboration": PARTS["collaboration"],
}
"""Name and description of each term of a score."""

CONTRIBUTION: Final = (
    "the word's own term in the score, minus that of a word of an average item. All contributions, the text "
    "term of an average item, and the terms that are not words add up to the score."
)

EFFECT: Final = (
    "the score with the word minus the score without it, with the embeddings as they are. It differs from "
    "the contribution because a word also changes the weight of the other words."
)

CAVEAT: Final = (
    "Neither is exactly the change of the score if the text were written without the word and encoded again "
    "by the language model."
)

STATIC_CAVEAT: Final = (
    "The vectors of words do not depend on their context, so the effect is exactly the change of the score "
    "if the text were written without the word."
)

WHOLE_CONTRIBUTION: Final = (
    "the text's own term in the score, minus that of a text of an average item. All contributions, the text "
    "term of an average item, and the terms that are not words add up to the score."
)

WHOLE_EFFECT: Final = (
    "the score with the text minus the score without it. It differs from the contribution because a text "
    "also changes the weight of the others."
)

WHOLE_CAVEAT: Final = (
    "The vectors are of whole texts or items and were given, not encoded, so single words have no figures."
)

LEVELS: Final = 4
"""Number of shades of marked words."""

_MINUS = "\N{MINUS SIGN}"

_JOINER = "\N{ZERO WIDTH JOINER}"


def definitions(result: Json) -> tuple[str, str, str]:
    """What contribution and effect are, and the caveat, for what `explain` returned."""
    if result["model"].get("vectors"):
        return WHOLE_CONTRIBUTION, WHOLE_EFFECT, WHOLE_CAVEAT
    return CONTRIBUTION, EFFECT, STATIC_CAVEAT if result["model"].get("static") else CAVEAT


def decimals(values: Iterable[float]) -> int:
    """Decimal places, 2 to 8, that give the largest of `values` three significant digits."""
    largest = max((abs(value) for value in values), default=0.0)
    return min(max(2 - math.floor(math.log10(largest)), 2), 8) if largest else 2


def signed(value: float, places: int, minus: str = _MINUS) -> str:
    """A number with its sign, as `+1.82`; without one if it is rounded to zero."""
    text = f"{abs(value):.{places}f}"
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else minus) + text


def item_name(explanation: Json) -> str:
    """The item's title, or its id where it has none."""
    return str(explanation["title"] or explanation["item_id"])


def rank_sentence(explanation: Json) -> str:
    """Sentence on the item's rank among the user's candidates."""
    user, count = explanation["user_id"], explanation["num_candidates"]
    if explanation["rank"] is None:
        return f"{user} already has this item, so it has no rank among the {count:,} candidates."
    return f"Ranked {explanation['rank']:,} of {count:,} for {user}."


def lead_sentence(lead: Json | None, minus: str = _MINUS, other: str = "a typical candidate") -> str:
    """Sentences on the parts of the lead over another item.

    Parameters
    ----------
    lead
        "total" and one number for each of PARTS; None if there are no candidates.
    minus
        Minus sign.
    other
        Name of the other item.
    """
    if lead is None:
        return "There is no candidate left to compare it with."
    places = lead_decimals(lead)
    written = {part: signed(lead[part], places, minus) for part in ("total", *PARTS)}
    shown = sorted((part for part in PARTS if _has_sign(written[part])), key=lambda part: -abs(lead[part]))
    named = {part: f"{part} ({written[part]})" for part in shown}
    if not _has_sign(written["total"]):
        parts = f": {_join_names(list(named.values()))}" if named else ""
        return f"It scores the same as {other}{parts}."
    ahead = lead["total"] > 0
    same = [part for part in shown if (lead[part] > 0) == ahead]
    opposite = [part for part in shown if part not in same]
    distance = "lead over" if ahead else "distance behind"
    of = f"its {distance} {other} ({written['total']})"
    if len(same) > 1 and abs(lead[same[0]]) > sum(abs(lead[part]) for part in same[1:]):
        rest = _join_names([named[part] for part in same[1:]])
        sentence = f"Most of {of} comes from {named[same[0]]}, then {rest}."
    else:
        sentence = f"{_capital(of)} comes from {_join_names([named[part] for part in same])}."
    if not opposite:
        return sentence
    verb = "count" if len(opposite) > 1 or opposite == ["words"] else "counts"
    parts = _capital(_join_names([named[part] for part in opposite]))
    return f"{sentence} {parts} {verb} {'against' if ahead else 'for'} it."


def comparison_sentence(than: Json, minus: str = _MINUS) -> str:
    """Sentence on the difference of the score to another item (`compare`), by part."""
    parts = {"words": than["parts"]["words"] + than["parts"]["words_everywhere"]}
    parts |= {name: than["parts"][name] for name in ("popularity", "collaboration")}
    places = decimals([than["total"], *parts.values()])
    order = sorted(parts, key=lambda name: -abs(parts[name]))
    by_part = _join_names([f"{name} ({signed(parts[name], places, minus)})" for name in order])
    total = signed(than["total"], places, minus)
    rank = "is not a candidate" if than["rank"] is None else f"has rank {than['rank']:,}"
    return f"Its score minus that of {item_name(than)}, which {rank}, is {total}: {by_part}."


def counterfactual_sentence(result: Json) -> str:
    """Sentence on the words without which the item would not be among the k best (`counterfactual`)."""
    k = result["k"]
    if not result["possible"]:
        return (
            f"Without any text it would have rank {result['without_text']['rank']:,}, still among the {k} "
            "best: its words are not the reason."
        )
    count = len(result["words"])
    words = "this word" if count == 1 else f"these {count:,} words"
    return (
        f"Without {words} of {result['num_words']:,} it would fall from rank {result['rank']:,} to "
        f"{result['checked']['rank']:,}, with the texts encoded again by the language model "
        f"({result['predicted']['rank']:,} by effect alone)."
    )


def word_counts(words: list[Json]) -> list[str]:
    """Word types with their numbers of occurrences, in order of first occurrence."""
    counts: dict[str, int] = {}
    for word in words:
        name = visible(word["text"]).casefold()
        counts[name] = counts.get(name, 0) + 1
    return [
        name if count == 1 else f"{name} \N{MULTIPLICATION SIGN}{count}" for name, count in counts.items()
    ]


def content_words(words: list[Json], key: str = "contribution") -> list[Json]:
    """Entries with a value other than 0 whose text is neither a function word nor punctuation."""
    return [word for word in words if word[key] and not is_function_word(word["text"])]


def lead_decimals(lead: Json) -> int:
    """Decimal places for the numbers of a lead."""
    return decimals(lead[part] for part in ("total", *PARTS))


def _has_sign(number: str) -> bool:
    return not number[0].isdigit()


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _join_names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def max_contribution(explanation: Json) -> float:
    """Largest absolute contribution of a word, the scale of the shades; 0 without words."""
    words = (word for passage in explanation["passages"] for word in passage["words"])
    return max((abs(word["contribution"]) for word in words), default=0.0)


def shade_level(contribution: float, scale: float) -> int:
    """Shade of a word, in even steps from 0 (unmarked: below a fifth of `scale`) to LEVELS."""
    return min(int((LEVELS + 1) * abs(contribution) / scale), LEVELS) if scale else 0


def marked_words(explanation: Json) -> list[tuple[int, Json]]:
    """Marked content words with the number of their passage (from 1), by absolute contribution.

    Function words and punctuation are marked in the texts but not listed.
    """
    scale = max_contribution(explanation)
    words = [
        (number, word)
        for number, passage in enumerate(explanation["passages"], 1)
        for word in passage["words"]
        if shade_level(word["contribution"], scale) and not is_function_word(word["text"])
    ]
    return sorted(words, key=lambda entry: -abs(entry[1]["contribution"]))


def top_words(explanation: Json, positive: bool, count: int) -> list[tuple[str, float]]:
    """The strongest word types of one sign, in lower case, with the sum of their marked occurrences.

    Unmarked occurrences are excluded: the sum of many weak ones would put frequent words first.
    """
    sums: dict[str, float] = {}
    for _, word in marked_words(explanation):
        name = word["text"].casefold()
        sums[name] = sums.get(name, 0.0) + word["contribution"]
    chosen = [(name, value) for name, value in sums.items() if value and (value > 0) == positive]
    return sorted(chosen, key=lambda entry: -abs(entry[1]))[:count]


def aspect_names(explanation: Json) -> dict[int, str]:
    """Names of the explanation's aspects by index."""
    return {aspect["aspect"]: aspect["name"] for aspect in explanation["aspects"]}


def visible(word: str) -> str:
    """The word, or a name for white space."""
    return "(blank)" if word.isspace() else word


def excerpt(passage: Json, limit: int) -> list[Span]:
    """Spans of the sentences with the strongest words, in order of the text; adjacent ones are joined.

    Sentences are added by their strongest word while they fit into `limit` characters; the first always is.
    Without words it is the beginning of the text.
    """
    spans = sentence_spans(passage["text"])
    peaks = [
        max((abs(w["contribution"]) for w in passage["words"] if start <= w["start"] < end), default=0.0)
        for start, end in spans
    ]
    selected: set[int] = set()
    length = 0
    for index in sorted(range(len(spans)), key=lambda index: -peaks[index]):
        start, end = spans[index]
        if selected and (length + end - start > limit or not peaks[index]):
            break
        selected.add(index)
        length += end - start
    joined: list[Span] = []
    for index in sorted(selected):
        if joined and joined[-1][1] == spans[index][0]:
            joined[-1] = (joined[-1][0], spans[index][1])
        else:
            joined.append(spans[index])
    return joined


def segments(passage: Json, start: int, end: int) -> Iterator[tuple[str, Json | None]]:
    """The text from `start` to `end` in pieces, each with its word, or None between words.

    A combining mark stays with the letter before it.

    Raises
    ------
    ValueError
        If word spans overlap, do not ascend, or are outside the text.
    """
    if passage["text"].isascii():
        yield from _pieces(passage, start, end)
        return
    pending, pending_word = "", None
    for piece, word in _pieces(passage, start, end):
        marks = next((at for at, letter in enumerate(piece) if not _combines(letter)), len(piece))
        if pending:
            yield pending + piece[:marks], pending_word
            pending, pending_word = piece[marks:], word
        else:
            pending, pending_word = piece, word
    if pending:
        yield pending, pending_word


def _pieces(passage: Json, start: int, end: int) -> Iterator[tuple[str, Json | None]]:
    text, position, previous_end = passage["text"], start, 0
    for word in passage["words"]:
        if not previous_end <= word["start"] < word["end"] <= len(text):
            raise ValueError(
                f"passage {passage['passage_idx']}: the word at characters {word['start']} to {word['end']} "
                f"overlaps another or is outside the text of {len(text)} characters; explain the item again"
            )
        previous_end = word["end"]
        first, last = max(word["start"], start), min(word["end"], end)
        if first < last:
            if position < first:
                yield text[position:first], None
            yield text[first:last], word
            position = last
    if position < end:
        yield text[position:end], None


def _combines(letter: str) -> bool:
    return unicodedata.category(letter).startswith("M") or letter == _JOINER
