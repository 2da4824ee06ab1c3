"""Explanations in the terminal, with colours and without."""

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

import explanation_example as example
from llmdirect.cli.explanation_view import show

Json = dict[str, Any]


def printed(*explanations: Json, width: int = 80, colour: bool = False, **options: int) -> str:
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


def flat(text: str) -> str:
    """Without the line breaks of the terminal."""
    return " ".join(text.split())


def test_the_reason_comes_first_and_the_lead_in_one_line() -> None:
    told = printed(example.explanation(), width=120)
    lines = told.splitlines()
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
    assert "lead +3.02 = words +2.74, popularity +0.40, collaboration -0.12" in told


def test_without_colours_signs_stand_in_the_text() -> None:
    told = flat(printed(example.explanation()))
    assert "Texts, +for+ and -against- it:" in told
    assert "Very +comfortable+ +strap+ for the +price+." in told
    assert "it was -stiff- out of the box" in told


def test_weak_words_and_punctuation_have_no_signs() -> None:
    passage = example.passage(1, "review", None, None, "good, so-so")
    passage["words"] = [
        {**passage["words"][0], "start": start, "end": end, "text": "x", "contribution": value}
        for start, end, value in ((0, 4, 1.0), (4, 5, 0.9), (6, 11, -0.19))
    ]
    assert "+good+, so-so" in printed({**example.explanation(), "passages": [passage]})


def test_with_colours_there_are_no_signs() -> None:
    told = printed(example.explanation(), colour=True)
    assert "\x1b[1;94mcomfortable\x1b[0m" in told
    assert "\x1b[4;38;5;166mstiff\x1b[0m" in told
    assert "+comfortable+" not in told


def test_no_color_counts_as_no_colours() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="256", no_color=True)
    show({"explanations": [example.explanation()], "model": {}, "dataset": "d"}, console)
    assert "+comfortable+" in out.getvalue()


def test_only_the_strongest_sentences_are_told() -> None:
    told = flat(printed(example.explanation(), max_passages=1))
    assert "… +Comfortable+ is not the word" in told
    assert "four straps in two years" not in told
    assert "and 4 more, down to -0.38" in told


def test_words_are_listed_by_size() -> None:
    told = printed(example.explanation(), max_words=5)
    table = told[told.index("contribution   effect") :].splitlines()[2:]
    rows = [line.split()[:4] for line in table if line.strip()][:5]
    assert rows == [
        ["+Comfortable+", "+0.310", "+0.248", "1"],
        ["+comfortable+", "+0.310", "+0.248", "2"],
        ["+comfortable+", "+0.310", "+0.248", "3"],
        ["+comfortably+", "+0.220", "+0.176", "1"],
        ["-slips-", "-0.190", "-0.152", "5"],
    ]


@pytest.mark.parametrize("width", [50, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = printed(*example.result()["explanations"], width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    if width >= 80:
        assert any("+Comfortable+" in line and "+0.310" in line and "strap, shou" in line for line in lines)


def test_what_is_missing_is_said() -> None:
    bare = {**example.explanation(rank=None), "passages": [], "lead": None, "title": None}
    told = flat(printed(bare))
    assert told.startswith("B0002D0CEO A2XYZ7Q4JW1M already has this item")
    assert "There is no candidate left to compare it with." in told
    assert "There is no text about this item." in told


def test_the_measures_are_explained_once() -> None:
    told = flat(printed(*example.result()["explanations"]))
    assert told.count("contribution: the word's own term in the score") == 1
    assert told.count("Neither is exactly the change") == 1


def test_data_cannot_steer_the_terminal() -> None:
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
    told = printed(explanation, width=200)
    for steering in ("\x1b", "\x07", "\x08", "\x9b", "\N{RIGHT-TO-LEFT OVERRIDE}"):
        assert steering not in told
    assert "[bold]good[/bold] :smile:" in told


def test_a_span_that_does_not_fit_stops_before_the_first_line() -> None:
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
