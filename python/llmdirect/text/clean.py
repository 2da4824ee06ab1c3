"""Cleaning of texts: HTML entities and tags, Unicode form, invisible and control characters."""

import html
import re
import unicodedata
from html.entities import html5
from typing import Final

import polars as pl

_MAX_ROUNDS: Final = 8
"""Rounds of a text whose tags and entities are nested in entities; nobody writes deeper ones."""

# Fixed patterns in place of `html.parser`: it takes the `<y>` of "x <y> z" and the rest of a text after "<b"
# for tags, and what it makes of broken ones differs between releases of Python.
_ESCAPED_AMPERSAND = re.compile(r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)+")
_ENTITY = re.compile(
    r"&(?:#\d{1,8}(?!\d);?|#[xX][0-9a-fA-F]{1,6}(?![0-9a-fA-F]);?|[A-Za-z][A-Za-z0-9]{1,31};|(?:quot|amp|lt|gt|nbsp)(?![A-Za-z0-9=;]))"
)

_BREAKS: Final = (
    "address article aside blockquote body br center dd details dialog dir div dl dt fieldset figcaption"
    " figure footer form frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li link main menu meta"
    " nav noframes noscript ol optgroup option p pre search section select summary table tbody tfoot thead"
    " title tr ul"
)
"""Elements that begin and end lines."""
_BLANKS: Final = (
    "applet area audio base button canvas caption col colgroup embed iframe img input map object output param"
    " picture progress meter source svg math td template textarea th track video"
)
"""Elements with a box of their own in a line."""
_INLINE: Final = (
    "abbr acronym b basefont bdi bdo big blink cite code data datalist del dfn em font i ins kbd label mark"
    " marquee nobr q rb rp rt rtc ruby s samp slot small span strike strong sub sup time tt u var wbr"
)
"""Elements that style words or parts of them."""
_REPLACEMENT: Final = {
    **dict.fromkeys(_BREAKS.split(), "\n"),
    **dict.fromkeys(_BLANKS.split(), " "),
    **dict.fromkeys(_INLINE.split(), ""),
    **dict.fromkeys(("script", "style"), " "),
    "a": "",
}
_VALUE: Final = r"""\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=`]+)"""
_FLAG: Final = (
    "checked|disabled|selected|readonly|required|hidden|controls|autoplay|loop|muted|async|defer|nowrap|noshade"
    "|multiple|allowfullscreen|open|compact|ismap|download"
)
_TAG = re.compile(
    rf"<(/?)({'|'.join(sorted(_REPLACEMENT, key=len, reverse=True))})"
    rf"(?:\s+(?:[a-z_:@][\w:.@-]*{_VALUE}|(?:{_FLAG})(?=[\s/>])))*\s*/?>"
    r"|<!doctype\b[^<>]*>",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"<(?:!--|(script|style)\b[^<>]*>)", re.IGNORECASE)

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SEPARATOR = re.compile("[\x1c-\x1f]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ufff9-\ufffb]"
)
"""Control characters, marks of direction and of byte order, soft hyphens, blanks without width."""
_JOINERS = re.compile("([\u200c\u200d])[\u200c\u200d]+")
_JOINED: Final = "\u0600-\u06ff\u0700-\u074f\u0750-\u077f\u08a0-\u08ff\u0900-\u0dff\ufb50-\ufdff\ufe70-\ufefc"
"""Arabic and Persian, Syriac, the scripts of India: there joiners decide between letters."""
_EMOJI: Final = "\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_LOOSE_JOINER = re.compile(
    f"(?<![{_JOINED}])(?<![{_EMOJI}\ufe0f\u20e3\U000e007f])[\u200c\u200d]"  # after neither
    f"|(?<![{_EMOJI}\ufe0f\u20e3\U000e007f])\u200c(?![{_JOINED}])"  # ZWNJ at the end of a word
    f"|(?<=[{_EMOJI}\ufe0f\u20e3\U000e007f])(?:\u200c|\u200d(?![{_EMOJI}]))"  # ZWJ before no emoji
)

