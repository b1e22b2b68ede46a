"""PDF files by pypdf: the text of each page, pages apart by a form feed.

No image and no attachment is looked at, and no password is tried but the empty one.
"""

from __future__ import annotations

import io
import logging
from typing import Any

from .base import INSTALL, Allowance, Document, Place, Places, RefusedError, library

__all__ = ["read_pdf"]

PAGE_BREAK = "\f"


def read_pdf(data: bytes, allowance: Allowance) -> Document:
    """Read a PDF file.

    Raises:
        RefusedError: encrypted, without any text, or over a limit. What pypdf raises for broken files passes.
    """
    pypdf = library("pypdf", "a PDF")
    # What it has to say about broken files is no business of the user's terminal.
    logging.getLogger("pypdf").addHandler(logging.NullHandler())
    clock = allowance.clock()
    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not _opens(pypdf, reader):
        raise RefusedError("encrypted")
    count = len(reader.pages)
    if count > allowance.limits.pages:
        raise RefusedError(f"{count:,} pages, more than the {allowance.limits.pages:,} that are read")
    texts, places, broken, size = [], [], [], 0
    for number in range(1, count + 1):
        clock.check()
        places.append(Place(size, "page", number))
        try:
            text = reader.pages[number - 1].extract_text().replace(PAGE_BREAK, " ")
        except Exception:  # noqa: BLE001  an edge: broken files raise anything, and other pages may be whole
            text = ""
            broken.append(number)
        texts.append(text)
        size += len(text) + len(PAGE_BREAK)
        allowance.check(size)
    if not any(text.strip() for text in texts):
        what = "can't be read" if broken else "hold no text (a scan?)"
        raise RefusedError("has no pages" if not count else f"its {count:,} pages {what}")
    return Document("PDF", PAGE_BREAK.join(texts), Places(tuple(places)), notes=_notes(texts, broken))


def _opens(pypdf: Any, reader: Any) -> bool:
    """Try the empty password, with which files open that only forbid printing or changes."""
    try:
        return bool(reader.decrypt(""))
    except pypdf.errors.DependencyError as error:
        raise RefusedError(f"encrypted, needs cryptography: {INSTALL}", hint=INSTALL) from error


def _notes(texts: list[str], broken: list[int]) -> tuple[str, ...]:
    empty = [number for number, text in enumerate(texts, 1) if not text.strip() and number not in broken]
    found = []
    for numbers, what in ((broken, "can't be read"), (empty, "without text (a scan?)")):
        if numbers:
            shown = ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
            found.append(f"{len(numbers):,} of {len(texts):,} pages {what}: {shown}")
    return tuple(found)
