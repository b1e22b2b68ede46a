"""The files of one context that are no plain text: each read by its kind, or refused by name.

Invariant: a file that is refused, for whatever reason, takes no other with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

from ..guest.formats import reason
from ..guest.image import Image, image_mime
from .base import INSTALL, Allowance, Document, Limits, Places, RefusedError, plain

__all__ = ["Gathering", "Reading", "kind_of"]

_KINDS = {
    ".pdf": "pdf",
    ".docx": "docx",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".ipynb": "ipynb",
    ".parquet": "table",
    ".feather": "table",
    ".arrow": "table",
    ".zip": "zip",
}
_WIDE_SUFFIXES = frozenset((".csv", ".tsv", ".txt"))
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
# Imported on use: most contexts hold no document.
_READERS = {
    "pdf": ("pdf", "read_pdf"),
    "docx": ("word", "read_docx"),
    "html": ("web", "read_html"),
    "ipynb": ("notebook", "read_notebook"),
    "table": ("tables", "read_table"),
}
_LEGENDS = {
    "PDF": "PDF as text, pages apart by a form feed: text.split('\\f')[n - 1] is page n",
    "Word": "Word as text, rows of tables as lines with tabs",
    "HTML": "HTML as the text that a reader sees, without markup",
    "notebook": "notebook as text: cells start with a line like '# %% cell 3, code' (or markdown, raw), "
    "their outputs with '# %% cell 3, output'",
    "table": "table as CSV text",
    "HTML source": "HTML as its source",
    "UTF-16": "UTF-16 as text",
}
_HEAD = 8192
_SHOWN = 20
_SHOWN_CHARS = 1500


@dataclass(frozen=True, slots=True)
class Reading:
    """What is to be told of documents beside their texts.

    ``places`` are by the text's key in the context, empty for the context itself. ``images`` are by name.
    ``refused`` are lines of name and reason. ``legend`` tells how many documents were made text, and how.
    ``from_files`` is whether the context was read from files at all: the keys of a dict are then paths.
    """

    places: Mapping[str, Places] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict, repr=False)
    refused: tuple[str, ...] = ()
    legend: tuple[str, ...] = ()
    from_files: bool = False

    def refusals(self) -> str:
        """Return what was refused in one line, the first of them by name, or nothing."""
        if not self.refused:
            return ""
        shown: list[str] = []
        size = 0
        for line in self.refused[:_SHOWN]:
            size += len(line)
            if size > _SHOWN_CHARS and shown:
                break
            shown.append(line)
        more = len(self.refused) - len(shown)
        return "Refused: " + "; ".join(shown) + (f"; and {more:,} more" if more else "")


def kind_of(name: str, head: bytes) -> str | None:
    """Return which reader takes a file of this name and first bytes, or None where it is read as it is."""
    suffix = PurePosixPath(name).suffix.lower()
    if head.startswith(b"%PDF-"):
        return "pdf"
    if suffix in _WIDE_SUFFIXES:
        return "wide" if head.startswith(_WIDE_MARKS) else None
    return _KINDS.get(suffix)


class Gathering:
    """Reads documents one after the other within one `Allowance`, and remembers what is to be told."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.allowance = Allowance(limits)
        self.binaries: list[str] = []
        self.hidden: set[str] = set()
        self.notes: list[str] = []
        self._places: dict[str, Places] = {}
        self._images: dict[str, Image] = {}
        self._refused: list[str] = []
        self._kinds: Counter[str] = Counter()

    def many(self, key: str, kind: str, load: Callable[[], bytes]) -> Iterator[tuple[str, Any]]:
        """Yield the (key, text) of a file among others: one, or an archive's many, or none if refused."""
        yield from self._unless_refused(key, kind, load, 1)

    def one(self, kind: str, suffix: str, load: Callable[[], bytes]) -> Any:
        """Return the value of a file that is a context by itself: an archive is a dict.

        Raises:
            RefusedError: it can't be read.
        """
        data = load()
        if kind == "zip":
            return dict(self._members("", data, 1))
        return self._document("", kind, suffix, data, as_text=False)

    def reading(self) -> Reading:
        """Return what is to be told so far."""
        legend = [f"{count:,} {_LEGENDS[kind]}" for kind, count in sorted(self._kinds.items())]
        return Reading(
            dict(self._places), dict(self._images), tuple(self._refused), tuple(legend), from_files=True
        )

    def _unless_refused(
        self, key: str, kind: str, load: Callable[[], bytes], nesting: int
    ) -> Iterator[tuple[str, Any]]:
        try:
            data = load()
            if kind == "zip":
                yield from self._members(f"{key}/", data, nesting)
            else:
                yield key, self._document(key, kind, PurePosixPath(key).suffix.lower(), data, as_text=True)
        except RefusedError as error:
            self._refused.append(f"{plain(key)} ({error})")

    def _document(self, key: str, kind: str, suffix: str, data: bytes, *, as_text: bool) -> Any:
        self.allowance.check_file(len(data))
        document = _read(kind, suffix, data, self.allowance, as_text=as_text)
        if isinstance(document.value, str):
            self.allowance.add(len(document.value))
            self._kinds[document.kind] += 1
        if document.places is not None:
            self._places[key] = document.places
        for name, image in document.images.items():
            self._images[f"{key}/{name}" if key else name] = image
        self.notes += [f"{plain(key)}: {note}" if key else note for note in document.notes]
        return document.value

    def _members(self, prefix: str, data: bytes, nesting: int) -> Iterator[tuple[str, Any]]:
        if nesting > self.allowance.limits.nesting:
            raise RefusedError(f"archives are nested more than {self.allowance.limits.nesting} deep")
        self.allowance.check_file(len(data))
        archive = import_module(f"{__package__}.archive")
        archive.check_directory(data, self.allowance)
        seen = set()
        with archive.opened(data) as opened:
            archive.check_members(opened, self.allowance)
            for member in archive.members(opened, self.hidden):
                key = prefix + member.filename
                if key in seen:
                    self._refused.append(f"{plain(key)} (a second file of that name)")
                    continue
                seen.add(key)
                try:
                    inner = archive.read_member(opened, member, self.allowance)
                except RefusedError as error:
                    self._refused.append(f"{plain(key)} ({error})")
                    continue
                kind = kind_of(key, inner[:_HEAD])
                if kind is not None:
                    yield from self._unless_refused(key, kind, lambda inner=inner: inner, nesting + 1)  # type: ignore[misc]
                elif b"\0" in inner[:_HEAD] or image_mime(inner):
                    self.binaries.append(key)
                else:
                    yield from self._text(key, inner)

    def _text(self, key: str, data: bytes) -> Iterator[tuple[str, str]]:
        text = data.decode("utf-8-sig", "surrogateescape")
        try:
            self.allowance.add(len(text))
        except RefusedError as error:
            self._refused.append(f"{plain(key)} ({error})")
        else:
            yield key, text


def _read(kind: str, suffix: str, data: bytes, allowance: Allowance, *, as_text: bool) -> Document:
    try:
        if kind == "wide":
            return Document("UTF-16", data.decode("utf-16"))
        options = {"suffix": suffix, "as_text": as_text} if kind == "table" else {}
        return _reader(kind)(data, allowance, **options)
    except RefusedError as error:
        if kind == "html" and error.hint == INSTALL:
            text = data.decode("utf-8-sig", "surrogateescape")
            return Document("HTML source", text, notes=(f"HTML is given as its source: {error}",))
        raise
    except Exception as error:  # an edge: parsers raise anything for a broken file
        raise RefusedError(f"corrupt: {reason(error)}") from error


def _reader(kind: str) -> Callable[..., Document]:
    module, name = _READERS[kind]
    reader: Callable[..., Document] = getattr(import_module(f"{__package__}.{module}"), name)
    return reader
