"""Page frame, start page, search, form of new users, errors."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlencode

from llmdirect.common.types import Json
from llmdirect.explore.people import MAX_TEXT
from llmdirect.reports.catalogue import Catalogue
from llmdirect.reports.html import safe

_EXAMPLES: Final = 6
_POPULAR: Final = 8


def address(page: str, *fields: tuple[str, object]) -> str:
    """URL such as `/item?id=…`, escaped for an attribute."""
    return safe(f"{page}?{urlencode([(name, str(value)) for name, value in fields])}" if fields else page)


def plural(count: int, noun: str) -> str:
    """`1 review`, `1,204 reviews`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def frame(title: str, body: str, *, query: str = "") -> str:
    """HTML document with head, search field and `body`."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)} · llmdirect</title>\n"
        '<link rel="stylesheet" href="/explore.css">\n<link rel="icon" href="/icon.svg">\n'
        '<script src="/explore.js" defer></script>\n</head>\n<body>\n'
        '<a class="skip" href="#main">Skip to the content</a>\n'
        '<header class="top"><div class="wrap bar-top"><a class="brand" href="/">'
        '<svg class="logo" viewBox="0 0 20 20" aria-hidden="true"><rect class="part-words" x="1" y="3" '
        'width="18" height="4" rx="1"/><rect class="part-popularity" x="1" y="9" width="11" height="4" '
        'rx="1"/><rect class="part-collaboration" x="1" y="15" width="6" height="4" rx="1"/></svg>'
        'llmdirect</a><form class="find" role="search" action="/search">'
        f'<input type="search" name="q" value="{safe(query)}" placeholder="Find a user or an item" '
        'aria-label="Find a user or an item" autocomplete="off" data-suggest="all" '
        'aria-controls="found"><div id="found" class="found" hidden></div></form>'
        '<nav aria-label="Pages"><a href="/aspects">Aspects</a> <a href="/new">New user</a></nav>'
        f'</div></header>\n<main id="main" class="wrap">\n{body}</main>\n</body>\n</html>\n'
    )


def item_link(catalogue: Catalogue, item: int) -> str:
    """Link to an item's page, with its keywords."""
    item_id = catalogue.explainer.trained.item_ids[item]
    return (
        f'<a class="name" href="{address("/item", ("id", item_id))}"><bdi>{safe(catalogue.name(item))}</bdi>'
        f"</a>{keywords(catalogue, item)}"
    )


def keywords(catalogue: Catalogue, item: int) -> str:
    """An item's keywords."""
    words = " · ".join(safe(word) for word in catalogue.keywords(item))
    return f' <span class="says muted small"><bdi>{words}</bdi></span>' if words else ""


def user_link(catalogue: Catalogue, user: int) -> str:
    """Link to a user's list."""
    trained = catalogue.explainer.trained
    count = plural(len(trained.users.seen.row(user)), "item")
    return (
        f'<a class="name" href="{address("/user", ("user", trained.users.ids[user]))}"><bdi>'
        f'{safe(trained.users.ids[user])}</bdi></a> <span class="says muted small">{count}</span>'
    )


def listing(entries: Iterable[str], style: str = "plain") -> str:
    """HTML list of entries."""
    return f'<ul class="{style}">{"".join(f"<li>{entry}</li>" for entry in entries)}</ul>'


