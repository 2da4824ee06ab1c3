"""Cards of an explanation page: history, collaboration, comparison, counterfactual."""

from typing import Final

from llmdirect.common.types import Json
from llmdirect.reports.html import safe
from llmdirect.reports.wording import (
    comparison_sentence,
    content_words,
    counterfactual_sentence,
    decimals,
    item_name,
    signed,
    visible,
    word_counts,
)

_HISTORY_TITLE: Final = "Interest by item of the history"
_ROWS: Final = 8
_HISTORY_WORDS: Final = 6
_WORDS: Final = 24


def _bar(value: float, low: float, high: float) -> str:
    """Bar from zero on the scale of a table, from `low` to `high`."""
    span = high - low or 1.0
    zero, end = -low / span * 100, (value - low) / span * 100
    return (
        f'<svg class="bar" aria-hidden="true"><rect class="{"for" if value > 0 else "against"}" '
        f'x="{min(zero, end):.2f}%" width="{abs(end - zero):.2f}%" height="10" rx="2"/>'
        f'<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="-2" y2="12"/></svg>'
    )


def history(explanation: Json) -> str:
    """Card of the history's items with their attention, contributions and strongest words."""
    entries = explanation["history"]
    if not entries:
        return (
            f'<section class="card"><h3>{_HISTORY_TITLE}</h3>'
            "<p>No item of this user's history was used.</p></section>\n"
        )
    contributions = [entry["contribution"] for entry in entries if entry["contribution"] is not None]
    places = decimals(contributions)
    highest = max(entry["weight"] for entry in entries)
    rows = "".join(
        f'<tr><th scope="row"><bdi>{safe(entry["title"] or entry["item_id"])}</bdi>'
        f"{_bar(entry['weight'], 0.0, highest)}{_history_words(entry, places)}</th>"
        f'<td class="num">{entry["weight"]:.0%}</td>'
        + (f'<td class="num">{_optional(entry["contribution"], places)}</td>' if contributions else "")
        + "</tr>"
        for entry in entries
    )
    column = '<th scope="col" class="num">Contribution</th>' if contributions else ""
    return (
        f'<section class="card"><h3>{_HISTORY_TITLE}</h3><table><thead><tr>'
        '<th scope="col">Item of the history</th><th scope="col" class="num">Attention</th>'
        f"{column}</tr></thead><tbody>{rows}</tbody></table></section>\n"
    )


def _history_words(entry: Json, places: int) -> str:
    """Strongest words about an item of the history, and the contribution of the user's own review."""
    words = content_words(entry.get("words") or [])[:_HISTORY_WORDS]
    if not words:
        return ""
    listed = ", ".join(
        f"<bdi>{safe(visible(word['text']))}</bdi> {signed(word['contribution'], places)}" for word in words
    )
    own = sum(passage["contribution"] for passage in entry["own"])
    by_user = f"; the user's own review: {signed(own, places)}" if entry["own"] else ""
    return f'<div class="note">{listed}{by_user}</div>'


def _optional(value: float | None, places: int) -> str:
    return "" if value is None else signed(value, places)


def collaboration(explanation: Json) -> str:
    """Card of the collaborative term by item of the history."""
    entries = explanation.get("collaboration") or []
    if not entries:
        return ""
    rows = [(safe(e["title"] or e["item_id"]), e["contribution"]) for e in entries]
    return card("Collaboration by item of the history", "Item of the history", rows, "Collaboration")


def card(
    title: str, first: str, rows: list[tuple[str, float]], column: str, lead: str = "", shown: int = _ROWS
) -> str:
    """Card with a table of names and signed numbers with bars.

    Parameters
    ----------
    title, lead
        HTML above the table.
    first, column
        Headings of both columns.
    rows
        Pairs of a name (HTML) and its number.
    shown
        Rows that are visible; the others are in a `details` element.
    """
    values = [value for _, value in rows]
    low, high, places = min(0.0, *values), max(0.0, *values), decimals(values)
    head = f'<thead><tr><th scope="col">{first}</th><th scope="col" class="num">{column}</th></tr></thead>'
    lines = [
        f'<tr><th scope="row"><bdi>{name}</bdi>{_bar(value, low, high)}</th>'
        f'<td class="num">{signed(value, places)}</td></tr>'
        for name, value in rows
    ]
    table = f"<table>{head}<tbody>{''.join(lines[:shown])}</tbody></table>"
    if len(lines) > shown:
        table += (
            f"<details><summary>{len(lines) - shown} more</summary>"
            f"<table>{head}<tbody>{''.join(lines[shown:])}</tbody></table></details>"
        )
    return f'<section class="card"><h3>{title}</h3>{lead}{table}</section>\n'


def than(explanation: Json) -> str:
    """Cards of the difference to another item, by part, aspect and word."""
    other = explanation.get("than")
    if other is None:
        return ""
    title = f"Why this rather than <bdi>{safe(item_name(other))}</bdi>"
    lead = f"<p>{safe(comparison_sentence(other))}</p>"
    parts = [(name.replace("_", " "), value) for name, value in other["parts"].items()]
    words = [(safe(visible(e["text"])), e["difference"]) for e in content_words(other["words"], "difference")]
    aspects = [(safe(e["name"]), e["difference"]) for e in other["aspects"]]
    cards = [card(title, "Part of the score", parts, "Difference", lead)]
    for name, rows in (("Aspect", aspects), ("Word", words[: 2 * _ROWS])):
        if rows:
            cards.append(card(f"The difference by {name.lower()}", name, rows, "Difference"))
    return "".join(cards)


def counterfactual(explanation: Json) -> str:
    """Card of the words without which the item would not be among the k best."""
    result = explanation.get("counterfactual")
    if result is None:
        return ""
    words = [f"<bdi>{safe(word)}</bdi>" for word in word_counts(result["words"])]
    listed = f'<p class="small">{", ".join(words[:_WORDS])}</p>' if words else ""
    if len(words) > _WORDS:
        listed += (
            f"<details><summary>{len(words) - _WORDS} more</summary>"
            f'<p class="small">{", ".join(words[_WORDS:])}</p></details>'
        )
    title = f"What keeps it among the {result['k']} best"
    sentence = safe(counterfactual_sentence(result))
    return f'<section class="card"><h3>{title}</h3><p>{sentence}</p>{listed}</section>\n'
