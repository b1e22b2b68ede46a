"""``LocalREPL`` of `rlms`: a REPL to run code in, without a root model; here a kernel process of its own.

Calls in its code go to the handler at ``lm_handler_address``, and children to ``subcall_fn``; a call that
fails raises ``CallFailed`` in the code, where the original returns a text that begins with "Error:".
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import time
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ....context import Context
from ....errors import CallError
from ....messages import Part
from ....repl.base import BudgetQuery, Call, LLMQuery, RLMQuery, ToolCall
from ...cells import CELL_SECONDS, Cells, in_thread
from ..core.lm_handler import handler_at
from ..core.trajectory import streams
from ..core.types import REPLResult, RLMChatCompletion, UsageSummary
from ..utils.exceptions import UnsupportedArgumentError
from .tools import given_tools

__all__ = ["LocalREPL"]

Subcall = Callable[[str, str | None], RLMChatCompletion]


class LocalREPL:
    """Runs code, cell by cell, with ``context`` and the query functions; see the module."""

    def __init__(  # noqa: PLR0917  the original's
        self,
        lm_handler_address: tuple[str, int] | None = None,
        context_payload: Any = None,
        setup_code: str | None = None,
        persistent: bool = False,  # noqa: FBT001, FBT002  the original's
        depth: int = 1,
        subcall_fn: Subcall | None = None,
        custom_tools: dict[str, Any] | None = None,
        custom_sub_tools: dict[str, Any] | None = None,
        *,
        cell_timeout: float | None = CELL_SECONDS,
        max_concurrent_subcalls: int = 4,
    ) -> None:
        self.lm_handler_address = lm_handler_address
        self.subcall_fn = subcall_fn
        self.persistent = persistent
        self.depth = depth
        self._tools = given_tools(custom_tools, custom_sub_tools)
        self.custom_tools = custom_tools or {}
        self.max_concurrent_subcalls = max_concurrent_subcalls
        self._contexts: dict[str, Any] = dict(self._tools.values)
        self._variables: dict[str, Any] = {}
        self._calls: list[RLMChatCompletion] = []
        self._caller = contextvars.copy_context()
        stubs = [(name, str(tool.description or "")) for name, tool in self._tools.functions.items()]
        self._cells = Cells(self._answer, tools=stubs, cell_timeout=cell_timeout)
        self._cells.start([Context.of(name, value) for name, value in self._contexts.items()])
        self._context_count = 0
        if context_payload is not None:
            self.add_context(context_payload)
        if setup_code:
            result = self.execute_code(setup_code)
            if result.stderr:
                warnings.warn(f"the setup code failed: {result.stderr[-500:]}", RuntimeWarning, stacklevel=2)

    @property
    def locals(self) -> dict[str, Any]:
        """The contexts, and the variables that cells made; see `REPLResult.locals`."""
        return {**self._contexts, **self._variables}

    def load_context(self, context_payload: Any) -> None:
        """Add a context; see `add_context`."""
        self.add_context(context_payload)

    def add_context(self, context_payload: Any, context_index: int | None = None) -> int:
        """Add a context as ``context_0``, ``context_1``, ...; return its number.

        ``context`` is the newest one; in the original, the first.
        """
        number = self._context_count if context_index is None else context_index
        self._context_count = max(self._context_count, number + 1)
        self._load({f"context_{number}": context_payload, "context": context_payload})
        return number

    def get_context_count(self) -> int:
        """Return how many contexts were added."""
        return self._context_count

    def _load(self, named: dict[str, Any]) -> None:
        self._cells.start([Context.of(name, value) for name, value in named.items()])
        self._contexts.update(named)

    def execute_code(self, code: str) -> REPLResult:
        """Execute one cell and return how it ended; what goes wrong in it stands in ``stderr``."""
        self._caller = contextvars.copy_context()
        self._calls = []
        began = time.perf_counter()
        result = self._cells.run(code)
        seconds = time.perf_counter() - began
        calls, final = self._calls, result.final
        stdout, stderr = streams(result.outputs, result.lost)
        if result.status == "timed_out" and not result.lost:
            stderr += f"The cell was interrupted after {self._cells.cell_timeout:g} seconds.\n"
        self._variables = self._cells.values(result.variables)
        return REPLResult(
            stdout, stderr, dict(self._variables), seconds, calls, None if final is None else final.text
        )

    def cleanup(self) -> None:
        """End the kernel. Safe to call twice."""
        self._cells.close()

    def __enter__(self) -> LocalREPL:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

    # Calls ------------------------------------------------------------------------------------------

    async def _answer(self, call: Call) -> Sequence[Any]:
        if isinstance(call, ToolCall):
            function = self._tools.plain.get(call.name)
            if function is None:
                raise CallError(f"no tool {call.name[:100]!r}", kind="bad_request")
            value = await self._on_host("tool", lambda: function(*call.args, **call.kwargs))
            try:
                json.dumps(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise CallError(f"{call.name}() returned no JSON value: {error}", kind="tool") from None
            return [value]
        if isinstance(call, BudgetQuery):
            return [dict.fromkeys(("usd", "tokens", "calls", "seconds"))]
        asked = call.prompts if isinstance(call, LLMQuery) else [_plain(*item) for item in call.items]
        ask = self._child if isinstance(call, RLMQuery) and self.subcall_fn else self._ask
        slots = asyncio.Semaphore(16 if isinstance(call, LLMQuery) else self.max_concurrent_subcalls)

        async def one(prompt: Any) -> Any:
            async with slots:
                try:
                    return await ask(prompt, call.model)
                except CallError as error:
                    return error

        return await asyncio.gather(*map(one, asked))

    async def _ask(self, prompt: str | list[Part], model: str | None) -> str:
        handler = None if self.lm_handler_address is None else handler_at(self.lm_handler_address)
        if handler is None:
            raise CallError(
                "no client answers here: give lm_handler_address of an open LMHandler", kind="model"
            )
        client = handler.get_client(model, self.depth)
        sent = prompt if isinstance(prompt, str) else [{"role": "user", "content": prompt}]
        began = time.perf_counter()
        text, last = await self._on_host(
            "model", lambda: (str(client.completion(sent)), client.get_last_usage())
        )
        usage = UsageSummary({client.model_name: last})
        seconds = time.perf_counter() - began
        self._calls.append(RLMChatCompletion(client.model_name, prompt, text, usage, seconds))
        return str(text)

    async def _child(self, prompt: str, model: str | None) -> str:
        function = self.subcall_fn
        assert function is not None
        completion = await self._on_host("model", lambda: function(prompt, model))
        self._calls.append(completion)
        return str(completion.response)

    async def _on_host(self, kind: str, function: Callable[[], Any]) -> Any:
        try:
            return await in_thread(self._caller, function)
        except CallError:
            raise
        except Exception as error:  # noqa: BLE001  an edge: clients and tools are the user's code
            raise CallError(f"{type(error).__name__}: {error}".rstrip(": "), kind=kind) from None


def _plain(query: str, context: Context | None) -> str:
    """Return a child's question and its context as one prompt: the original's children have no other."""
    if context is None:
        return query
    value = context.value
    return f"{query}\n\nContext:\n{value}"


def only_local(environment: str, refused: Sequence[str]) -> None:
    """Refuse an environment that is not here.

    Raises:
        UnsupportedArgumentError: it is one of ``refused``, or unknown.
    """
    if environment in refused:
        raise UnsupportedArgumentError(
            f"the environment {environment!r} is not here: code would run somewhere else than you ask",
            hint="use 'local' or 'ipython', which are kernel processes of this machine",
        )
    if environment not in ("local", "ipython"):
        raise UnsupportedArgumentError(f"no environment {environment!r}", hint="there is: local, ipython")
