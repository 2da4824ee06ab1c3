"""Pages of an item, of an aspect and of all aspects."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.explore.pages import address, frame, item_link, listing, plural, user_link
from llmdirect.reports.catalogue import Catalogue
from llmdirect.reports.explanation_texts import texts
from llmdirect.reports.html import item_image, item_price, safe

_NEIGHBOURS: Final = 6
_TOP: Final = 12
_ASPECTS: Final = 8


def item_page(catalogue: Catalogue, item: int) -> str:
    """Page of an item: texts with marked words, aspects, similar and related items."""
    trained, facts = catalogue.explainer.trained, catalogue.facts(item)
    summary = [plural(facts["reviews"], "review")]
    if facts["others"]:
        summary.append(plural(facts["others"], "other text"))
    if facts["stars"] is not None:
        summary.append(f"mean rating {facts['stars']:.1f}")
    summary.append(f"chosen by {plural(facts['positives'], 'user')}, rank {facts['rank']:,} by popularity")
    reading, details = catalogue.reading(item), catalogue.explainer.details(item)
    name, item_id = catalogue.name(item), trained.item_ids[item]
    identity = f"Item <bdi>{safe(item_id)}</bdi> · " if name != item_id else ""
    body = (
        f'<header class="who item">{item_image(details, name)}<h1><bdi>{safe(name)}</bdi></h1>'
        f'<p class="muted">{identity}{item_price(details)}'
        f'{" · ".join(summary)}</p></header>\n<div class="columns"><div>'
        '<p class="muted small">Marked: words that distinguish these texts from those of an average item.</p>'
        f"{texts(1, reading)}</div><div>"
        f"{_aspect_card(catalogue, catalogue.item_shares[item], catalogue.item_shares.mean(0))}"
        f"{_item_card('Items with similar texts', catalogue, catalogue.similar(item, _NEIGHBOURS), 'cosine')}"
        f"{_item_card('Related by collaboration', catalogue, catalogue.related(item, _NEIGHBOURS), 'adds')}"
        "</div></div>\n"
    )
    return frame(name, body)


def _aspect_card(catalogue: Catalogue, shares: NDArray[np.float64], average: NDArray[np.float64]) -> str:
    if not shares.any():
        return '<section class="card"><h2>Aspects of its texts</h2><p>It has no text.</p></section>'
    order = sorted(catalogue.aspects, key=lambda aspect: -shares[aspect])[:_ASPECTS]
    rows = _bars(catalogue, order, shares, average)
    return (
        f'<section class="card"><h2>Aspects of its texts</h2>{rows}<p class="note">Shares; the '
        "line marks the average item.</p></section>"
    )


def _bars(
    catalogue: Catalogue, aspects: list[int], shares: NDArray[np.float64], average: NDArray[np.float64]
) -> str:
    """Table of shares with bars, and lines at the average shares."""
    widest = max(float(shares.max()), float(average.max()), 1e-12)
    names = catalogue.explainer.trained.aspect_names
    rows = "".join(
        f'<tr><th scope="row"><a href="{address("/aspect", ("n", aspect))}"><bdi>{safe(names[aspect])}</bdi>'
        '</a><svg class="bar" aria-hidden="true"><rect class="for" height="10" rx="2" '
        f'width="{shares[aspect] / widest * 100:.2f}%"/>'
        f'<line class="usual" x1="{average[aspect] / widest * 100:.2f}%" '
        f'x2="{average[aspect] / widest * 100:.2f}%" y1="-3" y2="13"/></svg></th>'
        f'<td class="num">{shares[aspect]:.0%}</td></tr>'
        for aspect in aspects
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _item_card(title: str, catalogue: Catalogue, items: list[tuple[int, float]], unit: str) -> str:
    if not items:
        return ""
    entries = listing(
        (
            f'{item_link(catalogue, item)} <span class="num muted small" title="{unit}">{value:.2f}</span>'
            for item, value in items
        ),
        "links",
    )
    return f'<section class="card"><h2>{title}</h2>{entries}</section>'


def aspects_page(catalogue: Catalogue) -> str:
    """Page of all aspects, with their shares in texts and in interests."""
    items, users = catalogue.item_shares.mean(0), catalogue.user_shares.mean(0)
    order = sorted(catalogue.aspects, key=lambda aspect: -users[aspect])
    body = (
        '<h1>Aspects</h1><p class="muted lead-in">Topics that the model has learned, named by their '
        "top words. Bars: mean share of users' interests; "
        f'lines: mean share of texts.</p><section class="card">{_bars(catalogue, order, users, items)}'
        "</section>"
    )
    return frame("Aspects", body)


def aspect_page(catalogue: Catalogue, aspect: int) -> str:
    """Page of an aspect: the items and users with the largest shares of it."""
    name = catalogue.explainer.trained.aspect_names[aspect]
    items, users = catalogue.item_shares[:, aspect], catalogue.user_shares[:, aspect]
    body = (
        f'<p class="crumbs small"><a href="/aspects">← Aspects</a></p><header class="who"><h1><bdi>'
        f'{safe(name)}</bdi></h1><p class="muted">{items.mean():.0%} of the texts, '
        f'{users.mean():.0%} of users\' interests, on average.</p></header><div class="halves">'
        '<section class="card"><h2>Items with most of it</h2>'
        f"{_top_list(items, catalogue, item_link)}</section>"
        '<section class="card"><h2>Users with most interest</h2>'
        f"{_top_list(users, catalogue, user_link)}</section></div>"
    )
    return frame(f"Aspect: {catalogue.short(aspect)}", body)


def _top_list(
    shares: NDArray[np.float64], catalogue: Catalogue, link: Callable[[Catalogue, int], str]
) -> str:
    best = np.argsort(-shares, kind="stable")[:_TOP]
    return listing(
        (
            f'{link(catalogue, int(index))} <span class="num muted small">{shares[index]:.0%}</span>'
            for index in best
        ),
        "links",
    )
