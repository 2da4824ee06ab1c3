"""The pages of `llmdirect explore`: what they say is what the model says, and data stays data."""

import json
import re
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import numpy as np
import pytest
import tiny
import torch
from command_line import CommandLine
from model_helpers import write_embeddings
from run_helpers import WORDS, fit, write_reviews
from starlette.testclient import TestClient
from test_explanation_page import Page

from llmdirect import explanation
from llmdirect.aspect_edits import AspectEdits
from llmdirect.aspect_overview import aspect_overview
from llmdirect.dataset import TRAIN, Dataset
from llmdirect.documents import prepare
from llmdirect.errors import MissingError
from llmdirect.explanation import Explainer
from llmdirect.explore import pages
from llmdirect.explore.ahead import ReadAhead
from llmdirect.explore.app import HEADERS, LARGEST, make_app
from llmdirect.explore.catalogue import Catalogue
from llmdirect.explore.people import Guests, Person, WhatIf
from llmdirect.precompute import precompute
from llmdirect.ranking import rank
from llmdirect.recommendation import encoder_of
from llmdirect.store import consolidate

HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "</textarea><img src=x onerror=alert(1)>",
    "a/../b?c=d&e=%2F#f",
    "&lt;b&gt; ü \u202e rtl",
]
"""Parts of ids, titles and texts."""


