"""What a finished run leaves in a notebook: one output in three forms, none of which needs a kernel.

``application/vnd.rlm.trace+json`` is the whole run for a renderer that knows it, ``text/html`` a tree that
any viewer shows, ``text/plain`` the answer. The trace is the lines of a trajectory (`rlm_kernel.trace.jsonl`)
while they are few; else they are a file beside the notebook, and the output holds its path::

    {"version": 1, "summary": {...}, "lines": [...]}
    {"version": 1, "summary": {...}, "path": "rlm-traces/20261121T101500-3fa9c2.jsonl", "bytes": 1234567}

The folder's name has no dot in front: Jupyter servers don't hand out hidden files.
"""

from __future__ import annotations

import io
import json
import os
import secrets as random
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO, cast

from ..events import Event
from ..trace.jsonl import JsonlWriter
from ..trace.redact import Redactor
from .outline import Outline
from .static_html import render, summary

__all__ = ["FOLDER", "MIME_TYPE", "VERSION", "Record", "mimebundle", "texts"]

MIME_TYPE = "application/vnd.rlm.trace+json"
VERSION = 1
FOLDER = "rlm-traces"
INLINE_BYTES = 64 * 1024
_IN_MEMORY_BYTES = 4 * 2**20


class Record:
    """Keeps of a run what its output in a notebook is made of; a reader for `rlm_kernel.events.Emitter`.

    ``trace`` is the path of a trajectory that is written anyway: then none is written here. Else one of more
    than ``inline_bytes`` goes to a new file in `FOLDER` under ``folder``, the notebook's. ``secrets`` are
    taken out of everything, as is what looks like a key.
    """

    def __init__(
        self,
        *,
        secrets: Iterable[str] = (),
        folder: str | os.PathLike[str] = "",
        inline_bytes: int = INLINE_BYTES,
        trace: str | os.PathLike[str] | None = None,
    ) -> None:
        secrets = tuple(secrets)
        self._folder = Path(folder)
        self._inline_bytes = inline_bytes
        self._path = None if trace is None else Path(trace)
        self._spool = cast(
            "TextIO",
            tempfile.SpooledTemporaryFile(  # noqa: SIM115  closed by `bundle`
                max_size=_IN_MEMORY_BYTES, mode="w+", encoding="ascii", newline="\n"
            ),
        )
        self._writer = JsonlWriter(self._spool, secrets=secrets)
        self._outline = Outline(Redactor(secrets))
        self._bundle: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self._outline.finished is not None

    def take(self, event: Event) -> None:
        """Take in ``event``."""
        if self.over:
            return
        self._outline.take(event)
        self._writer(event)

    def bundle(self) -> dict[str, Any]:
        """Return the three forms by MIME type. The first call writes the file, where one is needed."""
        if self._bundle is None:
            trace = self._trace()
            self._spool.close()
            self._bundle = {MIME_TYPE: trace, **texts(self._outline, trace=trace.get("path", ""))}
        return self._bundle

    def _trace(self) -> dict[str, Any]:
        outline = self._outline
        usage = outline.root.usage
        trace: dict[str, Any] = {
            "version": VERSION,
            "summary": {
                "question": outline.question[:1_000],
                "status": outline.finished.status if outline.finished is not None else "running",
                "calls": outline.root.calls,
                "seconds": round(outline.root.seconds, 3),
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_tokens": usage.cached_tokens,
                "cost_usd": None if usage.cost_usd is None else str(usage.cost_usd),
            },
        }
        if self._path is not None:
            return {**trace, "path": self._path.as_posix(), "bytes": self._path.stat().st_size}
        size = self._spool.seek(0, io.SEEK_END)
        self._spool.seek(0)
        if size <= self._inline_bytes:
            return {**trace, "lines": [json.loads(line) for line in self._spool]}
        try:
            path = self._save()
        except OSError as error:
            # A notebook may stand where nothing can be written: what is readable is still kept.
            return {**trace, "bytes": size, "lost": f"the trace could not be written: {error.strerror}"}
        return {**trace, "path": path.as_posix(), "bytes": size}

    def _save(self) -> Path:
        """Write the trajectory beside the notebook and return its path as seen from there."""
        path = Path(FOLDER, f"{time.strftime('%Y%m%dT%H%M%S')}-{random.token_hex(3)}.jsonl")
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii", newline="\n") as file:
            shutil.copyfileobj(self._spool, file)
        return path


def texts(outline: Outline, *, trace: str = "", times: bool = True) -> dict[str, str]:
    """Return a run, as far as it has come, for those who have no renderer; ``trace`` is a path to name."""
    return {
        "text/html": render(outline, trace=trace, times=times),
        "text/plain": _plain(outline, summary(outline, times=times)),
    }


def _plain(outline: Outline, figures: str) -> str:
    if outline.finished is None:
        return f"Run in progress: {outline.question or 'no question yet'}"
    if outline.finished.status == "answered":
        return f"{outline.answer}\n\n({figures})"
    state = outline.finished.status.replace("_", " ")
    parts = [f"{state}: {outline.finished.reason}".rstrip(": "), outline.answer, f"({figures})"]
    return "\n\n".join(part for part in parts if part.strip())


def mimebundle(events: Iterable[Event], **options: Any) -> dict[str, Any]:
    """Return a run that is over, given by its events, as a notebook's output; options are `Record`'s."""
    record = Record(**options)
    for event in events:
        record.take(event)
    return record.bundle()
