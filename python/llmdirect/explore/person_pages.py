"""Pages of a user: list with sliders, explanation, comparison of two items."""

from typing import Final

from llmdirect.common.types import Json
from llmdirect.explanation.comparison import compare
from llmdirect.explore.pages import address, frame, item_link, keywords, plural
from llmdirect.explore.people import TERMS, Person
from llmdirect.reports.catalogue import Catalogue
from llmdirect.reports.explanation_page import article, legend
from llmdirect.reports.explanation_texts import texts
from llmdirect.reports.html import safe
from llmdirect.reports.wording import PARTS, decimals, lead_sentence, signed, top_words

SHOWN: Final = 20
"""Items of a list."""
_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_OPEN_SLIDERS: Final = 8
_MAX_FACTOR: Final = 3
"""Largest factor of an interest."""
_SHOWN_HISTORY: Final = 8
_ASPECTS: Final = 10
"""Aspects of a comparison, by largest difference."""


def person_page(catalogue: Catalogue, person: Person) -> str:
    """Page of a user: history, list and sliders."""
    guest = person.who[0] == "guest"
    name = "Your list" if guest else person.trained.users.ids[0]
    body = (
        f'<header class="who"><h1><bdi>{safe(name)}</bdi></h1>{_history(catalogue, person)}</header>\n'
        f'<div class="board"><aside>{_sliders(catalogue, person)}</aside>\n'
        f'<section aria-labelledby="list-name"><div class="list-head"><h2 id="list-name">Recommended</h2>'
        f'{_key()}</div><p id="status" class="unseen" role="status"></p>'
        f'<div id="list" data-list>{ranking(catalogue, person)}</div></section></div>\n'
    )
    return frame(name, body)


def _history(catalogue: Catalogue, person: Person) -> str:
    """Texts and items of the user."""
    trained = person.trained
    quotes = ""
    if trained.users.texts is not None:
        texts_of_user = trained.users.texts.texts
        quotes = "".join(f'<blockquote dir="auto">{safe(text)}</blockquote>' for text in texts_of_user)
    items = trained.users.seen.row(0).tolist()
    entries = "".join(f"<li>{item_link(catalogue, item)}</li>" for item in items[:_SHOWN_HISTORY])
    if len(items) > _SHOWN_HISTORY:
        rest = "".join(f"<li>{item_link(catalogue, item)}</li>" for item in items[_SHOWN_HISTORY:])
        entries += f'<li class="more"><details><summary>{len(items) - _SHOWN_HISTORY} more</summary>'
        entries += f'<ul class="had">{rest}</ul></details></li>'
    had = f'<p class="muted small label">Has {plural(len(items), "item")}</p><ul class="had">{entries}</ul>'
    return quotes + (had if items else "")


def _key() -> str:
    parts = "".join(f'<li><span class="swatch part-{part}"></span>{part}</li>' for part in PARTS)
    return f'<ul class="key muted small" aria-label="Colours of the bars, in this order">{parts}</ul>'


def _sliders(catalogue: Catalogue, person: Person) -> str:
    spread = person.spread()
    order = sorted(catalogue.aspects, key=lambda aspect: -spread[aspect])
    rows = [_slider(catalogue, person, aspect) for aspect in order]
    more = ""
    if len(rows) > _OPEN_SLIDERS:
        moved = any(aspect in person.what_if.interests for aspect in order[_OPEN_SLIDERS:])
        more = (
            f"<details{' open' * moved}><summary>{len(rows) - _OPEN_SLIDERS} more aspects</summary>"
            f"{''.join(rows[_OPEN_SLIDERS:])}</details>"
        )
    exclude = "".join(
        f'<label class="check"><input type="checkbox" name="without" value="{term}"'
        f"{' checked' * (term in person.what_if.without)}> without {term}</label>"
        for term in TERMS
        if term == "popularity" or catalogue.explainer.trained.tables.item_item is not None
    )
    field, value = person.who
    return (
        f'<form class="card what-if" action="/user" data-what-if><input type="hidden" name="{field}" '
        f'value="{safe(value)}"><details class="fold" open><summary><h2>What if</h2></summary>'
        f'<p class="muted small">Factors of the interests; {_TIMES}1 is as learned. Those with the largest '
        f"effect on this list come first.</p>{''.join(rows[:_OPEN_SLIDERS])}{more}"
        f'<div class="checks">{exclude}</div><div class="buttons"><button class="apply">Apply</button>'
        f'<a class="reset" href="{address("/user", person.who)}" data-reset>As learned</a></div>'
        "</details></form>"
    )


def _slider(catalogue: Catalogue, person: Person, aspect: int) -> str:
    factor = person.what_if.interests.get(aspect, 1.0)
    name = safe(catalogue.short(aspect))
    return (
        f'<div class="slider"><label for="a{aspect}"><bdi>{name}</bdi></label>'
        f'<output for="a{aspect}" class="num">{_TIMES}{factor:g}</output>'
        f'<input type="range" id="a{aspect}" name="a{aspect}" min="0" max="{_MAX_FACTOR}" step="0.25" '
        f'value="{factor:g}"></div>'
    )


