"""The requests of one run to its root model: admitted by the ledger, streamed, recorded, told of.

The run's kernel starts beside the first of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..events import CallDelta, CallStarted
from ..messages import Message
from ..models.base import Carried, Model, Reply, Request
from ..repl.supervisor import Supervisor
from .opencall import OpenCall

if TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["RootCalls"]


class RootCalls:
    """Asks the root model of the run ``run``, whose REPL is ``repl``."""

    def __init__(self, engine: Engine, run: str, depth: int, model: Model, repl: Supervisor) -> None:
        self.model = model
        self._engine = engine
        self._run = run
        self._depth = depth
        self._repl = repl
        self._carried: list[Carried] = []
        self._memo: dict[str, Any] = {}

    async def ask(self, messages: Sequence[Message], turn: int, *, apart: bool = False) -> Reply:
        """Ask for the reply to ``messages``.

        ``apart`` is for messages that are not the run's conversation as its events tell it: they stand in
        the call's own event.

        Raises:
            BudgetExceededError: a cap is reached; nothing was sent.
            ModelError: there is no reply to be had.
        """
        engine = self._engine
        engine.ledger.admit()
        request = Request(
            tuple(messages),
            engine.plan.options_at(self._depth),
            cache_key=f"rlm-{self._run}",
            timeout=engine.ledger.seconds_left,
            carried=tuple(self._carried),
            memo=None if apart else self._memo,
        )
        started = CallStarted(
            run=self._run,
            call=f"c{next(engine.ids)}",
            kind="root",
            turn=turn,
            depth=self._depth,
            model=self.model.name,
            messages=tuple(messages) if apart else (),
        )
        with OpenCall(engine.emitter, started) as done:
            reply: Reply | None = None
            async for piece in self._stream(request):
                if isinstance(piece, str):
                    engine.emitter.emit(CallDelta(run=self._run, call=done.call, text=piece))
                else:
                    reply = piece
            if reply is None:
                raise RuntimeError(f"the stream of {self.model.name} ended without a reply")
            engine.ledger.record(self.model.name, self._depth, reply.usage)
            done(reply)
        if reply.carried is not None and not apart:
            self._carried.append(reply.carried)
        return reply

    async def _stream(self, request: Request) -> AsyncIterator[str | Reply]:
        """Stream the root's turn; once the request is under way, make the kernel ready beside it."""
        # Where a model has something to make ready, the kernel must not take the processors from it.
        make_ready = getattr(self.model, "open", None)
        if make_ready is not None and not self._repl.begun:
            await make_ready()
        async with aclosing(self.model.stream(request)) as pieces:  # type: ignore[type-var]
            first = asyncio.ensure_future(anext(pieces, None))
            self._repl.begin(beside=first)
            try:
                piece = await first
            finally:
                if not first.done():
                    # The stream can't be closed while it runs.
                    first.cancel()
                    await asyncio.wait({first})
            while piece is not None:
                yield piece
                piece = await anext(pieces, None)
