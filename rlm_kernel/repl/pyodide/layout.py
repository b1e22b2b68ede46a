"""How CPython keeps the characters of a text: with 1, 2 or 4 bytes each, whatever the widest of them needs.

A large text travels to the sandbox like that, and is written into the memory of a `str` made there beforehand
(`inside.agent.Agent.hold`). So it is there once; decoding it over there would take it twice, in a WebAssembly
memory that never shrinks. The layouts go by the names of their codecs (PEP 393 has the layout itself).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from contextlib import suppress

__all__ = ["LAYOUTS", "in_layout", "layout"]

LAYOUTS = {"ascii": 1, "latin-1": 1, "utf-16-le": 2, "utf-32-le": 4}
"""Bytes of a character, by layout; the narrowest first."""

_ORDER = tuple(LAYOUTS)


def layout(pieces: Iterable[bytes]) -> tuple[str, int]:
    """Return the layout of the text that ``pieces`` of UTF-8 hold, and its size in bytes."""
    widest, chars = 0, 0
    for text in _decoded(pieces):
        chars += len(text)
        widest = max(widest, _ORDER.index(_layout_of(text)))
    return _ORDER[widest], chars * LAYOUTS[_ORDER[widest]]


def in_layout(name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same text in a layout."""
    for text in _decoded(pieces):
        yield text.encode(name, "surrogatepass")


def _decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def _layout_of(text: str) -> str:
    if text.isascii():
        return "ascii"
    # Encoders are many times faster than `max`.
    with suppress(UnicodeEncodeError):
        text.encode("latin-1")
        return "latin-1"
    beyond = len(text.encode("utf-16-le", "surrogatepass")) > 2 * len(text)
    return "utf-32-le" if beyond else "utf-16-le"
