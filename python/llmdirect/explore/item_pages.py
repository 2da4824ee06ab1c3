"""Pages about an item and about aspects, whoever reads them."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.explore.pages import address, frame, item_link, listing, plural, user_link
from llmdirect.reports.catalogue import Catalogue
from llmdirect.reports.explanation_texts import texts
from llmdirect.reports.html import safe

_ALIKE: Final = 6
_SHOWN: Final = 12
_ABOUT: Final = 8


def item_page(catalogue: Catalogue, item: int) -> str:
    """What is said of it, what it is about, and what stands near it."""
    trained, facts = catalogue.explainer.trained, catalogue.facts(item)
    told = [plural(facts["reviews"], "review")]
    if facts["others"]:
        told.append(plural(facts["others"], "other text"))
    if facts["stars"] is not None:
        told.append(f"mean rating {facts['stars']:.1f}")
    told.append(f"chosen by {plural(facts['positives'], 'user')}, place {facts['place']:,} in popularity")
    reading = catalogue.reading(item)
    name, item_id = catalogue.name(item), trained.item_ids[item]
    identity = f"Item <bdi>{safe(item_id)}</bdi> · " if name != item_id else ""
    body = (
        f'<header class="who"><h1><bdi>{safe(name)}</bdi></h1><p class="muted">{identity}'
        f'{" · ".join(told)}</p></header>\n<div class="columns"><div>'
        '<p class="muted small">Marked: what sets these texts apart from those of an average item, for a '
        f"reader who looks for just that.</p>{texts(1, reading)}</div><div>"
        f"{_about(catalogue, catalogue.item_shares[item], catalogue.item_shares.mean(0))}"
        f"{_near('Texts that say the like', catalogue, catalogue.alike(item, _ALIKE), 'cosine')}"
        f"{_near('Goes with it in histories', catalogue, catalogue.together(item, _ALIKE), 'adds')}"
        "</div></div>\n"
    )
    return frame(name, body)


def _about(catalogue: Catalogue, shares: NDArray[np.float64], usual: NDArray[np.float64]) -> str:
    if not shares.any():
        return '<section class="card"><h2>What it is about</h2><p>It has no text.</p></section>'
    order = sorted(catalogue.aspects, key=lambda aspect: -shares[aspect])[:_ABOUT]
    rows = _bars(catalogue, order, shares, usual)
    return (
        f'<section class="card"><h2>What its texts are about</h2>{rows}<p class="note">Share of what they '
        "say; the line marks the average item.</p></section>"
    )


def _bars(
    catalogue: Catalogue, aspects: list[int], shares: NDArray[np.float64], usual: NDArray[np.float64]
) -> str:
    """A table of shares, each with a bar and, if `usual` is another, a line where that would be."""
    widest = max(float(shares.max()), float(usual.max()), 1e-12)
    names = catalogue.explainer.trained.aspect_names
    rows = "".join(
        f'<tr><th scope="row"><a href="{address("/aspect", ("n", aspect))}"><bdi>{safe(names[aspect])}</bdi>'
        '</a><svg class="bar" aria-hidden="true"><rect class="for" height="10" rx="2" '
        f'width="{shares[aspect] / widest * 100:.2f}%"/>'
        f'<line class="usual" x1="{usual[aspect] / widest * 100:.2f}%" '
        f'x2="{usual[aspect] / widest * 100:.2f}%" y1="-3" y2="13"/></svg></th>'
        f'<td class="num">{shares[aspect]:.0%}</td></tr>'
        for aspect in aspects
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _near(title: str, catalogue: Catalogue, items: list[tuple[int, float]], unit: str) -> str:
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
    """All aspects: how much is said of each, and how much people care."""
    items, users = catalogue.item_shares.mean(0), catalogue.user_shares.mean(0)
    order = sorted(catalogue.aspects, key=lambda aspect: -users[aspect])
    body = (
        '<h1>Aspects</h1><p class="muted lead-in">What the texts are about, as the model came to divide '
        "it; each is called by the words that belong to it most. Bars: share of the interest of users; "
        f'lines: share of what texts say.</p><section class="card">{_bars(catalogue, order, users, items)}'
        "</section>"
    )
    return frame("Aspects", body)


def aspect_page(catalogue: Catalogue, aspect: int) -> str:
    """The items that say most of it, and the users who care most."""
    name = catalogue.explainer.trained.aspect_names[aspect]
    items, users = catalogue.item_shares[:, aspect], catalogue.user_shares[:, aspect]
    body = (
        f'<p class="crumbs small"><a href="/aspects">← Aspects</a></p><header class="who"><h1><bdi>'
        f'{safe(name)}</bdi></h1><p class="muted">{items.mean():.0%} of what texts say, '
        f'{users.mean():.0%} of what users care about, on average.</p></header><div class="halves">'
        '<section class="card"><h2>Items that say most of it</h2>'
        f"{_top(items, catalogue, item_link)}</section>"
        '<section class="card"><h2>Users who care most</h2>'
        f"{_top(users, catalogue, user_link)}</section></div>"
    )
    return frame(f"Aspect: {catalogue.short(aspect)}", body)


def _top(shares: NDArray[np.float64], catalogue: Catalogue, link: Callable[[Catalogue, int], str]) -> str:
    best = np.argsort(-shares, kind="stable")[:_SHOWN]
    return listing(
        (
            f'{link(catalogue, int(index))} <span class="num muted small">{shares[index]:.0%}</span>'
            for index in best
        ),
        "links",
    )
