"""Connections to endpoints: one pool and one client per endpoint and event loop, shared by all models.

A thin path on aiohttp, because measuring said so: the ``openai`` client costs several milliseconds a request
and a second of imports. Whole replies (`Connections.post`) and streams (`Connections.events`) send the same
headers, follow no redirects, retry nothing, and turn whatever goes wrong into a `Failure`.
A caller's own client is asked by `rlm_kernel.models.clients`.

Pools close with their loop: a suspended asynchronous generator is closed by ``asyncio.run`` and its like
(`asyncio.loop.shutdown_asyncgens`) before they close the loop, and takes the pools with it.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakSet

from .. import page
from .failures import Failure, broken, malformed, refused, unreachable
from .gate import Gate
from .sse import EventLines

if TYPE_CHECKING:
    import aiohttp
    import openai

__all__ = ["OPENAI_URL", "Connections", "Endpoint", "close_connections", "connected"]

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 20.0
# aiohttp warns of bodies above this that come as bytes; as a stream it sends them piece by piece.
LARGE_BODY_BYTES = 2**20
END_OF_STREAM = b"[DONE]"
END_SECONDS = 0.1


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to ask. Equal endpoints share their connections.

    ``headers`` are sent with every request, the key among them; ``secrets`` must not show in any text.
    ``client`` is the caller's own, which sends what it will.
    """

    base_url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    max_concurrency: int = 256
    path: str = "/chat/completions"
    client: openai.AsyncOpenAI | None = field(default=None, repr=False)

    @property
    def is_openai(self) -> bool:
        """Whether this is OpenAI's own endpoint."""
        return urlsplit(self.base_url).hostname == "api.openai.com"

    @property
    def is_loopback(self) -> bool:
        """Whether this machine itself is asked: no proxy stands between."""
        return urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1")

    @cached_property
    def place(self) -> str:
        """The endpoint as messages name it."""
        return urlsplit(self.base_url).netloc


