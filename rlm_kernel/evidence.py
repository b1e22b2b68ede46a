"""Quotes that a model gives with its answer, held against the texts they are said to be cut from.

Invariant: a quote is `Quote.verified` only where exactly its characters stand side by side in one text of
the context. All else is marked, with the reason.

The search takes a text as pieces, and a piece in windows, by offsets: a text in memory is never copied, one
in a file is never there as a whole. `Search.steps` yields between windows, so that an event loop stays free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Protocol

__all__ = ["MAX_QUOTES", "MAX_QUOTE_CHARS", "Passage", "Quote", "Search", "from_json"]

MAX_QUOTES = 100
MAX_QUOTE_CHARS = 10_000
MIN_QUOTE_CHARS = 8

NOT_FOUND = "not in the context"
LOOSE = "stands there with other white space"
EMPTY = "empty"
SHORT = f"too short to be evidence: fewer than {MIN_QUOTE_CHARS} characters"
WORDLESS = "no letter and no digit in it"
LONG = f"too long: more than {MAX_QUOTE_CHARS:,} characters"

_WINDOW = 4 * 1024 * 1024
_TEXT_COST = 500  # characters that are searched in the time which a further text takes
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote, and where it stands.

    ``verified`` is true only if ``text`` is an exact span of the context; else ``reason`` says why not, and a
    place, if there is one, is where it stands almost. ``context`` is the variable's name, ``where`` the way
    to the text in it, such as ``["a.pdf"]``; ``path`` the file it was read from. ``start`` and ``end`` are
    characters of that text, from 0. ``page`` and ``cell`` count from 1, and so does ``line``: within the page
    or the cell (behind the line that heads it) if there is one, else within the text. If the quote stands in
    several places, this is the first.
    """

    text: str
    verified: bool = False
    reason: str = ""
    context: str | None = None
    where: str = ""
    path: str | None = None
    line: int | None = None
    start: int | None = None
    end: int | None = None
    page: int | None = None
    cell: int | None = None

    @property
    def place(self) -> str:
        """Where it stands, in a few words: ``a.pdf, page 2, line 40``; empty if nowhere."""
        if self.line is None:
            return ""
        named = self.path or f"{self.context}{self.where}"
        parts = (("page", self.page), ("cell", self.cell), ("line", self.line))
        return ", ".join([named, *(f"{word} {number:,}" for word, number in parts if number is not None)])

    def to_json(self) -> dict[str, Any]:
        """Return the quote as plain JSON values."""
        return asdict(self)


def from_json(data: Mapping[str, Any]) -> Quote:
    """Return the quote that `Quote.to_json` made ``data`` of; other keys are passed over."""
    names = Quote.__dataclass_fields__
    return Quote(**{name: value for name, value in data.items() if name in names})


class Part(Protocol):
    """A page or cell of a document; see `rlm_kernel.documents.base.Place`."""

    @property
    def kind(self) -> str:
        """``page`` or ``cell``."""
        ...

    @property
    def number(self) -> int:
        """Counts from 1."""
        ...

    @property
    def start(self) -> int:
        """The character of the text with which it begins; in a cell, that of the line that heads it."""
        ...


@dataclass(frozen=True, slots=True)
class Passage:
    """One text of a context, as consecutive ``pieces``; ``part_at`` finds the page or cell of an offset.

    ``pieces`` is called for each walk through it. ``context``, ``where`` and ``path`` are those of `Quote`.
    """

    context: str
    pieces: Callable[[], Iterable[str]]
    where: str = ""
    path: str | None = None
    part_at: Callable[[int], Part | None] | None = None


class Search:
    """Looks for ``quotes`` in the passages that ``source`` yields, anew for each walk through them.

    White space around a quote is taken off; quotes that are the same count once; those past `MAX_QUOTES` are
    left out and counted in ``left_out``.
    """

    def __init__(self, quotes: Iterable[str], source: Callable[[], Iterable[Passage]]) -> None:
        texts = list(dict.fromkeys(each[: 2 * MAX_QUOTE_CHARS].strip() for each in quotes))
        self.left_out = max(0, len(texts) - MAX_QUOTES)
        self._quotes = [_judged(text) for text in texts[:MAX_QUOTES]]
        self._source = source

    @property
    def quotes(self) -> tuple[Quote, ...]:
        """What was found; final once `steps` has come to its end."""
        return tuple(self._quotes)

    def run(self) -> tuple[Quote, ...]:
        """Search to the end and return `quotes`."""
        for _ in self.steps():
            pass
        return self.quotes

    def steps(self) -> Iterator[None]:
        """Search, yielding at least once every few million characters."""
        yield from self._walk(_exact_spans, exact=True)
        yield from self._walk(_loose_spans, exact=False)

    def _walk(self, spans_in: _SpansIn, *, exact: bool) -> Iterator[None]:
        """Look for what is not found yet."""
        open_ = {i: quote.text for i, quote in enumerate(self._quotes) if quote.reason == NOT_FOUND}
        if not open_:
            return
        overlap = 2 * max(map(len, open_.values()))
        searched = 0
        for passage in self._source():
            for window in _windows(passage.pieces(), overlap):
                for number, span in spans_in(window, open_):
                    placed = _placed(self._quotes[number], passage, window, span, exact=exact)
                    self._quotes[number] = placed
                    del open_[number]
                if not open_:
                    return
                searched += window.end - window.begin + _TEXT_COST
                if searched >= _WINDOW:
                    searched = 0
                    yield


