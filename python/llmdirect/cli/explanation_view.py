"""Explanations in the terminal, with coloured words or, without colours, +word+ and -word-."""

from typing import Final

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llmdirect.cli.console import literal, one_line, safe
from llmdirect.common.types import Json
from llmdirect.reports.wording import (
    PARTS,
    aspect_names,
    comparison_sentence,
    content_words,
    counterfactual_sentence,
    decimals,
    definitions,
    excerpt,
    item_name,
    lead_decimals,
    lead_sentence,
    marked_words,
    max_contribution,
    rank_sentence,
    segments,
    shade_level,
    signed,
    visible,
    word_counts,
)

_FOR: Final = "bold bright_blue"
_AGAINST: Final = "underline dark_orange3"
_EXCERPT: Final = 240
_ROWS: Final = 6
_HISTORY_WORDS: Final = 4
_COUNTERFACTUAL_WORDS: Final = 24


def show(result: Json, console: Console, max_passages: int = 3, max_words: int = 10) -> None:
    """Print explanations: rank, parts of the lead, the strongest sentences and words.

    Parameters
    ----------
    result
        Result of `explain` as JSON.
    console
        Where to print.
    max_passages, max_words
        Largest numbers of passages and words; of more passages the number is printed.

    Raises
    ------
    ValueError
        If a word's span does not fit its text. Nothing is printed.
    """
    plain = console.no_color or console.color_system is None
    blocks = [_blocks(entry, plain, max_passages, max_words) for entry in result["explanations"]]
    for number, block in enumerate(blocks):
        if number:
            console.print()
        for part in block:
            console.print(part)
    if blocks:
        console.print()
        contribution, effect, caveat = definitions(result)
        console.print(Text(f"contribution: {contribution}\neffect: {effect}\n{caveat}", style="dim"))


def _blocks(
    explanation: Json, plain: bool, max_passages: int, max_words: int
) -> list[Text | Table | Padding]:
    blocks: list[Text | Table | Padding] = [_title(explanation)]
    blocks.append(Text(safe(f"{rank_sentence(explanation)} {lead_sentence(explanation['lead'], minus='-')}")))
    if explanation["lead"] is not None:
        blocks.append(_lead(explanation["lead"]))
    blocks.append(Text())
    blocks.extend(_passages(explanation, plain, max_passages))
    words = marked_words(explanation)[:max_words]
    if words:
        blocks += [Text(), _word_table(explanation, words, plain)]
    for block in (_history(explanation), _collaboration(explanation), *_than(explanation)):
        if block is not None:
            blocks += [Text(), block]
    if explanation.get("counterfactual") is not None:
        blocks += [Text(), *_counterfactual(explanation["counterfactual"])]
    return blocks


def _counterfactual(result: Json) -> list[Text]:
    words = [one_line(word) for word in word_counts(result["words"])]
    sentence = Text(safe(counterfactual_sentence(result)))
    if not words:
        return [sentence]
    hidden = len(words) - _COUNTERFACTUAL_WORDS
    more = f" and {hidden} more" if hidden > 0 else ""
    return [sentence, Text(", ".join(words[:_COUNTERFACTUAL_WORDS]) + more, style="bold")]


def _history(explanation: Json) -> Table | None:
    """Items of the history with attention, contribution and strongest words."""
    entries = explanation["history"]
    if not entries:
        return None
    contributions = [entry["contribution"] for entry in entries if entry["contribution"] is not None]
    table = _plain_table("interest by item of the history", "attention")
    if contributions:
        table.add_column("contribution", justify="right", no_wrap=True)
        table.add_column("strongest words", style="dim")
    places = decimals(contributions)
    for entry in entries[:_ROWS]:
        row = [one_line(entry["title"] or entry["item_id"]), f"{entry['weight']:.0%}"]
        if contributions:
            words = content_words(entry.get("words") or [])[:_HISTORY_WORDS]
            row.append(signed(entry["contribution"] or 0.0, places, "-"))
            row.append(", ".join(one_line(word["text"]) for word in words))
        table.add_row(*(Text(cell) for cell in row))
    return table


def _collaboration(explanation: Json) -> Table | None:
    """Collaborative term by item of the history."""
    entries = explanation.get("collaboration") or []
    if not entries:
        return None
    rows = [(entry["title"] or entry["item_id"], entry["contribution"]) for entry in entries]
    return _numbers("collaboration by item of the history", "contribution", rows)


def _than(explanation: Json) -> list[Text | Table]:
    """Difference to another item, by word and aspect."""
    other = explanation.get("than")
    if other is None:
        return []
    words = [(visible(e["text"]), e["difference"]) for e in content_words(other["words"], "difference")]
    aspects = [(e["name"], e["difference"]) for e in other["aspects"]]
    tables = [("difference by word", words), ("difference by aspect", aspects)]
    return [
        Text(safe(comparison_sentence(other, minus="-"))),
        *(_numbers(name, "difference", rows) for name, rows in tables if rows),
    ]


def _plain_table(first: str, second: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(first, overflow="ellipsis", no_wrap=True, max_width=48)
    table.add_column(second, justify="right", no_wrap=True)
    return table


def _numbers(first: str, second: str, rows: list[tuple[str, float]]) -> Table:
    """Table of the first names with signed numbers."""
    places = decimals(value for _, value in rows)
    table = _plain_table(first, second)
    for name, value in rows[:_ROWS]:
        table.add_row(literal(name), signed(value, places, "-"))
    return table


def _title(explanation: Json) -> Text:
    title = Text(safe(item_name(explanation)), style="bold")
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
        return [Text("There is no text about this item.")]
    scale = max_contribution(explanation)
    places = decimals(passage["contribution"] for passage in passages)
    lines: list[Text | Padding] = [_key(plain)] if scale else [Text("Texts:", style="bold")]
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
    """Sentences with the strongest words; gaps are shown as ellipses."""
    shown, position = Text(), 0
    for start, end in excerpt(passage, _EXCERPT):
        shown.append("… " if start > position else "")
        for piece, word in segments(passage, start, end):
            # Signs around punctuation would look like part of the text.
            if word is not None and shade_level(word["contribution"], scale) and any(map(str.isalnum, piece)):
                shown.append_text(_mark(one_line(piece), word["contribution"], plain))
            else:
                shown.append(one_line(piece))
        shown.rstrip()
        shown.append(" ")
        position = end
    shown.append("…" if position < len(passage["text"]) else "")
    return shown


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
    table.add_column("aspect", style="dim")  # the only column that shrinks in a narrow terminal
    for number, word in words:
        table.add_row(
            _mark(one_line(visible(word["text"])), word["contribution"], plain),
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
