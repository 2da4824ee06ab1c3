"""HTML escaping of text from reviews."""

import re
from html import escape

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def safe(value: object) -> str:
    """Data as HTML, in text and in attributes; characters that HTML cannot hold become U+FFFD."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value)))
