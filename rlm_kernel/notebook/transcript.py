"""A finished run as what it consists of: turns with words, cells with outputs and calls, child runs inside.

This is what all exports are made of. It keeps everything, other than `rlm_kernel.notebook.outline`, which
stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..events import (
    CallFinished,
    CallStarted,
    CellFinished,
    CellStarted,
    Compacted,
    Event,
    KernelLost,
    KernelStarted,
    Notice,
    RunFinished,
    RunStarted,
)

__all__ = ["CallPart", "CellPart", "NotePart", "RunPart", "TurnPart", "transcribe"]


@dataclass(slots=True)
class CallPart:
    """A call that a cell made; ``child`` is the run that answered it, if one did."""

    started: CallStarted
    finished: CallFinished | None = None
    child: RunPart | None = None


@dataclass(slots=True)
class CellPart:
    """A cell; ``finished`` is None where the record ends before it."""

    started: CellStarted
    finished: CellFinished | None = None
    calls: list[CallPart] = field(default_factory=list)


@dataclass(slots=True)
class NotePart:
    """Something that happened, as a sentence."""

    text: str


@dataclass(slots=True)
class TurnPart:
    """A turn of a root model: what it wrote, and what came of it, in order."""

    number: int
    text: str = ""
    error: str | None = None
    parts: list[CellPart | NotePart] = field(default_factory=list)


@dataclass(slots=True)
class RunPart:
    """A run. ``digests`` are those of its contexts that are known, ``notes`` what came before turn 1."""

    started: RunStarted
    finished: RunFinished | None = None
    turns: list[TurnPart] = field(default_factory=list)
    notes: list[NotePart] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def cells(self) -> Iterator[CellPart]:
        """Its own cells, in order."""
        return (part for turn in self.turns for part in turn.parts if isinstance(part, CellPart))

    def turn(self, number: int) -> TurnPart:
        """Return the turn of this number, a new one if need be."""
        for turn in reversed(self.turns):
            if turn.number == number:
                return turn
        self.turns.append(TurnPart(number))
        return self.turns[-1]

    def note(self, text: str) -> None:
        """Add a note where the run is."""
        (self.turns[-1].parts if self.turns else self.notes).append(NotePart(text))


def transcribe(events: Iterable[Event]) -> RunPart:
    """Return the root run of a tree.

    Raises:
        ValueError: no run begins in ``events``.
    """
    reader = _Reader()
    for event in events:
        reader.take(event)
    if reader.root is None:
        raise ValueError("no run begins in these events")
    return reader.root


class _Reader:
    def __init__(self) -> None:
        self.root: RunPart | None = None
        self._runs: dict[str, RunPart] = {}
        self._calls: dict[str, CallPart] = {}
        self._roots: dict[str, TurnPart] = {}
        self._cells: dict[str, CellPart] = {}

    def take(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._begin(event)
            return
        run = self._runs.get(event.run)
        if run is not None:
            self._add(run, event)

    def _begin(self, event: RunStarted) -> None:
        run = self._runs[event.run] = RunPart(event)
        call = self._calls.get(event.parent_call or "")
        if call is not None:
            call.child = run
        elif self.root is None:
            self.root = run

    def _add(self, run: RunPart, event: Event) -> None:
        if isinstance(event, CallStarted):
            self._start_call(run, event)
        elif isinstance(event, CallFinished):
            self._end_call(event)
        elif isinstance(event, CellStarted):
            cell = self._cells[event.cell] = CellPart(event)
            run.turn(event.turn).parts.append(cell)
        elif isinstance(event, CellFinished):
            if event.cell in self._cells:
                self._cells[event.cell].finished = event
        elif isinstance(event, RunFinished):
            run.finished = event
        elif isinstance(event, KernelStarted):
            run.digests.update(event.digests)
        elif isinstance(event, KernelLost):
            run.note(f"The kernel was lost: {event.cause}")
        elif isinstance(event, Notice):
            run.note(event.text)
        elif isinstance(event, Compacted):
            run.note(f"The conversation was summarised; all of it was in the variable {event.variable}.")

    def _start_call(self, run: RunPart, event: CallStarted) -> None:
        if event.kind == "root":
            self._roots[event.call] = run.turn(event.turn)
            return
        call = self._calls[event.call] = CallPart(event)
        cell = self._cells.get(event.cell or "")
        if cell is not None:
            cell.calls.append(call)

    def _end_call(self, event: CallFinished) -> None:
        turn = self._roots.get(event.call)
        if turn is not None:
            turn.text, turn.error = event.text or turn.text, event.error
        elif event.call in self._calls:
            self._calls[event.call].finished = event
