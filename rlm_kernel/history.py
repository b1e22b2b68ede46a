"""What a run has told so far, for readers that come late.

Readers of a run under way must see how it began, or they can't tell what the rest is about. Prompts can be
gigabytes, though: past a bound the oldest texts are shortened, while every event of a trajectory stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .events import (
    CallDelta,
    CallFinished,
    CallStarted,
    CellFinished,
    CellOutput,
    Emitter,
    Event,
    MessageAdded,
)
from .messages import Message, message_text

__all__ = ["History"]

HELD_CHARS = 32 * 2**20
SHORT_CHARS = 400


class History:
    """Keeps the events of one emitter, used on its loop only; texts up to ``held_chars`` characters.

    What is being written, `CallDelta` and `CellOutput`, is not kept. The texts that go first are the oldest.
    """

    def __init__(self, emitter: Emitter, *, held_chars: int = HELD_CHARS) -> None:
        self._emitter = emitter
        self._held_chars = held_chars
        self._events: list[Event] = []
        self._long: deque[tuple[int, int]] = deque()
        self._chars = 0
        emitter.add(self._take)

    def join(self, reader: Callable[[Event], Any]) -> None:
        """Give ``reader`` all events so far, and then the further ones."""
        for event in self._events:
            reader(event)
        self._emitter.add(reader)

    def _take(self, event: Event) -> None:
        if isinstance(event, CallDelta | CellOutput):
            return
        chars = _chars(event)
        if chars > SHORT_CHARS:
            self._long.append((len(self._events), chars))
            self._chars += chars
        self._events.append(event)
        while self._chars > self._held_chars and len(self._long) > 1:
            place, chars = self._long.popleft()
            self._events[place] = _shortened(self._events[place])
            self._chars -= chars


def _chars(event: Event) -> int:
    if isinstance(event, CallStarted):
        return sum(len(message_text(each)) for each in event.messages)
    if isinstance(event, MessageAdded):
        return len(message_text(event.message))
    if isinstance(event, CallFinished):
        return len(event.text)
    if isinstance(event, CellFinished):
        return sum(len(each.text) + sum(map(len, each.data.values())) for each in event.outputs)
    return 0


def _shortened(event: Event) -> Event:
    if isinstance(event, CallStarted):
        return replace(event, messages=tuple(_short(each) for each in event.messages[:1]))
    if isinstance(event, MessageAdded):
        return replace(event, message=_short(event.message))
    if isinstance(event, CallFinished):
        return replace(event, text=event.text[:SHORT_CHARS])
    if isinstance(event, CellFinished):
        outputs = tuple(replace(each, text=each.text[:SHORT_CHARS], data={}) for each in event.outputs[:10])
        return replace(event, outputs=outputs)
    return event


def _short(message: Message) -> Message:
    return {"role": message["role"], "content": message_text(message)[:SHORT_CHARS]}
