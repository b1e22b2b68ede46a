"""Keep a root conversation within its model's window.

When a conversation comes near the window, or the endpoint says it is too long, the root model writes a
summary, which takes the place of all but the opening and the last turn; the whole conversation is left in
the REPL. That is one call more, recorded like any other, and one miss of the provider's prefix cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ..errors import ContextLengthError
from ..events import Compacted, Emitter, Notice
from ..messages import Message, sendable
from ..models.base import ModelOptions, Reply
from . import asides
from .conversation import Conversation
from .rootcalls import RootCalls

__all__ = ["DEFAULT_TOKENS", "Window"]

DEFAULT_TOKENS = 128_000
"""The window of a model of which nothing is known."""

Shelve = Callable[[Sequence[Message]], Awaitable[str]]
"""Leaves messages in the REPL and returns the variable's name."""


class Window:
    """The window of one run's root model, through which it is asked.

    ``share`` is the part of it that a conversation may fill before it is compacted; None for no compaction.
    """

    def __init__(
        self,
        run: str,
        conversation: Conversation,
        calls: RootCalls,
        emitter: Emitter,
        *,
        options: ModelOptions,
        share: float | None,
        shelve: Shelve,
    ) -> None:
        self._run = run
        self._conversation = conversation
        self._calls = calls
        self._emitter = emitter
        self._options = options
        self._share = share
        self._shelve = shelve
        self._tokens: int | None = None

    @property
    def tokens(self) -> int:
        """The window's size: what the options say, else the model, else `DEFAULT_TOKENS`."""
        if self._tokens is None:
            model = self._calls.model
            known = self._options.context_window or getattr(model, "window", None)
            self._tokens = known or DEFAULT_TOKENS
        return self._tokens

    async def ask(self, turn: int) -> Reply:
        """Ask for the next reply, after a compaction where that is needed.

        Raises:
            ContextLengthError: the conversation is too long for the model, and no shorter one can be had.
            BudgetExceededError, ModelError: see `RootCalls.ask`.
        """
        talk = self._conversation
        if self._share is not None and talk.compactible and talk.tokens > self._share * self.tokens:
            await self._compact(turn, overflowed=False)
        try:
            reply = await self._calls.ask(talk.messages, turn)
        except ContextLengthError:
            if self._share is None or not talk.compactible:
                raise
            # The window is smaller than was known.
            self._tokens = min(self.tokens, max(1, talk.tokens))
            await self._compact(turn, overflowed=True)
            reply = await self._calls.ask(talk.messages, turn)
        talk.count(reply.usage)
        return reply

    async def _summary(self, turn: int, *, shortened: bool) -> Reply:
        asked: Message = {"role": "user", "content": asides.SUMMARY_REQUEST}
        if not shortened:
            # The whole of it, which begins like the request before, is in the provider's cache.
            try:
                return await self._calls.ask([*self._conversation.messages, asked], turn, apart=True)
            except ContextLengthError:
                pass
        return await self._calls.ask([*self._conversation.shortened(), asked], turn, apart=True)

    async def _compact(self, turn: int, *, overflowed: bool) -> None:
        talk = self._conversation
        before, tokens = len(talk.messages), talk.tokens
        reply = await self._summary(turn, shortened=overflowed or tokens > self.tokens)
        name = await self._shelve(talk.transcript)
        summary: Message = {"role": "assistant", "content": sendable(reply.text.strip() or asides.NO_SUMMARY)}
        note: Message = {"role": "user", "content": asides.compacted(name)}
        talk.compact([summary, note])
        self._emitter.emit(
            Compacted(run=self._run, turn=turn, messages=tuple(talk.messages), tokens=tokens, variable=name)
        )
        self._emitter.emit(
            Notice(
                run=self._run,
                text=f"the conversation was compacted at about {tokens:,} tokens: "
                f"{before} messages became {len(talk.messages)}",
            )
        )
