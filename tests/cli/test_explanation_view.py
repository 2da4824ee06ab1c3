"""Explanations in the terminal, with and without colours."""

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

import explanation_example as example
from llmdirect.cli.explanation_view import show

Json = dict[str, Any]


def render_text(*explanations: Json, width: int = 80, colour: bool = False, **options: int) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        color_system="256" if colour else None,
        legacy_windows=False,
    )
    show({"explanations": list(explanations), "model": {}, "dataset": "d"}, console, **options)
    return out.getvalue()


def unwrap(text: str) -> str:
    """Text without line breaks."""
    return " ".join(text.split())


def test_title_rank_and_lead_are_first_lines() -> None:
    output = render_text(example.explanation(), width=120)
    lines = output.splitlines()
    assert lines[0].split() == [
        "Levy's",
        '3.5"',
        "Padded",
        "Leather",
        "Bass",
        "Strap,",
        "Black",
        "B0002D0CEO",
    ]
    assert lines[1].startswith("Ranked 3 of 412 for A2XYZ7Q4JW1M. Most of its lead")
    assert "lead +3.02 = words +2.74, popularity +0.40, collaboration -0.12" in output


def test_signs_mark_words_without_colours() -> None:
    output = unwrap(render_text(example.explanation()))
    assert "Texts, +for+ and -against- it:" in output
    assert "Very +comfortable+ +strap+ for the +price+." in output
    assert "it was -stiff- out of the box" in output


def test_weak_words_and_punctuation_are_unmarked() -> None:
    passage = example.passage(1, "review", None, None, "good, so-so")
    passage["words"] = [
        {**passage["words"][0], "start": start, "end": end, "text": "x", "contribution": value}
        for start, end, value in ((0, 4, 1.0), (4, 5, 0.9), (6, 11, -0.19))
    ]
    assert "+good+, so-so" in render_text({**example.explanation(), "passages": [passage]})


def test_colours_replace_signs() -> None:
    output = render_text(example.explanation(), colour=True)
    assert "\x1b[1;94mcomfortable\x1b[0m" in output
    assert "\x1b[4;38;5;166mstiff\x1b[0m" in output
    assert "+comfortable+" not in output


def test_no_color_uses_signs() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="256", no_color=True)
    show({"explanations": [example.explanation()], "model": {}, "dataset": "d"}, console)
    assert "+comfortable+" in out.getvalue()


def test_max_passages_shows_strongest_sentences() -> None:
    output = unwrap(render_text(example.explanation(), max_passages=1))
    assert "… +Comfortable+ is not the word" in output
    assert "four straps in two years" not in output
    assert "and 4 more, down to -0.38" in output


def test_words_are_sorted_by_absolute_contribution() -> None:
    output = render_text(example.explanation(), max_words=5)
    table = output[output.index("contribution   effect") :].splitlines()[2:]
    rows = [line.split()[:4] for line in table if line.strip()][:5]
    assert rows == [
        ["+Comfortable+", "+0.310", "+0.248", "1"],
        ["+comfortable+", "+0.310", "+0.248", "2"],
        ["+comfortable+", "+0.310", "+0.248", "3"],
        ["+comfortably+", "+0.220", "+0.176", "1"],
        ["-slips-", "-0.190", "-0.152", "5"],
    ]


@pytest.mark.parametrize("width", [50, 80, 200])
def test_lines_fit_terminal_width(width: int) -> None:
    lines = render_text(*example.result()["explanations"], width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    if width >= 80:
        assert any("+Comfortable+" in line and "+0.310" in line and "strap, shou" in line for line in lines)


def test_missing_parts_are_reported() -> None:
    bare = {**example.explanation(rank=None), "passages": [], "lead": None, "title": None}
    output = unwrap(render_text(bare))
    assert output.startswith("B0002D0CEO A2XYZ7Q4JW1M already has this item")
    assert "There is no candidate left to compare it with." in output
    assert "There is no text about this item." in output


def test_measures_are_explained_once() -> None:
    output = unwrap(render_text(*example.result()["explanations"]))
    assert output.count("contribution: the word's own term in the score") == 1
    assert output.count("Neither is exactly the change") == 1


def test_control_sequences_are_removed() -> None:
    evil = "\x1b]0;owned\x07\x1b[31mred [bold]good[/bold] :smile: \x9b2J\N{RIGHT-TO-LEFT OVERRIDE}x\x08\nline"
    passage = example.passage(1, "review", evil, 5.0, evil)
    passage["words"][-1]["contribution"] = 1.0
    explanation = {
        **example.explanation(),
        "passages": [passage],
        "title": evil,
        "item_id": evil,
        "user_id": evil,
    }
    explanation["aspects"] = [{"aspect": 14, "name": evil, "contribution": 1.0}]
    output = render_text(explanation, width=200)
    for sequence in ("\x1b", "\x07", "\x08", "\x9b", "\N{RIGHT-TO-LEFT OVERRIDE}"):
        assert sequence not in output
    assert "[bold]good[/bold] :smile:" in output


def test_invalid_span_prints_nothing() -> None:
    broken = example.explanation()
    broken["passages"][0]["words"][0]["end"] = 10_000
    out = io.StringIO()
    with pytest.raises(
        ValueError, match=r"passage 100: the word at characters 0 to 10000 .* explain the item again"
    ):
        show(
            {"explanations": [example.explanation(), broken], "model": {}, "dataset": "d"},
            Console(file=out, width=80),
        )
    assert out.getvalue() == ""
