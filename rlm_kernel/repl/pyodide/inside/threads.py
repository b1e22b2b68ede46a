"""What is made for threads, where there are none; and sleep, into which an interrupt gets."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["be_one_thread"]

_monotonic = time.monotonic


def be_one_thread(kernel: Any, nap: Any) -> Any:
    """Give what is made for threads a meaning where there are none, and let an interrupt into a sleep."""

    def sleep(seconds: Any) -> None:
        end = _monotonic() + float(seconds)
        while (left := end - _monotonic()) > 0:
            nap(1000 * left)

    def wait(self: threading.Event, timeout: Any = None) -> Any:
        # Only a message of the host can set an event while Python waits.
        end = None if timeout is None else _monotonic() + timeout
        while not self.is_set():
            left = 100.0 if end is None else min(100.0, 1000 * (end - _monotonic()))
            if left <= 0:
                break
            kernel.receive(left)
        return self.is_set()

    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    time.sleep = sleep
    threading.Event.wait = wait  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]
