"""A run under way, in the hands of the one who started it: to look at, talk to, stop and wait for.

`RLM.start` and `Session.start` return it. All of it may be used from any thread. The run itself is a task of
one event loop: that of the caller, where one runs, else the one in the background.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from typing import Any, Literal

from . import background, page
from .answer import Answer
from .errors import InputError
from .events import Emitter, Event
from .history import History
from .hooks import is_async
from .ledger import TreeUsage
from .repl import mainthread
from .runs.steering import Approval, Approver, Refusal, Steering, UserCell

__all__ = ["LiveRun", "approver"]

Status = Literal[
    "running", "paused", "waiting", "answered", "exhausted", "over_budget", "timed_out", "cancelled", "failed"
]


class LiveRun:
    """One run under way; await it, or call `wait`, for its `Answer`.

    ``work`` is the run as a coroutine, told of by ``emitter`` and steered by ``steering``.
    """

    def __init__(
        self,
        query: str,
        work: Coroutine[Any, Any, Answer],
        *,
        emitter: Emitter,
        steering: Steering,
        in_background: bool = False,
    ) -> None:
        self.query = query
        self._emitter = emitter
        self._history = History(emitter)
        self._steering = steering
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._loop = background.loop() if in_background or not _has_loop() else asyncio.get_running_loop()
        self._future: Future[Answer] = asyncio.run_coroutine_threadsafe(self._run(work), self._loop)

    def __repr__(self) -> str:
        return f"<LiveRun {self.status}: {self.query[:60]!r}>"

    async def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        self._task = asyncio.current_task()
        if self._cancelled:
            work.close()
            return Answer("cancelled", "", reason="the run was cancelled before it began")
        try:
            return await work
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            outcome = self._steering.outcome
            return Answer("cancelled", "", reason="the run was cancelled") if outcome is None else outcome

    # Looking ----------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """``running``; ``paused``; ``waiting``, for an approval; once it is over, the answer's status."""
        if not self._future.done():
            return self._steering.state
        if self._future.cancelled():
            return "cancelled"
        return "failed" if self._future.exception() is not None else self._future.result().status

    @property
    def done(self) -> bool:
        """Whether the run is over."""
        return self._future.done()

    @property
    def answer(self) -> Answer | None:
        """The answer, None while the run goes on. Raises what the run raised."""
        return self._future.result() if self._future.done() else None

    @property
    def usage(self) -> TreeUsage:
        """What the tree has spent so far."""
        return TreeUsage() if self._steering.ledger is None else self._steering.ledger.usage

    @property
    def calls(self) -> int:
        """How many model requests the tree has made so far."""
        return 0 if self._steering.ledger is None else self._steering.ledger.calls

    def subscribe(self, reader: Callable[[Event], None]) -> Callable[[], None]:
        """Give ``reader`` the events so far, then each as it comes; return what ends that.

        Of a run under way, what is being written is left out of the past events, as are the rest of old texts
        once they are very long. Readers are called on the run's loop.
        """
        if self._loop.is_closed():
            self._history.join(reader)
        self._call(self._history.join, reader)
        return lambda: self._call(self._emitter.remove, reader)

    # Steering ---------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Send the root model a message, which it is given with its next turn.

        Raises:
            InputError: there is nothing in it, or the run is over.
        """
        if not text.strip():
            raise InputError("the message is empty", hint="say something")
        self._steer(self._steering.add, text.strip())

    def execute(self, code: str) -> None:
        """Have a cell executed in the run's REPL before the next root turn; the root model is told of it.

        Raises:
            InputError: the run is over.
        """
        self._steer(self._steering.add, UserCell(code))

    def pause(self) -> None:
        """Let the run stop before its next root turn, until `resume`; its time budget stands still then.

        Raises:
            InputError: the run is over.
        """
        self._steer(self._steering.pause)

    def resume(self) -> None:
        """Let the run go on.

        Raises:
            InputError: the run is over.
        """
        self._steer(self._steering.resume)

    def cancel(self) -> None:
        """Stop the run: its answer is then the best there is, marked ``cancelled``. Safe at any time."""
        self._cancelled = True
        self._call(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _steer(self, what: Callable[..., None], *arguments: Any) -> None:
        if self._future.done():
            raise InputError(f"the run is over: {self.status}", hint="start another one, or ask in a session")
        self._call(what, *arguments)

    def _call(self, what: Callable[..., None], *arguments: Any) -> None:
        # A loop that was closed has no run any more.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)

    # Waiting ----------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> Answer:
        """Wait for the answer, ``timeout`` seconds at most.

        Raises:
            TimeoutError: the run is not over yet.
            InputError: this is the thread of the run's own loop, which would wait for itself.
        """
        if page.here() and not self._future.done():
            return page.wait(asyncio.wait_for(self, timeout))
        if not self._future.done() and _has_loop() and asyncio.get_running_loop() is self._loop:
            raise InputError("the run needs this thread's event loop to go on", hint="await the run instead")
        try:
            background.wait(self._future, timeout)
            return self._future.result(0 if mainthread.here() else timeout)
        except CancelledError:
            return Answer("cancelled", "", reason="the event loop of the run was stopped")

    def __await__(self) -> Generator[Any, None, Answer]:
        """Wait for the answer. Whoever is cancelled here leaves the run as it is; `cancel` stops it."""
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()


def approver(approve: Callable[[Approval], Any] | None) -> Approver | None:
    """Return ``approve``, to be awaited; a plain function is called in a thread, where it may wait."""
    if approve is None or is_async(approve):
        return approve

    async def ask(approval: Approval) -> bool | str | Refusal:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if not answered.done():
                answered.set_exception(error) if error is not None else answered.set_result(result)

        def call() -> None:
            result, error = None, None
            try:
                result = approve(approval)
            except Exception as raised:  # noqa: BLE001  an edge: it is raised again in the run
                error = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        # Not one of a pool, which a person who never answers would keep the process alive with.
        threading.Thread(target=call, name="rlm-approval", daemon=True).start()
        result = await answered
        if inspect.isawaitable(result):
            result = await result
        verdict: bool | str | Refusal = result
        return verdict

    return ask


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