class Connections:
    """What one event loop holds open to one endpoint. Everything is made on first use."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.gate = Gate(endpoint.max_concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        # The models that may ask again; `_users` are the requests under way.
        self.models: WeakSet[object] = WeakSet()
        self._users = 0
        self._retired = False

    async def post(self, body: bytes, end: float) -> bytes | Failure:
        """Send ``body``; return that of a reply with status 200.

        Raises:
            TimeoutError: it is not there at ``end``, by the loop's clock.
        """
        import aiohttp  # noqa: PLC0415  on use

        session = self._session or self._open_session()
        status = 0
        async with asyncio.timeout_at(end):
            try:
                async with await self._send(session, body) as response:
                    status = response.status
                    data = await response.read()
                    if status == 200:
                        return data
                    return self._refused(status, response.headers, data.decode(errors="replace"))
            except (aiohttp.ClientError, OSError) as error:
                return self._failed(error, status=status)

    async def events(self, body: bytes, end: float) -> AsyncGenerator[Any, None]:
        """Send ``body``; yield the chunks of the reply as JSON values, or a `Failure`, last.

        Raises:
            TimeoutError: it is not complete at ``end``, by the loop's clock.
        """
        import aiohttp  # noqa: PLC0415  on use

        session = self._session or self._open_session()
        status = 0
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout_at(end):
                response = await self._send(session, body)
                status = response.status
                if status != 200:
                    said = await response.text(errors="replace")
            if status != 200:
                yield self._refused(status, response.headers, said)
                return
            async with aclosing(self._chunks(response, end)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (aiohttp.ClientError, ConnectionError) as error:
            yield self._failed(error, status=status)
        finally:
            # A reply that was read to its end has given its connection back; any other takes it along.
            if response is not None:
                response.close()

    async def _send(self, session: aiohttp.ClientSession, body: bytes) -> aiohttp.ClientResponse:
        return await session.post(
            f"{self.endpoint.base_url}{self.endpoint.path}",
            data=body if len(body) <= LARGE_BODY_BYTES else io.BytesIO(body),
            proxy=self._proxy,
            allow_redirects=False,
        )

    async def _chunks(self, response: aiohttp.ClientResponse, end: float) -> AsyncGenerator[Any, None]:
        """Yield the JSON values of a reply's events; the whole body's where the endpoint does not stream."""
        events = EventLines()
        streams = "json" not in response.content_type
        while True:
            async with asyncio.timeout_at(end):
                piece = await (response.content.readany() if streams else response.read())
            found = [piece] if not streams else events.feed(piece) if piece else events.rest()
            for data in found:
                if data == END_OF_STREAM:
                    # What keeps the connection for the next request is to have seen its end.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(END_SECONDS):
                            await response.read()
                    return
                try:
                    chunk = json.loads(data)
                except (ValueError, RecursionError) as error:
                    yield malformed(
                        f"no JSON: {error}", place=self.endpoint.place, secrets=self.endpoint.secrets
                    )
                    return
                yield chunk
            if not (piece and streams):
                return

    def _refused(self, status: int, headers: Mapping[str, str], body: str) -> Failure:
        return refused(status, headers, body, place=self.endpoint.place, secrets=self.endpoint.secrets)

    def _failed(self, error: BaseException, *, status: int = 0) -> Failure:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        what = broken if status == 200 else unreachable
        return what(reason, place=self.endpoint.place, secrets=self.endpoint.secrets)

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415  on use

        self._proxy = None if self.endpoint.is_loopback else _proxy(self.endpoint.base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=self.endpoint.headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )
        return self._session

    async def open(self) -> None:
        """Import and build what requests need, so that the next one goes out at once."""
        if "aiohttp" not in sys.modules:
            # The import takes a quarter of a second, in which the loop has better things to do.
            await asyncio.to_thread(importlib.import_module, "aiohttp")
        if self._session is None:
            self._open_session()

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Connections]:
        """Keep open what is open while a request uses it."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if self._retired and not self._users:
                await self.close()

    async def retire(self) -> None:
        """Close as soon as no request uses it."""
        self._retired = True
        if not self._users:
            await self.close()

    async def close(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for ``url``: looked up once, not for each request."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415  on use

    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


@dataclass(slots=True)
class _OfLoop:
    """The connections of one event loop, and the generator that ends with it."""

    by_endpoint: dict[Endpoint, Connections]
    guard: AsyncIterator[None]


_LOOPS: dict[asyncio.AbstractEventLoop, _OfLoop] = {}


@asynccontextmanager
async def connected(endpoint: Endpoint, model: object) -> AsyncIterator[Connections]:
    """Lend the running loop's connections to ``endpoint`` to ``model`` for one request."""
    loop = asyncio.get_running_loop()
    mine = _LOOPS.get(loop)
    if mine is None:
        # A loop that was closed without its generators leaves its sockets to the garbage collector.
        for closed in [each for each in list(_LOOPS) if each.is_closed()]:
            _LOOPS.pop(closed, None)
        mine = _LOOPS[loop] = _OfLoop({}, _close_with(loop))
        await anext(mine.guard)
    found = mine.by_endpoint.get(endpoint)
    if found is None:
        found = mine.by_endpoint[endpoint] = _connections(endpoint)
    found.models.add(model)
    async with found.used():
        yield found


def _connections(endpoint: Endpoint) -> Connections:
    if endpoint.client is None and page.here():
        from .fetched import FetchedConnections  # noqa: PLC0415  on use

        return FetchedConnections(endpoint)
    if endpoint.client is None:
        return Connections(endpoint)
    from .clients import ClientConnections  # noqa: PLC0415  on use

    return ClientConnections(endpoint, endpoint.client)


async def _close_with(loop: asyncio.AbstractEventLoop) -> AsyncIterator[None]:
    try:
        yield
    finally:
        mine = _LOOPS.pop(loop)
        for each in mine.by_endpoint.values():
            await each.close()


async def close_connections(endpoint: Endpoint, model: object) -> None:
    """Close the running loop's connections to ``endpoint`` if ``model`` was the last to use them.

    Requests under way finish on them first.
    """
    mine = _LOOPS.get(asyncio.get_running_loop())
    found = mine.by_endpoint.get(endpoint) if mine else None
    if mine is None or found is None:
        return
    found.models.discard(model)
    if not found.models:
        del mine.by_endpoint[endpoint]
        await found.retire()
