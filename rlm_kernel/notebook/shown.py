"""Answers on the screen once: an answer that its run has shown is not shown again as its cell's value.

It still is the cell's value, in ``_`` and ``Out``. In a later cell an answer shows like any other value,
as its text and a line of figures.
"""

from __future__ import annotations

import weakref
from html import escape
from typing import Any

from ..answer import Answer
from ..trace.progress import clean

__all__ = ["Shown"]


class Shown:
    """Knows which answers the cell that runs has shown."""

    def __init__(self) -> None:
        self._answers: set[int] = set()
        self._shell: Any = None

    def add(self, answer: Answer) -> None:
        """Note that ``answer`` was shown."""
        self._answers.add(id(answer))

    def install(self, shell: Any) -> None:
        """Have ``shell`` ask here before it shows an answer."""
        self._shell = weakref.ref(shell)
        shell.events.register("pre_run_cell", self._forget)
        formatter = shell.display_formatter
        formatter.formatters["text/html"].for_type(Answer, _html)
        formatter.formatters["text/plain"].for_type(Answer, self._plain)
        if getattr(shell, "kernel", None) is not None:
            formatter.ipython_display_formatter.for_type(Answer, self._skip)

    def remove(self) -> None:
        """Let the shell show answers as it likes."""
        shell = self._shell() if self._shell is not None else None
        if shell is None:
            return
        shell.events.unregister("pre_run_cell", self._forget)
        formatter = shell.display_formatter
        for each in (formatter.formatters["text/html"], formatter.formatters["text/plain"]):
            each.pop(Answer, None)
        formatter.ipython_display_formatter.pop(Answer, None)

    def _forget(self, *_: Any) -> None:
        self._answers.clear()

    def _skip(self, answer: Answer) -> None:
        if id(answer) not in self._answers:
            raise NotImplementedError  # IPython's sign to go on with the other formatters

    def _plain(self, answer: Answer, printer: Any, _: bool) -> None:  # noqa: FBT001  IPython's signature
        # A terminal has written "Out[1]:" by now.
        printer.text("(the answer above)" if id(answer) in self._answers else _text(answer))


def _text(answer: Answer) -> str:
    state = [] if answer else [f"{answer.status.replace('_', ' ')}: {answer.reason}".rstrip(": ")]
    parts = (*state, answer.text, f"({_figures(answer)})")
    # A terminal obeys escape sequences, and an answer is what code in a cell made it.
    return clean("\n\n".join(part for part in parts if part))


def _html(answer: Answer) -> str:
    parts = [part for part in _text(answer).split("\n\n") if part.strip()]
    return "".join(f"<p>{escape(part).replace(chr(10), '<br>')}</p>" for part in parts)


def _figures(answer: Answer) -> str:
    cost = "price unknown" if answer.usage.cost_usd is None else f"${answer.usage.cost_usd:.4f}"
    calls = f"{answer.total_calls:,} call{'' if answer.total_calls == 1 else 's'}"
    return f"{answer.seconds:.1f} s, {calls}, {cost}"
