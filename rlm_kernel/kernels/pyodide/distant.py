"""What the kernel `rlm-pyodide` owes to a host behind a gateway: large answers in pieces, an end of its own.

The sandbox takes no file while a cell waits for an answer, so that an answer too large for one message is
put together here, and handed on as if it had come whole. Pieces of a context go on to it in their order, each
once, whatever a broken connection makes of that. A host that compares what it has with ours is missed when it
no longer does; one that never does, at the other end of a local socket, is not.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...guest.remote import hold_ports

__all__ = ["Arrived", "Held", "Lease"]

MAX_HELD = 64 * 1024 * 1024
MAX_FILES = 16
MAX_NAMES = 64
MAX_STEP_SECONDS = 10.0
LEAST_SECONDS = 1.0


class Held:
    """Answers by the path that the host was told, each whole once all of its pieces are there."""

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}

    def put(self, name: str, offset: int, total: int, data: memoryview) -> str:
        """Take a piece; return what is wrong with it, or nothing."""
        file = self._files.get(name)
        if file is None:
            if len(self._files) >= MAX_FILES or total + sum(map(len, self._files.values())) > MAX_HELD:
                return f"answers of more than {MAX_HELD:,} bytes can't be held while a cell runs"
            file = self._files[name] = bytearray(total)
        if len(file) != total or offset + len(data) > total:
            return "a piece is outside of its file"
        file[offset : offset + len(data)] = data
        return ""

    def whole(self, reply: Any) -> Any:
        """Return the reply that ``reply`` stands for, which names a file if it was too large."""
        path = reply.get("file") if isinstance(reply, dict) else None
        name = path.rpartition("/")[2] if isinstance(path, str) else ""
        file = self._files.pop(name, None)
        if file is None:
            return reply
        try:
            return json.loads(file)
        except ValueError:
            return reply

    def whole_text(self, text: str) -> str:
        """Return the text of the reply that a reply's text stands for."""
        if not self._files or '"file"' not in text:
            return text
        with suppress(ValueError):
            return json.dumps(self.whole(json.loads(text)))
        return text

    def clear(self) -> None:
        """Forget all: the cell that waited for them is over."""
        self._files.clear()


class Arrived:
    """How much of each file the sandbox has, from its beginning: it takes pieces in order, and each once."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def has(self, name: str, offset: int, size: int) -> bool:
        """Whether the sandbox has the piece.

        Raises:
            ValueError: one before it is missing. It comes, and then this one comes again.
        """
        there = self._sizes.get(name)
        if offset > (there or 0):
            raise ValueError(f"a piece at {offset:,} where {there or 0:,} was due")
        return there is not None and offset + size <= there

    def note(self, name: str, size: int) -> None:
        """Note that so much of the file is there."""
        self._sizes[name] = size
        while len(self._sizes) > MAX_NAMES:
            self._sizes.popitem(last=False)


class Lease:
    """Calls ``end`` once a host that was heard is silent for as long as it said it might be."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._heard = 0.0
        self._seconds = 0.0

    def hear(self, seconds: Any = None) -> None:
        """Note a word of the host's, and for how long it may be silent from now on, if it says so."""
        self._heard = time.monotonic()
        if not isinstance(seconds, int | float) or not seconds >= LEAST_SECONDS:
            return
        first, self._seconds = not self._seconds, float(seconds)
        if first:
            threading.Thread(target=self._watch, name="rlm-lease", daemon=True).start()

    def _watch(self) -> None:
        while True:
            step = min(self._seconds / 4, MAX_STEP_SECONDS)
            before = time.monotonic()
            time.sleep(step)
            now = time.monotonic()
            if now - before > 2 * step + 1:
                # Everything stood still, the thread that hears the host too.
                self._heard = now
            elif now - self._heard > self._seconds:
                with suppress(Exception):
                    hold_ports()
                self._end()
                return
