"""A view of a text that is too large to be a str: it stays in its file, which is read as it is asked for.

`LazyText` counts in characters, not bytes: an index of where every 64 KiB of the UTF-8 file begin leads from
one to the other. A few pieces are in memory at a time, unless ``str(view)``, or a slice of that size, asks
for the whole text.

It is honest about being a view: its type is not str, its ``repr`` says so, and what it can't do well raises
an error that says what to do.
"""

from __future__ import annotations

import os
import re
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Union

__all__ = ["USE", "LazyMatch", "LazyText"]

BLOCK_BYTES = 64 * 1024
WINDOW_CHARS = 2_000_000
MATCH_CHARS = 100_000

USE = (
    "It is no str. Slices of it are, and `len`, `in`, `.find`, `.count`, `.startswith`, `.endswith`, "
    "`.search(pattern)`, `.finditer(pattern)`, `.findall(pattern)`, `.lines()` and `.chunks(size)` work "
    "without loading it; functions of `re` and other methods of str take a slice. `str(...)` of it loads "
    "all of it."
)

# typing's form, because these lines run on Python 3.9 too.
_Pattern = Union[str, "re.Pattern[str]"]
_HINTS = {
    "splitlines": "iterate over .lines()",
    "split": "iterate over .lines() or .chunks(size) and split those",
    "readlines": "iterate over .lines()",
    "read": "take slices, or .chunks(size)",
    "replace": "do it in each of .chunks(size) or .lines()",
    "lower": "do it to each of .lines(), or search with the flag (?i)",
    "upper": "do it to each of .lines(), or search with the flag (?i)",
    "rfind": "use .find(text, start) from a place near the end, or .finditer",
    "rindex": "use .find(text, start) from a place near the end, or .finditer",
}


