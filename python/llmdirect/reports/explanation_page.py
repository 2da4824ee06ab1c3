"""Explanations as one HTML file that needs nothing else: no script, no network, no other file.

Every text that comes from data passes `safe`. A content security policy forbids scripts and requests as
well, so a mistake here would still run nothing.
"""

from pathlib import Path
from typing import Final

from llmdirect.common.files import write_atomic
from llmdirect.common.types import Json
from llmdirect.reports.explanation_cards import card, collaboration, counterfactual, history, than
from llmdirect.reports.explanation_texts import texts, word_table
from llmdirect.reports.html import safe
from llmdirect.reports.style import STYLE
from llmdirect.reports.wording import (
    CONTRIBUTION,
    EFFECT,
    NO_CLAIM,
    PARTS,
    TERMS,
    decimals,
    lead_decimals,
    name_of,
    placed,
    reason,
    signed,
)

_OPEN_ASPECTS: Final = 8
_INSIDE: Final = 13
"""Per cent of the bar's width from which a number fits into its segment on a phone."""


def write_page(path: Path, result: Json, title: str) -> None:
    """Writes explanations as one page, at once or not at all.

    result: "explanations" (one or more), "model" and "dataset", as `explanation` makes them. Raises
    ValueError, and writes nothing, where there are no explanations or a word's span does not fit its text.
    """
    page = render(result, title).encode()
    write_atomic(path, lambda file: file.write(page))


def render(result: Json, title: str) -> str:
    """The page as a string; see `write_page`."""
    explanations = result["explanations"]
    if not explanations:
        raise ValueError("there are no explanations to show; explain at least one item")
    articles = "".join(article(number, one) for number, one in enumerate(explanations, 1))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the explanations</a>\n<div class="wrap">\n'
        f"<header><h1>{safe(title)}</h1>"
        '<p class="muted small">Why these items, word by word. '
        '<a href="#how-to-read">How to read this</a></p>'
        f"</header>\n{_index(explanations)}"
        f'<main id="main">{articles}{legend()}</main>\n{_about(result)}</div>\n</body>\n</html>\n'
    )


def _name(explanation: Json) -> str:
    return f"<bdi>{safe(name_of(explanation))}</bdi>"


def _placed(explanation: Json) -> str:
    """The sentence with the user's id isolated, so that an id in another direction turns nothing else."""
    isolated = f"\N{FIRST STRONG ISOLATE}{explanation['user_id']}\N{POP DIRECTIONAL ISOLATE}"
    return safe(placed({**explanation, "user_id": isolated}))


def _index(explanations: list[Json]) -> str:
    if len(explanations) == 1:
        return ""
    entries = "".join(
        f'<li><a href="#e{number}">{_name(one)}</a>'
        f'<div class="muted small">{_placed(one)} {safe(reason(one["lead"]))}</div></li>'
        for number, one in enumerate(explanations, 1)
    )
    return f'<nav aria-label="Items on this page"><ol class="index">{entries}</ol></nav>\n'


def article(number: int, explanation: Json) -> str:
    """One explanation in full; `number` tells its anchors from those of others on the page."""
    identity = f"Item <bdi>{safe(explanation['item_id'])}</bdi> · " if explanation["title"] else ""
    scored = signed(explanation["score"], decimals([explanation["score"]]))
    return (
        f'<article id="e{number}" aria-labelledby="e{number}-name">\n<header>'
        f'<h2 id="e{number}-name">{_name(explanation)}</h2>'
        f'<p class="muted small">{identity}score {scored}</p>'
        f'<p class="headline"><strong>{_placed(explanation)}</strong> '
        f"{safe(reason(explanation['lead']))}</p></header>\n"
        f'{_lead(explanation)}<div class="columns"><div>{texts(number, explanation)}'
        f"{word_table(number, explanation)}</div><div>{than(explanation)}{counterfactual(explanation)}"
        f"{_aspects(explanation)}{history(explanation)}{collaboration(explanation)}"
        f"{_terms(explanation)}</div></div>\n</article>\n"
    )


def _lead(explanation: Json) -> str:
    lead = explanation["lead"]
    if lead is None:
        return ""
    places = lead_decimals(lead)
    parts = "".join(
        f'<li><span class="swatch part-{part}"></span><span>{part} '
        f'<strong class="num">{signed(lead[part], places)}</strong> <span class="muted">score</span></span>'
        f'<span class="what muted small">{what}</span></li>'
        for part, what in PARTS.items()
    )
    count = f"{explanation['num_candidates']:,}"
    return (
        '<section class="card lead"><h3>How it compares with a typical candidate</h3><figure>'
        f'{_lead_bar(lead, places)}<figcaption><ul class="parts">{parts}</ul>'
        f'<p class="muted small under">The typical candidate is the median of the {count} '
        f"candidates: item <bdi>{safe(lead['item_id'])}</bdi>.</p></figcaption></figure></section>\n"
    )


