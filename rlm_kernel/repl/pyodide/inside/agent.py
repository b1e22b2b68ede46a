"""The kernel's half inside Pyodide: it runs cells, and tells the host what comes of them.

It is the sandbox's own side: code in a cell can change all of it, and the host takes nothing it says for more
than guest data. No import of JavaScript at the top: the memory snapshot is taken once this package is loaded.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import builtins
import contextlib
import getpass
import inspect
import json
import linecache
import random
import signal
import sys
import types
from typing import Any

from .asking import complete, explain, is_complete
from .failing import MESSAGE_CHARS, named, trace
from .shell import DisplayHook, DisplayPublisher, Events, Kernel, Result, Stream
from .showing import display, stand_in
from .threads import be_one_thread

__all__ = ["Agent", "cancel", "drain", "execute", "hold", "query", "start", "warm"]

# Of one cell, for people: the guest of a run cuts far earlier.
CELL_CHARS = 10_000_000
CELL_NAME = "Cell In["
PRECOMPILED = "_rlm_precompiled"
# Code in a cell may replace what these names stand for elsewhere.
_dumps, _loads = json.dumps, json.loads
_agent: Any = None
# By layout, what a text of it is filled with beforehand, and the bytes of a character.
_LAYOUTS = {
    "ascii": ("\0", 1),
    "latin-1": ("\x80", 1),
    "utf-16-le": ("\u0100", 2),
    "utf-32-le": ("\U00010000", 4),
}


def warm(guest: Any) -> None:
    """Import what cells use most, and compile the REPL's guest, before the snapshot is taken."""
    for name in (
        "collections",
        "csv",
        "datetime",
        "difflib",
        "fractions",
        "functools",
        "hashlib",
        "itertools",
    ):
        __import__(name)
    for name in (
        "math",
        "operator",
        "statistics",
        "string",
        "textwrap",
        "unicodedata",
        "uuid",
        "zlib",
        "dataclasses",
    ):
        __import__(name)
    for name in (
        "typing",
        "pprint",
        "html",
        "urllib.parse",
        "tempfile",
        "pathlib",
        "glob",
        "heapq",
        "bisect",
    ):
        __import__(name)
    packed = _loads(guest)
    codes = [
        (name, compile(source, f"<rlm guest {name}>", "exec", dont_inherit=True))
        for name, source in packed["sources"]
    ]
    module = types.ModuleType(PRECOMPILED)
    exec(packed["install"], module.__dict__)

    def install(version: Any, settings: Any) -> None:
        if version != packed["version"]:
            raise ImportError(f"this is version {packed['version']} of the guest")
        module.__dict__["_install"](codes, settings)

    module.__dict__["install"] = install
    sys.modules[PRECOMPILED] = module


def start(send: Any, poll: Any, nap: Any, written: Any, settings: Any) -> None:
    """Take up service: called once in each sandbox, after the snapshot was loaded."""
    global _agent  # noqa: PLW0603  a sandbox has one
    # All sandboxes begin with the same memory.
    random.seed()
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None
    _agent = Agent(send, poll, written, dict(settings.to_py()))
    be_one_thread(_agent.kernel, nap)
    _agent.tell({"op": "ready", "python": sys.version.split()[0]})


def execute(cell: Any, code: Any, silent: Any, count: Any, stdin: Any) -> Any:
    """Run a cell; return a task to wait for if it awaits something."""
    return _agent.execute(cell, code, silent, count, stdin)


def cancel(cell: Any) -> None:
    """Interrupt a cell that awaits."""
    _agent.cancel(cell)


def drain() -> None:
    """Take what has arrived from the host."""
    _agent.drain()


def hold(path: Any, layout: Any, size: Any) -> Any:
    """Make a text to be filled, as `Agent.hold` does."""
    return _agent.hold(path, layout, size)


def query(what: Any, code: Any, position: Any) -> Any:
    """Answer a question about code, as JSON."""
    try:
        return _dumps(_agent.query(what, code, position))
    except BaseException as error:
        return _dumps({"error": type(error).__name__})


