"""Several questions over one loaded context and one kernel.

Each question is a run of its own, with its own budget, conversation and run id; what stays is the kernel with
the contexts and the model's variables, and ``history``, the earlier questions and answers. Questions asked at
the same time wait for each other. A kernel that is lost between two of them is replaced, and the model told.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import background, page
from .answer import Answer
from .context import Context, collect, reads_files
from .errors import BudgetExceededError, InputError
from .events import Emitter
from .ledger import Budget, Ledger
from .live import LiveRun
from .repl.supervisor import Supervisor
from .runs.asides import free_name
from .runs.standing import Standing
from .runs.steering import Steering
from .usage import Usage

if TYPE_CHECKING:
    from .repl.gateway.named import Named
    from .rlm import RLM

__all__ = ["Session"]

HISTORY = "history"
"""What earlier questions and answers are called in the REPL."""


class Session:
    """Questions to one `RLM` over the same contexts; made by `RLM.session`.

    The newest context is ``context``; the first becomes ``context_0``, the second ``context_1``, and so on;
    other names likewise. ``budget`` caps all questions together, each has that of the `RLM` besides.
    Use it as a context manager, or close it: it holds a kernel. It belongs to the event loop of its first
    question (that of the background, for synchronous ones).
    """

    def __init__(
        self,
        rlm: RLM,
        contexts: Sequence[Context],
        budget: Budget,
        tools: Mapping[str, Any] | None = None,
        named: Named | None = None,
    ) -> None:
        self.id = f"s{os.urandom(6).hex()}" if named is None else named.record.id
        self.usage = Usage()
        self._rlm = rlm
        self._budget = budget
        self._tools = tools
        self._calls = 0
        self._tool_calls = 0
        self._seconds = 0.0
        self._contexts: dict[str, Context] = {}
        self._standing = Standing(self.id)
        self._history: list[dict[str, Any]] = []
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._named = named
        if named is not None:
            self._contexts = named.contexts()
            self._history = [dict(each) for each in named.record.history]
            self._standing.variables = named.record.variables
            # What it has already is not new.
            contexts = [each for each in contexts if not self._keeps(each)]
        self._take(contexts)

    def _keeps(self, context: Context) -> bool:
        assert self._named is not None
        return context.name in self._contexts and self._named.digest(context.name) == context.digest()

    def __repr__(self) -> str:
        return f"<Session {self.id}: {len(self._history)} questions>"

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """The questions so far: dicts of ``question``, ``answer``, ``status`` and ``value``."""
        return tuple(self._history)

    @property
    def contexts(self) -> tuple[str, ...]:
        """The names of the contexts, as they are in the REPL now."""
        return tuple(self._contexts)

    # Asking -----------------------------------------------------------------------------------------

    async def aask(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Answer:
        """Answer ``query`` over the contexts so far, and further ones given here.

        ``options`` are those of `RLM.acompletion` but ``tools``. Questions asked at once are answered one
        after the other.

        Raises:
            InputError: no question, a context that can't be used, or the session is closed.
        """
        return await self._ask(query, context, contexts, options, None, None)

    def ask(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Answer:
        """Answer ``query`` and wait for it; see `aask`."""
        return background.run(self.aask(query, context, contexts=contexts, **options))

    def start(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        in_background: bool = False,
        **options: Any,
    ) -> LiveRun:
        """Start answering ``query``; see `aask`, whose errors come when it is awaited, and `RLM.start`."""
        return self._rlm._live(
            query,
            partial(self._ask, query, context, contexts, options),
            in_background=in_background,
        )

    async def _ask(  # noqa: PLR0917  made for `partial`
        self,
        query: str,
        context: Any,
        contexts: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        emitter: Emitter | None,
        steering: Steering | None,
    ) -> Answer:
        # What `collect` refuses is refused before anything changes.
        if self._rlm._is_away:
            asked = self._ask(query, context, contexts, options, emitter, steering)
            return await background.there(asked)
        live = self._rlm._in_shell
        if reads_files(context, contexts):
            added = await page.aside(collect, context, contexts, live=live)
        else:
            added = collect(context, contexts, live=live)
        self._bind_loop()
        async with self._lock:
            if self._closed:
                raise InputError("the session is closed", hint="open another one")
            budget = self._budget_left()
            if isinstance(budget, BudgetExceededError):
                return Answer("over_budget", "", reason=f"of the session, the {budget}")
            await self._resume()
            renamed = self._take(added)
            self._tell_history()
            steering = steering or self._rlm._steering()
            try:
                answer = await self._rlm._run(
                    query,
                    tuple(self._contexts.values()),
                    emitter=emitter,
                    steering=steering,
                    budget=budget,
                    standing=self._standing,
                    tools=self._tools,
                    **options,
                )
            except InputError:
                self._give_back(added, renamed)
                raise
            finally:
                if steering.ledger is not None:
                    self._pay(steering.ledger)
            self._history.append(_entry(query, answer))
            if self._named is not None:
                self._named.note(history=tuple(self._history), variables=self._standing.variables)
            return answer

    async def _resume(self) -> None:
        """Find the kernel of a named session again, before its first question here."""
        if self._named is None or self._standing.repl is not None:
            return
        toolbox = self._rlm._toolbox(self._tools, list(self._contexts))
        lost = await self._named.resume()
        if lost:
            self._standing.lost = True
            self._standing.variables = ()
            self._standing.notes = (f"{lost}; its variables are lost, its contexts are loaded again",)
        stubs = toolbox.stubs(0) if toolbox else ()
        self._standing.repl = Supervisor(self._named, tuple(self._contexts.values()), tools=stubs)

    def _bind_loop(self) -> None:
        here = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = here
        elif self._loop is not here:
            raise InputError(
                "the session's kernel belongs to another event loop",
                hint="ask either with ask(), or with await and aask() on one loop",
            )

    # Contexts and history ---------------------------------------------------------------------------

    def _take(self, added: Sequence[Context]) -> Mapping[str, str]:
        """Add contexts; return the new names, with a number, of those whose names they take."""
        if any(context.name == HISTORY for context in added):
            raise InputError(
                f"no context of a session may be called {HISTORY!r}", hint="earlier answers are, in the REPL"
            )
        renamed = {}
        for context in added:
            if context.name in self._contexts:
                number = sum(name.startswith(f"{context.name}_") for name in self._contexts)
                renamed[context.name] = free_name(f"{context.name}_{number}", self._contexts)
        for old, new in renamed.items():
            self._contexts[new] = self._contexts.pop(old).renamed(new)
        limit = self._rlm._settings.lazy_above
        lazy = {context.name: context.lazy_above(limit) for context in added}
        if self._named is not None:
            lazy = {name: self._named.keep(context) for name, context in lazy.items()}
        # The newest first: that is how the prompt lists them.
        self._contexts = {**lazy, **self._contexts}
        if self._named is not None:
            self._named.note_contexts(self._contexts)
        if self._standing.repl is not None and lazy:
            self._standing.repl.take(tuple(lazy.values()), renamed)
        return renamed

    def _give_back(self, added: Sequence[Context], renamed: Mapping[str, str]) -> None:
        """Undo `_take`."""
        names = [context.name for context in added]
        back = {new: old for old, new in renamed.items()}
        for name in names:
            del self._contexts[name]
        for new, old in back.items():
            self._contexts = {old: self._contexts.pop(new).renamed(old), **self._contexts}
        if self._named is not None:
            self._named.note_contexts(self._contexts)
        if self._standing.repl is not None:
            self._standing.repl.forget(names)
            self._standing.repl.take((), back)

    def _tell_history(self) -> None:
        self._standing.history = tuple(self._history)
        if self._standing.repl is not None:
            entries = [Context.of(HISTORY, list(self._history))] if self._history else []
            self._standing.repl.take(entries, fresh=True)

    # The budget of all questions --------------------------------------------------------------------

    def _budget_left(self) -> Budget | BudgetExceededError:
        """Return what the next question may spend: its own budget, or what the session has left if less."""
        spent = {
            "usd": float(self.usage.cost_usd or 0),
            "tokens": self.usage.total_tokens,
            "calls": self._calls,
            "tool_calls": self._tool_calls,
            "seconds": self._seconds,
        }
        caps = {}
        for each in fields(Budget):
            own, cap = getattr(self._rlm._budget, each.name), getattr(self._budget, each.name)
            if cap is not None and cap <= spent.get(each.name, 0):
                return BudgetExceededError(each.name, cap, spent[each.name])
            left = None if cap is None else cap - spent.get(each.name, 0)
            caps[each.name] = min((cap for cap in (own, left) if cap is not None), default=None)
        return Budget(**caps)

    def _pay(self, ledger: Ledger) -> None:
        self.usage += ledger.total
        self._calls += ledger.calls
        self._tool_calls += ledger.tool_calls
        self._seconds += ledger.seconds

    # The end ----------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Wait for the question under way, if there is one, and end the kernel. Safe to call twice.

        That of a named session is left, for who opens it again.
        """
        if self._rlm._is_away:
            await background.there(self.aclose())
            return
        if self._loop is not None:
            self._bind_loop()
        async with self._lock:
            self._closed = True
            try:
                if self._standing.repl is not None:
                    await self._standing.repl.close()
            finally:
                if self._named is not None:
                    await self._named.aclose()

    def close(self) -> None:
        """End the kernel, or leave that of a named session; see `aclose`."""
        background.run(self.aclose())

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _entry(query: str, answer: Answer) -> dict[str, Any]:
    """Return a question and its answer as they stand in the REPL."""
    entry = {"question": query.strip(), "answer": answer.text, "status": answer.status}
    try:
        json.dumps(answer.value)
    except (TypeError, ValueError, RecursionError):
        return entry
    return {**entry, "value": answer.value}
