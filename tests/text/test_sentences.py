"""Sentences of several scripts cover their text."""

import pytest

from llmdirect.text.sentences import sentence_spans


@pytest.mark.parametrize(
    "sentences",
    [
        ["Warm, at 3.5 mm. ", "it is ok!! ", "\u201cNice.\u201d ", "Really?"],
        ["One line\n", "another."],
        ["音色很亮。", "「很好\uff01」", "真的\uff1f\uff01", "推荐"],
        ["音がいい。\n", "長さは3\uff0e5だ\uff0e", "弦"],
        ["यह अच्छा है। ", "वह नहीं॥", "है"],
        ["هل هو جيد؟ ", "نعم. ", "اچھا ہے\u06d4", "جی"],
        ["Լավ է\u0589 ", "Այո"],
        ["ကောင်းသည်။ ", "ဟုတ်"],
        [],
    ],
)
def test_sentences_end_at_the_full_stops_of_their_script(sentences: list[str]) -> None:
    text = "".join(sentences)
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


@pytest.mark.parametrize(
    "text", ["word " * 100, "音色非常好\uff0c" * 80, "音色非常好" * 80, "x" * 700, "กีตาร์ตัวนี้เสียงดี" * 20]
)
def test_long_sentences_are_divided_between_words(text: str) -> None:
    spans = sentence_spans(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(0 < end - start <= 240 for start, end in spans)
    assert len(spans) <= len(text) // 200 + 1
    if text[0] == "音":
        assert all(text[end - 1] in "\uff0c好" or text[end - 2 : end] in ("音色", "非常") for _, end in spans)
