"""HTML by lxml: the text that a reader of the page sees, a block a line, table cells apart by tabs.

Links are not followed, entities of a DTD are not known, scripts and styles are not text.
"""

from __future__ import annotations

import re

from .base import Allowance, Document, RefusedError, library

__all__ = ["read_html"]

_DROPPED = frozenset(("script", "style", "template", "noscript", "svg", "iframe", "object"))
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt"),
        *("fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head"),
        *("header", "hr", "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary"),
        *("table", "tbody", "tfoot", "thead", "title", "tr", "ul"),
    )
)
_SPACE = re.compile(r"[ \t\n\r\f]+")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "UTF-16LE"), (b"\xfe\xff", "UTF-16BE"))


def read_html(data: bytes, allowance: Allowance) -> Document:
    """Read an HTML page.

    Raises:
        RefusedError: without text, or over a limit.
    """
    etree = library("lxml.etree", "HTML")
    clock = allowance.clock()
    encoding, data = _encoding(data)
    parser = etree.HTMLParser(
        encoding=encoding, no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
    root = etree.fromstring(data, parser)
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise RefusedError("nested too deeply")
    lines = _Lines()
    if root is not None:
        walk = etree.iterwalk(root, events=("start", "end"))
        for count, (event, element) in enumerate(walk):
            if count % 4096 == 0:
                clock.check()
                allowance.check(lines.size)
            if event == "end":
                lines.end(element.tag)
                if element is not root:
                    lines.add(element.tail)
            elif element.tag in _DROPPED:
                walk.skip_subtree()
            else:
                lines.start(element.tag)
                lines.add(element.text or (element.get("alt") if element.tag == "img" else None))
    text = lines.text()
    if not text.strip():
        raise RefusedError("holds no text")
    allowance.check(len(text))
    return Document("HTML", text)


def _encoding(data: bytes) -> tuple[str | None, bytes]:
    """Return the encoding and the bytes without their mark.

    It is None if the bytes don't tell: the parser looks for what the page says.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name, data[len(mark) :]
    try:
        data.decode()
    except UnicodeDecodeError:
        return None, data
    return "utf-8", data


class _Lines:
    """Lays out text as a browser would: white space is one space, but for ``pre``."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[str] = []
        self._last = "\n"
        self._preformatted = 0

    def start(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._break("\n")
        elif tag == "br":
            self._put("\n")
        self._preformatted += tag in {"pre", "textarea"}

    def end(self, tag: str) -> None:
        self._preformatted -= tag in {"pre", "textarea"}
        if tag in {"td", "th"}:
            self._put("\t")
        elif tag in _BLOCKS:
            self._break("\n")

    def add(self, text: str | None) -> None:
        if not text:
            return
        if not self._preformatted:
            text = _SPACE.sub(" ", text)
            if self._last in " \n\t":
                text = text.lstrip(" ")
        self._put(text)

    def text(self) -> str:
        lines = "".join(self._parts).split("\n")
        return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"

    def _break(self, mark: str) -> None:
        if self._last != "\n":
            self._put(mark)

    def _put(self, text: str) -> None:
        if text:
            self._parts.append(text)
            self._last = text[-1]
            self.size += len(text)
