"""Models asked by the Responses API, where an endpoint offers it: the same protocol, another format.

What it gains over chat completions is that a reasoning model's thoughts live on between root turns: each
reply brings them as encrypted items, and the next request of the same conversation hands them back. They
are opaque here, go to no other endpoint and into no log. Nothing is stored at the endpoint. Retries,
failures, prices and connections are `OpenAIModel`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ..errors import RequestRefusedError
from ..messages import Message, Part, sendable
from .base import Carried, ModelOptions, Reply, Request
from .chat import Draft, NotAReplyError, is_strict
from .openai import OpenAIModel

__all__ = ["ResponseDraft", "ResponsesModel", "response_body"]

ENCRYPTED = "reasoning.encrypted_content"


class ResponsesModel(OpenAIModel):
    """A model asked by ``/responses``; arguments, prices, retries and failures are `OpenAIModel`'s.

    Streams, which are root turns, ask for encrypted reasoning and hand back what `Request.carried` holds of
    this model and endpoint. Where the endpoint refuses that, the model goes on without, for good.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._endpoint = dataclasses.replace(self._endpoint, path="/responses")
        self._carries = True

    def __repr__(self) -> str:
        return f"ResponsesModel({self._name!r}, base_url={self._endpoint.base_url!r})"

    async def stream(self, request: Request) -> AsyncGenerator[str | Reply, None]:
        """Answer ``request`` as it is written; see `rlm_kernel.models.base.Model.stream`."""
        carries = self._carries
        before = 0
        try:
            async with aclosing(super().stream(request)) as pieces:
                async for piece in pieces:
                    yield piece
                return
        except RequestRefusedError as error:
            # "Encrypted content is not supported with this model", or it "could not be verified".
            if not (carries and error.status == 400 and "encrypted" in str(error).lower()):
                raise
            before = error.attempts
        self._carries = False
        async with aclosing(super().stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reply):
                    piece = dataclasses.replace(piece, attempts=piece.attempts + before)  # noqa: PLW2901
                yield piece

    def _body(self, request: Request) -> dict[str, object]:
        carried = [each for each in request.carried if each.origin == self._origin] if self._carries else ()
        return response_body(self._name, request, self._options, carried, cache_key=self._cache_key)

    def _stream_body(self, request: Request) -> dict[str, object]:
        body = self._body(request)
        if self._carries:
            body.setdefault("include", [ENCRYPTED])
        return {**body, "stream": True}

    def _draft(self) -> Draft:
        return ResponseDraft(origin=self._origin)

    @property
    def _origin(self) -> tuple[str, str]:
        return self.base_url, self._name


def response_body(
    model: str, request: Request, defaults: ModelOptions, carried: Iterable[Carried], *, cache_key: bool
) -> dict[str, Any]:
    """Return the body that asks ``model`` for ``request``; see `rlm_kernel.models.chat.request_body`.

    An assistant message whose text is that of one of ``carried`` goes out as the items that came with it.
    """
    options = request.options
    body: dict[str, Any] = {"model": model, "input": _input(request.messages, carried), "store": False}
    effort = options.reasoning_effort or defaults.reasoning_effort
    for name, asked, default in (
        ("temperature", options.temperature, defaults.temperature),
        ("max_output_tokens", options.max_output_tokens, defaults.max_output_tokens),
        ("reasoning", {"effort": effort} if effort else None, None),
        ("prompt_cache_key", request.cache_key if cache_key else None, None),
    ):
        value = default if asked is None else asked
        if value is not None:
            body[name] = value
    if request.schema is not None:
        schema = {"name": "answer", "schema": request.schema, "strict": is_strict(request.schema)}
        body["text"] = {"format": {"type": "json_schema", **schema}}
    return {**body, **defaults.extra_body, **options.extra_body}


def _input(messages: Sequence[Message], carried: Iterable[Carried]) -> list[Any]:
    # By text, not by place: a history that was shortened or rewritten still finds what belongs to it, and
    # a reply that was cut goes out without thoughts that led to more than it says.
    left = list(carried)
    items: list[Any] = []
    for message in messages:
        content = sendable(message["content"])
        own = next((each for each in left if each.text == content), None)
        if message["role"] == "assistant" and own is not None:
            left.remove(own)
            items += own.items
        else:
            items.append({"type": "message", "role": message["role"], "content": _content(message, content)})
    return items


