"""Pages of `llmdirect explore`: escaping of data, error pages, lists of new users."""

import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import torch
from starlette.testclient import TestClient

import tiny
from command_line import CommandLine
from explore_world import HOSTILE, client, explored, no_encoder, person
from html_page import Page
from llmdirect.common.errors import MissingError
from llmdirect.data.prepare import prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.explanation import item_texts
from llmdirect.explanation.explainer import Explainer
from llmdirect.explore import pages
from llmdirect.explore.app import HEADERS, MAX_FORM_BYTES, make_app
from llmdirect.explore.people import Guests, Person, WhatIf
from llmdirect.explore.prefetch import Prefetcher
from llmdirect.explore.server import LOCAL
from llmdirect.reports.catalogue import Catalogue
from llmdirect.runs.inputs import load_run_encoder
from llmdirect.store.consolidation import consolidate
from run_helpers import fit, write_reviews

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def explainers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Explainer]:
    return explored(tmp_path_factory.mktemp("explored"))


# ---- escaping


def links(page: Page, base: str) -> set[str]:
    return {urljoin(base, unescape(href)).partition("#")[0] for href in page.attributes("a", "href")}


@pytest.mark.parametrize("shape", ["default", "paper"])
def test_data_is_escaped(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    http = client(explainer)
    waiting, done = ["/", "/new", "/aspects", "/search?q=%3Cscript"], set()
    waiting += [f"/search?q=u1&part={part}" for part in ("all", "items")]
    content = ""
    while waiting and len(done) < 60:
        address = waiting.pop(0)
        if address in done:
            continue
        done.add(address)
        answer = http.get(address)
        assert answer.status_code == 200, address
        page = Page(answer.text)
        content += page.text()
        scripts = [attributes for tag, attributes in page.elements if tag == "script"]
        assert all(attributes == {"src": "/explore.js", "defer": ""} for attributes in scripts)
        for tag, attributes in page.elements:
            assert tag not in ("img", "iframe", "style", "object", "base")
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            for name in ("href", "src", "action"):
                assert urlsplit(attributes.get(name, "/")).scheme == ""
        waiting += sorted(link for link in links(page, "/") if link not in done)
        for load in page.attributes("details", "data-load"):
            waiting.append(f"{load}&part=1")
    kinds = {urlsplit(address).path for address in done}
    assert kinds >= {"/", "/new", "/aspects", "/search", "/user", "/item", "/aspect", "/explain"}
    for part in HOSTILE:
        assert part in content


def test_responses_have_content_security_policy(explainers: Callable[[str], Explainer]) -> None:
    http = client(explainers("default"))
    for address in ("/", "/explore.js", "/nowhere", "/user", "/user?user=nobody", "/aspect?n=99"):
        policy = http.get(address).headers["content-security-policy"]
        assert policy == HEADERS["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_foreign_host_header_is_rejected(explainers: Callable[[str], Explainer]) -> None:
    http = client(explainers("default"), hosts=LOCAL)
    for name in ("127.0.0.1", "localhost", "127.0.0.1:8000", "[::1]:8000", "[::1]"):
        assert http.get("/", headers={"host": name}).status_code == 200
    assert http.get("/", headers={"host": "evil.example"}).status_code == 400


# ---- errors


def test_error_pages(
    explainers: Callable[[str], Explainer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    explainer = explainers("default")
    http, user = client(explainer), explainer.trained.users.ids[0]
    cases: list[tuple[str, dict[str, object], int, str]] = [
        ("/nowhere", {}, 404, "There is no such page"),
        ("/user", {"user": "<b>nobody"}, 404, "no user '<b>nobody'"),
        ("/user", {}, 400, "the address lacks user="),
        ("/user", {"user": user, "a0": "-1"}, 400, "a factor is 0 or above"),
        ("/user", {"user": user, "a77": "2"}, 400, "there is no aspect 77"),
        ("/item", {"id": "nothing"}, 404, "no item 'nothing'"),
        ("/aspect", {"n": "9"}, 404, "there is no aspect 9"),
        ("/user", {"guest": "123"}, 404, "the server no longer has"),
        ("/compare", {"user": user, "item": explainer.trained.item_ids[0]}, 400, "pick exactly two"),
        ("/guest", {}, 405, "does not support the request method"),
    ]
    for path, params, status, sentence in cases:
        answer = http.get(path, params=params)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert sentence in Page(answer.text).text()

    def broken(catalogue: Catalogue) -> str:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(pages, "home", broken)
    answer = http.get("/")
    assert answer.status_code == 500
    assert "The page could not be made" in Page(answer.text).text()
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


# ---- new users


def test_list_is_cached_and_its_texts_prefetched(
    explainers: Callable[[str], Explainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    read: list[list[int]] = []
    stopped: list[int] = []
    from_run = Person.from_run

    def counted(explainer: Explainer, plain: object, who: object, what_if: object) -> Person:
        calls.append((who, what_if))
        return from_run(explainer, plain, who, what_if)  # type: ignore[arg-type]

    monkeypatch.setattr(Person, "from_run", counted)
    monkeypatch.setattr(Prefetcher, "schedule", lambda self, items: read.append(items))
    monkeypatch.setattr(Prefetcher, "cancel", lambda self: stopped.append(len(read)))
    explainer = explainers("default")
    ids = explainer.trained.item_ids
    with client(explainer) as site:
        user, other = explainer.trained.users.ids[:2]
        shown = site.get(f"/user?user={user}&part=1").text
        shown_user = from_run(explainer, explainer.trained.for_user(0), ("user", user), WhatIf())
        order = shown_user.order[:20].tolist()
        assert read == [order]
        for address in (f"/user?user={user}", f"/explain?user={user}&item={ids[order[0]]}"):
            assert site.get(address).status_code == 200
        assert calls == [(("user", user), WhatIf())]
        assert (read, stopped) == ([order] * 3, [2])  # opened explanations precede prefetched ones
        assert site.get(f"/user?user={user}&part=1").text == shown
        assert site.get(f"/user?user={user}&a1=3").status_code == 200
        assert site.get(f"/user?user={other}").status_code == 200
        assert calls[1:] == [(("user", user), WhatIf({1: 3.0})), (("user", other), WhatIf())]
    assert stopped == [2, 6]


def test_least_recently_used_documents_are_evicted(
    explainers: Callable[[str], Explainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = explainers("default").trained.run.path
    monkeypatch.setattr(item_texts, "_CACHED_ITEMS", 2)
    explainer = Explainer.open(run)
    first = explainer.texts.read(0)
    explainer.texts.read(1)
    assert explainer.texts.read(0) is first
    explainer.texts.read(2)  # evicts 1
    assert explainer.texts.read(0) is first
    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(explainer.texts.read, [0, 3, 4, 3, 0, 5] * 5))
    assert explainer.texts.read.cache_info().currsize == 2  # type: ignore[attr-defined]
    assert all(torch.equal(text.preference, first.preference) for text in texts[::6])


def test_new_user_list_excludes_history(explainers: Callable[[str], Explainer]) -> None:
    explainer = explainers("default")
    http, ids = client(explainer), explainer.trained.item_ids
    answer = http.post("/guest", data={"text": " ", "item": [ids[2], ids[5], ids[2]]})
    assert answer.status_code == 303
    page = Page(http.get(answer.headers["location"]).text)
    shown = page.attributes("li", "data-item")
    assert not {ids[2], ids[5]} & set(shown)
    assert len(shown) == 12
    again = http.post("/guest", data={"item": [ids[2], ids[5]]})
    assert again.headers["location"] == answer.headers["location"]
    why = http.get(page.attributes("details", "data-load")[0])
    assert "for you" in Page(why.text).text()


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    [
        ({"text": ""}, 400, "Write a text, or pick an item"),
        ({"text": "... !"}, 400, "Your text has no words"),
        ({"text": "warm", "item": "nothing"}, 404, "no item 'nothing'"),
        ({"text": "warm sound"}, 404, "no language model here"),
        ({"text": "x" * MAX_FORM_BYTES}, 413, "64 KiB"),
    ],
)
def test_invalid_form_reports_reason(
    explainers: Callable[[str], Explainer], sent: dict[str, str], status: int, sentence: str
) -> None:
    answer = client(explainers("default")).post("/guest", data=sent)
    assert answer.status_code == status
    page = Page(answer.text)
    assert sentence in page.text()
    if status == 400:
        assert sent["text"].strip() in page.text()


def test_only_latest_guests_are_kept(
    explainers: Callable[[str], Explainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmdirect.explore.people._GUESTS", 2)
    guests = Guests(explainers("default").trained, no_encoder)  # type: ignore[arg-type]
    keys = [guests.add("", [item]) for item in range(3)]
    assert guests.find(keys[2]).users.seen.row(0).tolist() == [2]
    with pytest.raises(MissingError, match="write it once more"):
        guests.find(keys[0])


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_pasted_review_is_encoded(tmp_path: Path, name: str) -> None:
    checkpoint, _ = tiny.build(name, tmp_path)
    data = tmp_path / "data"
    prepare(write_reviews(tmp_path / "reviews.json"), data)
    precompute(data, encoder=str(checkpoint), device="cpu")
    consolidate(data)
    fit(data, tmp_path / "run", num_epochs=2)
    explainer = Explainer.open(tmp_path / "run")
    app = make_app(explainer, lambda: load_run_encoder(explainer.trained.run, str(checkpoint), "cpu"))
    http = TestClient(app, follow_redirects=False)
    text = "warm sound & bright <b>strings</b>"
    answer = http.post("/guest", data={"text": text, "item": explainer.trained.item_ids[3]})
    page = Page(http.get(answer.headers["location"]).text)
    assert text in page.text()
    assert len(page.attributes("li", "data-item")) == 13
    why = Page(http.get(page.attributes("details", "data-load")[0]).text).text()
    assert text in why  # part of the history, with its attention weight


# ---- comparing, searching, starting


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_comparison_shows_items_and_differences(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    ranking = person(explainer, 2)
    behind, ahead = int(ranking.order[3]), int(ranking.order[0])
    ids = explainer.trained.item_ids
    answer = client(explainer).get(
        "/compare", params={"user": ranking.who[1], "item": [ids[behind], ids[ahead]]}
    )
    text = Page(answer.text).text()
    name = Catalogue(explainer).name
    assert f"{name(ahead)} is ahead of {name(behind)}" in text
    terms = [ranking.explain(item)["terms"] for item in (ahead, behind)]
    apart = sum(terms[0].values()) - sum(terms[1].values())
    assert (
        f"Its lead over the other (+{apart:.2f}" in text or f"its lead over the other (+{apart:.2f}" in text
    )


def test_search_is_case_insensitive(explainers: Callable[[str], Explainer]) -> None:
    explainer = explainers("default")
    catalogue = Catalogue(explainer)
    ids = explainer.trained.users.ids
    assert ids[catalogue.find("users", "U1")[0]].startswith("u1")
    assert catalogue.find("users", "zebra") == catalogue.find("users", "  ") == []
    titled = next(item for item, title in enumerate(explainer.trained.titles) if title)
    assert titled in catalogue.find("items", f"t {explainer.trained.item_ids[titled]}".upper())
    assert len(catalogue.find("users", "u", 5)) == 5
    assert "No match" in Page(client(explainer).get("/search?q=zebra").text).text()


def test_user_with_all_items_gets_page(explainers: Callable[[str], Explainer]) -> None:
    explainer = explainers("default")
    http = client(explainer)
    answer = http.post("/guest", data={"item": explainer.trained.item_ids})
    page = http.get(answer.headers["location"])
    assert page.status_code == 200
    assert "There is no candidate left" in Page(page.text).text()
    key = answer.headers["location"].partition("guest=")[2]
    for part in ({}, {"part": "1"}):
        why = http.get("/explain", params={"guest": key, "item": explainer.trained.item_ids[0], **part})
        assert "There is no candidate left to compare it with." in Page(why.text).text()


def test_explore_start_errors(
    explainers: Callable[[str], Explainer], cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = explainers("default").trained.run.path
    assert cli("explore", run.parent / "nothing").code == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = cli("explore", run, "--port", taken.getsockname()[1])
    assert answer.code == 1
    assert "choose another --port" in answer.err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    answer = cli("explore", run)
    assert answer.code == 1
    assert "pip install 'llmdirect[explore]'" in answer.err
