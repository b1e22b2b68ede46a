"""A run as an outline that stays small: what a page without scripts can show of it.

The whole of a run is in its trace. An outline keeps the first rows and the beginnings of their texts, counts
the rest, and sums tokens, cost and calls over everything, what it does not show included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..events import (
    CallFinished,
    CallStarted,
    CellFinished,
    CellStarted,
    Compacted,
    Event,
    KernelLost,
    Notice,
    RunFinished,
    RunStarted,
)
from ..messages import message_text
from ..trace.progress import clean, one_line
from ..usage import Usage

__all__ = ["Node", "NodeKind", "Outline", "Text"]

NodeKind = Literal["run", "turn", "cell", "batch", "call", "note"]

MAX_NODES = 200
MAX_DEPTH = 2
CALLS_OF_A_BATCH = 8
TEXT_CHARS = 1_500
CODE_CHARS = 6_000
ANSWER_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Text:
    """A text under a row: what it is, its beginning, and how many characters were left out."""

    title: str
    text: str
    left_out: int = 0


@dataclass(slots=True)
class Node:
    """A row. ``usage`` and ``calls`` are its own and those of all below, shown or not.

    ``state`` is running, done, failed or cancelled; ``left_out`` counts the rows below that are not kept.
    Of a batch, ``size`` calls were started, ``done`` have ended and ``failed`` of those have failed.
    """

    kind: NodeKind
    label: str
    parent: Node | None
    began: float
    shown: bool = True
    state: str = "running"
    line: str = ""
    texts: list[Text] = field(default_factory=list)
    usage: Usage = Usage()
    calls: int = 0
    seconds: float = 0.0
    children: list[Node] = field(default_factory=list)
    left_out: int = 0
    size: int = 0
    done: int = 0
    failed: int = 0


class Outline:
    """The outline of one tree, kept up to date by `take`; ``redact`` is applied to every text."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._nodes: dict[str, Node] = {}
        self._runs: dict[str, Node] = {}
        self._turns: dict[str, Node] = {}
        self._parents: set[str] = set()
        self._count = 0
        self.root = Node("run", "", None, 0.0)
        self.started: RunStarted | None = None
        self.finished: RunFinished | None = None
        self.question = ""
        self.answer = ""
        self.now = 0.0
        self.depth = 0
        self._handlers: dict[type, Callable[[Any], None]] = {
            RunStarted: self._run_started,
            KernelLost: lambda event: self._note(event, f"kernel lost: {event.cause}"),
            Notice: lambda event: self._note(event, event.text),
            Compacted: lambda event: self._note(
                event, f"the conversation was summarised; all of it is in {event.variable}"
            ),
            CallStarted: self._call_started,
            CallFinished: self._call_finished,
            CellStarted: self._cell_started,
            CellFinished: self._cell_finished,
            RunFinished: self._run_finished,
        }

    def take(self, event: Event) -> None:
        """Take in ``event``."""
        self.now = max(self.now, event.time)
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _line(self, text: str) -> str:
        return one_line(self._redact(text[:1_000]))

    def _text(self, title: str, text: str, limit: int = TEXT_CHARS) -> Text:
        # A key must not lose its end, by which it is known, before it is looked for.
        shown = clean(self._redact(text[: limit + 200]))[:limit]
        return Text(title, shown, max(0, len(text) - limit))

    def _add(
        self, kind: NodeKind, label: str, parent: Node, event: Event, *, at_most: int = MAX_NODES
    ) -> Node:
        shown = parent.shown and self._count < MAX_NODES and len(parent.children) < at_most
        node = Node(kind, label, parent, event.time, shown)
        if shown:
            self._count += 1
            parent.children.append(node)
        else:
            parent.left_out += 1
        return node

    def _say(self, node: Node, title: str, text: str, limit: int = TEXT_CHARS) -> None:
        if node.shown and text.strip():
            node.texts.append(self._text(title, text, limit))

    def _run_started(self, event: RunStarted) -> None:
        self.depth = max(self.depth, event.depth)
        node = self._nodes.get(event.parent_call or "", self.root)
        self._runs[event.run] = node
        self._parents.add(event.parent_call or "")
        if node is self.root:
            node.began = event.time
            self.started = event
            self.question = clean(self._redact(event.query))
        elif event.depth > MAX_DEPTH:
            # What lies deeper still counts.
            node.shown = False

    def _note(self, event: Event, text: str) -> None:
        node = self._add("note", "note", self._runs.get(event.run, self.root), event)
        node.state = "note"
        node.line = self._line(text)

    def _call_started(self, event: CallStarted) -> None:
        self.depth = max(self.depth, event.depth)
        if event.kind == "root":
            key = f"{event.run}/{event.turn}"
            turn = self._nodes.get(key)
            if turn is None:
                turn = self._add("turn", f"Turn {event.turn}", self._runs.get(event.run, self.root), event)
                self._nodes[key] = turn
            self._turns[event.call] = turn
            return
        parent = self._nodes.get(event.cell or "") or self._runs.get(event.run, self.root)
        at_most = MAX_NODES
        if event.batch is not None:
            batch = self._nodes.get(event.batch)
            if batch is None:
                batch = self._nodes[event.batch] = self._add(
                    "batch", event.tool or f"{event.kind}_batched", parent, event
                )
            batch.size += 1
            parent, at_most = batch, CALLS_OF_A_BATCH
        call = self._nodes[event.call] = self._add(
            "call", event.tool or event.kind, parent, event, at_most=at_most
        )
        if event.messages and call.shown:
            prompt = message_text(event.messages[0])
            call.line = self._line(prompt)
            self._say(call, "prompt", prompt)

    def _call_finished(self, event: CallFinished) -> None:
        turn = self._turns.pop(event.call, None)
        node = turn or self._nodes.get(event.call)
        if node is None:
            return
        child = event.call in self._parents
        up: Node | None = node
        while up is not None:
            up.usage += event.usage
            up.calls += 0 if child else 1
            up = up.parent
        node.seconds = event.seconds or event.time - node.began
        if event.error is not None:
            node.state = "cancelled" if event.error.startswith("CancelledError") else "failed"
            node.line = node.line or self._line(event.error)
            self._say(node, "error", event.error)
        else:
            node.state = "done"
            if turn is not None:
                node.line = self._line(event.text.partition("```")[0])
            self._say(node, "reply", event.text)
        batch = node.parent
        if batch is not None and batch.kind == "batch":
            batch.done += 1
            batch.failed += event.error is not None
            batch.seconds = event.time - batch.began
            batch.state = "failed" if batch.failed else "done"
            self._keep_failure(batch, node, event)

    def _keep_failure(self, batch: Node, call: Node, event: CallFinished) -> None:
        """Show a failed call of a batch also where the calls that are shown are others."""
        if event.error is None or call.shown or not batch.shown or batch.failed > CALLS_OF_A_BATCH:
            return
        if self._count < MAX_NODES:
            self._count += 1
            batch.left_out -= 1
            batch.children.append(call)
            call.shown = True
            self._say(call, "error", event.error)

    def _cell_started(self, event: CellStarted) -> None:
        parent = self._nodes.get(f"{event.run}/{event.turn}") or self._runs.get(event.run, self.root)
        number = f"[{event.turn}.{event.block}]" if event.block > 1 else f"[{event.turn}]"
        cell = self._nodes[event.cell] = self._add("cell", number, parent, event)
        cell.line = self._line(event.code)
        self._say(cell, "code", event.code, CODE_CHARS)

    def _cell_finished(self, event: CellFinished) -> None:
        cell = self._nodes.pop(event.cell, None)
        if cell is None:
            return
        states = {"ok": "done", "interrupted": "cancelled", "cancelled": "cancelled"}
        cell.state = states.get(event.status, "failed")
        cell.seconds = event.seconds
        for output in event.outputs:
            self._say(cell, output.kind, output.text)
        self._say(cell, "lost", event.lost)
        if cell.parent is not None and cell.parent.kind == "turn":
            cell.parent.seconds = event.time - cell.parent.began

    def _run_finished(self, event: RunFinished) -> None:
        node = self._runs.pop(event.run, self.root)
        if node is not self.root:
            return
        self.finished = dataclasses.replace(event, reason=self._text("reason", event.reason).text)
        text = self._text("answer", event.text, ANSWER_CHARS)
        self.answer = text.text + (f"\n[{text.left_out:,} more characters]" if text.left_out else "")
        node.state = event.status
        node.seconds = event.seconds or event.time - node.began
        node.usage, node.calls = event.usage, event.calls
