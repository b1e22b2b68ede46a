"""A run in the terminal: a live tree while it runs, a transcript once it is over; plain lines elsewhere.

`Progress` holds what is shown, already cleaned and cut; this module only lays it out. All of it goes
through `rich.text.Text` or plain writes, never through rich's markup, so that no text can style itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.syntax import Syntax
from rich.text import Text
from rich.tree import Tree

from ..events import (
    CallFinished,
    CellFinished,
    CellStarted,
    Event,
    KernelLost,
    KernelStarted,
    Notice,
    RunFinished,
    RunStarted,
)
from ..usage import Usage
from .progress import CallsRow, CellView, Progress, RunView, TurnView, one_line
from .quotes import quote_lines

__all__ = ["ConsoleReader"]

_REFRESH_PER_SECOND = 8
_BAR = 20
_LIVE_TURNS, _LIVE_ROWS, _LIVE_CHILDREN = 5, 4, 4
_TAIL_CHARS = 64  # fits on an ordinary terminal, so its end is what is seen
_OUTPUT_LINES, _CODE_LINES = 10, 40
_PLAIN_INTERVAL = 5.0  # seconds between two lines on the same batch


class ConsoleReader:
    """Shows one run at a time; a reader for `rlm_kernel.events.Emitter`, and a context manager.

    On a terminal it is live, drawn 8 times a second at most by a thread of its own; ``plain``, or a console
    that is no terminal, gives a line per fact and no control codes. Both end with the answer and a
    line on calls, tokens and cost. ``verbose`` shows whole cells and outputs, and, in plain lines, what
    children do. Without a ``console`` it writes to stdout.
    """

    def __init__(self, console: Console | None = None, *, verbose: bool = False, plain: bool = False) -> None:
        self._console = console or Console()
        self._verbose = verbose
        # Tree lines and the bar need more than a terminal that only knows a legacy encoding.
        drawable = self._console.is_terminal and not self._console.is_dumb_terminal
        self._plain = plain or not drawable or not self._console.encoding.lower().startswith("utf")
        self._lock = threading.Lock()
        self._progress = Progress()
        self._clock = 0.0
        self._live: Live | None = None
        self._said: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        """Show ``event``."""
        with self._lock:
            if isinstance(event, RunStarted) and event.parent_run is None:
                self._progress = Progress()
                self._said.clear()
            row = self._progress.row(event.call) if isinstance(event, CallFinished) else None
            cell = self._progress.cell(event.cell) if isinstance(event, CellFinished) else None
            self._progress.take(event)
            self._clock = time.monotonic()
        root = self._progress.root
        if root is None:
            return
        if self._plain:
            for line in self._lines(event, root, row, cell):
                self._say(line)
        elif isinstance(event, RunStarted) and event.run == root.id:
            self._start_live()
        if isinstance(event, RunFinished) and event.run == root.id:
            self._conclude()

    def close(self) -> None:
        """Give the terminal back. What a run that did not end has shown so far stays as a transcript."""
        if self._live is not None:
            self._conclude()

    def __enter__(self) -> ConsoleReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # Plain lines ------------------------------------------------------------------------------------

    def _say(self, line: str) -> None:
        encoding = self._console.encoding
        self._console.out(line.encode(encoding, "replace").decode(encoding), highlight=False)

    def _lines(
        self, event: Event, root: RunView, row: CallsRow | None, cell: CellView | None
    ) -> Iterator[str]:
        if isinstance(event, Notice | KernelLost):
            yield f"note: {self._progress.notes[-1]}"
        if event.run != root.id:
            if self._verbose:
                yield from (f"  [{event.run}] {line}" for line in _child_lines(event))
        elif isinstance(event, RunStarted):
            yield f"question: {one_line(root.query)}"
            yield f"models: {root.about}"
            yield from root.contexts
            yield from [root.estimate] if root.estimate else ()
        elif isinstance(event, KernelStarted):
            yield root.kernel
        elif isinstance(event, CallFinished):
            yield from self._call_lines(event, root, row)
        elif isinstance(event, CellStarted) and root.turn and root.turn.cells:
            yield from self._code_lines(event.turn, root.turn.cells[-1])
        elif cell is not None and root.turn:
            self._said.clear()
            yield from (f"turn {root.turn.number}: {_summary(each)}" for each in cell.rows.values())
            yield from _result_lines(root.turn.number, cell, verbose=self._verbose)

    def _call_lines(self, event: CallFinished, root: RunView, row: CallsRow | None) -> Iterator[str]:
        turn = root.turn
        if turn is None:
            return
        if row is None:
            yield f"turn {turn.number}: {_wrote(turn)}"
            return
        # A row says how far it is now and then; its last word comes with the end of its cell.
        if event.time - self._said.setdefault(id(row), row.began) >= _PLAIN_INTERVAL:
            self._said[id(row)] = event.time
            yield f"turn {turn.number}: {row.label}: {row.done:,} of {row.started:,} done"

    def _code_lines(self, turn: int, cell: CellView) -> Iterator[str]:
        lines = cell.code.split("\n")
        yield f"turn {turn}: runs {_count(len(lines), 'line')}: {one_line(lines[0])}"
        if self._verbose:
            yield from (f"    {line}" for line in lines)

    # The live tree ----------------------------------------------------------------------------------

    def _start_live(self) -> None:
        self._clock = time.monotonic()
        self._live = Live(
            console=self._console,
            get_renderable=self._tree,
            refresh_per_second=_REFRESH_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _tree(self) -> RenderableType:
        with self._lock:
            progress, root = self._progress, self._progress.root
            if root is None:
                return Text()
            now = progress.now + time.monotonic() - self._clock
            spent = _spent(progress.calls, progress.depth, progress.usage)
            tree = Tree(_line(one_line(root.query), "bold"), guide_style="dim")
            tree.add(_line(f"{now - root.began:.1f} s: {spent}"))
            tree.add(_line(f"{root.about}; {root.kernel or 'kernel is starting'}", "dim"))
            if root.estimate:
                tree.add(_line(root.estimate, "dim"))
            if len(root.turns) > _LIVE_TURNS:
                tree.add(_line(f"{len(root.turns) - _LIVE_TURNS:,} earlier turns", "dim"))
            for turn in root.turns[-_LIVE_TURNS:]:
                _add_turn(tree, turn, now, under_way=turn is root.turns[-1])
            if progress.notes:
                tree.add(_line(progress.notes[-1], "yellow"))
            return Group(tree)

    # The end ----------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            for part in self._transcript():
                self._console.print(part)
        finished, root = self._progress.finished, self._progress.root
        if finished is None:
            return
        if self._plain:
            self._say(_title(finished))
            for line in self._progress.answer.split("\n") if finished.text else ():
                self._say(line)
            for _, line in quote_lines(finished.evidence):
                self._say(line)
            self._say(_last_line(finished, self._progress.depth))
            if root is not None and root.estimate:
                self._say(root.estimate)
        else:
            style = "green" if finished.status == "answered" else "yellow"
            self._console.print(Text(_title(finished), style=f"bold {style}"))
            self._console.print(Text(self._progress.answer), soft_wrap=True)
            for verified, line in quote_lines(finished.evidence):
                self._console.print(Text(line, style="green" if verified else "bold red"), soft_wrap=True)
            self._console.print(Text(_last_line(finished, self._progress.depth), style=style))
            if root is not None and root.estimate:
                self._console.print(Text(root.estimate, style="dim"))

    def _transcript(self) -> Iterator[RenderableType]:
        root = self._progress.root
        if root is None:
            return
        yield Text(root.query, style="bold")
        yield Text(
            "\n".join([root.about, *root.contexts, *filter(None, [root.estimate, root.kernel])]), style="dim"
        )
        for turn in root.turns:
            yield Text(f"\nTurn {turn.number}: {_wrote(turn)}", style="red" if turn.error else "cyan")
            if not turn.cells:
                yield _text(_cut(turn.text.split("\n"), self._limit(_OUTPUT_LINES)))
            for cell in turn.cells:
                code = "\n".join(_cut(cell.code.split("\n"), self._limit(_CODE_LINES)))
                yield Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True)
                for row in cell.rows.values():
                    yield Text(f"  {_summary(row)}", style="red" if row.failed else "magenta")
                yield _text(_cut(cell.output, self._limit(_OUTPUT_LINES)), indent="  ")
                yield Text(f"  {_ended(cell)}", style=_cell_style(cell) or "dim")
        yield Text("\n".join(["", *(f"note: {each}" for each in self._progress.notes)]), style="yellow")

    def _limit(self, lines: int) -> int:
        return lines * 10 if self._verbose else lines


def _add_turn(tree: Tree, turn: TurnView, now: float, *, under_way: bool) -> None:
    if turn.usage is None:
        branch = tree.add(_line(f"[{turn.number}] the model is writing", "cyan"))
        if turn.tail:
            branch.add(_line(one_line(turn.tail[-_TAIL_CHARS:]), "dim"))
        return
    if turn.error or not turn.cells:
        tree.add(_line(f"[{turn.number}] {turn.error or one_line(turn.text)}", "red" if turn.error else ""))
    for cell in turn.cells:
        first = next((line for line in cell.code.split("\n") if line.strip()), "")
        ended = _ended(cell) if cell.status else "running"
        branch = tree.add(_line(f"[{turn.number}] {one_line(first, 60)}  {ended}", _cell_style(cell)))
        if not (under_way or cell.status in {"", "error"}):
            continue
        rows = list(cell.rows.values())
        if hidden := cell.more_rows + max(0, len(rows) - _LIVE_ROWS):
            branch.add(_line(f"{hidden:,} earlier batches", "dim"))
        for row in rows[-_LIVE_ROWS:]:
            _add_row(branch, row, now)
        for line in cell.output[-2:]:
            branch.add(_line(one_line(line), "dim"))


def _add_row(tree: Tree, row: CallsRow, now: float) -> None:
    full = _BAR * row.done // row.started if row.started else 0
    seconds = (row.ended if row.done == row.started else now) - row.began
    failed = f", {row.failed:,} failed" if row.failed else ""
    branch = tree.add(
        Text.assemble(
            f"{row.label} ",
            ("\N{BOX DRAWINGS HEAVY HORIZONTAL}" * full, "red" if row.failed else "green"),
            ("\N{BOX DRAWINGS HEAVY HORIZONTAL}" * (_BAR - full), "dim"),
            f" {row.done:,}/{row.started:,}{failed}, {seconds:.1f} s",
            no_wrap=True,
        )
    )
    children = list(row.children.values())
    for child in children[:_LIVE_CHILDREN]:
        inner = branch.add(_line(f"{one_line(child.query, 60)}  {now - child.began:.1f} s"))
        if child.turn:
            _add_turn(inner, child.turn, now, under_way=True)
    if len(children) > _LIVE_CHILDREN:
        branch.add(_line(f"{len(children) - _LIVE_CHILDREN:,} more children running", "dim"))


def _child_lines(event: Event) -> Iterator[str]:
    if isinstance(event, RunStarted):
        yield f"question at depth {event.depth}: {one_line(event.query)}"
    elif isinstance(event, CellStarted):
        yield f"turn {event.turn}: runs {one_line(event.code.strip())}"
    elif isinstance(event, RunFinished):
        yield f"{event.status}: {one_line(event.text)}"


def _result_lines(turn: int, cell: CellView, *, verbose: bool) -> Iterator[str]:
    yield f"turn {turn}: {_ended(cell)}"
    limit = _OUTPUT_LINES * 10 if verbose else 3
    yield from (f"    {line if verbose else one_line(line)}" for line in _cut(cell.output, limit))


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _text(lines: list[str], *, indent: str = "") -> RenderableType:
    return Group(*(Text(indent + line) for line in lines))


def _cut(lines: list[str], limit: int) -> list[str]:
    """Return ``limit`` lines at most: the first, and after a note on what is left out, the last."""
    if len(lines) <= limit:
        return lines
    last = limit // 3
    first = limit - last - 1
    return [*lines[:first], f"({len(lines) - first - last:,} lines left out)", *lines[len(lines) - last :]]


def _cell_style(cell: CellView) -> str:
    return "" if cell.status in {"ok", ""} else "red"


def _ended(cell: CellView) -> str:
    lost = f"; {cell.lost}" if cell.lost else ""
    dropped = f", {cell.dropped:,} characters of output cut" if cell.dropped else ""
    return f"{cell.status.replace('_', ' ') or 'unfinished'} after {cell.seconds:.2f} s{dropped}{lost}"


def _summary(row: CallsRow) -> str:
    seconds = max(row.ended - row.began, 0.0)
    failed = f", {row.failed:,} failed, the last with {row.error}" if row.failed else ""
    return f"{row.label}: {_count(row.started, 'call')} in {seconds:.1f} s{failed}"


def _wrote(turn: TurnView) -> str:
    if turn.error:
        return turn.error
    if turn.usage is None:
        return "no reply"
    tokens = f"{_short(turn.usage.input_tokens)} tokens in, {_short(turn.usage.output_tokens)} out"
    return f"replied in {turn.seconds:.1f} s, {tokens}"


def _title(finished: RunFinished) -> str:
    if finished.status == "answered":
        return "Answer:"
    return "Best effort:" if finished.text else "No answer."


def _last_line(finished: RunFinished, depth: int) -> str:
    link = "in" if finished.status == "answered" else "after"
    reason = f" ({one_line(finished.reason)})" if finished.reason else ""
    spent = _spent(finished.calls, depth, finished.usage)
    return f"{finished.status.replace('_', ' ')} {link} {finished.seconds:.1f} s{reason}: {spent}"


def _spent(calls: int, depth: int, usage: Usage) -> str:
    cached = ""
    if usage.input_tokens and usage.cached_tokens:
        cached = f" ({round(100 * usage.cached_tokens / usage.input_tokens)} % cached)"
    cost = "cost unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
    tokens = f"{_short(usage.input_tokens)} tokens in{cached}, {_short(usage.output_tokens)} out"
    return f"{_count(calls, 'call')}, depth {depth}, {tokens}, {cost}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _short(number: int) -> str:
    """Return a number of tokens in at most 4 digits: 940, 3.1k, 128k, 2.4M."""
    if number < 1000:
        return str(number)
    for limit, unit in ((1_000_000, "k"), (1_000_000_000, "M")):
        if number < limit * 0.9995:
            value = number / limit * 1000
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"
    return f"{number / 1e9:.1f}G"
