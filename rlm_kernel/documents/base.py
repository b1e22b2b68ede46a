"""What a document becomes: a text, where its pages and cells start, and its images apart.

Every file is untrusted. Invariant: a reader returns what the file holds, or raises `RefusedError` with a
reason that fits behind the file's name; it opens no other file and no connection.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..guest.image import Image

__all__ = [
    "INSTALL",
    "Allowance",
    "Document",
    "Limits",
    "Place",
    "Places",
    "RefusedError",
    "library",
    "plain",
]

INSTALL = 'pip install "rlm-kernel[readers]"'


class RefusedError(Exception):
    """A file is not taken; the message is the reason, made `plain`. ``hint`` says what would help."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(plain(reason))
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of untrusted files is read.

    Of one document: ``file_bytes`` of it, ``text_chars`` of text from it, ``pages`` and ``seconds``. Of a zip
    archive: ``members``, ``nesting`` (1 is an archive in no other), ``ratio`` (unpacked bytes by packed ones,
    of members above 1 MiB). ``unpacked_bytes`` and ``total_chars`` hold for all files of a context together.
    """

    file_bytes: int = 512 * 1024**2
    text_chars: int = 256 * 1024**2
    pages: int = 20_000
    seconds: float = 300.0
    members: int = 20_000
    nesting: int = 3
    ratio: int = 500
    unpacked_bytes: int = 2 * 1024**3
    total_chars: int = 1024**3


class Allowance:
    """What is left of the limits while the files of one context are read."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._bytes = self.limits.unpacked_bytes
        self._chars = self.limits.total_chars

    def unpack(self, size: int) -> None:
        """Take ``size`` unpacked bytes; raises `RefusedError` if so many are not left."""
        if size > self._bytes:
            raise RefusedError(f"unpacks to more than {_mega(self.limits.unpacked_bytes)} in all")
        self._bytes -= size

    def add(self, chars: int) -> None:
        """Take the text of a whole document; raises `RefusedError` if there is no room for so much."""
        self.check(chars)
        if chars > self._chars:
            raise RefusedError(
                f"its text of {chars:,} characters makes more than {self.limits.total_chars:,} in all"
            )
        self._chars -= chars

    def check(self, chars: int) -> None:
        """Raise `RefusedError` if one document has more text than allowed."""
        if chars > self.limits.text_chars:
            raise RefusedError(f"holds more than {self.limits.text_chars:,} characters of text")

    def check_file(self, size: int) -> None:
        """Raise `RefusedError` if a document's file is larger than allowed."""
        if size > self.limits.file_bytes:
            raise RefusedError(f"{_mega(size)}, more than the {_mega(self.limits.file_bytes)} that are read")

    def clock(self) -> Clock:
        """Start the time of one document."""
        return Clock(self.limits.seconds)


class Clock:
    """The time that one document may take. It is looked at between pages: none is interrupted."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    def check(self) -> None:
        """Raise `RefusedError` when the time is over."""
        if time.monotonic() > self._until:
            raise RefusedError(f"took longer than {self._seconds:g} s to read")


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a document: page or cell ``number``, from 1, begins at character ``start`` of its text."""

    start: int
    kind: Literal["page", "cell"]
    number: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of a text begin, in order."""

    parts: tuple[Place, ...]

    def at(self, offset: int) -> Place | None:
        """Return the part that holds the character at ``offset``, or None before the first."""
        index = bisect.bisect_right(self.parts, offset, key=lambda part: part.start)
        return self.parts[index - 1] if index else None


@dataclass(frozen=True, slots=True)
class Document:
    """A file, read. ``kind`` is its format in a word; ``images`` are by name within the document.

    ``value`` is the text; only a table read by itself is a DataFrame, or a list of rows. ``notes`` are
    sentences without the file's name on what is not in it.
    """

    kind: str
    value: Any
    places: Places | None = None
    images: Mapping[str, Image] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def library(name: str, what: str) -> Any:
    """Import a module that the extra ``readers`` brings; ``what`` needs it.

    Raises:
        RefusedError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        distribution = {"docx": "python-docx"}.get(name.partition(".")[0], name.partition(".")[0])
        raise RefusedError(f"{what} needs {distribution}: {INSTALL}", hint=INSTALL) from error


def plain(text: str) -> str:
    """Return a text from an untrusted file as it can stand in a message or a prompt: printable, short."""
    text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:400])
    text = text.replace("`", "'")
    return text if len(text) <= 150 else f"{text[:100]}...{text[-47:]}"


def _mega(size: int) -> str:
    return f"{size / 1024**2:,.0f} MiB" if size >= 1024**2 else f"{size:,} bytes"
