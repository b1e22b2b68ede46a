"""A run's events as the iterations, calls and usage that `rlms` knows; its callbacks are called on the way.

An iteration is one turn of a root model. It is complete when the next one begins or the run ends, and is
logged then. What a child spent is part of every run above it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ....events import (
    CallFinished,
    CallStarted,
    CellFinished,
    CellStarted,
    Compacted,
    Event,
    MessageAdded,
    RunFinished,
    RunStarted,
)
from ....messages import Message, message_text
from ....outputs import Output
from ....usage import Usage
from .types import CodeBlock, ModelUsageSummary, REPLResult, RLMChatCompletion, RLMIteration, UsageSummary

__all__ = ["Callbacks", "Trajectory", "streams"]

PREVIEW_CHARS = 80


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The functions that `rlms` calls as a run goes on; the first argument of each is the depth.

    The others: model and start of the prompt; model, seconds, and error or None; the turn, from 1; the turn
    and seconds.
    """

    subcall_start: Callable[[int, str, str], Any] | None = None
    subcall_complete: Callable[[int, str, float, str | None], Any] | None = None
    iteration_start: Callable[[int, int], Any] | None = None
    iteration_complete: Callable[[int, int, float], Any] | None = None


@dataclass(slots=True)
class _Tally:
    calls: int = 0
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class _Turn:
    number: int
    iteration: RLMIteration
    began: float


@dataclass(slots=True)
class _Run:
    started: RunStarted
    above: _Run | None
    messages: list[Message] = field(default_factory=list)
    tallies: dict[str, _Tally] = field(default_factory=dict)
    iterations: list[RLMIteration] = field(default_factory=list)
    turn: _Turn | None = None

    def count(self, model: str, usage: Usage) -> None:
        run: _Run | None = self
        while run is not None:
            tally = run.tallies.setdefault(model, _Tally())
            tally.calls += 1
            tally.usage += usage
            run = run.above

    def summary(self) -> UsageSummary:
        return UsageSummary({name: _summary(each) for name, each in self.tallies.items()})


