"""A model that answers from a recorded run: for resuming, for demos without a key, and for tests.

A request that was recorded is known by the hash of its messages. Root prompts also hold what differs
from run to run (seconds left, a process id that a cell printed), so a root turn that isn't known by its
hash is known by the replies before it, which are the model's own: first with the same opening messages,
then with any. `ReplayModel.divergences` lists these. Sub-calls must match exactly.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile

from .. import errors
from ..errors import ModelError, RequestRefusedError
from ..events import CallFinished, CallStarted, Compacted, Event, MessageAdded, RunStarted
from ..messages import Message, message_text
from ..trace.jsonl import Trajectory, prompt_sha256
from .base import Reply, Request

__all__ = ["ReplayModel"]


@dataclass(slots=True)
class _Recorded:
    """A request of the recorded run that came to an end, and how often it was replayed."""

    run: str
    turn: int
    finished: CallFinished
    uses: int = 0


class ReplayModel:
    """Answers requests from a trajectory: a file, one that is loaded, or the events of a run.

    One request recorded n times gets those n replies in turn, then the first again. A recorded
    `ModelError` is raised again. Usage holds the recorded tokens and a cost of 0, since nothing is paid.
    Requests come back at once; one model may serve root and sub-calls. ``name`` is the recorded root
    model's unless given.

    Raises:
        InputError: the file can't be read.
    """

    def __init__(
        self, trajectory: str | os.PathLike[str] | Trajectory | Iterable[Event], *, name: str | None = None
    ) -> None:
        if isinstance(trajectory, str | os.PathLike):
            trajectory = Trajectory.load(trajectory)
        if isinstance(trajectory, Trajectory):
            events: Sequence[Event] = trajectory.events
            prompts = trajectory.prompts
        else:
            events, prompts = tuple(trajectory), {}
        self._replies: dict[str, list[_Recorded]] = {}
        for recorded, keys in _recorded(events, prompts):
            for key in keys:
                self._replies.setdefault(key, []).append(recorded)
        self._divergences: list[str] = []
        recorded_name = next((event.model for event in events if isinstance(event, RunStarted)), "")
        self._name = name or recorded_name or "replay"

    def __repr__(self) -> str:
        return f"ReplayModel(name={self._name!r})"

    @property
    def name(self) -> str:
        """The name under which usage is kept."""
        return self._name

    @property
    def divergences(self) -> tuple[str, ...]:
        """The root turns whose request was not the recorded one, a sentence each."""
        return tuple(self._divergences)

    async def reply(self, request: Request) -> Reply:
        """Answer a sub-call from the recording.

        Raises:
            RequestRefusedError: this request was not recorded.
            ModelError: the request was recorded with this failure.
        """
        return self._reply(self._take(prompt_sha256(request.messages)), request)

    async def stream(self, request: Request) -> AsyncIterator[str | Reply]:
        """Answer a root turn from the recording, line by line.

        Raises:
            RequestRefusedError: no recorded turn follows the same replies.
            ModelError: the request was recorded with this failure.
        """
        reply = self._reply(self._take_turn(request.messages), request)
        for line in reply.text.splitlines(keepends=True):
            yield line
        yield reply

    def _take(self, key: str) -> _Recorded | None:
        found = self._replies.get(key)
        if not found:
            return None
        recorded = min(found, key=lambda each: each.uses)
        recorded.uses += 1
        return recorded

    def _take_turn(self, messages: Sequence[Message]) -> _Recorded | None:
        replies = [message_text(each) for each in messages if each["role"] == "assistant"]
        opening = prompt_sha256(takewhile(lambda each: each["role"] != "assistant", messages))
        if recorded := self._take(prompt_sha256(messages)):
            return recorded
        difference = "its prompt differs from the recorded one"
        recorded = self._take(_turn_key(replies, opening))
        if recorded is None:
            difference = "its opening messages differ from the recorded ones"
            recorded = self._take(_turn_key(replies))
        if recorded is not None:
            self._divergences.append(
                f"turn {len(replies) + 1} is answered by turn {recorded.turn} of run {recorded.run}: "
                + difference
            )
        return recorded

    def _reply(self, recorded: _Recorded | None, request: Request) -> Reply:
        if recorded is None:
            last = message_text(request.messages[-1]) if request.messages else ""
            raise RequestRefusedError(
                f"the recorded run holds no such request: {len(request.messages)} messages, the last of "
                f"{len(last):,} characters, {last[:80]!r}",
                hint="replay with the same question, context, settings and version, or ask a real model",
                model=self._name,
            )
        finished = recorded.finished
        if failure := _failure(finished, self._name):
            raise failure
        return Reply(
            text=finished.text,
            usage=dataclasses.replace(finished.usage, cost_usd=Decimal(0)),
            model=finished.model or self._name,
            finish_reason=finished.finish_reason or "stop",
        )


def _recorded(events: Sequence[Event], prompts: Mapping[str, str]) -> Iterator[tuple[_Recorded, list[str]]]:
    """Yield each request that has a reply, or a model's failure, with the keys that find it."""
    replies: dict[str, list[str]] = {}
    running: dict[str, tuple[CallStarted, list[str]]] = {}
    openings: dict[str, str] = {}
    conversations: dict[str, list[Message]] = {}
    children = {event.parent_call for event in events if isinstance(event, RunStarted)}
    for event in events:
        if isinstance(event, MessageAdded):
            conversations.setdefault(event.run, []).append(event.message)
            if event.message["role"] == "assistant":
                replies.setdefault(event.run, []).append(message_text(event.message))
        elif isinstance(event, Compacted):
            conversations[event.run] = list(event.messages)
            replies[event.run] = [
                message_text(each) for each in event.messages if each["role"] == "assistant"
            ]
        elif isinstance(event, CallStarted) and event.call not in children and event.kind != "tool":
            prompt = prompts.get(event.call) or prompt_sha256(
                event.messages or conversations.get(event.run, ())
            )
            keys = [prompt]
            if event.kind == "root":
                so_far = replies.get(event.run, [])
                # The recorded hash, since messages read without their context hold placeholders.
                opening = prompt if not so_far else openings.get(event.run, "")
                openings.setdefault(event.run, opening)
                keys += [_turn_key(so_far, opening), _turn_key(so_far)]
            running[event.call] = (event, keys)
        elif isinstance(event, CallFinished) and event.call in running:
            started, keys = running.pop(event.call)
            if event.error is None or _failure(event, "") is not None:
                yield _Recorded(started.run, started.turn, event), keys


def _turn_key(replies: Sequence[str], opening: str = "") -> str:
    return hashlib.sha256(json.dumps([opening, *replies]).encode()).hexdigest()


def _failure(finished: CallFinished, model: str) -> ModelError | None:
    """Return the recorded failure as an error, or None if it is not a model's (a budget, a cancelled run)."""
    name, _, message = (finished.error or "").partition(": ")
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, ModelError)):
        return None
    return kind(message or name, hint="this failure is part of the recorded run", model=model)