def _lead_bar(lead: Json, places: int) -> str:
    """Parts for the item to the right of zero, parts against it to the left, end to end."""
    low = sum(min(lead[part], 0.0) for part in PARTS)
    span = float(sum(abs(lead[part]) for part in PARTS)) or 1.0

    def at(value: float) -> float:
        return min(max(float(value - low) / span * 100, 0.0), 100.0)

    drawn, ends = [], {True: 0.0, False: 0.0}
    for part in PARTS:
        start = ends[lead[part] > 0]
        ends[lead[part] > 0] += lead[part]
        left, right = sorted((at(start), at(start + lead[part])))
        if right == left:
            continue
        number = signed(lead[part], places)
        drawn.append(
            f'<rect class="part-{part}" x="{left:.2f}%" y="24" width="{right - left:.2f}%" height="34">'
            f"<title>{part} {number} score</title></rect>"
        )
        if right - left >= _INSIDE:
            drawn.append(
                f'<text class="inside on-{part}" x="{(left + right) / 2:.2f}%" y="46" text-anchor="middle">'
                f"{number}</text>"
            )
    told = ", ".join(f"{part} {signed(lead[part], places)}" for part in PARTS)
    total = signed(lead["total"], places)
    return (
        f'<svg width="100%" height="84" role="img" aria-label="{told}; lead {total} score">'
        f"{''.join(drawn)}{_tick(at(lead['total']), f'this item {total}', 16, '')}"
        f"{_tick(at(0), 'typical candidate', 76, 'caption')}</svg>"
    )


def _tick(at: float, label: str, baseline: int, style: str) -> str:
    anchor = "start" if at < 30 else "end" if at > 70 else "middle"
    return (
        f'<line class="axis" x1="{at:.2f}%" x2="{at:.2f}%" y1="20" y2="62"/>'
        f'<text class="{style}" x="{at:.2f}%" y="{baseline}" text-anchor="{anchor}">{label}</text>'
    )


def _aspects(explanation: Json) -> str:
    aspects = explanation["aspects"]
    if not aspects:
        return ""
    rows = [(safe(aspect["name"]), aspect["contribution"]) for aspect in aspects]
    return card("What the words are about", "Aspect", rows, "Contribution", shown=_OPEN_ASPECTS)


def _terms(explanation: Json) -> str:
    terms = explanation["terms"]
    places = decimals([explanation["score"], *terms.values()])
    rows = "".join(
        f'<tr><th scope="row">{name.replace("_", " ")}<div class="note">{what}</div></th>'
        f'<td class="num">{signed(terms[name], places)}</td></tr>'
        for name, what in TERMS.items()
    )
    return (
        '<section class="card"><h3>How the score adds up</h3><table><tbody>'
        f'{rows}<tr class="total"><th scope="row">score</th>'
        f'<td class="num">{signed(explanation["score"], places)}</td></tr></tbody></table></section>\n'
    )


def legend() -> str:
    """How marks, contributions and effects are to be read."""
    samples = "".join(
        f'<span><mark class="{sign} {sign}1">word</mark> <mark class="{sign} {sign}4">word</mark> '
        f"{meaning}</span>"
        for sign, meaning in (
            ("for", "speaks for the item (solid line)"),
            ("against", "speaks against it (dashed line)"),
        )
    )
    told = "".join(
        f"<dt>{name}</dt><dd>{meaning[0].upper()}{meaning[1:]}</dd>"
        for name, meaning in (("Contribution", CONTRIBUTION), ("Effect", EFFECT))
    )
    return (
        '<section class="card" id="how-to-read" aria-labelledby="how-to-read-name">'
        '<h2 id="how-to-read-name">How to read this</h2>'
        f'<p class="scale">{samples}</p><p>The stronger the shade, the larger the contribution; words below '
        "a fifth of the strongest one are left plain. Point at a word for its figures, or see the table.</p>"
        f"<dl>{told}</dl><p>{NO_CLAIM}</p></section>\n"
    )


def _about(result: Json) -> str:
    facts = {"dataset": result["dataset"], **result["model"]}
    entries = "".join(
        f"<dt>{safe(name)}</dt><dd><bdi>{safe(value)}</bdi></dd>" for name, value in facts.items()
    )
    return f'<footer><dl class="facts muted small">{entries}</dl></footer>\n'
