"""The chat completions format: writing a request's body, reading what comes back, whole or in pieces.

Pure functions over JSON values, the same for the raw and the streamed path. Endpoints differ in what
they leave out, so reading is tolerant: a missing field gets a stated stand-in, and `NotAReplyError` is
raised only where there is nothing to go on with.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from ..errors import RequestRefusedError
from ..messages import Message, message_text, sendable
from ..usage import Usage
from .base import ModelOptions, Reply, Request

__all__ = ["CHARS_PER_TOKEN", "Draft", "NotAReplyError", "encode", "is_strict", "read_usage", "request_body"]

CHARS_PER_TOKEN = 4
"""For estimates where an endpoint reports no usage."""


class NotAReplyError(ValueError):
    """What came with status 200 is no reply; ``status`` is the one an error object in it names, or None."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


def request_body(
    model: str, request: Request, defaults: ModelOptions, *, token_limit: str, cache_key: bool
) -> dict[str, Any]:
    """Return the body that asks ``model`` for ``request``.

    ``token_limit`` is what the endpoint calls a cap on output, ``cache_key`` whether it takes one. Options
    of the request win over ``defaults``; their ``extra_body`` comes last and may replace any field.
    """
    options = request.options
    body: dict[str, Any] = {"model": model, "messages": _History.of(request)}
    for name, asked, default in (
        ("temperature", options.temperature, defaults.temperature),
        (token_limit, options.max_output_tokens, defaults.max_output_tokens),
        ("reasoning_effort", options.reasoning_effort, defaults.reasoning_effort),
        ("prompt_cache_key", request.cache_key if cache_key else None, None),
    ):
        value = default if asked is None else asked
        if value is not None:
            body[name] = value
    if request.schema is not None:
        schema = {"name": "answer", "schema": request.schema, "strict": is_strict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {**body, **defaults.extra_body, **options.extra_body}


@dataclass(slots=True)
class _History:
    """The messages of a request, and the JSON they were written as.

    A conversation's next request begins with the messages of the one before, most often: only what is new
    is looked at and written.
    """

    messages: Sequence[Message] = ()
    text: str = ""

    @classmethod
    def of(cls, request: Request) -> _History:
        memo = {} if request.memo is None else request.memo
        before = memo.get("chat", cls())
        messages, known = request.messages, len(before.messages)
        if len(messages) < known or not all(map(operator.is_, before.messages, messages)):
            before, known = cls(), 0
        new = [{**each, "content": sendable(each["content"])} for each in messages[known:]]
        parts = [before.text] if before.text else []
        history = cls(messages, ", ".join([*parts, *(json.dumps(each, ensure_ascii=False) for each in new)]))
        memo["chat"] = history
        return history


def is_strict(schema: Any) -> bool:
    """Tell whether OpenAI's strict mode takes ``schema``: all properties required, no others allowed."""
    if isinstance(schema, Mapping):
        if "properties" in schema or schema.get("type") == "object":
            names = set(schema.get("properties", ()))
            if schema.get("additionalProperties") is not False or names != set(schema.get("required", ())):
                return False
        return all(is_strict(value) for value in schema.values())
    if isinstance(schema, list | tuple):
        return all(is_strict(value) for value in schema)
    return True


def encode(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as JSON.

    Raises:
        RequestRefusedError: a value in it is no JSON.
    """
    history = body.get("messages")
    try:
        if not isinstance(history, _History):
            return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        rest = {name: value for name, value in body.items() if name != "messages"}
        text = json.dumps(rest, ensure_ascii=False, allow_nan=False)
        return f'{text[:-1]}, "messages": [{history.text}]}}'.encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    raise RequestRefusedError(
        f"the request can't be written as JSON: {reason}",
        hint="extra_body and schema take JSON values only",
        model=str(body.get("model")),
        attempts=0,
    )


@dataclass(slots=True)
class Draft:
    """A reply as far as it has come: `add` a whole body or the chunks of a stream, then take `reply`."""

    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    model: str = ""
    finish_reason: str = ""
    usage: Any = None
    calls_tools: bool = False

    def add(self, data: Any) -> str:
        """Take in a chunk of a stream, or a whole body; return the text it brings.

        Raises:
            NotAReplyError: it is not an object, or an error object.
        """
        if not isinstance(data, Mapping):
            raise NotAReplyError(f"the body is {_kind(data)}, not an object")
        if data.get("error"):
            raise _error_in_body(data["error"])
        self.model = self.model or _text(data.get("model")) or ""
        self.usage = data.get("usage") or self.usage
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            return ""
        if choice.get("error"):
            raise _error_in_body(choice["error"])
        self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
        message = choice.get("delta") or choice.get("message")
        return self._take(message) if isinstance(message, Mapping) else ""

    def _take(self, message: Mapping[str, Any]) -> str:
        text = _text(message.get("content"))
        if text is None:
            text = _text(message.get("refusal"))
        if text is not None:
            self.pieces.append(text)
        thought = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
        if thought:
            self.thoughts.append(thought)
        self.calls_tools = self.calls_tools or bool(message.get("tool_calls"))
        return text or ""

    def reply(self, request: Request, asked: str, attempts: int, *, streamed: bool) -> Reply:
        """Return the finished reply, its price left open.

        Without usage from the endpoint, tokens are estimated at `CHARS_PER_TOKEN`, so that budgets hold. A
        stream must have said how it finished, or what it used. An empty text is a reply where the endpoint
        means it: not null, and not thoughts alone, unless cut by a limit or a filter.

        Raises:
            NotAReplyError: there is no text.
        """
        text, reasoning = "".join(self.pieces), "".join(self.thoughts)
        if streamed and not self.finish_reason and self.usage is None:
            raise NotAReplyError("the stream ended before it was finished")
        if not text and not self.calls_tools and self.finish_reason not in ("length", "content_filter"):
            if not self.pieces and not reasoning:
                raise NotAReplyError("it holds no text: no choices, or null content")
            if reasoning:
                raise NotAReplyError(f"it holds {len(reasoning):,} characters of reasoning and no text")
        return Reply(
            text=text,
            usage=read_usage(self.usage, request.messages, len(text) + len(reasoning)),
            model=self.model or asked,
            finish_reason=self.finish_reason or "stop",
            attempts=attempts,
            reasoning=reasoning,
        )


def read_usage(usage: Any, messages: Sequence[Message], reply_chars: int) -> Usage:
    """Return tokens, and the price where the endpoint reports one (``usage.cost`` in USD, as OpenRouter).

    Fields are those of OpenAI; DeepSeek's ``prompt_cache_hit_tokens`` counts too. Endpoints that leave
    reasoning out of ``completion_tokens`` have it in ``total_tokens``: the difference is output.
    """
    if not isinstance(usage, Mapping):
        chars = sum(len(message_text(each)) for each in messages)
        return Usage(-(-chars // CHARS_PER_TOKEN), -(-reply_chars // CHARS_PER_TOKEN), cost_usd=None)
    into, out = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    out = max(out, _count(usage, "total_tokens") - into)
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    cached = cached or _count(usage, "prompt_cache_hit_tokens")
    reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(into, out, min(cached, into), min(reasoning, out), _cost(usage.get("cost")))


def _count(fields: Any, name: str) -> int:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return max(0, int(value)) if whole and value is not None else 0


def _cost(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    return cost if cost.is_finite() and cost >= 0 else None


def _text(value: Any) -> str | None:
    """Return text that is a string, or a list of parts of which some are text; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts: Iterable[Any] = (each.get("text") for each in value if isinstance(each, Mapping))
        return "".join(part for part in parts if isinstance(part, str))
    return None


def _error_in_body(error: Any) -> NotAReplyError:
    message, status = error, None
    if isinstance(error, Mapping):
        message, code = error.get("message", error), error.get("code")
        if isinstance(code, int) and 400 <= code < 600:
            status = code
    return NotAReplyError(f"an error in place of a reply: {message}", status)


def _kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"
