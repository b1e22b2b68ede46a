"""The REPL as model-written code sees it: its names, and what happens around each cell.

Invariant: every cell that the host sent is reported on, once, whatever its code did to its own variables,
streams or answer, and whatever cells it ran inside itself (``%%capture`` does).
"""

from __future__ import annotations

import builtins
import getpass
import os
import re
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from . import calls, decode, fetched, lazy, names, output, plain, quotes, remote, tools
from .channels import CallFailed, interrupts_held

__all__ = ["Repl", "again", "fresh", "install", "load", "offer", "ready", "rename"]

ANSWER_CHARS = 8_000_000
_REPL: Repl


def install(config: dict[str, Any]) -> None:
    """Prepare this kernel: names, hooks, cuts, channels. Called once, from the host's first cell."""
    global _REPL  # noqa: PLW0603  a kernel has one REPL, and the host's first cell three things to do to it
    shell = _shell()
    kernel = getattr(shell, "kernel", None)
    if kernel is not None and not hasattr(kernel, "stdin_socket"):
        kernel = None
    if config.get("lent"):
        from . import lent  # noqa: PLC0415  it needs this module

        _REPL = lent.Lent(shell, kernel, config)
    else:
        _REPL = Repl(shell, calls.Host(kernel, control=config.get("control", True)), config)


def load(name: str, format_: str, path: str) -> None:
    """Bind the context in the file at ``path`` to ``name``, or a view of it if the format is ``lazy``.

    One in the format ``held`` is a value already: the kernel has it by that path.
    """
    value: Any
    here = fetched.fetched(_REPL.host, path)
    if format_ == "held":
        value = _REPL.shell.take(here)
    elif format_ == "lazy":
        value = lazy.LazyText(here)
    else:
        value = decode.decode_file(format_, here)
        if here != path:
            os.unlink(here)
    _REPL.contexts[name] = value


def fresh() -> None:
    """Forget the answer so far: another question comes."""
    _REPL.fresh()


def rename(renamed: dict[str, str]) -> None:
    """Bind contexts to other names, in order."""
    for old, new in renamed.items():
        _REPL.contexts[new] = _REPL.contexts.pop(old)
        _REPL.namespace.pop(old, None)


def offer(stubs: list[Any]) -> None:
    """Offer the host's functions, each (name, documentation), in place of those offered before."""
    _REPL.offer(stubs)


def ready() -> None:
    """Take the names and hooks into use, and report to the host."""
    _REPL.ready()


def again() -> None:
    """Introduce the REPL to another host, which goes on with it."""
    _REPL._introduce()


def _shell() -> Any:
    # Only IPython has a shell to ask for; another kernel is refused in words.
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if shell is None:
        raise RuntimeError("this kernel has no IPython shell")
    return shell


