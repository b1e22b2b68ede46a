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
from typing import TYPE_CHECKING, Any, Protocol

from ..events import Event
from ..trace.redact import Redactor
from .bundle import INLINE_BYTES, Record, texts
from .failures import brief_traceback
from .line import UPDATE_SECONDS, Fallback, Line, sign
from .outline import Outline

if TYPE_CHECKING:
    from ..live import LiveRun
    from .panel import RunPanel

__all__ = ["View", "choose", "headless", "shows_widgets"]


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
    shell: Any,
    *,
    quiet: bool,
    plain: bool,
    secrets: Sequence[str],
    inline_bytes: int = INLINE_BYTES,
    hears: bool = False,
) -> View:
    """Return the view that suits the front end of ``shell``.

    ``hears`` says that the kernel hears what the front end sends while the run goes on.
    """
    if quiet:
        return _Nothing()
    if getattr(shell, "kernel", None) is None:
        return _Result(secrets) if plain or not sys.stdout.isatty() else _Terminal()
    if headless(shell):
        return _Result(secrets)
    record = Record(secrets=secrets, inline_bytes=inline_bytes)
    if plain or not shows_widgets(shell):
        return _Updates(record, secrets)
    return _Panel(record, secrets, hears=hears)


def headless(shell: Any) -> bool:
    """Tell whether nobody watches: whoever executes notebooks without a person asks for no input."""
    kernel = getattr(shell, "kernel", None)
    return kernel is not None and not getattr(kernel, "_allow_stdin", True)


def shows_widgets(shell: Any) -> bool:
    """Tell whether the front end of ``shell`` can be sent widgets; only it knows whether it shows them."""
    there = getattr(shell, "kernel", None) is not None and not headless(shell)
    return there and importlib.util.find_spec("anywidget") is not None


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
            sign(f"Starting: {question[:200]}"), raw=True, display_id=True
        )

    def end(self, error: BaseException | None = None) -> None:
        if self._handle is None:
            return
        if self._record.over:
            self._handle.update(self._record.bundle(), raw=True)
        else:
            lines = ["The run did not begin."] if error is None else brief_traceback(error)
            self._handle.update(sign("\n".join(lines)), raw=True)


class _Updates(_Replaced):
    """A line of figures, renewed 4 times a second at most."""

    def __init__(self, record: Record, secrets: Sequence[str]) -> None:
        super().__init__(record)
        self._line = Line(secrets)
        self._shown = 0.0
        self.readers = (record.take, self._take)

    def _take(self, event: Event) -> None:
        self._line.take(event)
        now = time.monotonic()
        if not self._line.over and now - self._shown >= UPDATE_SECONDS:
            self._shown = now
            self._handle.update(sign(self._line.text), raw=True)


class _Panel(_Replaced):
    """The panel, and a line of figures where the page does not say that it shows it."""

    def __init__(self, record: Record, secrets: Sequence[str], *, hears: bool) -> None:
        super().__init__(record)
        self._secrets = secrets
        self._hears = hears
        self._panel: RunPanel | None = None
        self._beside: Any = None
        self._fallback = Fallback(secrets, heard=self._heard, show=self._show, back=self._back)
        self.readers = (record.take, self._fallback.take)

    def follow(self, run: LiveRun) -> None:
        from .panel import RunPanel  # noqa: PLC0415  on use

        self._panel = RunPanel(run, secrets=self._secrets)
        self._handle.update(self._panel)

    def _heard(self) -> bool:
        panel = self._panel
        # What a deaf kernel was told by the page of an earlier run holds for this one.
        return panel is None or panel.heard or (not self._hears and panel.heard_before())

    def _show(self, text: str) -> None:
        if self._hears:
            self._handle.update(sign(text), raw=True)
        elif self._beside is None:
            from IPython.display import display  # noqa: PLC0415  on use

            self._beside = display(  # type: ignore[no-untyped-call]
                sign(text, beside=True), raw=True, display_id=True
            )
        else:
            self._beside.update(sign(text, beside=True), raw=True)

    def _back(self) -> None:
        self._handle.update(self._panel)

    def end(self, error: BaseException | None = None) -> None:
        self._fallback.end()
        if self._beside is not None:
            # An output can be emptied, not taken away.
            self._beside.update({"text/plain": ""}, raw=True)
        super().end(error)
        if self._panel is not None:
            # It holds the texts of the whole run.
            self._panel.retire()
            self._panel = None
