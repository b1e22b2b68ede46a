"""The seam between the engine and the kernels: sessions, what cells come back as, what cells ask for.

A `KernelSession` is one Jupyter kernel prepared for one run: started, given its contexts, asked to
execute cells one after the other, and closed. What code in a cell asks of the host (``llm_query`` and
its like) arrives as a `Call` at the handler of that cell while it runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..context import Context
from ..errors import CallError
from ..events import CellStatus
from ..messages import Part
from ..outputs import Output

__all__ = [
    "BudgetQuery",
    "Call",
    "CallHandler",
    "CellResult",
    "FinalAnswer",
    "KernelInfo",
    "KernelSession",
    "LLMQuery",
    "RLMQuery",
    "SessionFactory",
    "ToolCall",
    "ToolStub",
]


@dataclass(frozen=True, slots=True)
class LLMQuery:
    """``llm_query`` (one prompt) or ``llm_query_batched``: plain questions to a sub-model.

    A prompt is the content of one user message.
    """

    prompts: tuple[str | list[Part], ...]
    batched: bool = False
    model: str | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RLMQuery:
    """``rlm_query`` (one item) or ``rlm_query_batched``: questions to children, each with its context."""

    items: tuple[tuple[str, Context | None], ...]
    batched: bool = False
    model: str | None = None


@dataclass(frozen=True, slots=True)
class BudgetQuery:
    """``budget()``: what is left."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the user's functions, with JSON values as arguments."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


Call = LLMQuery | RLMQuery | BudgetQuery | ToolCall
"""Something that code in a cell asks of the host. All of it is guest data: typed, but not trusted."""

CallHandler = Callable[[Call], Awaitable[Sequence[Any | CallError]]]
"""Answers a `Call` with one JSON value, or one `CallError`, per prompt or item, in order. A `CallError` it
raises stands for all of them; any other exception reaches the cell as ``internal``, without its text."""


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """An answer that a cell gave: as text and, where JSON can carry it, as a value.

    ``via`` is ``FINAL``, ``FINAL_VAR`` or ``answer``. ``quotes`` are said to stand in the context.
    """

    text: str
    value: Any
    via: str
    quotes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CellResult:
    """How a cell ended.

    ``lost`` says, in words for the model, what state was lost, or is empty. ``final`` is the answer given
    in this cell, ``draft`` the content of an ``answer`` that is not ready, ``variables`` the names that
    cells have made so far.
    """

    status: CellStatus
    outputs: tuple[Output, ...] = ()
    final: FinalAnswer | None = None
    draft: str = ""
    variables: tuple[str, ...] = ()
    seconds: float = 0.0
    lost: str = ""


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """What a session learned of its kernel when it started."""

    id: str
    backend: str
    implementation: str
    capabilities: Mapping[str, bool] = field(default_factory=dict)


ToolStub = tuple[str, str]
"""What a kernel is told of one of the user's functions: its name and its documentation."""


class KernelSession(Protocol):
    """One Jupyter kernel, prepared for one run."""

    @property
    def alive(self) -> bool:
        """Whether cells can be executed: started, not dead, not closed."""
        ...

    async def start(self, contexts: Sequence[Context], tools: Sequence[ToolStub] = ()) -> KernelInfo:
        """Start the kernel, install the guest, load ``contexts``, offer ``tools`` in it.

        The supervisor calls it once, first.

        Raises:
            KernelStartError: the kernel did not become ready.
            ContextError: a context could not be loaded there.
        """
        ...

    async def load(
        self, contexts: Sequence[Context], renamed: Mapping[str, str], *, fresh: bool = False
    ) -> None:
        """Give loaded contexts the names in ``renamed``, in order, then load further ones.

        ``fresh`` forgets the answer so far: another question comes.

        Raises:
            ContextError: a context could not be loaded there.
            KernelStartError: the kernel ended meanwhile.
        """
        ...

    async def settle(self) -> bool:
        """Stop what a cell goes on with whose `execute` was cancelled; tell whether the kernel is free."""
        ...

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None,
        on_call: CallHandler,
        on_output: Callable[[Output], None] | None = None,
    ) -> CellResult:
        """Execute one cell, answering its calls through ``on_call``. Cells never overlap.

        Past ``timeout`` seconds the cell is interrupted, and 2 seconds later the kernel is killed. Returns
        in every case but cancellation, also when the kernel died: `alive` then tells that it is gone.
        """
        ...

    async def interrupt(self) -> None:
        """Interrupt the running cell, if there is one."""
        ...

    async def close(self) -> None:
        """End the kernel and all that it started. Safe to call twice, and at any point."""
        ...


SessionFactory = Callable[[], KernelSession]
"""Makes a session that is not started yet."""
