"""Sentence boundaries."""

import re
from itertools import pairwise

_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"')\]\u2019\u201d]*\s+|[\u3002\uff01\uff1f]+|\s*\n\s*")

_MAX_LENGTH = 240  # characters

Span = tuple[int, int]
"""Half-open range of characters: start, stop."""


def sentence_spans(text: str) -> list[Span]:
    """Spans of the sentences of a text, in order and without gaps.

    Sentences of more than 240 characters are divided at spaces.
    """
    borders = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    spans = []
    for start, end in pairwise(borders):
        while end - start > _MAX_LENGTH:
            space = text.rfind(" ", start, start + _MAX_LENGTH)
            cut = space + 1 if space >= 0 else start + _MAX_LENGTH
            spans.append((start, cut))
            start = cut
        if end > start:
            spans.append((start, end))
    return spans
