"""The seam between the engine and the kernels: sessions, what cells come back as, what cells ask for.

A `KernelSession` is one Jupyter kernel prepared for one run: started, given its contexts, asked to
execute cells one after the other, and closed. What code in a cell asks of the host (``llm_query`` and
its like) arrives as a `Call` at the session's handler while the cell runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..context import Context
from ..events import CellStatus
from ..outputs import Output

__all__ = [
    "Call",
    "CallHandler",
    "CellResult",
    "FinalAnswer",
    "KernelInfo",
    "KernelSession",
    "SessionFactory",
]


@dataclass(frozen=True, slots=True)
class Call:
    """Something that code in a cell asks of the host.

    ``op`` is the envelope's; ``args`` are checked against the op's schema by `rlm_kernel.repl.wire`, so a
    handler can rely on their types. ``contexts`` are the sub-contexts that came as binary buffers, by the
    index that ``args`` refer to.
    """

    id: str
    op: str
    args: Mapping[str, Any]
    contexts: Sequence[Context] = ()


CallHandler = Callable[[Call], Awaitable[Any]]
"""Answers a `Call` with a JSON value. Raises `rlm_kernel.errors.CallError` for what the cell may know;
anything else reaches the cell as ``internal`` without its text."""


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """An answer that a cell gave, as text and, where JSON can carry it, as a value.

    ``via`` is ``FINAL``, ``FINAL_VAR`` or ``answer``.
    """

    text: str
    value: Any
    via: str


@dataclass(frozen=True, slots=True)
class CellResult:
    """How a cell ended. ``lost`` says, in words for the model, what state was lost, or is empty.

    ``final`` is the answer given in this cell, ``variables`` the user-made names in the REPL after it.
    """

    status: CellStatus
    outputs: tuple[Output, ...] = ()
    final: FinalAnswer | None = None
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


class KernelSession(Protocol):
    """One Jupyter kernel, prepared for one run."""

    async def start(self, contexts: Sequence[Context], *, depth_left: int = 0) -> KernelInfo:
        """Start the kernel, install the guest, load ``contexts``. The engine calls it once, first.

        Raises:
            KernelStartError: the kernel did not become ready.
            ContextError: a context could not be loaded there.
        """
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

        Past ``timeout`` seconds the cell is interrupted. Returns in every case, also when the kernel died.
        """
        ...

    async def interrupt(self) -> None:
        """Interrupt the running cell, if there is one."""
        ...

    async def close(self) -> None:
        """End the kernel and everything it started. Safe to call twice, and at any point."""
        ...


SessionFactory = Callable[[], KernelSession]
"""Makes a session that is not started yet."""