@dataclass(frozen=True, slots=True)
class _Window:
    """Characters ``begin`` to ``end`` of ``text``, which starts at ``offset`` of its passage.

    ``newlines`` of the passage stand before ``text``.
    """

    text: str
    begin: int
    end: int
    offset: int = 0
    newlines: int = 0


_Span = tuple[int, int]
_SpansIn = Callable[[_Window, Mapping[int, str]], list[tuple[int, _Span]]]


def _exact_spans(window: _Window, quotes: Mapping[int, str]) -> list[tuple[int, _Span]]:
    """Return (number, span in the window's text) of the quotes that stand in ``window``."""
    found = ((number, window.text.find(each, window.begin, window.end)) for number, each in quotes.items())
    return [(number, (at, at + len(quotes[number]))) for number, at in found if at >= 0]


def _loose_spans(window: _Window, quotes: Mapping[int, str]) -> list[tuple[int, _Span]]:
    """Return the same for quotes whose white space is another there, in linear time whatever the texts."""
    words = window.text[window.begin : window.end].split()
    squeezed = " ".join(words)
    found = []
    for number, quote in quotes.items():
        wanted = " ".join(quote.split())
        at = squeezed.find(wanted)
        if at >= 0:
            start = _unsqueezed(window, squeezed, at)
            found.append((number, (start, _unsqueezed(window, squeezed, at + len(wanted) - 1) + 1)))
    return found


def _unsqueezed(window: _Window, squeezed: str, at: int) -> int:
    """Return where in the window's text the character at ``at`` of ``squeezed``, no space, stands."""
    word = next(islice(_WORD.finditer(window.text, window.begin), squeezed.count(" ", 0, at), None))
    return word.start() + at - (squeezed.rfind(" ", 0, at) + 1)


def _judged(text: str) -> Quote:
    """Return the quote with the reason that it has before any search."""
    reason = NOT_FOUND
    if not text:
        reason = EMPTY
    elif len(text) > MAX_QUOTE_CHARS:
        text, reason = text[:MAX_QUOTE_CHARS], LONG
    elif len(text) < MIN_QUOTE_CHARS:
        reason = SHORT
    elif not any(map(str.isalnum, text)):
        reason = WORDLESS
    return Quote(text, reason=reason)


def _windows(pieces: Iterable[str], overlap: int) -> Iterator[_Window]:
    """Yield windows of which each span of ``overlap`` + 1 characters lies within one."""
    offset = newlines = 0
    tail = ""
    for piece in pieces:
        text = tail + piece if tail else piece
        for begin in range(0, len(text), _WINDOW):
            yield _Window(text, begin, min(len(text), begin + _WINDOW + overlap), offset, newlines)
        kept = max(0, len(text) - overlap)
        tail = text[kept:]
        newlines += text.count("\n", 0, kept)
        offset += kept


def _placed(quote: Quote, passage: Passage, window: _Window, span: Sequence[int], *, exact: bool) -> Quote:
    start, end = (window.offset + each for each in span)
    line = 1 + window.newlines + window.text.count("\n", 0, span[0])
    part = passage.part_at(start) if passage.part_at is not None else None
    if part is not None and part.start >= window.offset:
        newlines = window.text.count("\n", part.start - window.offset, span[0])
        line = 1 + newlines if part.kind == "page" else max(1, newlines)
    return replace(
        quote,
        verified=exact,
        reason="" if exact else LOOSE,
        context=passage.context,
        where=passage.where,
        path=passage.path,
        line=line,
        start=start,
        end=end,
        page=part.number if part is not None and part.kind == "page" else None,
        cell=part.number if part is not None and part.kind == "cell" else None,
    )
