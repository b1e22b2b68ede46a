"""The two events of a call: one when it starts, one when it ends, however it ends."""

from __future__ import annotations

import time
from types import TracebackType

from ..events import CallFinished, CallStarted, Emitter
from ..models.base import Reply

__all__ = ["OpenCall"]


class OpenCall:
    """A call in progress, as a context manager; call it with the reply.

    A call that ends without a reply ends with the error that left the block.
    """

    def __init__(self, emitter: Emitter, started: CallStarted) -> None:
        self._emitter = emitter
        self._started = started
        self._clock = 0.0
        self.call = started.call

    def __enter__(self) -> OpenCall:
        self._emitter.emit(self._started)
        self._clock = time.monotonic()
        return self

    def __call__(self, reply: Reply) -> None:
        """End the call with ``reply``."""
        self._emitter.emit(
            CallFinished(
                run=self._started.run,
                call=self.call,
                text=reply.text,
                model=reply.model,
                usage=reply.usage,
                finish_reason=reply.finish_reason,
                attempts=reply.attempts,
                seconds=time.monotonic() - self._clock,
            )
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._emitter.emit(
                CallFinished(
                    run=self._started.run,
                    call=self.call,
                    attempts=getattr(error, "attempts", 1),
                    seconds=time.monotonic() - self._clock,
                    error=f"{type(error).__name__}: {error}".rstrip(": "),
                )
            )