def home(catalogue: Catalogue) -> str:
    """Start page: users, popular items, form of new users, aspects."""
    explainer = catalogue.explainer
    trained, dataset = explainer.trained, explainer.texts.dataset
    manifest: Json = trained.run.manifest
    users, items = len(trained.users.ids), len(trained.item_ids)
    sample = sorted(range(users), key=lambda user: -len(trained.users.seen.row(user)))[:: max(1, users // 40)]
    encoder = safe(manifest["store"]["encoder"].get("id", "unnamed"))
    facts = " · ".join(
        [
            plural(users, "user"),
            plural(items, "item"),
            f"{dataset.num_passages:,} texts encoded by {encoder}",
        ]
    )
    popular = (-catalogue.positives).argsort(kind="stable")[:_EXAMPLES].tolist()
    popular_items = listing((item_link(catalogue, item) for item in popular), "links")
    example_users = listing((user_link(catalogue, user) for user in sample[:_EXAMPLES]), "links")
    body = (
        '<header class="hero"><h1>Recommendations and the words behind them</h1>'
        f'<p class="muted">{facts}</p></header>\n<div class="halves"><div class="stack">'
        '<section class="card"><h2>Users of the data</h2>'
        '<p class="muted">Their recommendations, the words behind each item, and the list with changed '
        "interests.</p>"
        f"{example_users}</section>\n"
        f'<section class="card"><h2>Popular items</h2>{popular_items}</section></div>\n'
        f'<section class="card"><h2>New user</h2>{guest_form(catalogue)}</section></div>\n'
        f'<section class="card"><h2>Aspects of the texts</h2>{_aspect_chips(catalogue)}</section>\n'
    )
    return frame("Explore", body)


def guest_form(catalogue: Catalogue, text: str = "", items: Iterable[int] = (), problem: str = "") -> str:
    """Form of new users; `problem` is the message about a form that was refused."""
    popular = (-catalogue.positives).argsort(kind="stable")[:_POPULAR].tolist()
    picked = [*items]
    boxes = "".join(picker(catalogue, item, item in picked) for item in dict.fromkeys([*picked, *popular]))
    alert = f'<p class="alert" role="alert">{safe(problem)}</p>' if problem else ""
    return (
        f'<form method="post" action="/guest">{alert}'
        '<label class="field">In your own words: a review of something you had, or what you look for'
        f'<textarea name="text" rows="4" maxlength="{MAX_TEXT}" dir="auto">{safe(text)}</textarea></label>'
        "<fieldset><legend>And items you liked</legend>"
        '<div class="find"><input type="search" placeholder="Find an item" '
        'aria-label="Find an item you liked" autocomplete="off" '
        'data-suggest="items" aria-controls="found-items">'
        '<div id="found-items" class="found" hidden></div></div>'
        f'<ul class="picks" id="picks">{boxes}</ul></fieldset>'
        '<button class="primary">Recommend</button></form>'
    )


def picker(catalogue: Catalogue, item: int, picked: bool = False) -> str:
    """List entry with a check box for an item."""
    item_id = safe(catalogue.explainer.trained.item_ids[item])
    return (
        f'<li><label><input type="checkbox" name="item" value="{item_id}"{" checked" * picked}> <span><bdi>'
        f"{safe(catalogue.name(item))}</bdi>{keywords(catalogue, item)}</span></label></li>"
    )


def new_user_page(catalogue: Catalogue, text: str = "", items: Iterable[int] = (), problem: str = "") -> str:
    """Page with the form of new users."""
    form = guest_form(catalogue, text, items, problem)
    return frame("New user", f'<section class="card narrow"><h1>New user</h1>{form}</section>')


def search_page(catalogue: Catalogue, query: str) -> str:
    """Page of the items and users that match a query."""
    users, items = catalogue.find("users", query, 50), catalogue.find("items", query, 50)
    body = f"<h1>“<bdi>{safe(query)}</bdi>”</h1>"
    if not users and not items:
        body += '<p class="card">No match. The search covers ids of users and items, and titles.</p>'
    if items:
        entries = listing((item_link(catalogue, item) for item in items), "links")
        body += f'<section class="card"><h2>Items</h2>{entries}</section>'
    if users:
        entries = listing((user_link(catalogue, user) for user in users), "links")
        body += f'<section class="card"><h2>Users</h2>{entries}</section>'
    return frame(f"Search: {query}", body, query=query)


def suggestions(catalogue: Catalogue, query: str, what: str) -> str:
    """First matches below the search field: items to pick if `what` is "items", else links."""
    items = catalogue.find("items", query)
    if what == "items":
        return f'<ul class="picks">{"".join(picker(catalogue, item) for item in items)}</ul>' if items else ""
    users = catalogue.find("users", query)
    entries = [item_link(catalogue, item) for item in items] + [user_link(catalogue, user) for user in users]
    return listing(entries, "links") if entries else ""


def error(title: str, message: str) -> str:
    """Page of an error."""
    return frame(
        title,
        f'<section class="card narrow"><h1>{safe(title)}</h1><p>{safe(message)}</p>'
        '<p><a href="/">Start page</a></p></section>',
    )


def _aspect_chips(catalogue: Catalogue) -> str:
    names = catalogue.explainer.trained.aspect_names
    share = catalogue.item_shares.mean(0)
    order = sorted(catalogue.aspects, key=lambda aspect: -share[aspect])
    return listing(
        (
            f'<a href="{address("/aspect", ("n", aspect))}"><bdi>{safe(names[aspect])}</bdi></a>'
            for aspect in order
        ),
        "topics",
    )
