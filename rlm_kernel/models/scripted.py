"""A model that follows a script: for tests, demonstrations and benchmarks, without any model at all."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from decimal import Decimal

from ..errors import ConfigError, RequestRefusedError
from ..messages import message_text
from ..usage import Usage
from .base import Reply, Request
from .policies import POLICIES
from .prices import Price, own_price

__all__ = ["Script", "ScriptedModel"]

Line = str | Exception | Callable[[Request], "str | Awaitable[str]"]
Script = str | Sequence[Line] | Callable[[Request], "str | Awaitable[str]"]

CACHE_BLOCK_TOKENS = 256


class ScriptedModel:
    """Replies from a list, a function, or a named policy.

    Args:
        script: A list is used up in order: texts, exceptions to raise, functions. A function is given each
            `Request` and returns the text, or awaits it. A name is one of `rlm_kernel.models.policies`.
        name: The name under which usage is kept.
        prices: USD per million tokens by name or pattern; without one, the cost is unknown.
        chars_per_token: What is counted as a token.
        latency: Seconds before each reply.
        record: Whether `requests` keeps what was asked; long benchmarks have no room for it.
        window: The tokens it is said to take; nothing is refused for it.

    Tokens are characters (roles and images left out) divided by ``chars_per_token``, rounded up. Prefix
    caching is simulated as providers do it: the leading blocks of 256 tokens that an earlier request began
    with too count as cached.

    Raises:
        ConfigError: no policy has this name.
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        prices: Mapping[str, Price] | None = None,
        chars_per_token: int = 4,
        latency: float = 0.0,
        record: bool = True,
        window: int | None = None,
    ) -> None:
        if isinstance(script, str):
            if script not in POLICIES:
                raise ConfigError(f"no policy {script!r}", hint=f"there is {', '.join(POLICIES)}")
            script = POLICIES[script]
        self._script = script if callable(script) else tuple(script)
        self._name = name
        self._price = own_price(name, prices or {})
        self._chars_per_token = chars_per_token
        self._latency = latency
        self._record = record
        self.window = window
        self._asked = 0
        self._known_prefixes: set[int] = set()
        self.requests: list[Request] = []

    def __repr__(self) -> str:
        return f"ScriptedModel(name={self._name!r})"

    @property
    def name(self) -> str:
        """The name under which usage is kept."""
        return self._name

    @property
    def price_known(self) -> bool:
        """Whether requests have a price."""
        return self._price is not None

    def cost(self, usage: Usage) -> Decimal | None:
        """Return what ``usage`` would cost, None without a price."""
        return None if self._price is None else self._price.cost(usage)

    async def reply(self, request: Request) -> Reply:
        """Answer ``request`` from the script.

        Raises:
            RequestRefusedError: the script's list is used up.
        """
        if self._record:
            self.requests.append(request)
        line = self._next_line()
        if self._latency:
            await asyncio.sleep(self._latency)
        if isinstance(line, Exception):
            raise line
        text = line if isinstance(line, str) else line(request)
        if inspect.isawaitable(text):
            text = await text
        return Reply(text, self._usage(request, text), self._name)

    async def stream(self, request: Request) -> AsyncGenerator[str | Reply, None]:
        """Answer ``request`` word by word, then with the reply; see `reply`."""
        reply = await self.reply(request)
        for word in re.findall(r"\s*\S+\s*", reply.text) or [reply.text]:
            yield word
        yield reply

    def _next_line(self) -> Line:
        number = self._asked
        self._asked += 1
        if callable(self._script):
            return self._script
        if number >= len(self._script):
            raise RequestRefusedError(
                f"the script of {self._name} has {len(self._script)} replies; this is request {number + 1}",
                hint="give the script more replies, or a function",
                model=self._name,
            )
        line: Line = self._script[number]
        return line

    def _usage(self, request: Request, text: str) -> Usage:
        texts = [message_text(each) for each in request.messages]
        into = -(-sum(map(len, texts)) // self._chars_per_token)
        cached = min(into, self._cached_blocks("".join(texts)) * CACHE_BLOCK_TOKENS)
        usage = Usage(into, -(-len(text) // self._chars_per_token), cached, cost_usd=None)
        if self._price is None:
            return usage
        return Usage(into, usage.output_tokens, cached, cost_usd=self._price.cost(usage))

    def _cached_blocks(self, text: str) -> int:
        """Return how many leading whole blocks are known, and know all of them from now on."""
        size = CACHE_BLOCK_TOKENS * self._chars_per_token
        cached, prefix = 0, 0
        for number, start in enumerate(range(0, len(text) - size + 1, size)):
            prefix = hash((prefix, text[start : start + size]))
            if prefix not in self._known_prefixes:
                self._known_prefixes.add(prefix)
            elif cached == number:
                cached += 1
        return cached