class Trajectory:
    """Reads the events of one tree. ``on_iteration`` is given each complete iteration of the root.

    ``nested`` is whether calls of children hold the children's own iterations.
    """

    def __init__(
        self,
        on_iteration: Callable[[RLMIteration], Any] | None = None,
        callbacks: Callbacks = Callbacks(),
        *,
        nested: bool = False,
    ) -> None:
        self._on_iteration = on_iteration
        self._callbacks = callbacks
        self._nested = nested
        self._runs: dict[str, _Run] = {}
        self._root: _Run | None = None
        self._calls: dict[str, CallStarted] = {}
        self._children: dict[str, _Run] = {}
        self._blocks: dict[str, CodeBlock] = {}

    @property
    def usage(self) -> UsageSummary:
        """What the whole tree has used so far."""
        return UsageSummary({}) if self._root is None else self._root.summary()

    @property
    def last_response(self) -> str:
        """What the root model wrote last."""
        iterations = [] if self._root is None else self._root.iterations
        return next((each.response for each in reversed(iterations) if each.response.strip()), "")

    @property
    def last_error(self) -> str | None:
        """What the last code that failed wrote to stderr."""
        iterations = [] if self._root is None else self._root.iterations
        blocks = [block for each in iterations for block in each.code_blocks if block.result.stderr]
        return blocks[-1].result.stderr if blocks else None

    def __call__(self, event: Event) -> None:
        """Take up ``event``."""
        if isinstance(event, RunStarted):
            self._begin_run(event)
            return
        run = self._runs.get(event.run)
        if run is None:
            return
        if isinstance(event, MessageAdded):
            run.messages.append(event.message)
        elif isinstance(event, Compacted):
            run.messages = list(event.messages)
        elif isinstance(event, CallStarted):
            self._calls[event.call] = event
            if event.kind == "root":
                self._begin_turn(run, event)
        elif isinstance(event, CallFinished):
            self._end_call(run, event)
        elif isinstance(event, CellStarted):
            block = self._blocks[event.cell] = CodeBlock(event.code, REPLResult("", "", {}))
            if run.turn is not None:
                run.turn.iteration.code_blocks.append(block)
        elif isinstance(event, CellFinished):
            self._end_cell(event)
        elif isinstance(event, RunFinished):
            self._end_run(run, event)

    # Runs and turns ---------------------------------------------------------------------------------

    def _begin_run(self, event: RunStarted) -> None:
        above = self._runs.get(event.parent_run) if event.parent_run else None
        run = self._runs[event.run] = _Run(event, above)
        if self._root is None:
            self._root = run
        if event.parent_call:
            self._children[event.parent_call] = run
            self._tell(self._callbacks.subcall_start, event.depth, event.model, event.query[:PREVIEW_CHARS])

    def _begin_turn(self, run: _Run, event: CallStarted) -> None:
        self._end_turn(run, event.time)
        sent = event.messages or tuple(run.messages)
        prompt = [{"role": each["role"], "content": message_text(each)} for each in sent]
        run.turn = _Turn(event.turn, RLMIteration(prompt, "", []), event.time)
        run.iterations.append(run.turn.iteration)
        self._tell(self._callbacks.iteration_start, event.depth, event.turn)

    def _end_turn(self, run: _Run, time: float) -> None:
        turn, run.turn = run.turn, None
        if turn is None:
            return
        seconds = turn.iteration.iteration_time = max(0.0, time - turn.began)
        self._tell(self._callbacks.iteration_complete, run.started.depth, turn.number, seconds)
        if run is self._root:
            self._tell(self._on_iteration, turn.iteration)

    def _end_run(self, run: _Run, event: RunFinished) -> None:
        if run.turn is not None and event.status in ("answered", "exhausted"):
            run.turn.iteration.final_answer = event.text
        self._end_turn(run, event.time)
        if run.started.parent_call:
            error = None if event.status == "answered" else f"{event.status}: {event.reason}"
            self._tell(
                self._callbacks.subcall_complete, run.started.depth, run.started.model, event.seconds, error
            )

    # Calls and cells --------------------------------------------------------------------------------

    def _end_call(self, run: _Run, event: CallFinished) -> None:
        started = self._calls.pop(event.call, None)
        if started is None or started.kind == "tool":
            return
        child = self._children.pop(event.call, None)
        if child is None and event.error is None:
            run.count(started.model, event.usage)
        if started.kind == "root":
            if run.turn is not None:
                run.turn.iteration.response = event.text
            return
        block = self._blocks.get(started.cell or "")
        if block is not None:
            block.result.rlm_calls.append(self._completion(started, event, child))

    def _completion(self, started: CallStarted, event: CallFinished, child: _Run | None) -> RLMChatCompletion:
        if child is not None:
            usage = child.summary()
        elif event.error is None:
            usage = UsageSummary({started.model: _summary(_Tally(1, event.usage))})
        else:
            usage = UsageSummary({})
        metadata = None
        if child is not None and self._nested:
            metadata = {
                "run_metadata": {"root_model": child.started.model, "depth": child.started.depth},
                "iterations": [
                    {"type": "iteration", "iteration": number, **each.to_dict()}
                    for number, each in enumerate(child.iterations, 1)
                ],
            }
        prompt = "\n".join(message_text(each) for each in started.messages)
        return RLMChatCompletion(
            started.model, prompt, event.text, usage, event.seconds, metadata, event.error
        )

    def _end_cell(self, event: CellFinished) -> None:
        block = self._blocks.get(event.cell)
        if block is not None:
            block.result.stdout, block.result.stderr = streams(event.outputs, event.lost)
            block.result.execution_time = event.seconds

    @staticmethod
    def _tell(function: Callable[..., Any] | None, *arguments: Any) -> None:
        if function is None:
            return
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001  an edge: callbacks are the user's code
            name = getattr(function, "__qualname__", type(function).__name__)
            # Where warnings are errors, this one must not break the run either.
            with suppress(RuntimeWarning):
                warnings.warn(f"{name} failed and the run goes on: {error!r}", RuntimeWarning, stacklevel=2)


def streams(outputs: tuple[Output, ...], lost: str = "") -> tuple[str, str]:
    """Return what a cell showed and what went wrong, as texts: values and displays are shown too."""
    shown, wrong = [], []
    for output in outputs:
        if output.kind in ("stderr", "error"):
            wrong.append(output.text)
        else:
            shown.append(output.text if output.kind == "stdout" else f"{output.text}\n")
    return "".join(shown), "".join([*wrong, *([f"{lost}\n"] if lost else [])])


def _summary(tally: _Tally) -> ModelUsageSummary:
    usage = tally.usage
    cost: Decimal | None = usage.cost_usd
    return ModelUsageSummary(
        tally.calls,
        usage.input_tokens,
        usage.output_tokens,
        None if cost is None else float(cost),
        usage.cached_tokens,
    )
