"""An explanation in plain words: the headline, the sentences worth showing, the numbers.

Shared by the page and the terminal, so that both say the same. Explanations come as the JSON that
`explanation` makes.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from llmdirect.common.types import Json
from llmdirect.text.sentences import Span, sentence_spans
from llmdirect.text.words import is_function_word

PARTS: Final = {
    "words": "what reviews and descriptions say, weighed by this user's interests",
    "popularity": "the item's own bias, mostly how often everybody chose it",
    "collaboration": "how it goes with the items this user has: by who chose them, by how alike texts are",
}
"""The parts of a lead, and what each one is."""

TERMS: Final = {
    "user": "the same for every item",
    "popularity": PARTS["popularity"],
    "words_everywhere": "what the text of an average item gets",
    "words": "the sum of all word contributions",
    "collaboration": PARTS["collaboration"],
}
"""The terms of a score, and what each one is."""

CONTRIBUTION: Final = (
    "the word's own term in the score, less what a word of an average item gets. All contributions, what the "
    "text of an average item gets, and the terms that are not words add up to the score."
)

EFFECT: Final = (
    "the score with the word less the score without it, all else as it was read. It differs from the "
    "contribution because a word also changes how much the other words count."
)

NO_CLAIM: Final = (
    "Neither claims to equal what would happen if the text were written without the word and read again "
    "by the language model."
)

LEVELS: Final = 4

_MINUS = "\N{MINUS SIGN}"

_JOINER = "\N{ZERO WIDTH JOINER}"


def decimals(values: Iterable[float]) -> int:
    """Decimal places that give the largest of `values` three significant digits; 2 to 8."""
    largest = max((abs(value) for value in values), default=0.0)
    return min(max(2 - math.floor(math.log10(largest)), 2), 8) if largest else 2


def signed(value: float, places: int, minus: str = _MINUS) -> str:
    """`+1.82`, `-0.40` with `minus` for a sign; what rounds to zero has no sign."""
    text = f"{abs(value):.{places}f}"
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else minus) + text


def name_of(explanation: Json) -> str:
    """The item's title, or its id where it has none."""
    return str(explanation["title"] or explanation["item_id"])


def placed(explanation: Json) -> str:
    """Where the item stands among the user's candidates: one sentence."""
    user, count = explanation["user_id"], explanation["num_candidates"]
    if explanation["rank"] is None:
        return f"{user} already has this item, so it has no rank among the {count:,} candidates."
    return f"Ranked {explanation['rank']:,} of {count:,} for {user}."


def reason(lead: Json | None, minus: str = _MINUS) -> str:
    """What the distance to the typical candidate is made of; lead is None without candidates."""
    if lead is None:
        return "There is no candidate left to compare it with."
    places = lead_decimals(lead)
    written = {part: signed(lead[part], places, minus) for part in ("total", *PARTS)}
    shown = sorted((part for part in PARTS if _has_sign(written[part])), key=lambda part: -abs(lead[part]))
    told = {part: f"{part} ({written[part]})" for part in shown}
    if not _has_sign(written["total"]):
        made = f": {_joined(list(told.values()))}" if told else ""
        return f"It scores the same as a typical candidate{made}."
    ahead = lead["total"] > 0
    same = [part for part in shown if (lead[part] > 0) == ahead]
    other = [part for part in shown if part not in same]
    distance = "lead over" if ahead else "distance behind"
    of = f"its {distance} a typical candidate ({written['total']})"
    if len(same) > 1 and abs(lead[same[0]]) > sum(abs(lead[part]) for part in same[1:]):
        rest = _joined([told[part] for part in same[1:]])
        sentence = f"Most of {of} comes from {told[same[0]]}, then {rest}."
    else:
        sentence = f"{_capital(of)} comes from {_joined([told[part] for part in same])}."
    if not other:
        return sentence
    speaks = (
        f"{'speak' if len(other) > 1 or other == ['words'] else 'speaks'} {'against' if ahead else 'for'}"
    )
    return f"{sentence} {_capital(_joined([told[part] for part in other]))} {speaks} it."


def other_reason(than: Json, minus: str = _MINUS) -> str:
    """By how much the item scores above or below another one, and what that is made of: one sentence."""
    parts = {"words": than["parts"]["words"] + than["parts"]["words_everywhere"]}
    parts |= {name: than["parts"][name] for name in ("popularity", "collaboration")}
    places = decimals([than["total"], *parts.values()])
    order = sorted(parts, key=lambda name: -abs(parts[name]))
    told = _joined([f"{name} ({signed(parts[name], places, minus)})" for name in order])
    total = signed(than["total"], places, minus)
    place = "is no candidate" if than["rank"] is None else f"has rank {than['rank']:,}"
    return f"Its score less that of {name_of(than)}, which {place}, is {total}: {told}."


def fewest(found: Json) -> str:
    """What a counterfactual found: one or two sentences."""
    k = found["k"]
    if not found["possible"]:
        return (
            f"Without any text it would have rank {found['without_text']['rank']:,}, still among the {k} "
            "best: it is there for other reasons than words."
        )
    count = len(found["words"])
    words = "this word" if count == 1 else f"these {count:,} words"
    return (
        f"Without {words} of {found['num_words']:,} it would fall from rank {found['rank']:,} to "
        f"{found['checked']['rank']:,}, the texts read again by the language model "
        f"({found['predicted']['rank']:,} by effect alone)."
    )


