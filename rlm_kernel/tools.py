"""The user's own functions, offered to the REPL: described to the model, called on the host.

Invariant: a function is called only with arguments that its own signature takes, each checked by pydantic
against its annotation, strictly, as JSON. What it returns goes back as JSON. A function that hangs holds up
nobody but its caller: synchronous ones run in daemon threads of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import page
from .context import check_name
from .errors import CallError, ConfigError, ContextError
from .repl.base import ToolCall, ToolStub
from .trace.redact import REDACTED, Redactor

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["BoundTool", "Tool", "Toolbox", "as_mapping", "bind"]

MOST_THREADS = 32
MOST_RESULT_CHARS = 50_000_000
MOST_DESCRIPTION_CHARS = 4000
MOST_ERROR_CHARS = 2000
# How long an async function may take to clean up once it is cancelled.
GRACE_SECONDS = 1.0

_EMPTY = inspect.Parameter.empty
_TAKEN = frozenset(("context", "CallFailed"))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function to be offered to the REPL, if there is more to say of it than the function itself does.

    ``description`` takes the place of its docstring; with ``children`` the children of a run get it too.
    """

    function: Callable[..., Any]
    description: str | None = None
    children: bool = False


class Toolbox:
    """The functions of one run, as `bind` has made them; see `rlm_kernel.runs.subcalls.Tools`.

    ``secrets`` are texts that no result and no error may hold.
    """

    def __init__(self, tools: Mapping[str, BoundTool], *, secrets: Iterable[str] = ()) -> None:
        self._tools = tools
        self._secrets = tuple(each for each in secrets if len(each) >= 8)
        self._redacted = Redactor(self._secrets)
        self._slots = asyncio.Semaphore(MOST_THREADS)

    def check_contexts(self, names: Iterable[str]) -> None:
        """Refuse a run whose context has the name of a function.

        Raises:
            ConfigError: it has.
        """
        for name in names:
            if any(name in (tool, f"a{tool}") for tool in self._tools):
                raise ConfigError(
                    f"{name!r} is both a context and a tool", hint="give one of them another name"
                )

    def described(self, depth: int) -> tuple[tuple[str, str], ...]:
        """Return signature and description of each function that a run at ``depth`` has."""
        return tuple((each.signature, each.description) for each in self._at(depth).values())

    def stubs(self, depth: int) -> tuple[ToolStub, ...]:
        """Return what a kernel at ``depth`` is told."""
        found = self._at(depth)
        return tuple((name, f"{each.signature}\n\n{each.description}") for name, each in found.items())

    def prepare(self, call: ToolCall, depth: int) -> Callable[[], Awaitable[Any]]:
        """Check a call made at ``depth``; return what makes it, and returns the result as a JSON value.

        Raises:
            CallError: no such function, or arguments that it does not take. What is returned raises it too,
                if the function fails, or returns no JSON value.
        """
        tools = self._at(depth)
        tool = tools.get(call.name)
        if tool is None:
            known = ", ".join(tools) or "none"
            raise CallError(f"no tool {call.name[:100]!r}; there is {known}", kind="bad_request")
        args, kwargs = tool.arguments(call)
        return lambda: self._made(tool, args, kwargs)

    def _at(self, depth: int) -> Mapping[str, BoundTool]:
        return self._tools if depth == 0 else {n: each for n, each in self._tools.items() if each.children}

    async def _made(self, tool: BoundTool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            if tool.is_async:
                result = _as_json(await _bounded(tool.function(*args, **kwargs)))
            else:
                result = await self._in_thread(lambda: _as_json(tool.function(*args, **kwargs)))
            # What a synchronous function returned may have to be awaited: a lambda around an async one.
            if inspect.isawaitable(result):
                result = _as_json(await _bounded(result))
        except _NoJSONError as error:
            raise CallError(f"{tool.name}() {error}", kind="tool") from None
        except Exception as error:  # noqa: BLE001  an edge: tools are the user's code
            said = self._redacted(f"{type(error).__name__}: {error}".rstrip(": "))
            raise CallError(f"{tool.name}() raised {said[:MOST_ERROR_CHARS]}", kind="tool") from None
        return self._without_secrets(result)

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Return what ``work()`` returns. Its thread keeps one of the places until it is really done."""
        if page.here():
            return work()
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def settle(result: Any, error: BaseException | None) -> None:
            self._slots.release()
            if not future.done():
                future.set_result((result, error))

        def run() -> None:
            result, error = None, None
            try:
                result = context.run(work)
            except BaseException as raised:  # noqa: BLE001  also SystemExit must be heard of, not wait forever
                error = raised
            # A loop that was closed meanwhile has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=run, name="rlm-tool", daemon=True).start()
        except BaseException:
            self._slots.release()
            raise
        result, error = await future
        if isinstance(error, Exception):
            raise error
        if error is not None:
            raise RuntimeError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        return result

    def _without_secrets(self, result: Any) -> Any:
        if not self._secrets or isinstance(result, bool | int | float | None):
            return result
        text = json.dumps(result, ensure_ascii=False)
        for secret in self._secrets:
            written = json.dumps(secret, ensure_ascii=False)[1:-1]
            text = text.replace(written, REDACTED)
        return json.loads(text)


async def _bounded(work: Awaitable[Any]) -> Any:
    """Await ``work``; once cancelled, wait for its clean-up a moment and no longer."""

    async def guarded() -> Any:
        try:
            return await work
        except (SystemExit, KeyboardInterrupt) as error:
            # They would end the event loop, and nobody could say why.
            raise RuntimeError(f"{type(error).__name__}: {error}".rstrip(": ")) from None

    task = asyncio.ensure_future(guarded())
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE_SECONDS)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
    return task.result()


# Functions ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BoundTool:
    """A function with what is known of it. ``adapters`` check its arguments, by the parameter's name."""

    name: str
    function: Callable[..., Any]
    parameters: inspect.Signature
    adapters: Mapping[str, TypeAdapter[Any]]
    signature: str
    description: str
    children: bool
    is_async: bool = field(default=False)

    def arguments(self, call: ToolCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of ``call`` as the function takes them.

        Raises:
            CallError: it does not take them.
        """
        try:
            bound = self.parameters.bind(*call.args, **call.kwargs)
        except TypeError as error:
            raise self._refused(str(error)) from None
        for name, value in bound.arguments.items():
            kind = self.parameters.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(self._value(name, each) for each in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: self._value(name, each) for key, each in value.items()}
            else:
                bound.arguments[name] = self._value(name, value)
        return bound.args, bound.kwargs

    def _value(self, name: str, value: Any) -> Any:
        try:
            return self.adapters[name].validate_json(json.dumps(value), strict=True)
        except ValueError as error:
            raise self._refused(f"argument {name!r}: {_faults(error)}") from None
        except Exception as error:  # noqa: BLE001  an edge: validators are the user's code
            raise self._refused(f"argument {name!r} was refused: {type(error).__name__}") from None

    def _refused(self, reason: str) -> CallError:
        return CallError(
            f"{self.name}() was not called: {reason[:MOST_ERROR_CHARS]}. It takes {self.signature}",
            kind="bad_request",
        )


def _faults(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    found = errors(include_url=False, include_context=False, include_input=False)[:5]
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}" if each["loc"] else each["msg"] for each in found
    )


def bind(tools: Mapping[str, Any]) -> Mapping[str, BoundTool]:
    """Return what is known of each of the user's functions, or `Tool`s.

    Raises:
        ConfigError: a name that can't be used, something that can't be called, or a signature that can't
            be checked.
    """
    _check_names(tools)
    return {name: _bound(name, value) for name, value in tools.items()}


def as_mapping(tools: Any) -> Mapping[str, Any]:
    """Return ``tools``.

    Raises:
        ConfigError: they are no mapping.
    """
    if isinstance(tools, Mapping):
        return tools
    raise ConfigError(
        f"tools must be a dict of name -> function, not a {type(tools).__name__}",
        hint='such as tools={"lookup": lookup}',
    )


def _check_names(tools: Mapping[str, Any]) -> None:
    for name in tools:
        for each in (name, f"a{name}"):
            try:
                check_name(each)
            except ContextError as error:
                reason = str(error).rpartition(": ")[2]
                raise ConfigError(
                    f"{name!r} can't be the name of a tool: {reason}", hint="choose another name"
                ) from None
            if each in _TAKEN or (each is not name and each in tools):
                raise ConfigError(
                    f"{name!r} can't be the name of a tool: the REPL has another {each!r}",
                    hint="choose another name; each tool also gets an awaitable twin with an a before it",
                )


def _bound(name: str, value: Any) -> BoundTool:
    tool = value if isinstance(value, Tool) else Tool(value)
    function = tool.function
    if not callable(function):
        raise ConfigError(
            f"the tool {name!r} is no function but a {type(function).__name__}",
            hint="values go in with contexts=, and are then variables in the REPL",
        )
    try:
        parameters = inspect.signature(function, eval_str=True)
        written = inspect.signature(function)
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(
            f"the signature of the tool {name!r} can't be read: {error}",
            hint="wrap it in a function whose annotations can be evaluated where it stands",
        ) from None
    adapters = {each.name: _adapter(name, each) for each in parameters.parameters.values()}
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  an object whose call is async
    )
    return BoundTool(
        name=name,
        function=function,
        parameters=parameters,
        adapters=adapters,
        signature=_signature(name, written),
        description=_description(tool, adapters),
        children=tool.children,
        is_async=is_async,
    )


def _adapter(tool: str, parameter: inspect.Parameter) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415  on use

    annotation = Any if parameter.annotation is _EMPTY else parameter.annotation
    try:
        return TypeAdapter(annotation)
    except Exception as error:
        raise ConfigError(
            f"the tool {tool!r} takes {parameter.name} of a type that can't be checked: {_plain(annotation)}",
            hint="annotate it with what JSON carries, or a pydantic model; or leave the annotation out",
        ) from error


def _signature(name: str, signature: inspect.Signature) -> str:
    """Return a signature as a model can read it."""
    shown: list[str] = []
    kinds = [each.kind for each in signature.parameters.values()]
    for number, each in enumerate(signature.parameters.values()):
        stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        kind = "" if each.annotation is _EMPTY else f": {_plain(each.annotation)}"
        default = "" if each.default is _EMPTY else f" = {_short_repr(each.default)}"
        if each.kind is each.KEYWORD_ONLY and not {each.VAR_POSITIONAL, each.KEYWORD_ONLY} & {
            *kinds[:number]
        }:
            shown.append("*")
        shown.append(f"{stars}{each.name}{kind}{default}")
        if each.kind is each.POSITIONAL_ONLY and kinds[number + 1 : number + 2] != [each.kind]:
            shown.append("/")
    returned = signature.return_annotation
    return f"{name}({', '.join(shown)})" + ("" if returned is _EMPTY else f" -> {_plain(returned)}")


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else "..."


_PATHS = re.compile(r"""'[^']*'|"[^"]*"|\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])""")


def _plain(annotation: Any) -> str:
    """Return an annotation as a person would write it, without the modules of its names."""
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return annotation.__name__
    text = annotation if isinstance(annotation, str) else str(annotation)
    return _PATHS.sub(lambda match: match[0] if match[0][0] in "'\"" else "", text)[:300]


def _description(tool: Tool, adapters: Mapping[str, TypeAdapter[Any]]) -> str:
    """Return what a model is told of a function: its description, and the fields of objects it takes."""
    doc = tool.description
    if doc is None:
        # The docstring of an object is its class's, and of a partial that of `functools.partial`.
        function = getattr(tool.function, "func", tool.function)
        doc = inspect.getdoc(function if inspect.isroutine(function) else type(function)) or ""
    lines = [line.rstrip() for line in doc.strip().splitlines()] or ["(no description)"]
    for name, adapter in adapters.items():
        with suppress(Exception):  # No schema can be written of some types; the signature must do.
            schema = json.dumps(adapter.json_schema())
            if '"properties"' in schema:
                lines.append(f"`{name}` satisfies {schema}")
    return "\n".join([lines[0], *(f"  {line}" if line else "" for line in lines[1:])])[
        :MOST_DESCRIPTION_CHARS
    ]


# Results --------------------------------------------------------------------------------------------


class _NoJSONError(Exception):
    """A result that can't travel."""


def _as_json(result: Any) -> Any:
    """Return ``result`` as a JSON value; an awaitable as it is."""
    if result is None or isinstance(result, bool | int | float) or inspect.isawaitable(result):
        return result
    from pydantic_core import to_jsonable_python  # noqa: PLC0415  on use

    try:
        value = result if isinstance(result, str) else to_jsonable_python(result, fallback=_from_numpy)
        size = len(json.dumps(value, ensure_ascii=False))
    except Exception as error:  # noqa: BLE001  an edge: the user's objects
        kind = type(result).__name__
        hint = ": return frame.to_dict('records')" if kind == "DataFrame" else f": {error}"[:300]
        raise _NoJSONError(f"returned a {kind}, which is no JSON value{hint}") from None
    if size > MOST_RESULT_CHARS:
        raise _NoJSONError(f"returned {size:,} characters, more than {MOST_RESULT_CHARS:,}")
    return value


def _from_numpy(value: Any) -> Any:
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} in it is none")
