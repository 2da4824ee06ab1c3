"""Cleaning of texts: by hand, idempotent on any text, and the same for a series as for its texts."""

import time
import unicodedata

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmdirect.text.clean import clean_text, clean_texts
from llmdirect.text.words import counted_words

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
CASES = {
    # Entities, also escaped twice, without a semicolon and of bytes that Windows has there.
    "it&#39;s &quot;nice&quot; &amp; ok, &#34;wow&#34; &#x1F600;": 'it\'s "nice" & ok, "wow" \U0001f600',
    "&amp;quot;x&amp;amp;quot; &amp;#38;lt;3": '"x" <3',
    "&#146;s &nbsp;&lt 5 &#39": "\u2019s \u00a0< 5 '",
    "AT&T R&B &notice; &x; a&copy=1 &#12345678901;": "AT&T R&B &notice; &x; a&copy=1 &#12345678901;",
    # Tags of blocks are line breaks, those of words vanish, boxes are blanks.
    "strings<br />bright<br/><br>warm<BR>it": "strings\nbright\n\nwarm\nit",
    "<p>one</p>\n<p class='x'>two</p>": "one\n\ntwo",
    "<ul><li>one</li><li>two</li></ul>": "one\n\ntwo",
    "H<sub>2</sub>O <b>bold</b>, <i>it</i>": "H2O bold, it",
    'the<a href="/dp/1?a=b&amp;c">Strap</a>and <a name=x>it</a>.': "the Strap and it.",
    "one<img src=a.png>two<td>three": "one two three",
    "a<!-- no --> b <script>if (a<b) x();</script>c<style>p{}</style>": "a b  c",
    "&lt;br&gt;shown as text&lt;br&gt;": "shown as text",
    "<!-- not closed, <script>nor this": "<!-- not closed,  nor this",
    # No tags of HTML.
    "a < b and c > d": "a < b and c > d",
    "<3 x <y> z <grin> a<b <b and c> [[VIDEOID:ab12]]": "<3 x <y> z <grin> a<b <b and c> [[VIDEOID:ab12]]",
    # Form, joiners, characters without width.
    "cafe\u0301 \u1112\u1161\u11ab": "caf\u00e9 \ud55c",
    "soft\u00adhy\u200bph\ufeffen\u2060 \u202eback\u202c e\u200b\u0301": "softhyphen back \u00e9",
    f"{FAMILY} \u2764\ufe0f\u200d\U0001f525": f"{FAMILY} \u2764\ufe0f\u200d\U0001f525",
    "a\u200db \U0001f600\u200d x\u200c": "ab \U0001f600 x",
    "\u0645\u06cc\u200c\u062e\u0648 \u0645\u200c.": "\u0645\u06cc\u200c\u062e\u0648 \u0645.",
    "\u0915\u094d\u200d\u0937 \u0d28\u0d4d\u200d": "\u0915\u094d\u200d\u0937 \u0d28\u0d4d\u200d",
    # Control characters and line ends.
    "mark\x00zero\x7f\x9b a\tb\r\nc\rd\x0be\u2028f\x1fg": "markzero a\tb\nc\nd\ne\nf g",
    "half \ud83d &amp; \udc00": "half \ud83d & \udc00",
    "nothing to do: 100% \u2013 \u201cok\u201d": "nothing to do: 100% \u2013 \u201cok\u201d",
    "": "",
}


@pytest.mark.parametrize(("text", "cleaned"), CASES.items(), ids=range(len(CASES)))
def test_a_text_as_its_reader_sees_it(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned
    assert clean_text(cleaned) == cleaned


PIECES = (
    *"&<>;#/'\" \n\r\tab3x=!-",
    *("&amp;", "amp;", "&#38;", "&lt;", "lt;", "&#x3c;", "&nGt;", "&#3"),
    *("<br>", "<b", "</p>", "<a href=", "<!--", "-->", "<script>", "</script>"),
    *"e\u0301\u0338\u0915\u094d\u200b\u200c\u200d\U0001f468\ufe0f\u2adc\u037e\x00\x85\u1100\u1161",
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)))
@example("&#3" * 40 + "&#56;;" + ";" * 40)
@example("&am<b></b>p;" * 3)
@example("&amp\u037e")
@example("\u2adc\u200d\U0001f468")
def test_cleaning_a_clean_text_changes_nothing(text: str) -> None:
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)


def test_a_series_is_cleaned_as_its_texts() -> None:
    texts = [*(text for text in CASES if text.isascii() or text.isprintable()), None, "plain"]
    series = pl.Series("text", texts, dtype=pl.String)
    cleaned = clean_texts(series)
    assert cleaned.to_list() == [None if text is None else clean_text(text) for text in texts]
    assert cleaned.name == "text"
    assert series.to_list() == texts
    assert clean_texts(pl.Series([], dtype=pl.String)).to_list() == []
    assert clean_texts(pl.Series([None, "ok"])).to_list() == [None, "ok"]


@pytest.mark.parametrize(
    "piece", ["&", "<", "&amp;", "&#3", "<a ", "<!--", "<script>", "<b x=1 ", "</", "<a href='", "\u200d"]
)
def test_long_texts_take_no_more_than_their_length(piece: str) -> None:
    start = time.perf_counter()
    clean_text(piece * 20_000)
    assert time.perf_counter() - start < 5


def test_markup_gives_no_words() -> None:
    text = "strings<br />bright it&#39;s &quot;nice&quot; &amp; ok<br /><br />I said &#34;wow&#34;"
    assert counted_words(clean_text(text))[0] == ["strings", "bright", "it's", "nice", "ok", "said", "wow"]
