"""The addresses of the pages, and what every answer is sent with.

Nothing but the style sheet and the script of this package may load, by a content security policy. Requests
are answered one after another: a list takes milliseconds. Beside them, the texts of its items are read.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from llmdirect.common.errors import LlmdirectError, MissingError
from llmdirect.encoding.encoders import Encoder
from llmdirect.explanation.explainer import Explainer
from llmdirect.explore import item_pages, pages, person_pages
from llmdirect.explore.people import Guests, Person, WhatIf
from llmdirect.explore.prefetch import ReadAhead
from llmdirect.explore.style import SHEET
from llmdirect.reports.catalogue import Catalogue
from llmdirect.reports.style import DARK, LIGHT

LARGEST: Final = 64 * 1024
"""Bytes of what somebody new may send."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20">'
    f"<style>.a{{fill:{LIGHT['words']}}}.b{{fill:{LIGHT['popularity']}}}"
    f"@media (prefers-color-scheme:dark){{.a{{fill:{DARK['words']}}}.b{{fill:{DARK['popularity']}}}}}</style>"
    '<rect class="a" x="1" y="3" width="18" height="6" rx="1"/>'
    '<rect class="b" x="1" y="11" width="11" height="6" rx="1"/></svg>'
)
_log = logging.getLogger(__name__)


def make_app(explainer: Explainer, encoder: Callable[[], Encoder], hosts: list[str] | None = None) -> FastAPI:
    """The pages of a run.

    encoder: gives the run's language model, asked once a text is pasted. hosts: names under which the
    pages may be asked for; all if not given. Others are refused, so that no foreign page reads them by
    giving a name of its own to this machine's address.
    """
    ahead = ReadAhead(explainer.texts.read)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        ahead.stop()  # the end does not wait for what nobody will see

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts or ["*"])
    catalogue, guests = Catalogue(explainer), Guests(explainer.trained, encoder)
    pages.home(catalogue)  # what is counted once for all pages is counted before the first request
    trained = explainer.trained

    @lru_cache(maxsize=64)  # the order is there when one of its items is opened
    def person(who: tuple[str, str], changes: tuple[tuple[str, str], ...]) -> Person:
        kind, key = who
        plain = guests.find(key) if kind == "guest" else trained.for_user(trained.user_idx(key))
        return Person.from_run(explainer, plain, who, WhatIf.read(list(changes)))

    def person_of(request: Request) -> Person:
        fields = request.query_params.multi_items()
        changes = tuple(field for field in fields if field[0] not in ("user", "guest", "item", "part"))
        kind = "guest" if "guest" in request.query_params else "user"
        return person((kind, _field(request, kind)), changes)

    def item_of(request: Request, name: str = "item") -> int:
        return trained.item_idx(_field(request, name))

    @app.middleware("http")
    async def add_headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            response = await answer(request)
        except Exception:
            _log.exception("%s", request.url.path)
            response = _error(500, "Something failed", "The page could not be made. The terminal says why.")
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, failure: HTTPException) -> Response:
        known = {404: "There is no such page.", 405: "This page cannot be asked for in this way."}
        return _error(failure.status_code, "No such page", known.get(failure.status_code, failure.detail))

    @app.exception_handler(LlmdirectError)
    async def failed(request: Request, failure: LlmdirectError) -> Response:
        missing = isinstance(failure, MissingError)
        return _error(404 if missing else 500, "Not found" if missing else "It did not work", str(failure))

    @app.exception_handler(ValueError)
    async def refused(request: Request, failure: ValueError) -> Response:
        return _error(400, "This cannot be shown", str(failure))

    @app.get("/")
    async def home() -> Response:
        return HTMLResponse(pages.home(catalogue))

    @app.get("/search")
    async def search(q: str = "", part: str = "") -> Response:
        if part:
            return HTMLResponse(pages.suggestions(catalogue, q, part))
        return HTMLResponse(pages.found(catalogue, q))

    @app.get("/new")
    async def new() -> Response:
        return HTMLResponse(pages.new(catalogue))

    @app.post("/guest")
    async def add_guest(request: Request) -> Response:
        sent = bytearray()
        async for chunk in request.stream():
            sent += chunk
            if len(sent) > LARGEST:
                return _error(413, "Too long", f"A text may have {LARGEST // 1024} KiB; shorten it.")
        fields = parse_qsl(sent.decode("utf-8", "replace"), max_num_fields=1000)
        text = " ".join(value for name, value in fields if name == "text")
        items = [trained.item_idx(value) for name, value in dict.fromkeys(fields) if name == "item"]
        try:
            key = guests.add(text, items)
        except LlmdirectError:
            raise
        except ValueError as wrong:
            sentence = f"{str(wrong)[:1].upper()}{str(wrong)[1:]}."
            return HTMLResponse(pages.new(catalogue, text, items, sentence), status_code=400)
        return RedirectResponse(f"/user?{urlencode({'guest': key})}", status_code=303)

    @app.get("/user")
    async def user(request: Request, part: str = "") -> Response:
        person = person_of(request)
        make = person_pages.ranking if part else person_pages.person_page
        page = make(catalogue, person)
        ahead.of(person.order[: person_pages.SHOWN].tolist())
        return HTMLResponse(page)

    @app.get("/explain")
    async def explain(request: Request, part: str = "") -> Response:
        ahead.stop()  # what is asked for goes first
        make = person_pages.explanation_inner if part else person_pages.explanation_page
        person, item = person_of(request), item_of(request)
        page = make(catalogue, person, item)
        ahead.of(person.order[: person_pages.SHOWN].tolist())
        return HTMLResponse(page)

    @app.get("/compare")
    async def compare(request: Request) -> Response:
        items = [trained.item_idx(item_id) for item_id in request.query_params.getlist("item")]
        if len(set(items)) != 2:
            raise ValueError("two items can be compared; pick exactly two of the list")
        return HTMLResponse(person_pages.compare_page(catalogue, person_of(request), items[0], items[1]))

    @app.get("/item")
    async def item(request: Request) -> Response:
        return HTMLResponse(item_pages.item_page(catalogue, item_of(request, "id")))

    @app.get("/aspects")
    async def aspects() -> Response:
        return HTMLResponse(item_pages.aspects_page(catalogue))

    @app.get("/aspect")
    async def aspect(request: Request) -> Response:
        number = _field(request, "n")
        if not number.isdecimal() or int(number) not in catalogue.aspects:
            raise MissingError(f"there is no aspect {number}")
        return HTMLResponse(item_pages.aspect_page(catalogue, int(number)))

    script = files("llmdirect.explore").joinpath("explore.js").read_text(encoding="utf-8")
    kept = {"Cache-Control": "no-cache"}

    @app.get("/explore.css")
    async def style() -> Response:
        return Response(SHEET, media_type="text/css", headers=kept)

    @app.get("/explore.js")
    async def javascript() -> Response:
        return Response(script, media_type="text/javascript", headers=kept)

    @app.get("/icon.svg")
    async def icon() -> Response:
        # Its own styles are what the policy of a page would refuse.
        own = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return Response(_ICON, media_type="image/svg+xml", headers=kept | own)

    return app


def _field(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if value is None:
        raise ValueError(f"the address lacks {name}=…")
    return value


def _error(status: int, title: str, message: str) -> Response:
    return HTMLResponse(pages.error(title, message), status_code=status)
