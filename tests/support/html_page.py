"""Parsed HTML page: elements, attributes and texts."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "img"}


class Page(HTMLParser):
    """Elements and texts in order, and texts of passage paragraphs; tags must match."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[list[str], str]] = []
        self.paragraphs: list[str] = []
        self.in_passage = False
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.elements.append((tag, named))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "p":
            self.in_passage = "text" in named.get("class", "").split()
            if self.in_passage:
                self.paragraphs.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((list(self.stack), data))
        if "p" in self.stack and self.in_passage:
            self.paragraphs[-1] += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [
            attributes[name] for element, attributes in self.elements if element == tag and name in attributes
        ]

    def text(self) -> str:
        """Text without the style sheet and direction isolates."""
        content = "".join(text for stack, text in self.texts if "style" not in stack)
        return re.sub("[\u2068\u2069]", "", content)
