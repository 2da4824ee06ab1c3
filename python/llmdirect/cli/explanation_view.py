"""Explanations in the terminal: coloured words where there are colours, +word+ and -word- where not."""

from typing import Final

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llmdirect.cli.console import literal, one_line, safe
from llmdirect.common.types import Json
from llmdirect.reports.wording import (
    CONTRIBUTION,
    EFFECT,
    NO_CLAIM,
    PARTS,
    aspect_names,
    counted,
    decimals,
    excerpt,
    fewest,
    lead_decimals,
    level,
    name_of,
    other_reason,
    placed,
    readable,
    reason,
    segments,
    signed,
    strongest,
    telling,
    words_of,
)

_FOR: Final = "bold bright_blue"
_AGAINST: Final = "underline dark_orange3"
_EXCERPT: Final = 240
_LISTED: Final = 6
"""Rows of a list."""
_HISTORY_WORDS: Final = 4
_COUNTED: Final = 24


def show(result: Json, console: Console, max_passages: int = 3, max_words: int = 10) -> None:
    """Prints each explanation: where the item stands and why, its strongest sentences and words.

    result: as `explanation` makes it. max_passages, max_words: how many of each, at most; all the rest is
    counted. Raises ValueError, before the first line, for a word span that does not fit its text.
    """
    plain = console.no_color or console.color_system is None
    blocks = [_blocks(one, plain, max_passages, max_words) for one in result["explanations"]]
    for number, block in enumerate(blocks):
        if number:
            console.print()
        for part in block:
            console.print(part)
    if blocks:
        console.print()
        console.print(Text(f"contribution: {CONTRIBUTION}\neffect: {EFFECT}\n{NO_CLAIM}", style="dim"))


def _blocks(
    explanation: Json, plain: bool, max_passages: int, max_words: int
) -> list[Text | Table | Padding]:
    blocks: list[Text | Table | Padding] = [_title(explanation)]
    blocks.append(Text(safe(f"{placed(explanation)} {reason(explanation['lead'], minus='-')}")))
    if explanation["lead"] is not None:
        blocks.append(_lead(explanation["lead"]))
    blocks.append(Text())
    blocks.extend(_passages(explanation, plain, max_passages))
    words = words_of(explanation)[:max_words]
    if words:
        blocks += [Text(), _word_table(explanation, words, plain)]
    for listed in (_history(explanation), _collaboration(explanation), *_than(explanation)):
        if listed is not None:
            blocks += [Text(), listed]
    if (found := explanation.get("counterfactual")) is not None:
        gone = [one_line(word) for word in counted(found["words"])]
        more = f" and {len(gone) - _COUNTED} more" if len(gone) > _COUNTED else ""
        blocks += [Text(), Text(safe(fewest(found)))]
        if gone:
            blocks.append(Text(", ".join(gone[:_COUNTED]) + more, style="bold"))
    return blocks


def _history(explanation: Json) -> Table | None:
    """The items from which the interest was read, and the words about them that say most."""
    entries = explanation["history"]
    if not entries:
        return None
    told = [entry["contribution"] for entry in entries if entry["contribution"] is not None]
    table = _plain_table("interest read from", "attention")
    if told:
        table.add_column("contribution", justify="right", no_wrap=True)
        table.add_column("most by", style="dim")
    places = decimals(told)
    for entry in entries[:_LISTED]:
        row = [one_line(entry["title"] or entry["item_id"]), f"{entry['weight']:.0%}"]
        if told:
            words = telling(entry.get("words") or [])[:_HISTORY_WORDS]
            row.append(signed(entry["contribution"] or 0.0, places, "-"))
            row.append(", ".join(one_line(word["text"]) for word in words))
        table.add_row(*(Text(cell) for cell in row))
    return table


def _collaboration(explanation: Json) -> Table | None:
    """What each item that the user has adds to the collaborative term."""
    entries = explanation.get("collaboration") or []
    if not entries:
        return None
    rows = [(entry["title"] or entry["item_id"], entry["contribution"]) for entry in entries]
    return _numbers("goes with, in the history", "collaboration", rows)


def _than(explanation: Json) -> list[Text | Table]:
    """What the item has over another one."""
    other = explanation.get("than")
    if other is None:
        return []
    words = [(readable(e["text"]), e["difference"]) for e in telling(other["words"], "difference")]
    aspects = [(e["name"], e["difference"]) for e in other["aspects"]]
    tables = [("difference by word", words), ("difference by aspect", aspects)]
    return [
        Text(safe(other_reason(other, minus="-"))),
        *(_numbers(name, "difference", rows) for name, rows in tables if rows),
    ]


