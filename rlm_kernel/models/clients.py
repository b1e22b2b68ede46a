"""Requests through a client of the caller's own, an ``openai.AsyncOpenAI``: Azure, other log-ins, proxies.

What it sends and raises is turned into what `rlm_kernel.models.wire` gives, so that retries, failures and
limits are the same. The client is the caller's to close.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import openai

from .failures import Failure, malformed
from .wire import Connections, Endpoint

__all__ = ["ClientConnections"]

# How the HTTP library says that a reply broke off after its status: h11, under httpx.
_CUT = "without sending complete message body"


class ClientConnections(Connections):
    """What one event loop asks an endpoint through ``client``."""

    def __init__(self, endpoint: Endpoint, client: openai.AsyncOpenAI) -> None:
        super().__init__(endpoint)
        # Retries are counted and paid for by our own rules.
        self._client = client.with_options(max_retries=0, timeout=None)

    async def open(self) -> None:
        """Do nothing: the client is there."""

    async def post(self, body: bytes, end: float) -> bytes | Failure:
        """Send ``body``; see `Connections.post`."""
        async with asyncio.timeout_at(end):
            reply = await self._ask(body, streamed=False)
        return reply if isinstance(reply, Failure) else json.dumps(reply).encode()

    async def events(self, body: bytes, end: float) -> AsyncGenerator[Any, None]:
        """Send ``body`` and yield the chunks of the reply; see `Connections.events`."""
        async with asyncio.timeout_at(end):
            stream = await self._ask(body, streamed=True)
        if isinstance(stream, Failure):
            yield stream
            return
        try:
            chunks = aiter(stream)
            while True:
                async with asyncio.timeout_at(end):
                    chunk = await self._next(chunks)
                if chunk is None:
                    return
                yield chunk
                if isinstance(chunk, Failure):
                    return
        finally:
            await stream.close()

    async def _ask(self, body: bytes, *, streamed: bool) -> Any:
        """Return a reply's JSON value, or its stream, or a `Failure`."""
        # The generic post: the client's typed methods walk all messages of a request, each time.
        options: dict[str, Any] = {"cast_to": object, "options": {"follow_redirects": False}}
        if streamed:
            options |= {"stream": True, "stream_cls": openai.AsyncStream[object]}
        try:
            # As a value and not as bytes, because Azure's client reads the model's name from it.
            return await self._client.post(self.endpoint.path, body=json.loads(body), **options)
        except openai.APIStatusError as error:
            return self._refused(error.status_code, error.response.headers, error.response.text)
        except openai.APIError as error:
            cause = error.__cause__ or error
            return self._failed(cause, status=200 if _CUT in str(cause) else 0)
        except json.JSONDecodeError as error:
            return self._no_json(error)
        except Exception as error:  # noqa: BLE001  an edge: the client's versions raise the HTTP library's own
            return self._failed(error.__cause__ or error, status=200)

    async def _next(self, chunks: AsyncIterator[object]) -> Any:
        """Return the next chunk, None at the end."""
        try:
            return await anext(chunks, None)
        except json.JSONDecodeError as error:
            return self._no_json(error)
        except Exception as error:  # noqa: BLE001  as above
            body = getattr(error, "body", None)
            if body is not None:
                return {"error": body}
            return self._failed(error.__cause__ or error, status=200)

    def _no_json(self, error: ValueError) -> Failure:
        return malformed(f"no JSON: {error}", place=self.endpoint.place, secrets=self.endpoint.secrets)
