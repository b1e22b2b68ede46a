"""Texts as slices of texts that are known already: what keeps a trajectory linear in *new* text.

Most of what a run sends to models is cut out of its context. `Slices.split` finds those parts, so that
a file can hold (hash, start, end) in their place. Its invariant: the segments, each slice replaced by
the characters it names, join to exactly the text that was split.

The known texts are sampled: a dict holds the hash of the `_GRAM` characters that stand at every
``stride`` characters of them (about `_ENTRIES` entries whatever the size of a context, 10 MB), and no
text is copied. A text is searched for those in windows of ``stride`` positions; past the first thousand,
the gap between windows grows to a quarter of the text passed without a match. So a text with no match
costs ``stride * log(length)`` look-ups, and gaps hide at most a quarter of the new text before them.
In a context past 8 million characters, a slice shorter than ``total / _ENTRIES`` can be missed, unless
it stands where the previous one ended, as the chunks of a partitioned context do.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from ..events import Source

__all__ = ["MIN_CHARS", "KnownText", "Segment", "Slice", "Slices", "text_sha256"]

MIN_CHARS = 200
"""A shorter slice is not worth its hash and two numbers."""

_GRAM = 64
_STRIDE = 128  # _STRIDE + _GRAM < MIN_CHARS: no slice worth storing lies between two samples
_ENTRIES = 1 << 16
_MAX_TEXTS = 250_000  # of one context; listing more would hold up the event loop
_MAX_ADDED = 1 << 23  # characters kept alive through `Slices.add`
_CLOSE = 1024  # positions searched without gaps: instructions that stand before a chunk are shorter
_REACH = 4096  # how far the expected continuation is looked for
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Slice:
    """The characters ``start`` to ``end`` of the text whose UTF-8 form (surrogatepass) has ``sha256``."""

    sha256: str
    start: int
    end: int


Segment = str | Slice


class KnownText:
    """A text that slices can refer to: ``where`` in the context named ``context``, both empty if added."""

    __slots__ = ("_sha256", "context", "text", "where")

    def __init__(self, text: str, *, context: str = "", where: str = "", sha256: str = "") -> None:
        self.text = text
        self.context = context
        self.where = where
        self._sha256 = sha256

    @property
    def sha256(self) -> str:
        """The text's hash, computed when first asked for."""
        if not self._sha256:
            self._sha256 = text_sha256(self.text)
        return self._sha256


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 form as hex, lone surrogates included, without a whole copy."""
    digest = hashlib.sha256()
    for start in range(0, len(text), _PIECE):
        digest.update(text[start : start + _PIECE].encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


class Slices:
    """Finds slices of the texts in ``sources``, and of texts added later.

    The index is built by the first long text, from the first `_MAX_TEXTS` texts of each source.
    """

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self._sources = tuple(sources)
        self._texts: list[KnownText] = []
        self._bases: list[int] = []
        self._size = 0
        self._index: dict[int, int] = {}
        self._stride = 0
        self._added = 0
        self._expected: tuple[tuple[int, int], ...] = ()
        self._known: dict[str, KnownText] = {}

    def known(self, sha256: str) -> KnownText:
        """Return the text that a `Slice` from `split` refers to."""
        return self._known[sha256]

    def add(self, text: str, sha256: str) -> None:
        """Let later texts be slices of ``text``, up to 8 million characters of such texts in all."""
        if len(text) < MIN_CHARS or self._added + len(text) > _MAX_ADDED:
            return
        self._build()
        self._added += len(text)
        self._append(KnownText(text, sha256=sha256))

    def split(self, text: str) -> list[Segment]:
        """Return ``text`` as literal parts and slices, in order, none of them empty."""
        if len(text) < MIN_CHARS:
            return [text] if text else []
        self._build()
        segments: list[Segment] = []
        done = 0
        while match := self._next_match(text, done):
            start, end, number, offset = match
            if start > done:
                segments.append(text[done:start])
            known = self._texts[number]
            self._known[known.sha256] = known
            segments.append(Slice(known.sha256, offset, offset + end - start))
            self._expected = ((number, offset + end - start), (number + 1, 0))
            done = end
        if done < len(text):
            segments.append(text[done:])
        return segments

    def _build(self) -> None:
        if self._stride:
            return
        texts = [
            KnownText(text, context=source.name, where=where)
            for source in self._sources
            for where, text in islice(source.texts(), _MAX_TEXTS)
            if len(text) >= MIN_CHARS
        ]
        self._sources = ()
        self._stride = max(_STRIDE, sum(len(each.text) for each in texts) // _ENTRIES)
        self._expected = ((0, 0),)
        unsampled = self._stride
        for known in texts:
            # Of many texts shorter than the stride, only one in every `stride` characters is sampled.
            unsampled += len(known.text)
            self._append(known, sample=unsampled >= self._stride)
            if unsampled >= self._stride:
                unsampled = 0

    def _append(self, known: KnownText, *, sample: bool = True) -> None:
        text, base = known.text, self._size
        self._texts.append(known)
        self._bases.append(base)
        self._size += len(text)
        if sample:
            index = self._index
            for offset in range(0, len(text) - _GRAM + 1, self._stride):
                index.setdefault(hash(text[offset : offset + _GRAM]), base + offset)

    def _next_match(self, text: str, done: int) -> tuple[int, int, int, int] | None:
        """Return (start, end, number of the known text, offset in it) of a match at or after ``done``."""
        for number, offset in self._expected:
            if number < len(self._texts):
                gram = self._texts[number].text[offset : offset + _GRAM]
                at = text.find(gram, done, done + _REACH) if len(gram) == _GRAM else -1
                if at >= 0 and (match := self._extend(text, at, done, number, offset)):
                    return match
        index = self._index
        at, last = done, len(text) - _GRAM
        while at <= last and index:
            stop = min(at + self._stride, last + 1)
            for here in range(at, stop):
                place = index.get(hash(text[here : here + _GRAM]))
                if place is not None:
                    number = bisect.bisect_right(self._bases, place) - 1
                    if match := self._extend(text, here, done, number, place - self._bases[number]):
                        return match
            at = stop + max(0, stop - done - _CLOSE) // 4
        return None

    def _extend(
        self, text: str, at: int, done: int, number: int, offset: int
    ) -> tuple[int, int, int, int] | None:
        known = self._texts[number].text
        right = _common_after(text, at, known, offset)
        if not right:
            return None  # another text with the same hash
        left = _common_before(text, at, known, offset, at - done)
        if left + right < MIN_CHARS:
            return None
        return at - left, at + right, number, offset - left


def _common_after(a: str, i: int, b: str, j: int) -> int:
    """Return the greatest n with ``a[i:i+n] == b[j:j+n]``."""
    limit = min(len(a) - i, len(b) - j)
    n, step = 0, _GRAM
    while n < limit and a[i + n : i + min(n + step, limit)] == b[j + n : j + min(n + step, limit)]:
        n, step = min(n + step, limit), min(step * 2, _PIECE)
    low, high = n, min(n + step, limit)
    while low < high:
        middle = (low + high + 1) // 2
        if a[i + low : i + middle] == b[j + low : j + middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_before(a: str, i: int, b: str, j: int, limit: int) -> int:
    """Return the greatest n, ``limit`` at most, with ``a[i-n:i] == b[j-n:j]``."""
    limit = min(limit, j)
    n, step = 0, _GRAM
    while n < limit and a[i - min(n + step, limit) : i - n] == b[j - min(n + step, limit) : j - n]:
        n, step = min(n + step, limit), min(step * 2, _PIECE)
    low, high = n, min(n + step, limit)
    while low < high:
        middle = (low + high + 1) // 2
        if a[i - middle : i - low] == b[j - middle : j - low]:
            low = middle
        else:
            high = middle - 1
    return low
