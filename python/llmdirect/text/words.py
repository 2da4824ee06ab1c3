"""Word boundaries, function words and content tokens."""

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a UTF-16 pair, which is no character and has no UTF-8."""
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]+|\s+", re.UNICODE)


def mask_combining_marks(text: str) -> str:
    """Text of the same length with a letter for each combining mark, which `re` does not count to a word."""
    if text.isascii():
        return text
    return "".join("x" if unicodedata.category(letter)[0] == "M" else letter for letter in text)


def word_spans(text: str) -> NDArray[np.int64]:
    """Spans of the words, runs of punctuation and runs of white space, which together cover the text.

    Returns
    -------
    int64 [n, 2], half-open ranges of characters.
    """
    spans = [match.span() for match in _WORD.finditer(mask_combining_marks(text))]
    return np.array(spans, np.int64).reshape(-1, 2)


def token_word_ids(spans: NDArray[np.uint32], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the word in which each token starts.

    Parameters
    ----------
    spans
        uint32 [T, 2], characters of the tokens.
    words
        int64 [n, 2], as `word_spans` returns them.

    Returns
    -------
    int64 [T], -1 for a token without characters.
    """
    word = np.searchsorted(words[:, 1], spans[:, 0], side="right")
    return np.where(spans[:, 1] > spans[:, 0], word, -1)


def content_token_mask(text: str, spans: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Mask of the tokens that start in a content word.

    Special tokens, which have no characters, punctuation and function words are masked out.

    Parameters
    ----------
    text
        Text of the tokens.
    spans
        uint32 [T, 2], characters of the tokens.

    Returns
    -------
    bool [T].
    """
    words = word_spans(text)
    is_content = [not is_function_word(text[start:end]) for start, end in words.tolist()]
    return np.array([*is_content, False])[token_word_ids(spans, words)]


_WORDS = """
a about after again against all also although am an and any anyway are as at be because been before being
below between both but by can cannot could did do does doing don down during each either else ever every few
for from further get gets got had has have having he her here hers herself him himself his how however i if
in into is it its itself just let may me might mine more most much must my myself neither no nor not now of
off on once one only or other others our ours out over own per quite rather same shall she should since so
some still such than that the their theirs them themselves then there these they thing things this those
though through thus to too under until up upon us very was we were what whatever when where whether which
while who whom whose why will with within without would yet you your yours yourself
ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he'd he'll he's i'd i'll i'm i've
isn't it'd it'll it's let's mustn't she'd she'll she's shouldn't that's there's they'd they'll they're
they've wasn't we'd we'll we're we've weren't what's who's won't wouldn't you'd you'll you're you've
"""

STOP_WORDS = frozenset(_WORDS.split())
"""English function words in lower case, with a straight apostrophe."""


def is_function_word(word: str) -> bool:
    """Whether a word is a function word, or has neither letters nor digits.

    Case and the kind of apostrophe do not matter.
    """
    plain = word.casefold().replace("\u2019", "'")
    return plain in STOP_WORDS or not any(letter.isalnum() for letter in plain)
