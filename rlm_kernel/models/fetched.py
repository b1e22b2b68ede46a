"""Requests by the browser's own fetch: what connections are where Python runs in a page.

The same replies, streams and failures as over aiohttp. A page may read an endpoint's reply only if the
endpoint allows the page's origin (CORS: https://developer.mozilla.org/docs/Web/HTTP/Guides/CORS). Browsers
don't tell a page that this is what is missing, so it is found out by a request that reads nothing and carries
no key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from ..errors import UnreachableError
from .failures import Failure, broken, malformed, unreachable
from .sse import EventLines
from .wire import END_OF_STREAM, Connections

__all__ = ["FetchedConnections"]

PROBE_SECONDS = 10.0
# What a page's requests have by themselves; a page that sets one has to ask the endpoint's leave for it.
_NOT_OURS = frozenset(("user-agent",))


class FetchedConnections(Connections):
    """What a page asks an endpoint through the browser, which keeps the connections."""

    async def open(self) -> None:
        """Do nothing: the browser is there."""

    async def close(self) -> None:
        """Do nothing: the browser closes what it has opened."""

    async def post(self, body: bytes, end: float) -> bytes | Failure:
        """Send ``body``; see `Connections.post`."""
        said = b""
        async with asyncio.timeout_at(end):
            async with _Exchange(self, body) as exchange:
                async for piece in exchange.pieces():
                    said += piece
        return exchange.failure or self._judged(exchange, said) or said

    async def events(self, body: bytes, end: float) -> AsyncGenerator[Any, None]:
        """Send ``body`` and yield the chunks of the reply; see `Connections.events`."""
        async with _Exchange(self, body, timeout_at=end) as exchange:
            if exchange.failure is not None or exchange.status != 200:
                said = b"".join([piece async for piece in exchange.pieces()])
                yield exchange.failure or self._judged(exchange, said)
                return
            async for data in _data(exchange):
                if data == END_OF_STREAM:
                    return
                try:
                    chunk = json.loads(data)
                except (ValueError, RecursionError) as error:
                    endpoint = self.endpoint
                    yield malformed(f"no JSON: {error}", place=endpoint.place, secrets=endpoint.secrets)
                    return
                yield chunk
            if exchange.failure is not None:
                yield exchange.failure

    def _judged(self, exchange: _Exchange, said: bytes) -> Failure | None:
        if exchange.status == 200:
            return None
        return self._refused(exchange.status, exchange.headers, said.decode(errors="replace"))

    def _failed(self, error: BaseException, *, status: int = 0) -> Failure:
        # What was thrown says what it is by itself: "TypeError: Failed to fetch".
        what = broken if status == 200 else unreachable
        return what(str(error), place=self.endpoint.place, secrets=self.endpoint.secrets)

    async def unanswered(self, error: BaseException) -> Failure:
        """Return why a request got no reply: there is no endpoint, or it does not let this page read."""
        import js  # type: ignore[import-not-found]  # noqa: PLC0415  in a page

        failure = self._failed(error)
        options = _object({"mode": "no-cors", "method": "GET", "credentials": "omit", "cache": "no-store"})
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await js.fetch(self.endpoint.base_url, options)
        except Exception:  # noqa: BLE001  an edge: whatever a browser raises, there was no answer
            return failure
        origin = str(js.location.origin)
        return Failure(
            UnreachableError,
            f"{self.endpoint.place} is there, but does not let pages of {origin} read what it says (CORS)",
            hint=f"have it send Access-Control-Allow-Origin: {origin}, and allow the headers authorization "
            "and content-type; or ask through a proxy that does",
            retry=False,
        )


class _Exchange:
    """One request and its reply. ``failure`` is set when there is none, or it breaks off.

    Leaving it ends the request, whatever has come of it.
    """

    def __init__(self, owner: FetchedConnections, body: bytes, *, timeout_at: float | None = None) -> None:
        import js  # noqa: PLC0415  in a page

        self._owner = owner
        self._body = body
        self._end = timeout_at
        self._abort = js.AbortController.new()
        self._reader: Any = None
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.failure: Failure | None = None

    async def __aenter__(self) -> _Exchange:
        import js  # noqa: PLC0415  in a page

        endpoint = self._owner.endpoint
        options = {
            "method": "POST",
            "headers": {name: value for name, value in endpoint.headers if name not in _NOT_OURS},
            "body": self._body.decode(),
            "signal": self._abort.signal,
            "redirect": "manual",
            "credentials": "omit",
            "cache": "no-store",
            "referrerPolicy": "no-referrer",
        }
        try:
            async with asyncio.timeout_at(self._end):
                response = await js.fetch(f"{endpoint.base_url}{endpoint.path}", _object(options))
        except _js_error() as error:
            self.failure = await self._owner.unanswered(error)
            return self
        except BaseException:
            self._abort.abort()
            raise
        # Of a redirection a page is told nothing but that there is one.
        self.status = 302 if response.type == "opaqueredirect" else int(response.status)
        self.headers = {str(pair[0]).lower(): str(pair[1]) for pair in response.headers}
        if response.body is not None:
            self._reader = response.body.getReader()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._abort.abort()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the reply's body as it comes."""
        while self._reader is not None:
            try:
                async with asyncio.timeout_at(self._end):
                    read = await self._reader.read()
            except _js_error() as error:
                self.failure = self._owner._failed(error, status=self.status)
                return
            if read.done:
                return
            yield read.value.to_bytes()


async def _data(exchange: _Exchange) -> AsyncIterator[bytes]:
    """Yield the data of a reply's events; its whole body where the endpoint does not stream."""
    if "json" in exchange.headers.get("content-type", ""):
        whole = b"".join([piece async for piece in exchange.pieces()])
        if exchange.failure is None:
            yield whole
        return
    events = EventLines()
    async for piece in exchange.pieces():
        for data in events.feed(piece):
            yield data
    if exchange.failure is None:
        for data in events.rest():
            yield data


def _js_error() -> type[BaseException]:
    """Return the class of what JavaScript throws."""
    from pyodide.ffi import JsException  # type: ignore[import-not-found]  # noqa: PLC0415  in a page

    found: type[BaseException] = JsException
    return found


def _object(value: Mapping[str, Any]) -> Any:
    import js  # noqa: PLC0415  in a page
    from pyodide.ffi import to_js  # noqa: PLC0415  in a page

    return to_js(value, dict_converter=js.Object.fromEntries)
