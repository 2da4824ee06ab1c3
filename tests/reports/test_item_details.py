"""Prices and images of items on the pages, from what the file of items says."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import explanation_example as example
from explore_world import client
from html_page import Page
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.explanation.explain import explain
from llmdirect.explanation.explainer import Explainer
from llmdirect.reports.explanation_page import render
from llmdirect.reports.html import is_web_address
from llmdirect.reports.run_report import report
from model_helpers import write_embeddings
from run_helpers import fit, write_reviews

NO_ADDRESSES = [
    "javascript:alert(1)",
    "data:image/svg+xml,<svg onload=alert(1)>",
    "file:///etc/passwd",
    "//host/image.jpg",
    "image.jpg",
    "https:///image.jpg",
    "http://[host/image.jpg",
    "https://host/a image.jpg",
    "java\nscript:alert(1)",
    "https://host/" + "a" * 3000,
    "",
]
HOSTILE = 'https://host/i.jpg?"><script>alert(1)</script>'


def images(page: str) -> list[dict[str, str]]:
    return [attributes for tag, attributes in Page(page).elements if tag == "img"]


def policy(page: str) -> str:
    [content] = [
        attributes["content"] for tag, attributes in Page(page).elements if "http-equiv" in attributes
    ]
    return content


def with_details(**details: Any) -> dict[str, Any]:
    return {**example.result(), "explanations": [{**example.explanation(), "details": details}]}


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_other_addresses_are_not_shown(address: str) -> None:
    assert not is_web_address(address)
    page = render(with_details(image=address), "title")
    assert images(page) == []
    assert "img-src" not in policy(page)
    assert not address or address not in page


def test_image_and_price_are_escaped() -> None:
    result = with_details(image=HOSTILE, price="<b>12</b>")
    result["explanations"][0]["title"] = '"><script>Strap'
    page = render(result, "title")
    [image] = images(page)
    assert (image["src"], image["alt"]) == (HOSTILE, '"><script>Strap')
    assert (image["loading"], image["referrerpolicy"]) == ("lazy", "no-referrer")
    assert (image["width"], image["height"]) == ("112", "112")
    assert not [name for name in image if name.startswith("on")]
    assert "price <b>12</b> · score" in Page(page).text()
    assert not [tag for tag, _ in Page(page).elements if tag in ("script", "b")]
    assert "img-src http: https:;" in policy(page)
    assert policy(page).startswith("default-src 'none'")
    assert images(render(example.result(), "title")) == []


def test_pages_of_a_run(tmp_path: Path) -> None:
    numbers = range(14)
    items = pl.DataFrame(
        {
            "asin": [f"i{number}" for number in numbers],
            "title": [f"Title {number}" for number in numbers],
            "price": [f"${number}.99" if number else None for number in numbers],
            "image": [f"https://img/{number}.jpg" if number else "javascript:alert(1)" for number in numbers],
        }
    )
    prepare(write_reviews(tmp_path / "raw.json"), tmp_path / "data", items=items)
    data = Dataset.open(tmp_path / "data")
    write_embeddings(tmp_path / "data" / "stores" / "random", data.passages.text.to_list(), dim=12)
    run = tmp_path / "run"
    fit(tmp_path / "data", run)
    entries = explain(run, "u1", ["i0", "i3"])["explanations"]
    assert [entry["details"] for entry in entries] == [
        {"image": "javascript:alert(1)"},
        {"price": "$3.99", "image": "https://img/3.jpg"},
    ]
    report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    shown = images(page)
    assert shown
    assert all(image["src"].startswith("https://img/") for image in shown)
    assert "img-src http: https:" in policy(page)
    http = client(Explainer.open(run))
    answer = http.get("/item?id=i3")
    assert [image["src"] for image in images(answer.text)] == ["https://img/3.jpg"]
    assert "price $3.99 · " in Page(answer.text).text()
    assert "img-src 'self' http: https:;" in answer.headers["content-security-policy"]
    assert images(http.get("/item?id=i0").text) == []
    assert [image["src"] for image in images(http.get("/explain?user=u1&item=i3").text)] == [
        "https://img/3.jpg"
    ]
