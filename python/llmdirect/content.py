"""Where words stand in a text, and which tokens belong to words that name something."""

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

from llmdirect.stop_words import is_function_word

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]+|\s+", re.UNICODE)


def plain_letters(text: str) -> str:
    """As long as `text`, with a letter for each combining mark, which `re` does not count to a word."""
    if text.isascii():
        return text
    return "".join("x" if unicodedata.category(letter)[0] == "M" else letter for letter in text)


def word_spans(text: str) -> NDArray[np.int64]:
    """Characters [n, 2], half-open: words, runs of punctuation, of white space; together the whole text."""
    spans = [match.span() for match in _WORD.finditer(plain_letters(text))]
    return np.array(spans, np.int64).reshape(-1, 2)


def words_of_tokens(spans: NDArray[np.uint32], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """The word in which each token [T, 2] of a text starts: int64 [T]; -1 for a token without characters."""
    owner = np.searchsorted(words[:, 1], spans[:, 0], side="right")
    return np.where(spans[:, 1] > spans[:, 0], owner, -1)


def content_tokens(text: str, spans: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """bool [T]: tokens [T, 2] that start in a word which is no function word.

    Tokens without characters (the model's special ones), punctuation and stop words are none.
    """
    words = word_spans(text)
    names = [not is_function_word(text[start:end]) for start, end in words.tolist()]
    return np.array([*names, False])[words_of_tokens(spans, words)]
