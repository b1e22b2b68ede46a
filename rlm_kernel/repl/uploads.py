"""Contexts that a cell sends up for its children: kept in files until the call that uses them.

They are guest data: bounded in size, never decoded here, and gone when the cell ends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..context import Context
from ..errors import CallError
from ..events import ContextInfo
from ..guest.formats import FORMATS
from . import wire
from .base import RLMQuery

__all__ = ["Uploads"]

MAX_BYTES = 4 * 1024**3


class Uploads:
    """The uploads of one cell, in ``folder``."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._blobs: dict[str, tuple[Path, int]] = {}
        self._bytes = 0

    def add(self, piece: wire.Put) -> CallError | None:
        """Append a piece to its upload; return why it can't be, or None."""
        if piece.blob not in self._blobs and piece.number == 0:
            self._blobs[piece.blob] = (self._new_path(), 0)
        path, number = self._blobs.get(piece.blob, (None, -1))
        if path is None or piece.number != number:
            return CallError("pieces of an upload must come in order", kind="bad_request")
        try:
            self._append(path, piece.data)
        except CallError as error:
            return error
        self._blobs[piece.blob] = (path, number + 1)
        return None

    def attach(self, items: wire.RLMItems, contexts: list[Context]) -> RLMQuery:
        """Return the query with its contexts, which are added to ``contexts`` for the caller to release.

        Raises:
            CallError: an upload is missing, or too large.
        """
        pairs = []
        for query, ref in items.items:
            context = None
            if ref is not None:
                if ref.format not in FORMATS:
                    raise CallError(f"a context in unknown format {ref.format!r}", kind="bad_request")
                context = Context.spooled("context", ref.format, self._file_of(ref), _info(ref.info))
                contexts.append(context)
            pairs.append((query, context))
        return RLMQuery(tuple(pairs), batched=items.batched, model=items.model)

    def discard(self) -> None:
        """Delete what no call has used."""
        for path, _ in self._blobs.values():
            path.unlink(missing_ok=True)
        self._blobs.clear()

    def _file_of(self, ref: wire.ContextRef) -> Path:
        if ref.data is not None:
            path = self._new_path()
            self._append(path, ref.data)
            return path
        if ref.blob not in self._blobs:
            raise CallError(f"no upload of number {ref.blob!r}", kind="bad_request")
        return self._blobs.pop(ref.blob)[0]

    def _append(self, path: Path, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            raise CallError(f"a cell may send up {MAX_BYTES:,} bytes of contexts", kind="bad_request")
        with path.open("ab") as file:
            file.write(data)

    def _new_path(self) -> Path:
        return self._folder / f"up-{os.urandom(8).hex()}"


def _info(info: Mapping[str, Any]) -> ContextInfo:
    """Read the guest's description of a context, capped: it goes into the child's prompt only."""
    size = info.get("size")
    return ContextInfo(
        name="context",
        type=str(info.get("type", "object"))[:100],
        size=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else 0,
        unit=str(info.get("unit", ""))[:20],
        description=str(info.get("description", ""))[:4000],
    )
