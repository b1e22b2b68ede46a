"""What only the main thread may do, done by it while it waits for something else.

The engine of a run in the user's own shell is in a thread of its own, and hands over the cells: an interrupt
reaches the main thread only, and the user's objects may belong to it. The main thread does an errand where it
waits for a result anyway (`rlm_kernel.background.run`), or as a task of the event loop that it runs.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Protocol

__all__ = ["Errand", "add", "do_one", "here", "note_loop", "wake"]


class Errand(Protocol):
    """Something to do, once, in one of two ways. Only an interrupt of the user's may come out of it."""

    def now(self) -> None:
        """Do it, and return when it is done."""
        ...

    async def later(self) -> None:
        """Do it as a task of this thread's event loop."""
        ...


_errands: queue.SimpleQueue[Errand | None] = queue.SimpleQueue()
_loop: asyncio.AbstractEventLoop | None = None
_task: asyncio.Task[None] | None = None


def here() -> bool:
    """Tell whether this is the main thread."""
    return threading.current_thread() is threading.main_thread()


def note_loop() -> None:
    """Remember the running event loop, if it is the main thread's: errands can be tasks of it."""
    global _loop  # noqa: PLW0603  there is one main thread
    if here():
        try:
            _loop = asyncio.get_running_loop()
        except RuntimeError:
            return


def add(errand: Errand, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Leave ``errand`` to the main thread, whose event loop is ``loop`` if it is not the one noted."""
    _errands.put(errand)
    known = loop or _loop
    if known is not None and not known.is_closed():
        known.call_soon_threadsafe(_take_up)


def wake() -> None:
    """Let `do_one` return."""
    _errands.put(None)


def do_one(seconds: float) -> None:
    """Wait up to ``seconds`` for an errand, and do it. In the main thread only."""
    try:
        errand = _errands.get(timeout=seconds)
    except queue.Empty:
        return
    if errand is not None:
        errand.now()


def _take_up(done: asyncio.Task[None] | None = None) -> None:
    """Begin the next errand as a task, unless one is under way."""
    global _task  # noqa: PLW0603  see above
    if done is not None and not done.cancelled():
        done.exception()
    if _task is not None and not _task.done() and not _task.get_loop().is_closed():
        return
    errand = None
    while errand is None:
        try:
            errand = _errands.get_nowait()
        except queue.Empty:
            return
    _task = asyncio.get_running_loop().create_task(errand.later())
    _task.add_done_callback(_take_up)
