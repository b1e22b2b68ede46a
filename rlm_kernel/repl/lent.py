"""The user's IPython shell while it is lent to a cell of a model: what is put in the place of what, and back.

Invariant: outside of `Lent.step` the shell, its names, its streams and its signal handler are the user's. A
cell that awaits is many steps, and other code of the user's may run between two of them.
"""

from __future__ import annotations

import _thread
import builtins
import codecs
import getpass
import os
import re
import signal
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from ..guest.calls import of_a_cell

__all__ = ["Face", "Lent", "Names", "Variables"]

_MISSING: Any = object()
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LAST = ("last_type", "last_value", "last_traceback", "last_exc")

Send = Callable[[str, Mapping[str, Any]], None]
"""Sends an output, as the type and the content of a Jupyter message."""


class Names(dict[str, Any]):
    """The names of the model's cells; what it does not have is looked up among the user's, at that moment."""

    def __init__(self, users: Mapping[str, Any]) -> None:
        super().__init__(__name__="__main__", __builtins__=builtins, __doc__=None)
        self._users = users

    def __missing__(self, name: str) -> Any:
        return self._users[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._users


class Variables:
    """What the model's cells have made, for the user: ``names`` but those of the REPL, as attributes."""

    def __init__(self, names: Mapping[str, Any], own: Callable[[], Mapping[str, Any]]) -> None:
        self.__names = names
        self.__own: Callable[[], Mapping[str, Any]] = own

    def __getattr__(self, name: str) -> Any:
        found = vars(self).get("_Variables__names", {}).get(name, _MISSING)
        if found is _MISSING:
            known = ", ".join(dir(self)) or "nothing"
            raise AttributeError(f"the model has made no {name!r}; there is {known}")
        return found

    def settle(self) -> None:
        """Let go of the REPL, whose names are gone from ``names``."""
        self.__own = dict

    def __dir__(self) -> list[str]:
        own = self.__own()
        return sorted(each for each in tuple(self.__names) if each[:1] != "_" and each not in own)

    def __repr__(self) -> str:
        return f"<variables of the model: {', '.join(dir(self)) or 'none'}>"


class _Module:
    """What IPython takes for the module of the cells; its ``__dict__`` is a `Names`."""

    __spec__ = None

    def __init__(self, names: dict[str, Any]) -> None:
        self.__dict__ = names


class _Stream:
    """A standard stream of the cells, with a pipe for what subprocesses and C code write to the descriptor.

    To `rlm_kernel.guest.output.StreamCut` it looks like one of ipykernel's: it waits for the pipe's reader.
    """

    encoding = "utf-8"
    errors = "replace"
    closed = False

    def __init__(self, name: str, descriptor: int, face: Face) -> None:
        self._name = name
        self._descriptor = descriptor
        self._face = face
        self._saved = -1
        read, self._original_stdstream_fd = os.pipe()
        self.watch_fd_thread = threading.Thread(
            target=_copy, args=(read, self), name="rlm-output", daemon=True
        )
        self.watch_fd_thread.start()

    def swap(self) -> None:
        """Lead the descriptor into the pipe, or back to where it led."""
        if self._saved < 0:
            with suppress(OSError):  # a process without standard streams
                self._saved = os.dup(self._descriptor)
                os.dup2(self._original_stdstream_fd, self._descriptor)
        else:
            os.dup2(self._saved, self._descriptor)
            os.close(self._saved)
            self._saved = -1

    def end(self) -> None:
        """Close the pipe; its reader ends once those who may still write to it have."""
        os.close(self._original_stdstream_fd)

    def write(self, text: str) -> int:
        self._face.send("stream", {"name": self._name, "text": text})
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back here."""

    def close(self) -> None:
        """A cell that closes it would silence all later ones."""

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class _Router:
    """Stands in ``sys`` for a stream of the cell, and leaves to the user's what is not the cell's."""

    def __init__(self, mine: Any, theirs: Any) -> None:
        self._mine = mine
        self._theirs = theirs

    def write(self, text: str) -> int:
        stream = self._mine if of_a_cell() or self._theirs is None else self._theirs
        return int(stream.write(text) or 0)

    def flush_user(self) -> None:
        """Have what the user's stream holds back leave while the descriptor is still the user's."""
        with suppress(AttributeError, OSError, ValueError):
            self._theirs.flush()

    def tell_user(self, text: str) -> None:
        if self._theirs is not None:
            self._theirs.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mine, name)


class _Events:
    """The events of a lent shell: figures are drawn by the user's callbacks, the rest are the guest's."""

    def __init__(self, users: Any) -> None:
        self._users = users
        self._mine: dict[str, list[Callable[..., None]]] = {}

    def register(self, event: str, function: Callable[..., None]) -> None:
        self._mine.setdefault(event, []).append(function)

    def unregister(self, event: str, function: Callable[..., None]) -> None:
        self._mine[event].remove(function)

    def trigger(self, event: str, *args: Any, **kwargs: Any) -> None:
        if event in ("pre_execute", "post_execute"):
            self._users.trigger(event, *args, **kwargs)
        for function in tuple(self._mine.get(event, ())):
            function(*args, **kwargs)


class _Hook:
    """The display hook of a lent shell."""

    exec_result: Any = None
    is_active = False

    def __init__(self, face: Face, shell: Any) -> None:
        self._face = face
        self._format = shell.display_formatter.format
        known = getattr(type(shell.displayhook), "semicolon_at_end_of_expression", None)
        self._is_quiet: Callable[[str], bool] = known or (lambda code: False)

    def __call__(self, value: Any = None) -> None:
        if value is None:
            return
        result = self.exec_result
        code = getattr(getattr(result, "info", None), "raw_cell", "") or ""
        if self._is_quiet(code):
            return
        if result is not None:
            result.result = value
        dict.__setitem__(self._face.user_ns, "_", value)
        data, _ = self._format(value)
        if data:
            self.write_format_data(data)

    def write_format_data(self, data: dict[str, Any], metadata: Any = None) -> None:
        self._face.send("execute_result", {"data": _encoded(data)})


class _Publisher:
    """The display publisher of a lent shell; it passes on what is not the cell's."""

    is_publishing = False

    def __init__(self, face: Face, users: Any) -> None:
        self._face = face
        self._users = users

    def publish(self, data: dict[str, Any], metadata: Any = None, **kwargs: Any) -> None:
        # An update of what was shown before adds nothing that the model could read.
        if not kwargs.get("update"):
            self._face.send("display_data", {"data": _encoded(data)})

    def clear_output(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002  IPython's signature
        if not of_a_cell():
            self._users.clear_output(wait)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._users, name)


class _PublisherRouter:
    """Stands in the shell for the cell's publisher, which other threads of the user's must not reach."""

    def __init__(self, mine: _Publisher, theirs: Any) -> None:
        self._mine = mine
        self._theirs = theirs

    def publish(self, *args: Any, **kwargs: Any) -> Any:
        return (self._mine if of_a_cell() else self._theirs).publish(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mine, name)


class Face:
    """The shell as the guest sees it, see `rlm_kernel.guest.cells.Repl`: of its own, but for formatting."""

    def __init__(self, shell: Any, names: dict[str, Any], send: Send) -> None:
        self.user_ns = names
        self.send = send
        self.events = _Events(shell.events)
        self.displayhook = _Hook(self, shell)
        self.display_pub = _Publisher(self, shell.display_pub)
        self.streams = {"stdout": _Stream("stdout", 1, self), "stderr": _Stream("stderr", 2, self)}
        self.ask_exit: Callable[[], None] = lambda: None
        self._users = {"stdout": sys.stdout, "stderr": sys.stderr, "display": shell.display_pub}

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        self.send("error", {"ename": etype.__name__, "evalue": str(evalue), "traceback": stb})

    def exit(self) -> None:
        """Do what the guest does on ``exit()``."""
        self.ask_exit()

    def show_user(self, type_: str, content: Mapping[str, Any]) -> None:
        """Show an output of the cell to the user as well."""
        if type_ == "stream":
            self._users[content["name"]].write(content["text"])
        elif type_ == "error":
            self._users["stderr"].write("\n".join(content["traceback"]) + "\n")
        else:
            # What was printed before is to stand before.
            self._users["stdout"].flush()
            self._users["display"].publish(content["data"])

    def show_traceback(self, etype: Any, evalue: Any, stb: list[str] | str) -> None:
        """Show a traceback without the frames of this package, which say nothing about the model's code."""
        frames = [_ANSI.sub("", each) for each in ([stb] if isinstance(stb, str) else stb)]
        own = os.path.dirname(os.path.dirname(__file__))
        shown = [each for each in frames if own not in each.partition("\n")[0]]
        self._showtraceback(etype, evalue, shown)


class Lent:
    """The shell, to be lent step by step to cells that see it as ``face``.

    ``shared`` is whether their names are the user's, ``run_async`` what runs cells that await.
    """

    def __init__(self, shell: Any, face: Face, *, shared: bool, run_async: Callable[[Any], Any]) -> None:
        self.face = face
        self.stopped_by_user = False
        self._stepping = False
        self._expected = False
        self._shadow: dict[str, Any] | None = {} if shared else None
        self._gate = threading.Lock()
        self._previous: Any = None
        self._routers = {name: _Router(each, getattr(sys, name)) for name, each in face.streams.items()}
        self._places: list[tuple[Any, str, Any]] = [
            (shell, "display_trap", type(shell.display_trap)(hook=face.displayhook)),
            (shell, "displayhook", face.displayhook),
            (shell, "display_pub", _PublisherRouter(face.display_pub, shell.display_pub)),
            (shell, "events", face.events),
            (shell, "loop_runner", run_async),
            (shell, "last_execution_succeeded", True),
            (shell, "last_execution_result", None),
            (shell, "_showtraceback", face.show_traceback),
            (shell, "_tee", lambda channel: nullcontext()),
            (shell, "ask_exit", face.exit),
            (sys, "displayhook", face.displayhook),
            (builtins, "input", builtins.input),
            (getpass, "getpass", getpass.getpass),
            *((sys, name, _MISSING) for name in _LAST),
        ]
        if not shared:
            self._places += [(shell, "user_ns", face.user_ns), (shell, "user_module", _Module(face.user_ns))]
        self._streams: dict[str, Any] = {}

    def begin(self) -> None:
        """Begin a cell."""
        self.stopped_by_user = self._expected = False
        self._streams = dict(self._routers)
        for router in self._routers.values():
            router.flush_user()

    def shadow(self, names: Mapping[str, Any]) -> None:
        """Let ``names`` be the cells' own from now on, where namespaces are shared. In a step."""
        for name, value in names.items():
            if self._shadow is not None and name not in self._shadow:
                self._shadow[name] = self.face.user_ns.get(name, _MISSING)
                self.face.user_ns[name] = value

    @contextmanager
    def step(self) -> Iterator[None]:
        """Lend the shell for the length of the block, in which an interrupt raises `KeyboardInterrupt`."""
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        try:
            self._swap()
            try:
                self._stepping = True
                yield
            finally:
                self._stepping = False
        finally:
            # Again, should the interrupt have come while the inner block was being left.
            self._stepping = False
            self._swap()
            self._settle_signals()

    def interrupt(self) -> bool:
        """Interrupt the step under way, from another thread; tell whether there was one."""
        # Under the gate, or the signal could reach what the user does next.
        with self._gate:
            if not self._stepping:
                return False
            self._expected = True
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            else:
                _thread.interrupt_main()
            return True

    def pass_on(self) -> None:
        """Hand an interrupt of the user's that came during a step to whom it was meant for as well."""
        if self.stopped_by_user and callable(self._previous):
            self._previous(signal.SIGINT, None)

    def complain(self, text: str) -> None:
        """Tell the user, also while a step is under way."""
        self._routers["stderr"].tell_user(text)

    def close(self) -> None:
        """Give up the streams."""
        for stream in self.face.streams.values():
            stream.end()

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._expected:
            self._expected = False
        else:
            self.stopped_by_user = True
        if self._stepping:
            raise KeyboardInterrupt

    def _settle_signals(self) -> None:
        with self._gate:
            pass
        if hasattr(signal, "pthread_sigmask"):
            # Whoever was at the gate has sent: what is on its way is handled here.
            signal.pthread_sigmask(signal.SIG_BLOCK, ())
        # None is a handler that was not made in Python, and can't be put back from here.
        signal.signal(signal.SIGINT, signal.SIG_DFL if self._previous is None else self._previous)

    def _swap(self) -> None:
        for number, (owner, name, other) in enumerate(self._places):
            # Methods stand in the class, and are found there again.
            found = vars(owner).get(name, _MISSING) if name in _METHODS else getattr(owner, name, _MISSING)
            self._places[number] = (owner, name, found)
            if other is _MISSING:
                with suppress(AttributeError):
                    delattr(owner, name)
            else:
                setattr(owner, name, other)
        for name, stream in self._streams.items():
            self._streams[name] = getattr(sys, name)
            setattr(sys, name, stream)
            self.face.streams[name].swap()
        for name, other in (self._shadow or {}).items():
            self._shadow[name] = self.face.user_ns.get(name, _MISSING)  # type: ignore[index]
            if other is _MISSING:
                self.face.user_ns.pop(name, None)
            else:
                self.face.user_ns[name] = other


_METHODS = frozenset(("_showtraceback", "_tee", "ask_exit"))


def _copy(read: int, stream: Any) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with open(read, "rb", buffering=0) as pipe:
        while data := pipe.read(65536):
            stream.write(decoder.decode(data))


def _encoded(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        mime: b64encode(value).decode("ascii") if isinstance(value, bytes) else value
        for mime, value in data.items()
    }
