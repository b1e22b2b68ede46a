"""One plain call in place of a run, where the user allows it and the context is short; its size beforehand.

A direct call is a run without a kernel: same events, ledger and outcomes. What such a call would take is
estimated for every root run, so that a user can tell whether the run was worth it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..context import Context
from ..errors import RequestRefusedError
from ..estimate import REPLY_TOKENS, Estimate, text_tokens, value_tokens
from ..events import CallDelta, CallStarted, Notice
from ..guest.describe import CHARS_PER_TOKEN
from ..messages import Message, sendable
from ..models.base import Model, ModelOptions, Reply, Request
from ..prompts import sub_prompt
from ..repl.base import FinalAnswer
from ..usage import Usage
from .opencall import OpenCall
from .run import Run
from .standing import Standing

if TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["DirectRun", "direct_prompt", "estimate", "first_run"]


def first_run(
    engine: Engine, query: str, contexts: Sequence[Context], standing: Standing | None = None
) -> Run:
    """Return the root run that answers ``query``: a direct one where settings allow it and it is short."""
    about = estimate(engine.plan.at(0), engine.plan.options_at(0), query, contexts)
    run: Run | None = None
    # A session's question may rest on what earlier ones left in the REPL.
    if standing is None and _may_be_direct(engine, about):
        prompt = direct_prompt(query, contexts)
        run = None if prompt is None else DirectRun(engine, query, contexts, prompt)
    run = run or Run(engine, query, contexts, depth=0, standing=standing)
    run.estimate = about
    return run


def _may_be_direct(engine: Engine, about: Estimate) -> bool:
    below = engine.settings.direct_below
    if below is None or about.tokens is None or about.fits is False:
        return False
    # What the user asks for beyond a text takes a REPL: tools are called there, quotes are cut out there.
    more = engine.output is not None or engine.tools or engine.cite
    return about.tokens < below and not more


def estimate(model: Model, options: ModelOptions, query: str, contexts: Sequence[Context]) -> Estimate:
    """Estimate one call to ``model`` with ``query`` and all of ``contexts`` in its prompt.

    Window and price are what the model knows of itself: its optional ``window`` and ``cost(usage)``.
    """
    sizes = [text_tokens(query), *map(_context_tokens, contexts)]
    known = [size for size in sizes if size is not None]
    tokens = math.ceil(sum(known)) if len(known) == len(sizes) else None
    window = getattr(options, "context_window", None) or getattr(model, "window", None)
    found = Estimate(model.name, tokens, window)
    cost = getattr(model, "cost", None)
    if tokens is None or cost is None or found.fits is False:
        return found
    return Estimate(model.name, tokens, window, cost(Usage(tokens, REPLY_TOKENS, cost_usd=None)))


def _context_tokens(context: Context) -> float | None:
    if context.file is None:
        return value_tokens(context.value)
    size = context.size_bytes
    return None if size is None or context.format not in ("text", "list", "dict") else size / CHARS_PER_TOKEN


def direct_prompt(query: str, contexts: Sequence[Context]) -> str | None:
    """Return question and contexts as one prompt, or None where a context is neither text nor JSON."""
    try:
        texts = [(context.name, _text(context.value)) for context in contexts]
    except (TypeError, ValueError, RecursionError):
        return None
    if len(texts) < 2:
        return sub_prompt(query, *(text for _, text in texts))
    return sub_prompt(query, "\n\n".join(f"{name}:\n{text}" for name, text in texts))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class DirectRun(Run):
    """A run that asks once, with everything in the prompt. ``prompt`` is that of `direct_prompt`.

    Where the model refuses the prompt, or gives no whole reply, the run goes on as any other.
    """

    def __init__(self, engine: Engine, query: str, contexts: Sequence[Context], prompt: str) -> None:
        super().__init__(engine, query, contexts, depth=0)
        self.prompt = prompt
        self.direct = True

    async def _turns(self) -> FinalAnswer | None:
        about = f"about {self.estimate.tokens:,} tokens" if self.estimate else "a short context"
        self.emit(Notice(run=self.id, text=f"{about}: asked directly, in one call without a REPL"))
        message: Message = {"role": "user", "content": sendable(self.prompt)}
        try:
            reply = await self._ask_once(message)
            refused = "" if reply.text.strip() and reply.finish_reason != "length" else "no whole reply"
        except RequestRefusedError as error:
            refused = str(error)
        if refused:
            self.direct = False
            self.emit(Notice(run=self.id, text=f"the direct call failed, a run takes its place: {refused}"))
            return await super()._turns()
        self.turn = 1
        self._say("user", self.prompt)
        self._say("assistant", reply.text)
        return FinalAnswer(reply.text, reply.text, "FINAL")

    async def _ask_once(self, message: Message) -> Reply:
        self.ledger.admit()
        request = Request(
            [message],
            self.engine.plan.options_at(0),
            cache_key=f"rlm-{self.id}",
            timeout=self.ledger.seconds_left,
        )
        started = CallStarted(
            run=self.id,
            call=f"c{next(self.engine.ids)}",
            kind="root",
            turn=1,
            depth=0,
            model=self.model.name,
            messages=(message,),
        )
        with OpenCall(self.engine.emitter, started) as done:
            async with aclosing(self.model.stream(request)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, Reply):
                        self.ledger.record(self.model.name, 0, piece.usage)
                        done(piece)
                        return piece
                    self.emit(CallDelta(run=self.id, call=done.call, text=piece))
        raise RuntimeError(f"the stream of {self.model.name} ended without a reply")
