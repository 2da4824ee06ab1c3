"""The frame of every page, the first page, what a search finds, and errors."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlencode

from llmdirect.common.types import Json
from llmdirect.reports.catalogue import Catalogue
from llmdirect.reports.html import safe

_EXAMPLES: Final = 6
_POPULAR: Final = 8


def address(page: str, *fields: tuple[str, object]) -> str:
    """`/item?id=…`, fit for an attribute."""
    return safe(f"{page}?{urlencode([(name, str(value)) for name, value in fields])}" if fields else page)


def plural(count: int, one: str) -> str:
    """`1 review`, `1,204 reviews`."""
    return f"{count:,} {one}{'s' * (count != 1)}"


def frame(title: str, body: str, *, query: str = "") -> str:
    """A whole page: head, search, and `body` as its main part."""
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
        '<nav aria-label="Pages"><a href="/aspects">Aspects</a> <a href="/new">Somebody new</a></nav>'
        f'</div></header>\n<main id="main" class="wrap">\n{body}</main>\n</body>\n</html>\n'
    )


def item_link(catalogue: Catalogue, item: int) -> str:
    """The item's name, which leads to its page, and its words."""
    item_id = catalogue.explainer.trained.item_ids[item]
    return (
        f'<a class="name" href="{address("/item", ("id", item_id))}"><bdi>{safe(catalogue.name(item))}</bdi>'
        f"</a>{keywords(catalogue, item)}"
    )


def keywords(catalogue: Catalogue, item: int) -> str:
    """The item's words, small."""
    words = " · ".join(safe(word) for word in catalogue.keywords(item))
    return f' <span class="says muted small"><bdi>{words}</bdi></span>' if words else ""


def user_link(catalogue: Catalogue, user: int) -> str:
    """The user's id, which leads to their list."""
    trained = catalogue.explainer.trained
    count = plural(len(trained.users.seen.row(user)), "item")
    return (
        f'<a class="name" href="{address("/user", ("user", trained.users.ids[user]))}"><bdi>'
        f'{safe(trained.users.ids[user])}</bdi></a> <span class="says muted small">{count}</span>'
    )


def listing(entries: Iterable[str], style: str = "plain") -> str:
    """A list of ready entries."""
    return f'<ul class="{style}">{"".join(f"<li>{entry}</li>" for entry in entries)}</ul>'


def home(catalogue: Catalogue) -> str:
    """Where everything starts: somebody of the data, somebody new, what it is about."""
    explainer = catalogue.explainer
    trained, dataset = explainer.trained, explainer.texts.dataset
    manifest: Json = trained.run.manifest
    users, items = len(trained.users.ids), len(trained.item_ids)
    chosen = sorted(range(users), key=lambda user: -len(trained.users.seen.row(user)))[:: max(1, users // 40)]
    encoder = safe(manifest["store"]["encoder"].get("id", "unnamed"))
    facts = " · ".join(
        [
            plural(users, "user"),
            plural(items, "item"),
            f"{dataset.num_passages:,} texts read by {encoder}",
        ]
    )
    popular = (-catalogue.positives).argsort(kind="stable")[:_EXAMPLES].tolist()
    first = listing((item_link(catalogue, item) for item in popular), "links")
    somebody = listing((user_link(catalogue, user) for user in chosen[:_EXAMPLES]), "links")
    body = (
        '<header class="hero"><h1>What is recommended, and which words decide it</h1>'
        f'<p class="muted">{facts}</p></header>\n<div class="halves"><div class="stack">'
        '<section class="card"><h2>Somebody in the data</h2>'
        '<p class="muted">Their list, the words behind each item, and what changes when their interests '
        "do.</p>"
        f'{somebody}</section>\n<section class="card"><h2>Items that many have</h2>{first}</section></div>\n'
        f'<section class="card"><h2>Somebody new</h2>{guest_form(catalogue)}</section></div>\n'
        f'<section class="card"><h2>What the texts are about</h2>{_aspect_chips(catalogue)}</section>\n'
    )
    return frame("Explore", body)


def guest_form(catalogue: Catalogue, text: str = "", items: Iterable[int] = (), wrong: str = "") -> str:
    """What somebody new writes and picks; `wrong` says why it did not do."""
    popular = (-catalogue.positives).argsort(kind="stable")[:_POPULAR].tolist()
    picked = [*items]
    boxes = "".join(picker(catalogue, item, item in picked) for item in dict.fromkeys([*picked, *popular]))
    alert = f'<p class="alert" role="alert">{safe(wrong)}</p>' if wrong else ""
    return (
        f'<form method="post" action="/guest">{alert}'
        '<label class="field">In your own words: a review of something you had, or what you look for'
        f'<textarea name="text" rows="4" dir="auto">{safe(text)}</textarea></label>'
        "<fieldset><legend>And items you liked</legend>"
        '<div class="find"><input type="search" placeholder="Find an item" '
        'aria-label="Find an item you liked" autocomplete="off" '
        'data-suggest="items" aria-controls="found-items">'
        '<div id="found-items" class="found" hidden></div></div>'
        f'<ul class="picks" id="picks">{boxes}</ul></fieldset>'
        '<button class="primary">Recommend</button></form>'
    )


def picker(catalogue: Catalogue, item: int, picked: bool = False) -> str:
    """One item to pick."""
    item_id = safe(catalogue.explainer.trained.item_ids[item])
    return (
        f'<li><label><input type="checkbox" name="item" value="{item_id}"{" checked" * picked}> <span><bdi>'
        f"{safe(catalogue.name(item))}</bdi>{keywords(catalogue, item)}</span></label></li>"
    )


def new(catalogue: Catalogue, text: str = "", items: Iterable[int] = (), wrong: str = "") -> str:
    """The form alone."""
    form = guest_form(catalogue, text, items, wrong)
    return frame("Somebody new", f'<section class="card narrow"><h1>Somebody new</h1>{form}</section>')


def found(catalogue: Catalogue, query: str) -> str:
    """Page of all that a search finds."""
    users, items = catalogue.find("users", query, 50), catalogue.find("items", query, 50)
    body = f"<h1>“<bdi>{safe(query)}</bdi>”</h1>"
    if not users and not items:
        body += (
            '<p class="card">Nothing is called so. A search looks into the ids of users and items, and into '
            "titles.</p>"
        )
    if items:
        entries = listing((item_link(catalogue, item) for item in items), "links")
        body += f'<section class="card"><h2>Items</h2>{entries}</section>'
    if users:
        entries = listing((user_link(catalogue, user) for user in users), "links")
        body += f'<section class="card"><h2>Users</h2>{entries}</section>'
    return frame(f"Search: {query}", body, query=query)


def suggestions(catalogue: Catalogue, query: str, what: str) -> str:
    """The first things found, below the field: items to pick (`what` is "items"), else links."""
    items = catalogue.find("items", query)
    if what == "items":
        return f'<ul class="picks">{"".join(picker(catalogue, item) for item in items)}</ul>' if items else ""
    users = catalogue.find("users", query)
    entries = [item_link(catalogue, item) for item in items] + [user_link(catalogue, user) for user in users]
    return listing(entries, "links") if entries else ""


def error(title: str, message: str) -> str:
    """What went wrong, in words."""
    return frame(
        title,
        f'<section class="card narrow"><h1>{safe(title)}</h1><p>{safe(message)}</p>'
        '<p><a href="/">To the first page</a></p></section>',
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
