"""One event loop in a thread of its own, for callers that are not async.

All of a process's synchronous calls share it, so that they share connections and kernels as well. It also
works while another loop runs in the calling thread, as in a notebook.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from . import page
from .repl import mainthread

__all__ = ["is_here", "loop", "run", "there", "wait"]

T = TypeVar("T")

CLEAN_UP_SECONDS = 15.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner = 0


def loop() -> asyncio.AbstractEventLoop:
    """Return the shared loop."""
    return _shared_loop()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` on the shared loop and return its result.

    An interrupt (Ctrl-C) cancels it, waits until it has cleaned up, and goes on as `KeyboardInterrupt`.
    """
    if page.here():
        return page.wait(coroutine)
    ended = threading.Event()
    future, cancel = _submit(coroutine, ended.set)
    while not future.done():
        try:
            wait(future)
            # A wait without an end can't be interrupted on every platform.
            with suppress(TimeoutError):
                return future.result(timeout=1.0)
        except KeyboardInterrupt:
            # Not by the future, which would be done before the task is.
            cancel()
            ended.wait(CLEAN_UP_SECONDS)
            raise
    return future.result()


def wait(future: Future[Any], timeout: float | None = None) -> None:
    """Wait for ``future`` if this is the main thread, which does its errands meanwhile."""
    if not mainthread.here():
        return
    future.add_done_callback(lambda _: mainthread.wake())
    end = None if timeout is None else time.monotonic() + timeout
    while not future.done():
        left = 1.0 if end is None else min(1.0, end - time.monotonic())
        if left <= 0:
            return
        mainthread.do_one(left)


def is_here() -> bool:
    """Tell whether this is the shared loop's thread."""
    try:
        return asyncio.get_running_loop() is _loop
    except RuntimeError:
        return False


async def there(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` on the shared loop, from any other; to be cancelled takes until it has cleaned up."""
    mainthread.note_loop()
    ended = asyncio.Event()
    here = asyncio.get_running_loop()

    def tell() -> None:
        with suppress(RuntimeError):  # nobody waits any more
            here.call_soon_threadsafe(ended.set)

    submitted, cancel = _submit(coroutine, tell)
    future = asyncio.wrap_future(submitted)
    # Whoever is cancelled here does not ask what became of it.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.done():
            cancel()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), CLEAN_UP_SECONDS)
        raise


def _submit(
    coroutine: Coroutine[Any, Any, T], ended: Callable[[], object]
) -> tuple[Future[T], Callable[[], None]]:
    """Start ``coroutine`` on the shared loop; return its future, and what cancels it.

    ``ended`` is called when it has really ended: a future that is cancelled is done before that.
    """
    loop = _shared_loop()
    tasks: list[asyncio.Task[Any]] = []

    async def watched() -> T:
        current = asyncio.current_task()
        assert current is not None
        tasks.append(current)
        try:
            return await coroutine
        finally:
            ended()

    def cancel() -> None:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])

    return asyncio.run_coroutine_threadsafe(watched(), loop), cancel


def _shared_loop() -> asyncio.AbstractEventLoop:
    global _loop, _owner
    if page.here():
        return asyncio.get_running_loop()
    with _lock:
        if _loop is None or _owner != os.getpid():
            # Windows' default loop can't watch sockets that are not its own, which ZeroMQ needs.
            loop = asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="rlm-kernel", daemon=True).start()
            if _loop is None:
                atexit.register(_stop)
            _loop, _owner = loop, os.getpid()
        return _loop


def _stop() -> None:
    """Cancel what still runs, so that no kernel outlives the process."""
    if _loop is None or _owner != os.getpid():
        return

    async def cancel_all() -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        # Pools of kernels and connections are generators that end with their loop.
        await asyncio.get_running_loop().shutdown_asyncgens()

    with suppress(CancelledError, TimeoutError, RuntimeError):
        asyncio.run_coroutine_threadsafe(cancel_all(), _loop).result(timeout=6)
