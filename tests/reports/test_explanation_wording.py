"""Sentences, excerpts, numbers and colours of explanations."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explanation_example import short
from llmdirect.reports.style import DARK, LIGHT, STYLE
from llmdirect.reports.wording import LEVELS, decimals, excerpt, signed
from llmdirect.text.sentences import sentence_spans

# ---- sentences


@given(st.text("ab. !\n\u3002", max_size=700))
def test_sentences_partition_text(text: str) -> None:
    spans = sentence_spans(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(0 < end - start <= 240 for start, end in spans)


def test_sentence_boundaries() -> None:
    text = 'It costs 3.5 dollars. "Why not?" he said\nNext line! \u597d\u7434\u3002\u5f88\u597d'
    assert [text[start:end] for start, end in sentence_spans(text)] == [
        "It costs 3.5 dollars. ",
        '"Why not?" ',
        "he said\n",
        "Next line! ",
        "\u597d\u7434\u3002",
        "\u5f88\u597d",
    ]


def test_excerpt_selects_strongest_sentences_within_limit() -> None:
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


# ---- numbers and colours


@pytest.mark.parametrize(
    ("values", "places"),
    [([], 2), ([0.0], 2), ([12.0], 2), ([1.0], 2), ([0.5], 3), ([-0.042], 4), ([1e-9], 8)],
)
def test_decimals_show_three_digits_of_largest(values: list[float], places: int) -> None:
    assert decimals(values) == places


def test_signed_numbers() -> None:
    assert signed(1.825, 1) == "+1.8"
    assert signed(-0.4, 2) == "\N{MINUS SIGN}0.40"
    assert signed(-0.4, 2, "-") == "-0.40"
    assert signed(-0.001, 2) == "0.00"


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour: str, background: str) -> float:
    high, low = sorted((luminance(colour), luminance(background)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_meets_wcag_aa(palette: dict[str, str]) -> None:
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


def test_sign_is_visible_without_colour() -> None:
    assert "text-decoration-style:solid" in STYLE.partition("mark.for{")[2].partition("}")[0]
    assert "text-decoration-style:dashed" in STYLE.partition("mark.against{")[2].partition("}")[0]
    assert f"{LEVELS + 1}{{" not in STYLE
    for name in re.findall(r"var\(--([\w-]+)\)", STYLE):
        assert name in LIGHT, name
    assert LIGHT.keys() == DARK.keys()
