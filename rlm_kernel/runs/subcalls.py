"""Answer what cells ask: plain questions to a sub-model, and questions to children.

One `SubCalls` serves the cells of one run. Requests of a batch go out together; a failed one becomes a
`CallError` in its place, the others survive. Each is admitted by the ledger before it is sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Protocol

from ..context import Context
from ..errors import BudgetExceededError, CallError, ContextError, ModelError
from ..events import CallKind, CallStarted, Emitter
from ..ledger import Ledger
from ..messages import Message, Part, sendable
from ..models.base import Model, Reply, Request
from ..models.plan import ModelPlan
from ..prompts import sub_prompt
from ..repl.base import BudgetQuery, Call, LLMQuery, ToolCall, ToolStub
from ..usage import Usage
from .opencall import OpenCall
from .typedcalls import TypedCalls, result_text, tool_text

__all__ = ["Place", "SubCalls", "Tools"]

# What fits into one prompt when a child would be too deep and is asked plainly instead.
PLAIN_CONTEXT_CHARS = 2_000_000
# Children at a time, each with a kernel. The bound is one run's, not the tree's: parents wait for children.
CHILDREN = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call comes from: the run, its depth, the turn and the cell; in a batch, which one and where."""

    run: str
    depth: int
    turn: int
    cell: str
    batch: str | None = None
    index: int = 0


Child = Callable[[str, Context | None, str, str | None], Awaitable[str]]
"""Runs a child over (query, context, id of the call, name of the model) and returns the answer's text.
Raises `CallError` where there is none."""


class Tools(Protocol):
    """The user's functions, as runs at each depth have them."""

    def described(self, depth: int) -> tuple[tuple[str, str], ...]:
        """Return signature and description of each."""
        ...

    def stubs(self, depth: int) -> tuple[ToolStub, ...]:
        """Return what a kernel is told of each."""
        ...

    def prepare(self, call: ToolCall, depth: int) -> Callable[[], Awaitable[Any]]:
        """Check a call; return what makes it, and returns a JSON value.

        Raises:
            CallError: it can't be made; what is returned raises it if the function fails.
        """
        ...


class SubCalls:
    """The handler of the calls of one run. ``child`` is None where children would be too deep."""

    def __init__(
        self,
        plan: ModelPlan,
        ledger: Ledger,
        emitter: Emitter,
        ids: count[int],
        child: Child | None,
        *,
        tools: Tools | None = None,
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._emitter = emitter
        self._ids = ids
        self._child = child
        self._children = asyncio.Semaphore(CHILDREN)
        self._tools = tools
        self._typed = TypedCalls()

    async def answer(self, call: Call, place: Place) -> Sequence[Any | CallError]:
        """Answer ``call``, made at ``place``; see `rlm_kernel.repl.base.CallHandler`."""
        if isinstance(call, BudgetQuery):
            return [self._ledger.left()]
        if isinstance(call, ToolCall):
            return [await self._or_error(partial(self._call_tool, call), place)]
        if isinstance(call, LLMQuery):
            asked = [partial(self._ask, prompt, call.model, call.schema) for prompt in call.prompts]
        else:
            asked = [partial(self._ask_child, query, context, call.model) for query, context in call.items]
        if not call.batched:
            return [await self._or_error(asked[0], place)]
        batch = f"b{next(self._ids)}"
        return await asyncio.gather(
            *(
                self._or_error(each, replace(place, batch=batch, index=index))
                for index, each in enumerate(asked)
            )
        )

    async def _or_error(self, ask: Callable[[Place], Awaitable[Any]], place: Place) -> Any | CallError:
        """Return a reply, or what the cell may know of why there is none."""
        try:
            return await ask(place)
        except CallError as error:
            return error
        except BudgetExceededError as error:
            return CallError(str(error), kind="budget")
        except ModelError as error:
            return CallError(str(error), kind="model")

    async def _ask(
        self,
        prompt: str | list[Part],
        name: str | None,
        schema: Mapping[str, Any] | None,
        place: Place,
    ) -> Any:
        if not prompt:
            raise CallError("the prompt is empty", kind="bad_request")
        model = self._plan.at(place.depth + 1, name)
        if schema is None:
            message: Message = {"role": "user", "content": sendable(prompt)}
            return (await self._reply(model, place, [message], None)).text
        send = partial(self._reply, model, place)
        return await self._typed.ask(prompt, schema, model.name, send)

    async def _reply(
        self, model: Model, place: Place, messages: Sequence[Message], schema: Mapping[str, Any] | None
    ) -> Reply:
        """Send one request; it is admitted, recorded and told of."""
        depth = place.depth + 1
        self._ledger.admit()
        request = Request(
            messages, self._plan.options_at(depth), schema=schema, timeout=self._ledger.seconds_left
        )
        with self._call("llm_query", model.name, messages, place) as done:
            reply = await model.reply(request)
            self._ledger.record(model.name, depth, reply.usage)
            done(reply)
        return reply

    async def _call_tool(self, call: ToolCall, place: Place) -> Any:
        if self._tools is None:
            raise CallError("there are no tools", kind="bad_request")
        make = self._tools.prepare(call, place.depth)
        self._ledger.admit_tool()
        asked: Message = {"role": "user", "content": sendable(tool_text(call))}
        with self._call("tool", "", [asked], replace(place, depth=place.depth - 1), call.name) as done:
            value = await make()
            done(Reply(result_text(value), Usage(), "", finish_reason=""))
        return value

    async def _ask_child(self, query: str, context: Context | None, name: str | None, place: Place) -> Any:
        if self._child is None:
            return await self._ask(_plain_prompt(query, context), name, None, place)
        model = self._plan.at(place.depth + 1, name)
        self._ledger.check()
        message: Message = {"role": "user", "content": sendable(query)}
        with self._call("rlm_query", model.name, [message], place) as done:
            async with self._children:
                text = await self._child(query, context, done.call, name)
            done(Reply(text, Usage(), model.name, finish_reason=""))
        return text

    def _call(
        self, kind: CallKind, model: str, messages: Sequence[Message], place: Place, tool: str = ""
    ) -> OpenCall:
        return OpenCall(
            self._emitter,
            CallStarted(
                run=place.run,
                call=f"c{next(self._ids)}",
                kind=kind,
                turn=place.turn,
                depth=place.depth + 1,
                model=model,
                cell=place.cell,
                batch=place.batch,
                index=place.index,
                messages=tuple(messages),
                tool=tool,
            ),
        )


def _plain_prompt(query: str, context: Context | None) -> str:
    """Put a child's question and its context into one prompt, for a plain call at the depth limit."""
    if context is None:
        return sub_prompt(query)
    size = context.size_bytes
    # A character takes four bytes at most: what is larger is too long in any case, and never decoded.
    if size is not None and size > 4 * PLAIN_CONTEXT_CHARS:
        raise _too_long(f"{size:,} bytes")
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
        raise _too_long(f"{len(text):,} characters")
    return sub_prompt(query, text)


def _too_long(size: str) -> CallError:
    return CallError(
        f"the context has {size}, and at this depth rlm_query is one plain model call, which takes up to "
        f"{PLAIN_CONTEXT_CHARS:,} characters: split the context and use llm_query_batched",
        kind="depth",
    )
