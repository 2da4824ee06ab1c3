"""Word boundaries, counted words, function words and content tokens."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a UTF-16 pair, which is no character and has no UTF-8."""


def replace_surrogates(text: str) -> str:
    """Text with a replacement character for each lone surrogate, which has no UTF-8; positions stay."""
    return text if text.isascii() else LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def word_spans(text: str) -> NDArray[np.int64]:
    """Spans of the words, runs of symbols and runs of white space, which together cover the text.

    Words are those of Unicode (UAX 29): "don't", "3.5" and a letter with its combining marks are one, a
    hyphen divides. Full stops and colons divide words of letters ("good.Then") other than abbreviations
    ("U.S.A"). Dictionaries divide scripts without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese).

    Returns
    -------
    int64 [n, 2], half-open ranges of characters.
    """
    return _core.word_spans(replace_surrogates(text))


def counted_words(text: str) -> tuple[list[str], NDArray[np.int64]]:
    """Counted words of a text and their spans.

    A counted word is a word (`word_spans`) in lower case with straight apostrophes. It has at least two
    letters or digits, or is one Han ideograph or Hangul syllable: a single letter of other scripts, also of
    Kana and Thai, is a particle or a piece of a word. Emoji are not counted.

    Returns
    -------
    words
        [n]
    spans
        int64 [n, 2], half-open ranges of characters.
    """
    return _core.counted_words(replace_surrogates(text))


def count_words(
    texts: Sequence[str],
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Counted words (`counted_words`) of texts, a CSR matrix of texts and words.

    Returns
    -------
    vocabulary
        [V] words, sorted.
    indptr
        int64 [n + 1] row pointers.
    words
        int64 [nnz] columns, ascending in each row.
    counts
        int64 [nnz] occurrences.
    """
    return _core.count_words(list(map(replace_surrogates, texts)))


def token_word_ids(spans: NDArray[np.uint32], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the word in which each token starts.

    Parameters
    ----------
    spans
        uint32 [T, 2], characters of the tokens.
    words
        int64 [n, 2], ascending, as `word_spans` and `counted_words` return them.

    Returns
    -------
    int64 [T], -1 for a token without characters or outside of the words.
    """
    starts = spans[:, 0].astype(np.int64)
    word = np.searchsorted(words[:, 1], starts, side="right")
    inside = (spans[:, 1] > starts) & (starts >= np.append(words[:, 0], np.iinfo(np.int64).max)[word])
    return np.where(inside, word, -1)


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