class Repl:
    """The state of the REPL across cells."""

    def __init__(
        self,
        shell: Any,
        host: calls.Host,
        config: dict[str, Any],
        *,
        streams: dict[str, Any] | None = None,
    ) -> None:
        self.shell = shell
        self.host = host
        self.contexts: dict[str, Any] = {}
        self.namespace: dict[str, Any] = shell.user_ns
        self.lease: float = config.get("lease", 0.0)
        self._answer: dict[str, Any] = {"content": "", "ready": False}
        self._final: dict[str, Any] | None = None
        self._draft = ""
        self._cut = output.OutputCut(
            shell,
            config["head"],
            config["tail"],
            config["displays"],
            config["image_bytes"],
            streams=streams,
        )
        self._bare = not config.get("names", True)
        self._names = {} if self._bare else self._make_names()
        self._tools: dict[str, Any] = {}
        self._channels = host.probe()
        # What is there before the model's first cell is not the model's.
        self._before: set[str] = set()
        self._request: str | None = None
        self._code: str | None = None

    def ready(self) -> None:
        """Hook into the shell, bind the names, and tell the host what this kernel can do."""
        shell = self.shell
        _set_quietly(shell, "colors", "nocolor", "NoColor")
        # exit() would end the kernel in the middle of a later cell, and its variables with it.
        _set_quietly(shell, "ask_exit", self._stay)
        # ipykernel sleeps before each reply, in case a flush has not got through; ours have.
        _set_quietly(getattr(shell, "kernel", None), "_execute_sleep", 0)
        self._before = set(self.namespace)
        self._bind()
        self._request = self.host.request()
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)
        self._introduce()
        if self.lease:
            remote.serve(shell, self.host, self.lease)

    def _introduce(self) -> None:
        self.host.introduce("ready", {**self._channels, "implementation": _implementation()})

    def _stay(self) -> None:
        self._cut.complain("exit: the REPL goes on; use FINAL(...) to answer\n")

    def _begin(self, info: Any = None) -> None:
        request = self.host.request()
        if self.host.cell is not None and request == self._request:
            return  # A cell that the running cell runs.
        self._request = request
        self._code = getattr(info, "raw_cell", None)
        self._final = None
        self.host.begin()
        self.contexts.update(self.host.brought())
        self._bind()
        # After ipykernel, which puts its own in place for each cell.
        builtins.input = _no_input
        getpass.getpass = _no_input
        self._cut.begin()

    def _end(self, result: Any = None) -> None:
        if self.host.forked:
            os._exit(0)  # Two processes must not serve one connection.
        info = getattr(result, "info", None)
        if self.host.cell is None:
            request = self.host.request()
            if request is not None and request == self._request:
                return
            self._begin(info)  # IPython announces the end of an empty cell, not its start.
        elif info is not None and info.raw_cell != self._code:
            return
        # A second interrupt finds nothing left to stop.
        with suppress(KeyboardInterrupt), interrupts_held():
            self._attempt(self._read_answer)
            self._attempt(lambda: output.short_error(result, 4000))
            self._attempt(self._cut.end)
            self.host.end({"final": self._final, "draft": self._draft, "variables": self._variables()})

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  an edge: without its report the host gives the kernel up
            self._cut.complain(f"after the cell: {type(error).__name__}: {_text(error)[:1000]}\n")

    def _bind(self) -> None:
        self.namespace.update(self._names)
        self.namespace.update(self.contexts)
        if not self._bare and not isinstance(self.namespace.get("answer"), dict):
            self.namespace["answer"] = self._answer

    @property
    def own(self) -> dict[str, Any]:
        """The names that are the REPL's, and what stands behind them before a cell."""
        return {**self._names, **self.contexts, "answer": self._answer}

    def _variables(self) -> list[str]:
        taken = self._before | set(self._names) | set(self.contexts) | {"answer"}
        # A copy, since threads go on making names; and names made through globals() can be anything.
        found = list(self.namespace.items())
        # By type(), since isinstance asks the object, and lazy ones raise.
        return sorted(
            name
            for name, value in found
            if isinstance(name, str)
            and not name.startswith("_")
            and name not in taken
            and not issubclass(type(value), types.ModuleType)
        )[:200]

    def _read_answer(self) -> None:
        answer = self.namespace.get("answer")
        if self._bare or not isinstance(answer, dict):
            return
        content, cited = answer.get("content"), answer.get("quotes")
        if content is None or (isinstance(content, str) and not content):
            return
        if not answer.get("ready"):
            self._draft = str(content)[:100_000]
            return
        # Taken: the next cell starts from a fresh one, should the host refuse this one.
        self.namespace["answer"] = self._answer = {"content": content, "ready": False}
        if self._final is None:
            try:
                self._final = _final(content, "answer", cited)
            except Exception as error:  # noqa: BLE001  an edge: objects of model-written classes raise anything
                self._cut.complain(f"answer refused: {_text(error)}\n")

    def _make_names(self) -> dict[str, Any]:
        def FINAL(value: Any, quotes: Any = None) -> None:  # noqa: N802
            """End the run with ``value`` as the answer, once this cell is done."""
            self.host.current()
            self._final = _final(value, "FINAL", quotes)

        def FINAL_VAR(name: Any, quotes: Any = None) -> None:  # noqa: N802
            """End the run with the variable of this name as the answer, once this cell is done."""
            self.host.current()
            self._final = _final(self._named(name), "FINAL_VAR", quotes)

        def SHOW_VARS() -> str:  # noqa: N802
            """Return a listing of the variables you made, with type and size."""
            rows = [f"{name}: {names.kind(self.namespace.get(name))}" for name in self._variables()]
            return _Listing("\n".join(rows) or "no variables yet")

        return _as_ours(
            {
                **names.queries(self.host),
                "FINAL": FINAL,
                "FINAL_VAR": FINAL_VAR,
                "SHOW_VARS": SHOW_VARS,
                "CallFailed": CallFailed,
            }
        )

    def fresh(self) -> None:
        """Start from an empty answer."""
        self._draft = ""
        self.namespace["answer"] = self._answer = {"content": "", "ready": False}

    def offer(self, stubs: list[Any]) -> None:
        """Bind the host's functions from now on, in place of those offered before."""
        for name in self._tools:
            self._names.pop(name, None)
            self.namespace.pop(name, None)
        self._tools = _as_ours(tools.functions(self.host, stubs))
        self._names.update(self._tools)

    def _named(self, name: Any) -> Any:
        """Return the value of the variable ``name``, or ``name`` itself where it can't be a name."""
        if not isinstance(name, str) or not re.fullmatch(r"\s*[A-Za-z_]\w*\s*", name):
            return name
        key = name.strip()
        if key not in self.namespace:
            known = ", ".join(self._variables()) or "none"
            raise NameError(f"FINAL_VAR: no variable {key!r}; your variables: {known}")
        return self.namespace[key]


def _as_ours(made: dict[str, Any]) -> dict[str, Any]:
    """Return ``made``, its functions shown as part of the REPL."""
    for each in made.values():
        each.__module__ = "rlm"
        each.__qualname__ = each.__name__
    return made


class _Listing(str):
    """Text that a cell shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _no_input(*args: Any, **kwargs: Any) -> str:
    raise RuntimeError("there is nobody to answer input() here: decide yourself, or ask llm_query")


def _final(value: Any, via: str, cited: Any = None) -> dict[str, Any]:
    try:
        encoded = plain.to_json(value)
    except (TypeError, ValueError, RecursionError):
        encoded = None
    text = value if isinstance(value, str) else str(value)
    size = max(len(text), len(encoded or ""))
    if size > ANSWER_CHARS:
        raise ValueError(
            f"the answer has {size:,} characters, more than the {ANSWER_CHARS:,} allowed: shorten it"
        )
    final: dict[str, Any] = {"text": text, "via": via, "quotes": quotes.listed(cited)}
    if encoded is not None:
        final["json"] = encoded
    return final


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  an edge: objects of model-written classes raise anything
        return "(its text can't be shown)"


def _implementation() -> str:
    python = f"Python {sys.version.split()[0]}"
    for name in ("ipykernel", "pyodide_kernel"):
        if name in sys.modules:
            return f"{name} {getattr(sys.modules[name], '__version__', '')}, {python}"
    return python


def _set_quietly(owner: Any, name: str, *values: Any) -> None:
    """Set the attribute to the first of ``values`` that this version takes."""
    for value in values:
        try:
            setattr(owner, name, value)
        except Exception:  # noqa: BLE001, S112  traits raise what they like
            continue
        return
