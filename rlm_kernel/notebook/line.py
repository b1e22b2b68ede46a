"""A run under way as a line of figures in an output, for pages that show no widgets.

Whether a page shows the panel, only its own word can tell, which does not arrive while a cell waits in the
main thread. So what is due when nothing was heard for `PATIENCE_SECONDS` goes by whether it could have been:
the line takes the panel's place, or stands beside it, where the panel's style sheet hides it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from html import escape

from ..events import Event
from ..trace.redact import Redactor
from .outline import Outline
from .static_html import summary

__all__ = ["PATIENCE_SECONDS", "UPDATE_SECONDS", "Fallback", "Line", "sign"]

UPDATE_SECONDS = 0.25
PATIENCE_SECONDS = 2.0


def sign(text: str, *, beside: bool = False) -> dict[str, str]:
    """Return ``text`` as an output; ``beside`` a panel it is hidden where that has its style sheet."""
    css = ' class="rlm-beside-panel"' if beside else ""
    return {"text/plain": text, "text/html": f"<p{css}>{escape(text).replace(chr(10), '<br>')}</p>"}


class Line:
    """What the line says; `take` is a reader for `rlm_kernel.events.Emitter`."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._outline = Outline(Redactor(secrets))

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self._outline.finished is not None

    def take(self, event: Event) -> None:
        """Take in ``event``."""
        self._outline.take(event)

    @property
    def text(self) -> str:
        """The line as it is now."""
        return f"Running: {self._outline.question[:200]} ({summary(self._outline)})"


class Fallback:
    """Shows a line, 4 times a second at most, as long as the panel was not heard of.

    ``heard`` tells whether it was, ``show`` displays the line's text, and ``back`` the panel once more.
    `take` and these are called in the thread of the run's event loop.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        *,
        heard: Callable[[], bool],
        show: Callable[[str], None],
        back: Callable[[], None],
    ) -> None:
        self._line = Line(secrets)
        self._heard, self._show, self._back = heard, show, back
        self._shown = ""
        self._over = False
        self._timer: asyncio.TimerHandle | None = None

    def take(self, event: Event) -> None:
        """Take in ``event``."""
        self._line.take(event)
        if self._line.over:
            self.end()
        elif self._timer is None and not self._over:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._look)

    def end(self) -> None:
        """Show nothing more; may be called in any thread."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._over:
            return
        if self._heard():
            if self._shown:
                self._back()
            return
        if self._line.text != self._shown:
            self._shown = self._line.text
            self._show(self._shown)
        self._timer = asyncio.get_running_loop().call_later(UPDATE_SECONDS, self._look)
