"""The user's own functions, called with events by their type; they can't break a run.

A function is called at once, on the run's loop, so it must be quick: a slow one holds up the run, and a
notice says so once. What it returns to be awaited (it is an ``async def``) waits its turn in one task, in the
order of the events, beside the run; at the end of the run the rest of them is given `DRAIN_SECONDS`. One that
raises is told of once, in a notice and with its traceback in the log, and is called again all the same.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from .errors import ConfigError
from .events import TYPES, Emitter, Event, Notice, RunFinished

__all__ = ["DRAIN_SECONDS", "Hook", "Hooks", "checked_hooks", "is_async"]

DRAIN_SECONDS = 10.0
SLOW_SECONDS = 0.1

Hook = Callable[[Any], Any]
"""A function of one event; what it returns is awaited if that can be, and dropped otherwise."""

_log = logging.getLogger(__name__)


class Hooks:
    """The hooks of one tree, a reader of its events; `attach` them, then `drain` them at the end.

    ``hooks`` are by an event's type, or ``*`` for every event.
    """

    def __init__(self, hooks: Mapping[str, Sequence[Hook]]) -> None:
        self._hooks = hooks
        self._emitter: Emitter | None = None
        self._root = ""
        self._over = False
        self._told: set[tuple[int, str]] = set()
        self._queue: asyncio.Queue[tuple[Event, Hook, Awaitable[Any]] | None] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    def attach(self, emitter: Emitter) -> None:
        """Listen to ``emitter``, if there are any hooks."""
        if any(self._hooks.values()):
            self._emitter = emitter
            emitter.add(self)

    def __call__(self, event: Event) -> None:
        """Call the hooks of ``event``."""
        self._root = self._root or event.run
        self._over = self._over or (isinstance(event, RunFinished) and event.run == self._root)
        for hook in (*self._hooks.get(event.type, ()), *self._hooks.get("*", ())):
            started = time.monotonic()
            try:
                result = hook(event)
            except Exception as error:  # noqa: BLE001  an edge: hooks are the user's code
                self._failed(hook, event, error)
                continue
            seconds = time.monotonic() - started
            if seconds > SLOW_SECONDS:
                self._tell(
                    hook, event, "slow", f"took {seconds:.2f} s, in which the run stood still; make it async"
                )
            if inspect.isawaitable(result):
                self._queue.put_nowait((event, hook, result))
                if self._worker is None:
                    self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            event, hook, result = item
            try:
                await result
            except asyncio.CancelledError as error:
                # Of the hook's own making, or ours?
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._failed(hook, event, error)
            except Exception as error:  # noqa: BLE001  an edge: hooks are the user's code
                self._failed(hook, event, error)

    def _failed(self, hook: Hook, event: Event, error: BaseException) -> None:
        if (id(hook), "failed") not in self._told:
            _log.warning("hook %s failed on %s", _name(hook), event.type, exc_info=error)
        self._tell(hook, event, "failed", f"failed on {event.type}: {error!r}")

    def _tell(self, hook: Hook, event: Event, what: str, text: str) -> None:
        if (id(hook), what) in self._told:
            return
        self._told.add((id(hook), what))
        # The end of a run is its last event.
        if self._emitter is not None and not self._over:
            self._emitter.emit(Notice(run=event.run, text=f"hook {_name(hook)} {text}"))

    async def drain(self) -> None:
        """Wait for the hooks that are awaited, for `DRAIN_SECONDS` at most; the others are dropped."""
        if self._emitter is not None:
            self._emitter.remove(self)
        if self._worker is None:
            return
        self._queue.put_nowait(None)
        _, late = await asyncio.wait({self._worker}, timeout=DRAIN_SECONDS)
        dropped = len(late)
        if late:
            self._worker.cancel()
            await asyncio.wait({self._worker})
        while not self._queue.empty():
            if (item := self._queue.get_nowait()) is not None:
                dropped += 1
                if inspect.iscoroutine(item[2]):
                    item[2].close()
        if dropped:
            _log.warning("%d calls of hooks were dropped at the end of the run", dropped)


def checked_hooks(hooks: Mapping[str, Hook | Sequence[Hook]] | None) -> dict[str, tuple[Hook, ...]]:
    """Return the user's hooks, each a tuple.

    Raises:
        ConfigError: an unknown type of event, or something that can't be called.
    """
    found: dict[str, tuple[Hook, ...]] = {}
    for type_, given in (hooks or {}).items():
        if type_ != "*" and type_ not in TYPES:
            raise ConfigError(f"no event is of type {type_!r}", hint=f"there is *, {', '.join(TYPES)}")
        found[type_] = tuple(given) if isinstance(given, Sequence) else (given,)
        for each in found[type_]:
            if not callable(each):
                raise ConfigError(f"the hook of {type_} can't be called: {each!r}", hint="give a function")
    return found


def with_async(hooks: Mapping[str, Sequence[Hook]], readers: Iterable[Hook]) -> Mapping[str, Sequence[Hook]]:
    """Return ``hooks`` with ``readers``, which are async, as hooks of every event."""
    return {**hooks, "*": (*hooks.get("*", ()), *readers)}


def is_async(reader: Any) -> bool:
    """Tell whether calling ``reader`` gives something to await."""
    return inspect.iscoroutinefunction(reader) or inspect.iscoroutinefunction(type(reader).__call__)


def _name(hook: Hook) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__name__))
