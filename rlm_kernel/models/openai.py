"""Models behind any OpenAI-compatible endpoint: OpenAI, vLLM, Ollama, llama.cpp, OpenRouter and others."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .. import __version__, config
from ..errors import ConfigError
from ..usage import Usage
from .base import ModelOptions, Reply, Request
from .chat import Draft, NotAReplyError, encode, request_body
from .failures import Failure, malformed, refused, timed_out
from .prices import Price, own_price, price
from .retry import Attempts, Backoff
from .windows import listed_window
from .wire import OPENAI_URL, Connections, Endpoint, close_connections, connected

if TYPE_CHECKING:
    import openai

__all__ = ["OpenAIModel"]


class OpenAIModel:
    """A model asked by chat completions.

    Args:
        name: What the endpoint calls it.
        base_url: The endpoint; not given, the environment's (see `rlm_kernel.config`), else OpenAI's own.
        api_key: Its key; not given, the environment's. Endpoints other than OpenAI's may do without.
        options: How it is to write, where a request does not say.
        prices: USD per million tokens by model name or pattern, before the public list.
        timeout: Seconds one attempt may take; `Request.timeout` bounds all of them, and the wait for a
            place among ``max_concurrency``.
        max_retries: Further attempts after one that failed for a passing reason.
        max_concurrency: Sub-calls in flight at once; fewer while the endpoint answers 429.
        default_headers: Sent with every request; may replace the package's own.
        client: An ``openai.AsyncOpenAI`` to ask through, such as Azure's, in place of ``base_url``,
            ``api_key`` and ``default_headers``. It is used on one event loop, and not closed.
        prompt_cache_key: Whether the endpoint takes a field of this name; None: if it is OpenAI's.
        backoff: The waits between attempts.

    Equal endpoints (URL, headers, concurrency) share their connections. `Request.schema` is sent as
    ``response_format``, `ModelOptions.max_output_tokens` as ``max_completion_tokens`` to OpenAI and as
    ``max_tokens`` to others. A price that the endpoint reports counts before all others.

    Raises:
        ConfigError: a URL or a key that can't be used, or no key for OpenAI's own endpoint.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        options: ModelOptions = ModelOptions(),
        prices: Mapping[str, Price] | None = None,
        timeout: float = 600.0,
        max_retries: int = 5,
        max_concurrency: int = 256,
        default_headers: Mapping[str, str] | None = None,
        client: openai.AsyncOpenAI | None = None,
        prompt_cache_key: bool | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008  frozen
    ) -> None:
        if not name or not name.strip():
            raise ConfigError("the model has no name", hint="give the name that the endpoint knows it by")
        if timeout <= 0 or max_retries < 0 or max_concurrency < 1:
            raise ConfigError(
                f"timeout {timeout!r}, max_retries {max_retries!r}, max_concurrency {max_concurrency!r}",
                hint="they must be above 0, at least 0, and at least 1",
            )
        self._name = name
        self._options = options
        self._prices = dict(prices or {})
        self._timeout = timeout
        self._max_retries = max_retries
        self._backoff = backoff
        if client is None:
            self._endpoint = _endpoint(base_url, api_key, default_headers or {}, max_concurrency)
        elif base_url or api_key or default_headers:
            raise ConfigError(
                "client= stands for base_url=, api_key= and default_headers=",
                hint="give these to the client itself",
            )
        else:
            self._endpoint = _endpoint_of(client, max_concurrency)
        self._token_limit = "max_completion_tokens" if self._endpoint.is_openai else "max_tokens"
        self._cache_key = self._endpoint.is_openai if prompt_cache_key is None else prompt_cache_key

    def __repr__(self) -> str:
        return f"OpenAIModel({self._name!r}, base_url={self._endpoint.base_url!r})"

    @property
    def name(self) -> str:
        """The name asked for, and the key under which usage and prices are kept."""
        return self._name

    @property
    def base_url(self) -> str:
        """The endpoint."""
        return self._endpoint.base_url

    @property
    def price_known(self) -> bool:
        """Whether requests will have a price, as far as can be told before the first."""
        return self._cost(Usage(1, 1), self._name) is not None

    def cost(self, usage: Usage) -> Decimal | None:
        """Return what ``usage`` would cost in USD, None if that is not known."""
        return self._cost(usage, self._name)

    @property
    def window(self) -> int | None:
        """How many tokens the model takes, None if that is not known."""
        return None if self._endpoint.is_loopback else listed_window(self._name, self.base_url)

    async def reply(self, request: Request) -> Reply:
        """Answer ``request`` over the raw path; see `rlm_kernel.models.base.Model.reply`."""
        body = encode(self._body(request))
        attempts = self._attempts(request)
        async with connected(self._endpoint, self) as wire:
            while True:
                outcome = await self._attempt(wire, body, request, attempts)
                if isinstance(outcome, Reply):
                    return outcome
                await attempts.after(outcome)

    async def _attempt(
        self, wire: Connections, body: bytes, request: Request, attempts: Attempts
    ) -> Reply | Failure:
        try:
            async with attempts.waiting():
                ticket = await wire.gate.enter()
        except TimeoutError:
            return attempts.timed_out()
        status = None
        try:
            outcome = await wire.post(body, attempts.begin())
            status = outcome.status if isinstance(outcome, Failure) else 200
        except TimeoutError:
            return attempts.timed_out()
        finally:
            wire.gate.leave(ticket, status)
        if isinstance(outcome, Failure):
            return outcome
        draft = self._draft()
        try:
            draft.add(json.loads(outcome))
            return self._finish(draft, request, attempts, streamed=False)
        except NotAReplyError as error:
            return self._malformed(error)
        except (ValueError, RecursionError) as error:
            return self._malformed(NotAReplyError(f"no JSON: {error}"))

    async def stream(self, request: Request) -> AsyncGenerator[str | Reply, None]:
        """Answer ``request`` as it is written; see `rlm_kernel.models.base.Model.stream`."""
        body = encode(self._stream_body(request))
        attempts = self._attempts(request)
        async with connected(self._endpoint, self) as wire:
            while True:
                draft = self._draft()
                failure: Failure | None = None
                try:
                    async with aclosing(wire.events(body, attempts.begin())) as events:
                        async for event in events:
                            if isinstance(event, Failure):
                                failure = event
                            elif piece := draft.add(event):
                                yield piece
                    if failure is None:
                        yield self._finish(draft, request, attempts, streamed=True)
                        return
                except TimeoutError:
                    failure = attempts.timed_out()
                except NotAReplyError as error:
                    failure = self._malformed(error)
                await attempts.after(failure)

    async def open(self) -> None:
        """Import and build what requests need, and send nothing."""
        async with connected(self._endpoint, self) as wire:
            await wire.open()

    async def aclose(self) -> None:
        """Close the running loop's connections to this endpoint, unless another model uses them."""
        await close_connections(self._endpoint, self)

    def _body(self, request: Request) -> dict[str, object]:
        return request_body(
            self._name, request, self._options, token_limit=self._token_limit, cache_key=self._cache_key
        )

    def _stream_body(self, request: Request) -> dict[str, object]:
        return {**self._body(request), "stream": True, "stream_options": {"include_usage": True}}

    def _draft(self) -> Draft:
        return Draft()

    def _attempts(self, request: Request) -> Attempts:
        if request.timeout is not None and request.timeout <= 0:
            raise timed_out(0, place=self._endpoint.place).error(self._name, 0)
        return Attempts(
            model=self._name,
            place=self._endpoint.place,
            most=self._max_retries + 1,
            timeout=self._timeout,
            total=request.timeout,
            backoff=self._backoff,
        )

    def _finish(self, draft: Draft, request: Request, attempts: Attempts, *, streamed: bool) -> Reply:
        reply = draft.reply(request, self._name, attempts.count, streamed=streamed)
        usage = reply.usage
        for name in dict.fromkeys((self._name, reply.model)):
            if usage.cost_usd is None:
                usage = dataclasses.replace(usage, cost_usd=self._cost(usage, name))
        return dataclasses.replace(reply, usage=usage)

    def _cost(self, usage: Usage, name: str) -> Decimal | None:
        if self._endpoint.is_loopback:
            # No list has prices for this machine, and loading it holds up the loop for a tenth of a second.
            own = own_price(name, self._prices)
            return None if own is None else own.cost(usage)
        return price(usage, name, overrides=self._prices, provider_url=self.base_url)

    def _malformed(self, error: NotAReplyError) -> Failure:
        place, secrets = self._endpoint.place, self._endpoint.secrets
        if error.status is not None:
            return refused(error.status, {}, str(error), place=place, secrets=secrets)
        return malformed(str(error), place=place, secrets=secrets)


