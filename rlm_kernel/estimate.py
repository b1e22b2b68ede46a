"""What one direct call over a whole context would take: an estimate by size, made before anything is sent.

No tokenizer is at hand for most models, so tokens are estimated: one for 4 ASCII characters, as elsewhere in
the package, and one for 3 bytes of UTF-8 beyond ASCII, since other scripts are cut finer. English prose
comes out some percent high, digits and dense code can be a third low. Every sentence says "about".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

__all__ = ["REPLY_TOKENS", "Estimate", "text_tokens", "value_tokens"]

REPLY_TOKENS = 1000
"""What the reply of a direct call is taken to need; reasoning models write more."""

_ASCII_PER_TOKEN, _BYTES_PER_TOKEN = 4, 3
_PUNCTUATION = 0.5  # tokens between two elements
# Beyond these a sample stands for the rest.
_CHARS, _PIECE = 8_000_000, 50_000
_ELEMENTS = 20_000
_DEPTH = 8
_ROWS = 50


@dataclass(frozen=True, slots=True)
class Estimate:
    """One direct call with question and contexts in its prompt, as estimated.

    ``tokens`` is the size of the prompt, None where a context has no text form; ``window`` what the model
    takes in all, None if that is not known; ``cost_usd`` the price of such a call with a reply of
    `REPLY_TOKENS`, None if it is not known or the call would not fit. ``model`` is whom it is about.
    """

    model: str
    tokens: int | None = None
    window: int | None = None
    cost_usd: Decimal | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the model's window takes it, None if that is not known."""
        if self.tokens is None or self.window is None:
            return None
        return self.tokens + REPLY_TOKENS <= self.window

    def __str__(self) -> str:
        if self.tokens is None:
            return "size in tokens not known: a context is no text"
        return f"about {self.tokens:,} tokens; {self.one_call}"

    @property
    def one_call(self) -> str:
        """What one direct call would cost, or why it could not be made or priced, in a few words."""
        if self.tokens is None:
            return "one direct call is not possible"
        if self.fits is False:
            return f"one direct call would not fit: the window of {self.model} has {self.window:,} tokens"
        fits = "" if self.fits else ", if it fits (window not known)"
        if self.cost_usd is None:
            return f"one direct call{fits}: price of {self.model} not known"
        return f"one direct call{fits}: about ${self.cost_usd:.4f}"

    def to_json(self) -> Mapping[str, Any]:
        """Return the estimate as plain JSON values."""
        return {
            "tokens": self.tokens,
            "window": self.window,
            "fits": self.fits,
            "cost_usd": None if self.cost_usd is None else float(self.cost_usd),
        }


def text_tokens(text: str) -> float:
    """Return about how many tokens ``text`` has."""
    if text.isascii():
        return len(text) / _ASCII_PER_TOKEN
    if len(text) <= _CHARS:
        pieces, part = [text], 1.0
    else:
        step = len(text) * _PIECE // _CHARS
        pieces = [text[start : start + _PIECE] for start in range(0, len(text), step)]
        part = sum(map(len, pieces)) / len(text)
    ascii_count = sum(len(piece.encode("ascii", "ignore")) for piece in pieces)
    others = sum(len(piece.encode("utf-8", "surrogatepass")) for piece in pieces) - ascii_count
    return (ascii_count / _ASCII_PER_TOKEN + others / _BYTES_PER_TOKEN) / part


def value_tokens(value: Any) -> float | None:
    """Return about how many tokens ``value`` would have written out, None where it has no text form.

    Texts and numbers in lists and dicts count as in JSON, frames as in CSV.
    """
    return _tokens(value, _DEPTH)


def _tokens(value: Any, depth: int) -> float | None:
    if isinstance(value, str):
        return text_tokens(value)
    if value is None or isinstance(value, bool | int | float):
        return len(repr(value)) / _ASCII_PER_TOKEN
    if isinstance(value, dict):
        keys = _sum(value, len(value), depth)
        values = _sum(value.values(), len(value), depth)
        return None if keys is None or values is None else keys + values
    if isinstance(value, list | tuple | set | frozenset):
        return _sum(value, len(value), depth)
    if hasattr(value, "to_csv") and hasattr(value, "head"):
        head = value.head(_ROWS)
        return text_tokens(head.to_csv()) * len(value) / max(1, len(head))
    return None


def _sum(values: Iterable[Any], count: int, depth: int) -> float | None:
    step = max(1, count // _ELEMENTS)
    total, seen = 0.0, 0
    for each in islice(values, 0, None, step):
        tokens = _tokens(each, depth - 1) if depth else None
        if tokens is None:
            return None
        total += tokens + _PUNCTUATION
        seen += 1
    return total * count / seen if seen else 0.0
