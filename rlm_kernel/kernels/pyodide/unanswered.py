"""What a cell of `rlm-pyodide` has asked, and how cells ended, for a host whose connection loses messages.

An ipykernel's guest answers the host by itself while a cell runs (`rlm_kernel.guest.remote`). The sandbox
can't, so its Jupyter side does: all that the sandbox asks and is answered passes there. Nothing here is
believed of the sandbox: an id is a name for what it has sent itself.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MAX_KEPT", "Ended", "Request", "Unanswered"]

MAX_KEPT = 256 * 1024 * 1024
"""Bytes of requests that are kept; of more, the oldest can't be made again."""

# What a small one takes beside its text, so that many of them count as well.
REQUEST_BYTES = 1000
MAX_REPORT = 72 * 1024 * 1024
CELLS_KEPT = 2


@dataclass(frozen=True, slots=True)
class Request:
    """An envelope as it was sent: on stdin, or else on iopub."""

    text: str
    buffers: Sequence[bytes]
    stdin: bool

    @property
    def size(self) -> int:
        """Its size in bytes, about."""
        return REQUEST_BYTES + len(self.text) + sum(map(len, self.buffers))


class Unanswered:
    """The requests of the running cell that wait for an answer, by id; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._size = 0
        self.report = ""
        # A host at the other end of a local socket loses nothing.
        self.followed = False

    def asked(self, request: Request) -> str:
        """Note a request; return its id, or nothing if it is none that is answered, or nobody follows."""
        if not self.followed:
            return ""
        try:
            envelope = json.loads(request.text)
            id_, op = envelope["id"], envelope["op"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return ""  # A line that a person is asked for, or nonsense.
        if op == "cell":
            self.report = request.text if len(request.text) <= MAX_REPORT else ""
        elif op == "abandon":
            self.answered(envelope.get("call"))
        elif isinstance(id_, str):
            with self._lock:
                self._forget(id_)
                self._requests[id_] = request
                self._size += request.size
                while self._size > MAX_KEPT and len(self._requests) > 1:
                    self._forget(next(iter(self._requests)))
            return id_
        return ""

    def answered(self, id_: Any) -> None:
        """Note that the request of this id waits no longer."""
        if isinstance(id_, str):
            with self._lock:
                self._forget(id_)

    def _forget(self, id_: str) -> None:
        request = self._requests.pop(id_, None)
        if request is not None:
            self._size -= request.size

    def lost(self, have: Any) -> list[Request]:
        """Return the requests that wait for an answer, but for those of the ids in ``have``."""
        known = {each for each in have if isinstance(each, str)} if isinstance(have, list) else set()
        with self._lock:
            return [request for id_, request in self._requests.items() if id_ not in known]

    def clear(self) -> None:
        """Forget all: another cell begins."""
        with self._lock:
            self._requests.clear()
            self._size = 0
            self.report = ""


class Ended:
    """How the last cells ended, by the id of the message that asked for each; for any thread."""

    def __init__(self) -> None:
        self._cells: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def note(self, cell: str, reply: Mapping[str, Any], report: str) -> None:
        """Note the end of a cell: its reply, and the text of the guest's report, if there was one."""
        outcome = {key: str(reply[key])[:2000] for key in ("status", "ename", "evalue") if key in reply}
        self._cells[cell] = {**outcome, "report": report}
        while len(self._cells) > CELLS_KEPT:
            self._cells.popitem(last=False)

    def of(self, cell: Any) -> dict[str, Any] | None:
        """Return how a cell ended, as the guest of an ipykernel tells it."""
        ended = self._cells.get(cell) if isinstance(cell, str) else None
        if ended is None:
            return None
        report = json.loads(ended["report"]) if ended["report"] else None
        return {**ended, "report": report}