def ranking(catalogue: Catalogue, person: Person) -> str:
    """List of the best items, the part of the page that a moved slider replaces."""
    items = person.order[:SHOWN]
    if not len(items):
        return '<p class="card">There is no candidate left: this user has every item.</p>'
    leads = person.leads(items)
    low = min(sum(min(value, 0.0) for value in lead.values()) for lead in leads)
    high = max(sum(max(value, 0.0) for value in lead.values()) for lead in leads)
    places = decimals(sum(lead.values()) for lead in leads)
    before = person.places_before[items].tolist()
    rows = "".join(
        _row(catalogue, person, item, position, before[position], lead, (low, high, places))
        for position, (item, lead) in enumerate(zip(items.tolist(), leads, strict=True))
    )
    moved = sum(before[position] != position for position in range(len(items)))
    changed = f"{plural(moved, 'item')} moved" if person.what_if.fields else ""
    kept = "".join(
        f'<input type="hidden" name="{safe(name)}" value="{safe(value)}">'
        for name, value in [person.who, *person.what_if.fields]
    )
    return (
        f'<p class="muted small">Bars: lead over the median of {len(person.order):,} candidates. '
        f"Tick two items to compare them. <strong>{changed}</strong></p>"
        f'<form action="/compare" data-compare>{kept}<ol class="recs">{rows}</ol>'
        '<div class="compare"><button class="primary">Compare the two</button></div></form>'
    )


def _row(
    catalogue: Catalogue,
    person: Person,
    item: int,
    position: int,
    before: int,
    lead: dict[str, float],
    scale: tuple[float, float, int],
) -> str:
    item_id = catalogue.explainer.trained.item_ids[item]
    why = person.address("/explain", ("item", item_id))
    arrow = ""
    if before != position:
        up = before > position
        change = f"{'up' if up else 'down'} {abs(before - position)}"
        arrow = f'<span class="moved {"up" if up else "down"}" title="{change} from rank {before + 1}">'
        arrow += f"{'▲' if up else '▼'} {abs(before - position)}</span>"
    name = safe(catalogue.name(item))
    return (
        f'<li class="rec" data-item="{safe(item_id)}"><details data-load="{safe(why)}"><summary>'
        f'<span class="place num">{position + 1}</span>'
        f'<span class="what"><bdi class="name">{name}</bdi>{arrow}{keywords(catalogue, item)}</span>'
        f'{_strip(lead, scale)}</summary><div class="why">'
        f'<p><a href="{safe(why)}">Why this item</a></p></div></details><label class="pick" '
        f'title="Compare"><input type="checkbox" name="item" value="{safe(item_id)}" '
        f'aria-label="Compare {name}"></label></li>'
    )


def _strip(lead: dict[str, float], scale: tuple[float, float, int]) -> str:
    """Stacked bar of a lead: positive parts to the right of zero, negative ones to the left."""
    low, high, places = scale
    span, ends = high - low or 1.0, {True: 0.0, False: 0.0}
    drawn = []
    for part, value in lead.items():
        start = ends[value > 0]
        ends[value > 0] += value
        left, right = sorted((start, start + value))
        drawn.append(
            f'<rect class="part-{part}" x="{(left - low) / span * 100:.2f}%" y="3" '
            f'width="{(right - left) / span * 100:.2f}%" height="12"/>'
        )
    zero = -low / span * 100
    label = ", ".join(f"{part} {signed(value, places)}" for part, value in lead.items())
    total = signed(sum(lead.values()), places)
    return (
        f'<span class="strip"><svg role="img" aria-label="{total}: {label}"><title>{label}</title>'
        f'{"".join(drawn)}<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="0" y2="18"/></svg>'
        f'<span class="num">{total}</span></span>'
    )


def explanation_inner(catalogue: Catalogue, person: Person, item: int) -> str:
    """Short explanation inside an item of the list."""
    explanation = person.explain(item)
    item_id = catalogue.explainer.trained.item_ids[item]
    return (
        f'<p class="reason">{safe(lead_sentence(explanation["lead"]))}</p>{texts(item, explanation)}'
        f'<p class="links small"><a href="{safe(person.address("/explain", ("item", item_id)))}">'
        "Every figure of this explanation</a> · "
        f'<a href="{address("/item", ("id", item_id))}">About this item</a></p>'
    )


def explanation_page(catalogue: Catalogue, person: Person, item: int) -> str:
    """Page of a complete explanation."""
    explanation = person.explain(item)
    back = safe(person.address("/user"))
    item_id = catalogue.explainer.trained.item_ids[item]
    body = (
        f'<p class="crumbs small"><a href="{back}">← The list</a> · '
        f'<a href="{address("/item", ("id", item_id))}">About this item</a></p>'
        f'<h1 class="unseen">Why <bdi>{safe(catalogue.name(item))}</bdi></h1>{_changes(catalogue, person)}'
        f"{article(1, explanation)}{legend()}"
    )
    return frame(f"Why {catalogue.name(item)}", body)


