"""Answer what cells ask: plain questions to a sub-model, and questions to children.

One `SubCalls` serves the cells of one run. Requests of a batch go out together; a failed one becomes a
`CallError` in its place, the others survive. Each is admitted by the ledger before it is sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from .context import Context
from .errors import BudgetExceededError, CallError, ContextError, ModelError
from .events import CallFinished, CallStarted, Emitter
from .ledger import Ledger
from .messages import Message, sendable
from .models.base import Request
from .models.plan import ModelPlan
from .prompts import sub_prompt
from .repl.base import BudgetQuery, Call, LLMQuery, RLMQuery
from .usage import Usage

__all__ = ["Place", "SubCalls"]

# What fits into one prompt when a child would be too deep and is asked plainly instead.
PLAIN_CONTEXT_CHARS = 2_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where calls come from: the run, its depth, and the turn and cell that are being executed."""

    run: str
    depth: int
    turn: int
    cell: str


Child = Callable[[str, Context | None, str, str | None], Awaitable[str]]
"""Runs a child over (query, context, id of the call, name of the model) and returns the answer's text.
Raises `CallError` where there is none."""


class SubCalls:
    """The handler of the calls of one run. ``child`` is None where children would be too deep."""

    def __init__(
        self, plan: ModelPlan, ledger: Ledger, emitter: Emitter, ids: count[int], child: Child | None
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._emitter = emitter
        self._ids = ids
        self._child = child

    async def answer(self, call: Call, place: Place) -> Sequence[Any | CallError]:
        """Answer ``call``, made at ``place``; see `rlm_kernel.repl.base.CallHandler`."""
        if isinstance(call, BudgetQuery):
            return [self._ledger.left()]
        if isinstance(call, LLMQuery):
            return await self._ask_all(call, place)
        return await self._ask_children(call, place)

    async def _ask_all(self, call: LLMQuery, place: Place) -> Sequence[Any | CallError]:
        batch = f"b{next(self._ids)}" if call.batched else None
        if not call.batched:
            return [await self._ask(call, call.prompts[0], place, batch, 0)]
        return await asyncio.gather(
            *(self._ask(call, prompt, place, batch, index) for index, prompt in enumerate(call.prompts))
        )

    async def _ask(
        self, call: LLMQuery, prompt: Any, place: Place, batch: str | None, index: int
    ) -> Any | CallError:
        depth = place.depth + 1
        try:
            model = self._plan.at(depth, call.model)
            if not prompt:
                raise CallError("the prompt is empty", kind="bad_request")
            self._ledger.admit()
        except BudgetExceededError as error:
            return CallError(str(error), kind="budget")
        except CallError as error:
            return error
        id_ = f"c{next(self._ids)}"
        message: Message = {"role": "user", "content": sendable(prompt)}
        self._emitter.emit(
            CallStarted(
                run=place.run,
                call=id_,
                kind="llm_query",
                turn=place.turn,
                depth=depth,
                model=model.name,
                cell=place.cell,
                batch=batch,
                index=index,
                messages=(message,),
            )
        )
        started = time.monotonic()
        request = Request(
            [message],
            self._plan.options_at(depth),
            schema=call.schema,
            timeout=self._ledger.seconds_left,
        )
        try:
            reply = await model.reply(request)
        except ModelError as error:
            self._finish(place, id_, started, error=error, attempts=error.attempts)
            return CallError(str(error), kind="model")
        except BaseException as error:
            self._finish(place, id_, started, error=error)
            raise
        self._ledger.record(model.name, depth, reply.usage)
        self._emitter.emit(
            CallFinished(
                run=place.run,
                call=id_,
                text=reply.text,
                model=reply.model,
                usage=reply.usage,
                finish_reason=reply.finish_reason,
                attempts=reply.attempts,
                seconds=time.monotonic() - started,
            )
        )
        return reply.text if call.schema is None else _value(reply.text)

    def _finish(
        self, place: Place, id_: str, started: float, *, error: BaseException, attempts: int = 1
    ) -> None:
        self._emitter.emit(
            CallFinished(
                run=place.run,
                call=id_,
                usage=Usage(),
                attempts=attempts,
                seconds=time.monotonic() - started,
                error=f"{type(error).__name__}: {error}".rstrip(": "),
            )
        )

    async def _ask_children(self, call: RLMQuery, place: Place) -> Sequence[Any | CallError]:
        batch = f"b{next(self._ids)}" if call.batched else None
        return await asyncio.gather(
            *(
                self._ask_child(query, context, call.model, place, batch, index)
                for index, (query, context) in enumerate(call.items)
            )
        )

    async def _ask_child(
        self,
        query: str,
        context: Context | None,
        name: str | None,
        place: Place,
        batch: str | None,
        index: int,
    ) -> str | CallError:
        if self._child is None:
            try:
                prompt = _plain_prompt(query, context)
            except CallError as error:
                return error
            plain = LLMQuery((prompt,), model=name)
            answer: str | CallError = await self._ask(plain, prompt, place, batch, index)
            return answer
        try:
            model = self._plan.at(place.depth + 1, name)
            self._ledger.check()
        except BudgetExceededError as error:
            return CallError(str(error), kind="budget")
        except CallError as error:
            return error
        id_ = f"c{next(self._ids)}"
        self._emitter.emit(
            CallStarted(
                run=place.run,
                call=id_,
                kind="rlm_query",
                turn=place.turn,
                depth=place.depth + 1,
                model=model.name,
                cell=place.cell,
                batch=batch,
                index=index,
                messages=({"role": "user", "content": query},),
            )
        )
        started = time.monotonic()
        try:
            text = await self._child(query, context, id_, name)
        except CallError as error:
            self._finish(place, id_, started, error=error)
            return error
        except BaseException as error:
            self._finish(place, id_, started, error=error)
            raise
        self._emitter.emit(
            CallFinished(
                run=place.run, call=id_, text=text, model=model.name, seconds=time.monotonic() - started
            )
        )
        return text


def _plain_prompt(query: str, context: Context | None) -> str:
    """Put a child's question and its context into one prompt, for a plain call at the depth limit."""
    if context is None:
        return sub_prompt(query)
    try:
        value = context.value
    except ContextError as error:
        raise CallError(str(error), kind="bad_request") from None
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError):
            text = str(value)
    if len(text) > PLAIN_CONTEXT_CHARS:
        raise CallError(
            f"the context has {len(text):,} characters, and at this depth rlm_query is one plain model call, "
            f"which takes up to {PLAIN_CONTEXT_CHARS:,}: split the context and use llm_query_batched",
            kind="depth",
        )
    return sub_prompt(query, text)


def _value(text: str) -> Mapping[str, Any] | Any | CallError:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return CallError(f"the reply is not the JSON asked for: {text[:200]!r}", kind="model")
