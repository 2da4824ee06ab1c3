"""Sentence boundaries."""

import re
from itertools import pairwise

from llmdirect.text.words import word_spans

_CLOSING = "[\"')\\]\u2019\u201d\u300d\u300f\uff09\u3011\u300b\u00bb]*"
_SENTENCE_END = re.compile(
    # Full stops of Latin, Greek and Cyrillic also end abbreviations and stand in numbers: a blank follows.
    rf"[.!?\u2026]+{_CLOSING}\s+"
    # Chinese, Japanese; Arabic, Urdu; Hindi (danda); Armenian; Ethiopic; Burmese; Khmer.
    r"|(?:[\u3002\uff01\uff1f\uff61\u061f\u06d4\u0964\u0965\u0589\u1362\u1367\u104b\u17d4\u17d5]|\uff0e(?!\d))+"
    rf"{_CLOSING}\s*"
    r"|\s*\n\s*"
)
"""Not UAX 29, which ends no sentence before a small letter, as reviews often write."""
_PAUSE = re.compile(r"[\s\uff0c\u3001\uff1b\u060c]")
"""Where long sentences may be divided."""
_MAX_LENGTH = 240  # characters

Span = tuple[int, int]
"""Half-open range of characters: start, stop."""


def sentence_spans(text: str) -> list[Span]:
    """Spans of the sentences of a text, in order and without gaps.

    Sentences of more than 240 characters are divided at spaces and commas, else between words.
    """
    borders = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    spans = []
    for start, end in pairwise(borders):
        while end - start > _MAX_LENGTH:
            cut = start + _cut(text[start : start + _MAX_LENGTH])
            spans.append((start, cut))
            start = cut
        if end > start:
            spans.append((start, end))
    return spans


def _cut(part: str) -> int:
    """Length of the first piece of a sentence whose first characters are `part`."""
    pauses = [match.end() for match in _PAUSE.finditer(part)]
    if pauses:
        return pauses[-1]
    words = word_spans(part)
    return int(words[-1, 0]) or len(part)