def _content(message: Message, content: str | list[Part]) -> str | list[dict[str, Any]]:
    kind = "output_text" if message["role"] == "assistant" else "input_text"
    if isinstance(content, str):
        return [{"type": kind, "text": content}] if kind == "output_text" else content
    return [
        {"type": kind, "text": part["text"]}
        if part["type"] == "text"
        else {"type": "input_image", "image_url": part["image_url"]["url"]}
        for part in content
    ]


@dataclass(slots=True)
class ResponseDraft(Draft):
    """A reply as far as it has come, from a whole response object or from a stream's events.

    ``origin`` is the endpoint and model that `Carried` items may go back to.
    """

    origin: tuple[str, str] = ("", "")
    items: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, data: Any) -> str:
        """Take in an event, or a whole response object; return the text it brings.

        Raises:
            NotAReplyError: it is not an object, or tells of a failure.
        """
        if not isinstance(data, Mapping):
            raise NotAReplyError(f"it is of type {type(data).__name__}, not an object")
        kind = data.get("type")
        if kind == "error" or data.get("error"):
            raise _failed(data.get("error") or data)
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            return self._take_delta(data.get("delta"))
        if kind == "response.output_item.done":
            self.items += _objects([data.get("item")])
            return ""
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            return self._finish(data.get("response"))
        return self._finish(data) if kind is None else ""

    def _finish(self, response: Any) -> str:
        if not isinstance(response, Mapping):
            raise NotAReplyError("it holds no response")
        if response.get("error") or response.get("status") == "failed":
            raise _failed(response.get("error") or "failed, for no stated reason")
        self.items = _objects(response.get("output")) or self.items
        self.model = str(response.get("model") or self.model)
        self.usage = _usage_of_chat(response.get("usage")) or self.usage
        if response.get("status") in ("completed", "incomplete"):
            details = response.get("incomplete_details")
            cause = details.get("reason") if isinstance(details, Mapping) else None
            unfinished = "length" if cause in (None, "max_output_tokens") else str(cause)
            self.finish_reason = "stop" if response["status"] == "completed" else unfinished
        said: list[str] = []
        for item in self.items:
            kind = item.get("type")
            parts = _objects(item.get("content"))
            if kind == "reasoning":
                self.thoughts += _texts([*_objects(item.get("summary")), *parts])
            elif kind == "message":
                said += _texts(parts)
            elif isinstance(kind, str) and kind.endswith("_call"):
                self.calls_tools = True
        if self.pieces:  # they came as deltas already
            return ""
        self.pieces += said
        return "".join(said)

    def _take_delta(self, piece: Any) -> str:
        if not isinstance(piece, str):
            return ""
        self.pieces.append(piece)
        return piece

    def reply(self, request: Request, asked: str, attempts: int, *, streamed: bool) -> Reply:
        """Return the finished reply; see `rlm_kernel.models.chat.Draft.reply`."""
        reply = Draft.reply(self, request, asked, attempts, streamed=streamed)
        thoughts = [item for item in self.items if item.get("type") == "reasoning"]
        # Without its content, a thought's id means nothing to an endpoint that stores nothing.
        if not thoughts or not all(item.get("encrypted_content") for item in thoughts):
            return reply
        return dataclasses.replace(reply, carried=Carried(self.origin, reply.text, tuple(self.items)))


def _objects(values: Any) -> list[Mapping[str, Any]]:
    return [each for each in values if isinstance(each, Mapping)] if isinstance(values, list) else []


def _texts(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    texts = (part.get("text", part.get("refusal")) for part in parts)
    return [text for text in texts if isinstance(text, str)]


def _usage_of_chat(usage: Any) -> dict[str, Any] | None:
    """Return ``usage`` under the names that chat completions have for the same numbers."""
    if not isinstance(usage, Mapping):
        return None
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "total_tokens": usage.get("total_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
        "cost": usage.get("cost"),
    }


_STATUS = {
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "vector_store_timeout": 408,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
}


def _failed(error: Any) -> NotAReplyError:
    """Return what an error object in place of a reply stands for; its code is a word, or a status."""
    message, code = error, None
    if isinstance(error, Mapping):
        message, code = error.get("message", error), error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else _STATUS.get(str(code))
    return NotAReplyError(f"an error in place of a reply: {message}", status)
