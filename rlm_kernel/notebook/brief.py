"""Events made short for a screen: what a row of the panel shows, and none of the texts behind it.

A panel holds every event of a run at once, the kernel sends them all again when it must, and a run's
prompts may be gigabytes. So `brief` keeps what a row shows, as plain JSON without defaults; the whole
texts are fetched when somebody opens a row, by `Whole`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..events import (
    CallFinished,
    CallStarted,
    CellFinished,
    CellStarted,
    Compacted,
    Event,
    MessageAdded,
    RunFinished,
    RunStarted,
    to_json,
)
from ..messages import message_text
from .inert import is_image

__all__ = ["Redact", "Whole", "brief"]

Redact = Callable[[str], str]

ROW_CHARS = 240
QUESTION_CHARS = 1_000
ANSWER_CHARS = 20_000
WHOLE_CHARS = 200_000
HELD_CHARS = 64 * 2**20
_DROPPED = ("v", "seq", "value", "package", "estimate")


def brief(event: Event, redact: Redact, *, root: bool = True) -> dict[str, Any] | None:
    """Return ``event`` as a row needs it, or None where no row shows it.

    ``root`` says that its run is the root's, whose answer is shown beside the tree. Deltas are not made short
    here: `rlm_kernel.notebook.feed.Feed` merges them.
    """
    if isinstance(event, MessageAdded):
        return None
    if isinstance(event, CallStarted):
        head = [
            {"role": each["role"], "content": message_text(each)[:ROW_CHARS]} for each in event.messages[:1]
        ]
        event = dataclasses.replace(event, messages=tuple(head))  # type: ignore[arg-type]
    elif isinstance(event, Compacted):
        event = dataclasses.replace(event, messages=())
    elif isinstance(event, CellFinished):
        # The row shows an error, or else the first output that has text.
        outputs = [each for each in event.outputs if each.kind == "error"]
        outputs += [each for each in event.outputs if each.text.strip()]
        event = dataclasses.replace(
            event, outputs=tuple(dataclasses.replace(each, data={}) for each in outputs[:1])
        )
    limit = ROW_CHARS
    if isinstance(event, RunStarted):
        limit = QUESTION_CHARS
        event = dataclasses.replace(event, contexts=())
    elif isinstance(event, RunFinished):
        limit = ANSWER_CHARS if root else ROW_CHARS
        event = dataclasses.replace(event, value=None)
    fields = {
        name: value
        for name, value in to_json(event).items()
        if name not in _DROPPED and (name == "type" or value not in (None, "", 0, [], {}))
    }
    if "usage" in fields:
        fields["usage"] = {
            name: value for name, value in fields["usage"].items() if value not in (0, "0") or value is None
        }
    fields["time"] = round(event.time, 3)
    short: dict[str, Any] = _cut(fields, limit, redact, note=False)
    return short


class Whole:
    """The whole events behind each row, up to ``held_chars`` characters of them; the oldest go first.

    Rows are named as in the panel: a root model's turn ``run/number``, a call, a cell, or ``root``.
    """

    def __init__(self, redact: Redact, *, held_chars: int = HELD_CHARS) -> None:
        self._redact = redact
        self._held_chars = held_chars
        self._chars = 0
        self._order: deque[tuple[str, int]] = deque()
        self._events: dict[str, list[Event]] = {}
        self._turns: dict[str, str] = {}

    def take(self, event: Event) -> None:
        """Keep ``event`` if some row's detail shows it."""
        row = self._row(event)
        if row is None:
            return
        size = _size(event)
        self._events.setdefault(row, []).append(event)
        self._order.append((row, size))
        self._chars += size
        while self._chars > self._held_chars and len(self._order) > 1:
            oldest, size = self._order.popleft()
            self._chars -= size
            del self._events[oldest][0]

    def find(self, row: str) -> list[dict[str, Any]]:
        """Return the events behind ``row`` as JSON, long texts cut in the middle; none for unknown rows."""
        return [
            _cut(to_json(event), WHOLE_CHARS, self._redact, note=True) for event in self._events.get(row, ())
        ]

    def _row(self, event: Event) -> str | None:
        if isinstance(event, CallStarted):
            if event.kind == "root":
                self._turns[event.call] = f"{event.run}/{event.turn}"
            return self._turns.get(event.call, event.call)
        if isinstance(event, CallFinished):
            return self._turns.pop(event.call, event.call)
        if isinstance(event, CellStarted | CellFinished):
            return event.cell
        if isinstance(event, MessageAdded) and event.message["role"] != "assistant":
            # What is said to the model in a turn is what it reads in the next one.
            return f"{event.run}/{event.turn + 1}"
        if isinstance(event, RunStarted):
            return event.parent_call or "root"
        return None


def _cut(value: Any, limit: int, redact: Redact, *, note: bool) -> Any:
    if isinstance(value, str):
        # A key must not lose its end, by which it is known, before it is looked for.
        if len(value) > limit + 200 and not note:
            value = value[: limit + 200]
        value = redact(value)
        if len(value) <= limit:
            return value
        if not note:
            return value[:limit]
        left_out = len(value) - limit
        return (
            f"{value[: limit // 2]}\n[{left_out:,} characters are left out here; the trace has them]\n"
            f"{value[-limit // 2 :]}"
        )
    if isinstance(value, Mapping):
        return {
            name: each
            if isinstance(each, str) and is_image(str(name), each)
            else _cut(each, limit, redact, note=note)
            for name, each in value.items()
            if name != "data" or note
        }
    if isinstance(value, list):
        return [_cut(each, limit, redact, note=note) for each in value]
    return value


def _size(event: Event) -> int:
    if isinstance(event, CallStarted):
        return sum(len(message_text(each)) for each in event.messages)
    if isinstance(event, MessageAdded):
        return len(message_text(event.message))
    if isinstance(event, CallFinished | RunFinished):
        return len(event.text)
    if isinstance(event, CellFinished):
        return sum(len(each.text) + sum(map(len, each.data.values())) for each in event.outputs)
    return len(event.code) if isinstance(event, CellStarted) else 0
