"""Explanation page: figures, escaping of hostile data, structure."""

import copy
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import explanation_example as example
from explanation_example import short
from html_page import Page
from llmdirect.reports.explanation_page import render, write_page
from llmdirect.reports.wording import (
    LEVELS,
    lead_sentence,
    rank_sentence,
    segments,
    shade_level,
    signed,
    top_words,
)

Json = dict[str, Any]
TAGS = set(
    """html head meta title style body a div header h1 h2 h3 h4 p bdi nav ol li ul main article section strong
    svg rect line text span figure figcaption mark details summary table thead tbody tr th td dl dt dd
    footer""".split()  # noqa: SIM905
)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title><svg onload=alert(1)>",
    "&lt;b&gt; &amp; &#x3c;",
    "مراجعة ممتازة \N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "cafe\N{COMBINING ACUTE ACCENT} नमस्ते \N{WOMAN}\N{ZERO WIDTH JOINER}\N{GUITAR}",
]


def one(explanation: Json | None = None) -> Json:
    return {**example.result(), "explanations": [explanation or example.explanation()]}


def marks(page: Page) -> list[tuple[str, str]]:
    """(class, title) of the words marked in texts, in order."""
    return [
        (attributes["class"], attributes["title"])
        for tag, attributes in page.elements
        if tag == "mark" and "title" in attributes
    ]


# ---- content


def test_page_contains_figures_of_lead_and_headline() -> None:
    explanation = example.explanation()
    text = Page(render(one(explanation), "Why?")).text()
    assert "Ranked 3 of 412 for A2XYZ7Q4JW1M." in text
    for part in ("total", "words", "popularity", "collaboration"):
        assert signed(explanation["lead"][part], 2) in text
    for name in ("B000068NW5", "B0002D0CEO", "Levy's 3.5\" Padded Leather Bass Strap, Black"):
        assert name in text


@pytest.mark.parametrize(
    ("words", "popularity", "collaboration", "expected"),
    [
        (
            1.82,
            0.4,
            0,
            "Most of its lead over a typical candidate (+2.22) comes from words (+1.82), then popularity "
            "(+0.40).",
        ),
        (
            0.5,
            0.4,
            0.3,
            "Its lead over a typical candidate (+1.20) comes from words (+0.50), popularity (+0.40) and "
            "collaboration (+0.30).",
        ),
        (
            -0.2,
            3,
            -0.1,
            "Its lead over a typical candidate (+2.70) comes from popularity (+3.00). "
            "Words (-0.20) and collaboration (-0.10) count against it.",
        ),
        (
            -3,
            1,
            0,
            "Its distance behind a typical candidate (-2.00) comes from words (-3.00). "
            "Popularity (+1.00) counts for it.",
        ),
        (
            1,
            -3,
            0,
            "Its distance behind a typical candidate (-2.00) comes from popularity (-3.00). "
            "Words (+1.00) count for it.",
        ),
        (0, 0, 0, "It scores the same as a typical candidate."),
        (1, -1, 0, "It scores the same as a typical candidate: words (+1.00) and popularity (-1.00)."),
    ],
)
def test_reason_matches_lead(words: float, popularity: float, collaboration: float, expected: str) -> None:
    parts = {"words": words, "popularity": popularity, "collaboration": collaboration}
    assert lead_sentence({"item_id": "m", "total": sum(parts.values()), **parts}, minus="-") == expected


def test_seen_item_without_rank_and_lead() -> None:
    had = example.explanation(rank=None)
    sentence = "A2XYZ7Q4JW1M already has this item, so it has no rank among the 412 candidates."
    assert rank_sentence(had) == sentence
    alone = Page(render(one({**had, "num_candidates": 0, "lead": None}), "t"))
    assert "There is no candidate left to compare it with." in alone.text()
    assert "How it compares with a typical candidate" not in alone.text()


def test_empty_parts_are_reported() -> None:
    bare = {**example.explanation(), "passages": [], "history": [], "aspects": []}
    text = Page(render(one(bare), "t")).text()
    assert "There is no text about this item." in text
    assert "No item of this user's history was used." in text
    assert "The strongest words" not in text
    Page(render(one(short("no words at all")), "t"))


