"""The explanation page: true to its data, safe against its data, readable."""

import copy
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import explanation_example as example
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdirect.explanation_page import render, write_page
from llmdirect.explanation_style import DARK, LIGHT, STYLE
from llmdirect.explanation_wording import (
    LEVELS,
    decimals,
    excerpt,
    level,
    main_words,
    placed,
    reason,
    segments,
    sentences,
    signed,
)

Json = dict[str, Any]
VOID = {"meta", "link", "input"}
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


class Page(HTMLParser):
    """Elements and texts in order, and what the paragraphs of passages hold; tags must match."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[list[str], str]] = []
        self.paragraphs: list[str] = []
        self.in_passage = False
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.elements.append((tag, named))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "p":
            self.in_passage = "text" in named.get("class", "").split()
            if self.in_passage:
                self.paragraphs.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((list(self.stack), data))
        if "p" in self.stack and self.in_passage:
            self.paragraphs[-1] += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [
            attributes[name] for found, attributes in self.elements if found == tag and name in attributes
        ]

    def text(self) -> str:
        """All but the style sheet and the marks that isolate directions."""
        told = "".join(text for stack, text in self.texts if "style" not in stack)
        return re.sub("[\u2068\u2069]", "", told)


def one(explanation: Json | None = None) -> Json:
    return {**example.result(), "explanations": [explanation or example.explanation()]}


def short(text: str, *words: tuple[int, int, float]) -> Json:
    """An explanation with one review, whose words are (start, end, contribution)."""
    spans = [
        {"start": start, "end": end, "text": text[start:end], "contribution": c, "effect": c / 2, "aspect": 3}
        for start, end, c in words
    ]
    total = sum(c for _, _, c in words)
    passage = {
        "passage_idx": 7,
        "kind": "review",
        "user_id": "U",
        "rating": 4.0,
        "text": text,
        "contribution": total,
        "effect": total / 2,
        "words": spans,
    }
    return {**example.explanation(), "passages": [passage]}


def marks(page: Page) -> list[tuple[str, str]]:
    """(class, title) of the words marked in texts, in order."""
    return [
        (found["class"], found["title"]) for tag, found in page.elements if tag == "mark" and "title" in found
    ]


# ---- what it says


def test_the_page_holds_every_figure_of_the_lead_and_the_headline() -> None:
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
            "Words (-0.20) and collaboration (-0.10) speak against it.",
        ),
        (
            -3,
            1,
            0,
            "Its distance behind a typical candidate (-2.00) comes from words (-3.00). "
            "Popularity (+1.00) speaks for it.",
        ),
        (0, 0, 0, "It scores the same as a typical candidate."),
        (1, -1, 0, "It scores the same as a typical candidate: words (+1.00) and popularity (-1.00)."),
    ],
)
def test_the_reason_is_a_true_sentence(
    words: float, popularity: float, collaboration: float, expected: str
) -> None:
    parts = {"words": words, "popularity": popularity, "collaboration": collaboration}
    assert reason({"item_id": "m", "total": sum(parts.values()), **parts}, minus="-") == expected


def test_an_item_that_the_user_has_gets_no_rank_and_no_candidates_no_lead() -> None:
    had = example.explanation(rank=None)
    assert placed(had) == "A2XYZ7Q4JW1M already has this item, so it has no rank among the 412 candidates."
    alone = Page(render(one({**had, "num_candidates": 0, "lead": None}), "t"))
    assert "There is no candidate left to compare it with." in alone.text()
    assert "How it compares with a typical candidate" not in alone.text()


def test_texts_without_words_and_empty_parts_are_said_to_be_empty() -> None:
    bare = {**example.explanation(), "passages": [], "history": [], "aspects": []}
    text = Page(render(one(bare), "t")).text()
    assert "No text about this item was read." in text
    assert "Nothing in this user's history was read." in text
    assert "The strongest words" not in text
    Page(render(one(short("no words at all")), "t"))


def test_every_term_and_the_model_are_listed() -> None:
    explanation = example.explanation()
    page = Page(render(one(explanation), "t"))
    for name, value in explanation["terms"].items():
        assert name.replace("_", " ") in page.text()
        assert signed(value, 2) in page.text()
    assert "google/t5gemma-2b-2b-ul2" in page.text()


def test_both_measures_are_explained_without_claiming_too_much() -> None:
    text = Page(render(one(), "t")).text()
    assert "Neither claims to equal what would happen if the text were written without the word" in text


# ---- marked words


def test_marks_say_sign_size_and_figures() -> None:
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
def test_a_larger_contribution_never_has_a_lighter_shade(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= level(low, 1.0) <= level(high, 1.0) <= LEVELS == level(1.0, 1.0)
    assert level(-low, 1.0) == level(low, 1.0)


def test_main_words_add_up_what_is_marked_over_texts_and_cases() -> None:
    text = "Good good bad the the the the !!"
    weak = [(at, at + 3, 0.07) for at in (14, 18, 22, 26)]
    explanation = short(text, (0, 4, 0.3), (5, 9, 0.4), (10, 13, -0.2), *weak, (30, 32, 0.39))
    assert main_words(explanation, True, 5) == [("good", pytest.approx(0.7))]
    assert main_words(explanation, False, 5) == [("bad", -0.2)]


@pytest.mark.parametrize("spans", [[(0, 4), (3, 8)], [(5, 8), (0, 4)], [(14, 99)], [(3, 3)], [(-1, 2)]])
def test_spans_that_do_not_fit_are_refused_and_nothing_is_written(
    spans: list[tuple[int, int]], tmp_path: Path
) -> None:
    path = tmp_path / "why.html"
    path.write_text("before")
    broken = short("good bad fine the", *((start, end, 1.0) for start, end in spans))
    with pytest.raises(ValueError, match=r"passage 7: the word at characters .* explain the item again"):
        write_page(path, one(broken), "t")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_no_explanations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no explanations to show; explain at least one item"):
        write_page(tmp_path / "why.html", {**one(), "explanations": []}, "t")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_the_rendered_page(tmp_path: Path) -> None:
    write_page(tmp_path / "why.html", example.result(), "Top 3")
    assert (tmp_path / "why.html").read_bytes() == render(example.result(), "Top 3").encode()


def test_a_combining_mark_stays_with_its_letter() -> None:
    text = "cafe\N{COMBINING ACUTE ACCENT} bar"
    explanation = short(text, (0, 4, 1.0), (4, 5, 1.0), (6, 9, -1.0))
    pieces = [piece for piece, _ in segments(explanation["passages"][0], 0, len(text))]
    assert pieces == ["cafe\N{COMBINING ACUTE ACCENT}", " ", "bar"]


# ---- sentences


@given(st.text("ab. !\n\u3002", max_size=700))
def test_sentences_cover_the_text_in_order(text: str) -> None:
    spans = sentences(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(0 < end - start <= 240 for start, end in spans)


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = 'It costs 3.5 dollars. "Why not?" he said\nNext line! \u597d\u7434\u3002\u5f88\u597d'
    assert [text[start:end] for start, end in sentences(text)] == [
        "It costs 3.5 dollars. ",
        '"Why not?" ',
        "he said\n",
        "Next line! ",
        "\u597d\u7434\u3002",
        "\u5f88\u597d",
    ]


def test_an_excerpt_holds_the_strongest_sentences_within_its_limit() -> None:
    text = "Weak words here. The best one. Nothing. A second good one. End."
    best, second, weak = text.index("best"), text.index("good"), text.index("Weak")
    passage = short(text, (weak, weak + 4, 0.1), (best, best + 4, -0.9), (second, second + 4, 0.5))[
        "passages"
    ][0]
    assert [text[start:end] for start, end in excerpt(passage, 40)] == [
        "The best one. ",
        "A second good one. ",
    ]
    assert [text[start:end] for start, end in excerpt(passage, 10)] == ["The best one. "]
    joined = [text[start:end] for start, end in excerpt(passage, 60)]
    assert joined == ["Weak words here. The best one. ", "A second good one. "]


def test_a_long_text_shows_its_excerpt_first_and_all_of_it_inside() -> None:
    page = Page(render(one(), "t"))
    shown = [paragraph for paragraph in page.paragraphs if "good chair" in paragraph]
    assert len(shown) == 2
    assert shown[0].startswith("[…] ")
    assert shown[1] == example.LONG_REVIEW
    assert len(shown[0]) < len(shown[1]) / 2


# ---- hostile data


def poisoned(value: Any, poison: str) -> Any:
    """The same explanation with every string that is free text replaced."""
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
def test_hostile_text_is_shown_and_nothing_else(poison: str) -> None:
    explanation = poisoned(short(poison, *words_in(poison)), poison)
    result = {"explanations": [explanation] * 2, "dataset": poison, "model": {poison: poison}}
    page = Page(render(result, poison))
    check_safe(page)
    assert page.paragraphs == [poison, poison]
    assert "".join(text for stack, text in page.texts if "h1" in stack) == poison
    assert any(title.endswith(f"aspect: {poison}") for _, title in marks(page))
    # The same page of harmless text has the very same elements.
    harmless = poisoned(short(poison, *words_in(poison)), "x")
    plain = Page(render({"explanations": [harmless] * 2, "dataset": "x", "model": {"x": "x"}}, "x"))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    page = Page(render(one(short(text, *words_in(text))), "t"))
    check_safe(page)
    held = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
    assert page.paragraphs == [held]


def test_characters_that_utf8_cannot_hold_are_replaced(tmp_path: Path) -> None:
    write_page(tmp_path / "why.html", one(short("bad \ud83d emoji", (0, 3, 1.0))), "t")
    assert "bad</mark> \N{REPLACEMENT CHARACTER} emoji" in (tmp_path / "why.html").read_text()


def test_the_page_needs_nothing_from_outside_and_forbids_it() -> None:
    page = render(example.result(), "t")
    for forbidden in ("http:", "https:", "//", "@import", "url(", "<script", "<link", "javascript"):
        assert forbidden not in page
    assert "default-src &#x27;none&#x27;" not in page
    policy = Page(page).attributes("meta", "content")[0]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


# ---- structure


def test_headings_ids_and_anchors_are_in_order() -> None:
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


def test_one_explanation_needs_no_index() -> None:
    assert "nav" not in [tag for tag, _ in Page(render(one(), "t")).elements]


def per_cent(element: dict[str, str], name: str) -> float:
    return float(element[name].removesuffix("%"))


def test_the_bar_of_the_lead_is_to_scale() -> None:
    explanation = copy.deepcopy(example.explanation())
    explanation["lead"] |= {"total": 2.0, "words": 2.5, "popularity": -1.0, "collaboration": 0.5}
    page = Page(render(one(explanation), "t"))
    bars = {
        attributes["class"]: (per_cent(attributes, "x"), per_cent(attributes, "width"))
        for tag, attributes in page.elements
        if tag == "rect" and attributes["class"].startswith("part-")
    }
    # Against: 1 of 4 in all, left of zero; for: 2.5 and 0.5, end to end to the right of it.
    assert bars == {
        "part-popularity": (0.0, 25.0),
        "part-words": (25.0, 62.5),
        "part-collaboration": (87.5, 12.5),
    }
    ticks = [per_cent(a, "x1") for tag, a in page.elements if tag == "line" and a["class"] == "axis"]
    assert ticks == [75.0, 25.0]  # the item 2 to the right of the typical candidate
    told = page.attributes("svg", "aria-label")
    assert told == ["words +2.50, popularity \N{MINUS SIGN}1.00, collaboration +0.50; lead +2.00 score"]


# ---- numbers and colours


@pytest.mark.parametrize(
    ("values", "places"),
    [([], 2), ([0.0], 2), ([12.0], 2), ([1.0], 2), ([0.5], 3), ([-0.042], 4), ([1e-9], 8)],
)
def test_three_digits_of_the_largest(values: list[float], places: int) -> None:
    assert decimals(values) == places


def test_signs() -> None:
    assert signed(1.825, 1) == "+1.8"
    assert signed(-0.4, 2) == "\N{MINUS SIGN}0.40"
    assert signed(-0.4, 2, "-") == "-0.40"
    assert signed(-0.001, 2) == "0.00"


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_enough_for_wcag_aa(palette: dict[str, str]) -> None:
    shades = [f"{sign}{n}" for sign in ("for", "against") for n in range(1, LEVELS + 1)]
    texts = [("text", background) for background in ("page", "card", *shades)]
    texts += [(ink, background) for ink in ("muted", "link") for background in ("page", "card")]
    texts += [(f"on-{part}", part) for part in ("words", "popularity", "collaboration")]
    for ink, background in texts:
        assert contrast(palette[ink], palette[background]) >= 4.5, (ink, background)
    shapes = [("for", "card"), ("against", "card"), ("words", "card"), ("popularity", "card")]
    for ink, background in shapes:
        assert contrast(palette[ink], palette[background]) >= 3, (ink, background)
    for sign in ("for", "against"):
        steps = [contrast(palette["card"], palette[f"{sign}{n}"]) for n in range(1, LEVELS + 1)]
        assert steps == sorted(steps), sign


def test_the_sign_of_a_word_shows_without_colour() -> None:
    assert "text-decoration-style:solid" in STYLE.partition("mark.for{")[2].partition("}")[0]
    assert "text-decoration-style:dashed" in STYLE.partition("mark.against{")[2].partition("}")[0]
    assert f"{LEVELS + 1}{{" not in STYLE
    for name in re.findall(r"var\(--([\w-]+)\)", STYLE):
        assert name in LIGHT, name
    assert LIGHT.keys() == DARK.keys()
