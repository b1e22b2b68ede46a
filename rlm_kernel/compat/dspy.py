"""`dspy.RLM` in kernels of this package: ``dspy.RLM(signature, interpreter_factory=KernelInterpreter)``.

A `KernelInterpreter` is a ``CodeInterpreter`` of dspy 3.4 (also taken by ``dspy.configure`` as
``interpreter_factory``). Its code runs in a supervised kernel process that has no key; dspy's tools,
``llm_query`` among them, are called on the host over the kernel's own messages.

Invariant: what submitted code can repair is a ``CodeExecutionError`` or a ``SyntaxError``, and the session
goes on; when the kernel is gone, that and every later call is a ``CodeInterpreterError``.
"""

from __future__ import annotations

import contextvars
import json
import keyword
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from ..context import Context
from ..errors import CallError, ContextError, KernelError
from ..outputs import Output
from ..repl.base import Call, CellResult, ToolCall
from .cells import CELL_SECONDS, Cells, in_thread

__all__ = ["KernelInterpreter"]

_HOST = "rlm_host"
_INPUTS = "rlm_inputs"
_SUBMIT = "SUBMIT"
_RESERVED = frozenset((_SUBMIT, "__builtins__", _HOST, _INPUTS))
# The functions of dspy as cells know them. What the host answers is [whether it worked, value or message].
_DEFINE = """\
def _rlm_define(names):
    class Submitted(BaseException):
        pass
    def make(name):
        def function(*args, **kwargs):
            worked, value = rlm_host(name, list(args), kwargs)
            if not worked:
                raise RuntimeError(value)
            if name == {submit!r}:
                raise Submitted("the output was taken")
            return value
        function.__name__ = function.__qualname__ = name
        return function
    globals().update({{name: make(name) for name in names}})
_rlm_define({names!r})
del _rlm_define
"""


