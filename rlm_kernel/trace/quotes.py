"""Quotes as lines for people: what was verified and what was not can't be taken for one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..evidence import Quote
from .progress import one_line

__all__ = ["quote_lines"]

_CHARS = 120


def quote_lines(evidence: Sequence[Quote]) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is verified, line) for each quote, after a line that counts them."""
    if not evidence:
        return
    verified = sum(quote.verified for quote in evidence)
    yield verified == len(evidence), f"Quotes: {verified:,} of {len(evidence):,} verified"
    for quote in evidence:
        text = f'"{one_line(quote.text, _CHARS)}"'
        if quote.verified:
            yield True, f"  verified      {one_line(quote.place, _CHARS)}: {text}"
        else:
            near = f" ({one_line(quote.place, _CHARS)})" if quote.place else ""
            yield False, f"  NOT VERIFIED  {one_line(quote.reason)}{near}: {text}"
