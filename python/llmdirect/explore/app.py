"""FastAPI application of the pages: routes, errors, security headers.

A content security policy allows the package's own style sheet and script only, and images of items. Requests
are handled one after another, since a list takes milliseconds; the texts of its items are prefetched in a
thread, and those of new users are encoded in one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from llmdirect.common.errors import LlmdirectError, MissingError
from llmdirect.encoding.encoders import PassageEncoder
from llmdirect.explanation.explainer import Explainer
from llmdirect.explore import item_pages, pages, person_pages
from llmdirect.explore.access import accepts_host, is_cross_site
from llmdirect.explore.people import Guests, Person, WhatIf, whole_number
from llmdirect.explore.prefetch import Prefetcher
from llmdirect.explore.style import SHEET
from llmdirect.reports.catalogue import Catalogue
from llmdirect.reports.html import IMAGE_SOURCES, is_web_address
from llmdirect.reports.style import DARK, LIGHT

MAX_FORM_BYTES: Final = 64 * 1024
"""Largest form that a new user may send."""
MAX_WAITING: Final = 8
"""Texts that are encoded or wait for it at once."""
BODY_SECONDS = 10.0
"""Seconds in which a form has to arrive."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # browsers hide the origin of forms under stricter ones
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


def _headers(explainer: Explainer) -> dict[str, str]:
    """Headers of the pages, whose policy allows images of other sites where items have some."""
    table = explainer.texts.dataset.item_details
    if table is None or "image" not in table.columns or not any(map(is_web_address, table["image"])):
        return HEADERS
    policy = HEADERS["Content-Security-Policy"].replace("img-src 'self'", f"img-src 'self' {IMAGE_SOURCES}")
    return HEADERS | {"Content-Security-Policy": policy}