class KernelInterpreter:
    """A kernel as a ``CodeInterpreter``.

    Args:
        tools: Functions of the host by name, sync or async; dspy adds its own. Their arguments and results
            must be JSON values.
        output_fields: What ``SUBMIT`` takes; dspy sets it.
        cell_timeout: Seconds that submitted code may take, tools included; None for no limit. Past it, code
            is interrupted, and its kernel killed if it does not heed that.
    """

    execution_instructions = (
        "Code runs in a Jupyter kernel (IPython): variables, imports and functions persist, the value of the "
        "last expression is shown, and top-level await, threads and %magics work. Host tools and SUBMIT are "
        "global functions that take and return JSON values. input() is not available."
    )

    def __init__(
        self,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        output_fields: Sequence[Mapping[str, Any]] | None = None,
        *,
        cell_timeout: float | None = CELL_SECONDS,
    ) -> None:
        self.tools: dict[str, Callable[..., Any]] = dict(tools or {})
        self.output_fields = None if output_fields is None else [dict(each) for each in output_fields]
        self.cell_timeout = cell_timeout
        self._cells: Cells | None = None
        self._defined: tuple[str, ...] = ()
        self._inputs: dict[str, Any] = {}
        self._submitted: list[Any] = []
        self._caller = contextvars.copy_context()
        self._ended = ""

    def start(self) -> None:
        """Start the kernel, unless it is started.

        Raises:
            CodeInterpreterError: it can't be, or the session is over.
        """
        if self._ended:
            raise _terminal(self._ended)
        if self._cells is not None:
            return
        from ..repl.bootstrap import GuestSettings  # noqa: PLC0415  on use

        cells = Cells(
            self._answer,
            settings=GuestSettings(names=False),
            tools=[(_HOST, "Call a function of the host by name.")],
            cell_timeout=self.cell_timeout,
        )
        try:
            cells.start()
        except KernelError as error:
            raise _terminal(str(error)) from error
        self._cells = cells

    def execute(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        """Execute ``code`` with ``variables`` set before it.

        Returns:
            dspy's ``FinalOutput`` if it called ``SUBMIT``, else what it showed, or None.

        Raises:
            CodeExecutionError: the code failed, or took too long; variables are kept.
            SyntaxError: it is no Python.
            CodeInterpreterError: a variable can't travel, or the kernel is gone.
        """
        self.start()
        assert self._cells is not None
        self._caller = contextvars.copy_context()
        self._define()
        self._bind(variables or {})
        self._submitted.clear()
        result = self._run(code)
        if self._submitted:
            return _of_dspy().FinalOutput(self._submitted[0])
        if result.status == "ok":
            return _shown(result.outputs) or None
        if result.lost:
            self._end(result.lost)
            raise _terminal(result.lost)
        error = next((each for each in result.outputs if each.kind == "error"), None)
        if error is not None and error.name in ("SyntaxError", "IndentationError", "TabError"):
            raise SyntaxError(error.value)
        raise _of_dspy().CodeExecutionError(_failure(result, error, self.cell_timeout))

    def __call__(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        """Execute ``code``; see `execute`."""
        return self.execute(code, variables)

    def shutdown(self) -> None:
        """End the kernel; the session can't be used any more. Safe to call twice."""
        self._end("the interpreter was shut down")

    def __enter__(self) -> KernelInterpreter:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    def _end(self, why: str) -> None:
        self._ended = self._ended or why
        cells, self._cells = self._cells, None
        if cells is not None:
            cells.close()

    # In the kernel ----------------------------------------------------------------------------------

    def _run(self, code: str) -> CellResult:
        assert self._cells is not None
        try:
            return self._cells.run(code)
        except KernelError as error:
            raise _terminal(str(error)) from error

    def _define(self) -> None:
        """See that all tools are functions there."""
        names = (*sorted(self.tools), _SUBMIT)
        if names == self._defined:
            return
        wrong = [name for name in self.tools if not _usable(name)]
        if wrong:
            raise _terminal(f"tools can't have these names: {wrong!r}")
        self._checked(self._run(_DEFINE.format(submit=_SUBMIT, names=list(names))))
        self._defined = names

    def _bind(self, variables: Mapping[str, Any]) -> None:
        """Set variables there; those that were sent before are only set again."""
        wrong = [name for name in variables if not _usable(name) or name in self.tools]
        if wrong:
            raise _terminal(f"variables can't have these names: {wrong!r}")
        new = {
            name: value
            for name, value in variables.items()
            if name not in self._inputs or self._inputs[name] is not value
        }
        if new:
            self._inputs.update(new)
            try:
                assert self._cells is not None
                self._cells.start([Context.of(_INPUTS, self._inputs)])
            except (ContextError, KernelError) as error:
                self._inputs = {}
                raise _terminal(f"variables can't travel to the kernel: {error}") from error
        if variables:
            names = list(variables)
            code = f"globals().update({{_: {_INPUTS}[_] for _ in {names!r}}})"
            self._checked(self._run(code))

    def _checked(self, result: CellResult) -> None:
        if result.status != "ok":
            why = result.lost or _shown(result.outputs) or result.status
            self._end(why)
            raise _terminal(why)

    # On the host ------------------------------------------------------------------------------------

    async def _answer(self, call: Call) -> Sequence[Any]:
        if not isinstance(call, ToolCall) or call.name != _HOST:
            raise CallError("only tools can be called here", kind="bad_request")
        name, args, kwargs = _asked(call)
        if name == _SUBMIT:
            return [self._submit(args, kwargs)]
        function = self.tools.get(name)
        if function is None:
            return [[False, f"no tool {name!r}"]]
        try:
            value = await in_thread(self._caller, lambda: function(*args, **kwargs))
            json.dumps(value)
        except Exception as error:  # noqa: BLE001  an edge: tools are the user's code
            return [[False, f"{type(error).__name__}: {error}".rstrip(": ")]]
        return [[True, value]]

    def _submit(self, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
        names = ["output"] if self.output_fields is None else [each["name"] for each in self.output_fields]
        if args and kwargs:
            return [False, "SUBMIT takes its values in order or by name, not both"]
        values = dict(zip(names, args, strict=False)) if args else kwargs
        if len(args) > len(names) or set(values) != set(names):
            return [False, f"SUBMIT takes {', '.join(names)}"]
        self._submitted.append(values)
        return [True, None]


def _asked(call: ToolCall) -> tuple[str, list[Any], dict[str, Any]]:
    """Return name and arguments, which come from the kernel and may be anything."""
    match call.args:
        case (str(name), list(args), dict(kwargs)) if not call.kwargs:
            return name, args, kwargs
    raise CallError("a call of the host needs a name, a list and a dict", kind="bad_request")


def _usable(name: Any) -> bool:
    usable = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
    return usable and name not in _RESERVED


def _shown(outputs: Sequence[Output]) -> str:
    return "\n".join(each.text.rstrip("\n") for each in outputs if each.kind != "error" and each.text)


def _failure(result: CellResult, error: Output | None, seconds: float | None) -> str:
    if result.status == "timed_out":
        what = f"TimeoutError: the code was interrupted after {seconds:g} seconds; variables are kept"
    elif error is not None:
        what = f"{error.name}: {error.value}".rstrip(": ")
    else:
        what = f"the code was {result.status}"
    shown = _shown(result.outputs)
    return f"{what}\nOutput before it:\n{shown}" if shown else what


def _of_dspy() -> Any:
    # Whoever hands an interpreter to dspy has it; this package does not depend on it.
    return import_module("dspy.primitives.code_interpreter")


def _terminal(message: str) -> Exception:
    error: Exception = _of_dspy().CodeInterpreterError(message)
    return error
