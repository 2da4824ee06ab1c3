"""Explanations as one HTML file, without scripts, and without requests but for the images of items.

Every text from data is escaped by `safe`. A content security policy forbids scripts and other requests too,
as a second line of defence.
"""

from pathlib import Path
from typing import Final

from llmdirect.common.files import write_atomic
from llmdirect.common.types import Json
from llmdirect.reports.explanation_cards import card, collaboration, counterfactual, history, than
from llmdirect.reports.explanation_texts import texts, word_table
from llmdirect.reports.html import item_image, item_price, policy, safe
from llmdirect.reports.style import STYLE
from llmdirect.reports.wording import (
    PARTS,
    TERMS,
    decimals,
    definitions,
    item_name,
    lead_decimals,
    lead_sentence,
    rank_sentence,
    signed,
)

_SHOWN_ASPECTS: Final = 8
_LABEL_WIDTH: Final = 13
"""Least width of a bar's segment with a number inside it, in per cent: what fits on a phone."""


def write_page(path: Path, result: Json, title: str) -> None:
    """Write explanations as one HTML page, atomically.

    Parameters
    ----------
    path
        File to write.
    result
        "explanations" (one or more), "model" and "dataset", as `explain` returns them.
    title
        Title and first heading.

    Raises
    ------
    ValueError
        If there are no explanations, or a word's span does not fit its text. Nothing is written.
    """
    page = render(result, title).encode()
    write_atomic(path, lambda file: file.write(page))


def render(result: Json, title: str) -> str:
    """HTML of the page; arguments and errors as for `write_page`."""
    explanations = result["explanations"]
    if not explanations:
        raise ValueError("there are no explanations to show; explain at least one item")
    articles = "".join(article(number, explanation) for number, explanation in enumerate(explanations, 1))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{policy(explanations)}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the explanations</a>\n<div class="wrap">\n'
        f"<header><h1>{safe(title)}</h1>"
        '<p class="muted small">Why these items are recommended, word by word. '
        '<a href="#how-to-read">How to read this</a></p>'
        f"</header>\n{_index(explanations)}"
        f'<main id="main">{articles}{legend(result)}</main>\n{_about(result)}</div>\n</body>\n</html>\n'
    )


def _name(explanation: Json) -> str:
    return f"<bdi>{safe(item_name(explanation))}</bdi>"


def _rank_sentence(explanation: Json) -> str:
    """The sentence with directional isolates around the user's id."""
    isolated = f"\N{FIRST STRONG ISOLATE}{explanation['user_id']}\N{POP DIRECTIONAL ISOLATE}"
    return safe(rank_sentence({**explanation, "user_id": isolated}))


def _index(explanations: list[Json]) -> str:
    if len(explanations) == 1:
        return ""
    entries = "".join(
        f'<li><a href="#e{number}">{_name(explanation)}</a><div class="muted small">'
        f"{_rank_sentence(explanation)} {safe(lead_sentence(explanation['lead']))}</div></li>"
        for number, explanation in enumerate(explanations, 1)
    )
    return f'<nav aria-label="Items on this page"><ol class="index">{entries}</ol></nav>\n'


def article(number: int, explanation: Json) -> str:
    """One complete explanation; `number` makes its anchors unique on the page."""
    identity = f"Item <bdi>{safe(explanation['item_id'])}</bdi> · " if explanation["title"] else ""
    scored = signed(explanation["score"], decimals([explanation["score"]]))
    details = explanation.get("details", {})
    return (
        f'<article id="e{number}" aria-labelledby="e{number}-name">\n<header class="item">'
        f"{item_image(details, item_name(explanation))}"
        f'<h2 id="e{number}-name">{_name(explanation)}</h2>'
        f'<p class="muted small">{identity}{item_price(details)}score {scored}</p>'
        f'<p class="headline"><strong>{_rank_sentence(explanation)}</strong> '
        f"{safe(lead_sentence(explanation['lead']))}</p></header>\n"
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
    """Stacked bar of the lead: positive parts to the right of zero, negative ones to the left."""
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
        if right - left >= _LABEL_WIDTH:
            drawn.append(
                f'<text class="inside on-{part}" x="{(left + right) / 2:.2f}%" y="46" text-anchor="middle">'
                f"{number}</text>"
            )
    label = ", ".join(f"{part} {signed(lead[part], places)}" for part in PARTS)
    total = signed(lead["total"], places)
    return (
        f'<svg width="100%" height="84" role="img" aria-label="{label}; lead {total} score">'
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
    return card("Contribution by aspect", "Aspect", rows, "Contribution", shown=_SHOWN_ASPECTS)


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


def legend(result: Json | None = None) -> str:
    """Legend of marks, contributions and effects; result: what `explain` returned, if it is known."""
    contribution, effect, caveat = definitions(result or {"model": {}})
    samples = "".join(
        f'<span><mark class="{sign} {sign}1">word</mark> <mark class="{sign} {sign}4">word</mark> '
        f"{meaning}</span>"
        for sign, meaning in (
            ("for", "counts for the item (solid line)"),
            ("against", "counts against it (dashed line)"),
        )
    )
    marks = (
        f'<p class="scale">{samples}</p><p>The stronger the shade, the larger the contribution; words below '
        "a fifth of the strongest one are not marked. Point at a word for its figures, or see the table.</p>"
    )
    if result is not None and result["model"].get("vectors"):  # no word is marked
        marks = ""
    meanings = "".join(
        f"<dt>{name}</dt><dd>{meaning[0].upper()}{meaning[1:]}</dd>"
        for name, meaning in (("Contribution", contribution), ("Effect", effect))
    )
    return (
        '<section class="card" id="how-to-read" aria-labelledby="how-to-read-name">'
        '<h2 id="how-to-read-name">How to read this</h2>'
        f"{marks}<dl>{meanings}</dl><p>{caveat}</p></section>\n"
    )


def _about(result: Json) -> str:
    facts = {"dataset": result["dataset"], **result["model"]}
    entries = "".join(
        f"<dt>{safe(name)}</dt><dd><bdi>{safe(value)}</bdi></dd>" for name, value in facts.items()
    )
    return f'<footer><dl class="facts muted small">{entries}</dl></footer>\n'
