"""Passages with marked words and tables of the strongest words, as parts of an explanation page."""

from itertools import groupby
from typing import Final

from llmdirect.common.types import Json
from llmdirect.reports.html import safe
from llmdirect.reports.wording import (
    aspect_names,
    decimals,
    excerpt,
    marked_words,
    max_contribution,
    segments,
    shade_level,
    signed,
    top_words,
    visible,
)
from llmdirect.text.sentences import Span

_SHOWN_PASSAGES: Final = 3

_LONG: Final = 600
"""Characters beyond which an excerpt of a passage is shown first."""

_EXCERPT: Final = 360

_TABLE_WORDS: Final = 12

_CHIPS: Final = 6

_TITLE: Final = "Texts"


def texts(number: int, explanation: Json) -> str:
    """Card of the passages with marked words, and the words with the largest sums."""
    passages = explanation["passages"]
    if not passages:
        return f'<section class="card"><h3>{_TITLE}</h3><p>There is no text about this item.</p></section>'
    scale, names = max_contribution(explanation), aspect_names(explanation)
    sections = [_passage(number, n, passage, scale, names) for n, passage in enumerate(passages, 1)]
    first, rest = "".join(sections[:_SHOWN_PASSAGES]), ""
    if len(sections) > _SHOWN_PASSAGES:
        places = decimals(passage["contribution"] for passage in passages)
        lowest = signed(passages[-1]["contribution"], places)
        count = len(sections) - _SHOWN_PASSAGES
        rest = (
            f"<details><summary>{count} more text{'s' * (count > 1)}, down to {lowest}</summary>"
            f"{''.join(sections[_SHOWN_PASSAGES:])}</details>"
        )
    return f'<section class="card"><h3>{_TITLE}</h3>{_chips(explanation)}{first}{rest}</section>\n'


def _chips(explanation: Json) -> str:
    by_sign = {sign: top_words(explanation, sign == "for", _CHIPS) for sign in ("for", "against")}
    places = decimals(value for words in by_sign.values() for _, value in words)
    lists = []
    for sign, words in by_sign.items():
        if words:
            items = "".join(
                f'<li class="{sign}"><bdi>{safe(word)}</bdi> '
                f'<span class="num muted">{signed(value, places)}</span></li>'
                for word, value in words
            )
            label = f"Marked words {sign} it, summed over all texts"
            lists.append(f'<p class="small muted label">{label}</p><ul class="chips">{items}</ul>')
    return "".join(lists)


def _passage(number: int, at: int, passage: Json, scale: float, names: dict[int, str]) -> str:
    places = decimals([passage["contribution"], passage["effect"]])
    whole = [(0, len(passage["text"]))]
    if len(passage["text"]) <= _LONG:
        body = _paragraph(passage, whole, scale, names)
    else:
        count = f"{len(passage['text'].split()):,}"
        body = (
            f"{_paragraph(passage, excerpt(passage, _EXCERPT), scale, names)}<details><summary>Whole text "
            f"({count} words)</summary>{_paragraph(passage, whole, scale, names)}</details>"
        )
    return (
        f'<section class="passage" id="e{number}-p{at}"><header><h4>{at}. {_source(passage)}</h4>'
        f'<span class="small muted num">contribution {signed(passage["contribution"], places)} · '
        f"effect {signed(passage['effect'], places)}</span></header>{body}</section>\n"
    )


def _source(passage: Json) -> str:
    parts = [passage["kind"].capitalize()]
    if passage["user_id"] is not None:
        parts.append(f"by <bdi>{safe(passage['user_id'])}</bdi>")
    if passage["rating"] is not None:
        parts.append(f"· rating {passage['rating']:g}")
    return " ".join(parts)


def _paragraph(passage: Json, spans: list[Span], scale: float, names: dict[int, str]) -> str:
    """The passage at these spans with marked words; gaps are shown as […]."""
    gap = '<span class="gap">[…]</span>'
    style = "text" if spans == [(0, len(passage["text"]))] else "text excerpt"
    shown, position = [], 0
    for start, end in spans:
        if start > position:
            shown.append(gap + " ")
        for marked, run in groupby(
            segments(passage, start, end), lambda segment: _is_marked(segment[0], segment[1], scale)
        ):
            if marked:
                shown.extend(_mark(piece, word, scale, names) for piece, word in run if word is not None)
            else:
                shown.append(safe("".join(piece for piece, _ in run)))
        position = end
    if position < len(passage["text"]):
        shown.append(" " + gap)
    return f'<p class="{style}" dir="auto" lang="">{"".join(shown)}</p>'


def _is_marked(piece: str, word: Json | None, scale: float) -> bool:
    return word is not None and not piece.isspace() and shade_level(word["contribution"], scale) > 0


def _mark(piece: str, word: Json, scale: float, names: dict[int, str]) -> str:
    places = decimals([word["contribution"], word["effect"]])
    title = (
        f"contribution {signed(word['contribution'], places)}, effect {signed(word['effect'], places)}; "
        f"aspect: {_aspect(word, names)}"
    )
    return f'<mark class="{_shade(word["contribution"], scale)}" title="{safe(title)}">{safe(piece)}</mark>'


def _shade(contribution: float, scale: float) -> str:
    sign = "for" if contribution > 0 else "against"
    return f"{sign} {sign}{shade_level(contribution, scale)}"


def _aspect(word: Json, names: dict[int, str]) -> str:
    return names.get(word["aspect"], f"number {word['aspect']}")


def word_table(number: int, explanation: Json) -> str:
    """Card of the strongest words with the figures of the tooltips."""
    words = marked_words(explanation)[:_TABLE_WORDS]
    if not words:
        return ""
    scale, names = max_contribution(explanation), aspect_names(explanation)
    places = decimals(value for _, word in words for value in (word["contribution"], word["effect"]))
    rows = "".join(
        f'<tr><th scope="row"><mark class="{_shade(word["contribution"], scale)}">'
        f"<bdi>{safe(visible(word['text']))}</bdi></mark>"
        f'<div class="note"><a href="#e{number}-p{at}">text {at}</a> · '
        f"<bdi>{safe(_aspect(word, names))}</bdi></div></th>"
        f'<td class="num">{signed(word["contribution"], places)}</td>'
        f'<td class="num">{signed(word["effect"], places)}</td></tr>'
        for at, word in words
    )
    return (
        '<section class="card"><h3>The strongest words</h3><table><thead><tr>'
        '<th scope="col">Word, text and aspect</th>'
        '<th scope="col" class="num">Contribution</th><th scope="col" class="num">Effect</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>\n"
    )
