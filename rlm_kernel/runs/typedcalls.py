"""Sub-calls whose reply must satisfy a JSON schema: asked, checked, and asked once more.

The schema is sent as ``response_format`` and stands in the prompt too, so that any endpoint will do: one
that refuses the former is asked without. Also here: how calls of the user's functions are written down.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ..errors import CallError, RequestRefusedError
from ..messages import Message, Part, TextPart, sendable
from ..models.base import Reply
from ..prompts import faulty_reply, json_request
from ..repl.base import ToolCall
from ..shapes import Faulty, guest_shape, read

__all__ = ["Send", "TypedCalls", "result_text", "tool_text"]

MOST_TOLD_CHARS = 200_000

Send = Callable[[Sequence[Message], Mapping[str, Any] | None], Awaitable[Reply]]
"""Sends one request, (messages, schema), and counts it."""


class TypedCalls:
    """Asks for values, for the cells of one run."""

    def __init__(self) -> None:
        self._without_format: set[tuple[str, str]] = set()

    async def ask(self, prompt: str | list[Part], schema: Mapping[str, Any], model: str, send: Send) -> Any:
        """Return the JSON value that ``model`` replies with to ``prompt``.

        Raises:
            CallError: no schema that can be checked; or no such value, in two attempts.
        """
        try:
            shape = guest_shape(schema)
        except Faulty as error:
            raise CallError(f"schema= is no JSON schema: {error}", kind="bad_request") from None
        asked = Message(
            role="user", content=sendable(_with_request(prompt, json_request(json.dumps(schema))))
        )
        reply = await self._send([asked], schema, model, send)
        try:
            return read(reply.text, shape)
        except Faulty as error:
            again = [
                asked,
                Message(role="assistant", content=sendable(reply.text)),
                Message(role="user", content=sendable(faulty_reply(error.faults))),
            ]
        reply = await self._send(again, schema, model, send)
        try:
            return read(reply.text, shape)
        except Faulty as error:
            raise CallError(
                f"the reply does not satisfy the schema, also when asked again: {error}; it begins with "
                f"{reply.text[:200]!r}",
                kind="schema",
            ) from None

    async def _send(
        self, messages: Sequence[Message], schema: Mapping[str, Any], model: str, send: Send
    ) -> Reply:
        key = (model, json.dumps(schema, sort_keys=True))
        if key in self._without_format:
            return await send(messages, None)
        try:
            return await send(messages, schema)
        except RequestRefusedError:
            # It may have been for the schema; if not, it is refused again.
            reply = await send(messages, None)
        self._without_format.add(key)
        return reply


def _with_request(prompt: str | list[Part], request: str) -> str | list[Part]:
    if isinstance(prompt, str):
        return f"{prompt}\n\n{request}"
    return [*prompt, TextPart(type="text", text=request)]


def tool_text(call: ToolCall) -> str:
    """Return a call of the user's function as it would be written."""
    given = [_told(each) for each in call.args]
    given += [f"{name}={_told(each)}" for name, each in call.kwargs.items()]
    return f"{call.name}({', '.join(given)})"


def result_text(value: Any) -> str:
    """Return what the user's function returned, as text."""
    return _cut(value) if isinstance(value, str) else _told(value)


def _told(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    if len(text) <= MOST_TOLD_CHARS:
        return text
    return f"{text[:MOST_TOLD_CHARS]}... ({len(text):,} characters in all)"