def _plain_table(first: str, second: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(first, overflow="ellipsis", no_wrap=True, max_width=48)
    table.add_column(second, justify="right", no_wrap=True)
    return table


def _numbers(first: str, second: str, rows: list[tuple[str, float]]) -> Table:
    """Names with signed numbers, the first few."""
    places = decimals(value for _, value in rows)
    table = _plain_table(first, second)
    for name, value in rows[:_LISTED]:
        table.add_row(literal(name), signed(value, places, "-"))
    return table


def _title(explanation: Json) -> Text:
    title = Text(safe(name_of(explanation)), style="bold")
    if explanation["title"]:
        title.append(safe(f"  {explanation['item_id']}"), style="not bold dim")
    return title


def _lead(lead: Json) -> Text:
    places = lead_decimals(lead)
    parts = ", ".join(f"{part} {signed(lead[part], places, '-')}" for part in PARTS)
    line = Text(f"lead {signed(lead['total'], places, '-')} = {parts}")
    return line.append(safe(f"  (against {lead['item_id']}, the median candidate)"), style="dim")


def _passages(explanation: Json, plain: bool, count: int) -> list[Text | Padding]:
    passages = explanation["passages"]
    if not passages:
        return [Text("No text about this item was read.")]
    scale = strongest(explanation)
    places = decimals(passage["contribution"] for passage in passages)
    lines: list[Text | Padding] = [_key(plain)]
    for number, passage in enumerate(passages[:count], 1):
        head = Text(f"{number}. {_source(passage)}  ")
        head.append(f"contribution {signed(passage['contribution'], places, '-')}", style="bold")
        head.append(f", effect {signed(passage['effect'], places, '-')}", style="dim")
        lines += [head, Padding(_sentences(passage, scale, plain), (0, 0, 0, 3))]
    if len(passages) > count:
        lowest = signed(passages[-1]["contribution"], places, "-")
        lines.append(Text(f"and {len(passages) - count} more, down to {lowest}", style="dim"))
    return lines


def _key(plain: bool) -> Text:
    key = Text("Texts, ", style="bold")
    key.append_text(_mark("for", 1.0, plain)).append(" and ")
    return key.append_text(_mark("against", -1.0, plain)).append(" it:")


def _source(passage: Json) -> str:
    by = "" if passage["user_id"] is None else f" by {safe(passage['user_id'])}"
    rating = "" if passage["rating"] is None else f", rating {passage['rating']:g}"
    return f"{passage['kind']}{by}{rating}"


def _sentences(passage: Json, scale: float, plain: bool) -> Text:
    """The sentences with the strongest words; an ellipsis stands for each gap."""
    told, position = Text(), 0
    for start, end in excerpt(passage, _EXCERPT):
        told.append("… " if start > position else "")
        for piece, word in segments(passage, start, end):
            # Signs around punctuation could not be told from the text.
            if word is not None and level(word["contribution"], scale) and any(map(str.isalnum, piece)):
                told.append_text(_mark(one_line(piece), word["contribution"], plain))
            else:
                told.append(one_line(piece))
        told.rstrip()
        told.append(" ")
        position = end
    told.append("…" if position < len(passage["text"]) else "")
    return told


def _mark(word: str, contribution: float, plain: bool) -> Text:
    positive = contribution > 0
    if plain:
        sign = "+" if positive else "-"
        return Text(f"{sign}{word}{sign}")
    return Text(word, style=_FOR if positive else _AGAINST)


def _word_table(explanation: Json, words: list[tuple[int, Json]], plain: bool) -> Table:
    names = aspect_names(explanation)
    places = decimals(value for _, word in words for value in (word["contribution"], word["effect"]))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("word", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("contribution", justify="right", no_wrap=True)
    table.add_column("effect", justify="right", no_wrap=True)
    table.add_column("text", justify="right", no_wrap=True)
    table.add_column("aspect", style="dim")  # alone in giving way where the terminal is narrow
    for number, word in words:
        table.add_row(
            _mark(one_line(readable(word["text"])), word["contribution"], plain),
            signed(word["contribution"], places, "-"),
            signed(word["effect"], places, "-"),
            str(number),
            Text(
                one_line(names.get(word["aspect"], f"number {word['aspect']}")),
                overflow="ellipsis",
                no_wrap=True,
            ),
        )
    return table
