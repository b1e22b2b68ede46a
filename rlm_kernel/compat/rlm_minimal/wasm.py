"""``rlm.wasm`` of rlm-minimal: code runs in WebAssembly on this machine, as with ``repl="pyodide"``.

Variables live on between cells. Where there is no WebAssembly, code does not run; the original runs it in the
program itself then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...context import Context
from ...errors import CallError
from ...repl.backend import KERNELS
from ...repl.base import Call
from ..cells import Cells
from ..rlms.core.trajectory import streams

__all__ = ["WASMREPLEnv", "WASMREPLExecutor", "WASMResult"]

TIMEOUT = 30


@dataclass
class WASMResult:
    """How a cell ended. ``locals`` are the variables that cells made, those too large for JSON as texts."""

    stdout: str
    stderr: str
    locals: dict[str, Any]
    execution_time: float
    success: bool
    error: str | None = None


class WASMREPLExecutor:
    """A sandbox of its own for code, cell by cell, without a model to ask; ``timeout`` is in seconds."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self.timeout = timeout
        self._cells: Cells | None = None
        self._one_by_one = asyncio.Lock()

    async def initialize(self) -> None:
        """Start the sandbox, unless it is started.

        Raises:
            ConfigError: this machine has no Deno, which it needs.
            KernelError: it did not start.
        """
        async with self._one_by_one:
            await asyncio.to_thread(self._start)

    def _start(self) -> Cells:
        if self._cells is None:
            KERNELS["pyodide"].check()  # type: ignore[attr-defined]
            cells = Cells(_no_model, cell_timeout=self.timeout, session=KERNELS["pyodide"])
            cells.start()
            self._cells = cells
        return self._cells

    async def execute_code(self, code: str, context: Mapping[str, Any] | None = None) -> WASMResult:
        """Execute one cell, with the variables in ``context`` set before it; see `initialize`.

        Raises:
            ContextError: a variable can't travel into the sandbox.
        """
        async with self._one_by_one:
            return await asyncio.to_thread(self._execute, code, context or {})

    def _execute(self, code: str, variables: Mapping[str, Any]) -> WASMResult:
        began = time.perf_counter()
        cells = self._start()
        if variables:
            cells.start([Context.of(name, value) for name, value in variables.items()])
        result = cells.run(code)
        stdout, stderr = streams(result.outputs, result.lost)
        if result.lost:
            # The next cell has a new sandbox.
            self._end()
        seconds = time.perf_counter() - began
        error = None
        if result.status == "timed_out":
            error = f"Execution timed out after {self.timeout:g} seconds"
        elif result.status != "ok":
            error = stderr.strip().rpartition("\n")[2] or result.status
        return WASMResult(stdout, stderr, cells.values(result.variables), seconds, error is None, error)

    async def cleanup(self) -> None:
        """End the sandbox. Safe to call twice; the next cell starts another one."""
        async with self._one_by_one:
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        cells, self._cells = self._cells, None
        if cells is not None:
            cells.close()


async def _no_model(call: Call) -> Sequence[Any]:
    raise CallError(f"there is no model here to be asked: {type(call).__name__}", kind="bad_request")


class WASMREPLEnv:
    """A `WASMREPLExecutor` by the arguments of a REPL; depths are only kept."""

    def __init__(self, max_depth: int = 1, current_depth: int = 0, timeout: float = TIMEOUT) -> None:
        self.max_depth = max_depth
        self.current_depth = current_depth
        self.timeout = timeout
        self.executor = WASMREPLExecutor(timeout)

    async def initialize(self) -> None:
        """Start the sandbox; see `WASMREPLExecutor.initialize`."""
        await self.executor.initialize()

    async def code_execution(self, code: str, context: Mapping[str, Any] | None = None) -> WASMResult:
        """Execute one cell; see `WASMREPLExecutor.execute_code`."""
        return await self.executor.execute_code(code, context)

    async def cleanup(self) -> None:
        """End the sandbox."""
        await self.executor.cleanup()