_SUSPECT: Final = r"&[#A-Za-z]|<[A-Za-z/!]|[^\t\n\x20-\x7e]"
"""What a text holds that may change; Python and Polars."""
_IS_SUSPECT = re.compile(_SUSPECT)


def clean_text(text: str) -> str:
    """Text as a reader would see it.

    - HTML entities become their characters, also those that were escaped twice (`&amp;quot;`).
    - Tags of HTML are removed, those of blocks become line breaks, script, style and comments go with their
      content. `a < b`, `<3` and tags that HTML lacks (`x <y> z`) stay.
    - Unicode has the composed form (NFC).
    - Control characters and characters without width go; joiners stay within emoji and in Persian and Indic
      words. Line ends are line feeds.

    Cleaning a clean text changes nothing. Lone surrogates stay.

    Examples
    --------
    >>> clean_text("It&#39;s <b>loud</b>.<br />And a &lt; b")
    "It's loud.\\nAnd a < b"
    """
    if text.isascii() and text.isprintable() and "&" not in text and "<" not in text:
        return text  # faster than the pattern
    if not _IS_SUSPECT.search(text):
        return text
    for _ in range(_MAX_ROUNDS):
        cleaned = _clean_once(text)
        if cleaned == text:
            return text
        text = cleaned
    # Without these nothing is left that could be an entity or a tag.
    return _clean_once(text.replace("&", "").replace("<", ""))


def clean_texts(texts: pl.Series) -> pl.Series:
    """Clean (`clean_text`) a series of strings; missing values stay missing."""
    rows = texts.str.contains(_SUSPECT).fill_null(value=False).arg_true()
    if not len(rows):
        return texts
    cleaned = [clean_text(text) for text in texts.gather(rows).to_list()]
    return texts.clone().scatter(rows, pl.Series(cleaned, dtype=pl.String))


def _clean_once(text: str) -> str:
    if "&" in text:
        text = _ESCAPED_AMPERSAND.sub("&", text)
        text = _ENTITY.sub(_character, text)
    text = _LINE_END.sub("\n", text)
    if "<" in text:
        text = _without_tags(text)
    if text.isascii():
        return _INVISIBLE.sub("", _SEPARATOR.sub(" ", text))
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", _SEPARATOR.sub(" ", text)))
    text = _LOOSE_JOINER.sub("", _JOINERS.sub(r"\1", text))
    return unicodedata.normalize("NFC", text)


def _character(match: re.Match[str]) -> str:
    entity = match.group()
    if entity[1] != "#" and entity.endswith(";") and entity[1:] not in html5:
        return entity  # `html.unescape` reads "&notice;" as "&not" and a rest
    return html.unescape(entity)


def _without_tags(text: str) -> str:
    plain = _TAG.sub(_replacement, _without_hidden(text))
    if plain == text:
        return text
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]*\n[ \t]*", "\n", plain)).strip()


def _replacement(match: re.Match[str]) -> str:
    name = match.group(2)
    if name is None:
        return ""
    if name in "aA":
        # Links are often set without blanks around them.
        text, (start, end) = match.string, match.span()
        return " " if start and text[start - 1].isalnum() and text[end : end + 1].isalnum() else ""
    return _REPLACEMENT[name.lower()]


def _without_hidden(text: str) -> str:
    """Text without comments, scripts and styles; those that do not end stay."""
    pieces, end, unclosed = [], 0, set()
    for match in _HIDDEN.finditer(text):
        closing = f"</{match[1].lower()}" if match[1] else "-->"
        if match.start() < end or closing in unclosed:
            continue
        found = re.compile(re.escape(closing) + (r"\s*>" if match[1] else ""), re.IGNORECASE).search(
            text, match.end()
        )
        if found is None:
            unclosed.add(closing)  # nor do later ones
            continue
        pieces += [text[end : match.start()], " " if match[1] else ""]
        end = found.end()
    return "".join([*pieces, text[end:]])