def _endpoint(
    base_url: str | None, api_key: str | None, default_headers: Mapping[str, str], max_concurrency: int
) -> Endpoint:
    """Return the endpoint meant, from the arguments and, where they leave it open, the environment."""
    given = {"base_url": base_url, "api_key": api_key}
    variables = {name for each in config.FIELDS if each.name in given for name in each.variables}
    settings = config.resolve(given, {name: os.environ[name] for name in variables & set(os.environ)})
    url, key = settings["base_url"].value or OPENAI_URL, settings["api_key"].value
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"base_url at {parts.hostname} holds a user, a password, a query or a fragment",
            hint="give a plain URL; the key goes into api_key=, anything else into default_headers=",
        )
    headers = {
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": f"rlm-kernel/{__version__}",
    }
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    for name, value in default_headers.items():
        if not (isinstance(value, str) and value.isprintable() and value.isascii()):
            raise ConfigError(f"the header {name!r} has no plain text", hint="give printable ASCII text")
        headers[name.lower()] = value
    endpoint = Endpoint(url, tuple(headers.items()), _secrets(key, default_headers), max_concurrency)
    if endpoint.is_openai and "authorization" not in headers:
        raise ConfigError(
            "no key for OpenAI's endpoint",
            hint="set OPENAI_API_KEY, or give base_url= of an endpoint that needs none",
        )
    return endpoint


def _endpoint_of(client: openai.AsyncOpenAI, max_concurrency: int) -> Endpoint:
    url = str(client.base_url).rstrip("/")
    headers = {
        name: value
        for name, value in client.default_headers.items()
        if isinstance(value, str)
        and not name.lower().startswith(("accept", "content-", "user-agent", "x-stainless"))
    }
    return Endpoint(url, (), _secrets(client.api_key, headers), max_concurrency, client=client)


def _secrets(key: str | None, default_headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return what no text may show, longest first: the key, and whatever the caller's headers hold."""
    words = {key or "", *(value.split()[-1] for value in default_headers.values() if value.strip())}
    return tuple(sorted((word for word in words if len(word) >= 8), key=len, reverse=True))