def test_all_terms_and_model_are_listed() -> None:
    explanation = example.explanation()
    page = Page(render(one(explanation), "t"))
    for name, value in explanation["terms"].items():
        assert name.replace("_", " ") in page.text()
        assert signed(value, 2) in page.text()
    assert "google/t5gemma-2b-2b-ul2" in page.text()


def test_contribution_and_effect_are_explained() -> None:
    text = Page(render(one(), "t")).text()
    assert "Neither is exactly the change of the score if the text were written without the word" in text


# ---- marked words


def test_marks_show_sign_size_and_figures() -> None:
    text = "good bad fine the"
    page = Page(render(one(short(text, (0, 4, 1.0), (5, 8, -0.5), (9, 13, 0.21), (14, 17, 0.19))), "t"))
    assert marks(page) == [
        (
            "for for4",
            "contribution +1.00, effect +0.50; aspect: strap, shoulder, comfortable, padded, leather",
        ),
        (
            "against against2",
            "contribution \N{MINUS SIGN}0.500, effect \N{MINUS SIGN}0.250; "
            "aspect: strap, shoulder, comfortable, padded, leather",
        ),
        (
            "for for1",
            "contribution +0.210, effect +0.105; aspect: strap, shoulder, comfortable, padded, leather",
        ),
    ]