class LazyMatch:
    """A match in a `LazyText`, like `re.Match`, with offsets in the whole text."""

    __slots__ = ("_match", "_shift", "string")

    def __init__(self, match: re.Match[str], shift: int, string: LazyText) -> None:
        self._match = match
        self._shift = shift
        self.string = string

    def start(self, group: Any = 0) -> int:
        """Return where ``group`` begins, -1 if it took no part."""
        return self.span(group)[0]

    def end(self, group: Any = 0) -> int:
        """Return where ``group`` ends, -1 if it took no part."""
        return self.span(group)[1]

    def span(self, group: Any = 0) -> tuple[int, int]:
        """Return where ``group`` begins and ends, (-1, -1) if it took no part."""
        start, end = self._match.span(group)
        return (start, end) if start < 0 else (start + self._shift, end + self._shift)

    def __getitem__(self, group: Any) -> Any:
        return self._match[group]

    def __getattr__(self, name: str) -> Any:
        if name in ("group", "groups", "groupdict", "lastgroup", "lastindex", "re", "expand"):
            return getattr(self._match, name)
        raise AttributeError(f"LazyMatch has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<LazyMatch; span={self.span()}, match={self._match.group()[:60]!r}>"


class LazyText:
    """The text in the UTF-8 file at ``path``, which may be deleted once this is made.

    Lone surrogates may be in it. Offsets are characters, as in a str.

    Raises:
        OSError: the file can't be read.
        UnicodeDecodeError: it is not UTF-8.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, path: Any) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  as long as the view
        self._lock = threading.Lock()
        # Block i begins at byte _bytes[i], which is character _chars[i]; the last entries are the ends.
        self._bytes = array("q", [0])
        self._chars = array("q", [0])
        at = chars = 0
        while True:
            block = self._read_bytes(at, at + BLOCK_BYTES)
            if not block:
                break
            cut = len(block) if len(block) < BLOCK_BYTES else _last_character(block)
            chars += len(_decoded(block[:cut]))
            at += cut
            self._bytes.append(at)
            self._chars.append(chars)

    def __del__(self) -> None:
        # Where the file could not be opened there is none.
        file = self.__dict__.get("_file")
        if file is not None:
            file.close()

    # Reading ----------------------------------------------------------------------------------------

    def _read_bytes(self, start: int, end: int) -> bytes:
        pieces = []
        while start < end:
            if hasattr(os, "pread"):
                piece = os.pread(self._file.fileno(), end - start, start)
            else:
                with self._lock:
                    self._file.seek(start)
                    piece = self._file.read(end - start)
            if not piece:
                break
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def _read(self, start: int, end: int) -> str:
        """Return the characters from ``start`` to ``end``, both within the text."""
        if start >= end:
            return ""
        first = bisect_right(self._chars, start) - 1
        last = bisect_right(self._chars, end - 1)
        text = _decoded(self._read_bytes(self._bytes[first], self._bytes[last]))
        shift = self._chars[first]
        if start == shift and end - shift == len(text):
            return text
        return text[start - shift : end - shift]

    def __len__(self) -> int:
        return self._chars[-1]

    def __getitem__(self, key: Any) -> str:
        size = len(self)
        if not isinstance(key, slice):
            at = range(size)[key]
            return self._read(at, at + 1)
        found = range(size)[key]
        if not found:
            return ""
        low, high = min(found[0], found[-1]), max(found[0], found[-1])
        return self._read(low, high + 1)[:: found.step]

    def __str__(self) -> str:
        return self._read(0, len(self))

    def __repr__(self) -> str:
        return (
            f"<LazyText: a view of a text of {len(self):,} characters that is not loaded, starts "
            f"{self[:40]!r}. Slices are str; .find, .count, .search, .finditer, .findall, .lines(), "
            ".chunks(size) and `in` work; str(...) loads all of it>"
        )

    def __format__(self, spec: str) -> str:
        raise TypeError("a LazyText is not formatted into a text as a whole: put a slice of it there")

    # Searching --------------------------------------------------------------------------------------

    def __contains__(self, text: str) -> bool:
        return self.find(text) >= 0

    def find(self, text: str, start: int | None = None, end: int | None = None) -> int:
        """Return where ``text`` is first found, -1 if nowhere; as `str.find`."""
        low, high = self._bounds(text, start, end)
        if low is None:
            return -1
        overlap = max(0, len(text) - 1)
        for at in range(low, max(low + 1, high), WINDOW_CHARS):
            found = self._read(at, min(high, at + WINDOW_CHARS + overlap)).find(text)
            if found >= 0:
                return at + found
        return -1

    def index(self, text: str, start: int | None = None, end: int | None = None) -> int:
        """Return where ``text`` is first found; raises ValueError if nowhere."""
        found = self.find(text, start, end)
        if found < 0:
            raise ValueError("substring not found")
        return found

    def count(self, text: str, start: int | None = None, end: int | None = None) -> int:
        """Return how often ``text`` is found, without overlaps; as `str.count`."""
        low, high = self._bounds(text, start, end)
        if low is None:
            return 0
        if not text:
            return high - low + 1
        count, at = 0, low
        while at < high:
            piece = self._read(at, min(high, at + WINDOW_CHARS + len(text) - 1))
            if len(text) == 1:
                count += piece.count(text)
                at += len(piece)
                continue
            if len(piece) < len(text):
                break
            place = piece.find(text)
            behind = 0
            while place >= 0:
                count += 1
                behind = place + len(text)
                place = piece.find(text, behind)
            at = max(at + behind, at + len(piece) - len(text) + 1)
        return count

    def startswith(self, text: str | tuple[str, ...]) -> bool:
        """Tell whether the text begins with ``text``, or one of them."""
        texts = text if isinstance(text, tuple) else (text,)
        return any(self[: len(each)] == each for each in texts)

    def endswith(self, text: str | tuple[str, ...]) -> bool:
        """Tell whether the text ends with ``text``, or one of them."""
        texts = text if isinstance(text, tuple) else (text,)
        return any(not each or self[-len(each) :] == each for each in texts)

    def search(self, pattern: _Pattern, flags: int = 0) -> LazyMatch | None:
        """Return the first match of a regular expression, or None; see `finditer`."""
        return next(self.finditer(pattern, flags), None)

    def finditer(self, pattern: _Pattern, flags: int = 0) -> Iterator[LazyMatch]:
        """Yield the matches of a regular expression, as `re.finditer` does in a str.

        The text is read in windows: a match, with what it looks at before and behind itself, may have up to
        100,000 characters. A longer one raises ValueError.
        """
        compiled = re.compile(pattern, flags)
        size, at = len(self), 0
        while True:
            # A match belongs to the window in which it starts. What is before the window is there to be
            # looked behind at, and keeps patterns from taking its edge for the beginning of the text.
            low = max(0, at - MATCH_CHARS)
            stop = min(size, at + WINDOW_CHARS)
            text = self._read(low, min(size, stop + MATCH_CHARS))
            behind = stop
            for match in compiled.finditer(text, at - low):
                start, end = match.start() + low, match.end() + low
                if start >= stop and stop < size:
                    break
                if end - start > MATCH_CHARS:
                    raise ValueError(
                        f"a match of more than {MATCH_CHARS:,} characters at {start:,}: narrow the pattern, "
                        "or search in a slice"
                    )
                behind = max(stop, end)
                yield LazyMatch(match, low, self)
            if stop >= size:
                return
            at = behind

    def findall(self, pattern: _Pattern, flags: int = 0) -> list[Any]:
        """Return all matches of a regular expression, as `re.findall` does in a str; see `finditer`."""
        found: list[Any] = []
        for match in self.finditer(pattern, flags):
            groups = match.groups("")
            found.append(match.group() if not groups else groups[0] if len(groups) == 1 else groups)
        return found

    def _bounds(self, text: str, start: int | None, end: int | None) -> tuple[int | None, int]:
        if not isinstance(text, str):
            raise TypeError(f"a LazyText holds text, not {type(text).__name__}")
        size = len(self)
        low, high, _ = slice(start, end).indices(size)
        # A start behind the end finds nothing, not even an empty text, as in a str.
        return (None if high < low or (start or 0) > size else low), high

    # Walking ----------------------------------------------------------------------------------------

    def lines(self, *, keepends: bool = False) -> Iterator[str]:
        r"""Yield the lines, which end at ``\n``; ``keepends`` keeps that, and a ``\r`` before it."""
        rest: list[str] = []
        for piece in self.chunks(WINDOW_CHARS):
            first, *others = piece.split("\n")
            rest.append(first)
            for other in others:
                line = "".join(rest)
                yield line + "\n" if keepends else line.removesuffix("\r")
                rest = [other]
        last = "".join(rest)
        if last:
            yield last

    def chunks(self, size: int, overlap: int = 0) -> Iterator[str]:
        """Yield pieces of ``size`` characters, each after the last ``overlap`` characters before it."""
        if not 0 <= overlap < size:
            raise ValueError(f"chunks of {size} characters can't overlap by {overlap}")
        for at in range(0, len(self), size):
            yield self._read(max(0, at - overlap), min(len(self), at + size))

    def __iter__(self) -> Iterator[str]:
        raise TypeError("a LazyText is not walked by character: iterate over .lines() or .chunks(size)")

    # What a view is not -----------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (str, LazyText)):
            return NotImplemented
        return len(self) == len(other) and all(
            self[at : at + WINDOW_CHARS] == other[at : at + WINDOW_CHARS]
            for at in range(0, len(other), WINDOW_CHARS)
        )

    def _no_sum(self, other: Any) -> Any:
        raise TypeError("a LazyText can't be put together with other texts: use slices of it, or str(...)")

    __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = _no_sum

    def __getattr__(self, name: str) -> Any:
        hint = _HINTS.get(name)
        if hint is None:
            hint = "take a slice first" if hasattr(str, name) else "see repr(...) for what it has"
        raise AttributeError(f"a LazyText, a view of a text that is not loaded, has no .{name}: {hint}")

    def __reduce__(self) -> Any:
        raise TypeError("a LazyText can't be copied or sent elsewhere: use slices of it, or str(...)")

    # For those who send it on -----------------------------------------------------------------------

    def pieces(self, piece_bytes: int) -> Iterator[bytes]:
        """Yield the bytes of the UTF-8 form."""
        for at in range(0, self._bytes[-1], piece_bytes):
            yield self._read_bytes(at, min(self._bytes[-1], at + piece_bytes))


def _last_character(data: bytes) -> int:
    """Return where the last character begins, which may not be whole."""
    at = len(data) - 1
    while at and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _decoded(data: bytes) -> str:
    return str(data, "utf-8", "surrogatepass")
