"""Quotes that a cell gives with its answer, as the host takes them: a list of texts, bounded.

Whether they stand in the context is judged on the host, which does not trust this side.
"""

from __future__ import annotations

from typing import Any

__all__ = ["listed"]

MAX_QUOTES = 1000
MAX_CHARS = 20_000


def listed(quotes: Any) -> list[str]:
    """Return ``quotes`` as a list of texts: one text, or any number of texts or dicts with a ``quote``.

    Raises:
        TypeError: something in it is no text.
    """
    if quotes is None:
        return []
    if isinstance(quotes, (str, dict)):
        quotes = [quotes]
    if not isinstance(quotes, (list, tuple, set, frozenset)):
        raise TypeError(f"quotes must be a list of texts cut out of the context, not {type(quotes).__name__}")
    return [_text(each) for each in list(quotes)[:MAX_QUOTES]]


def _text(quote: Any) -> str:
    if isinstance(quote, dict):
        quote = quote.get("quote", quote.get("text"))
    if not isinstance(quote, str):
        raise TypeError(f"a quote must be a text cut out of the context, not {type(quote).__name__}")
    return quote[:MAX_CHARS]
