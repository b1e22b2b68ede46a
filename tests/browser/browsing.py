"""The thread in which the browser lives, and with it the tests that use it.

Playwright's plain API keeps an event loop running in its thread: in pytest's own, tests that are coroutines
could no longer run.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

_THREAD = ThreadPoolExecutor(1, thread_name_prefix="browser")


def aside(function, *args, **options):
    """Call ``function`` in the browser's thread and return what it returns."""
    return _THREAD.submit(function, *args, **options).result()