def hostile_reviews(folder: Path) -> tuple[Path, Path]:
    """Reviews and items whose every string tries to be more than text."""
    lines = write_reviews(folder / "plain.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for number, record in enumerate(records):
        record["reviewerID"] += HOSTILE[int(record["reviewerID"][1:]) % len(HOSTILE)]
        record["asin"] += HOSTILE[int(record["asin"][1:]) % len(HOSTILE)]
        record["reviewText"] += HOSTILE[number % len(HOSTILE)]
    items = sorted({record["asin"] for record in records})
    raw, titles = folder / "hostile.json", folder / "items.json"
    raw.write_text("".join(json.dumps(record) + "\n" for record in records))
    titles.write_text(
        "".join(json.dumps({"asin": item, "title": f"T {item}"}) + "\n" for item in items[: len(items) // 2])
    )
    return raw, titles


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    raw, titles = hostile_reviews(folder)
    prepare(raw, folder / "data", items=titles)
    texts = Dataset.open(folder / "data").passages.text.to_list()
    write_embeddings(folder / "data/stores/random", texts, dim=12)
    return folder / "data"


@pytest.fixture(scope="module")
def explainers(dataset: Path) -> Callable[[str], Explainer]:
    kept: dict[str, Explainer] = {}

    def explainer(shape: str) -> Explainer:
        if shape not in kept:
            run = dataset.parent / shape
            fit(dataset, run, shape)
            kept[shape] = Explainer.open(run)
        return kept[shape]

    return explainer


def no_encoder() -> object:
    raise MissingError("no language model here")


def client(explainer: Explainer, **options: object) -> TestClient:
    app = make_app(explainer, no_encoder, **options)  # type: ignore[arg-type]
    return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)


def person(explainer: Explainer, user: int, **changes: object) -> Person:
    alone = explainer.trained.alone(user)
    return Person.of(explainer, alone, ("user", alone.user_ids[0]), WhatIf(**changes))  # type: ignore[arg-type]


USED = ["default", "both", "ratio", "paper"]


# ---- what is shown is what the model says


@pytest.mark.parametrize("shape", USED)
def test_order_parts_and_places_are_those_of_the_ranking(
    explainers: Callable[[str], Explainer], shape: str
) -> None:
    explainer = explainers(shape)
    trained = explainer.trained
    for user in range(6):
        found = person(explainer, user)
        lists = rank(trained.scorer, [user], k=trained.scorer.num_items, seen=trained.seen)
        expected = lists.items[0][lists.items[0] >= 0]
        assert found.order.tolist() == expected.tolist()
        for item, lead in zip(expected[:4].tolist(), found.leads(expected[:4]), strict=True):
            told = found.explain(item)
            assert told["rank"] == expected.tolist().index(item) + 1
            assert told == explainer.explain(user, item)
            assert lead == pytest.approx({part: told["lead"][part] for part in lead}, abs=1e-5)


@pytest.mark.parametrize("shape", USED)
def test_what_if_reorders_as_the_ranking_does(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    trained, changed = explainer.trained, 0
    for user in range(8):
        found = person(explainer, user, interests={0: 3.0, 2: 0.0})
        moved = trained.with_interests(user, {0: 3.0, 2: 0.0})
        lists = rank(moved.scorer, [user], k=trained.scorer.num_items, seen=trained.seen)
        assert found.order.tolist() == lists.items[0][lists.items[0] >= 0].tolist()
        plain = person(explainer, user)
        assert found.order_before.tolist() == plain.order.tolist()
        changed += found.order.tolist() != plain.order.tolist()
        bare = person(explainer, user, without=("collaboration", "popularity"))
        assert [lead["popularity"] for lead in bare.leads(bare.order)] == [0] * len(bare.order)
        terms = bare.explain(int(bare.order[0]))["terms"]
        assert (terms["popularity"], terms["collaboration"]) == (0, 0)
    assert changed


def test_what_if_survives_an_address_and_refuses_what_it_is_not() -> None:
    one = WhatIf({3: 1.5, 0: 0.0}, ("popularity",))
    assert WhatIf.read([*one.fields, ("a7", "1")]) == one
    assert WhatIf.read([("a1", "1.0")]) == WhatIf()
    with pytest.raises(ValueError, match="a1=much: expected a number"):
        WhatIf.read([("a1", "much")])
    with pytest.raises(ValueError, match="there are popularity and collaboration"):
        WhatIf.read([("without", "words")])


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_spread_is_that_of_what_an_aspect_adds(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    found, scorer = person(explainer, 3).spread(), explainer.trained.scorer
    query = scorer.query[3].astype(np.float64)
    for aspect in range(3):
        own = np.zeros_like(query)
        channels = len(query) // 3
        own[aspect * channels : (aspect + 1) * channels] = 1
        adds = scorer.item.astype(np.float64) @ (query * own)
        if shape == "ratio":
            adds = adds / (scorer.item_mass.astype(np.float64) @ query + scorer.eps)
        assert found[aspect] == pytest.approx(adds.std(), rel=1e-4)


def test_aspects_that_are_off_or_merged_are_shown_so(
    explainers: Callable[[str], Explainer], dataset: Path
) -> None:
    run = explainers("default").trained.run
    edits = AspectEdits().merge([0, 2]).switch(off=[1])
    edits.write(run.path, run.parameters)
    try:
        catalogue = Catalogue(Explainer.open(run.path))
    finally:
        (run.path / "aspects.json").unlink()
    assert catalogue.aspects == [0]
    np.testing.assert_allclose(catalogue.item_shares[catalogue.item_shares.any(1)], [[1, 0, 0]] * 14)
    text = client(catalogue.explainer).get("/user", params={"user": catalogue.explainer.trained.user_ids[0]})
    assert 'name="a0"' in text.text
    assert 'name="a1"' not in text.text
    assert 'name="a2"' not in text.text


def test_catalogue_tells_items_by_their_words_and_counts(
    explainers: Callable[[str], Explainer], dataset: Path
) -> None:
    explainer = explainers("default")
    catalogue, data = Catalogue(explainer), Dataset.open(dataset)
    for item in range(14):
        rows = np.flatnonzero((data.passages.item_idx == item) & (data.passages.split == TRAIN))
        texts = [data.passages.text[row] for row in rows.tolist()]
        for word in catalogue.keywords(item):
            assert sum(word in text for text in texts) >= min(2, len(texts) - 1)
        facts = catalogue.facts(item)
        assert facts["reviews"] + facts["others"] == len(rows)
        own = (data.interactions.item_idx == item) & (data.interactions.split == TRAIN)
        assert facts["positives"] == own.sum()
        if facts["stars"] is not None:
            assert facts["stars"] == pytest.approx(float(data.interactions.rating[own].mean()))
        half = WORDS[:6] if int(re.match(r"i(\d+)", data.item_ids[item])[1]) % 2 else WORDS[5:]
        assert set(catalogue.keywords(item)) & set(half)
        assert not set(catalogue.keywords(item)) & (set(WORDS) - set(half))


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_pages_and_overview_tell_the_same_shares(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    catalogue, ids = Catalogue(explainer), explainer.trained.user_ids
    for entry in aspect_overview(explainer.trained.run.path)["aspects"]:
        shares = catalogue.user_shares[:, entry["aspect"]]
        for user in entry["users"]:
            assert user["share"] == pytest.approx(shares[ids.index(user["user_id"])])
        assert entry["users"][0]["share"] == pytest.approx(shares.max())


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_likeness_and_what_is_chosen_together(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    catalogue, scorer = Catalogue(explainer), explainer.trained.scorer
    for item in (0, 5):
        alike, together = catalogue.alike(item, 4), catalogue.together(item, 4)
        if shape == "ratio":
            assert alike == []
        else:
            lengths = np.linalg.norm(scorer.item, axis=1)
            cosines = scorer.item @ scorer.item[item] / (lengths * lengths[item])
            cosines[item] = -9
            assert [other for other, _ in alike] == np.argsort(-cosines)[:4].tolist()
        pair = np.zeros(1, np.int32)
        for other, value in together:
            somebody = scorer.for_users(scorer.query[:1], type(scorer.history).from_pairs([0], [item], 1))
            assert value == pytest.approx(somebody.collaborative_of_pairs(pair, np.array([other]))[0])
            assert other != item


@pytest.mark.parametrize("shape", ["default", "paper"])
def test_reading_of_an_item_is_for_its_own_vector(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    reading, scorer = Catalogue(explainer).reading(4), explainer.trained.scorer
    words = [word["contribution"] for passage in reading["passages"] for word in passage["words"]]
    if shape == "paper":
        texts = (scorer.item.sum(1) / (scorer.item_mass.sum(1) + scorer.eps)).astype(np.float64)
    else:
        texts = scorer.item @ scorer.item[4] * float(explainer.trained.model.temperature())
    assert sum(words) == pytest.approx(float(texts[4] - texts.mean()), rel=1e-3, abs=1e-4)
    assert reading["rank"] is None


# ---- data stays data


def links(page: Page, base: str) -> set[str]:
    return {urljoin(base, unescape(href)).partition("#")[0] for href in page.attributes("a", "href")}


@pytest.mark.parametrize("shape", ["default", "paper"])
def test_no_text_of_the_data_becomes_markup(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    asked = client(explainer)
    waiting, done = ["/", "/new", "/aspects", "/search?q=%3Cscript"], set()
    waiting += [f"/search?q=u1&part={part}" for part in ("all", "items")]
    told = ""
    while waiting and len(done) < 60:
        address = waiting.pop(0)
        if address in done:
            continue
        done.add(address)
        answer = asked.get(address)
        assert answer.status_code == 200, address
        page = Page(answer.text)
        told += page.text()
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
        assert part in told


def test_every_answer_forbids_foreign_scripts(explainers: Callable[[str], Explainer]) -> None:
    asked = client(explainers("default"))
    for address in ("/", "/explore.js", "/nowhere", "/user", "/user?user=nobody", "/aspect?n=99"):
        policy = asked.get(address).headers["content-security-policy"]
        assert policy == HEADERS["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_pages_are_not_given_to_another_name_of_this_machine(explainers: Callable[[str], Explainer]) -> None:
    asked = client(explainers("default"), hosts=["127.0.0.1", "localhost"])
    assert asked.get("/").status_code == 200
    assert asked.get("/", headers={"host": "evil.example"}).status_code == 400


# ---- errors


def test_errors_are_pages_that_say_what_is_wrong(
    explainers: Callable[[str], Explainer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    explainer = explainers("default")
    asked, user = client(explainer), explainer.trained.user_ids[0]
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
        ("/guest", {}, 405, "cannot be asked for in this way"),
    ]
    for path, params, status, sentence in cases:
        answer = asked.get(path, params=params)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert sentence in Page(answer.text).text()

    def broken(catalogue: Catalogue) -> str:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(pages, "home", broken)
    answer = asked.get("/")
    assert answer.status_code == 500
    assert "The page could not be made" in Page(answer.text).text()
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


# ---- somebody new


def test_a_list_is_made_once_and_its_texts_are_read_next(
    explainers: Callable[[str], Explainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[object, ...]] = []
    read: list[list[int]] = []
    stopped: list[int] = []
    of = Person.of

    def counted(explainer: Explainer, plain: object, who: object, what_if: object) -> Person:
        made.append((who, what_if))
        return of(explainer, plain, who, what_if)  # type: ignore[arg-type]

    monkeypatch.setattr(Person, "of", counted)
    monkeypatch.setattr(ReadAhead, "of", lambda self, items: read.append(items))
    monkeypatch.setattr(ReadAhead, "stop", lambda self: stopped.append(len(read)))
    explainer = explainers("default")
    ids = explainer.trained.item_ids
    with client(explainer) as site:
        user, other = explainer.trained.user_ids[:2]
        shown = site.get(f"/user?user={user}&part=1").text
        order = of(explainer, explainer.trained.alone(0), ("user", user), WhatIf()).order[:20].tolist()
        assert read == [order]
        for address in (f"/user?user={user}", f"/explain?user={user}&item={ids[order[0]]}"):
            assert site.get(address).status_code == 200
        assert made == [(("user", user), WhatIf())]
        assert (read, stopped) == ([order] * 3, [2])  # what is opened goes before what may be
        assert site.get(f"/user?user={user}&part=1").text == shown
        assert site.get(f"/user?user={user}&a1=3").status_code == 200
        assert site.get(f"/user?user={other}").status_code == 200
        assert made[1:] == [(("user", user), WhatIf({1: 3.0})), (("user", other), WhatIf())]
    assert stopped == [2, 6]


def test_documents_longest_not_asked_for_go_first(
    explainers: Callable[[str], Explainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = Explainer.open(explainers("default").trained.run.path)
    monkeypatch.setattr(explanation, "_KEPT", 2)
    first = explainer.read(0)
    explainer.read(1)
    assert explainer.read(0) is first
    explainer.read(2)  # 1 goes
    assert explainer.read(0) is first
    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(explainer.read, [0, 3, 4, 3, 0, 5] * 5))
    assert explainer.read.cache_info().currsize == 2  # type: ignore[attr-defined]
    assert all(torch.equal(text.said, first.said) for text in texts[::6])


def test_somebody_with_items_gets_a_list_without_them(explainers: Callable[[str], Explainer]) -> None:
    explainer = explainers("default")
    asked, ids = client(explainer), explainer.trained.item_ids
    answer = asked.post("/guest", data={"text": " ", "item": [ids[2], ids[5], ids[2]]})
    assert answer.status_code == 303
    page = Page(asked.get(answer.headers["location"]).text)
    shown = page.attributes("li", "data-item")
    assert not {ids[2], ids[5]} & set(shown)
    assert len(shown) == 12
    again = asked.post("/guest", data={"item": [ids[2], ids[5]]})
    assert again.headers["location"] == answer.headers["location"]
    why = asked.get(page.attributes("details", "data-load")[0])
    assert "for you" in Page(why.text).text()


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    [
        ({"text": ""}, 400, "Write a text, or pick an item"),
        ({"text": "... !"}, 400, "Your text holds no words"),
        ({"text": "warm", "item": "nothing"}, 404, "no item 'nothing'"),
        ({"text": "warm sound"}, 404, "no language model here"),
        ({"text": "x" * LARGEST}, 413, "64 KiB"),
    ],
)
def test_a_form_that_cannot_be_used_says_why(
    explainers: Callable[[str], Explainer], sent: dict[str, str], status: int, sentence: str
) -> None:
    answer = client(explainers("default")).post("/guest", data=sent)
    assert answer.status_code == status
    page = Page(answer.text)
    assert sentence in page.text()
    if status == 400:
        assert sent["text"].strip() in page.text()


def test_only_the_last_guests_are_kept(
    explainers: Callable[[str], Explainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmdirect.explore.people._GUESTS", 2)
    guests = Guests(explainers("default").trained, no_encoder)  # type: ignore[arg-type]
    keys = [guests.add("", [item]) for item in range(3)]
    assert guests.find(keys[2]).seen.row(0).tolist() == [2]
    with pytest.raises(MissingError, match="write it once more"):
        guests.find(keys[0])


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_a_pasted_review_is_read_by_the_runs_encoder(tmp_path: Path, name: str) -> None:
    checkpoint, _ = tiny.build(name, tmp_path)
    data = tmp_path / "data"
    prepare(write_reviews(tmp_path / "reviews.json"), data)
    precompute(data, model=str(checkpoint), device="cpu")
    consolidate(data)
    fit(data, tmp_path / "run", num_epochs=2)
    explainer = Explainer.open(tmp_path / "run")
    app = make_app(explainer, lambda: encoder_of(explainer.trained, str(checkpoint), "cpu"))
    asked = TestClient(app, follow_redirects=False)
    text = "warm sound & bright <b>strings</b>"
    answer = asked.post("/guest", data={"text": text, "item": explainer.trained.item_ids[3]})
    page = Page(asked.get(answer.headers["location"]).text)
    assert text in page.text()
    assert len(page.attributes("li", "data-item")) == 13
    why = Page(asked.get(page.attributes("details", "data-load")[0]).text).text()
    assert text in why  # as a part of the history, with its share of attention


# ---- comparing, searching, starting


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_comparison_shows_both_and_what_lies_between(
    explainers: Callable[[str], Explainer], shape: str
) -> None:
    explainer = explainers(shape)
    found = person(explainer, 2)
    behind, ahead = int(found.order[3]), int(found.order[0])
    ids = explainer.trained.item_ids
    answer = client(explainer).get(
        "/compare", params={"user": found.who[1], "item": [ids[behind], ids[ahead]]}
    )
    text = Page(answer.text).text()
    name = Catalogue(explainer).name
    assert f"{name(ahead)} is ahead of {name(behind)}" in text
    terms = [found.explain(item)["terms"] for item in (ahead, behind)]
    apart = sum(terms[0].values()) - sum(terms[1].values())
    assert (
        f"Its lead over the other (+{apart:.2f}" in text or f"its lead over the other (+{apart:.2f}" in text
    )


def test_search_finds_ids_and_titles_whatever_the_case(explainers: Callable[[str], Explainer]) -> None:
    explainer = explainers("default")
    catalogue = Catalogue(explainer)
    ids = explainer.trained.user_ids
    assert ids[catalogue.find("users", "U1")[0]].startswith("u1")
    assert catalogue.find("users", "zebra") == catalogue.find("users", "  ") == []
    titled = next(item for item, title in enumerate(explainer.trained.titles) if title)
    assert titled in catalogue.find("items", f"t {explainer.trained.item_ids[titled]}".upper())
    assert len(catalogue.find("users", "u", 5)) == 5
    assert "Nothing is called so" in Page(client(explainer).get("/search?q=zebra").text).text()


def test_somebody_who_has_everything_gets_a_page(explainers: Callable[[str], Explainer]) -> None:
    explainer = explainers("default")
    asked = client(explainer)
    answer = asked.post("/guest", data={"item": explainer.trained.item_ids})
    page = asked.get(answer.headers["location"])
    assert page.status_code == 200
    assert "There is no item left" in Page(page.text).text()
    key = answer.headers["location"].partition("guest=")[2]
    for part in ({}, {"part": "1"}):
        why = asked.get("/explain", params={"guest": key, "item": explainer.trained.item_ids[0], **part})
        assert "There is no candidate left to compare it with." in Page(why.text).text()


def test_explore_says_what_keeps_it_from_starting(
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