class Agent:
    """One sandbox's kernel; ``settings`` holds ``wheels``, paths of the wheels that may be imported."""

    def __init__(self, send: Any, poll: Any, written: Any, settings: Any) -> None:
        self._send = send
        self._written = written
        self.cell = 0
        self.count = 0
        self._silent = False
        self._stdin = False
        self._task: asyncio.Task[None] | None = None
        self._interrupted = self._noted = self._running = False
        self._room = CELL_CHARS
        self._dropped = 0
        self._held: dict[str, str] = {}
        self.namespace = sys.modules["__main__"].__dict__
        self.user_ns = self.namespace
        self.events = Events()
        self.displayhook = DisplayHook(self)
        self.display_pub = DisplayPublisher(self)
        self.kernel = Kernel(self, poll)
        self.streams = {name: Stream(name, self) for name in ("stdout", "stderr")}
        sys.stdout, sys.stderr = self.streams["stdout"], self.streams["stderr"]
        sys.displayhook = self.displayhook
        sys.path.extend(settings.get("wheels") or [])
        signal.signal(signal.SIGINT, self._on_interrupt)
        stand_in(self)
        self.namespace.update({"In": [""], "Out": {}, "display": display, "get_ipython": lambda: self})
        setattr(builtins, "display", display)  # noqa: B010  IPython has it too
        self.colors = "nocolor"

    # Towards the host -------------------------------------------------------------------------------

    def tell(self, header: Any, body: Any = b"", urgent: Any = False) -> None:
        """Send a message, once the host has taken enough of what was sent before."""
        text = _dumps(header)
        if body:
            from pyodide.ffi import to_js  # type: ignore[import-not-found]  # noqa: PLC0415  on use

            body = to_js(body)
        else:
            body = None
        while not self._send(text, body, urgent):
            pass

    def put_out(self, name: Any, text: Any) -> None:
        """Send a piece of a stream, while there is room and a cell runs."""
        if not self.cell or self._silent:
            return
        if len(text) > self._room:
            self._dropped += len(text) - self._room
            text = text[: self._room]
        self._room -= len(text)
        if text:
            self.tell({"op": "stream", "cell": self.cell, "name": name}, text.encode("utf-8", "replace"))

    def flush(self) -> None:
        """Send what the streams hold."""
        for each in self.streams.values():
            each.flush()

    def take_written(self) -> None:
        """Give what went to the file descriptors to the streams."""
        for name, data in self._written():
            self.streams[name].write(data.to_bytes().decode("utf-8", "replace"))

    def show(self, kind: Any, data: Any, display_id: Any = None, update: Any = False) -> None:
        """Send a MIME bundle."""
        if not self.cell or self._silent:
            return
        self.flush()
        clean = {}
        for mime, value in data.items():
            binary = isinstance(value, (bytes, bytearray))
            clean[str(mime)] = base64.b64encode(value).decode("ascii") if binary else value
        try:
            body = _dumps(clean).encode("utf-8", "surrogatepass")
        except (TypeError, ValueError):
            body = _dumps({"text/plain": str(clean.get("text/plain", ""))}).encode("utf-8", "surrogatepass")
        if len(body) > self._room:
            self._dropped += len(body)
            return
        self._room -= len(body)
        header = {"op": kind, "cell": self.cell}
        if display_id is not None:
            header.update(display_id=str(display_id)[:100], update=bool(update))
        self.tell(header, body)

    # Cells ------------------------------------------------------------------------------------------

    def execute(self, cell: Any, code: Any, silent: Any, count: Any, stdin: Any) -> Any:
        """Run a cell; return a task if it awaits. ``stdin`` is whether somebody can answer `input`."""
        self._stdin = stdin
        self.cell, self._silent, self.count = cell, silent, count
        self._room, self._dropped = CELL_CHARS, 0
        self._interrupted = self._noted = False
        sys.stdout, sys.stderr = self.streams["stdout"], self.streams["stderr"]
        sys.displayhook = self.displayhook
        # With a guest, its hooks put theirs in place.
        builtins.input, getpass.getpass = self._input, self._getpass
        result = Result(code)
        name = f"{CELL_NAME}{count}]"
        try:
            if not silent:
                self.events.trigger("pre_run_cell", result.info)
            steps = self._compile(code, name)
        except BaseException as error:
            result.error_before_exec = error
            self._fail(error)
            self._finish(result)
            return None
        if any(step.co_flags & inspect.CO_COROUTINE for step, _ in steps):
            self._task = asyncio.ensure_future(self._run_async(steps, result))
            return self._task
        try:
            for step, shown in steps:
                self._run(step, shown)
        except BaseException as error:
            result.error_in_exec = error
            self._fail(error)
        self._finish(result)
        return None

    def _run(self, step: Any, shown: Any) -> None:
        """Run a part of a cell that awaits nothing; here an interrupt ends it."""
        try:
            self._running = True
            if self._noted:
                raise KeyboardInterrupt
            value = eval(step, self.namespace)
            if shown:
                sys.displayhook(value)
        finally:
            self._running = False

    async def _run_async(self, steps: Any, result: Any) -> None:
        try:
            for step, shown in steps:
                if not step.co_flags & inspect.CO_COROUTINE:
                    self._run(step, shown)
                    continue
                value = await eval(step, self.namespace)
                if shown:
                    self._show_value(value)
        except asyncio.CancelledError as error:
            failure = KeyboardInterrupt() if self._interrupted else error
            result.error_in_exec = failure
            self._fail(failure.with_traceback(error.__traceback__))
        except BaseException as error:
            result.error_in_exec = error
            self._fail(error)
        finally:
            self._task = None
            self._finish(result)

    def _show_value(self, value: Any) -> None:
        try:
            self._running = True
            sys.displayhook(value)
        finally:
            self._running = False

    def cancel(self, cell: Any) -> None:
        """Interrupt what the cell awaits."""
        if self._task is not None and cell == self.cell and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def _on_interrupt(self, number: Any, frame: Any) -> None:
        if self._running:
            raise KeyboardInterrupt
        if self._task is None:
            self._noted = True
            return
        # Between two steps of the loop it would hit the loop itself.
        while frame is not None:
            if frame.f_code.co_filename.startswith(CELL_NAME):
                raise KeyboardInterrupt
            frame = frame.f_back
        if asyncio.current_task() is self._task:
            # Before the code, or after it, where a cancellation would be the task's own end. If there is
            # something to await yet, the message that comes with each interrupt cancels it.
            self._noted = True
            return
        self.cancel(self.cell)

    def drain(self) -> None:
        """Take what has arrived, while a cell awaits."""
        while self.kernel.receive(0):
            pass

    def _compile(self, code: Any, name: Any) -> Any:
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        tree = ast.parse(code, name, "exec")
        body = tree.body
        last = None
        if body and isinstance(body[-1], ast.Expr) and not _quiet(code):
            last = body.pop()
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        steps = []
        if body:
            steps.append((compile(tree, name, "exec", flags, dont_inherit=True), False))
        if last is not None:
            steps.append((compile(ast.Expression(last.value), name, "eval", flags, dont_inherit=True), True))
        return steps

    def _finish(self, result: Any) -> None:
        try:
            self.take_written()
            if not self._silent:
                self.events.trigger("post_run_cell", result)
        except BaseException as error:
            self._fail(error)
        finally:
            for _ in range(3):
                # An interrupt that came late is none of the next cell's.
                with contextlib.suppress(BaseException):
                    self.flush()
                    if self._dropped:
                        note = f"\n[{self._dropped:,} characters of output left out]\n"
                        self._room, self._dropped = len(note), 0
                        self.put_out("stderr", note)
                    break
            failure = result.error_before_exec or result.error_in_exec
            if failure is not None:
                name, text = named(failure)
                self.tell({"op": "failed", "cell": self.cell, "ename": name, "evalue": text}, urgent=True)
            self.cell = 0

    def _fail(self, error: Any) -> None:
        """Show an error with its traceback."""
        self.flush()
        try:
            lines = trace(error)
        except BaseException as why:
            lines = [f"(its traceback can't be shown: {type(why).__name__})"]
        try:
            self._showtraceback(type(error), error, lines)
        except BaseException:
            # What the guest has put in its place asks the error, and that may raise anything.
            Agent._showtraceback(self, type(error), error, lines)

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        name, text = named(evalue)
        body = _dumps([str(line)[:MESSAGE_CHARS] for line in stb]).encode("utf-8", "surrogatepass")
        self.tell({"op": "error", "cell": self.cell, "ename": name, "evalue": text}, body)

    # Contexts ---------------------------------------------------------------------------------------

    def hold(self, path: Any, layout: Any, size: Any) -> Any:
        """Make a text of ``size`` bytes, to be filled from outside; return the address of its characters.

        Nobody has seen it yet: neither its hash nor another encoding of it has been kept.
        """
        filler, width = _LAYOUTS[layout]
        text = filler * (size // width)
        self._held[path] = text
        # In a compact string the characters come last, with one more that ends them (PEP 393).
        return id(text) + sys.getsizeof(text) - width * (len(text) + 1)

    def take(self, path: Any) -> Any:
        """Return the text that was held, which is held no longer."""
        return self._held.pop(path)

    def ask_exit(self) -> None:
        """Take no notice: `exit` raises SystemExit here."""

    def _input(self, prompt: Any = "") -> Any:
        return self._ask(prompt, False)

    def _getpass(self, prompt: Any = "Password: ", stream: Any = None) -> Any:
        return self._ask(prompt, True)

    def _ask(self, prompt: Any, password: Any) -> Any:
        if not self._stdin:
            raise RuntimeError("this frontend does not support input requests")
        self.flush()
        return self.kernel.ask(prompt, password)

    # Questions about code ---------------------------------------------------------------------------

    def query(self, what: Any, code: Any, position: Any) -> Any:
        """Return what `complete`, `inspect` or `is_complete` asks for."""
        if what == "complete":
            return complete(self.namespace, code, position)
        if what == "inspect":
            return explain(self.namespace, code, position)
        return is_complete(code)


def _quiet(code: Any) -> Any:
    """Whether the last expression ends with a semicolon, and is not to be shown."""
    last = code.rstrip().rpartition("\n")[2]
    return last.endswith(";") and "#" not in last
