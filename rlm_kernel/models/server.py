"""Scripted models behind a real HTTP server that speaks OpenAI's chat completions and Responses.

For tests, demonstrations and benchmarks: whatever asks a model over HTTP can ask this one. The server
keeps its own account of requests and tokens, to hold a client's against, and can be told to fail in the
ways endpoints do. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ..errors import AuthError, ModelError, ModelNotFoundError, RateLimitError, RequestRefusedError
from ..usage import Usage
from . import served_responses
from .base import Model, ModelOptions, Reply, Request

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Fault", "ScriptedServer", "Served"]

LARGEST_BODY_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Fault:
    """A way in which one request goes wrong, after ``seconds``.

    ``status`` answers with ``status`` and ``headers``; ``drop`` closes the connection without a word; ``cut``
    breaks it in mid-reply; ``short`` ends the reply cleanly in its middle; ``garbage`` is a body that isn't
    JSON, ``empty`` one without choices, ``null`` one without content, ``error`` an error object with
    status 200; ``hang`` never answers; ``slow`` only takes its time.
    """

    kind: Literal["status", "drop", "cut", "short", "garbage", "empty", "null", "error", "hang", "slow"]
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "a fault that was asked for"
    seconds: float = 0.0


@dataclass(slots=True)
class Served:
    """One request as the server saw it.

    ``number`` counts from 1; header names are in lower case; ``status`` is None while it is under way and
    499 where the client went away. ``api`` is the format spoken.
    """

    number: int
    model: str
    streamed: bool
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    status: int | None = None
    api: Literal["chat", "responses"] = "chat"


class ScriptedServer:
    """Serves models by name; use it as an asynchronous context manager.

    Args:
        models: What is served, by the name asked for.
        api_key: The key that requests must bear; None takes any, and none.
        fault: Called with each request, decides what goes wrong with it.
        record: Whether `requests` is kept; long benchmarks have no room for it.
        origin: The origin whose pages may read replies (CORS), or ``*``; None for none.

    ``requests`` and ``usage_by_model`` are the server's own account; replies that a fault spoilt count too.
    ``in_flight`` and ``peak`` are the requests under way, now and at most.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        api_key: str | None = None,
        fault: Callable[[Served], Fault | None] | None = None,
        record: bool = True,
        origin: str | None = None,
    ) -> None:
        self._origin = origin
        self._models = dict(models)
        self._api_key = api_key
        self._fault = fault
        self._record = record
        self._runner: web.AppRunner | None = None
        self._count = 0
        self.base_url = ""
        self.requests: list[Served] = []
        self.usage_by_model: dict[str, Usage] = {}
        self.in_flight = 0
        self.peak = 0

    async def __aenter__(self) -> ScriptedServer:
        from aiohttp import web  # noqa: PLC0415  on use

        app = web.Application(client_max_size=LARGEST_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/responses", self._complete)
        app.router.add_get("/v1/models", self._list)
        if self._origin is not None:
            app.router.add_route("OPTIONS", "/{path:.*}", _allow)
            app.on_response_prepare.append(self._let_read)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            await asyncio.sleep(0)  # transports give up their sockets in the loop's next pass

    async def _let_read(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Access-Control-Allow-Origin"] = self._origin or ""
        response.headers["Vary"] = "Origin"

    async def _list(self, request: web.Request) -> web.Response:
        try:
            self._check_key(request)
        except ModelError as error:
            return _error(error)
        return _json({"object": "list", "data": [{"id": name, "object": "model"} for name in self._models]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        served = None
        try:
            served = await self._read(request)
            response = await self._answer(request, served)
        except ModelError as error:
            response = _error(error)
        except asyncio.CancelledError:
            if served is not None:
                served.status = 499
            raise
        finally:
            self.in_flight -= 1
        if served is not None:
            served.status = response.status
        return response

    async def _read(self, request: web.Request) -> Served:
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError) as error:
            raise RequestRefusedError(f"the body is no JSON: {error}") from None
        api: Literal["chat", "responses"] = "responses" if request.path.endswith("/responses") else "chat"
        wanted = {"model": str, **({"messages": list} if api == "chat" else {"input": str | list})}
        if not isinstance(body, dict) or not all(isinstance(body.get(k), v) for k, v in wanted.items()):
            raise RequestRefusedError("the body must be an object with a model's name and a list of messages")
        self._count += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        served = Served(self._count, body["model"], bool(body.get("stream")), headers, body, api=api)
        if self._record:
            self.requests.append(served)
        return served

    def _check_key(self, request: web.Request) -> None:
        if self._api_key is not None and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            raise AuthError("wrong key")

    async def _answer(self, request: web.Request, served: Served) -> web.StreamResponse:
        fault = self._fault(served) if self._fault is not None else None
        if fault is not None:
            await asyncio.sleep(fault.seconds)
            if fault.kind == "status":
                return _error(ModelError(fault.message, status=fault.status), fault.headers)
            if fault.kind == "hang":
                await asyncio.Event().wait()
        self._check_key(request)
        if served.model not in self._models:
            raise ModelNotFoundError(f"The model {served.model!r} does not exist")
        reply, words = await _ask(self._models[served.model], served)
        used = self.usage_by_model.get(served.model, Usage())
        self.usage_by_model[served.model] = used + reply.usage
        write = _WRITERS[served.api, served.streamed]
        payload = write(reply, words, served, fault)
        if fault is not None and fault.kind in ("drop", "cut"):
            return await _break_off(request, payload if fault.kind == "cut" else b"")
        if fault is not None and fault.kind == "short":
            payload = payload[: len(payload) // 2]
        return _bytes(payload, "text/event-stream" if served.streamed else "application/json")


async def _ask(model: Model, served: Served) -> tuple[Reply, list[str]]:
    """Return the model's reply, and the pieces in which it is written."""
    if served.api == "responses":
        request = served_responses.read_request(served.body, served.number)
    else:
        request = _request(served.body)
    words: list[str] = []
    try:
        if not served.streamed:
            reply = await model.reply(request)
            return reply, [reply.text]
        async for piece in model.stream(request):
            if isinstance(piece, Reply):
                return piece, words
            words.append(piece)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001  an edge: scripts are the user's code
        raise ModelError(f"{type(error).__name__}: {error}") from None
    raise ModelError(f"the stream of {model.name} ended without a reply")


def _request(body: Mapping[str, Any]) -> Request:
    known = {"model", "messages", "stream", "stream_options", "temperature", "reasoning_effort"}
    known |= {"max_tokens", "max_completion_tokens", "response_format", "prompt_cache_key"}
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    options = ModelOptions(
        temperature=body.get("temperature"),
        max_output_tokens=body.get("max_completion_tokens", body.get("max_tokens")),
        reasoning_effort=body.get("reasoning_effort"),
        extra_body={name: value for name, value in body.items() if name not in known},
    )
    return Request(body["messages"], options, schema, body.get("prompt_cache_key"))


def _body(reply: Reply, words: list[str], served: Served, fault: Fault | None) -> bytes:
    kind = fault.kind if fault else None
    if kind == "garbage":
        return b"<html>not what you wanted</html>"
    if fault and kind == "error":
        return _dump({"error": {"message": fault.message, "code": fault.status}})
    message = {"role": "assistant", "content": None if kind == "null" else "".join(words)}
    choices = [{"index": 0, "message": message, "finish_reason": reply.finish_reason}]
    head = {"id": f"chatcmpl-{served.number}", "object": "chat.completion", "created": 0}
    body = {"model": reply.model, "choices": [] if kind == "empty" else choices}
    return _dump({**head, **body, "usage": _usage(reply.usage)})


def _events(reply: Reply, words: list[str], served: Served, fault: Fault | None) -> bytes:
    kind = fault.kind if fault else None
    if kind == "garbage":
        return b"data: {not what you wanted\n\n"
    head = {"id": f"chatcmpl-{served.number}", "object": "chat.completion.chunk", "created": 0}
    head["model"] = reply.model
    if fault and kind == "error":
        chunks: list[dict[str, Any]] = [{"error": {"message": fault.message, "code": fault.status}}]
    else:
        deltas = [] if kind in ("null", "empty") else [{"content": word} for word in words]
        choices: list[dict[str, Any]] = [{"delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"delta": {}, "finish_reason": reply.finish_reason})
        chunks = [{**head, "choices": [{"index": 0, **choice}]} for choice in choices]
        if kind == "empty":
            chunks = []
        if (served.body.get("stream_options") or {}).get("include_usage"):
            chunks.append({**head, "choices": [], "usage": _usage(reply.usage)})
    return b"".join(b"data: %b\n\n" % _dump(chunk) for chunk in chunks) + b"data: [DONE]\n\n"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


_WRITERS = {
    ("chat", False): _body,
    ("chat", True): _events,
    ("responses", False): served_responses.write_reply,
    ("responses", True): served_responses.write_events,
}


async def _break_off(request: web.Request, payload: bytes) -> web.StreamResponse:
    """Send half of ``payload`` at most, then close the connection."""
    from aiohttp import web  # noqa: PLC0415  on use

    response = web.StreamResponse()
    if payload:
        response.content_type = "text/event-stream"
        response.content_length = len(payload)
        await response.prepare(request)
        await response.write(payload[: len(payload) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


_STATUS = {AuthError: 401, ModelNotFoundError: 404, RequestRefusedError: 400, RateLimitError: 429}


async def _allow(request: web.Request) -> web.Response:
    """Answer a browser that asks whether a page may send what it wants to send."""
    asked = request.headers.get("Access-Control-Request-Headers", "")
    headers = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Allow-Headers": asked}
    return _bytes(b"", "text/plain", 204, headers)


def _error(error: ModelError, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"error": {"message": str(error), "type": type(error).__name__, "code": None}}
    return _json(body, error.status or _STATUS.get(type(error), 500), headers)


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return _bytes(_dump(body), "application/json", status, headers)


def _bytes(
    body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    from aiohttp import web  # noqa: PLC0415  on use

    return web.Response(body=body, content_type=content_type, status=status, headers=headers)


def _dump(body: Any) -> bytes:
    return json.dumps(body).encode()
