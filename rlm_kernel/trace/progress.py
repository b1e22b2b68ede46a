"""How far a run is, folded from its events: what is worth showing while it runs and once it is over.

The state stays small whatever a run does: calls are counted, not kept, children are kept while they
run, and texts are cut. All text in it is safe to print: a context may hold terminal escapes, and a
model may repeat them, so `clean` takes them out here, before any reader can forget to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..events import (
    CallDelta,
    CallFinished,
    CallStarted,
    CellFinished,
    CellStarted,
    Event,
    KernelLost,
    KernelStarted,
    MessageAdded,
    Notice,
    RunFinished,
    RunStarted,
)
from ..messages import message_text
from ..outputs import Output
from ..usage import Usage

__all__ = ["CallsRow", "CellView", "Progress", "RunView", "TurnView", "clean", "one_line"]

_TAIL_CHARS = 200
_TEXT_CHARS = 2_000
_CODE_CHARS = 8_000
_OUTPUT_CHARS = 8_000
_ROWS = 50
_NOTES = 20
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC and its like: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"
)
_CONTROLS = {
    **dict.fromkeys([*range(32), *range(0x7F, 0xA0)]),
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)]),  # direction overrides
    **dict.fromkeys([0x200E, 0x200F, 0x2028, 0x2029]),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
    ord("\n"): "\n",
    ord("\t"): "    ",
}


def clean(text: str) -> str:
    """Return ``text`` without terminal escapes and control characters other than line ends."""
    return _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).translate(_CONTROLS)


def one_line(text: str, chars: int = 160) -> str:
    """Return the beginning of ``text`` on one line, cleaned."""
    line = " ".join(clean(text[: chars * 4]).split())
    return line if len(line) <= chars and len(text) <= chars * 4 else line[: chars - 3] + "..."


@dataclass(slots=True)
class CallsRow:
    """Calls that are shown as one: those of a batch, or the single ones of a kind in a cell."""

    label: str
    began: float
    ended: float = 0.0
    started: int = 0
    done: int = 0
    failed: int = 0
    error: str = ""
    children: dict[str, RunView] = field(default_factory=dict)


@dataclass(slots=True)
class CellView:
    """A cell: its code, the rows of its calls, and, once it is over, what came out."""

    code: str
    rows: dict[str, CallsRow] = field(default_factory=dict)
    more_rows: int = 0
    status: str = ""
    seconds: float = 0.0
    output: list[str] = field(default_factory=list)
    dropped: int = 0
    lost: str = ""


@dataclass(slots=True)
class TurnView:
    """A turn: what the model is writing, then its reply and cells. ``usage`` is None until it replied."""

    number: int
    tail: str = ""
    text: str = ""
    usage: Usage | None = None
    seconds: float = 0.0
    error: str = ""
    cells: list[CellView] = field(default_factory=list)


@dataclass(slots=True)
class RunView:
    """A run. Of a child only the turn under way is kept."""

    id: str
    depth: int
    query: str
    about: str
    began: float
    contexts: list[str]
    estimate: str = ""
    kernel: str = ""
    turns: list[TurnView] = field(default_factory=list)
    row: CallsRow | None = None

    @property
    def turn(self) -> TurnView | None:
        """The turn under way."""
        return self.turns[-1] if self.turns else None


class Progress:
    """The state of one tree, kept up to date by `take`."""

    def __init__(self) -> None:
        self.root: RunView | None = None
        self.finished: RunFinished | None = None
        self.answer = ""
        self.usage = Usage()
        self.calls = 0
        self.depth = 0
        self.now = 0.0
        self.notes: list[str] = []
        self._runs: dict[str, RunView] = {}
        self._cells: dict[str, CellView] = {}
        self._rows: dict[str, CallsRow] = {}
        self._turns: dict[str, TurnView] = {}
        self._no_requests: set[str] = set()
        self._handlers: dict[type[Event], Callable[[RunView, Any], None]] = {
            KernelStarted: self._kernel_started,
            KernelLost: self._kernel_lost,
            MessageAdded: self._message_added,
            CallStarted: self._call_started,
            CallDelta: self._call_delta,
            CallFinished: self._call_finished,
            CellStarted: self._cell_started,
            CellFinished: self._cell_finished,
            Notice: self._noticed,
            RunFinished: self._run_finished,
        }

    def take(self, event: Event) -> None:
        """Take in ``event``. One of a run that began before this state did is ignored."""
        self.now = event.time
        if isinstance(event, RunStarted):
            self._run_started(event)
        run = self._runs.get(event.run)
        handler = self._handlers.get(type(event))
        if run is not None and handler is not None:
            handler(run, event)

    def row(self, call: str) -> CallsRow | None:
        """Return the row of a call under way."""
        return self._rows.get(call)

    def cell(self, cell: str) -> CellView | None:
        """Return a cell under way."""
        return self._cells.get(cell)

    def _run_started(self, event: RunStarted) -> None:
        run = RunView(
            id=event.run,
            depth=event.depth,
            query=clean(event.query[:_TEXT_CHARS]),
            about=one_line(f"{event.model}, sub-calls {event.sub_model}, {event.repl} kernel"),
            began=event.time,
            contexts=[
                one_line(f"{each.name}: {each.type}, {each.size:,} {each.unit}") for each in event.contexts
            ],
            estimate="" if event.estimate is None else one_line(f"estimate: {event.estimate}"),
        )
        self._runs[event.run] = run
        if event.parent_call is not None:
            self._no_requests.add(event.parent_call)
            run.row = self._rows.get(event.parent_call)
            if run.row is not None:
                run.row.children[run.id] = run
        if event.parent_run is None:
            self.root = run

    def _kernel_started(self, run: RunView, event: KernelStarted) -> None:
        name = one_line(f"{event.backend} kernel, {event.implementation}")
        run.kernel = f"{name}, {'again ' if event.again else ''}ready in {event.seconds:.2f} s"

    def _kernel_lost(self, run: RunView, event: KernelLost) -> None:
        run.kernel = f"kernel lost: {one_line(event.cause)}"
        self.notes = [*self.notes, run.kernel][-_NOTES:]

    def _noticed(self, _: RunView, event: Notice) -> None:
        self.notes = [*self.notes, one_line(event.text)][-_NOTES:]

    def _message_added(self, run: RunView, event: MessageAdded) -> None:
        if event.message["role"] == "assistant" and run.turn:
            run.turn.text = clean(message_text(event.message)[:_TEXT_CHARS])

    def _call_delta(self, _: RunView, event: CallDelta) -> None:
        if turn := self._turns.get(event.call):
            turn.tail = (turn.tail + event.text)[-_TAIL_CHARS:]

    def _call_started(self, run: RunView, event: CallStarted) -> None:
        self.depth = max(self.depth, event.depth)
        if event.kind == "root":
            turn = TurnView(event.turn)
            # A turn may ask twice, when a request failed: the second one takes the place of the first.
            again = run.turn is not None and run.turn.number == event.turn and not run.turn.cells
            if again or run.depth:
                run.turns = run.turns[:-1]
            run.turns.append(turn)
            self._turns[event.call] = turn
            return
        if event.kind == "tool":
            self._no_requests.add(event.call)
        cell = self._cells.get(event.cell or "")
        if cell is None:
            return
        key = event.batch or event.tool or event.kind
        row = cell.rows.get(key)
        if row is None:
            if len(cell.rows) >= _ROWS:
                cell.rows.pop(next(iter(cell.rows)))
                cell.more_rows += 1
            label = f"{event.kind}_batched" if event.batch else event.tool or event.kind
            row = cell.rows[key] = CallsRow(label, began=event.time)
        row.started += 1
        self._rows[event.call] = row

    def _call_finished(self, _: RunView, event: CallFinished) -> None:
        self.usage += event.usage
        if event.call in self._no_requests:
            self._no_requests.discard(event.call)
        else:
            self.calls += 1
        error = one_line(event.error) if event.error is not None else ""
        if turn := self._turns.pop(event.call, None):
            turn.usage, turn.seconds, turn.error, turn.tail = event.usage, event.seconds, error, ""
        if row := self._rows.pop(event.call, None):
            row.done += 1
            row.failed += event.error is not None
            row.error = error or row.error
            row.ended = event.time

    def _cell_started(self, run: RunView, event: CellStarted) -> None:
        if run.turn:
            cell = self._cells[event.cell] = CellView(clean(event.code[:_CODE_CHARS]).strip("\n"))
            run.turn.cells.append(cell)

    def _cell_finished(self, _: RunView, event: CellFinished) -> None:
        if cell := self._cells.pop(event.cell, None):
            cell.status, cell.seconds, cell.lost = event.status, event.seconds, one_line(event.lost)
            cell.output, cell.dropped = _lines(event.outputs)

    def _run_finished(self, run: RunView, event: RunFinished) -> None:
        del self._runs[run.id]
        if run.row is not None:
            run.row.children.pop(run.id, None)
        if run is self.root:
            self.finished = event
            self.answer = clean(event.text)
            self.usage, self.calls = event.usage, event.calls


def _lines(outputs: Sequence[Output]) -> tuple[list[str], int]:
    """Return what a cell put out as cleaned lines, cut in the middle, and the characters left out."""
    text = ""
    dropped = 0
    for output in outputs:
        text += output.text if output.text.endswith("\n") or not output.text else output.text + "\n"
        dropped += output.dropped
        if len(text) > _OUTPUT_CHARS:
            dropped += len(text) - _OUTPUT_CHARS
            text = text[: _OUTPUT_CHARS // 2] + "\n...\n" + text[-_OUTPUT_CHARS // 2 :]
    lines = [line.rstrip() for line in clean(text).rstrip("\n").split("\n")]
    return (lines if text.strip() else []), dropped