def make_app(
    explainer: Explainer, encoder: Callable[[], PassageEncoder], hosts: Collection[str] | None = None
) -> FastAPI:
    """Application with the pages of a run.

    Parameters
    ----------
    explainer
        The opened run.
    encoder
        Returns the run's encoder; called for the first text of a new user.
    hosts
        Accepted host names, beside those of this machine (`accepts_host`); all if None. Others are refused,
        which prevents DNS rebinding.
    """
    prefetcher = Prefetcher(explainer.texts.read)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        prefetcher.cancel()  # do not delay the shutdown
        readers.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    readers, waiting = ThreadPoolExecutor(1, thread_name_prefix="encoder"), asyncio.Semaphore(MAX_WAITING)
    headers = _headers(explainer)
    catalogue, guests = Catalogue(explainer), Guests(explainer.trained, encoder)
    pages.home(catalogue)  # fills the caches of the catalogue before the first request
    trained = explainer.trained

    @lru_cache(maxsize=64)  # the order is cached when one of its items is opened
    def person(who: tuple[str, str], changes: tuple[tuple[str, str], ...]) -> Person:
        kind, key = who
        plain = guests.find(key) if kind == "guest" else trained.for_user(trained.user_idx(key))
        return Person.from_run(explainer, plain, who, WhatIf.from_fields(list(changes)))

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
            response = _refusal(request, hosts) or await answer(request)
        except Exception:
            _log.exception("%s", request.url.path)
            response = _error(
                500, "Internal error", "The page could not be made. See the terminal for the error."
            )
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, failure: HTTPException) -> Response:
        messages = {404: "There is no such page.", 405: "This page does not support the request method."}
        return _error(failure.status_code, "No such page", messages.get(failure.status_code, failure.detail))

    @app.exception_handler(LlmdirectError)
    async def failed(request: Request, failure: LlmdirectError) -> Response:
        missing = isinstance(failure, MissingError)
        return _error(404 if missing else 500, "Not found" if missing else "Error", str(failure))

    @app.exception_handler(ValueError)
    async def refused(request: Request, failure: ValueError) -> Response:
        return _error(400, "Bad request", str(failure))

    @app.get("/")
    async def home() -> Response:
        return HTMLResponse(pages.home(catalogue))

    @app.get("/search")
    async def search(q: str = "", part: str = "") -> Response:
        if part:
            return HTMLResponse(pages.suggestions(catalogue, q, part))
        return HTMLResponse(pages.search_page(catalogue, q))

    @app.get("/new")
    async def new() -> Response:
        return HTMLResponse(pages.new_user_page(catalogue))

    @app.post("/guest")
    async def add_guest(request: Request) -> Response:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MAX_FORM_BYTES:
                        message = f"A text may have {MAX_FORM_BYTES // 1024} KiB; shorten it."
                        return _error(413, "Too long", message)
        except TimeoutError:
            return _error(408, "Too slow", "The form did not arrive in time; send it once more.")
        except ClientDisconnect:
            return _error(400, "Bad request", "The connection ended before the form.")
        fields = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=1000)
        text = " ".join(value for name, value in fields if name == "text")
        items = [trained.item_idx(value) for name, value in dict.fromkeys(fields) if name == "item"]
        if waiting.locked():
            return _error(503, "Busy", "Other texts are being read; try again in a minute.")
        try:
            async with waiting:
                key = await asyncio.get_running_loop().run_in_executor(readers, guests.add, text, items)
        except LlmdirectError:
            raise
        except ValueError as problem:
            sentence = f"{str(problem)[:1].upper()}{str(problem)[1:]}."
            return HTMLResponse(pages.new_user_page(catalogue, text, items, sentence), status_code=400)
        return RedirectResponse(f"/user?{urlencode({'guest': key})}", status_code=303)

    @app.get("/user")
    async def user(request: Request, part: str = "") -> Response:
        person = person_of(request)
        make = person_pages.ranking if part else person_pages.person_page
        page = make(catalogue, person)
        prefetcher.schedule(person.order[: person_pages.SHOWN].tolist())
        return HTMLResponse(page)

    @app.get("/explain")
    async def explain(request: Request, part: str = "") -> Response:
        prefetcher.cancel()  # the requested item has priority
        make = person_pages.explanation_inner if part else person_pages.explanation_page
        person, item = person_of(request), item_of(request)
        page = make(catalogue, person, item)
        prefetcher.schedule(person.order[: person_pages.SHOWN].tolist())
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
        number = whole_number("n", _field(request, "n"))
        if number not in catalogue.aspects:
            raise MissingError(f"there is no aspect {number}")
        return HTMLResponse(item_pages.aspect_page(catalogue, number))

    script = files("llmdirect.explore").joinpath("explore.js").read_text(encoding="utf-8")
    cached = {"Cache-Control": "no-cache"}

    @app.get("/explore.css")
    async def style() -> Response:
        return Response(SHEET, media_type="text/css", headers=cached)

    @app.get("/explore.js")
    async def javascript() -> Response:
        return Response(script, media_type="text/javascript", headers=cached)

    @app.get("/icon.svg")
    async def icon() -> Response:
        # The icon has inline styles, which the policy of the pages forbids.
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return Response(_ICON, media_type="image/svg+xml", headers=cached | policy)

    return app


def _refusal(request: Request, hosts: Collection[str] | None) -> Response | None:
    """Error page for a request under another host name, or for a form of another web site."""
    host = request.headers.get("host", "")
    if hosts is not None and not accepts_host(host, hosts):
        message = f"The pages are not served under the name {host!r}; start the server with it as `--host`."
        return _error(400, "Unknown host", message)
    if request.method not in ("GET", "HEAD", "OPTIONS") and is_cross_site(request.headers):
        return _error(403, "Refused", "The form comes from another web site; open it on this one.")
    return None


def _field(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if value is None:
        raise ValueError(f"the address lacks {name}=…")
    return value


def _error(status: int, title: str, message: str) -> Response:
    return HTMLResponse(pages.error(title, message), status_code=status)