def counted(words: list[Json]) -> list[str]:
    """The words by type, in the order in which each comes first, with the number of times."""
    counts: dict[str, int] = {}
    for word in words:
        name = readable(word["text"]).casefold()
        counts[name] = counts.get(name, 0) + 1
    return [
        name if count == 1 else f"{name} \N{MULTIPLICATION SIGN}{count}" for name, count in counts.items()
    ]


def telling(words: list[Json], key: str = "contribution") -> list[Json]:
    """Those of the entries whose text names something: no function words, no punctuation."""
    return [word for word in words if word[key] and not is_function_word(word["text"])]


def lead_decimals(lead: Json) -> int:
    """Decimal places for the numbers of a lead."""
    return decimals(lead[part] for part in ("total", *PARTS))


def _has_sign(number: str) -> bool:
    return not number[0].isdigit()


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def strongest(explanation: Json) -> float:
    """The largest |contribution| of a word, 0 without words: what shades are relative to."""
    words = (word for passage in explanation["passages"] for word in passage["words"])
    return max((abs(word["contribution"]) for word in words), default=0.0)


def level(contribution: float, scale: float) -> int:
    """Shade 0 (unmarked: below a fifth of the strongest word) to LEVELS, in even steps."""
    return min(int((LEVELS + 1) * abs(contribution) / scale), LEVELS) if scale else 0


def words_of(explanation: Json) -> list[tuple[int, Json]]:
    """Words of level 1 and above with the number of their passage (from 1), by |contribution|.

    Function words and punctuation, which a list says nothing by, are left to the texts.
    """
    scale = strongest(explanation)
    words = [
        (number, word)
        for number, passage in enumerate(explanation["passages"], 1)
        for word in passage["words"]
        if level(word["contribution"], scale) and not is_function_word(word["text"])
    ]
    return sorted(words, key=lambda entry: -abs(entry[1]["contribution"]))


def main_words(explanation: Json, positive: bool, count: int) -> list[tuple[str, float]]:
    """The words of one sign that add most, case aside, each with the sum of its marked occurrences.

    A frequent word whose every occurrence is weak would otherwise win by number alone.
    """
    sums: dict[str, float] = {}
    for _, word in words_of(explanation):
        name = word["text"].casefold()
        sums[name] = sums.get(name, 0.0) + word["contribution"]
    chosen = [(name, value) for name, value in sums.items() if value and (value > 0) == positive]
    return sorted(chosen, key=lambda entry: -abs(entry[1]))[:count]


def aspect_names(explanation: Json) -> dict[int, str]:
    """Name of each aspect that the explanation lists."""
    return {aspect["aspect"]: aspect["name"] for aspect in explanation["aspects"]}


def readable(word: str) -> str:
    """The word as a table can show it: white space, which is also read, gets a name."""
    return "(blank)" if word.isspace() else word


def excerpt(passage: Json, limit: int) -> list[Span]:
    """Spans of the sentences that hold the strongest words, in order; neighbours are joined.

    Takes sentences by their strongest word while they fit into `limit` characters, and always the first.
    Without words: the beginning of the text.
    """
    spans = sentence_spans(passage["text"])
    peaks = [
        max((abs(w["contribution"]) for w in passage["words"] if start <= w["start"] < end), default=0.0)
        for start, end in spans
    ]
    taken: set[int] = set()
    length = 0
    for index in sorted(range(len(spans)), key=lambda index: -peaks[index]):
        start, end = spans[index]
        if taken and (length + end - start > limit or not peaks[index]):
            break
        taken.add(index)
        length += end - start
    joined: list[Span] = []
    for index in sorted(taken):
        if joined and joined[-1][1] == spans[index][0]:
            joined[-1] = (joined[-1][0], spans[index][1])
        else:
            joined.append(spans[index])
    return joined


def segments(passage: Json, start: int, end: int) -> Iterator[tuple[str, Json | None]]:
    """The text from `start` to `end` in pieces, each with its word, or None between words.

    A combining mark stays with the letter before it, whatever the spans say. Raises ValueError for word
    spans that overlap, do not ascend, or lie outside the text.
    """
    if passage["text"].isascii():
        yield from _pieces(passage, start, end)
        return
    held, held_word = "", None
    for piece, word in _pieces(passage, start, end):
        marks = next((at for at, letter in enumerate(piece) if not _combines(letter)), len(piece))
        if held:
            yield held + piece[:marks], held_word
            held, held_word = piece[marks:], word
        else:
            held, held_word = piece, word
    if held:
        yield held, held_word


def _pieces(passage: Json, start: int, end: int) -> Iterator[tuple[str, Json | None]]:
    text, position, passed = passage["text"], start, 0
    for word in passage["words"]:
        if not passed <= word["start"] < word["end"] <= len(text):
            raise ValueError(
                f"passage {passage['passage_idx']}: the word at characters {word['start']} to {word['end']} "
                f"overlaps another or lies outside the text of {len(text)}; explain the item again"
            )
        passed = word["end"]
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
