"""Sentence boundaries."""

import re
from itertools import pairwise

_SENTENCE = re.compile(r"[.!?\u2026]+[\"')\]\u2019\u201d]*\s+|[\u3002\uff01\uff1f]+|\s*\n\s*")

_LONGEST_SENTENCE = 240

Span = tuple[int, int]


def sentences(text: str) -> list[Span]:
    """Spans of the sentences, in order and without gaps; long ones in pieces cut at blanks."""
    borders = [0, *(match.end() for match in _SENTENCE.finditer(text)), len(text)]
    spans = []
    for start, end in pairwise(borders):
        while end - start > _LONGEST_SENTENCE:
            blank = text.rfind(" ", start, start + _LONGEST_SENTENCE)
            cut = blank + 1 if blank >= 0 else start + _LONGEST_SENTENCE
            spans.append((start, cut))
            start = cut
        if end > start:
            spans.append((start, end))
    return spans
