"""Events on their way to a screen: merged, numbered, at most 20 batches a second.

One message per event would drown a browser and meet a Jupyter server's limit of messages; a message lost
would leave the tree wrong without a sign. So events wait for 50 ms, pieces of text are merged into the
end of the text that they make, and batches bear consecutive numbers: who misses one asks for all anew.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from ..events import CallDelta, CallFinished, CellFinished, CellOutput, Event, RunFinished, RunStarted
from .brief import Redact, brief

__all__ = ["INTERVAL_SECONDS", "TAIL_CHARS", "Feed"]

INTERVAL_SECONDS = 0.05
TAIL_CHARS = 200
_KEPT_CHARS = 2 * TAIL_CHARS  # so that a key at the edge of a tail is still whole when it is looked for

Batch = dict[str, Any]


class Feed:
    """Turns events into batches ``{"number": n, "events": [...]}`` and hands them to ``send``.

    `take` is a reader for `rlm_kernel.events.Emitter`: it is called in one thread, the engine's, where
    `send` is called as well. The first event after a pause, and the run's end, are sent at once. `snapshot`
    may be called in any thread.

    A text that is being written is an event ``{"type": "call_delta" | "cell_output", "call" | "cell": id,
    "tail": its last 200 characters}``.
    """

    def __init__(self, send: Callable[[Batch], None], redact: Redact) -> None:
        self._send = send
        self._redact = redact
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        self._waiting: list[dict[str, Any]] = []
        self._tails: dict[tuple[str, str], str] = {}
        self._grown: set[tuple[str, str]] = set()
        self._root: str | None = None
        self._number = -1
        self._sent = -INTERVAL_SECONDS
        self._timer: asyncio.TimerHandle | None = None

    def take(self, event: Event) -> None:
        """Take in ``event`` and see to it that it is sent."""
        if isinstance(event, RunStarted) and self._root is None:
            self._root = event.run
        with self._lock:
            self._add(event)
        over = isinstance(event, RunFinished) and event.run == self._root
        if over or time.monotonic() - self._sent >= INTERVAL_SECONDS:
            self.flush()
        elif self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self.flush)
            except RuntimeError:  # no loop: recorded events; the run's end sends what waits
                return

    def flush(self) -> None:
        """Send what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            events = [*self._waiting, *self._tails_of(self._grown)]
            self._events += self._waiting
            self._waiting = []
            self._grown.clear()
            if not events:
                return
            self._number += 1
            batch = {"number": self._number, "events": events}
        self._sent = time.monotonic()
        self._send(batch)

    def snapshot(self) -> Batch:
        """Return all that was sent as one batch, with the number of the last."""
        with self._lock:
            return {"number": self._number, "events": [*self._events, *self._tails_of(set(self._tails))]}

    def _add(self, event: Event) -> None:
        if isinstance(event, CallDelta):
            self._grow(("call", event.call), event.text)
        elif isinstance(event, CellOutput):
            self._grow(("cell", event.cell), event.output.text)
        else:
            if isinstance(event, CallFinished):
                self._forget(("call", event.call))
            elif isinstance(event, CellFinished):
                self._forget(("cell", event.cell))
            short = brief(event, self._redact, root=event.run == self._root)
            if short is not None:
                self._waiting.append(short)

    def _grow(self, key: tuple[str, str], text: str) -> None:
        self._tails[key] = (self._tails.get(key, "") + text[-_KEPT_CHARS:])[-_KEPT_CHARS:]
        self._grown.add(key)

    def _forget(self, key: tuple[str, str]) -> None:
        self._tails.pop(key, None)
        self._grown.discard(key)

    def _tails_of(self, keys: set[tuple[str, str]]) -> list[dict[str, Any]]:
        kinds = {"call": "call_delta", "cell": "cell_output"}
        return [
            {"type": kinds[kind], kind: name, "tail": self._redact(self._tails[kind, name])[-TAIL_CHARS:]}
            for kind, name in sorted(keys)
        ]
