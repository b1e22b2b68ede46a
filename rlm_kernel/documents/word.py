"""Word files (DOCX) by python-docx: paragraphs as lines, table cells apart by tabs, then the notes.

python-docx opens the package and parses its XML, without resolving entities. The text is gathered from the
XML itself, since its paragraphs leave out insertions, content controls and text boxes.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

from .archive import check_members, opened
from .base import Allowance, Document, RefusedError, library

__all__ = ["read_docx"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TEXT = {f"{_W}t": None, f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
# The older form of what stands beside it, and what was moved away.
_SKIPPED = ("{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback", f"{_W}moveFrom")
_NOTES = ("footnotes", "endnotes")
_OLE = b"\xd0\xcf\x11\xe0"


def read_docx(data: bytes, allowance: Allowance) -> Document:
    """Read a Word file.

    Raises:
        RefusedError: encrypted, no Word file, or over a limit. What python-docx raises passes.
    """
    if data.startswith(_OLE):
        raise RefusedError("encrypted, or of the older format .doc: save it as .docx without a password")
    docx = library("docx", "a Word file")
    with opened(data) as archive:
        check_members(archive, allowance)
        _check_sizes(archive, allowance)
    part = docx.Document(io.BytesIO(data)).part
    lines = _Lines(allowance)
    lines.gather(part.element.body)
    parse = library("docx.oxml.parser", "a Word file").parse_xml
    for relation in part.rels.values():
        if not relation.is_external and relation.reltype.rpartition("/")[2] in _NOTES:
            lines.gather(parse(relation.target_part.blob))
    text = lines.text()
    if not text.strip():
        raise RefusedError("holds no text")
    return Document("Word", text)


def _check_sizes(archive: zipfile.ZipFile, allowance: Allowance) -> None:
    """Refuse a bomb: python-docx reads every part as a whole."""
    total = 0
    for member in archive.infolist():
        total += member.file_size
        if total > allowance.limits.file_bytes:
            raise RefusedError(f"unpacks to more than {allowance.limits.file_bytes:,} bytes")
    allowance.unpack(total)


class _Lines:
    """Gathers the text of XML trees, iteratively: they may be nested deeply."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._clock = allowance.clock()
        self._parts: list[str] = []
        self._size = 0

    def gather(self, root: Any) -> None:
        """Add the text below ``root``."""
        etree = library("lxml.etree", "a Word file")
        walk = etree.iterwalk(root, events=("start", "end"))
        in_cell = 0
        for event, element in walk:
            tag = element.tag
            if event == "start":
                if tag in _SKIPPED:
                    walk.skip_subtree()
                elif tag in _TEXT:
                    self._add(_TEXT[tag] or element.text or "")
                in_cell += tag == f"{_W}tc"
            elif tag == f"{_W}p":
                self._add(" " if in_cell else "\n")
            elif tag == f"{_W}tc":
                in_cell -= 1
                self._add("\t")
            elif tag == f"{_W}tr":
                self._add("\n")

    def text(self) -> str:
        """Return everything, each row of a table on a line."""
        lines = "".join(self._parts).split("\n")
        return "\n".join(_row(line) for line in lines).strip("\n") + "\n"

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        self._allowance.check(self._size)
        if len(self._parts) % 4096 == 0:
            self._clock.check()


def _row(line: str) -> str:
    return line.replace(" \t", "\t").rstrip()
