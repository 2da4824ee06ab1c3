"""HTML of texts and images from data: escaping, and the policy of pages."""

import re
from collections.abc import Iterable
from html import escape
from typing import Final
from urllib.parse import urlsplit

from llmdirect.common.types import Json

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_ADDRESS: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_ADDRESS: Final = 2048
IMAGE_SOURCES: Final = "http: https:"
"""Sources of images in the policy of a page that shows some."""


def safe(value: object) -> str:
    """Data as HTML, in text and in attributes; characters that HTML cannot hold become U+FFFD."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def is_web_address(address: str | None) -> bool:
    """Whether an address is that of a web server, over http or https: no script, file or data."""
    if not address or len(address) > _MAX_ADDRESS or _NO_ADDRESS.search(address):
        return False
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # brackets that enclose no IPv6 address
        return False


def item_image(details: Json, title: str) -> str:
    """Image of an item, which the browser of the reader loads when it comes into view; empty without one.

    Parameters
    ----------
    details
        What the file of items says: "image", an address, is shown if it `is_web_address`.
    title
        Title of the item, shown in place of the image where it does not load.
    """
    address = details.get("image")
    if not is_web_address(address):
        return ""
    return (
        f'<img class="product" src="{safe(address)}" alt="{safe(title)}" width="112" height="112" '
        'loading="lazy" decoding="async" referrerpolicy="no-referrer">'
    )


def item_price(details: Json) -> str:
    """Price of an item, before other facts; empty without one."""
    price = details.get("price")
    return f"price <bdi>{safe(price)}</bdi> · " if price else ""


def policy(explanations: Iterable[Json]) -> str:
    """Element with the content security policy of a file: no requests but for images of items."""
    has_images = any(is_web_address(entry.get("details", {}).get("image")) for entry in explanations)
    images = f" img-src {IMAGE_SOURCES};" if has_images else ""
    return (
        '<meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'unsafe-inline';{images} base-uri 'none'; "
        "form-action 'none'\">\n"
    )