@given(st.floats(0, 1), st.floats(0, 1))
def test_shade_is_monotonic_in_contribution(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= shade_level(low, 1.0) <= shade_level(high, 1.0) <= LEVELS == shade_level(1.0, 1.0)
    assert shade_level(-low, 1.0) == shade_level(low, 1.0)


def test_main_words_sum_over_texts_ignoring_case() -> None:
    text = "Good good bad the the the the !!"
    weak = [(at, at + 3, 0.07) for at in (14, 18, 22, 26)]
    explanation = short(text, (0, 4, 0.3), (5, 9, 0.4), (10, 13, -0.2), *weak, (30, 32, 0.39))
    assert top_words(explanation, True, 5) == [("good", pytest.approx(0.7))]
    assert top_words(explanation, False, 5) == [("bad", -0.2)]


@pytest.mark.parametrize("spans", [[(0, 4), (3, 8)], [(5, 8), (0, 4)], [(14, 99)], [(3, 3)], [(-1, 2)]])
def test_invalid_spans_write_nothing(spans: list[tuple[int, int]], tmp_path: Path) -> None:
    path = tmp_path / "why.html"
    path.write_text("before")
    broken = short("good bad fine the", *((start, end, 1.0) for start, end in spans))
    with pytest.raises(ValueError, match=r"passage 7: the word at characters .* explain the item again"):
        write_page(path, one(broken), "t")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_empty_explanations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no explanations to show; explain at least one item"):
        write_page(tmp_path / "why.html", {**one(), "explanations": []}, "t")
    assert list(tmp_path.iterdir()) == []


def test_written_file_equals_rendered_page(tmp_path: Path) -> None:
    write_page(tmp_path / "why.html", example.result(), "Top 3")
    assert (tmp_path / "why.html").read_bytes() == render(example.result(), "Top 3").encode()


def test_combining_mark_is_marked_with_its_letter() -> None:
    text = "cafe\N{COMBINING ACUTE ACCENT} bar"
    explanation = short(text, (0, 4, 1.0), (4, 5, 1.0), (6, 9, -1.0))
    pieces = [piece for piece, _ in segments(explanation["passages"][0], 0, len(text))]
    assert pieces == ["cafe\N{COMBINING ACUTE ACCENT}", " ", "bar"]


# ---- long texts


def test_long_text_shows_excerpt_and_full_text() -> None:
    page = Page(render(one(), "t"))
    shown = [paragraph for paragraph in page.paragraphs if "good chair" in paragraph]
    assert len(shown) == 2
    assert shown[0].startswith("[…] ")
    assert shown[1] == example.LONG_REVIEW
    assert len(shown[0]) < len(shown[1]) / 2


# ---- hostile data


def poisoned(value: Any, poison: str) -> Any:
    """Explanation with every free-text string replaced."""
    if isinstance(value, dict):
        return {
            name: inner if name in ("kind", "text", "words", "terms") else poisoned(inner, poison)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [poisoned(inner, poison) for inner in value]
    return poison if isinstance(value, str) else value


def words_in(text: str) -> Iterator[tuple[int, int, float]]:
    for number, match in enumerate(re.finditer(r"\w+|[^\w\s]+", text)):
        yield match.start(), match.end(), (-1) ** number / (number + 1)


def check_safe(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag in TAGS
        assert not any(name.startswith("on") or name in ("src", "style", "srcdoc") for name in attributes)
        assert attributes.get("href", "#").startswith("#")


@pytest.mark.parametrize("poison", HOSTILE)
def test_hostile_text_is_escaped(poison: str) -> None:
    explanation = poisoned(short(poison, *words_in(poison)), poison)
    result = {"explanations": [explanation] * 2, "dataset": poison, "model": {poison: poison}}
    page = Page(render(result, poison))
    check_safe(page)
    assert page.paragraphs == [poison, poison]
    assert "".join(text for stack, text in page.texts if "h1" in stack) == poison
    assert any(title.endswith(f"aspect: {poison}") for _, title in marks(page))
    # A page of harmless text has the same elements.
    harmless = poisoned(short(poison, *words_in(poison)), "x")
    plain = Page(render({"explanations": [harmless] * 2, "dataset": "x", "model": {"x": "x"}}, "x"))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_text_round_trips_through_html(text: str) -> None:
    page = Page(render(one(short(text, *words_in(text))), "t"))
    check_safe(page)
    held = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
    assert page.paragraphs == [held]


def test_unencodable_characters_are_replaced(tmp_path: Path) -> None:
    write_page(tmp_path / "why.html", one(short("bad \ud83d emoji", (0, 3, 1.0))), "t")
    assert "bad</mark> \N{REPLACEMENT CHARACTER} emoji" in (tmp_path / "why.html").read_text()


def test_page_is_self_contained() -> None:
    page = render(example.result(), "t")
    for forbidden in ("http:", "https:", "//", "@import", "url(", "<script", "<link", "javascript"):
        assert forbidden not in page
    assert "default-src &#x27;none&#x27;" not in page
    policy = Page(page).attributes("meta", "content")[0]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


# ---- structure


def test_headings_ids_and_anchors_are_consistent() -> None:
    page = Page(render(example.result(), "Top 3"))
    depths = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert depths[0] == 1
    assert depths.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(depths))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {href[1:] for href in page.attributes("a", "href")}
    assert {"e1", "e2", "e3", "main", "how-to-read"} <= targets <= set(ids)
    assert set(page.attributes("article", "aria-labelledby")) <= set(ids)
    assert page.attributes("html", "lang") == ["en"]
    assert set(page.attributes("p", "dir")) == {"auto"}


def test_single_explanation_has_no_index() -> None:
    assert "nav" not in [tag for tag, _ in Page(render(one(), "t")).elements]


def per_cent(element: dict[str, str], name: str) -> float:
    return float(element[name].removesuffix("%"))


def test_lead_bar_is_to_scale() -> None:
    explanation = copy.deepcopy(example.explanation())
    explanation["lead"] |= {"total": 2.0, "words": 2.5, "popularity": -1.0, "collaboration": 0.5}
    page = Page(render(one(explanation), "t"))
    bars = {
        attributes["class"]: (per_cent(attributes, "x"), per_cent(attributes, "width"))
        for tag, attributes in page.elements
        if tag == "rect" and attributes["class"].startswith("part-")
    }
    # Negative: 1 of 4 in total, left of zero; positive: 2.5 and 0.5, adjacent to the right of it.
    assert bars == {
        "part-popularity": (0.0, 25.0),
        "part-words": (25.0, 62.5),
        "part-collaboration": (87.5, 12.5),
    }
    ticks = [per_cent(a, "x1") for tag, a in page.elements if tag == "line" and a["class"] == "axis"]
    assert ticks == [75.0, 25.0]  # the item 2 to the right of the typical candidate
    labels = page.attributes("svg", "aria-label")
    assert labels == ["words +2.50, popularity \N{MINUS SIGN}1.00, collaboration +0.50; lead +2.00 score"]