def _changes(catalogue: Catalogue, person: Person) -> str:
    """Notice of changed interests and excluded terms."""
    changes = [
        f"{catalogue.short(aspect)} {_TIMES}{factor:g}" for aspect, factor in person.what_if.interests.items()
    ] + [f"without {term}" for term in person.what_if.without]
    return f'<p class="as-if">Changed: <bdi>{safe("; ".join(changes))}</bdi></p>' if changes else ""


def compare_page(catalogue: Catalogue, person: Person, item: int, other: int) -> str:
    """Page of the differences of two items by part, aspect and word, the higher score first."""
    explanations = {item: person.explain(item), other: person.explain(other)}
    items = sorted(explanations, key=lambda index: -explanations[index]["score"])
    first, second = (explanations[index] for index in items)
    compared = compare(first, second)
    difference = compared["parts"]
    parts = {"words": difference["words"] + difference["words_everywhere"]}
    parts |= {term: difference[term] for term in TERMS}
    lead = {"item_id": second["item_id"], "total": sum(parts.values()), **parts}
    sentence = lead_sentence(lead, other="the other")
    names = [safe(catalogue.name(item)) for item in items]
    heads = "".join(
        f'<div class="card side"><p class="muted small">{_rank(entry)}</p><h2>'
        f"{item_link(catalogue, item)}</h2>{_words(entry)}</div>"
        for entry, item in zip((first, second), items, strict=True)
    )
    body = (
        f'<p class="crumbs small"><a href="{safe(person.address("/user"))}">← The list</a></p>'
        f"{_changes(catalogue, person)}<h1><bdi>{names[0]}</bdi> is ahead of "
        f'<bdi>{names[1]}</bdi></h1><p class="headline">'
        f'{safe(sentence)}</p><div class="halves">{heads}</div>{_parts_table(first, second, parts)}'
        f"{_aspect_table(compared)}"
    )
    return frame("Compare", body)


def _rank(explanation: Json) -> str:
    if explanation["rank"] is None:
        return "already chosen"
    return f"rank {explanation['rank']:,} of {explanation['num_candidates']:,}"


def _words(explanation: Json) -> str:
    lists = []
    for sign in ("for", "against"):
        words = top_words(explanation, sign == "for", 8)
        places = decimals(value for _, value in words)
        chips = "".join(
            f'<li class="{sign}"><bdi>{safe(word)}</bdi> <span class="num muted">{signed(value, places)}'
            "</span></li>"
            for word, value in words
        )
        if chips:
            lists.append(f'<p class="small muted label">Words {sign} it</p><ul class="chips">{chips}</ul>')
    return "".join(lists) or '<p class="muted">No word of its texts is marked.</p>'


def _parts_table(first: Json, second: Json, parts: dict[str, float]) -> str:
    def value(entry: Json, part: str) -> float:
        terms = entry["terms"]
        return float(terms[part] + (terms["words_everywhere"] if part == "words" else 0.0))

    rows = [(part, value(first, part), value(second, part), parts[part]) for part in parts]
    return _versus("Difference by part", "Part of the score", rows, "part-")


def _aspect_table(compared: Json) -> str:
    rows = [(row["name"], row["here"], row["there"], row["difference"]) for row in compared["aspects"]]
    return _versus("Difference of the words by aspect", "Aspect", rows[:_ASPECTS], "")


def _versus(title: str, heading: str, rows: list[tuple[str, float, float, float]], style: str) -> str:
    """Table of two values and their difference, with bars from the middle."""
    widest = max((abs(row[3]) for row in rows), default=1.0) or 1.0
    places = decimals(value for row in rows for value in row[1:])
    lines = []
    for name, value, other, difference in rows:
        half = abs(difference) / widest * 50
        left = 50 if difference > 0 else 50 - half
        colour = f"{style}{name}" if style else ("for" if difference > 0 else "against")
        lines.append(
            f'<tr><th scope="row"><bdi>{safe(name)}</bdi><svg class="bar" aria-hidden="true">'
            f'<rect class="{safe(colour)}" x="{left:.2f}%" width="{half:.2f}%" '
            'height="10" rx="2"/><line class="zero" x1="50%" x2="50%" y1="-2" y2="12"/></svg></th>'
            f'<td class="num">{signed(value, places)}</td><td class="num">{signed(other, places)}</td>'
            f'<td class="num"><strong>{signed(difference, places)}</strong></td></tr>'
        )
    return (
        f'<section class="card"><h2>{title}</h2><table class="versus"><thead><tr>'
        f'<th scope="col">{heading}</th><th scope="col" class="num">first</th>'
        '<th scope="col" class="num">second</th>'
        '<th scope="col" class="num">difference</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></section>"
    )
