"""How a run shows in a notebook or terminal while it goes on, and what stays when it is over.

Each front end gets what it can show: the panel where widgets are; one line, renewed in place, where they
are not; nothing but the result where nobody is watching, so that an executed notebook comes out the same
each time; the live tree of the command line in a terminal. The one output of a run is made when it starts
and replaced by what a saved notebook can hold when it ends.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from ..events import Event
from ..trace.redact import Redactor
from .bundle import INLINE_BYTES, Record, texts
from .failures import brief_traceback
from .outline import Outline
from .static_html import summary

if TYPE_CHECKING:
    from ..live import LiveRun
    from .panel import RunPanel

__all__ = ["View", "choose", "headless"]

_UPDATE_SECONDS = 0.25


class View(Protocol):
    """What shows one run. ``readers`` are given all its events, in another thread."""

    readers: Sequence[Callable[[Event], None]]

    def begin(self, question: str) -> None:
        """Show a first sign, before anything is loaded."""
        ...

    def follow(self, run: LiveRun) -> None:
        """Show ``run``, which has begun."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """Show what stays, or why nothing does; called in every case, also where no run began."""
        ...


def choose(
    shell: Any, *, quiet: bool, plain: bool, secrets: Sequence[str], inline_bytes: int = INLINE_BYTES
) -> View:
    """Return the view that suits the front end of ``shell``."""
    if quiet:
        return _Nothing()
    if getattr(shell, "kernel", None) is None:
        return _Result(secrets) if plain or not sys.stdout.isatty() else _Terminal()
    if headless(shell):
        return _Result(secrets)
    record = Record(secrets=secrets, inline_bytes=inline_bytes)
    if plain or importlib.util.find_spec("anywidget") is None:
        return _Updates(record, secrets)
    return _Panel(record, secrets)


def headless(shell: Any) -> bool:
    """Tell whether nobody watches: whoever executes notebooks without a person asks for no input."""
    kernel = getattr(shell, "kernel", None)
    return kernel is not None and not getattr(kernel, "_allow_stdin", True)


class _Nothing:
    readers: Sequence[Callable[[Event], None]] = ()

    def begin(self, question: str) -> None:
        pass

    def follow(self, run: LiveRun) -> None:
        pass

    def end(self, error: BaseException | None = None) -> None:
        pass


class _Result(_Nothing):
    """The result, once there is one, without times."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._outline = Outline(Redactor(secrets))
        self.readers = (self._outline.take,)

    def end(self, error: BaseException | None = None) -> None:
        if self._outline.finished is None:
            return
        from IPython.display import display  # noqa: PLC0415  on use

        display(texts(self._outline, times=False), raw=True)  # type: ignore[no-untyped-call]


class _Terminal(_Nothing):
    """The command line's live tree, which ends with the answer."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def begin(self, question: str) -> None:
        from rich.console import Console  # noqa: PLC0415  on use

        from ..trace.console import ConsoleReader  # noqa: PLC0415  on use

        self.readers = (self._stack.enter_context(ConsoleReader(Console())),)

    def end(self, error: BaseException | None = None) -> None:
        self._stack.close()


class _Replaced(_Nothing):
    """One output that is renewed, and in the end replaced by a record's bundle."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._handle: Any = None
        self.readers = (record.take,)

    def begin(self, question: str) -> None:
        from IPython.display import display  # noqa: PLC0415  on use

        self._handle = display(  # type: ignore[no-untyped-call]
            _sign(f"Starting: {question[:200]}"), raw=True, display_id=True
        )

    def end(self, error: BaseException | None = None) -> None:
        if self._handle is None:
            return
        if self._record.over:
            self._handle.update(self._record.bundle(), raw=True)
        else:
            lines = ["The run did not begin."] if error is None else brief_traceback(error)
            self._handle.update(_sign("\n".join(lines)), raw=True)


class _Updates(_Replaced):
    """A line of figures, renewed 4 times a second at most."""

    def __init__(self, record: Record, secrets: Sequence[str]) -> None:
        super().__init__(record)
        self._outline = Outline(Redactor(secrets))
        self._shown = 0.0
        self.readers = (record.take, self._take)

    def _take(self, event: Event) -> None:
        self._outline.take(event)
        now = time.monotonic()
        if self._outline.finished is None and now - self._shown >= _UPDATE_SECONDS:
            self._shown = now
            self._handle.update(
                _sign(f"Running: {self._outline.question[:200]} ({summary(self._outline)})"), raw=True
            )


class _Panel(_Replaced):
    """The panel."""

    def __init__(self, record: Record, secrets: Sequence[str]) -> None:
        super().__init__(record)
        self._secrets = secrets
        self._panel: RunPanel | None = None

    def follow(self, run: LiveRun) -> None:
        from .panel import RunPanel  # noqa: PLC0415  on use

        self._panel = RunPanel(run, secrets=self._secrets)
        self._handle.update(self._panel)

    def end(self, error: BaseException | None = None) -> None:
        super().end(error)
        if self._panel is not None:
            # It holds the texts of the whole run.
            self._panel.close()
            self._panel = None


def _sign(text: str) -> dict[str, str]:
    return {"text/plain": text, "text/html": f"<p>{escape(text).replace(chr(10), '<br>')}</p>"}
